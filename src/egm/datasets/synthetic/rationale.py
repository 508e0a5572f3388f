"""Rationales: an execution told in words, with the candidates' boxes, the anchors, the comparison and the choice.

Coordinates in a rationale are on the 0-1000 scale of the image, like those of the answer. Sizes and distances are in
percent of the image's longer side.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

from egm.boxes import Box
from egm.datasets.synthetic.official import official
from egm.datasets.synthetic.phrasing import noun
from egm.datasets.synthetic.programs import (
    COUNTED_FROM,
    EXTREME_SIDES,
    Between,
    Distance,
    Event,
    Extreme,
    Ordinal,
    Selection,
    Side,
    Trace,
    Without,
    center2,
)
from egm.datasets.synthetic.rng import Rng
from egm.datasets.synthetic.scenes import IntBox, Scene

Style: TypeAlias = Literal["candidates", "inventory", "unboxed", "official"]
"""How a rationale refers to objects: by their boxes, step by step; by number, after a list of the whole scene with its
boxes; by number, after the same list without them, so that the answer holds the only box; or in one or two sentences by
what they look like, and only those that decide."""

STYLES: Final[tuple[str, ...]] = get_args(Style)


def write_rationale(
    trace: Trace | Selection, scene: Scene, *, amodal: bool = False, style: Style = "candidates", name: str = ""
) -> str:
    """Word an execution, also one that may fit nothing or several.

    Args:
        trace: What `execute` or `select` returned.
        scene: The scene that it ran on.
        amodal: Whether to end with the whole box, hidden parts too, after the visible one; "unboxed" and "official"
            tell neither.
        style: How to refer to objects.
        name: The sample's id: "official" has several wordings, and chooses by it.
    """
    if style == "official":
        return official(trace, scene, Rng(f"{name}/official/0"))
    if isinstance(trace, Selection):
        return _Teller(scene, style).selection(trace)
    return _Teller(scene, style).rationale(trace, amodal=amodal)


class _Teller:
    def __init__(self, scene: Scene, style: str) -> None:
        self.scene = scene
        order = sorted(range(len(scene.objects)), key=lambda i: (center2(scene.objects[i]), i))
        boxes = [_box(scene, item.visible) for item in scene.objects]
        numbers = {i: str(k) for k, i in enumerate(order, 1)}
        by_number = style != "candidates"
        self.boxed = style != "unboxed"
        shown = boxes if self.boxed else [""] * len(boxes)
        self.names = numbers if by_number else dict(enumerate(boxes))
        self.at = "" if by_number else "at "
        entries = (
            [" ".join(filter(None, (numbers[i], shown[i], self._describe(i)))) for i in order] if by_number else []
        )
        self.inventory = "; ".join(entries) + ". " if entries else ""
        self.choices = {i: f"{numbers[i]} {shown[i]}".rstrip() if by_number else boxes[i] for i in order}

    def _describe(self, i: int) -> str:
        item = self.scene.objects[i]
        size = "" if item.size == "medium" else f"{item.size} "
        return f"{size}{item.fill} {item.color} {item.shape}"

    def rationale(self, trace: Trace, *, amodal: bool) -> str:
        text = f"{self.inventory}{self.tell(trace)} So it is {self.choices[trace.referent]}."
        if amodal and self.boxed:
            text += f" In full {_box(self.scene, self.scene.objects[trace.referent].whole)}."
        return text

    def selection(self, selection: Selection) -> str:
        found = selection.found
        named = ", ".join(self.choices[i] for i in found)
        end = f"So {'it is' if len(found) == 1 else 'they are'} {named}." if found else "So there is none."
        return f"{self.inventory}{self.tell_selection(selection)} {end}"

    def tell_selection(self, selection: Selection) -> str:
        attributes, first = selection.program.attributes, selection.events[0].after
        if not first:
            return f"There is no {noun(attributes)}."
        if not selection.program.steps:
            places = ", ".join(self.names[i] for i in first)
            kind = f"The only {noun(attributes)} is" if len(first) == 1 else f"The {noun(attributes, plural=True)} are"
            return f"{kind} {self.at}{places}."
        return self.steps(selection)

    def tell(self, trace: Trace) -> str:
        if not trace.program.steps:
            return f"The only {noun(trace.program.attributes)} is {self.at}{self.names[trace.referent]}."
        return self.steps(trace)

    def steps(self, trace: Trace | Selection) -> str:
        parts = []
        for inner in trace.anchors:
            if inner.program.steps:
                parts += [self.tell(inner), f"So this one is {self.at}{self.names[inner.referent]}."]
            else:
                parts.append(f"The {noun(inner.program.attributes)} is {self.at}{self.names[inner.referent]}.")
        events = list(trace.events[1:])
        filters = [event for event in events if isinstance(event.step, (Side, Between, Without))]
        many = noun(trace.program.attributes, plural=True)
        if filters:
            lines = [f"{self.names[i]} {self.verdicts(i, filters)}" for i in filters[0].before]
            parts.append(f"The {many}: {'; '.join(lines)}.")
            many = "ones left"
        if len(filters) < len(events):
            parts.append(self.choice(events[-1], many))
        return " ".join(parts)

    def verdicts(self, i: int, filters: list[Event]) -> str:
        """Say how a candidate fares, up to the first condition that it fails."""
        words = []
        for event in filters:
            if i in event.anchors:
                words.append("itself")
                break
            words.append(self.verdict(i, event))
            if i not in event.after:
                break
        return ", ".join(words)

    def verdict(self, i: int, event: Event) -> str:
        step, objects = event.step, self.scene.objects
        if isinstance(step, Without):
            return str(getattr(objects[i], step.attribute))
        if isinstance(step, Between):
            return "between" if i in event.after else "outside"
        assert isinstance(step, Side)
        axis = 0 if step.side in ("left", "right") else 1
        before = center2(objects[i])[axis] < center2(objects[event.anchors[0]])[axis]
        return (("left", "right"), ("above", "below"))[axis][0 if before else 1]

    def choice(self, event: Event, many: str) -> str:
        step = event.step
        names = [self.names[i] for i in event.before]
        if isinstance(step, Distance) or (isinstance(step, Extreme) and step.which not in EXTREME_SIDES):
            measure = "distance" if isinstance(step, Distance) else "size"
            lines = [f"{name} {measure} {value}" for name, value in zip(names, event.values, strict=True)]
            goal = ("nearest" if step.nearest else "farthest") if isinstance(step, Distance) else step.which
            best = event.values[event.before.index(event.after[0])]
            return f"The {many}: {'; '.join(lines)}. {goal.capitalize()} {best}."
        if isinstance(step, Ordinal):
            lines = [f"{k} {name}" for k, name in enumerate(names, 1)] if self.at else names
            return f"The {many} from {COUNTED_FROM[step.side]}: {'; '.join(lines)}."
        assert isinstance(step, Extreme)
        return f"The {many} from {COUNTED_FROM[EXTREME_SIDES[step.which]]}: {'; '.join(names)}."


def _box(scene: Scene, box: IntBox) -> str:
    return "({},{},{},{})".format(*Box(*box).to_1000(scene.size))
