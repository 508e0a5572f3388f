"""Words for programs: many paraphrases, some that only the test splits use, and others that only reinforcement hears.

A held-out wording is a new arrangement of words that the training wordings hold too, so that it tests understanding and
not vocabulary. The other wordings are those of `train-reworded`; they are no wordings of the tests.
"""

from __future__ import annotations

import itertools

from egm.datasets.synthetic.paraphrases import (
    ALL,
    BETWEEN,
    EXTREME,
    FARTHEST,
    INNER_OF_DISTANCE,
    NEAREST,
    OF_DISTANCE,
    OF_EXTREME,
    OF_ORDINAL,
    ORDINAL,
    PLAIN,
    SIDE,
    WITHOUT,
    Choice,
    Wording,
)
from egm.datasets.synthetic.programs import Between, Distance, Extreme, Ordinal, Program, Side, Without, anchors
from egm.datasets.synthetic.rng import Rng

_PLACE: dict[Wording, int] = {"usual": 0, "held_out": 1, "other": 2}

_VERBS = {
    "that is": "that are",
    "which is": "which are",
    "that isn't": "that aren't",
    "which isn't": "which aren't",
    "that has": "that have",
    "which has": "which have",
}
_PRONOUNS = {" it": " them"} | {
    f" its {side}": f" their {side}" for side in ("left", "right", "left side", "right side")
}
_POINTING_BACK = ("with ", "that has ", "which has ")
"""Clauses that end with a pronoun: after an anchor with a clause of its own they could be read in two ways."""
ORDINALS = {1: "first", 2: "second", 3: "third"}
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


def word_all(program: Program, rng: Rng, wording: Wording = "usual") -> str:
    """Put a program of filters into words that ask for all that it fits, and do not tell how many these are.

    Args:
        program: The program; it chooses none of several.
        rng: Chooses among the paraphrases.
        wording: Whose wordings to use.
    """
    return _Writer(rng, wording).all_of(program)


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
    return {"o": ORDINALS[step.n], "s": _SIDE_NAMES[step.side], "t": _ACROSS[step.side]}


class _Writer:
    def __init__(self, rng: Rng, wording: Wording) -> None:
        self.rng, self.wording = rng, wording

    def pick(self, forms: Choice, *, inner: bool = False) -> str:
        found = forms[_PLACE[self.wording]]
        if inner and self.wording == "other":  # amid a clause, what stands before a comma could belong to another noun
            found = tuple(form for form in found if form.startswith("the ") and "," not in form)
        return self.rng.choice(found)

    def pick_if_several(self, forms: Choice) -> str:
        """Pick without a draw where there is one form alone: the frozen splits were made so."""
        found = forms[_PLACE[self.wording]]
        return found[0] if len(found) == 1 else self.rng.choice(found)

    def phrase(self, program: Program, *, inner: bool = False) -> str:
        filters = [step for step in program.steps if isinstance(step, (Side, Between, Without))]
        last = program.steps[-1] if program.steps else None
        one, many = noun(program.attributes), noun(program.attributes, plural=True)
        if last is None:
            return f"the {one}" if inner else self.pick(PLAIN).format(n=one)
        clauses = [(self.clause(step), any(a.steps for a in anchors(step))) for step in filters]
        if last in filters:
            article = "the " if inner or self.rng.chance(0.85) else ""
            return f"{article}{one} {_join(clauses)}"
        if not filters:
            return self.chosen(last, one, many, inner=inner)
        return self.chosen_among(last, one, many, clauses, inner=inner)

    def all_of(self, program: Program) -> str:
        form = self.pick(ALL)
        text = form.format(n=noun(program.attributes), ns=noun(program.attributes, plural=True))
        clauses = [
            (self.clause(step), any(anchor.steps for anchor in anchors(step)))
            for step in program.steps
            if isinstance(step, (Side, Between, Without))
        ]
        if "{ns}" in form:
            clauses = [(_plural(clause), nested) for clause, nested in clauses]
        return f"{text} {_join(clauses)}" if clauses else text

    def clause(self, step: Side | Between | Without) -> str:
        if isinstance(step, Side):
            forms = SIDE[step.side][_PLACE[self.wording]]
            if step.anchor.steps:  # "with the star above the square to its left" would be read in two ways
                forms = tuple(form for form in forms if not form.startswith(_POINTING_BACK))
            return self.rng.choice(forms).format(a=self.phrase(step.anchor, inner=True))
        if isinstance(step, Between):
            first, second = self.phrase(step.first, inner=True), self.phrase(step.second, inner=True)
            return self.pick(BETWEEN).format(a=first, b=second)
        return self.pick(WITHOUT).format(v=f"a {step.value}" if step.attribute == "shape" else step.value)

    def chosen(self, step: object, one: str, many: str, *, inner: bool) -> str:
        names = {"n": one, "ns": many}
        if isinstance(step, Extreme):
            form = self.pick(EXTREME[step.which], inner=inner)
        elif isinstance(step, Ordinal):
            form = self.pick(ORDINAL, inner=inner)
            names |= _ranks(step)
        else:
            assert isinstance(step, Distance)
            form = self.pick(NEAREST if step.nearest else FARTHEST, inner=inner)
            names["a"] = self.phrase(step.anchor, inner=True)
        if inner and not form.startswith("the "):
            form = "the {o} {n} from the {s}" if "{o}" in form else f"the {form}"
        return form.format(**names)

    def chosen_among(self, step: object, one: str, many: str, filters: list[tuple[str, bool]], *, inner: bool) -> str:
        clauses, several = _join(filters), _join([(_plural(clause), nested) for clause, nested in filters])
        those = f"{many} {several}"
        names = {"them": f"the {those}", "those": those}
        if isinstance(step, Extreme):
            if inner or self.rng.chance(0.6):
                return f"the {step.which} {one} {clauses}"
            return self.pick_if_several(OF_EXTREME).format(**names, it=step.which)
        if isinstance(step, Ordinal):
            form = "the {o} from the {s} of {them}" if inner else self.pick_if_several(OF_ORDINAL)
            return form.format(**names, **_ranks(step))
        assert isinstance(step, Distance)
        anchor = self.phrase(step.anchor, inner=True)
        choice = f"nearest to {anchor}" if step.nearest else f"farthest from {anchor}"
        form = INNER_OF_DISTANCE[self.wording] if inner else self.pick_if_several(OF_DISTANCE)
        return form.format(**names, it=choice)
