"""Answers and samples as Label Studio's tasks; what people made of them is read by `egm.datasets.formats.label_studio`.

A task is one question: `data` holds the picture and the phrase, `annotations` the true boxes, `predictions` the
model's. A rectangle is `x, y, width, height` in per cent of the picture's sides, origin top left, not rotated.
Source: labelstud.io/guide/task_format and /guide/predictions, as label-studio-sdk 2.0 checks them.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from egm.boxes import Box
from egm.datasets.convert import image_name
from egm.datasets.dataset import Dataset
from egm.datasets.formats.label_studio import FROM_NAME, REFERENT, TO_NAME
from egm.doors.answers import ExportedAnswer, known_size
from egm.errors import DataError, ImageError
from egm.images import read_picture_header
from egm.types import Sample

LABEL_CONFIG = f"""\
<View>
  <Header value="$phrase"/>
  <Image name="{TO_NAME}" value="$image"/>
  <RectangleLabels name="{FROM_NAME}" toName="{TO_NAME}">
    <Label value="{REFERENT}"/>
  </RectangleLabels>
</View>
"""
"""The labeling interface of a project that these tasks are imported into."""


def answer_tasks(answers: Sequence[ExportedAnswer], *, url: str = "") -> list[dict[str, Any]]:
    """Write answers as tasks with predictions, and with annotations where the truth is known.

    Args:
        answers: Their pictures' sizes have to be known, for rectangles are relative to them.
        url: Put before each picture's name, such as "/data/local-files/?d=" for Label Studio's local storage: the
            browser of who annotates opens what comes of it.

    Raises:
        DataError: If the size of a picture is not known.
    """
    tasks = []
    for answer in answers:
        size = known_size(answer)
        sure = [share for share in answer.confidences if share is not None]
        prediction: dict[str, Any] = {
            "model_version": answer.model,
            "result": _rectangles(answer.boxes, size, answer.confidences),
        }
        if sure and len(sure) == len(answer.boxes):
            prediction["score"] = min(sure)  # by which tasks are ordered: a set is as sure as its least sure box
        facts = {"id": answer.id, "split": answer.split, "failure": answer.failure, "iou": answer.iou}
        facts |= _asked(answer)
        truths = None if answer.truths is None else _rectangles(answer.truths, size)
        tasks.append(_task(_place(url, answer.image), answer.phrase, facts, truths, [prediction]))
    return tasks


def dataset_tasks(dataset: Dataset, *, url: str = "") -> list[dict[str, Any]]:
    """Write samples as tasks, with annotations where the true boxes are known.

    Args:
        dataset: Its pictures are files; of those whose size is not known the file is opened for it.
        url: As of `answer_tasks`.

    Raises:
        DataError: If the pictures are no files.
        ImageError: If the size of one with a true box is not known, and it cannot be opened for it.
    """
    if not dataset.names_files:
        raise DataError(f"the pictures of {dataset.name} are not files: save them too (--pictures DIR)")
    tasks = []
    for sample in dataset.annotations():
        truths = None if sample.truths is None else _rectangles(sample.truths, _size(sample))
        facts = {"id": sample.id, **_asked(sample)}
        tasks.append(_task(_place(url, image_name(sample, dataset.root)), sample.phrase, facts, truths, []))
    return tasks


def _size(sample: Sample) -> tuple[int, int]:
    """Width and height that boxes in per cent are shares of; a picture without a box needs none."""
    if sample.size is not None or not sample.truths:
        return sample.size or (1, 1)
    try:
        return read_picture_header(cast(Path, sample.image))[0]
    except ImageError as error:
        raise ImageError(f"{sample.id} says no width and height, which its box in per cent needs: {error}") from None


def _asked(question: ExportedAnswer | Sample) -> dict[str, Any]:
    """What `egm.datasets.formats.label_studio` takes how a question was asked from, where it is not as usual."""
    return {"expect": None if question.expect == "one" else question.expect, "amodal": question.amodal or None}


def _place(url: str, name: str) -> str:
    """What the browser opens; behind an address, what a name may hold and an address may not is quoted."""
    return url + urllib.parse.quote(name) if url else name


def _task(
    image: str,
    phrase: str,
    facts: Mapping[str, Any],
    truths: list[dict[str, Any]] | None,
    predictions: list[dict[str, Any]],
) -> dict[str, Any]:
    known = {key: value for key, value in facts.items() if value not in (None, "")}
    return {
        "data": {"image": image, "phrase": phrase, **known},
        "annotations": [] if truths is None else [{"result": truths}],
        "predictions": predictions,
    }


def _rectangles(
    boxes: Sequence[Box], size: tuple[int, int], confidences: Sequence[float | None] = ()
) -> list[dict[str, Any]]:
    width, height = size
    found = []
    for number, box in enumerate(boxes):
        value = {
            "x": 100 * box.x1 / width,
            "y": 100 * box.y1 / height,
            "width": 100 * box.width / width,
            "height": 100 * box.height / height,
            "rotation": 0,
            "rectanglelabels": [REFERENT],
        }
        region: dict[str, Any] = {
            "id": f"box{number}",
            "from_name": FROM_NAME,
            "to_name": TO_NAME,
            "type": "rectanglelabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": value,
        }
        if number < len(confidences) and confidences[number] is not None:
            region["score"] = confidences[number]
        found.append(region)
    return found
