"""Answers from a file, for a run without a model: a journal's, or a text file's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from egm.backends.replay import ReplayBackend
from egm.errors import BackendError, DataError
from egm.evaluate.plan import seed_index_of
from egm.journal import ERROR, is_journal, read_whole_run
from egm.types import Completion


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
        for record in read_whole_run(path)[1]
    }
