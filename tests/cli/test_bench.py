from __future__ import annotations

import json
import re

import pytest

from ..backends.faulty_server import FaultyServer, fail, say, texts
from .conftest import Egm

ANSWER = say("At the left.", '</think> [{"bbox_2d": [0, 0, 500, 500]}]')
FEW = ("bench", "latency", "--requests", 3, "--rounds", 1, "--warmup", 1, "--max-tokens", 20)
COLUMNS = "load measured errors req/s mean p50 p90 p99 first token p50 queue p50 queue p99 tok/s tokens"


def test_a_table_of_a_server(egm: Egm) -> None:
    with FaultyServer({"": [ANSWER]}) as server:
        outcome = egm(*FEW, "--server", server.url, "--concurrency", 1, "--concurrency", 2, "--rate", 1500)
        assert len(server.asked) == 12
    assert (outcome.code, outcome.err) == (0, "")
    engine, how, columns, *rows = outcome.out.splitlines()
    assert re.match(r"server, model tiny; egm \S+, python 3\S+, openai \d", engine)
    assert how == (
        "cold images, at most 20 tokens; of each load so many requests as stand under measured, after 1 to warm up; "
        "times in seconds"
    )
    assert " ".join(columns.split()) == COLUMNS
    assert [re.match(r"(.+?) +3 +0 +\d+\.\d\d ", row)[1] for row in rows] == [  # type: ignore[index]
        "1 at once",
        "2 at once",
        "Poisson 1500/s",
    ]
    assert all(row.endswith(" 3.0") for row in rows)


def test_json_alone_on_standard_output(egm: Egm) -> None:
    with FaultyServer({"": [ANSWER, ANSWER, fail(500, "broken"), ANSWER]}) as server:
        outcome = egm(*FEW, "--server", server.url, "--concurrency", 2, "--warm-images", "--seed", 5, "--json")
    assert outcome.code == 0
    assert re.match("first error: .*broken", outcome.err)
    numbers = json.loads(outcome.out)
    (row,) = numbers.pop("loads")
    versions = numbers.pop("versions")
    assert {"egm", "python", "openai"} <= set(versions)
    assert numbers == {
        "engine": "server",
        "model": "tiny",
        "hardware": None,
        "images": "warm",
        "warmup": 1,
        "rounds": 1,
        "max_tokens": 20,
        "cut_tail": False,
        "seed": 5,
    }
    assert (row["concurrency"], row["requests"], row["errors"]) == (2, 3, 1)
    assert set(row) == {
        *("loop", "concurrency", "rate", "requests", "errors", "first_error", "wall_seconds", "requests_per_second"),
        *("latency", "seconds", "first_token", "queue", "tokens_per_second", "mean_tokens"),
        *("operations", "bytes"),
    }


@pytest.mark.parametrize("chosen", [("--rate", "900"), ("--concurrency", "3")])
def test_only_what_is_asked_for(egm: Egm, chosen: tuple[str, str]) -> None:
    with FaultyServer({"": [ANSWER]}) as server:
        outcome = egm(*FEW, "--server", server.url, *chosen, "--json")
    assert [row["loop"] for row in json.loads(outcome.out)["loads"]] == ["open" if "--rate" in chosen else "closed"]


def test_questions_are_those_of_the_codec(egm: Egm) -> None:
    with FaultyServer({"": [ANSWER]}) as server:
        for codec in ("internvl", "qwen3_vl_instruct"):
            assert egm(*FEW, "--server", server.url, "--concurrency", 1, "--codec", codec, "--json").code == 0
        first, last = (texts(server.asked[index])[0] for index in (0, -1))
    assert first.startswith("Please provide the bounding box coordinate of the region this sentence describes: <ref>")
    assert last.startswith("Locate ")
    tiny = egm("bench", "latency", "--model", "egm-tiny", "--codec", "qwen")
    assert (tiny.code, "unknown codec 'qwen'" in tiny.err) == (2, True)


def test_all_failed(egm: Egm) -> None:
    with FaultyServer({"": [fail(500, "broken")]}) as server:
        outcome = egm(*FEW, "--server", server.url, "--concurrency", 1)
    assert outcome.code == 1
    assert "broken" in outcome.err
    assert re.search(r"^1 at once +3 +3 +0\.00 +- +- ", outcome.out, re.MULTILINE)


def test_egm_tiny_in_this_process(egm: Egm) -> None:
    outcome = egm(
        "bench", "latency", "--model", "egm-tiny", "--requests", 1, "--rounds", 1, "--warmup", 0, "--max-tokens", 4
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("NumpyBackend, model egm-tiny; egm ")
    assert re.search(r"^1 at once +1 +0 .* 4\.0 +\d\.\d\d +0\.0\d$", outcome.out, re.MULTILINE)
    assert "computed, at 2 bytes a number" in " ".join(outcome.out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to measure: give --server URL, --serve ENGINE, or --model egm-tiny"),
        (("--model", "egm-tiny", "--concurrency", "8"), "one request at a time: measure concurrency 1, name a device"),
        (("--model", "egm-tiny", "--rate", "2"), "takes no arrivals"),
        (("--model", "egm-tiny", "--device", "cud"), "there is no device 'cud'"),
        (("--server", "http://127.0.0.1:1", "--model", "m", "--device", "cpu"), "leave them out"),
        (("--model", "egm-tiny", "--requests", "0"), "requests 0 is out of range"),
        (("--model", "egm-tiny", "--max-tokens", "0"), "max_new_tokens 0 is out of range"),
        (("--model", "nowhere/"), ""),
        (("--server", "ftp://x", "--model", "m"), "no server's URL"),
        (("--server", "http://127.0.0.1:1", "--model", "m", "--rate", "-1"), "rate -1.0 is out of range"),
        (("--server", "http://127.0.0.1:1", "--model", "m", "--rounds", "8"), "fewer requests"),
        (("--server", "http://127.0.0.1:1"), "does not say which models"),
    ],
)
def test_bad_input(egm: Egm, arguments: tuple[str, ...], message: str) -> None:
    outcome = egm("bench", "latency", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
