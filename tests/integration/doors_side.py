"""What the tests of doors do within the environments of other people's tools: one function each, called by its name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def label_studio(folder: Path) -> dict[str, Any]:
    """Have the SDK check tasks against their interface, and its converter write them as COCO."""
    from label_studio_sdk.converter import Converter
    from label_studio_sdk.label_interface import LabelInterface

    config = (folder / "tasks.xml").read_text()
    tasks = json.loads((folder / "tasks.json").read_text())
    interface = LabelInterface(config)
    interface.validate()
    checked = [interface.validate_task({"data": task["data"]}) for task in tasks]
    annotated = [interface.validate_annotation(each) for task in tasks for each in task["annotations"]]
    predicted = [interface.validate_prediction(each) for task in tasks for each in task["predictions"]]
    broken = json.loads(json.dumps(tasks[0]["annotations"][0]))
    broken["result"][0]["value"]["rectanglelabels"] = ["no such label"]
    for number, task in enumerate(tasks, 1):  # as a project numbers what it exports
        task["id"] = number
        for annotation in task["annotations"]:
            annotation |= {"id": number, "completed_by": {"id": 1}}
    (folder / "exported.json").write_text(json.dumps(tasks))
    converter = Converter(config, str(folder), download_resources=False)
    converter.convert_to_coco(str(folder / "exported.json"), str(folder / "coco"), is_dir=False)
    return {
        "checked": checked,
        "annotated": annotated,
        "predicted": predicted,
        "broken": interface.validate_annotation(broken),
        "coco": json.loads((folder / "coco" / "result.json").read_text()),
    }


def fiftyone(folder: Path) -> dict[str, Any]:
    """Open what was exported by FiftyOne's own interface, and have it evaluated."""
    import fiftyone as fo

    dataset = fo.load_dataset("answers")
    judged = dataset.evaluate_detections("predictions", gt_field="ground_truth", eval_key="judged", classwise=True)
    return {
        "samples": [
            {
                "file": sample.filepath,
                "size": [sample.metadata.width, sample.metadata.height],
                "failures": sample["predictions_failures"]
                if "predictions_failures" in dataset.get_field_schema()
                else None,
                **{
                    field: [
                        [item.label, item.bounding_box, item.confidence, item.sample_id]
                        for item in (sample[field].detections if sample[field] is not None else ())
                    ]
                    for field in ("ground_truth", "predictions")
                },
            }
            for sample in dataset
        ],
        "fields": sorted(dataset.get_field_schema()),
        "right": int(dataset.sum("judged_tp")),
        "report": judged.metrics(),
    }


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(globals()[sys.argv[1]](Path(sys.argv[2])), default=float) + "\n")
