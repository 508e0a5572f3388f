"""The server as a process: what is wrong is one line before a model is loaded, and its end is clean."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from egm.errors import EgmError
from egm.server.run import KEY_VARIABLE, check_address, read_key

from .serving import WAIT, ask, begin, everything, question

COMMAND = [sys.executable, "-m", "egm.server"]
KEY = "a-key-of-some-length"


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a server; yields the process and host:port once it serves."""
    child = subprocess.Popen(
        [*COMMAND, "egm-tiny", "--port", "0", *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stderr is not None
        for line in child.stderr:
            if found := re.search(r"serving .* at http://(\S+)/v1", line):
                yield child, found[1]
                return
        raise AssertionError("it did not start")
    finally:
        child.kill()
        child.communicate()


def ended(child: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = child.communicate(timeout=WAIT)
    return child.returncode, out, err


def refused(*arguments: str, **environment: str) -> str:
    """Start what must not start; gives its one line."""
    done = subprocess.run(
        [*COMMAND, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, timeout=WAIT
    )
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_it_finish_and_end_with_nothing_said(number: signal.Signals) -> None:
    with started("--served-model-name", "nvidia/EGM-8B", "other") as (child, place):
        assert [model["id"] for model in ask(place, "/v1/models")[2]["data"]] == ["nvidia/EGM-8B", "other"]
        connection = begin(place, question(model="other", stream=True, max_tokens=30))
        first = connection.recv(65536)
        child.send_signal(number)
        answer = first + everything(connection)
        code, out, err = ended(child)
    assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert (code, out) == (0, "")
    assert "Traceback" not in err
    assert err.splitlines()[-1].endswith("ended")


def test_a_key_is_asked_for_everywhere_but_for_its_health() -> None:
    with started(**{KEY_VARIABLE: KEY}) as (child, place):
        assert ask(place, "/health")[0] == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}):
            status, said, answer = ask(place, "/v1/models", headers=headers)
            assert (status, said["www-authenticate"]) == (401, "Bearer")
            assert answer["error"]["type"] == "authentication_error"
        assert ask(place, "/v1/chat/completions", b"{" * 100)[0] == 401  # before a byte of the body is looked at
        assert ask(place, "/v1/models", headers={"Authorization": f"Bearer {KEY}"})[0] == 200
        child.terminate()
        code, out, err = ended(child)
    assert (code, out) == (0, "")
    assert KEY not in err


def test_what_is_wrong_is_said_before_a_model_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refused("no-such-model", "--port", port)
    assert said == f"error: port {port} of 127.0.0.1 is taken: end what listens there, or give another --port"
    assert "'0.0.0.0' can be reached from other machines, and there is no key" in refused(
        "no-such-model", "--host", "0.0.0.0", **{KEY_VARIABLE: ""}
    )
    assert "there is no model 'no-such-model'" in refused("no-such-model", "--port", "0")


def test_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert read_key(None) == ""
    monkeypatch.setenv(KEY_VARIABLE, f" {KEY}\n")
    assert read_key(None) == KEY
    (tmp_path / "key").write_text("another-key\n")
    assert read_key(tmp_path / "key") == "another-key"
    for wrong in ("", "short", "white space in it", "schlüssel-von-hier"):
        (tmp_path / "key").write_text(wrong)
        with pytest.raises(EgmError, match=r"is no key: give 8 to 4096 letters") as caught:
            read_key(tmp_path / "key")
        assert not wrong or wrong not in str(caught.value)
    with pytest.raises(EgmError, match="cannot read --key-file"):
        read_key(tmp_path / "none")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_addresses_of_this_machine_need_no_key(host: str) -> None:
    check_address(host, "")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", ""])
def test_addresses_that_others_reach_need_one(host: str) -> None:
    check_address(host, KEY)
    with pytest.raises(EgmError, match="there is no key"):
        check_address(host, "")


def test_no_torch_is_needed() -> None:
    modules = ("egm.server.app", "egm.server.run", "egm.server.connections", "egm.backends.numpy.backend")
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "fastapi" in loaded
    assert not {"torch", "transformers", "torchvision"} & set(loaded)
