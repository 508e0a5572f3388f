"""Rollouts on disk: a JSON object a completion, the pictures beside them, and a page to look at them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from egm.errors import ImageError
from egm.files import write_bytes, write_text
from egm.images import MIN_SIDE, load_image
from egm.pages.page import overlay_url, render
from egm.training.rewards.reward import Grades
from egm.types import HIT_IOU, Sample

_THUMBNAIL = 320
_GROUPS_SHOWN = 60


class RolloutWriter:
    """Writes the rollouts of some groups of each step, a file a step and process.

    Args:
        folder: Where to; `pictures/` in it gets small copies of what was asked about.
        keep: How many groups of a step.
        process: Number of this process.
    """

    def __init__(self, folder: Path, *, keep: int, process: int) -> None:
        self._folder, self._keep, self._process = folder, keep, process

    def write(
        self,
        step: int,
        samples: Sequence[Sample],
        sizes: Sequence[tuple[int, int]],
        texts: Sequence[str],
        grades: Grades,
        advantages: Sequence[float],
    ) -> None:
        """Write the first groups of a generation; a step that is done again is written over.

        Args:
            step: Its number.
            samples: What was asked, one a group.
            sizes: Width and height of their pictures in pixels.
            texts: The rollouts, one group after the other.
            grades: What they are worth.
            advantages: What they were better by than their group.
        """
        if not self._keep:
            return
        (self._folder / "pictures").mkdir(parents=True, exist_ok=True)
        group = len(texts) // len(samples)
        lines = []
        for number, sample in enumerate(samples[: self._keep]):
            asked = {
                "step": step,
                "group": f"{step}.{self._process}.{number}",
                "id": sample.id,
                "image": _image_of(sample),
                "picture": self._picture(sample),
                "size": sizes[number],
                "phrase": sample.phrase,
                **({} if sample.expect == "one" else {"expect": sample.expect}),
                "truth": list(sample.box or ()),
                **({} if sample.boxes is None else {"truths": [list(box) for box in sample.boxes]}),
            }
            lines += [
                json.dumps(asked | _answer(texts[i], grades, i, float(advantages[i])))
                for i in range(number * group, (number + 1) * group)
            ]
        write_text(self._folder / f"step-{step:06}.p{self._process}.jsonl", "".join(line + "\n" for line in lines))

    def _picture(self, sample: Sample) -> str:
        image = load_image(sample.image)
        scale = min(1.0, _THUMBNAIL / max(image.size))
        # At least as large as `load_image` reads, also where a picture is long and narrow.
        width, height = (max(MIN_SIDE, round(scale * side)) for side in image.size)
        image = image.resize((width, height)) if scale < 1 else image
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        name = f"{hashlib.sha256(buffer.getvalue()).hexdigest()[:16]}.jpg"
        if not (self._folder / "pictures" / name).exists():
            write_bytes(self._folder / "pictures" / name, buffer.getvalue())
        return name


def _image_of(sample: Sample) -> str:
    """Return which picture it is: a path, or the sample's id for one that was made."""
    return str(sample.image) if isinstance(sample.image, str | Path) else sample.id


def _answer(text: str, grades: Grades, index: int, advantage: float) -> dict[str, Any]:
    grounding = grades.groundings[index]
    return {
        "text": text,
        "box": None if grounding.box is None else list(grounding.box),
        **({"boxes": [list(box) for box in grounding.answered]} if grounding.expect == "all" else {}),
        "failure": None if grounding.failure is None else str(grounding.failure),
        "iou": grades.scores[index].iou,
        "reward": float(grades.totals[index]),
        "parts": {name: float(values[index]) for name, values in grades.parts.items()},
        "advantage": advantage,
    }


def read_rollouts(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the rollouts of a run in the order of its steps."""
    for path in sorted(folder.glob("step-*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def write_page(folder: Path, out: Path) -> Path:
    """Write a page of rollouts, evenly spread over the steps; it holds all it shows and loads nothing.

    Args:
        folder: What `RolloutWriter` wrote to.
        out: The HTML file.
    """
    names = list(dict.fromkeys(rollout["group"] for rollout in read_rollouts(folder)))
    shown = sorted({round(i * (len(names) - 1) / (_GROUPS_SHOWN - 1)) for i in range(_GROUPS_SHOWN)}) if names else []
    groups: dict[str, list[dict[str, Any]]] = {names[i]: [] for i in shown}  # of a long run all would fill the memory
    for rollout in read_rollouts(folder):
        if rollout["group"] in groups:
            groups[rollout["group"]].append(rollout)
    page = render(
        "rollouts.html.j2",
        styles=("page.css", "rollouts.css"),
        shown=len(shown),
        total=len(names),
        hit_iou=HIT_IOU,
        groups=[(group, _overlay(group, folder / "pictures")) for group in groups.values()],
    )
    write_text(out, page)
    return out


def _overlay(group: Sequence[dict[str, Any]], pictures: Path) -> str | None:
    """The small picture of a group with all of its boxes; None if it is damaged, which should not end a run."""
    first = group[0]
    try:
        picture = load_image(first["picture"], root=pictures)
    except ImageError:
        return None
    across, down = picture.width / first["size"][0], picture.height / first["size"][1]

    def shrunk(corners: Sequence[float]) -> tuple[float, ...]:
        x1, y1, x2, y2 = corners
        return across * x1, down * y1, across * x2, down * y2

    boxes = dict.fromkeys(
        shrunk(box) for rollout in group for box in rollout.get("boxes") or ([rollout["box"]] if rollout["box"] else [])
    )
    truths = first.get("truths", [first["truth"]])
    return overlay_url(picture, boxes=list(boxes), truths=[*map(shrunk, truths)])
