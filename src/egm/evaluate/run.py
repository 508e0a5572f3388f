"""An evaluation: samples to a resumable journal, in an order that shares prefixes; and what a journal says, in numbers.

Order: samples are taken image by image, a block of images at a time, the first question of each image and then its
siblings, so that an engine that keeps prefixes has read a picture once before more is asked about it. The order, and
with it which question is an image's first (`Record.cold`), depends on the samples and the batch size alone, never on
where a run was interrupted. What is sampled for a question depends on the seed, its split and its id, not on what else
is asked.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egm.errors import DataError, EgmError
from egm.evaluate.plan import PlannedSample, dataset_digests, image_order, make_header, plan_run, with_choices
from egm.evaluate.progress import RunningCounts, check_max_errors, progress_bar
from egm.evaluate.shards import Shard
from egm.evaluate.suites import choices_of
from egm.evaluate.totals import totals
from egm.files import write_text
from egm.grounder import GroundedCompletion, Grounder
from egm.journal import ERROR, Header, Journal, Record, read_whole_run
from egm.records import answer_facts, question_facts
from egm.scoring import score
from egm.types import Expect, Sample

MAX_ERRORS = 0.05
"""Share of samples that may end in an error, unless another is given."""
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
            **({} if self.header.share is None else {"shard": self.header.share}),
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
    max_errors: float = MAX_ERRORS,
    retry_errors: bool = False,
    engine: Mapping[str, Any] | None = None,
    shard: Shard | None = None,
    expect: Expect | None = None,
    progress: bool = True,
) -> Evaluation:
    """Evaluate a model on samples: ask, score what it answers, and keep all of it in a resumable journal.

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
        shard: Ask only the samples of this shard, for `egm.evaluate.merge.merge_runs` to put beside the others.
        expect: How many boxes to ask for, of all samples; None leaves that to each (`Sample.expect`).
        progress: Whether to show progress on standard error: a bar, or lines where that is no terminal.

    Returns:
        The run, read back from its journal.

    Raises:
        DataError: If a sample has no true box where one is expected, or several where not all are, two share an id,
            there are none, or the folder holds another run.
        EgmError: If `max_errors` is no share.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from egm import Box, Grounder, Sample, example_picture, get_codec
        >>> from egm.backends import ScriptedBackend
        >>> samples = [Sample("1", example_picture(), "the cross", Box(195, 171, 219, 195))]
        >>> scripted = ScriptedBackend(['[{"bbox_2d": [508, 763, 570, 871]}]'])
        >>> with TemporaryDirectory() as folder:
        ...     run = evaluate(samples, Grounder(scripted, get_codec("qwen3_vl")), folder, progress=False)
        >>> run.summary()["all"]["accuracy"]
        1.0
    """
    check_max_errors(max_errors)
    splits = samples if isinstance(samples, Mapping) else {name: samples}
    plan, choices, share = plan_run(splits, expect), choices_of(splits), None
    planned, datasets = plan.samples, with_choices(plan.digests, choices)
    if shard is not None:
        share = {"number": shard.number, "count": shard.count, "of": datasets}
        planned = list(shard.take(planned).values())
        datasets = with_choices(dataset_digests(planned), choices)
    header = make_header(grounder, planned, plan.images, engine or {}, datasets, share)
    order = image_order(planned, block_size(header))
    folder = Path(folder)
    with Journal(folder, header) as journal:
        write_settings(folder, journal.header)
        counts, done = RunningCounts(len(order), max_errors), set()
        known = {item.key: item.sample for item in planned}
        journal.records.reverse()  # counted in their order, the last of the list first
        while journal.records:  # each is let go as it is counted; at the end the file is read whole
            record = journal.records.pop()
            _check_asked(journal.path, record, known.get(record.key))
            if not (retry_errors and record.failure == ERROR):
                counts.add(record)
                done.add(record.key)
        todo = [(item, cold) for item, cold in order if item.key not in done]
        with progress_bar(counts, enabled=progress) as update:
            if todo and not counts.too_many_errors():
                requests = ((item.seed_index, item.load()) for item, _ in todo)
                # On the way out, what is under way is given up.
                with closing(grounder.answer_each(requests)) as answers:
                    for (item, cold), answer in zip(todo, answers, strict=True):
                        record = _record(item, answer, cold=cold)
                        journal.append(record)
                        counts.add(record)
                        update()
                        if counts.too_many_errors():
                            break
    header, records = read_whole_run(folder)
    result = Evaluation(header, records, len(order), counts.stop_reason() if counts.too_many_errors() else None)
    write_numbers(folder, result)
    return result


def write_settings(folder: Path, header: Header) -> None:
    """Write a run's header to `run.json`."""
    write_text(folder / "run.json", json.dumps(header.to_dict(), indent=2) + "\n")


