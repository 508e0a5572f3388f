"""Each command that connects to a server closes the connection, also where it ends in an error."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from egm.backends.openai.backend import OpenAIBackend

from ..backends.faulty_server import FaultyServer, fail, say
from .conftest import Egm

ANSWER = say("At the left.", '</think> [{"bbox_2d": [0, 0, 500, 500]}]')
GROUND = ("ground", "a.png", "the cup")
EVAL = ("eval", "synthref/val", "--scenes", "1", "--out", "run")
BENCH = ("bench", "latency", "--requests", "1", "--rounds", "1", "--warmup", "0", "--concurrency", "1")


@pytest.mark.parametrize(
    ("command", "play", "code"),
    [
        (GROUND, ANSWER, 0),
        (GROUND, fail(400), 2),
        (("ground", ".", "the cup", "--draw", "a.png/b"), ANSWER, 2),
        (EVAL, ANSWER, 0),
        (EVAL, fail(400), 1),
        ((*EVAL, "--max-errors", "2"), ANSWER, 2),
        (BENCH, ANSWER, 0),
        (BENCH, fail(400), 1),
        ((*BENCH, "--rate", "-1"), ANSWER, 2),
        ((*GROUND, "--prompt", "unheard-of"), ANSWER, 2),
    ],
)
def test_what_was_opened_is_closed(
    egm: Egm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], play: object, code: int
) -> None:
    opened, closed = list[OpenAIBackend](), list[OpenAIBackend]()
    connect, close = OpenAIBackend._connect, OpenAIBackend.close
    monkeypatch.setattr(OpenAIBackend, "_connect", lambda self: opened.append(self) or connect(self))  # type: ignore[func-returns-value]
    monkeypatch.setattr(OpenAIBackend, "close", lambda self: closed.append(self) or close(self))  # type: ignore[func-returns-value]
    Image.new("RGB", (64, 32), "teal").save(tmp_path / "a.png")
    with FaultyServer({"": [play]}) as server:  # type: ignore[list-item]
        outcome = egm(*command, "--server", server.url)
    assert outcome.code == code, outcome.err
    assert len(opened) == 1
    assert closed == opened
