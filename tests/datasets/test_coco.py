"""COCO-style files: boxes of the whole object, derived from outlines where there are none, and never clipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from egm.boxes import Box
from egm.datasets import Dataset, open_dataset
from egm.errors import DataError

REGION = {"segmentation": [10, 20, 70, 25.5, 40, -5], "name": "a man", "occlude_rate": 0.4, "order": 1}


def opened(tmp_path: Path, *annotations: Any) -> Dataset:
    content = {
        "images": [{"id": 5, "file_name": "a.jpg", "width": 60, "height": 50}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [{"image_id": 5, "category_id": 1, **annotation} for annotation in annotations],
    }
    path = tmp_path / "amodal.json"
    path.write_text(json.dumps(content))
    return open_dataset(path)


def test_cocoa_boxes_are_those_of_the_outlines(tmp_path: Path) -> None:
    parts = REGION | {"segmentation": [[0, 0, 1, 1], [90, 5, 2, 80]], "name": "a chair"}
    first, second, third = opened(tmp_path, {"regions": [REGION, parts]}, {"regions": [REGION]})
    assert (first.phrase, first.box, first.amodal) == ("a man", Box(10, -5, 70, 25.5), True)
    assert (second.phrase, second.box) == ("a chair", Box(0, 0, 90, 80))
    assert (first.size, first.image, first.meta["occlude_rate"]) == ((60, 50), Path("a.jpg"), 0.4)
    assert len({first.id, second.id, third.id}) == 3


def test_amodal_boxes_leave_the_frame(tmp_path: Path) -> None:
    boxes = {"bbox": [0, 0, 60, 50], "amodal_bbox": [-20, -10, 100, 90.5]}
    plain, named = opened(tmp_path, boxes, boxes | {"name": "the runner", "track_id": 3})
    assert (plain.phrase, plain.box, plain.amodal) == ("person", Box(-20, -10, 80, 80.5), True)
    assert (named.phrase, named.meta["track_id"], named.meta["category"]) == ("the runner", 3, "person")


@pytest.mark.parametrize(
    ("key", "other", "says"),
    [
        ("images", {"id": 5, "file_name": "b.jpg"}, "image_id 5 stands twice"),
        ("images", {"id": 5, "file_name": "a.jpg", "width": 61, "height": 50}, "image_id 5 stands twice"),
        ("categories", {"id": 1, "name": "dog"}, "category_id 1 stands twice"),
    ],
)
def test_an_id_of_two_things_names_neither(tmp_path: Path, key: str, other: dict[str, Any], says: str) -> None:
    opened(tmp_path, {"amodal_bbox": [1, 2, 3, 4]})
    path = tmp_path / "amodal.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {key: content[key] * 2}))
    assert len(open_dataset(path)) == 1
    path.write_text(json.dumps(content | {key: [*content[key], other]}))
    with pytest.raises(DataError, match=f"annotation 1: {says}"):
        open_dataset(path)


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        ({"regions": [REGION | {"segmentation": {"counts": "x"}}]}, "annotation 1: region 1: segmentation is not"),
        ({"regions": [REGION, REGION | {"segmentation": [1, 2, 3]}]}, "annotation 1: region 2: segmentation is not"),
        ({"regions": [REGION | {"segmentation": []}]}, "empty polygon"),
        ({"regions": [REGION | {"segmentation": [1, 2, 1, 2]}]}, "region 1: box .* is empty"),
        ({"regions": [REGION | {"name": ""}]}, "region 1: has no name"),
        ({"regions": "x"}, "annotation 1: has no regions"),
        ({"amodal_bbox": [1, 2, -3, 4]}, "annotation 1: amodal_bbox .* is not x, y, width, height"),
        ({"amodal_bbox": [1, 2, 3, 4], "image_id": 6}, "annotation 1: image_id 6 is not among the images"),
        ({"amodal_bbox": [1, 2, 3, 4], "image_id": [5]}, "is not among the images"),
        ({"amodal_bbox": [1, 2, 3, 4], "category_id": [1]}, "no category"),
        ({"amodal_bbox": [1, 2, 3, 4], "category_id": 2}, "no caption, no name and no category"),
        ({"bbox": [1, 2, 3, 4]}, "no phrases to ground"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, annotation: Any, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        opened(tmp_path, annotation)
    assert "amodal.json" in str(caught.value)
