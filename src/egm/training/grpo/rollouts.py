"""Rollouts on disk: a JSON object a completion, the pictures beside them, and a page to look at them."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from egm.files import write_bytes, write_text
from egm.images import load_image
from egm.training.grpo.questions import Prompts
from egm.training.rewards.reward import Grades
from egm.types import Sample

_THUMBNAIL = 320
_GROUPS_SHOWN = 60
_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; color: #222; background: #fff; }
section { display: flex; gap: 1.5rem; border-top: 1px solid #ccc; padding: 1rem 0; align-items: flex-start; }
svg { flex: none; } table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .25rem .6rem; border-bottom: 1px solid #eee; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font-size: 12px; } small { color: #666; }
rect { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke; }
.truth { stroke: #1a7f37; } .hit { stroke: #0969da; } .miss { stroke: #cf222e; }
"""


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
        self, step: int, prompts: Prompts, texts: Sequence[str], grades: Grades, advantages: Sequence[float]
    ) -> None:
        """Write the first groups of a generation; a step that is done again is written over."""
        if not self._keep:
            return
        (self._folder / "pictures").mkdir(parents=True, exist_ok=True)
        group = len(texts) // len(prompts.samples)
        lines = []
        for number, sample in enumerate(prompts.samples[: self._keep]):
            asked = {
                "step": step,
                "group": f"{step}.{self._process}.{number}",
                "id": sample.id,
                "image": _image_of(sample),
                "picture": self._picture(sample),
                "size": prompts.sizes[prompts.pictures[number]],
                "phrase": sample.phrase,
                "truth": list(sample.box or ()),
            }
            lines += [
                json.dumps(asked | _answer(texts[i], grades, i, float(advantages[i])))
                for i in range(number * group, (number + 1) * group)
            ]
        write_text(self._folder / f"step-{step:06}.p{self._process}.jsonl", "".join(line + "\n" for line in lines))

    def _picture(self, sample: Sample) -> str:
        image = load_image(sample.image).copy()
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
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
    body = "".join(_group(group, folder) for group in groups.values())
    write_text(
        out,
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n<title>Rollouts</title>\n"
        f"<style>{_STYLE}</style>\n<h1>Rollouts</h1>\n<p>{len(shown)} of {len(names)} groups. The true box is green, "
        f"hits at IoU 0.5 are blue, misses red.</p>\n{body}</html>\n",
    )
    return out


def _group(rollouts: Sequence[dict[str, Any]], folder: Path) -> str:
    first = rollouts[0]
    width, height = first["size"]
    scale = min(1.0, _THUMBNAIL / max(width, height))
    picture = base64.b64encode((folder / "pictures" / Path(first["picture"]).name).read_bytes()).decode("ascii")
    boxes = [(r["box"], "hit" if r["iou"] >= 0.5 else "miss") for r in rollouts if r["box"]]
    rects = "".join(_rect(box, kind) for box, kind in [*boxes, (first["truth"], "truth")])
    rows = "".join(
        f"<tr><td>{r['reward']:.3f}<br><small>{_parts(r['parts'])}</small><td>{r['advantage']:+.2f}<td>{r['iou']:.2f}"
        f"<td><pre>{html.escape(r['text'])}</pre><small>{html.escape(r['failure'] or '')}</small></tr>"
        for r in rollouts
    )
    return (
        f'<section><svg width="{width * scale:.0f}" height="{height * scale:.0f}" viewBox="0 0 {width} {height}">'
        f'<image href="data:image/jpeg;base64,{picture}" width="{width}" height="{height}"/>{rects}</svg><div>'
        f"<h2>{html.escape(first['phrase'])}</h2><p><small>step {first['step']}, {html.escape(first['id'])}, "
        f"{html.escape(first['image'])}</small></p><table><tr><th>reward<th>advantage<th>IoU<th>text</tr>{rows}</table>"
        "</div></section>\n"
    )


def _rect(box: Sequence[float], kind: str) -> str:
    x1, y1, x2, y2 = (float(value) for value in box)
    return f'<rect class="{kind}" x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}"/>'


def _parts(parts: dict[str, float]) -> str:
    return html.escape(", ".join(f"{name} {value:.2f}" for name, value in parts.items()))
