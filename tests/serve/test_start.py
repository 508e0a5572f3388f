"""Engines in processes of their own: started, checked, told apart from those that fail, and gone afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from egm.backends import GenerationSettings
from egm.backends.retry import RetryPolicy
from egm.datasets.synthetic.example import example_picture
from egm.errors import BackendError, EgmError
from egm.grounder import Grounder
from egm.processes import descendants
from egm.serve import serve
from egm.serve.plan import KEY
from egm.serve.process import EngineProcess
from egm.serve.supervisor import GRACE

from .conftest import Install

ON_CPU = ["--device", "cpu"]


def is_gone(process: int) -> bool:
    """Whether a process has ended: it is no more, or waits for its parent to take notice."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def wait_until(reached: object, seconds: float = 60.0) -> None:
    """Look for what another process does, until it has."""
    end = time.monotonic() + seconds
    while not reached():  # type: ignore[operator]
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)


def test_an_engine_is_served_asked_and_ended(install: Install, folder: Path, tmp_path: Path) -> None:
    install("sglang", "0.5.17")
    planned = []
    with serve(
        *(str(folder), "sglang"), aim="throughput", passed_on=ON_CPU, planned=lambda *seen: planned.append(seen)
    ) as server:
        assert (server.engine, server.version, server.codec) == ("sglang", "9.9", "qwen3_vl")  # as it says itself
        assert server.answer.startswith("box ")
        assert server.ended is None
        settings = GenerationSettings(max_new_tokens=64)
        with Grounder.connect(server.url, server.model, codec=server.codec, settings=settings) as grounder:
            assert grounder.ground(example_picture(), "the cup").box is not None
        assert planned[0][1] == server.log
        assert server.log.stat().st_mode & 0o077 == 0
    assert server.ended is not None
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["arguments"] == planned[0][0].command()[3:]
    assert seen["environment"] == {"SGLANG_VLM_CACHE_SIZE_MB": "4096"}
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))


def test_a_key_is_on_no_command_line(
    install: Install, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "a-key-of-mine")
    install("sglang", "0.5.17")
    install("vllm", "0.26.0")
    with serve(str(folder), "sglang", passed_on=ON_CPU) as server:
        assert server.key == "a-key-of-mine"
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert "a-key-of-mine" not in " ".join(seen["arguments"])
    assert (seen["config"], seen["mode"], seen["environment"]) == ('api-key: "a-key-of-mine"\n', "0o700", {})
    assert not Path(seen["arguments"][seen["arguments"].index("--config") + 1]).exists()
    with serve(str(folder), "vllm", passed_on=ON_CPU):
        pass
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["environment"] == {"VLLM_API_KEY": "a-key-of-mine"}
    assert "a-key-of-mine" not in " ".join(seen["arguments"])


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        (
            "memory",
            r"ended with exit code 1: torch\.OutOfMemoryError: .*: the GPU has too little memory: .*--aim memory",
        ),
        ("missing", r"No module named 'flash_attn': a package of the engine is missing"),
        ("unknown", r"\['OddForCausalLM'\] are not supported for now.: this engine does not know"),
        ("plain", r"exit code 1: RuntimeError: something that nobody has seen before \(log: "),
        ("silent", r"the server does not answer a question of grounding: "),
        ("dies when asked", r"sglang ended with exit code 3: FATAL: the scheduler hit an exception \(log: "),
    ],
)
def test_an_engine_that_fails_says_why_in_one_line(
    install: Install, folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str, says: str
) -> None:
    install("sglang", "0.5.17")
    monkeypatch.setenv("STUB", mode)
    before = descendants(os.getpid())
    with pytest.raises(BackendError, match=says) as caught, serve(str(folder), "sglang", passed_on=ON_CPU):
        pass
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert descendants(os.getpid()) == before


def test_a_server_that_ends_while_it_serves_says_why(
    install: Install, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("sglang", "0.5.17")
    monkeypatch.setenv("STUB", "dies after 2")  # the check is the first
    with serve(str(folder), "sglang", passed_on=ON_CPU) as server:
        once = RetryPolicy(retries=0)
        with (
            Grounder.connect(server.url, server.model, retry=once) as grounder,
            pytest.raises(BackendError, match="did not answer"),
        ):
            grounder.ground(example_picture(), "the cup")
        wait_until(lambda: server.wait(0.1))
        assert "sglang ended with exit code 3: FATAL: the scheduler hit an exception (log: " in (server.ended or "")


def test_an_engine_that_is_never_ready(install: Install, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("sglang", "0.5.17")
    monkeypatch.setenv("STUB", "never")
    told: list[float] = []
    with (
        pytest.raises(BackendError, match=r"sglang was not ready after 1 s: .*\(log: "),
        serve(str(folder), "sglang", passed_on=ON_CPU, seconds=1.0, waiting=lambda gone, _: told.append(gone)),
    ):
        pass
    assert told == sorted(told) != []


def test_a_taken_port_is_said_before_anything_is_started(
    install: Install, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "a-key-of-mine")
    install("sglang", "0.5.17")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(EgmError, match=f"port {port} of 127.0.0.1 is taken"),
            serve(str(folder), "sglang", port=port, passed_on=ON_CPU),
        ):
            pass
    with (
        pytest.raises(EgmError, match="cannot be listened on"),
        serve(str(folder), "sglang", passed_on=[*ON_CPU, "--host", "192.0.2.1"]),
    ):
        pass
    assert not (tmp_path / "seen.json").exists()


KEEPS = """
import sys
from pathlib import Path
from egm.serve.process import EngineProcess
import os, signal
process = EngineProcess([sys.executable, "-m", "sglang.launch_server", "--host", "127.0.0.1", "--port", "0"],
                        os.environ, Path(sys.argv[1]), grace=float(sys.argv[2]))
print(process._supervisor.pid, flush=True)
signal.pause()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="descendants are found in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_where_the_process_that_serves_is_killed(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Nor of an engine whose children do not listen to SIGTERM, or sit in another session with no parent."""
    install("sglang", "0.5.17")
    monkeypatch.setenv("STUB", "family")
    pids = tmp_path / "pids"
    command = [sys.executable, "-c", KEEPS, str(tmp_path / "log"), "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        supervisor = int(parent.stdout.readline())
        wait_until(lambda: pids.exists() and len(pids.read_text().splitlines()) == 2)
        family = [*map(int, pids.read_text().split()), *descendants(supervisor), supervisor]
        assert len(set(family)) >= 4
        parent.send_signal(number)
    wait_until(lambda: all(map(is_gone, family)))


@pytest.mark.skipif(sys.platform != "linux", reason="descendants are found in /proc")
def test_a_second_signal_kills_at_once(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = [
        sys.executable,
        "-c",
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1); signal.pause()",
    ]
    process = EngineProcess([sys.executable, "-u", *deaf[1:]], os.environ, tmp_path / "log", grace=GRACE * 100)
    wait_until(lambda: process.last_line() == "1")
    assert process._supervisor.stdin is not None
    process._supervisor.stdin.close()
    process._supervisor.send_signal(signal.SIGTERM)
    wait_until(lambda: process.code() is not None)
    assert process.why() == f"was ended by SIGKILL: 1 (log: {tmp_path / 'log'})"
    process.stop()


def test_a_command_that_cannot_be_started(tmp_path: Path) -> None:
    process = EngineProcess(["/no/such/engine"], os.environ, tmp_path / "log")
    wait_until(lambda: process.code() is not None)
    assert "exit code 127: error: cannot start /no/such/engine: No such file" in process.why()
    process.stop()
