"""Words for programs: many paraphrases, some that only the test splits use, and others that only reinforcement hears.

A held-out wording is a new arrangement of words that the training wordings hold too, so that it tests understanding and
not vocabulary. The other wordings are those of `train-reworded`; they are no wordings of the tests.
"""

from __future__ import annotations

import itertools
from typing import Literal

from egm.datasets.synthetic.programs import Between, Distance, Extreme, Ordinal, Program, Side, Without, anchors
from egm.datasets.synthetic.rng import Rng

Wording = Literal["usual", "held_out", "other"]
"""Whose wordings: those of training, those that only tests use, or those that only `train-reworded` uses."""

Forms = tuple[str, ...]
_Choice = tuple[Forms, Forms, Forms]
_PLACE: dict[Wording, int] = {"usual": 0, "held_out": 1, "other": 2}

# Each entry: the usual wordings, the held-out ones, the other ones.
_SIDE: dict[str, _Choice] = {
    "left": (
        (
            "left of {a}",
            "to the left of {a}",
            "on the left side of {a}",
            "somewhere left of {a}",
            "with {a} to its right",
        ),
        ("on the left of {a}", "somewhere to the left of {a}", "with {a} on its right"),
        (
            "that is left of {a}",
            "which is to the left of {a}",
            "further left than {a}",
            "that has {a} to its right",
            "which has {a} on its right",
            "with {a} somewhere to its right",
        ),
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
        (
            "that is right of {a}",
            "which is to the right of {a}",
            "further right than {a}",
            "that has {a} to its left",
            "which has {a} on its left",
            "with {a} somewhere to its left",
        ),
    ),
    "above": (
        ("above {a}", "higher than {a}", "over {a}", "that is above {a}", "with {a} below it"),
        ("somewhere above {a}", "that is higher than {a}", "with {a} under it"),
        (
            "which is above {a}",
            "which is higher than {a}",
            "further up than {a}",
            "that has {a} below it",
            "which has {a} under it",
            "with {a} somewhere below it",
        ),
    ),
    "below": (
        ("below {a}", "lower than {a}", "under {a}", "that is below {a}", "with {a} above it"),
        ("somewhere below {a}", "that is lower than {a}", "with {a} over it"),
        (
            "which is below {a}",
            "which is lower than {a}",
            "further down than {a}",
            "that has {a} above it",
            "which has {a} over it",
            "with {a} somewhere above it",
        ),
    ),
}
_BETWEEN: _Choice = (
    ("between {a} and {b}", "in between {a} and {b}", "that is between {a} and {b}"),
    ("somewhere between {a} and {b}", "that is in between {a} and {b}"),
    ("which is between {a} and {b}", "which is in between {a} and {b}", "anywhere between {a} and {b}"),
)
_WITHOUT: _Choice = (
    ("that is not {v}", "which is not {v}", "that isn't {v}", "that is anything but {v}"),
    ("which isn't {v}", "which is anything but {v}"),
    ("that is anything other than {v}", "that is not at all {v}", "which is in no way {v}", "which is by no means {v}"),
)
_EXTREME: dict[str, _Choice] = {
    "leftmost": (
        ("the leftmost {n}", "the {n} furthest to the left", "the {n} on the far left side", "leftmost {n}"),
        ("the {n} that is furthest to the left", "the {n} on the far left"),
        ("the {n} that is leftmost", "the {n} most to the left", "the one {n} furthest left"),
    ),
    "rightmost": (
        ("the rightmost {n}", "the {n} furthest to the right", "the {n} on the far right side", "rightmost {n}"),
        ("the {n} that is furthest to the right", "the {n} on the far right"),
        ("the {n} that is rightmost", "the {n} most to the right", "the one {n} furthest right"),
    ),
    "topmost": (
        ("the topmost {n}", "the highest {n}", "the {n} nearest to the top", "the {n} that is highest"),
        ("the {n} closest to the top", "the {n} which is highest"),
        ("the {n} that is topmost", "the {n} furthest up", "the {n} that is nearest to the top"),
    ),
    "lowest": (
        ("the lowest {n}", "the bottommost {n}", "the {n} nearest to the bottom", "the {n} that is lowest"),
        ("the {n} closest to the bottom", "the {n} which is lowest"),
        ("the {n} that is bottommost", "the {n} furthest down", "the {n} that is nearest to the bottom"),
    ),
    "largest": (
        ("the largest {n}", "the biggest {n}", "the {n} that is largest", "biggest {n}"),
        ("the {n} which is biggest", "largest {n}"),
        ("the {n} that is biggest", "the {n} with the largest size", "the one {n} that is largest"),
    ),
    "smallest": (
        ("the smallest {n}", "the {n} that is smallest", "the {n} with the smallest size", "smallest {n}"),
        ("the {n} which is smallest",),
        ("the {n} that is the smallest", "the {n} of the smallest size", "the one {n} that is smallest"),
    ),
}
_ORDINAL: _Choice = (
    (
        "the {o} {n} from the {s}",
        "{o} {n} from {s}",
        "the {n} that is {o} from the {s}",
        "the {o} {n} counting from the {s}",
    ),
    ("counting from the {s}, the {o} {n}", "the {n} which is {o} from the {s}", "from the {s}, the {o} {n}"),
    (
        "the {o} {n} as seen from the {s}",
        "the {n} that is {o} counting from the {s}",
        "{s} to {t}, the {o} {n}",
    ),
)
_NEAREST: _Choice = (
    ("the {n} nearest to {a}", "the {n} closest to {a}", "the nearest {n} to {a}", "the {n} that is nearest to {a}"),
    ("the closest {n} to {a}", "the {n} which is closest to {a}"),
    ("the {n} which is nearest to {a}", "the {n} that is closest to {a}", "the {n} least far from {a}"),
)
_FARTHEST: _Choice = (
    ("the {n} farthest from {a}", "the {n} furthest from {a}", "the {n} that is farthest from {a}"),
    ("the {n} which is furthest from {a}", "the furthest {n} from {a}"),
    ("the {n} which is farthest from {a}", "the {n} that is furthest from {a}", "the {n} least near to {a}"),
)
_PLAIN: _Choice = (("the {n}", "the {n}", "{n}", "the one {n}"), ("the only {n}",), ("just the {n}", "that one {n}"))
# One of several that filters leave.
_OF_EXTREME: _Choice = (
    ("of {them}, the {it} one",),
    ("from {them}, the {it}",),
    ("among {them}, the {it} one", "the {it} one among {them}", "the {it} of {them}"),
)
_OF_ORDINAL: _Choice = (
    ("of {them}, the {o} from the {s}",),
    ("from the {s}, the {o} of {them}",),
    (
        "among {them}, the {o} from the {s}",
        "the {o} from the {s} among {them}",
        "{s} to {t}, the {o} of {them}",
        "{s} to {t}, the {o} among {them}",
    ),
)
_OF_DISTANCE: _Choice = (
    ("of {them}, the one {it}",),
    ("the one {it}, of {them}",),
    ("among {them}, the one {it}", "the one that is {it}, out of {them}", "the one {it}, among {them}"),
)
_INNER_OF_DISTANCE: dict[Wording, str] = {
    "usual": "the one {it} of {them}",
    "held_out": "the one {it} of {them}",
    "other": "the one, of {them}, {it}",
}
_VERBS = {
    "that is": "that are",
    "which is": "which are",
    "that isn't": "that aren't",
    "which isn't": "which aren't",
    "that has": "that have",
    "which has": "which have",
}
_PRONOUNS = {" it": " them", " its right": " their right", " its left": " their left"}
_POINTING_BACK = ("with ", "that has ", "which has ")
"""Clauses that end with a pronoun: after an anchor with a clause of its own they could be read in two ways."""
_ORDINALS = {1: "first", 2: "second", 3: "third"}
_SIDE_NAMES = {"left": "left", "right": "right", "above": "top", "below": "bottom"}
_ACROSS = {"left": "right", "right": "left", "above": "bottom", "below": "top"}


