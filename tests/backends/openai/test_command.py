"""`egm ground --server`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from egm.cli import main

from ..faulty_server import FaultyServer, fail, say

ANSWER = 'There.\n</think>\n\n[{"bbox_2d": [0, 0, 500, 500]}]'

Ground = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ground(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Ground:
    Image.new("RGB", (64, 32), "teal").save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # so that what a command sets ends with the test

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["egm", "ground", "a.png", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return (int(end.value.code or 0), *capfd.readouterr())

    return run


def test_boxes_from_a_server(ground: Ground) -> None:
    with FaultyServer({"": [say(ANSWER)]}, models=("some/model",)) as server:
        code, out, err = ground("the cup", "the mug", "--json", "--server", server.url, "--max-tokens", "9")
        assert (code, err) == (0, "")
        rows: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
        assert [(row["phrase"], row["model"], row["box"]) for row in rows] == [
            ("the cup", "some/model", [0, 0, 32, 16]),
            ("the mug", "some/model", [0, 0, 32, 16]),
        ]
        assert ground("the cup", "--server", server.url, "--model", "other", "--show-reasoning")[0] == 0
        assert {(query["model"], query["max_tokens"]) for query in server.asked} == {("some/model", 9), ("other", 4096)}


def test_a_server_that_refuses(ground: Ground) -> None:
    with FaultyServer({"": [say(ANSWER)], "the mug": [fail(400, "no\nmugs")]}) as server:
        code, out, err = ground("the mug", "--server", server.url)
    assert (code, out) == (2, "")
    assert err == f"error: 'tiny' at {server.url}/v1 did not answer: HTTP 400: no mugs\n"


def test_a_model_that_does_not_think_is_asked_by_its_own_codec(ground: Ground) -> None:
    reply = 'Here: ```json\n[\n\t{"bbox_2d": [100, 200, 300, 400], "label": "the red mug"}\n]\n```'
    with FaultyServer({"": [say(reply)]}) as server:
        code, out, _ = ground("the red mug", "--json", "--server", server.url, "--codec", "qwen3_vl_instruct")
        assert (code, json.loads(out)["box"]) == (0, [6.4, 6.4, 19.2, 12.8])
        code, out, _ = ground("the red mug", "--server", server.url)  # whose reasoning then never ends
    assert (code, "no box: the answer holds no box" in out) == (1, True)


def test_a_codec_that_is_named_asks_and_reads_a_model_in_this_process_too(ground: Ground) -> None:
    code, out, _ = ground("the cup", "--codec", "internvl", "--max-tokens", "2", "--json")
    assert (code, json.loads(out)["failure"]) == (1, "truncated")
    assert "error: unknown codec 'qwen': did you mean" in ground("the cup", "--codec", "qwen")[2]


def test_bad_input(ground: Ground) -> None:
    with FaultyServer({}, models=("b", "a")) as server:
        assert ground("x", "--server", server.url)[::2] == (
            2,
            f"error: {server.url}/v1 serves several models: name one, as --model does: a, b\n",
        )
    assert "error: 'nowhere' is no server's URL: give one such as" in ground("x", "--server", "nowhere")[2]
    placed = ground("x", "--server", "http://127.0.0.1:1", "--device", "cpu")[2]
    assert "are for a model in this process: leave them out" in placed
    assert "error: unknown codec 'qwen': did you mean" in ground("x", "--server", "http://a", "--codec", "qwen")[2]
