"""Several datasets on one command line: each is named once, and nothing is drawn before that is known."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from .conftest import Egm


def test_a_split_that_is_given_twice_is_refused_before_any_scene_is_drawn(egm: Egm, tmp_path: Path) -> None:
    for command in (("eval",), ("calibrate",)):
        for names in (["synthref/train", "synthref/val", "synthref/val"], ["synthref/train", "nowhere.jsonl"]):
            outcome = egm(*command, *names, "--limit", str(10**9), "--out", "run")  # more than could ever be drawn
            assert (outcome.code, outcome.out) == (2, "")
            said = "'synthref/val' is given twice: name each dataset once" if len(names) > 2 else "nowhere.jsonl"
            assert said in outcome.err
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (10, 10)).save(tmp_path / folder / "x.png")
        row = {"image": "x.png", "sent": "it", "bbox": [0, 0, 5, 5], "height": 10, "width": 10}
        (tmp_path / folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    outcome = egm("eval", "a/rows.jsonl", "b/rows.jsonl")
    assert (outcome.code, "'b/rows.jsonl' is called 'rows', as another dataset is" in outcome.err) == (2, True)
