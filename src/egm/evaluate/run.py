"""Samples to a journal, resumable at any moment; and what a journal says, in numbers.

Order: samples are taken image by image, a block of images at a time, the first question of each image and then its
siblings, so that an engine that keeps prefixes has read a picture once before more is asked about it. The order, and
with it which question is an image's first (`Record.cold`), depends on the samples and the batch size alone, never on
where a run was interrupted. What is sampled for a question depends on the seed, its split and its id, not on what else
is asked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egm.boxes import Box
from egm.errors import EgmError
from egm.evaluate.plan import Question, find_questions, make_header, schedule
from egm.evaluate.progress import Tally, progress_bar
from egm.evaluate.totals import ERROR, totals
from egm.files import write_text
from egm.grounder import Answer, Grounder
from egm.journal import Header, Journal, Record, read_journal
from egm.scoring import score
from egm.types import Sample

_BLOCK = 4  # images in a block, in batches: as far as a Grounder reads ahead, so that first questions come first


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A run as its journal has it.

    Attributes:
        header: What was asked of what.
        records: One a sample, in the order of asking.
        total: How many samples the run has.
        stopped: Why it ended before its time, or None.
    """

    header: Header
    records: list[Record]
    total: int
    stopped: str | None = None

    def summary(self) -> dict[str, Any]:
        """Return the numbers of the run, JSON-ready: of each split, and of `all`."""
        splits = {name: [r for r in self.records if r.split == name] for name in self.header.datasets}
        return {
            "model": self.header.model,
            "concurrency": self.header.concurrency,
            "samples": self.total,
            "stopped": self.stopped,
            "splits": {name: totals(records) for name, records in splits.items()},
            "all": totals(self.records),
        }


def evaluate(
    samples: Iterable[Sample] | Mapping[str, Iterable[Sample]],
    grounder: Grounder,
    folder: str | os.PathLike[str],
    *,
    name: str = "samples",
    max_errors: float = 0.05,
    retry_errors: bool = False,
    engine: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Evaluation:
    """Ask a model about samples, score what it answers, and keep all of it in a journal.

    The same call again goes on where it ended, however it ended: nothing is asked twice, and the numbers are those of
    an uninterrupted run. Failures stay in the denominator, errors too.

    Args:
        samples: What to ask, with true boxes; or several splits by name. Pictures inside the files of a `Dataset` are
            read as they are asked about.
        grounder: What answers.
        folder: The run folder: gets `journal.jsonl`, `run.json` and, at the end, `summary.json`.
        name: Name of the split, if there is one.
        max_errors: Share of samples that may end in an error. Past it the run stops: of all samples, and on the way of
            those asked so far.
        retry_errors: Ask the samples again that ended in an error before.
        engine: What else decides the answers or their latency, such as device or server, to be kept and compared.
        progress: Whether to show a progress bar on standard error, if that is a terminal.

    Returns:
        The run, read back from its journal.

    Raises:
        DataError: If a sample has no true box, two share an id, there are none, or the folder holds another run.
        EgmError: If `max_errors` is no share.
    """
    if not 0.0 <= max_errors <= 1.0:
        raise EgmError(f"max_errors {max_errors} is out of range: give a share from 0 to 1")
    splits = samples if isinstance(samples, Mapping) else {name: samples}
    questions, images = find_questions(splits)
    order = schedule(questions, _BLOCK * grounder.batch_size)
    header = make_header(grounder, questions, images, engine or {})
    folder = Path(folder)
    with Journal(folder, header) as journal:
        write_text(folder / "run.json", json.dumps(journal.header.to_dict(), indent=2) + "\n")
        tally, done = Tally(len(order), max_errors), set()
        while journal.records:  # each is let go as it is counted; at the end the file is read whole
            record = journal.records.pop()
            if not (retry_errors and record.failure == ERROR):
                tally.add(record)
                done.add(record.key)
        todo = [(question, cold) for question, cold in order if question.key not in done]
        with progress_bar(tally, shown=progress) as update:
            if todo and not tally.over():
                asked = ((question.seed_index, question.load()) for question, _ in todo)
                with closing(grounder.answer_each(asked)) as answers:  # on the way out, what is under way is given up
                    for (question, cold), answer in zip(todo, answers, strict=True):
                        record = _record(question, answer, cold=cold)
                        journal.append(record)
                        tally.add(record)
                        update()
                        if tally.over():
                            break
    header, records = read_journal(folder)
    result = Evaluation(header, records, len(order), tally.why() if tally.over() else None)
    write_text(folder / "summary.json", json.dumps(result.summary(), indent=2) + "\n")
    return result


def _record(question: Question, answer: Answer | EgmError, *, cold: bool) -> Record:
    sample = question.sample
    assert sample.box is not None
    asked: dict[str, Any] = {
        "id": sample.id,
        "image": question.image,
        "phrase": sample.phrase,
        "truth": _corners(sample.box),
        "size": sample.size,
        "amodal": sample.amodal,
        "split": question.split,
        "cold": cold,
        "meta": dict(sample.meta),
    }
    if not isinstance(answer, Answer):
        said = " ".join(str(answer).split())
        return Record(**asked, failure=ERROR, error=f"{type(answer).__name__}: {said}", finish_reason=None)
    grounding, reply = answer.grounding, answer.completion
    asked["size"] = grounding.size or sample.size
    return Record(
        **asked,
        text=reply.text,
        box=None if grounding.box is None else _corners(grounding.box),
        failure=None if grounding.failure is None else str(grounding.failure),
        iou=score(grounding, sample.box).iou,
        finish_reason=reply.finish_reason,
        prompt_tokens=reply.prompt_tokens,
        reasoning_tokens=reply.reasoning_tokens,
        completion_tokens=reply.completion_tokens,
        seconds=reply.seconds,
        first_token_seconds=reply.first_token_seconds,
        queue_seconds=reply.queue_seconds,
        votes=grounding.votes,
        confidence=grounding.confidence,
        logprob=grounding.logprob,
        answer_logprob=grounding.answer_logprob,
    )


def _corners(box: Box) -> tuple[float, float, float, float]:
    return box.x1, box.y1, box.x2, box.y2
