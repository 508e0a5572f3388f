"""Rationales: an execution told in words, with the candidates' boxes, the anchors, the comparison and the choice.

Coordinates in a rationale are on the 0-1000 scale of the image, like those of the answer. Sizes and distances are in
percent of the image's longer side.
"""

from __future__ import annotations

from egm.boxes import Box
from egm.datasets.synthetic.programs import (
    EXTREME_SIDES,
    Between,
    Distance,
    Event,
    Extreme,
    Ordinal,
    Side,
    Trace,
    Without,
    center2,
)
from egm.datasets.synthetic.scenes import IntBox, Scene
from egm.datasets.synthetic.wording import noun

_FROM = {"left": "the left", "right": "the right", "above": "the top", "below": "the bottom"}


def explain(trace: Trace, scene: Scene, *, amodal: bool = False) -> str:
    """Word an execution.

    Args:
        trace: What `execute` returned.
        scene: The scene that it ran on.
        amodal: Whether to end with the whole box, hidden parts too, after the visible one.
    """
    text = f"{_tell(trace, scene)} So it is {_box(scene, scene.objects[trace.referent].visible)}."
    if amodal:
        text += f" In full {_box(scene, scene.objects[trace.referent].whole)}."
    return text


def _tell(trace: Trace, scene: Scene) -> str:
    parts = []
    for inner in trace.anchors:
        if inner.program.steps:
            parts += [_tell(inner, scene), f"So this one is at {_visible(scene, inner.referent)}."]
        else:
            parts.append(f"The {noun(inner.program.attributes)} is at {_visible(scene, inner.referent)}.")
    if not trace.program.steps:
        return f"The only {noun(trace.program.attributes)} is at {_visible(scene, trace.referent)}."
    events = list(trace.events[1:])
    filters = [event for event in events if isinstance(event.step, (Side, Between, Without))]
    many = noun(trace.program.attributes, plural=True)
    if filters:
        lines = [f"{_visible(scene, i)} {_verdicts(scene, i, filters)}" for i in filters[0].before]
        parts.append(f"The {many}: {'; '.join(lines)}.")
        many = "ones left"
    if len(filters) < len(events):
        parts.append(_choice(scene, events[-1], many))
    return " ".join(parts)


def _verdicts(scene: Scene, i: int, filters: list[Event]) -> str:
    """Say how a candidate fares, up to the first condition that it fails."""
    words = []
    for event in filters:
        if i in event.anchors:
            words.append("itself")
            break
        words.append(_verdict(scene, i, event))
        if i not in event.after:
            break
    return ", ".join(words)


def _verdict(scene: Scene, i: int, event: Event) -> str:
    step = event.step
    if isinstance(step, Without):
        return str(getattr(scene.objects[i], step.attribute))
    if isinstance(step, Between):
        return "between" if i in event.after else "outside"
    assert isinstance(step, Side)
    axis = 0 if step.side in ("left", "right") else 1
    before = center2(scene.objects[i])[axis] < center2(scene.objects[event.anchors[0]])[axis]
    return (("left", "right"), ("above", "below"))[axis][0 if before else 1]


def _choice(scene: Scene, event: Event, many: str) -> str:
    step = event.step
    boxes = [_visible(scene, i) for i in event.before]
    if isinstance(step, Distance) or (isinstance(step, Extreme) and step.which not in EXTREME_SIDES):
        measure = "distance" if isinstance(step, Distance) else "size"
        lines = [f"{box} {measure} {value}" for box, value in zip(boxes, event.values, strict=True)]
        goal = ("nearest" if step.nearest else "farthest") if isinstance(step, Distance) else step.which
        return (
            f"The {many}: {'; '.join(lines)}. {goal.capitalize()} {event.values[event.before.index(event.after[0])]}."
        )
    if isinstance(step, Ordinal):
        lines = [f"{k} {box}" for k, box in enumerate(boxes, 1)]
        return f"The {many} from {_FROM[step.side]}: {'; '.join(lines)}."
    assert isinstance(step, Extreme)
    return f"The {many} from {_FROM[EXTREME_SIDES[step.which]]}: {'; '.join(boxes)}."


def _visible(scene: Scene, i: int) -> str:
    return _box(scene, scene.objects[i].visible)


def _box(scene: Scene, box: IntBox) -> str:
    return "({},{},{},{})".format(*Box(*box).to_1000(scene.size))
