from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from egm import bench
from egm.backends import ScriptedBackend
from egm.codecs import get_codec
from egm.errors import BackendError, DataError, EgmError
from egm.grounder import Grounder

from .backends.faulty_server import FaultyServer, Play, fail, say

ANSWER = say("At the left.", '</think> [{"bbox_2d": [0, 0, 500, 500]}]')
SPREAD = {"n", "mean", "p50", "p90", "p99"}


def measure(server: FaultyServer, **options: Any) -> list[dict[str, Any]]:
    with bench.connect(server.url, "tiny", max_tokens=20) as grounder:
        return list(bench.measure(grounder, **options))


def shown(server: FaultyServer) -> list[bytes]:
    return [picture.tobytes() for _, picture in server.pictures()]


def test_arrivals_come_from_the_seed_at_the_rate() -> None:
    times = bench.arrivals(4.0, 20_000, seed=3)
    assert times == bench.arrivals(4.0, 20_000, seed=3)
    assert times != bench.arrivals(4.0, 20_000, seed=4)
    assert times == sorted(times)
    gaps = [after - before for before, after in zip([0.0, *times], times, strict=False)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(0.25, rel=0.03)
    # The exponential's standard deviation is its mean, and a share of 1 / e of its gaps is longer than that.
    assert (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 == pytest.approx(0.25, rel=0.05)
    assert sum(gap > 0.25 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_rates_out_of_range(rate: float) -> None:
    with pytest.raises(EgmError, match="above 0"):
        bench.arrivals(rate, 3)


def test_numbers_of_each_load() -> None:
    with FaultyServer({"": [ANSWER]}) as server:
        rows = measure(server, requests=5, rounds=2, concurrency=[1, 2], rates=[2000.0], warmup=2)
        assert len(server.asked) == 3 * (5 + 2)
        assert {query["max_tokens"] for query in server.asked} == {20}
    assert [(row["loop"], row["concurrency"], row["rate"]) for row in rows] == [
        ("closed", 1, None),
        ("closed", 2, None),
        ("open", None, 2000.0),
    ]
    for row in rows:
        assert (row["requests"], row["errors"], row["first_error"], row["mean_tokens"]) == (5, 0, None, 3)
        assert row["requests_per_second"] == pytest.approx(5 / row["wall_seconds"])
        assert row["tokens_per_second"] == pytest.approx(15 / row["wall_seconds"])
        for name in ("latency", "first_token", "queue"):
            assert set(row[name]) == SPREAD
            assert row[name]["n"] == 5
        assert row["first_token"]["p50"] <= row["latency"]["p99"] <= row["wall_seconds"]
        json.dumps(row, allow_nan=False)


def test_a_closed_loop_is_measured_for_several_rounds() -> None:
    with FaultyServer({"": [ANSWER]}) as server:
        rows = measure(server, concurrency=[1, 8, 16], rates=[2000.0], warmup=0, cold=False)
        assert [row["requests"] for row in rows] == [48, 48, 64, 48]
        assert len(server.asked) == 208
        rows = measure(server, requests=5, rounds=1, concurrency=[4, 6], warmup=0, cold=False)
    assert [row["requests"] for row in rows] == [5, 6]


@pytest.mark.parametrize("requests", [40, 48])
def test_the_loads_of_the_command_have_pictures_enough(requests: int) -> None:
    with FaultyServer({"": [ANSWER]}) as server, bench.connect(server.url, "tiny") as grounder:
        bench.measure(grounder, requests=requests, concurrency=[1, 8, 64], rates=[2.0, 8.0])  # or it would refuse


def test_cold_pictures_differ_and_a_warm_one_is_repeated() -> None:
    with FaultyServer({"": [ANSWER]}) as server:
        measure(server, requests=3, rounds=1, concurrency=[1, 2], warmup=1)
        assert len(set(shown(server))) == 8
        assert {kind for kind, _ in server.pictures()} == {"image/jpeg"}
        before = set(shown(server))
        measure(server, requests=1, rounds=1, warmup=0, seed=1)
        assert not before & set(shown(server)[8:])
    with FaultyServer({"": [ANSWER]}) as server:
        measure(server, requests=5, rounds=1, concurrency=[1, 2], warmup=1, cold=False)
        assert len(set(shown(server))) == 1
        assert len(shown(server)) == 12


def test_a_closed_loop_keeps_so_many_under_way() -> None:
    with FaultyServer({"": [ANSWER]}) as server:
        server.gate = threading.Barrier(3)  # answers nobody before three have come
        (row,) = measure(server, requests=9, rounds=3, concurrency=[3], warmup=0)
        assert (row["errors"], server.busiest) == (0, 3)


def test_an_open_loop_waits_for_no_answer() -> None:
    with FaultyServer({"": [ANSWER]}) as server:
        server.gate = threading.Barrier(6)
        (row,) = measure(server, requests=6, concurrency=[], rates=[1000.0], warmup=0)
        assert (row["errors"], server.busiest) == (0, 6)


def test_errors_are_counted_and_not_tried_again() -> None:
    with FaultyServer({"": [ANSWER, fail(503, "busy"), ANSWER, Play(before="reset"), ANSWER]}) as server:
        (row,) = measure(server, requests=6, warmup=0)
        assert len(server.asked) == 6
    assert (row["requests"], row["errors"], row["latency"]["n"]) == (6, 2, 4)
    assert "busy" in row["first_error"]
    assert row["requests_per_second"] == pytest.approx(4 / row["wall_seconds"])


def test_nothing_answered_and_nothing_counted() -> None:
    with FaultyServer({"": [fail(500)]}) as server:
        (row,) = measure(server, requests=2, concurrency=[], rates=[2000.0])
    assert (row["errors"], row["latency"], row["first_token"], row["queue"]) == (2, None, None, None)
    assert (row["tokens_per_second"], row["mean_tokens"], row["requests_per_second"]) == (None, None, 0)
    with FaultyServer({"": [say("</think> []", usage=None)]}) as server:
        (row,) = measure(server, requests=2, rounds=1)
    assert (row["errors"], row["tokens_per_second"], row["mean_tokens"]) == (0, None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"requests": 0}, "requests 0 is out of range"),
        ({"warmup": -1}, "warmup -1 is out of range"),
        ({"concurrency": []}, "nothing to measure"),
        ({"rounds": 0}, "rounds 0 is out of range"),
        ({"concurrency": [64], "rounds": 8}, "516 requests need as many pictures"),
        ({"concurrency": [0]}, "concurrency 0 is out of range: give 1 to 1000"),
        ({"concurrency": [1001]}, "concurrency 1001 is out of range"),
        ({"rates": [2.0]}, "takes no arrivals"),
        ({"rates": [0.0]}, "rate 0.0 is out of range"),
        ({"requests": 497}, "501 requests need as many pictures, and SynthRef val has 500"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(options: dict[str, Any], message: str) -> None:
    backend = ScriptedBackend([])
    with pytest.raises(EgmError, match=message) as refused:
        bench.measure(Grounder(backend, get_codec("qwen3_vl")), **options)
    assert isinstance(refused.value, DataError) == ("pictures" in message)


def test_in_this_process() -> None:
    grounder = Grounder(ScriptedBackend(["</think> []"] * 5), get_codec("qwen3_vl"))
    (row,) = bench.measure(grounder, requests=3, rounds=1, warmup=2)
    assert (row["requests"], row["errors"], row["latency"]["n"], row["queue"]["p99"]) == (3, 0, 3, 0)
    assert row["first_token"] is None


class Noting(ScriptedBackend):
    """Notes how many requests came together; every fourth call fails."""

    def generate(self, requests: Any, settings: Any) -> Any:
        sizes.append(len(requests))
        if len(sizes) % 4 == 0:
            raise BackendError("full")
        return super().generate(requests, settings)


sizes: list[int] = []


def test_in_this_process_a_load_is_batches() -> None:
    sizes.clear()
    grounder = Grounder(Noting(["</think> []"] * 20), get_codec("qwen3_vl"))
    (row,) = bench.measure(grounder, requests=8, rounds=1, concurrency=[3], warmup=4)
    assert sizes == [3, 1, 3, 3, 2]  # the fourth call, of three, fails
    assert (row["requests"], row["errors"], row["latency"]["n"]) == (8, 3, 5)
    assert [value is None for value in row["seconds"]] == [False] * 3 + [True] * 3 + [False] * 2


def about(server: FaultyServer, **pages: Any) -> dict[str, Any]:
    server.pages |= {"/" + path: page for path, page in pages.items()}
    with bench.connect(server.url) as grounder:
        return bench.describe(grounder)


def test_a_server_that_does_not_say_what_it_is() -> None:
    with FaultyServer({}) as server:
        said = about(server)
    assert (said["engine"], said["model"], said["hardware"]) == ("server", "tiny", None)
    assert set(said["versions"]) == {"egm", "openai", "python"}


def test_a_server_says_what_it_is() -> None:
    models = {"data": [{"id": "m", "owned_by": "sglang"}]}
    with FaultyServer({}) as server:
        said = about(
            server,
            **{"v1/models": models},
            server_info={"version": "0.5\x1b[31m"},  # not to be printed
            get_server_info={"version": "0.5.6"},
        )
    assert (said["engine"], said["versions"]["sglang"]) == ("sglang", "0.5.6")


@pytest.mark.parametrize(
    "page",
    [
        Play(status=500, raw=b'{"version": "1"}'),
        Play(raw=b"<html>"),
        Play(raw=b"[1]"),
        Play(raw=b'{"version": 1}'),
        Play(raw=b'{"version": "1", "x": "' + b"x" * 2**20 + b'"}'),
    ],
    ids=["failed", "html", "list", "number", "endless"],
)
def test_what_is_no_answer_is_none(page: Any) -> None:
    with FaultyServer({}) as server:
        assert set(about(server, version=page)["versions"]) == {"egm", "openai", "python"}


def test_the_key_goes_to_the_named_server_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No redirect is followed, and no proxy asked for a server on this machine."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with FaultyServer({}) as other, FaultyServer({}) as server:
        other.pages["/version"] = {"version": "1"}
        for name in ("http_proxy", "all_proxy"):
            monkeypatch.setenv(name, other.url)
        away = Play(status=302, raw=b"{}", headers=(("Location", f"{other.url}/version"),))
        assert "server" not in about(server, version=away)["versions"]
        assert other.fetched == []
        assert ("/version", "Bearer secret") in [(path, said.get("authorization")) for path, said in server.fetched]


def test_a_model_in_this_process_is_described() -> None:
    with bench.load("egm-tiny") as grounder:
        said = bench.describe(grounder)
    assert (said["engine"], said["model"]) == ("NumpyBackend", "egm-tiny")
    assert set(said["versions"]) == {"egm", "python", "numpy"}
    assert said["hardware"].startswith("CPU (")


def test_no_more_requests_at_once_than_connections() -> None:
    refused = pytest.raises(EgmError, match="concurrency 3 is out of range: give 1 to 2")
    with FaultyServer({"": [ANSWER]}) as server, Grounder.connect(server.url, concurrency=2) as grounder, refused:
        bench.measure(grounder, concurrency=[3])


def test_a_floor_is_what_is_read_over_the_bandwidth() -> None:
    rows: list[dict[str, Any]] = [
        {"floor_bytes": 3e9, "latency": {"p50": 0.006}},
        {"floor_bytes": 3e9, "latency": None},
        {"latency": {"p50": 1.0}},
    ]
    bench.add_floors(rows, 1e12)
    assert rows == [
        {"latency": {"p50": 0.006}, "floor_seconds": 0.003, "times_floor": 2.0},
        {"latency": None, "floor_seconds": 0.003, "times_floor": None},
        {"latency": {"p50": 1.0}},
    ]
    unknown: list[dict[str, Any]] = [{"floor_bytes": 3e9, "latency": {"p50": 0.006}}]
    bench.add_floors(unknown, None)
    assert (unknown[0]["floor_seconds"], unknown[0]["times_floor"]) == (None, None)


@pytest.mark.gpu
def test_a_model_on_a_gpu_has_a_floor_beside_it() -> None:
    bandwidth = bench.copy_bandwidth(2**28)
    assert bandwidth is not None
    assert 1e10 < bandwidth < 1e14
    with bench.load("egm-tiny", device="cuda", dtype="bfloat16", max_tokens=8) as grounder:
        rows = list(bench.measure(grounder, requests=2, rounds=1, concurrency=[1, 2], warmup=1))
    bench.add_floors(rows, bandwidth)
    assert all(row["times_floor"] > 1 for row in rows)
    assert rows[0]["floor_seconds"] < rows[1]["floor_seconds"] < 2 * rows[0]["floor_seconds"]
