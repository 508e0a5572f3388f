"""Words for programs: many paraphrases, and some that only the test splits use.

A held-out wording is a new arrangement of words that the training wordings hold too, so that it tests understanding and
not vocabulary.
"""

from __future__ import annotations

import itertools

from egm.datasets.synthetic.programs import Between, Distance, Extreme, Ordinal, Program, Side, Without, anchors
from egm.datasets.synthetic.rng import Rng

Forms = tuple[str, ...]

# Each entry: the wordings of training, then those that only tests use.
_SIDE: dict[str, tuple[Forms, Forms]] = {
    "left": (
        (
            "left of {a}",
            "to the left of {a}",
            "on the left side of {a}",
            "somewhere left of {a}",
            "with {a} to its right",
        ),
        ("on the left of {a}", "somewhere to the left of {a}", "with {a} on its right"),
    ),
    "right": (
        (
            "right of {a}",
            "to the right of {a}",
            "on the right side of {a}",
            "somewhere right of {a}",
            "with {a} to its left",
        ),
        ("on the right of {a}", "somewhere to the right of {a}", "with {a} on its left"),
    ),
    "above": (
        ("above {a}", "higher than {a}", "over {a}", "that is above {a}", "with {a} below it"),
        ("somewhere above {a}", "that is higher than {a}", "with {a} under it"),
    ),
    "below": (
        ("below {a}", "lower than {a}", "under {a}", "that is below {a}", "with {a} above it"),
        ("somewhere below {a}", "that is lower than {a}", "with {a} over it"),
    ),
}
_BETWEEN: tuple[Forms, Forms] = (
    ("between {a} and {b}", "in between {a} and {b}", "that is between {a} and {b}"),
    ("somewhere between {a} and {b}", "that is in between {a} and {b}"),
)
_WITHOUT: tuple[Forms, Forms] = (
    ("that is not {v}", "which is not {v}", "that isn't {v}", "that is anything but {v}"),
    ("which isn't {v}", "which is anything but {v}"),
)
_EXTREME: dict[str, tuple[Forms, Forms]] = {
    "leftmost": (
        ("the leftmost {n}", "the {n} furthest to the left", "the {n} on the far left side", "leftmost {n}"),
        ("the {n} that is furthest to the left", "the {n} on the far left"),
    ),
    "rightmost": (
        ("the rightmost {n}", "the {n} furthest to the right", "the {n} on the far right side", "rightmost {n}"),
        ("the {n} that is furthest to the right", "the {n} on the far right"),
    ),
    "topmost": (
        ("the topmost {n}", "the highest {n}", "the {n} nearest to the top", "the {n} that is highest"),
        ("the {n} closest to the top", "the {n} which is highest"),
    ),
    "lowest": (
        ("the lowest {n}", "the bottommost {n}", "the {n} nearest to the bottom", "the {n} that is lowest"),
        ("the {n} closest to the bottom", "the {n} which is lowest"),
    ),
    "largest": (
        ("the largest {n}", "the biggest {n}", "the {n} that is largest", "biggest {n}"),
        ("the {n} which is biggest", "largest {n}"),
    ),
    "smallest": (
        ("the smallest {n}", "the {n} that is smallest", "the {n} with the smallest size", "smallest {n}"),
        ("the {n} which is smallest",),
    ),
}
_ORDINAL: tuple[Forms, Forms] = (
    (
        "the {o} {n} from the {s}",
        "{o} {n} from {s}",
        "the {n} that is {o} from the {s}",
        "the {o} {n} counting from the {s}",
    ),
    ("counting from the {s}, the {o} {n}", "the {n} which is {o} from the {s}", "from the {s}, the {o} {n}"),
)
_NEAREST: tuple[Forms, Forms] = (
    ("the {n} nearest to {a}", "the {n} closest to {a}", "the nearest {n} to {a}", "the {n} that is nearest to {a}"),
    ("the closest {n} to {a}", "the {n} which is closest to {a}"),
)
_FARTHEST: tuple[Forms, Forms] = (
    ("the {n} farthest from {a}", "the {n} furthest from {a}", "the {n} that is farthest from {a}"),
    ("the {n} which is furthest from {a}", "the furthest {n} from {a}"),
)
_PLAIN: tuple[Forms, Forms] = (("the {n}", "the {n}", "{n}", "the one {n}"), ("the only {n}",))
_PLURALS = {
    "that is": "that are",
    "which is": "which are",
    "that isn't": "that aren't",
    "which isn't": "which aren't",
    " it": " them",
    " its right": " their right",
    " its left": " their left",
}
_ORDINALS = {1: "first", 2: "second", 3: "third"}
_SIDE_NAMES = {"left": "left", "right": "right", "above": "top", "below": "bottom"}


