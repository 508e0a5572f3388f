"""Wordings of relations: the usual ones, those that only the tests use, and those that only reinforcement hears.

`{n}` is the noun, `{ns}` its plural, `{a}` and `{b}` anchors, `{o}` a rank, `{s}` and `{t}` the sides it counts from
and to, `{v}` a value, `{it}` the choice, `{them}` and `{those}` what it is chosen from, with an article and without.
"""

from __future__ import annotations

from typing import Literal

Wording = Literal["usual", "held_out", "other"]
"""Whose wordings: those of training, those that only tests use, or those that only `train-reworded` uses."""

Forms = tuple[str, ...]
Choice = tuple[Forms, Forms, Forms]
"""The usual wordings, the held-out ones, the other ones."""


def _beside(side: str, other: str) -> Choice:
    """Word that something is at one side of `{a}`, which is at the other side of it."""
    return (
        (
            f"{side} of {{a}}",
            f"to the {side} of {{a}}",
            f"on the {side} side of {{a}}",
            f"somewhere {side} of {{a}}",
            f"with {{a}} to its {other}",
        ),
        (
            f"on the {side} of {{a}}",
            f"somewhere to the {side} of {{a}}",
            f"with {{a}} on its {other}",
        ),
        (
            f"that is {side} of {{a}}",
            f"which is to the {side} of {{a}}",
            f"further {side} than {{a}}",
            f"that has {{a}} to its {other}",
            f"which has {{a}} on its {other}",
            f"with {{a}} somewhere to its {other}",
            f"that is on the {side} side of {{a}}",
            f"which is somewhere {side} of {{a}}",
            f"more to the {side} than {{a}}",
            f"that is further to the {side} than {{a}}",
            f"with {{a}} on its {other} side",
            f"that has {{a}} somewhere on its {other}",
        ),
    )


def _over(above: str, higher: str, over: str, up: str, below: str, lower: str, under: str) -> Choice:
    """Word that something is above `{a}`, or in the opposite words below it."""
    return (
        (
            f"{above} {{a}}",
            f"{higher} than {{a}}",
            f"{over} {{a}}",
            f"that is {above} {{a}}",
            f"with {{a}} {below} it",
        ),
        (
            f"somewhere {above} {{a}}",
            f"that is {higher} than {{a}}",
            f"with {{a}} {under} it",
        ),
        (
            f"which is {above} {{a}}",
            f"which is {higher} than {{a}}",
            f"further {up} than {{a}}",
            f"that has {{a}} {below} it",
            f"which has {{a}} {under} it",
            f"with {{a}} somewhere {below} it",
            f"that is {over} {{a}}",
            f"that is somewhere {above} {{a}}",
            f"which is further {up} than {{a}}",
            f"{higher} {up} than {{a}}",
            f"with {{a}} {lower} than it",
            f"that has {{a}} somewhere {under} it",
        ),
    )


def _outermost(side: str, most: str) -> Choice:
    """Word which of several is furthest to a side."""
    return (
        (
            f"the {most} {{n}}",
            f"the {{n}} furthest to the {side}",
            f"the {{n}} on the far {side} side",
            f"{most} {{n}}",
        ),
        (
            f"the {{n}} that is furthest to the {side}",
            f"the {{n}} on the far {side}",
        ),
        (
            f"the {{n}} that is {most}",
            f"the {{n}} most to the {side}",
            f"the one {{n}} that is furthest {side}",
            f"the {most} of the {{ns}}",
            f"the {most} one of the {{ns}}",
            f"of all {{ns}}, the {most}",
            f"among the {{ns}}, the {most} one",
            f"out of the {{ns}}, the {most}",
            f"the furthest {side} {{n}}",
            f"the {{n}} that is on the far {side} side",
            f"further {side} than the other {{ns}}, the {{n}}",
        ),
    )


