"""EGM-8B's recipe at toy size, on real pictures and phrases in the official jsonl, by two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from egm.backends import GenerationSettings
from egm.grounder import Grounder

RECIPE = Path(__file__).parents[2] / "recipes" / "egm-8b.yaml"


@pytest.mark.usefixtures("warm_start")
def test_official_rows_become_a_model_that_grounds(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    images = real_data("coco_images")
    rows = []
    for row in json.loads(real_data("refcoco/refcoco_val.json").read_text()):
        name = row["img_id"][:27] + ".jpg"
        if not (images / name).exists():
            continue
        x, y, w, h = row["bbox"]
        scale = (row["width"], row["height"]) * 2
        box = [round(1000 * value / side) for value, side in zip((x, y, x + w, y + h), scale, strict=True)]
        phrase = row["sents"]
        answer = json.dumps([{"bbox_2d": box, "label": phrase}])
        ask = f"<image>\nLocate {phrase}, output its bbox coordinates using JSON format."
        rationale = f"The phrase asks for {phrase}, which is found near the middle of {box}."
        turns = [
            {"from": "human", "value": ask},
            {"from": "gpt", "value": f"{rationale}\n</think>\n\n```json\n{answer}\n```"},
        ]
        rows.append({"image": name, "height": row["height"], "width": row["width"], "conversations": turns})
    assert len({row["image"] for row in rows}) == 2
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:4]))
    settings = [
        "model.name=tiny-s",
        "model.from_scratch=true",
        f"data.train={path}",
        f"data.images={images}",
        "optim.epochs=4",
        "optim.batch_size=4",
        "optim.learning_rate=1.0e-3",
        "run.workers=1",
        "run.log_every=1",
    ]
    out = tmp_path / "run"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "egm.cli"]
    arguments = [*launch, "sft", str(RECIPE), "--out", str(out), *(part for s in settings for part in ("--set", s))]
    hidden = os.environ | {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "EGM_DATA": "none",
    }
    done = subprocess.run(arguments, env=hidden, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((out / "run.json").read_text())["processes"] == 2
    losses = [json.loads(line).get("loss") for line in (out / "log.jsonl").read_text().splitlines()]
    assert losses[3] < losses[0]
    folder = out / "model"
    grounder = Grounder.load(folder, device="cpu", settings=GenerationSettings(max_new_tokens=8))
    grounding = grounder.ground(images / rows[0]["image"], "the man")
    assert grounding.size == (rows[0]["width"], rows[0]["height"])
    assert 0 < grounding.tokens <= 8
