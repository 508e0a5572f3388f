"""Questions whose truth somebody has looked at again: figures without the doubtful ones, and on the trusted ones.

Where models are good, much of what they miss is the annotation's fault. A list says which truths are doubtful:

- ids, one a line (.txt) or as a JSON list: those of the journal's records;
- a reviewed file as Ref-L4's authors publish it (`refcocos_annotation_reviewed/*.json` of JierunChen/Ref-L4 on the
  Hugging Face Hub): captioned COCO (`egm.datasets.captioned`) with `caption_quality` 0 where the annotation is wrong;

or which are trusted: any dataset, such as RefCOCO-M, whose questions are trusted and whose boxes may be corrected ones.
Questions of files are found by picture (COCO's number, if it has one), words (but for case, spaces and a final full
stop) and a true box that overlaps one of theirs by half. Where none or many may match, the words ask for all that they
fit: then picture and words tell, where the file asks them once, whatever its true boxes are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from egm import stats
from egm.assignment import bottleneck_iou
from egm.boxes import Box, pairwise_iou
from egm.datasets import open_dataset
from egm.datasets.benchmarks import measure_title
from egm.datasets.fields import short
from egm.datasets.inputs import JsonError, load_json, read_whole
from egm.errors import DataError
from egm.journal import Record
from egm.report.grid import Cell, Grid, Line
from egm.report.matching import image_key, image_of, phrase_key
from egm.report.runs import Run, columns_of
from egm.report.summary import cluster_numbers, hits_of
from egm.types import HIT_IOU, Sample

Key: TypeAlias = tuple[str, str]
"""Split and id, as `Record.key`."""
Truths: TypeAlias = tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class KnownTruths:
    """What lists say of the questions of runs.

    Attributes:
        doubtful: Those whose truth is doubtful.
        trusted: Those whose truth is trusted, with the boxes that the list gives, of which there may be none or several
            where that is expected; None where no such list is given.
    """

    doubtful: frozenset[Key] = frozenset()
    trusted: Mapping[Key, Truths] | None = None


def read_known_truths(
    runs: Sequence[Run], *, doubtful: Iterable[Path] = (), trusted: Iterable[Path] = ()
) -> KnownTruths:
    """Read lists, and find what they are about among the questions of runs.

    Args:
        runs: Whose questions.
        doubtful: Lists of doubtful truths.
        trusted: Datasets of trusted ones.

    Raises:
        DataError: If a list cannot be read, or names none of the questions.
    """
    records = list({record.key: record for run in runs for record in run.records}.values())
    found: set[Key] = set()
    for path in doubtful:
        keys = _doubtful_in(path, records)
        if not keys:
            raise DataError(f"{path} finds none of the questions doubtful: is it about other splits than the runs?")
        found |= keys
    boxes: dict[Key, Truths] | None = None
    for path in trusted:
        known = {key: truths for key, (truths, _) in _matched(open_dataset(path).annotations(), records).items()}
        if not known:
            raise DataError(f"{path} holds none of the questions: is it about other splits than the runs?")
        boxes = {**(boxes or {}), **known}
    return KnownTruths(frozenset(found), boxes)


def known_truths_grid(runs: Sequence[Run], known: KnownTruths) -> Grid:
    """Accuracy on all questions, without the doubtful ones, on these alone, and on the trusted ones, side by side."""
    columns = tuple(split for split in columns_of(runs) if any(split in run.accuracy for run in runs))
    sections = []
    for run in runs:
        choices: dict[str, list[Record]] = {"all questions": list(run.records)}
        if known.doubtful:
            choices["without the doubtful ones"] = [each for each in run.records if each.key not in known.doubtful]
            choices["the doubtful ones alone"] = [each for each in run.records if each.key in known.doubtful]
        if known.trusted is not None:
            kept = [each for each in run.records if each.key in known.trusted]
            choices["the trusted ones"] = kept
            choices["the trusted ones, against their list's boxes"] = [
                _held_against(each, known.trusted[each.key]) for each in kept
            ]
        lines: list[Line] = []
        for title, records in choices.items():
            by_split = [[each for each in records if each.split == split] for split in columns]
            lines.append(Line(title, tuple(_accuracy(each) for each in by_split), run.remarks))
            lines.append(Line.of("questions", *(f"{len(each):,}" for each in by_split)))
        sections.append((run.name, tuple(lines)))
    note = "Which truths are doubtful or trusted is what the lists say; 95 % intervals, clustered by picture."
    title = f"{measure_title(columns)} by what is known of the truth, %"
    return Grid(title, ("questions", *columns), tuple(sections), (note,))


def _accuracy(records: Sequence[Record]) -> Cell:
    return Cell.percent(stats.cluster_mean(hits_of(records), cluster_numbers(records))) if records else Cell()


def _held_against(record: Record, truths: Truths) -> Record:
    """A record scored against other true boxes, as `egm.types.Score` says; a failure stays what it was."""
    corners = tuple(box.corners for box in truths)
    failed = record.box is None and not record.is_none
    overlap = 0.0 if failed else bottleneck_iou(pairwise_iou(record.answered, corners))
    single = len(corners) == 1
    return replace(record, truth=corners[0] if single else None, truths=None if single else corners, iou=overlap)


def _doubtful_in(path: Path, records: Sequence[Record]) -> set[Key]:
    if path.suffix == ".txt":
        try:
            lines = _read(path).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None
        return _named({line.strip() for line in lines if line.strip()}, path, records)
    if path.suffix != ".json":
        raise DataError(f"{path} is no list of doubtful truths: give ids (.txt or .json), or a reviewed .json file")
    try:
        content = load_json(_read(path))
    except JsonError as error:
        raise DataError(f"{path} {error}") from None
    if isinstance(content, list):
        for number, each in enumerate(content, 1):
            if not isinstance(each, str | int) or isinstance(each, bool):
                raise DataError(f"{path} item {number}: {short(each)} is no id, neither words nor a whole number")
        return _named(set(map(str, content)), path, records)
    samples = open_dataset(path).annotations()
    if not any("caption_quality" in sample.meta for sample in samples):
        raise DataError(f"{path} does not say of any question that it is doubtful: caption_quality is missing")
    return {key for key, (_, quality) in _matched(samples, records).items() if quality == 0}


def _read(path: Path) -> bytes:
    try:
        return read_whole(path)
    except FileNotFoundError:
        raise DataError(f"there is no list at {path}: check the path") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def _named(ids: set[str], path: Path, records: Sequence[Record]) -> set[Key]:
    """The questions with these ids; the list may be about splits that are not there, but not about none."""
    if not ids:
        raise DataError(f"{path} holds no ids: leave it out, or give those of doubtful truths")
    found = {record.key for record in records if record.id in ids}
    if not found:
        raise DataError(f"{path} names none of the questions, such as {short(min(ids))}")
    return found


def _matched(samples: Sequence[Sample], records: Sequence[Record]) -> dict[Key, tuple[Truths, int]]:
    """The questions that samples are about, each with the nearest truth, and the least quality that is said of it."""
    by_words: defaultdict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.truths is not None:
            by_words[image_key(image_of(sample)), phrase_key(sample.phrase)].append(sample)
    found: dict[Key, tuple[Truths, int]] = {}
    for record in records:
        alike = by_words.get((image_key(record.image), phrase_key(record.phrase)), ())
        known = [(truths, _quality(sample)) for sample in alike if (truths := _answerable(sample, record)) is not None]
        overlaps = [_overlap(truths, record) for truths, _ in known]
        near = [number for number, overlap in enumerate(overlaps) if overlap >= HIT_IOU]
        if not near and len(known) == 1 and record.expect != "one":
            near = [0]
        if near:
            best = max(near, key=lambda number: overlaps[number])
            found[record.key] = known[best][0], min(known[number][1] for number in near)
    return found


def _answerable(sample: Sample, record: Record) -> Truths | None:
    """The true boxes of a sample; None where they are not as many as the record's question may have."""
    truths = sample.truths
    if truths is None or (len(truths) != 1 and record.expect == "one") or (len(truths) > 1 and record.expect != "all"):
        return None
    return truths


def _overlap(truths: Truths, record: Record) -> float:
    """The greatest IoU of a true box with one of a record's; 1 where both match nothing."""
    if not truths or not record.true_boxes:
        return float(not truths and not record.true_boxes)
    return float(pairwise_iou([box.corners for box in truths], record.true_boxes).max())


def _quality(sample: Sample) -> int:
    said = sample.meta.get("caption_quality", 1)
    return said if isinstance(said, int) else 1