SIDE: dict[str, Choice] = {
    "left": _beside("left", "right"),
    "right": _beside("right", "left"),
    "above": _over("above", "higher", "over", "up", "below", "lower", "under"),
    "below": _over("below", "lower", "under", "down", "above", "higher", "over"),
}
BETWEEN: Choice = (
    ("between {a} and {b}", "in between {a} and {b}", "that is between {a} and {b}"),
    ("somewhere between {a} and {b}", "that is in between {a} and {b}"),
    (
        "which is between {a} and {b}",
        "which is in between {a} and {b}",
        "anywhere between {a} and {b}",
        "that is somewhere between {a} and {b}",
        "which is somewhere in between {a} and {b}",
    ),
)
WITHOUT: Choice = (
    ("that is not {v}", "which is not {v}", "that isn't {v}", "that is anything but {v}"),
    ("which isn't {v}", "which is anything but {v}"),
    (
        "that is anything other than {v}",
        "that is not at all {v}",
        "which is in no way {v}",
        "which is by no means {v}",
        "that isn't at all {v}",
    ),
)
EXTREME: dict[str, Choice] = {
    "leftmost": _outermost("left", "leftmost"),
    "rightmost": _outermost("right", "rightmost"),
    "topmost": (
        ("the topmost {n}", "the highest {n}", "the {n} nearest to the top", "the {n} that is highest"),
        ("the {n} closest to the top", "the {n} which is highest"),
        (
            "the {n} that is topmost",
            "the {n} that is furthest up",
            "the {n} that is nearest to the top",
            "the topmost of the {ns}",
            "the topmost one of the {ns}",
            "of all {ns}, the topmost",
            "among the {ns}, the topmost one",
            "out of the {ns}, the topmost",
            "above the other {ns}, the {n}",
            "the highest of the {ns}",
            "of the {ns}, the one nearest to the top",
        ),
    ),
    "lowest": (
        ("the lowest {n}", "the bottommost {n}", "the {n} nearest to the bottom", "the {n} that is lowest"),
        ("the {n} closest to the bottom", "the {n} which is lowest"),
        (
            "the {n} that is bottommost",
            "the {n} that is furthest down",
            "the {n} that is nearest to the bottom",
            "the bottommost of the {ns}",
            "the bottommost one of the {ns}",
            "of all {ns}, the bottommost",
            "among the {ns}, the bottommost one",
            "out of the {ns}, the bottommost",
            "below the other {ns}, the {n}",
            "the lowest of the {ns}",
            "of the {ns}, the one nearest to the bottom",
        ),
    ),
    "largest": (
        ("the largest {n}", "the biggest {n}", "the {n} that is largest", "biggest {n}"),
        ("the {n} which is biggest", "largest {n}"),
        (
            "the {n} that is biggest",
            "the {n} with the largest size",
            "the largest of the {ns}",
            "the largest one of the {ns}",
            "of all {ns}, the largest",
            "among the {ns}, the largest one",
            "out of the {ns}, the largest",
            "the one {n} that is biggest",
            "the biggest of the {ns}",
            "larger than the other {ns}, the {n}",
        ),
    ),
    "smallest": (
        ("the smallest {n}", "the {n} that is smallest", "the {n} with the smallest size", "smallest {n}"),
        ("the {n} which is smallest",),
        (
            "the {n} that is the smallest",
            "the {n} of the smallest size",
            "the smallest of the {ns}",
            "the smallest one of the {ns}",
            "of all {ns}, the smallest",
            "among the {ns}, the smallest one",
            "out of the {ns}, the smallest",
            "the one {n} that is smallest",
            "smaller than the other {ns}, the {n}",
        ),
    ),
}
ORDINAL: Choice = (
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
        "the {o} of the {ns} from the {s}",
        "of the {ns}, the {o} from the {s}",
        "among the {ns}, the {o} one from the {s}",
        "the {o} of the {ns}, counting from the {s}",
        "starting at the {s}, the {o} {n}",
        "the {o} {n}, {s} to {t}",
        "the {n} that comes {o} from the {s}",
    ),
)
NEAREST: Choice = (
    ("the {n} nearest to {a}", "the {n} closest to {a}", "the nearest {n} to {a}", "the {n} that is nearest to {a}"),
    ("the closest {n} to {a}", "the {n} which is closest to {a}"),
    (
        "the {n} which is nearest to {a}",
        "the {n} that is closest to {a}",
        "the {n} least far from {a}",
        "of the {ns}, the one nearest to {a}",
        "among the {ns}, the closest to {a}",
        "out of the {ns}, the nearest one to {a}",
        "the {n} at the smallest distance from {a}",
        "the one of the {ns} that is nearest to {a}",
    ),
)
FARTHEST: Choice = (
    ("the {n} farthest from {a}", "the {n} furthest from {a}", "the {n} that is farthest from {a}"),
    ("the {n} which is furthest from {a}", "the furthest {n} from {a}"),
    (
        "the {n} which is farthest from {a}",
        "the {n} that is furthest from {a}",
        "the {n} least near to {a}",
        "of the {ns}, the one farthest from {a}",
        "among the {ns}, the furthest from {a}",
        "out of the {ns}, the farthest one from {a}",
        "the {n} at the largest distance from {a}",
        "the one of the {ns} that is farthest from {a}",
    ),
)
PLAIN: Choice = (
    ("the {n}", "the {n}", "{n}", "the one {n}"),
    ("the only {n}",),
    (
        "just the {n}",
        "that one {n}",
        "the one and only {n}",
        "the {n} that is there",
        "this {n}",
    ),
)
ALL: Choice = (
    ("the {ns}", "all {ns}", "every {n}", "all the {ns}"),
    ("all of the {ns}", "every one of the {ns}"),
    ("each {n}", "each of the {ns}", "any {n}"),
)
"""All that fit, however many: none, one or several."""
# One of several that filters leave.
OF_EXTREME: Choice = (
    ("of {them}, the {it} one",),
    ("from {them}, the {it}",),
    (
        "among {them}, the {it} one",
        "the {it} one among {them}",
        "the {it} of {them}",
        "out of {them}, the {it}",
        "out of {them}, the {it} one",
        "the {it} one out of {them}",
        "{them}: the {it} one",
        "of all {those}, the {it}",
    ),
)
OF_ORDINAL: Choice = (
    ("of {them}, the {o} from the {s}",),
    ("from the {s}, the {o} of {them}",),
    (
        "among {them}, the {o} from the {s}",
        "the {o} from the {s} among {them}",
        "{s} to {t}, the {o} of {them}",
        "{s} to {t}, the {o} among {them}",
        "out of {them}, the {o} from the {s}",
        "{them}: the {o} from the {s}",
        "of {them}, the {o} one, {s} to {t}",
        "starting at the {s}, the {o} of {them}",
        "of all {those}, the {o} counting from the {s}",
    ),
)
OF_DISTANCE: Choice = (
    ("of {them}, the one {it}",),
    ("the one {it}, of {them}",),
    (
        "among {them}, the one {it}",
        "the one that is {it}, out of {them}",
        "the one {it}, among {them}",
        "out of {them}, the one {it}",
        "of {them}, the one that is {it}",
        "{them}: the one {it}",
        "of all {those}, the one {it}",
    ),
)
INNER_OF_DISTANCE: dict[Wording, str] = {
    "usual": "the one {it} of {them}",
    "held_out": "the one {it} of {them}",
    "other": "the one, of {them}, {it}",
}
