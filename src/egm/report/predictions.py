"""Anybody's predictions as records: matched to the samples that they answer, read by a declared codec, scored."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from egm.boxes import Box
from egm.codecs import Codec, Repair
from egm.codecs.parsing.reading import MAX_BOXES
from egm.datasets.fields import short
from egm.errors import DataError
from egm.failures import Neighbour
from egm.journal import Record, is_journal, read_header, read_whole_run, refuse_shard
from egm.progress import progress_task, track
from egm.record_rules import refuse_number
from egm.records import Corners, answer_facts, question_facts
from egm.report.matching import Samples, box_key, image_key, image_of, match, names_picture, phrase_key, was_in_memory
from egm.report.prediction_files import Prediction, read_predictions
from egm.report.summary import category_of
from egm.scoring import score
from egm.types import Expect, Failure, Grounding, Sample

# Where the size is not known, pixels of the original can be read all the same, but nothing lies out of range.
_BOUNDLESS = (1_000_000, 1_000_000)
_ROUNDING = 0.5  # pixels by which the files of one dataset round its boxes


@dataclass(frozen=True, slots=True)
class Reading:
    """How texts are to be read; it is declared, never guessed.

    Attributes:
        codec: The model family's convention.
        pixels_of: For codecs that speak pixels: whether of the picture as the model saw it, after its processor's
            resize, or of the original.
    """

    codec: Codec
    pixels_of: Literal["seen", "original"] = "seen"


def read_records(
    path: str | Path,
    *,
    samples: Samples | None = None,
    reading: Reading | None = None,
    partial: bool = False,
    expect: Expect | None = None,
) -> list[Record]:
    """Read a journal, or score a file of predictions.

    Args:
        path: The file or folder; `egm.report.prediction_files` names the known ones. A journal's scores are taken as
            they are.
        samples: What was asked, each with the name of its split. Without it, rows must carry their truth.
        reading: How texts are read; rows with boxes need none.
        partial: Accept predictions for some of the samples only, and journals of runs that have not ended.
        expect: How many boxes were asked for, where the samples do not say; a journal's records do.

    Raises:
        DataError: If the file or a row of it cannot be used; the message names file and row.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"there are no predictions at {path}: check the path")
    if is_journal(path):
        return _read_journal(path, samples, partial=partial)
    with progress_task(f"reading {path}"):
        predictions = read_predictions(path)
        answered = _without_samples(predictions) if samples is None else match(predictions, samples)
    if samples is not None and not partial:
        _check_whole(path, len(predictions), len(samples))
    return [
        _record(prediction, split, sample if expect is None else replace(sample, expect=expect), reading)
        for prediction, (split, sample) in track(zip(predictions, answered, strict=True), "scoring", len(predictions))
    ]


def model_of(path: str | Path) -> str:
    """Name what answered in a file of predictions: as its rows say, else as the file is called.

    Raises:
        DataError: If the rows are of several models, or the file cannot be read.
    """
    path = Path(path)
    models = list(dict.fromkeys(row.model for row in read_predictions(path) if row.model is not None))
    if len(models) > 1:
        raise DataError(f"{path} holds answers of {len(models)} models, such as {models[0]} and {models[1]}: split it")
    return models[0] if models else path.name.partition(".")[0]


def answers_in(path: str | Path, *, samples: Samples | None = None) -> list[tuple[str, tuple[int, int]]]:
    """Read the texts of a file of predictions or a journal, without what is true.

    Args:
        path: As of `read_records`.
        samples: What was asked, for the sizes of pictures; without it they come from the rows.

    Returns:
        Each text with the size of its picture; where that is not known, a size that no pixel passes.

    Raises:
        DataError: If the file cannot be read, or a row holds no text.
    """
    path = Path(path)
    if is_journal(path):
        return [(record.text, record.size or _BOUNDLESS) for record in read_whole_run(path)[1]]
    predictions = read_predictions(path)
    sizes = [None] * len(predictions) if samples is None else [one.size for _, one in match(predictions, samples)]
    for prediction in predictions:
        if prediction.text is None:
            raise DataError(f"{prediction.where} holds no text, and a box alone has no form: leave --codec ask out")
    return [(row.text or "", size or row.size or _BOUNDLESS) for row, size in zip(predictions, sizes, strict=True)]


def _read_journal(path: Path, samples: Samples | None, *, partial: bool) -> list[Record]:
    header, records = read_whole_run(path)
    expected = sum(facts["n"] for facts in header.datasets.values())
    if samples is not None:
        by_key = {(split, sample.id): sample for split, sample in samples}
        for number, record in enumerate(records):
            sample = by_key.get(record.key)
            what = "no sample" if sample is None else _difference(record, sample)
            if what is not None:
                raise DataError(
                    f"{path} is about other samples than --data, such as {record.id!r} of {record.split} ({what} "
                    "there): name all of its splits, or leave --data out, as a journal knows the truth"
                )
            if sample is not None and names_picture(sample) and (name := image_of(sample)) != record.image:
                records[number] = replace(record, image=name)  # so that the dataset's other objects are found
        expected = len(samples)
    if not partial:
        if samples is None:
            refuse_shard(path, header, ", or score it alone with --allow-partial")
        _check_whole(path, len(records), expected)
    return records


def _difference(record: Record, sample: Sample) -> str | None:
    """What a dataset says otherwise of a sample than a journal does."""
    if sample.phrase != record.phrase:
        return "another phrase"
    named = names_picture(sample) and not was_in_memory(record.image, record.split)
    if named and image_key(image_of(sample)) != image_key(record.image):
        return "another picture"
    if sample.truths is not None and not _same_boxes(sample.truths, record.true_boxes):
        return "another true box"
    if sample.size is not None and record.size not in (None, sample.size):
        return "another size of its picture"
    if sample.amodal != record.amodal:
        return "the whole object asked for" if sample.amodal else "the visible part asked for"
    return None


