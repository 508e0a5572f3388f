"""Choosing programs: start from the object to be found, add steps that are true of it, keep what leads to it alone."""

from __future__ import annotations

from collections.abc import Iterator

from egm.datasets.synthetic.programs import (
    EXTREMES,
    SIDES,
    Ambiguous,
    Between,
    Distance,
    Event,
    Extreme,
    Ordinal,
    Program,
    Side,
    Step,
    Trace,
    Without,
    apply,
    execute,
    matching,
    matching_bits,
)
from egm.datasets.synthetic.rng import Rng
from egm.datasets.synthetic.scenes import Scene, SceneObject

# How often each sort of step is tried. "between" is seldom true, hence its weight.
_FILTERS = (("side", 0.55), ("without", 0.15), ("between", 0.3))
_ANY = (("side", 0.2), ("distance", 0.18), ("ordinal", 0.16), ("extreme", 0.12), ("between", 0.27), ("without", 0.07))
_ANCHORED = (("side", 0.4), ("distance", 0.35), ("between", 0.25))
_OWN_STEPS = {1: ((1, 1.0),), 2: ((1, 0.5), (2, 0.5)), 3: ((1, 0.25), (2, 0.5), (3, 0.25))}
"""For each number of relations: how many are the program's own, the rest being its anchors'."""
_MAX_CANDIDATES = 6


def sample_program(rng: Rng, scene: Scene, target: int, complexity: int, *, tries: int = 8) -> Trace | None:
    """Find a program of a given complexity that describes one object.

    Args:
        rng: Where the randomness comes from.
        scene: The scene.
        target: Index of the object to describe.
        complexity: Number of relations, 0-3.
        tries: How many programs to try.

    Returns:
        The trace of the program on the scene, or None if none was found.
    """
    for _ in range(tries):
        program = _build(rng, scene, target, complexity, outer=frozenset({target}))
        if program is None or program.complexity != complexity:
            continue
        try:
            trace = execute(program, scene)
        except Ambiguous:  # an anchor was clear within its own steps, but not from the whole
            continue
        if trace.referent == target:
            return trace
    return None


def _build(rng: Rng, scene: Scene, target: int, budget: int, outer: frozenset[int]) -> Program | None:
    """Describe `target` with `budget` relations, without referring to the objects in `outer`."""
    if budget == 0:
        return _plain(rng, scene, target)
    own = rng.weighted(_OWN_STEPS[budget])
    spare = budget - own
    attributes = some_attributes(rng, scene.objects[target], boldness=1.0 if own == 1 else 0.6)
    found = matching(scene, attributes)
    if not 2 <= len(found) <= _MAX_CANDIDATES:
        return None
    steps: list[Step] = []
    for k in range(own):
        last = k == own - 1
        name = rng.weighted(_FILTERS if not last else _ANCHORED if spare else _ANY)
        given = spare if name in ("side", "distance", "between") else 0
        spare -= given
        event = _true_step(rng, scene, target, name, given, found, outer, last=last)
        if event is None or event.step is None:
            return None
        steps.append(event.step)
        found = event.after
    return Program(attributes, tuple(steps))


def _true_step(
    rng: Rng,
    scene: Scene,
    target: int,
    name: str,
    budget: int,
    found: tuple[int, ...],
    outer: frozenset[int],
    *,
    last: bool,
) -> Event | None:
    """Find a step that keeps the target, drops something, and leaves only the target if it is the last one."""
    for step, referents in propose_steps(rng, scene, target, name, budget, found, outer):
        try:
            event = apply(step, found, referents, scene)
        except Ambiguous:
            continue
        if target in event.after and len(event.after) < len(found) and (len(event.after) == 1) == last:
            return event
    return None


def propose_steps(
    rng: Rng, scene: Scene, target: int, name: str, budget: int, found: tuple[int, ...], outer: frozenset[int]
) -> Iterator[tuple[Step, tuple[int, ...]]]:
    """Yield steps of one sort in random order, each with the referents of its anchors."""
    item = scene.objects[target]
    if name == "without":
        pairs = [(a, getattr(scene.objects[i], a)) for i in found for a in ("color", "color", "fill", "size", "shape")]
        for attribute, value in rng.shuffled(pairs):
            if value != getattr(item, attribute) and value != "medium":
                yield Without(attribute, value), ()
    elif name == "ordinal":
        n = rng.weighted(((2, 0.6), (3, 0.4)))
        for side in rng.shuffled(SIDES):
            yield Ordinal(n, side), ()
    elif name == "extreme":
        for which in rng.shuffled(EXTREMES):
            yield Extreme(which), ()
    else:
        others = [i for i in range(len(scene.objects)) if i not in outer]
        for first in rng.shuffled(others)[: 6 if name == "between" else 3]:
            anchor = _build(rng, scene, first, budget, outer | {first})
            if anchor is None:
                continue
            if name == "side":
                for side in rng.shuffled(SIDES):
                    yield Side(side, anchor), (first,)
            elif name == "distance":
                for nearest in rng.weighted((((True, False), 0.65), ((False, True), 0.35))):
                    yield Distance(nearest, anchor), (first,)
            else:
                for second in rng.shuffled(others)[:4]:
                    other = _plain(rng, scene, second) if second != first else None
                    if other is not None:
                        # The one with relations of its own comes last, where no "and" can be read as part of it.
                        yield Between(other, anchor), (second, first)


def _plain(rng: Rng, scene: Scene, target: int) -> Program | None:
    """Describe an object by attributes alone, if any do."""
    for _ in range(3):
        attributes = some_attributes(rng, scene.objects[target], boldness=1.0)
        if matching_bits(scene, attributes) == 1 << target:
            return Program(attributes)
    return None


def some_attributes(rng: Rng, item: SceneObject, *, boldness: float) -> tuple[tuple[str, str], ...]:
    """Choose which attributes to say, in the order in which English says them."""
    random, result = rng.random, []
    if item.size != "medium" and random() < 0.25 * boldness:
        result.append(("size", item.size))
    if random() < 0.2 * boldness:
        result.append(("fill", item.fill))
    if random() < 0.6 * boldness:
        result.append(("color", item.color))
    if random() < 0.85 * boldness:
        result.append(("shape", item.shape))
    return tuple(result)
