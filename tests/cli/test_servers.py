"""`egm eval` with several servers: our own ones, of which one is killed, and what is refused."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from egm.journal import read_journal

from ..backends.faulty_server import FaultyServer, say
from .conftest import Egm

ANSWER = '</think> [{"bbox_2d": [0, 0, 500, 500]}]'
SHORT = ("--max-tokens", 4, "--out")  # of egm-tiny: thoughts that are cut off, the same from all of them


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def serving(*ports: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Servers of egm-tiny, each at its port."""
    with ExitStack() as stack:
        children = []
        for port in ports:
            child = subprocess.Popen(
                [sys.executable, "-m", "egm.server", "egm-tiny", "--port", str(port)],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            children.append(stack.enter_context(child))
            stack.callback(child.kill)
        for child in children:
            assert child.stderr is not None
            assert any(re.search(r"serving .* at http", line) for line in child.stderr), "it did not start"
        yield children


def test_one_of_our_own_servers_is_killed_and_started_again(egm: Egm, tmp_path: Path) -> None:
    ports = [free_port() for _ in range(2)]
    command = [sys.executable, "-c", "from egm.cli import main; main()", "eval", "synthref/val", "--scenes", "5"]
    urls = [word for port in ports for word in ("--server", f"http://127.0.0.1:{port}")]
    journal = tmp_path / "served" / "journal.jsonl"
    with ExitStack() as stack:
        killed, _ = stack.enter_context(serving(*ports))
        run = stack.enter_context(
            subprocess.Popen([*command, *urls, *map(str, SHORT), "served"], stderr=subprocess.PIPE, text=True)
        )
        assert run.stderr is not None
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 2):
            assert run.poll() is None
        killed.send_signal(signal.SIGKILL)
        said = [run.stderr.readline()]
        stack.enter_context(serving(ports[0]))
        said += run.stderr.readlines()
    assert run.returncode == 0
    assert f"http://127.0.0.1:{ports[0]}/v1 is left out until it answers, 1 of 2 servers go on: " in said[0]
    served = read_journal(tmp_path / "served")
    assert (served[0].engine["backend"], served[0].engine["server"]) == ("OpenAIBackend", "this machine/v1")
    assert served[0].concurrency == 16
    assert egm("eval", "synthref/val", "--scenes", 5, *SHORT, "here").code == 0
    here = {record.key: record for record in read_journal(tmp_path / "here")[1]}
    assert len(served[1]) == len(here) > 12
    assert all(record.text == here[record.key].text for record in served[1])


def test_a_run_of_one_server_is_gone_on_with_by_two(egm: Egm) -> None:
    command = ("eval", "synthref/val", "--scenes", 2, "--concurrency", 4, "--out", "run")
    with FaultyServer({"": [say(ANSWER)]}) as one, FaultyServer({"": [say(ANSWER)]}) as other:
        assert egm(*command, "--server", one.url).code == 0
        outcome = egm(*command, "--server", one.url, "--server", other.url)
        assert outcome.code == 0, outcome.err
        assert "answers were there already" in outcome.err


def test_bad_input_is_one_line(egm: Egm) -> None:
    command = ("eval", "synthref/val", "--scenes", 1)
    with FaultyServer({}, models=("a",)) as one, FaultyServer({}, models=("b",)) as other:
        for more, said in (
            (("--server", one.url, "--server", other.url), "the servers serve different models"),
            (("--server", one.url, "--server", one.url), "is given twice"),
            (("--server", one.url, "--server", "nowhere"), "'nowhere' is no server's URL"),
            (("--server", "http://127.0.0.1:1", "--server", "http://127.0.0.1:9"), "none of the 2 servers answers"),
            (("--server", one.url, "--script", "x"), "--server and --script are two sources"),
            (("--server", one.url, "--serve", "egm"), "--serve starts a server, and --server names one"),
        ):
            outcome = egm(*command, *more)
            assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome.err
            assert said in outcome.err
