"""Choosing programs that fit nothing, one object or several: for questions about all that there are, if any."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from egm.datasets.synthetic.program_sampling import propose_steps, sample_program, some_attributes
from egm.datasets.synthetic.programs import (
    SIDES,
    Ambiguous,
    Ordinal,
    Program,
    Selection,
    Side,
    Step,
    apply,
    matching,
    matching_bits,
    select,
)
from egm.datasets.synthetic.raster import COLORS, FILLS, SHAPES
from egm.datasets.synthetic.rng import Rng
from egm.datasets.synthetic.scenes import HELD_OUT, Scene

_FILTERS = (("side", 0.6), ("without", 0.2), ("between", 0.2))
_VALUES: dict[str, tuple[str, ...]] = {
    "shape": tuple(SHAPES),
    "color": tuple(COLORS),
    "fill": tuple(FILLS),
    "size": ("small", "large"),
}
_MOST = 6  # of several: more are seldom told apart, and take long to say


def sample_selection(
    rng: Rng, scene: Scene, complexity: int, wanted: int, *, held_out: bool, tries: int = 8
) -> Selection | None:
    """Find a program of filters that fits as many objects as wanted.

    Args:
        rng: Where the randomness comes from.
        scene: The scene.
        complexity: Number of relations, 0-2.
        wanted: 0, 1, or 2 for several.
        held_out: Whether a phrase that fits nothing may name a combination of `HELD_OUT`.
        tries: How many programs to try.

    Returns:
        Its execution on the scene, or None if none was found.
    """
    for _ in range(tries):
        # What fits nothing is a phrase that fits something with a wrong attribute, or ends in a wrong relation.
        wrong = not wanted and (not complexity or rng.chance(0.5))
        program = _build(rng, scene, complexity, rng.between(1, 2) if wrong else wanted)
        if program is not None and wrong:
            program = next(_with_wrong_attribute(rng, scene, program, held_out=held_out), None)
        if program is None:
            continue
        try:
            selection = select(program, scene)
        except Ambiguous:
            continue
        if program.complexity == complexity and min(len(selection.found), 2) == wanted:
            return selection
    return None


def sample_nothing(
    rng: Rng, scene: Scene, target: int, complexity: int, *, held_out: bool, tries: int = 8
) -> Selection | None:
    """Find a program that would describe one object, were not one attribute or relation of it wrong.

    Args:
        rng: Where the randomness comes from.
        scene: The scene.
        target: Index of the object that is described, all else but the wrong thing.
        complexity: Number of relations, 0-3.
        held_out: Whether the phrase may name a combination of `HELD_OUT`.
        tries: How many programs to try.

    Returns:
        Its execution on the scene, which finds nothing; None if none was found.
    """
    for _ in range(tries):
        trace = sample_program(rng, scene, target, complexity, tries=1)
        if trace is None:
            continue
        programs = rng.shuffled(list(_with_wrong_relation(trace.program))) if rng.chance(0.85) else []
        programs += _with_wrong_attribute(rng, scene, trace.program, held_out=held_out)
        for program in programs:
            try:
                selection = select(program, scene)
            except Ambiguous:
                continue
            if not selection.found:
                return selection
    return None


def is_wrong_attribute(selection: Selection) -> bool:
    """Tell whether a program fits nothing by its attributes alone, and not by a relation."""
    return not selection.events[0].after


def _build(rng: Rng, scene: Scene, complexity: int, wanted: int) -> Program | None:
    """A program of filters that fits 0, 1 or several objects, each of which leaves out some of what it looks at."""
    target = rng.below(len(scene.objects))
    boldness = 0.6 if complexity and wanted else 1.0
    attributes = some_attributes(rng, scene.objects[target], boldness=boldness)
    found = matching(scene, attributes)
    if not complexity:
        fits = len(found) == 1 if wanted == 1 else 2 <= len(found) <= _MOST
        return Program(attributes) if attributes and fits else None
    if len(found) < 2 or len(found) > _MOST:
        return None
    steps: list[Step] = []
    for last in (False, True) if complexity == 2 and rng.chance(0.5) else (True,):
        least = wanted if last else 2
        spare = complexity - 1 if last and not steps else 0
        name = rng.weighted(_FILTERS)
        if spare and name == "without":
            return None
        for step, referents in propose_steps(rng, scene, target, name, spare, found, frozenset()):
            try:
                after = apply(step, found, referents, scene).after
            except Ambiguous:
                continue
            if min(len(after), 2) == least and len(after) < len(found):
                steps.append(step)
                found = after
                break
        else:
            return None
    return Program(attributes, tuple(steps))


def _with_wrong_attribute(rng: Rng, scene: Scene, program: Program, *, held_out: bool) -> Iterator[Program]:
    """The program with one attribute changed so that nothing has them all; first to values that others have."""
    seen = [(name, value) for name, value in _pairs() if scene.index.get((name, value))]
    unseen = [pair for pair in _pairs() if pair not in seen]
    for name, value in (*rng.shuffled(seen), *rng.shuffled(unseen)):
        old = dict(program.attributes)
        if old.get(name, value) == value:
            continue
        attributes = tuple((key, value if key == name else was) for key, was in program.attributes)
        new = dict(attributes)
        if not held_out and (new.get("color"), new.get("shape")) in HELD_OUT:
            continue
        if not matching_bits(scene, attributes):
            yield replace(program, attributes=attributes)


def _pairs() -> list[tuple[str, str]]:
    return [(name, value) for name, values in _VALUES.items() for value in values]


def _with_wrong_relation(program: Program) -> Iterator[Program]:
    """The program with another side in one of its own steps, or a rank that is beyond what there is."""
    for number, step in enumerate(program.steps):
        others: list[Step] = []
        if isinstance(step, Side):
            others = [replace(step, side=side) for side in SIDES if side != step.side]
        elif isinstance(step, Ordinal) and step.n == 2:
            others = [replace(step, n=3)]
        for other in others:
            yield replace(program, steps=(*program.steps[:number], other, *program.steps[number + 1 :]))