def _same_boxes(boxes: Sequence[Box], others: Sequence[Corners]) -> bool:
    """Whether boxes are the same in the same order, but for rounding."""
    return len(boxes) == len(others) and all(
        abs(a - b) <= _ROUNDING
        for box, other in zip(boxes, others, strict=True)
        for a, b in zip(box, other, strict=True)
    )


def asked_of(path: str | Path, samples: Samples | None = None) -> dict[str, int]:
    """How many samples were asked of each split, whether or not a file answers them; empty where that is not known."""
    if samples is not None:
        return dict(Counter(split for split, _ in samples))
    path = Path(path)
    return {split: facts["n"] for split, facts in read_header(path).datasets.items()} if is_journal(path) else {}


def _check_whole(path: Path, answered: int, expected: int) -> None:
    if answered < expected:
        raise DataError(
            f"{path} answers {answered} of {expected} samples: --allow-partial scores those alone, and the figures are "
            "then of no whole split"
        )


def neighbours_in(samples: Samples) -> dict[str, list[Neighbour]]:
    """The annotated objects of each picture of a dataset, by the records' `image`."""
    by_image: dict[str, dict[Box, Neighbour]] = defaultdict(dict)
    for _, sample in samples:
        for box in sample.truths or ():
            by_image[image_of(sample)].setdefault(box, Neighbour(box, category_of(sample.meta)))
    return {image: list(objects.values()) for image, objects in by_image.items()}


def _record(prediction: Prediction, split: str, sample: Sample, reading: Reading | None) -> Record:
    truths = sample.truths
    if truths is None:
        raise DataError(
            f"{split or 'the dataset'}: sample {sample.id!r} has no true box to score against, and {prediction.where} "
            "answers it"
        )
    if sample.size is not None and prediction.size not in (None, sample.size):
        raise DataError(
            f"{prediction.where} says its picture is {prediction.size}, and the dataset says {sample.size}: its boxes "
            "are in other pixels"
        )
    grounding = _ground(prediction, sample, reading)
    result = score(grounding, truths)
    try:
        refuse_number(sample.expect, len(truths))
    except DataError as error:
        raise DataError(f"{split or prediction.where}: sample {sample.id!r} cannot be scored: {error}") from None
    return Record(
        **question_facts(sample),
        image=image_of(sample),
        size=sample.size or prediction.size,
        split=split,
        text=prediction.text or "",
        failure=None if result.failure is None else str(result.failure),
        iou=result.iou,
        finish_reason=prediction.finish_reason,
        meta=sample.meta,
        **answer_facts(grounding),
    )


def _ground(prediction: Prediction, sample: Sample, reading: Reading | None) -> Grounding:
    if prediction.text is None or (prediction.gives_box and reading is None):
        several = sample.expect != "one"
        boxes = prediction.boxes[: MAX_BOXES if several else 1]
        says_none = several and not boxes and prediction.gives_box and prediction.failure is Failure.NO_BOX
        box = boxes[0].box if boxes else None
        failure = None if box is not None or says_none else prediction.failure
        repairs = (Repair.TOO_MANY,) if several and len(prediction.boxes) > MAX_BOXES else ()
        return Grounding(box=box, failure=failure, boxes=boxes, expect=sample.expect, repairs=repairs)
    if reading is None:
        raise DataError(
            f"{prediction.where} holds text: say how to read it with --codec (egm codecs lists them, and --codec ask "
            "tells which can be meant), and with --pixels-of original where boxes are pixels of the picture as it was"
        )
    original = reading.codec.speaks_pixels and reading.pixels_of == "original"
    size = sample.size or prediction.size or (_BOUNDLESS if original else None)
    if size is None:
        raise DataError(
            f"{prediction.where}: the size of its picture is not known: give a dataset that says it (--data), or width "
            "and height in the row"
        )
    return reading.codec.parse(
        prediction.text,
        size=size,
        finish_reason=prediction.finish_reason,
        amodal=sample.amodal,
        seen_size=size if original else None,
        phrase=sample.phrase,
        **({} if sample.expect == "one" else {"expect": sample.expect}),
    )


def _without_samples(predictions: Sequence[Prediction]) -> list[tuple[str, Sample]]:
    """Samples out of what the rows carry; equal questions are numbered, so that two files can be compared."""
    names: defaultdict[str, set[str]] = defaultdict(set)
    for prediction in predictions:
        if prediction.image is not None:
            names[image_key(prediction.image)].add(prediction.image)
    times: defaultdict[str, int] = defaultdict(int)
    samples = []
    for prediction in predictions:
        if prediction.truth is None:
            raise DataError(f"{prediction.where} carries no true box: name the dataset with --data")
        phrase = prediction.phrase or ""
        image = prediction.image or ""
        key = image_key(image)
        picture = key if len(names[key]) < 2 else image  # of several pictures called alike, the folder tells
        name = prediction.id or f"{picture}|{phrase_key(phrase)}|{box_key(prediction.truth)}"
        times[name] += 1
        if times[name] > 1:
            if prediction.id is not None:
                raise DataError(f"{prediction.where} answers {short(name)} again: keep one row a sample")
            name = f"{name}|{times[name]}"
        sample = Sample(name, image, phrase, prediction.truth, prediction.size, meta=prediction.meta)
        samples.append((prediction.split, sample))
    return samples
