"""EGM-8B's recipe at toy size, on real pictures and phrases in the official jsonl: a model comes out that grounds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from egm.backends import GenerationSettings
from egm.grounder import Grounder
from egm.training.recipe import load_recipe
from egm.training.sft import run_sft

RECIPE = Path(__file__).parents[2] / "recipes" / "egm-8b.yaml"


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
    recipe = load_recipe(
        RECIPE,
        [
            "model.name=tiny-s",
            "model.from_scratch=true",
            f"data.train={path}",
            f"data.images={images}",
            "optim.epochs=2",
            "optim.batch_size=2",
            "optim.learning_rate=1.0e-3",
            "run.workers=1",
            "run.log_every=1",
        ],
    )
    folder = run_sft(recipe, tmp_path / "run")
    losses = [json.loads(line).get("loss") for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert losses[3] < losses[0]
    grounder = Grounder.load(folder, device="cpu", settings=GenerationSettings(max_new_tokens=8))
    grounding = grounder.ground(images / rows[0]["image"], "the man")
    assert grounding.size == (rows[0]["width"], rows[0]["height"])
    assert 0 < grounding.tokens <= 8
