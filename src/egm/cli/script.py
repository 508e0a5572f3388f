"""Answers from a file: what `egm eval --script` runs without a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from egm.backends.scripted import spoken
from egm.errors import BackendError, DataError
from egm.types import Completion

if TYPE_CHECKING:
    from egm.backends.base import GenerationSettings, Request


class ReplayBackend:
    """Answers each sample with its own text; keeps no requests, and no time passes.

    Because a text belongs to a sample and not to a moment, an interrupted run goes on with the right ones.

    Args:
        answers: By the number of a sample's draw, what each vote on it says, from the start again after the last: a
            text, a whole reply, or the engine's failure.
        model: Name to go by.
    """

    budgets = True

    def __init__(
        self, answers: Mapping[int, Sequence[str | Completion | BackendError]], *, model: str = "scripted"
    ) -> None:
        self.model, self._answers = model, answers

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        """Replay; see `Backend.generate`. Words count as tokens, and budgets bind texts as in `spoken`.

        Raises:
            BackendError: If there is no answer to a sample, or a failure was recorded.
        """
        return [self._reply(request, settings) for request in requests]

    def _reply(self, request: Request, settings: GenerationSettings) -> Completion:
        votes = self._answers.get(request.draw)
        if not votes:
            raise BackendError("the script has no answer to this sample")
        answer = votes[request.vote % len(votes)]
        if isinstance(answer, BackendError):
            raise answer
        if isinstance(answer, Completion):
            return answer
        reply = spoken(answer, request, settings)
        return replace(reply, reasoning_tokens=len(reply.text.rpartition("</think>")[0].split()))


def read_script(
    path: Path, keys: Iterable[tuple[str, str]], *, votes: int = 1, model: str = "scripted"
) -> ReplayBackend:
    r"""Read answers: a journal's, each to the sample that it was given to, or a line a vote in the order of asking.

    A text file begins anew after its last line; words count as its tokens. In it `\n` stands for a line feed.

    Args:
        path: The file, or the run folder that holds a journal.
        keys: Split and id of every sample, in order.
        votes: How many lines of a text file belong to each sample.
        model: Name to go by.

    Raises:
        DataError: If it cannot be read or is empty.
    """
    from egm.evaluate.plan import seed_index_of
    from egm.report.prediction_files import is_journal

    try:
        if is_journal(path):
            return ReplayBackend(_recorded(path), model=model)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"script {str(path)!r} cannot be read ({error}): give a text file, a line a sample") from None
    if not text:
        raise DataError(f"script {str(path)!r} is empty: give a text a line")
    lines = [line.replace("\\n", "\n") for line in text.splitlines()]
    answers = {
        seed_index_of(*key): [lines[(number * votes + vote) % len(lines)] for vote in range(votes)]
        for number, key in enumerate(keys)
    }
    return ReplayBackend(answers, model=model)


def _recorded(path: Path) -> dict[int, list[Completion | BackendError]]:
    from egm.evaluate import ERROR
    from egm.evaluate.plan import seed_index_of
    from egm.journal import read_journal

    return {
        seed_index_of(*record.key): [
            BackendError(record.error or ERROR)
            if record.failure == ERROR
            else Completion(
                record.text,
                record.finish_reason or "stop",
                record.prompt_tokens,
                record.completion_tokens,
                reasoning_tokens=record.reasoning_tokens,
            )
        ]
        for record in read_journal(path)[1]
    }
