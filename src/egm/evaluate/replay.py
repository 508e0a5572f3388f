"""Answers from a file, for a run without a model: a journal's, or a text file's."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path, PurePath

from egm.backends.replay import ReplayBackend
from egm.datasets.fields import short
from egm.errors import BackendError, DataError
from egm.evaluate.plan import seed_index_of
from egm.journal import ERROR, Record, is_journal, read_whole_run
from egm.terminal import printable
from egm.types import Completion, Sample

_log = logging.getLogger(__name__)


def read_script(
    path: Path, samples: Iterable[tuple[str, Sample]], *, votes: int = 1, model: str = "scripted"
) -> ReplayBackend:
    r"""Read answers: a journal's, each to the sample that it was given to, or a line a vote in the order of asking.

    A text file begins anew after its last line; words count as its tokens. In it `\n` stands for a line feed, and
    nothing but a line feed ends a line.

    Args:
        path: The file, or the run folder that holds a journal.
        samples: What will be asked, each with the name of its split, in order.
        votes: How many lines of a text file belong to each sample.
        model: Name to go by.

    Raises:
        DataError: If it cannot be read or is empty, or a journal gives an answer to another question than the sample
            of that split and id asks.
    """
    try:
        if is_journal(path):
            return ReplayBackend(_recorded(path, samples), model=model)
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"script {str(path)!r} cannot be read ({error}): give a text file, a line a sample") from None
    if not text:
        raise DataError(f"script {str(path)!r} is empty: give a text a line")
    # Models write U+2028 and form feeds, at which `splitlines` cuts.
    lines = [line.removesuffix("\r").replace("\\n", "\n") for line in text.removesuffix("\n").split("\n")]
    samples = list(samples)
    if len(lines) != (wanted := len(samples) * votes):
        then = "the last of them stay unread" if len(lines) > wanted else "after the last it begins anew"
        _log.warning("script %s has %d lines for %d answers: %s", printable(str(path)), len(lines), wanted, then)
    answers = {
        seed_index_of(split, sample.id): [lines[(number * votes + vote) % len(lines)] for vote in range(votes)]
        for number, (split, sample) in enumerate(samples)
    }
    return ReplayBackend(answers, model=model)


def _recorded(path: Path, samples: Iterable[tuple[str, Sample]]) -> dict[int, list[Completion | BackendError]]:
    records = read_whole_run(path)[1]
    by_key = {record.key: record for record in records}
    for split, sample in samples:
        record = by_key.get((split, sample.id))
        if record is not None and (what := _difference(record, sample)) is not None:
            raise DataError(
                f"script {str(path)!r} answers another question than sample {sample.id!r} of {split} asks: {what}: "
                "give a journal of the same dataset"
            )
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
        for record in records
    }


def _difference(record: Record, sample: Sample) -> str | None:
    """What was asked otherwise; the truth may be another, as answers can be scored anew."""
    if record.phrase != sample.phrase:
        return f"its phrase was {short(record.phrase)}, and is {short(sample.phrase)}"
    if isinstance(sample.image, str | os.PathLike):
        was, now = PurePath(record.image).name, PurePath(sample.image).name
        if was != now:
            return f"its picture was {short(was)}, and is {short(now)}"
    return None
