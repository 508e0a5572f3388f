"""Programs: what a phrase means, executed over a scene, so that the referent is proved and not assumed.

A program filters the scene's objects by attributes and then applies steps. Each step is one relation, and a program's
complexity is the number of its relations, those of its anchors included. Places are the centres of *visible* boxes.
Every comparison needs a margin: where two objects are too close to call, the program has no answer.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import isqrt
from typing import TypeAlias

from egm.datasets.synthetic.scenes import Scene, SceneObject

SIDES = ("left", "right", "above", "below")
EXTREME_SIDES = {"leftmost": "left", "rightmost": "right", "topmost": "above", "lowest": "below"}
COUNTED_FROM = {"left": "the left", "right": "the right", "above": "the top", "below": "the bottom"}
"""Where rationales count from, by the side."""
EXTREMES = (*EXTREME_SIDES, "largest", "smallest")

_APART = 4  # percent of the frame by which two centres must differ to be ordered
_CLEARLY = 125  # percent by which one distance must exceed another
_LARGER = 120  # percent by which one side must exceed another


class Ambiguous(Exception):  # noqa: N818 - a verdict, not an error
    """The scene does not answer the program clearly."""


@dataclass(frozen=True, slots=True)
class Side:
    """Keep what is on one side of an anchor."""

    side: str
    anchor: Program


@dataclass(frozen=True, slots=True)
class Between:
    """Keep what is between two anchors."""

    first: Program
    second: Program


@dataclass(frozen=True, slots=True)
class Without:
    """Keep what lacks an attribute value, such as `color` `red`."""

    attribute: str
    value: str


@dataclass(frozen=True, slots=True)
class Extreme:
    """Choose the one at an extreme."""

    which: str


@dataclass(frozen=True, slots=True)
class Ordinal:
    """Choose the n-th (2 or 3) from one side: left, right, above (the top) or below (the bottom)."""

    n: int
    side: str


@dataclass(frozen=True, slots=True)
class Distance:
    """Choose the nearest to an anchor, or the farthest from it."""

    nearest: bool
    anchor: Program


Step: TypeAlias = Side | Between | Without | Extreme | Ordinal | Distance


@dataclass(frozen=True, slots=True)
class Program:
    """Attributes to filter by, as (name, value) pairs, then steps."""

    attributes: tuple[tuple[str, str], ...]
    steps: tuple[Step, ...] = ()

    @property
    def complexity(self) -> int:
        """Number of relations, those of the anchors included."""
        return len(self.steps) + sum(anchor.complexity for step in self.steps for anchor in anchors(step))

    @property
    def kind(self) -> str:
        """Family of the phrase, for reports by kind."""
        if self.complexity > 1:
            return {2: "two relations", 3: "three relations"}.get(self.complexity, "more relations")
        if not self.steps:
            return "attribute"
        return _KINDS[type(self.steps[0])]


_KINDS: dict[type, str] = {
    Side: "spatial",
    Between: "between",
    Without: "negation",
    Extreme: "superlative",
    Ordinal: "ordinal",
    Distance: "nearest or farthest",
}


def anchors(step: Step) -> tuple[Program, ...]:
    """Return the programs that a step refers to."""
    if isinstance(step, (Side, Distance)):
        return (step.anchor,)
    if isinstance(step, Between):
        return (step.first, step.second)
    return ()


@dataclass(frozen=True, slots=True)
class Event:
    """One step of an execution, for the rationale.

    Attributes:
        step: What was done; None for the filter by attributes.
        before: Candidates, as indices of objects, in the order in which they are told.
        after: What was kept.
        anchors: Referents of the step's anchors.
        values: One number a candidate, where the step compares numbers: percent of the longer side.
    """

    step: Step | None
    before: tuple[int, ...]
    after: tuple[int, ...]
    anchors: tuple[int, ...] = ()
    values: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """An execution: the referent, what each step did, and the same of the anchors."""

    program: Program
    referent: int
    events: tuple[Event, ...]
    anchors: tuple[Trace, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """An execution that may fit nothing or several.

    Attributes:
        program: What was executed.
        found: What it fits, from left to right.
        events: What each step did, up to the first that left nothing.
        anchors: Traces of the anchors.
    """

    program: Program
    found: tuple[int, ...]
    events: tuple[Event, ...]
    anchors: tuple[Trace, ...]


def select(program: Program, scene: Scene) -> Selection:
    """Run a program that may fit nothing or several.

    Raises:
        Ambiguous: If an anchor is not exactly one object, a comparison is too close to call, or one is to be chosen
            where only one is left.
    """
    found = matching(scene, program.attributes)
    events = [Event(step=None, before=tuple(range(len(scene.objects))), after=_by_x(scene, found))]
    inner: list[Trace] = []
    for step in program.steps:
        traces = [execute(anchor, scene) for anchor in anchors(step)]
        inner += traces
        if not found:
            continue
        if isinstance(step, Ordinal) and step.n > len(found):
            event = Event(step, _ordered(scene, found, step.side), ())
        elif len(found) < 2 and isinstance(step, (Extreme, Ordinal, Distance)):
            raise Ambiguous
        else:
            event = apply(step, found, tuple(trace.referent for trace in traces), scene)
        events.append(event)
        found = event.after
    return Selection(program, _by_x(scene, found), tuple(events), tuple(inner))


def execute(program: Program, scene: Scene) -> Trace:
    """Run a program.

    Returns:
        The trace; `trace.referent` is the index of the one object that the program describes.

    Raises:
        Ambiguous: If no object or several answer, if a step changes nothing, or if a comparison is too close to call.
    """
    found = matching(scene, program.attributes)
    events = [Event(step=None, before=tuple(range(len(scene.objects))), after=_by_x(scene, found))]
    inner: list[Trace] = []
    for step in program.steps:
        traces = [execute(anchor, scene) for anchor in anchors(step)]
        inner += traces
        event = apply(step, found, tuple(trace.referent for trace in traces), scene)
        if not event.after or len(event.after) == len(found):
            raise Ambiguous
        events.append(event)
        found = event.after
    if len(found) != 1:
        raise Ambiguous
    return Trace(program=program, referent=found[0], events=tuple(events), anchors=tuple(inner))


def matching(scene: Scene, attributes: tuple[tuple[str, str], ...]) -> tuple[int, ...]:
    """Return the indices of the objects that have every one of the attributes."""
    bits = matching_bits(scene, attributes)
    return tuple(i for i in range(len(scene.objects)) if bits >> i & 1)


def matching_bits(scene: Scene, attributes: tuple[tuple[str, str], ...]) -> int:
    """Return the same as `matching`, as an integer with one bit an object."""
    bits = (1 << len(scene.objects)) - 1
    for attribute in attributes:
        bits &= scene.index.get(attribute, 0)
    return bits


def center2(item: SceneObject) -> tuple[int, int]:
    """Return twice the centre of the visible box, so that it stays an integer."""
    x1, y1, x2, y2 = item.visible
    return x1 + x2, y1 + y2


def _by_x(scene: Scene, found: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(found, key=lambda i: (center2(scene.objects[i]), i)))


def apply(step: Step, found: tuple[int, ...], anchor: tuple[int, ...], scene: Scene) -> Event:
    """Apply one step to the candidates.

    Args:
        step: The step.
        found: Candidates.
        anchor: Referents of the step's anchors.
        scene: The scene.

    Raises:
        Ambiguous: If a comparison is too close to call.
    """
    if isinstance(step, Side):
        candidates = _by_x(scene, tuple(i for i in found if i != anchor[0]))
        return Event(step, candidates, tuple(i for i in candidates if on_side(scene, i, anchor[0], step.side)), anchor)
    if isinstance(step, Between):
        candidates = _by_x(scene, tuple(i for i in found if i not in anchor))
        return Event(step, candidates, tuple(i for i in candidates if _is_between(scene, i, anchor)), anchor)
    if isinstance(step, Without):
        candidates = _by_x(scene, found)
        kept = tuple(i for i in candidates if getattr(scene.objects[i], step.attribute) != step.value)
        return Event(step, candidates, kept)
    if isinstance(step, Distance):
        return _choose_by_distance(step, found, anchor, scene)
    if isinstance(step, Ordinal):
        candidates = _ordered(scene, found, step.side)
        if step.n > len(candidates):
            raise Ambiguous
        return Event(step, candidates[: step.n], (candidates[step.n - 1],))
    if step.which in ("largest", "smallest"):
        return _choose_by_size(step, found, scene)
    candidates = _ordered(scene, found, EXTREME_SIDES[step.which], count=1)
    return Event(step, candidates, candidates[:1])


def on_side(scene: Scene, i: int, anchor: int, side: str) -> bool:
    """Tell whether object `i` is on a side of the anchor; raise Ambiguous if that is too close to call."""
    axis = 0 if side in ("left", "right") else 1
    gap = center2(scene.objects[i])[axis] - center2(scene.objects[anchor])[axis]
    if abs(gap) * 50 < scene.size[axis] * _APART:
        raise Ambiguous
    return gap < 0 if side in ("left", "above") else gap > 0


def _ordered(scene: Scene, found: tuple[int, ...], side: str, count: int = 3) -> tuple[int, ...]:
    """Sort from a side; the first `count` must stand clearly apart from each other and from the rest."""
    axis, sign = (0 if side in ("left", "right") else 1), (1 if side in ("left", "above") else -1)
    candidates = sorted(found, key=lambda i: (sign * center2(scene.objects[i])[axis], i))
    for a, b in itertools.pairwise(candidates[: count + 1]):
        gap = sign * (center2(scene.objects[b])[axis] - center2(scene.objects[a])[axis])
        if gap * 50 < scene.size[axis] * _APART:
            raise Ambiguous
    return tuple(candidates)


def _choose_by_size(step: Extreme, found: tuple[int, ...], scene: Scene) -> Event:
    candidates = _by_x(scene, found)
    sides = [scene.objects[i].side for i in candidates]
    ranked = sorted(range(len(candidates)), key=lambda k: (sides[k], k), reverse=step.which == "largest")
    if len(candidates) > 1:
        small, large = sorted((sides[ranked[0]], sides[ranked[1]]))
        if large * 100 < small * _LARGER:
            raise Ambiguous
    values = tuple(side * 100 // max(scene.size) for side in sides)
    return Event(step, candidates, (candidates[ranked[0]],), values=values)


def _choose_by_distance(step: Distance, found: tuple[int, ...], anchor: tuple[int, ...], scene: Scene) -> Event:
    candidates = _by_x(scene, tuple(i for i in found if i != anchor[0]))
    if len(candidates) < 2:  # the nearest of one is no comparison
        raise Ambiguous
    ax, ay = center2(scene.objects[anchor[0]])
    squares = [(x - ax) ** 2 + (y - ay) ** 2 for x, y in (center2(scene.objects[i]) for i in candidates)]
    ranked = sorted(range(len(candidates)), key=lambda k: (squares[k], k), reverse=not step.nearest)
    near, far = sorted((squares[ranked[0]], squares[ranked[1]]))
    if far * 100 * 100 < near * _CLEARLY * _CLEARLY:
        raise Ambiguous
    values = tuple(min(99, isqrt(square) * 50 // max(scene.size)) for square in squares)
    return Event(step, candidates, (candidates[ranked[0]],), anchor, values)


def _is_between(scene: Scene, i: int, pair: tuple[int, ...]) -> bool:
    """Between: beside the middle of the line from one centre to the other, within a quarter of its length."""
    (ax, ay), (bx, by), (x, y) = (center2(scene.objects[k]) for k in (*pair, i))
    dx, dy = bx - ax, by - ay
    length2 = dx * dx + dy * dy
    along, across = (x - ax) * dx + (y - ay) * dy, abs((x - ax) * dy - (y - ay) * dx)
    if 20 * length2 <= 100 * along <= 80 * length2 and 4 * across <= length2:
        return True
    if 8 * length2 <= 100 * along <= 92 * length2 and 5 * across <= 2 * length2:
        raise Ambiguous
    return False