def word(program: Program, rng: Rng, wording: Wording = "usual") -> str:
    """Put a program into words.

    Args:
        program: The program.
        rng: Chooses among the paraphrases.
        wording: Whose wordings to use.
    """
    return _Writer(rng, wording).phrase(program)


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
    if clause.startswith(_POINTING_BACK):
        for one, many in _PRONOUNS.items():
            if clause.endswith(one):
                clause = clause.removesuffix(one) + many
                break
    for one, many in _VERBS.items():
        if clause.startswith(one):
            return many + clause.removeprefix(one)
    return clause


def _ranks(step: Ordinal) -> dict[str, str]:
    """Word a rank: which one, from which side, to which side."""
    return {"o": _ORDINALS[step.n], "s": _SIDE_NAMES[step.side], "t": _ACROSS[step.side]}


class _Writer:
    def __init__(self, rng: Rng, wording: Wording) -> None:
        self.rng, self.wording = rng, wording

    def pick(self, forms: _Choice) -> str:
        return self.rng.choice(forms[_PLACE[self.wording]])

    def pick_if_several(self, forms: _Choice) -> str:
        """Pick without a draw where there is one form alone: the frozen splits were made so."""
        found = forms[_PLACE[self.wording]]
        return found[0] if len(found) == 1 else self.rng.choice(found)

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
            forms = _SIDE[step.side][_PLACE[self.wording]]
            if step.anchor.steps:  # "with the star above the square to its left" would be read in two ways
                forms = tuple(form for form in forms if not form.startswith(_POINTING_BACK))
            return self.rng.choice(forms).format(a=self.phrase(step.anchor, inner=True))
        if isinstance(step, Between):
            first, second = self.phrase(step.first, inner=True), self.phrase(step.second, inner=True)
            return self.pick(_BETWEEN).format(a=first, b=second)
        return self.pick(_WITHOUT).format(v=f"a {step.value}" if step.attribute == "shape" else step.value)

    def chosen(self, step: object, one: str, *, inner: bool) -> str:
        if isinstance(step, Extreme):
            form, names = self.pick(_EXTREME[step.which]), {"n": one}
        elif isinstance(step, Ordinal):
            form, names = self.pick(_ORDINAL), {"n": one, **_ranks(step)}
        else:
            assert isinstance(step, Distance)
            form = self.pick(_NEAREST if step.nearest else _FARTHEST)
            names = {"n": one, "a": self.phrase(step.anchor, inner=True)}
        if inner and not form.startswith("the "):
            form = "the {o} {n} from the {s}" if "{o}" in form else f"the {form}"
        return form.format(**names)

    def chosen_among(self, step: object, one: str, many: str, filters: list[tuple[str, bool]], *, inner: bool) -> str:
        clauses, several = _join(filters), _join([(_plural(clause), nested) for clause, nested in filters])
        them = f"the {many} {several}"
        if isinstance(step, Extreme):
            if inner or self.rng.chance(0.6):
                return f"the {step.which} {one} {clauses}"
            return self.pick_if_several(_OF_EXTREME).format(them=them, it=step.which)
        if isinstance(step, Ordinal):
            form = "the {o} from the {s} of {them}" if inner else self.pick_if_several(_OF_ORDINAL)
            return form.format(them=them, **_ranks(step))
        assert isinstance(step, Distance)
        anchor = self.phrase(step.anchor, inner=True)
        choice = f"nearest to {anchor}" if step.nearest else f"farthest from {anchor}"
        form = _INNER_OF_DISTANCE[self.wording] if inner else self.pick_if_several(_OF_DISTANCE)
        return form.format(them=them, it=choice)