def write_numbers(folder: Path, result: Evaluation) -> None:
    """Write a run's numbers to `summary.json`."""
    write_text(folder / "summary.json", json.dumps(result.summary(), indent=2) + "\n")


def block_size(header: Header) -> int:
    """How many pictures a block has, see `image_order`."""
    return _BLOCK * header.concurrency


def _check_asked(path: Path, record: Record, sample: Sample | None) -> None:
    """Refuse a record of a sample that the run does not have, though its header is that of the run."""
    facts = None if sample is None else question_facts(sample)
    if facts is None:
        how = "is none of the samples that are evaluated"
    elif any(getattr(record, name) != facts[name] for name in ("phrase", "truth", "truths", "expect")):
        there, here = facts["truth"] or facts["truths"], record.truth or record.truths
        how = f"is {facts['phrase']!r} at {there} in the dataset and {record.phrase!r} at {here} here"
    else:
        return
    raise DataError(
        f"{str(path)!r}: sample {record.id!r} of {record.split} {how}: restore the file, or start in another folder"
    )


def _record(item: PlannedSample, answer: GroundedCompletion | EgmError, *, cold: bool) -> Record:
    sample = item.sample
    assert sample.truths is not None
    facts: dict[str, Any] = {
        **question_facts(sample),
        "image": item.image,
        "size": sample.size,
        "split": item.split,
        "cold": cold,
        "meta": dict(sample.meta),
    }
    if not isinstance(answer, GroundedCompletion):
        said = " ".join(str(answer).split())
        return Record(**facts, failure=ERROR, error=f"{type(answer).__name__}: {said}", finish_reason=None)
    grounding, reply = answer.grounding, answer.completion
    facts["size"] = grounding.size or sample.size
    record = Record(
        **facts,
        text=reply.text,
        **answer_facts(grounding),
        failure=None if grounding.failure is None else str(grounding.failure),
        iou=score(grounding, sample.truths).iou,
        finish_reason=reply.finish_reason,
        prompt_tokens=reply.prompt_tokens,
        reasoning_tokens=reply.reasoning_tokens,
        completion_tokens=reply.completion_tokens,
        seconds=reply.seconds,
        first_token_seconds=reply.first_token_seconds,
        queue_seconds=reply.queue_seconds,
        votes=grounding.votes,
        confidence=grounding.confidence,
        logprob=_finite(grounding.logprob),
        answer_logprob=_finite(grounding.answer_logprob),
        thought=grounding.thought,
        certainties=answer.certainties,
        direct_tokens=None if answer.direct is None else answer.direct.completion.completion_tokens,
    )
    try:
        record.check()
    except DataError as error:  # what a server counted may be no number of anything
        return Record(
            **facts, failure=ERROR, error=f"BackendError: the reply cannot be kept: {error}", finish_reason=None
        )
    return record


def _finite(value: float | None) -> float | None:
    """A log-probability, or None where a server made it infinite or no number, which JSON does not know."""
    return value if value is None or math.isfinite(value) else None
