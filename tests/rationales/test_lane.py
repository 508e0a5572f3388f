"""Lanes: what waits for a model in this process is answered together, and each request fails for itself."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError

import pytest

from egm.backends import Backend, GenerationSettings, Request
from egm.errors import BackendError
from egm.rationales.lane import Lane
from egm.types import Completion

WAIT = 60.0  # seconds after which a test has failed, however slow the machine
SETTINGS = GenerationSettings(max_new_tokens=4)


class Slow(Backend):
    """Answers once it is let, notes what it was asked together, and never answers "odd"."""

    model = "slow"

    def __init__(self) -> None:
        self.together: list[list[str]] = []
        self.let, self.begun = threading.Event(), threading.Event()
        self._busy = threading.Lock()

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        assert self._busy.acquire(blocking=False), "it was asked by two threads at once"
        try:
            asked = [str(request.messages[0]["content"]) for request in requests]
            self.together.append(asked)
            self.begun.set()
            assert self.let.wait(WAIT)
            if "odd" in asked:
                raise BackendError("odd is not for it")
            return [Completion(text.upper()) for text in asked]
        finally:
            self._busy.release()


def ask(text: str) -> Request:
    return Request([{"role": "user", "content": text}], [])


def test_what_waits_is_answered_together_and_each_fails_for_itself() -> None:
    model = Slow()
    with Lane(model, SETTINGS, batch=3) as lane:
        first = lane.submit(ask("first"))
        assert model.begun.wait(WAIT)
        rest = [lane.submit(ask(text)) for text in ("a", "odd", "b", "c")]
        model.let.set()
        assert first.result(WAIT).text == "FIRST"
        assert [rest[n].result(WAIT).text for n in (0, 2, 3)] == ["A", "B", "C"]
        with pytest.raises(BackendError, match="odd is not for it"):
            rest[1].result(WAIT)
    assert model.together == [["first"], ["a", "odd", "b"], ["a"], ["odd"], ["b"], ["c"]]


def test_lanes_to_one_model_take_turns() -> None:
    model = Slow()
    model.let.set()
    with Lane(model, SETTINGS) as one, Lane(model, SETTINGS) as other:
        replies = [lane.submit(ask(str(n))) for n in range(50) for lane in (one, other)]
        assert [reply.result(WAIT).text for reply in replies] == [str(n) for n in range(50) for _ in range(2)]


def test_what_waits_is_given_up_at_the_end() -> None:
    model = Slow()
    lane = Lane(model, SETTINGS)
    running = lane.submit(ask("running"))
    assert model.begun.wait(WAIT)
    waiting = lane.submit(ask("waiting"))
    closing = threading.Thread(target=lane.close)
    closing.start()
    with pytest.raises(CancelledError):
        waiting.result(WAIT)
    model.let.set()
    closing.join(WAIT)
    assert running.result(WAIT).text == "RUNNING"
