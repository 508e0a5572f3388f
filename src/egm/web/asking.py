"""Phrases asked about a picture, and what of the answers is there at any moment."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field, replace
from functools import partial

from egm.backends.base import Request
from egm.backends.remote import Rounds
from egm.errors import EgmError
from egm.grounder import Grounder, check_phrase
from egm.questions import LoadedQuestion
from egm.types import EXPECTS, Completion, Expect, Grounding
from egm.voting import GroundedCompletion
from egm.web.models import OpenModel
from egm.web.pictures import WebPicture

log = logging.getLogger(__name__)

MOST_PHRASES = 20
"""Most phrases that are asked at once."""
BROKEN = "something went wrong here; the log of egm web says what"
"""What the page says of an error that is nobody's input."""


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked about a picture.

    Attributes:
        phrases: What to find, checked.
        expect: How many boxes to ask for.
        amodal: Whether the whole object is asked for.
        votes: Answers to sample to each phrase.
        seed: Of the samples.
    """

    phrases: tuple[str, ...]
    expect: Expect = "one"
    amodal: bool = False
    votes: int = 1
    seed: int = 0


def read_phrases(text: str) -> tuple[str, ...]:
    """Read phrases, one a line; lines that are empty say nothing.

    Raises:
        PhraseError: As `check_phrase` raises; of no phrase too.
        EgmError: If there are more than `MOST_PHRASES`.
    """
    lines = [line for line in str(text).splitlines() if line.strip()]
    if len(lines) > MOST_PHRASES:
        raise EgmError(f"{len(lines)} phrases are over the limit of {MOST_PHRASES}: ask the others afterwards")
    return tuple(check_phrase(line) for line in lines or [""])


def read_expect(text: str) -> Expect:
    """Read how many boxes to ask for.

    Raises:
        EgmError: If it is none of one, any and all.
    """
    for known in EXPECTS:
        if text == known:
            return known
    raise EgmError(f"unknown number of boxes {str(text)[:40]!r}: take one of {', '.join(EXPECTS)}")


@dataclass(frozen=True, slots=True)
class Written:
    """What is there of the answer to one phrase.

    Attributes:
        phrase: The phrase.
        grounding: The answer, once it is whole; before that, what the text so far says; None before any text.
        partial: Of votes that are not whole, what each so far says; none once the answer is whole.
        completion: What the answer cost, once it is whole.
        error: Why there is none.
    """

    phrase: str
    grounding: Grounding | None = None
    partial: tuple[Grounding, ...] = ()
    completion: Completion | None = None
    error: str = ""


@dataclass(slots=True)
class _Slot:
    """One phrase under way: texts by the number of their vote, and what they came to."""

    question: LoadedQuestion
    texts: dict[int, str] = field(default_factory=dict)
    done: GroundedCompletion | None = None
    error: str = ""


class LiveAnswers:
    """A model that was asked, and what it has written so far.

    Args:
        model: Who is asked.
        picture: About what.
        asking: What.
        changed: Set whenever there is something new.

    Raises:
        EgmError: If the model cannot be asked so.
    """

    def __init__(self, model: OpenModel, picture: WebPicture, asking: Asking, changed: threading.Event) -> None:
        self.model, self.picture, self.asking, self._changed = model, picture, asking, changed
        self._stopped = False
        self._lock = threading.Lock()
        self._grounder = model.with_votes(asking.votes, asking.seed)
        self._grounder.check_expect(asking.expect)
        self._slots = [
            _Slot(LoadedQuestion(n, picture.image, phrase, asking.amodal, picture.source, asking.expect))
            for n, phrase in enumerate(asking.phrases)
        ]
        self._futures: list[Future[list[GroundedCompletion]]] = []
        questions = [slot.question for slot in self._slots]
        for numbers, future in model.submit(self._grounder, questions, self._rounds):
            self._futures.append(future)
            future.add_done_callback(partial(self._take, numbers))

    @property
    def done(self) -> bool:
        """Whether all answers are whole."""
        return all(slot.done is not None or slot.error for slot in self._slots)

    def written(self) -> list[Written]:
        """What is there of the answer to each phrase."""
        with self._lock:
            slots = [replace(slot, texts=dict(slot.texts)) for slot in self._slots]
        return [self._written(slot) for slot in slots]

    def stop(self) -> None:
        """Give up what is not whole: it ends at its next token."""
        self._stopped = True
        for future in self._futures:
            future.cancel()

    def _rounds(self, number: int) -> Rounds[GroundedCompletion]:
        if self._stopped:
            raise EgmError("stopped")
        return _with_listener(self._grounder.rounds(self._slots[number].question), partial(self._listen, number))

    def _listen(self, number: int, request: Request) -> Request:
        """Make a request tell this of its text."""
        texts = self._slots[number].texts

        def tell(piece: str) -> bool:
            if piece:
                with self._lock:
                    texts[request.vote] = texts.get(request.vote, "") + piece
                self._changed.set()
            return self._stopped

        def again() -> None:
            with self._lock:
                texts.pop(request.vote, None)

        return replace(request, on_text=tell, on_again=again)

    def _take(self, numbers: Sequence[int], future: Future[list[GroundedCompletion]]) -> None:
        try:
            results = future.result()
        except (CancelledError, EgmError) as error:
            said = "stopped" if self._stopped else str(error)
            results = []
        except Exception:
            log.exception("a model failed")
            said, results = BROKEN, []
        with self._lock:
            for place, number in enumerate(numbers):
                if results and not self._stopped:
                    self._slots[number].done = results[place]
                else:
                    self._slots[number].error = "stopped" if self._stopped else said
        self._changed.set()

    def _written(self, slot: _Slot) -> Written:
        phrase = slot.question.phrase
        if slot.done is not None:
            return Written(phrase, slot.done.grounding, completion=slot.done.completion)
        votes = tuple(read_so_far(slot.question, text, self._grounder) for _, text in sorted(slot.texts.items()))
        return Written(phrase, votes[-1] if votes else None, partial=votes, error=slot.error)


def read_so_far(question: LoadedQuestion, text: str, grounder: Grounder) -> Grounding:
    """Read a text that is being written: a box is there once it is whole."""
    return question.read(Completion(text, finish_reason="length"), grounder.codec)


def ask(
    models: Sequence[OpenModel], picture: WebPicture, asking: Asking, *, pause: float = 0.08
) -> Generator[list[LiveAnswers]]:
    """Ask one or several models at once, and come back whenever more is written.

    Args:
        models: Who is asked.
        picture: About what.
        asking: What.
        pause: Least seconds from one time to the next.

    Yields:
        Who was asked, the same each time, and once more at the end. Closing the iterator gives up what is under way.

    Raises:
        EgmError: If a model cannot be asked so; then none is.
    """
    changed, asked = threading.Event(), list[LiveAnswers]()
    enough = threading.Event()  # never set: a wait that ends with the process
    try:
        for model in models:
            asked.append(LiveAnswers(model, picture, asking, changed))
        while not all(each.done for each in asked):
            yield asked
            changed.wait()
            changed.clear()
            if not all(each.done for each in asked):
                enough.wait(pause)
        yield asked
    finally:
        for each in asked:
            each.stop()


def _with_listener(
    rounds: Rounds[GroundedCompletion], listen: Callable[[Request], Request]
) -> Rounds[GroundedCompletion]:
    """Let each request of some rounds be made to tell of its text."""
    requests = next(rounds)
    while True:
        replies = yield [listen(request) for request in requests]
        try:
            requests = rounds.send(replies)
        except StopIteration as end:
            result: GroundedCompletion = end.value
            return result
