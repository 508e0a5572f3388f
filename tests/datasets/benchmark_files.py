"""Small files in the forms in which benchmarks are published, as their readers and dataset cards say these are."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

WIDTH, HEIGHT = 64, 48


def picture(shade: int = 0) -> dict[str, Any]:
    """A picture as the hub's parquet files hold it."""
    stream = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (shade, 0, 0)).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def ref_adv(data: Path, count: int = 3) -> Path:
    shown = picture()
    rows = [
        {
            "image": shown,
            "file_name": f"{number:012}.jpg",
            "normal_caption": f"the cup without a spoon {number}",
            "solution": [1.0, 2.0, 30.0, 40.0],
            "width": WIDTH,
            "height": HEIGHT,
            "image_source": "coco_val2017",
            "human_authored": True,
            "use_negation": number % 2 == 0,
            "distractors": json.dumps(["a", "b", "c"]),
        }
        for number in range(count)
    ]
    return write_parquet(data / "ref-adv-s" / "data" / "train-00000-of-00001.parquet", rows)


def ref_l4(data: Path) -> None:
    for split, first in (("val", 0), ("test", 2)):
        rows = [
            {
                "id": number,
                "caption": f"In the frame an antique camera {number} is present.",
                "bbox": [10.0, 5.0, 20.5, 30.25],
                "bbox_area": 620.125,
                "bbox_id": f"o365_{number}",
                "ori_category_id": "o365_64",
                "image_id": "o365_1",
                "height": HEIGHT,
                "width": WIDTH,
                "file_name": "objects365_v2_00000001.jpg",
                "is_rewrite": True,
                "split": split,
            }
            for number in range(first, first + 2)
        ]
        write_parquet(data / "ref-l4" / f"ref-l4-{split}.parquet", rows)


def hc_refloco(data: Path) -> None:
    rows = [
        {
            "id": f"{number:07}",
            "source_dataset": "coco2017",
            "file_name": "000000002685.jpg",
            "width": WIDTH,
            "height": HEIGHT,
            "bbox": [1.5, 2.5, 20.0, 30.0],
            "bbox_area": 600.0,
            "caption": "The person appears to be a woman in a black top.",
            "labels": [{"category": "Appearance", "label": 0, "location": [0, 25]}],
            "is_rewrite": False,
            "split": "val",
        }
        for number in range(2)
    ]
    write_json(data / "hc-refloco" / "hc_refloco_val.json", {"metadata": {"version": 1}, "annotations": rows})
    write_parquet(data / "hc-refloco" / "hc_refloco_test.parquet", rows)


def refcoco_m(data: Path) -> Path:
    rows = [
        {
            "image": picture(number),
            "image_id": number,
            "file_name": f"COCO_train2014_{number:012}.jpg",
            "samples": [
                {
                    "id": 10 * number + k,
                    "image_id": number,
                    "category": "cup",
                    "supercategory": "kitchen",
                    "label": "cup",
                    "sentences": [f"left cup {k}", f"cup {k}"],
                    "bbox": [1.0, 2.0, 10.0, 20.0 + k],
                    "mask": {"counts": "abc", "size": [HEIGHT, WIDTH]},
                }
                for k in range(2)
            ],
        }
        for number in range(2)
    ]
    return write_parquet(data / "refcoco-m" / "data" / "validation-00000-of-00002.parquet", rows)


def grounding_me(data: Path) -> Path:
    rows = [
        {
            "id": number,
            "description": f"the red kettle {number}",
            "image": picture(number),
            "bbox": [1, 2, 30, 40],
            "detection_type": "box",
            "subtask_l1": task,
            "subtask_l2": "Appearance",
            "width": WIDTH,
            "height": HEIGHT,
        }
        for number, task in enumerate(("Discriminative", "Rejection"))
    ]
    return write_parquet(data / "groundingme" / "data" / "test-00000-of-00001.parquet", rows)


def grefcoco(data: Path, *, name: str = "grefs(unc).json") -> None:
    folder = data / "grefcoco"
    boxes = {1: [1.0, 2.0, 10.0, 20.0], 2: [30.0, 2.0, 10.0, 20.0]}
    instances = {
        "images": [{"id": 7, "file_name": "COCO_train2014_000000000007.jpg", "width": WIDTH, "height": HEIGHT}],
        "annotations": [{"id": key, "image_id": 7, "bbox": box} for key, box in boxes.items()],
        "categories": [],
    }
    refs = [
        {
            "ref_id": number,
            "image_id": 7,
            "file_name": "COCO_train2014_000000000007_1.jpg",
            "ann_id": ids,
            "category_id": [1] * len(ids),
            "split": split,
            "sentences": [{"sent_id": number, "sent": sent, "tokens": [], "raw": sent}],
        }
        for number, (ids, split, sent) in enumerate(
            (
                ([1, 2], "testA", "both cups"),
                ([-1], "testA", "the dog"),
                ([2], "testA", "right cup"),
                ([1], "testB", "left cup"),
                ([-1], "val", "the cat"),
            )
        )
    ]
    write_json(folder / "instances.json", instances)
    if name.endswith(".p"):
        import pickle

        (folder / name).write_bytes(pickle.dumps(refs, protocol=2))
    else:
        write_json(folder / name, refs)


def finecops(data: Path) -> None:
    def entry(number: int, **facts: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        shown = {
            "id": number,
            "file_name": f"{number}.jpg",
            "width": WIDTH,
            "height": HEIGHT,
            "caption": f"cup {number}",
        }
        box = {"id": number, "image_id": number, "bbox": [1.0, 2.0, 10.0, 20.0], "level": 1, "tuple_type": "1_hop"}
        return shown, box | facts

    negative = {"negative_type": "attribute", "negative_level": 1, "positive_id": 1}
    files = {
        "test_expression_pos_coco_format.json": [entry(1), entry(2)],
        "test_expression_neg_coco_format.json": [entry(3, negative_cate="text", **negative)],
        "test_image_neg_coco_format.json": [entry(4, negative_cate="image", **negative)],
    }
    for name, entries in files.items():
        content = {"images": [a for a, _ in entries], "annotations": [b for _, b in entries], "categories": []}
        write_json(data / "finecops-ref" / name, content)


def screenspot_pro(data: Path) -> None:
    for application in ("vscode_macos", "word_macos"):
        rows = [
            {
                "id": f"{application}_{number}",
                "img_filename": f"{application}/shot.png",
                "bbox": [10, 5, 20, 15],
                "instruction": f"open file {number}",
                "application": application,
                "platform": "macos",
                "img_size": [WIDTH, HEIGHT],
                "ui_type": "icon",
                "group": "Dev",
            }
            for number in range(2)
        ]
        write_json(data / "screenspot-pro" / "annotations" / f"{application}.json", rows)


def write_all(data: Path) -> None:
    """One small file or more of each benchmark."""
    for write in (ref_adv, ref_l4, hc_refloco, refcoco_m, grounding_me, grefcoco, finecops, screenspot_pro):
        write(data)


def write_pictures(folder: Path) -> None:
    """The pictures of those whose files hold none."""
    names = [
        "ref-l4/objects365_v2_00000001.jpg",
        "hc-refloco/000000002685.jpg",
        "train2014/COCO_train2014_000000000007.jpg",
        *(f"finecops-ref/{number}.jpg" for number in range(1, 5)),
        *(f"screenspot-pro/{application}/shot.png" for application in ("vscode_macos", "word_macos")),
    ]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / name)
