"""`egm web` on the command line: what is refused before anything is opened."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Egm


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "0.0.0.0"), "can be reached from other machines, and there is no key"),
        (("--run", "nowhere"), "there is no journal at 'nowhere'"),
        (("--images", "nowhere"), "there is no folder 'nowhere' of images"),
        (("--key-file", "nowhere"), "cannot read --key-file nowhere"),
        (("no-such/folder/",), "no-such/folder"),
        (("egm-tiny", "egm-tiny"), "egm-tiny is given twice"),
        (("--max-tokens", 0), "max_new_tokens 0 is out of range"),
        (("--server", "nowhere"), "is no server's URL"),
    ],
)
def test_bad_input_is_one_line(egm: Egm, arguments: tuple[object, ...], said: str) -> None:
    outcome = egm("web", "--port", 0, *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert said in outcome.err


def test_a_port_that_is_taken_costs_no_model(egm: Egm) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        outcome = egm("web", "no-such/model", "--port", taken.getsockname()[1])
    assert "is taken" in outcome.err


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_leaves_no_folder_behind(tmp_path: Path, name: str) -> None:
    heard = f"import signal; signal.signal(signal.{name}, signal.SIG_DFL)"  # which nohup has passed over
    child = subprocess.Popen(
        [sys.executable, "-c", f"{heard}; from egm.cli import main; main()", "web", "--port", "0"],
        env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    try:
        with child.stdout:
            assert child.stdout.readline().startswith("http://127.0.0.1:")
        assert [path.name for path in tmp_path.glob("egm-web-*")]
        child.send_signal(getattr(signal, name))  # at once, when it says that it is there
        assert child.wait(60) in (128 + signal.SIGTERM, -signal.SIGTERM)
    finally:
        child.kill()
    assert not list(tmp_path.iterdir())


def test_a_short_key_is_none(egm: Egm, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("short")
    assert "is no key" in egm("web", "--host", "0.0.0.0", "--key-file", "key").err
