"""Answers as a FiftyOne dataset: a sample a picture, with the true boxes and the answered ones as detections.

FiftyOne's boxes are `x, y, width, height` as shares of the picture's sides, origin top left, which may leave the frame.
Source: fiftyone 1.22, `fiftyone.core.labels.Detection` (docs.voxel51.com).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from egm.boxes import Box
from egm.doors.answers import ExportedAnswer, PictureFiles, by_picture
from egm.errors import DataError
from egm.extras import need

TRUTH_FIELD = "ground_truth"
PREDICTION_FIELD = "predictions"


def fiftyone_dataset(
    answers: Sequence[ExportedAnswer],
    name: str,
    *,
    images: Path | None = None,
    pictures: Path | None = None,
    field: str = PREDICTION_FIELD,
) -> Any:
    """Make a dataset of FiftyOne's, or add a field of another model's answers to the one of that name.

    Pictures and questions that the dataset does not hold yet are added, the questions with their true boxes.

    Args:
        answers: Of one run. Each question is a detection of each field, whose `label` is the phrase; a detection of a
            prediction has `confidence` where known, and both have `sample_id`, `split`, and `iou` where known. What
            failed is in the sample's field `FIELD_failures`: phrase and why.
        name: Of the dataset, which is persistent.
        images: Folder that the pictures' names are relative to, and that none may leave; else the current one.
        pictures: Folder to save drawn pictures to, those of SynthRef.
        field: The predictions' field.

    Returns:
        The `fiftyone.Dataset`.

    Raises:
        MissingExtraError: If fiftyone is not installed.
        DataError: If a picture is nowhere to be had, the dataset has that field already, or it is the field of the
            true boxes.
        ImageError: If a picture cannot be read, or is of another size than was asked about.
    """
    if not field.isidentifier():
        raise DataError(f"{field!r} cannot be the name of a field: letters, digits and _ alone")
    if field == TRUTH_FIELD:
        raise DataError(f"{field!r} is the field of the true boxes: give the answers another (--field)")
    need("exporting to FiftyOne", "fiftyone")
    find = PictureFiles(images, pictures)
    for answer in answers:  # before anything is made
        find(answer)
    groups = [(*find(group[0]), group) for group in by_picture(answers).values()]
    import fiftyone as fo

    existing = fo.dataset_exists(name)
    dataset = fo.load_dataset(name) if existing else fo.Dataset(name, persistent=True)
    for taken in filter(dataset.has_sample_field, (field, f"{field}_failures")):
        raise DataError(f"FiftyOne's dataset {name!r} has a field {taken!r}: give another name, or another --field")
    known = {sample.filepath: sample for sample in dataset} if existing else {}
    fresh = []
    for path, size, group in groups:
        sample = known.get(str(path))
        if sample is None:
            sample = fo.Sample(filepath=str(path), metadata=fo.ImageMetadata(width=size[0], height=size[1]))
            fresh.append(sample)
        if any(answer.truths is not None for answer in group):
            sample[TRUTH_FIELD] = fo.Detections(detections=_truths(sample, group, size))
        sample[field] = fo.Detections(
            detections=[item for answer in group for item in _detections(answer, answer.boxes, size, answered=True)]
        )
        if failed := [f"{answer.phrase}: {answer.failure}" for answer in group if answer.failure is not None]:
            sample[f"{field}_failures"] = failed
        if str(path) in known:
            sample.save()
    dataset.add_samples(fresh)
    return dataset


def _truths(sample: Any, group: Sequence[ExportedAnswer], size: tuple[int, int]) -> list[Any]:
    """The true boxes that a sample holds, and those of the questions that it does not hold yet."""
    told = sample[TRUTH_FIELD] if sample.has_field(TRUTH_FIELD) else None
    held = [] if told is None else list(told.detections)
    known = {_question(getattr(item, "sample_id", None), getattr(item, "split", None)) for item in held}
    new = [answer for answer in group if _question(answer.id, answer.split) not in known]
    return [*held, *(item for answer in new for item in _detections(answer, answer.truths or (), size))]


def _question(name: str | None, split: str | None) -> tuple[str, str]:
    """Which question it is, whether or not the run that it was exported from had several splits."""
    return (name or "").removeprefix(f"{split}:"), split or ""


def _detections(
    answer: ExportedAnswer, boxes: Sequence[Box], size: tuple[int, int], *, answered: bool = False
) -> list[Any]:
    import fiftyone as fo

    facts: dict[str, Any] = {"sample_id": answer.id, "split": answer.split or None}
    if answered:
        facts["iou"] = answer.iou
    return [
        fo.Detection(
            label=answer.phrase,
            bounding_box=_shares(box, size),
            **({"confidence": answer.confidences[number]} if answered else {}),
            **facts,
        )
        for number, box in enumerate(boxes)
    ]


def _shares(box: Box, size: tuple[int, int]) -> list[float]:
    """`x, y, width, height` of a box as shares of the picture's sides."""
    width, height = size
    return [box.x1 / width, box.y1 / height, box.width / width, box.height / height]
