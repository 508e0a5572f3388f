"""One or two sentences on why a SynthRef phrase means what it means: only what decides, and no coordinates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from egm.datasets.synthetic.phrasing import ORDINALS, noun
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
    Step,
    Trace,
    Without,
    center2,
)
from egm.datasets.synthetic.rng import Rng
from egm.datasets.synthetic.scenes import Scene, SceneObject

_SIDES: Final = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}
_PLACES: Final = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left", "in the middle", "on the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)
_ENDINGS: Final = ("so it is {it}", "and that is {it}", "which is {it}", "so the one meant is {it}")


def official(trace: Trace | Selection, scene: Scene, rng: Rng) -> str:
    """Word an execution in one or two sentences.

    Args:
        trace: The execution of a question about one object, or about all that match, of which there may be none.
        scene: The scene that it ran on.
        rng: Chooses among the wordings.
    """
    teller = _Teller(scene, rng)
    return teller.tell_selection(trace) if isinstance(trace, Selection) else teller.tell(trace)


def place(scene: Scene, item: SceneObject) -> str:
    """Say where the middle of an object's visible box is, by the thirds of the picture, such as "at the top left"."""
    column, row = (min(2, middle * 3 // (2 * side)) for middle, side in zip(center2(item), scene.size, strict=True))
    return _PLACES[row][column]


def name_all(item: SceneObject) -> str:
    """Name everything that is seen of an object, such as "small striped red circle"."""
    return f"{'' if item.size == 'medium' else item.size + ' '}{item.fill} {item.color} {item.shape}"


class _Teller:
    def __init__(self, scene: Scene, rng: Rng) -> None:
        self.scene, self.rng = scene, rng

    def tell(self, trace: Trace) -> str:
        if not trace.program.steps:
            return self.only(trace)
        events = list(trace.events[1:])
        filters = [event for event in events if isinstance(event.step, (Side, Between, Without))]
        anchors: Iterator[Trace] = iter(trace.anchors)
        clauses = [self.kept(event, anchors) for event in filters]
        counted = self.counted(trace)
        referent = self.named(trace.referent)
        if len(filters) == len(events):
            ending = self.rng.choice(_ENDINGS).format(it=referent)
            return f"{counted}, {' and '.join(clauses)}, {ending}."
        first = f"{counted}, {' and '.join(clauses)}. Of these, " if clauses else f"{counted}, "
        return f"{first}{self.chosen(events[-1], anchors, referent)}."

    def tell_selection(self, selection: Selection) -> str:
        attributes, events = selection.program.attributes, selection.events
        if not events[0].after:
            others = self.near_misses(selection)
            return f"There is no {noun(attributes)}. {others}." if others else f"There is no {noun(attributes)}."
        if not events[1:]:
            n = len(selection.found)
            counted = f"is 1 {noun(attributes)}" if n == 1 else f"are {n} {noun(attributes, plural=True)}"
            return f"There {counted}, {self.all_named(selection)}."
        anchors: Iterator[Trace] = iter(selection.anchors)
        *clauses, last = (self.step_of_selection(event, anchors) for event in events[1:])
        before = f"{' and '.join(clauses)}, and of these " if clauses else ""
        found = f"so {self.all_named(selection)}" if selection.found else "so there is none"
        return f"{self.counted(selection)}, {before}{last}, {found}."

    def step_of_selection(self, event: Event, anchors: Iterator[Trace]) -> str:
        """Say how many a step leaves, or that one to be chosen by rank is not there."""
        if isinstance(event.step, (Side, Between, Without)):
            return self.kept(event, anchors)
        if not event.after:
            assert isinstance(event.step, Ordinal)
            return f"none is the {ORDINALS[event.step.n]} from {COUNTED_FROM[event.step.side]}"
        return self.chosen(event, anchors, self.named(event.after[0]))

    def all_named(self, selection: Selection) -> str:
        *names, last = (self.named(i) for i in selection.found)
        return f"{', '.join(names)} and {last}" if names else last

    def only(self, trace: Trace) -> str:
        wanted = noun(trace.program.attributes)
        form = self.rng.choice(
            ("The only {n} is {it}", "There is one {n} in all, {it}", "Only one object is {a} {n}, {it}")
        )
        said = form.format(n=wanted, a="an" if wanted[0] in "aeiou" else "a", it=self.named(trace.referent))
        others = self.near_misses(trace)
        return f"{said}. {others}." if others else f"{said}."

    def near_misses(self, trace: Trace | Selection) -> str:
        """Name up to two of the objects that miss fewest of the attributes, and one that each misses."""
        found = []
        for item in self.scene.objects:
            missed = [(name, value) for name, value in trace.program.attributes if getattr(item, name) != value]
            if missed:
                name, value = missed[0]
                found.append((len(missed), f"the {name_all(item)} {place(self.scene, item)} is not {_a(name, value)}"))
        fewest = min((count for count, _ in found), default=0)
        nearest = self.rng.shuffled([text for count, text in found if count == fewest])[:2]
        return "; ".join(nearest).capitalize()

    def counted(self, trace: Trace | Selection) -> str:
        n, attributes = len(trace.events[0].after), trace.program.attributes
        many = noun(attributes, plural=n > 1)
        return self.rng.choice(("Of the {n} {many}", "Of {n} {many} in all", "With {n} {many} in the scene")).format(
            n=n, many=many
        )

    def named(self, i: int) -> str:
        item = self.scene.objects[i]
        return f"the {name_all(item)} {place(self.scene, item)}"

    def anchor(self, trace: Trace) -> str:
        """Name an anchor by its own phrase's relation, with its place."""
        step = trace.program.steps[-1] if trace.program.steps else None
        inner = [self.plain(each) for each in trace.anchors]
        relation = "" if step is None else _relation(step, inner)
        where = place(self.scene, self.scene.objects[trace.referent])
        which = f"{step.which} " if isinstance(step, Extreme) else ""
        return f"the {which}{noun(trace.program.attributes)} {where}{relation}"

    def plain(self, trace: Trace) -> str:
        return f"the {noun(trace.program.attributes)} {place(self.scene, self.scene.objects[trace.referent])}"

    def kept(self, event: Event, anchors: Iterator[Trace]) -> str:
        step, k = event.step, len(event.after)
        subject = ("none is", "only one is")[k] if k < 2 else f"{k} are"
        assert isinstance(step, (Side, Between, Without))
        names = [self.anchor(next(anchors)) for _ in event.anchors]
        if isinstance(step, Side):
            return f"{subject} {_SIDES[step.side]} {names[0]}"
        if isinstance(step, Between):
            return f"{subject} between {names[0]} and {names[1]}"
        return f"{subject} not {_a(step.attribute, step.value)}"

    def chosen(self, event: Event, anchors: Iterator[Trace], referent: str) -> str:
        step = event.step
        if isinstance(step, Distance):
            which = "nearest to" if step.nearest else "farthest from"
            anchor = self.anchor(next(anchors))
            return f"{referent} is {which} {anchor}, {self.compared(event, nearest=step.nearest)}"
        if isinstance(step, Ordinal):
            before = " and ".join(f"the {self.short(i)}" for i in event.before[:-1])
            return f"counting from {COUNTED_FROM[step.side]}, {referent} is the {ORDINALS[step.n]}, after {before}"
        assert isinstance(step, Extreme)
        if step.which in EXTREME_SIDES:
            side = COUNTED_FROM[EXTREME_SIDES[step.which]]
            return f"{referent} is the {step.which}, and the next from {side} is the {self.short(event.before[1])}"
        return f"{referent} is the {step.which}, {self.compared(event, nearest=step.which == 'smallest')}"

    def compared(self, event: Event, *, nearest: bool) -> str:
        """Set the value that won against the next one."""
        ranked = sorted(event.values, reverse=not nearest)
        what = "distance" if isinstance(event.step, Distance) else "size"
        return f"its {what} {ranked[0]} against {ranked[1]}"

    def short(self, i: int) -> str:
        item = self.scene.objects[i]
        return f"{item.color} {item.shape} {place(self.scene, item)}"


def _relation(step: Step, names: list[str]) -> str:
    if isinstance(step, Side):
        return f", {_SIDES[step.side]} {names[0]}"
    if isinstance(step, Between):
        return f", between {names[0]} and {names[1]}"
    if isinstance(step, Without):
        return f", not {_a(step.attribute, step.value)}"
    if isinstance(step, Distance):
        return f", {'nearest to' if step.nearest else 'farthest from'} {names[0]}"
    return f", the {ORDINALS[step.n]} from {COUNTED_FROM[step.side]}" if isinstance(step, Ordinal) else ""


def _a(name: str, value: str) -> str:
    return f"a {value}" if name == "shape" else value
