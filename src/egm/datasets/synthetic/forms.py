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

# Each entry: the usual wordings, the held-out ones, the other ones.
SIDE: dict[str, Choice] = {
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
            "that is on the left side of {a}",
            "which is somewhere left of {a}",
            "more to the left than {a}",
            "that is further to the left than {a}",
            "with {a} on its right side",
            "that has {a} somewhere on its right",
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
            "that is on the right side of {a}",
            "which is somewhere right of {a}",
            "more to the right than {a}",
            "that is further to the right than {a}",
            "with {a} on its left side",
            "that has {a} somewhere on its left",
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
            "that is over {a}",
            "that is somewhere above {a}",
            "which is further up than {a}",
            "higher up than {a}",
            "with {a} lower than it",
            "that has {a} somewhere under it",
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
            "that is under {a}",
            "that is somewhere below {a}",
            "which is further down than {a}",
            "lower down than {a}",
            "with {a} higher than it",
            "that has {a} somewhere over it",
        ),
    ),
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
    "leftmost": (
        ("the leftmost {n}", "the {n} furthest to the left", "the {n} on the far left side", "leftmost {n}"),
        ("the {n} that is furthest to the left", "the {n} on the far left"),
        (
            "the {n} that is leftmost",
            "the {n} most to the left",
            "the one {n} that is furthest left",
            "the leftmost of the {ns}",
            "the leftmost one of the {ns}",
            "of all {ns}, the leftmost",
            "among the {ns}, the leftmost one",
            "out of the {ns}, the leftmost",
            "the furthest left {n}",
            "the {n} that is on the far left side",
            "further left than the other {ns}, the {n}",
        ),
    ),
    "rightmost": (
        ("the rightmost {n}", "the {n} furthest to the right", "the {n} on the far right side", "rightmost {n}"),
        ("the {n} that is furthest to the right", "the {n} on the far right"),
        (
            "the {n} that is rightmost",
            "the {n} most to the right",
            "the one {n} that is furthest right",
            "the rightmost of the {ns}",
            "the rightmost one of the {ns}",
            "of all {ns}, the rightmost",
            "among the {ns}, the rightmost one",
            "out of the {ns}, the rightmost",
            "the furthest right {n}",
            "the {n} that is on the far right side",
            "further right than the other {ns}, the {n}",
        ),
    ),
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