def word(program: Program, rng: Rng, *, held_out: bool = False) -> str:
    """Put a program into words.

    Args:
        program: The program.
        rng: Chooses among the paraphrases.
        held_out: Whether to use the wordings that training never sees, wherever there is one.
    """
    return _Writer(rng, held_out).phrase(program)


def noun(attributes: tuple[tuple[str, str], ...], *, plural: bool = False) -> str:
    """Word a filter, such as "small red circle"; without a shape it is an object."""
    words = [value for _, value in attributes]
    if not any(name == "shape" for name, _ in attributes):
        words.append("object")
    if plural:
        words[-1] += "es" if words[-1] == "cross" else "s"
    return " ".join(words)


def _join(clauses: list[tuple[str, bool]]) -> str:
    """Join clauses, the nested ones last, where a comma keeps what follows from being read as part of the anchor."""
    ordered = sorted(clauses, key=lambda clause: clause[1])
    text = ordered[0][0]
    for (_, nested), (clause, _) in itertools.pairwise(ordered):
        text += f"{',' if nested else ''} and {clause}"
    return text


def _plural(clause: str) -> str:
    """Let a clause speak of several objects: its own verb stands at its start, and its pronoun at its end."""
    for one, many in _PLURALS.items():
        if clause.startswith(one):
            return many + clause.removeprefix(one)
        if clause.startswith("with ") and clause.endswith(one):
            return clause.removesuffix(one) + many
    return clause


class _Writer:
    def __init__(self, rng: Rng, held_out: bool) -> None:
        self.rng, self.held_out = rng, held_out

    def pick(self, forms: tuple[Forms, Forms]) -> str:
        return self.rng.choice(forms[1] if self.held_out else forms[0])

    def phrase(self, program: Program, *, inner: bool = False) -> str:
        filters = [step for step in program.steps if isinstance(step, (Side, Between, Without))]
        last = program.steps[-1] if program.steps else None
        one = noun(program.attributes)
        if last is None:
            return f"the {one}" if inner else self.pick(_PLAIN).format(n=one)
        clauses = [(self.clause(step), any(a.steps for a in anchors(step))) for step in filters]
        if last in filters:
            article = "the " if inner or self.rng.chance(0.85) else ""
            return f"{article}{one} {_join(clauses)}"
        if not filters:
            return self.chosen(last, one, inner=inner)
        return self.chosen_among(last, one, noun(program.attributes, plural=True), clauses, inner=inner)

    def clause(self, step: Side | Between | Without) -> str:
        if isinstance(step, Side):
            usual, held_out = _SIDE[step.side]
            if step.anchor.steps:  # "with the star above the square to its left" would be read in two ways
                usual, held_out = (tuple(f for f in forms if not f.startswith("with ")) for forms in (usual, held_out))
            return self.pick((usual, held_out)).format(a=self.phrase(step.anchor, inner=True))
        if isinstance(step, Between):
            first, second = self.phrase(step.first, inner=True), self.phrase(step.second, inner=True)
            return self.pick(_BETWEEN).format(a=first, b=second)
        return self.pick(_WITHOUT).format(v=f"a {step.value}" if step.attribute == "shape" else step.value)

    def chosen(self, step: object, one: str, *, inner: bool) -> str:
        if isinstance(step, Extreme):
            form, names = self.pick(_EXTREME[step.which]), {"n": one}
        elif isinstance(step, Ordinal):
            form, names = self.pick(_ORDINAL), {"n": one, "o": _ORDINALS[step.n], "s": _SIDE_NAMES[step.side]}
        else:
            assert isinstance(step, Distance)
            form = self.pick(_NEAREST if step.nearest else _FARTHEST)
            names = {"n": one, "a": self.phrase(step.anchor, inner=True)}
        if inner and not form.startswith("the "):
            form = "the {o} {n} from the {s}" if "{o}" in form else f"the {form}"
        return form.format(**names)

    def chosen_among(self, step: object, one: str, many: str, filters: list[tuple[str, bool]], *, inner: bool) -> str:
        clauses, several = _join(filters), _join([(_plural(clause), nested) for clause, nested in filters])
        of = f"of the {many} {several}"
        if isinstance(step, Extreme):
            if inner or self.rng.chance(0.6):
                return f"the {step.which} {one} {clauses}"
            return f"from the {many} {several}, the {step.which}" if self.held_out else f"{of}, the {step.which} one"
        if isinstance(step, Ordinal):
            rank, side = _ORDINALS[step.n], _SIDE_NAMES[step.side]
            if inner:
                return f"the {rank} from the {side} {of}"
            return f"from the {side}, the {rank} {of}" if self.held_out else f"{of}, the {rank} from the {side}"
        assert isinstance(step, Distance)
        anchor = self.phrase(step.anchor, inner=True)
        choice = f"nearest to {anchor}" if step.nearest else f"farthest from {anchor}"
        if inner:
            return f"the one {choice} {of}"
        return f"the one {choice}, {of}" if self.held_out else f"{of}, the one {choice}"
