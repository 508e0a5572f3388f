"""Answers from a file: what `egm eval --script` runs without a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from egm.errors import BackendError, DataError
from egm.types import Completion

if TYPE_CHECKING:
    from egm.backends.base import GenerationSettings, Request


class ReplayBackend:
    """Answers each sample with its own text; keeps no requests, and no time passes.

    Because a text belongs to a sample and not to a moment, an interrupted run goes on with the right ones.

    Args:
        answers: By the number of a sample's draw, its reply, or what the engine said where it failed.
        model: Name to go by.
    """

    def __init__(self, answers: Mapping[int, Completion | str], *, model: str = "scripted") -> None:
        self.model, self._answers = model, answers

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:  # noqa: ARG002
        """Replay; see `Backend.generate`.

        Raises:
            BackendError: If there is no answer to a sample, or an error was recorded.
        """
        found = [self._answers.get(request.draw, "the script has no answer to this sample") for request in requests]
        for answer in found:
            if isinstance(answer, str):
                raise BackendError(answer)
        return [answer for answer in found if isinstance(answer, Completion)]


def read_script(path: Path, keys: Iterable[tuple[str, str]], *, model: str = "scripted") -> ReplayBackend:
    r"""Read answers: a journal's, each to the sample that it was given to, or a line a sample in the order of asking.

    A text file begins anew after its last line; words count as its tokens. In it `\n` stands for a line feed.

    Args:
        path: The file, or the run folder that holds a journal.
        keys: Split and id of every sample, in order.
        model: Name to go by.

    Raises:
        DataError: If it cannot be read or is empty.
    """
    from egm.evaluate.plan import draw_of
    from egm.report.formats import is_journal

    try:
        if is_journal(path):
            return ReplayBackend(_recorded(path), model=model)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"script {str(path)!r} cannot be read ({error}): give a text file, a line a sample") from None
    if not text:
        raise DataError(f"script {str(path)!r} is empty: give a text a line")
    lines = [line.replace("\\n", "\n") for line in text.splitlines()]
    answers = {draw_of(*key): _said(lines[number % len(lines)]) for number, key in enumerate(keys)}
    return ReplayBackend(answers, model=model)


def _recorded(path: Path) -> dict[int, Completion | str]:
    from egm.evaluate import ERROR
    from egm.evaluate.plan import draw_of
    from egm.journal import read_journal

    return {
        draw_of(*record.key): record.error or ERROR
        if record.failure == ERROR
        else Completion(
            record.text,
            record.finish_reason or "stop",
            record.prompt_tokens,
            record.completion_tokens,
            reasoning_tokens=record.reasoning_tokens,
        )
        for record in read_journal(path)[1]
    }


def _said(text: str) -> Completion:
    reasoning = text.rpartition("</think>")[0]
    return Completion(text, completion_tokens=len(text.split()), reasoning_tokens=len(reasoning.split()))
