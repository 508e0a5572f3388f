"""Corruption of rationales: defects planted at stated rates, so that filters can be measured.

The wordings stand in two files (`wordings/`): filters were developed on one and are measured on the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Final

from egm.datasets.synthetic.rng import Rng
from egm.errors import RecipeError, nearest
from egm.rationales.contradict import contradict
from egm.types import Sample

WORDINGS: Final = ("development", "held_out")
"""The two files of wordings."""
DEFECTS: Final = ("failure", "leak", "contradiction", "language", "length", "repetition", "near_duplicate")
"""What can be planted, each called as the filter that should find it."""
_COLOURS: Final = ("red", "green", "blue", "yellow", "cyan", "magenta", "orange", "lime", "white")
_TOO_MANY_WORDS: Final = (170, 500)
"""Words of a rationale that is too long: of one without coordinates, and of one that tells boxes."""


@dataclass(frozen=True, slots=True)
class Planted:
    """What was done to a rationale.

    Attributes:
        text: The rationale as it now is.
        defect: One of `DEFECTS`; None where it was left alone.
        kind: Which sort of the defect, such as "side" of a contradiction.
    """

    text: str
    defect: str | None = None
    kind: str | None = None


class Corruption:
    """Plants defects, the same from the same seed.

    Args:
        rates: Share of rationales that get each defect, at most 1 in sum, such as `{"leak": 0.1}`.
        seed: Where the chance comes from.
        wordings: One of `WORDINGS`.

    Raises:
        RecipeError: If a defect or the wordings are unknown, or the rates are no shares of one whole.

    Example:
        >>> from egm.boxes import Box
        >>> sample = Sample("1", "a.png", "the man", box=Box(0, 0, 9, 9), size=(640, 480))
        >>> Corruption({"length": 1}, seed=1).plant(sample, "He is the only man in the picture.").kind
        'long'
    """

    def __init__(self, rates: Mapping[str, float], *, seed: int = 0, wordings: str = "development") -> None:
        for name, rate in rates.items():
            if name not in DEFECTS:
                raise RecipeError(f"there is no defect {name!r} to plant: {nearest(name, DEFECTS)}")
            if not (math.isfinite(rate) and 0 <= rate <= 1):
                raise RecipeError(f"the rate of {name} is {rate}: give a share between 0 and 1")
        if sum(rates.values()) > 1 + 1e-9:
            raise RecipeError(f"the rates of all defects make {sum(rates.values()):g}: give shares of at most 1 in sum")
        self.rates, self.seed, self.wordings = {name: float(rate) for name, rate in rates.items()}, seed, wordings
        self._words = read_wordings(wordings)

    @classmethod
    def evenly(cls, share: float, *, seed: int = 0, wordings: str = "development") -> Corruption:
        """Plant every defect equally often, in a share of the rationales altogether."""
        return cls({name: share / len(DEFECTS) for name in DEFECTS}, seed=seed, wordings=wordings)

    def plant(self, sample: Sample, text: str, attempt: int = 0) -> Planted:
        """Plant at most one defect in a rationale.

        Args:
            sample: What it explains; its id decides what is planted.
            text: The rationale.
            attempt: Another number draws anew.
        """
        rng = Rng(f"corrupt/{self.seed}/{sample.id}/{attempt}")
        mark = rng.random()
        for name, rate in self.rates.items():
            mark -= rate
            if mark < 0:
                return self._plant(name, sample, text, rng)
        return Planted(text)

    def to_dict(self) -> dict[str, Any]:
        """What tells this corruption from another, JSON-ready."""
        return {"rates": self.rates, "seed": self.seed, "wordings": self.wordings}

    def _plant(self, defect: str, sample: Sample, text: str, rng: Rng) -> Planted:
        words = self._words
        if defect == "contradiction":
            kind, text = contradict(sample, text, words, rng)
        elif defect == "leak":
            kind, text = _leak(sample, text, words["leak"], rng)
        elif defect == "length":
            kind, text = _wrong_length(text, words["length"], rng)
        elif defect == "repetition":
            kind, text = _repeat(text, words["repetition"], rng)
        elif defect == "near_duplicate":
            number = rng.below(len(words["canned"]["text"]))
            kind, text = f"canned {number}", _touch_up(words["canned"]["text"][number], words[defect], rng)
        else:  # the whole text is another
            kind = rng.choice(sorted(words[defect]))
            text = rng.choice(words[defect][kind])
        return Planted(text, defect, kind)


@lru_cache
def read_wordings(name: str) -> Mapping[str, Mapping[str, list[str]]]:
    """Read a file of wordings: by defect and kind.

    Raises:
        RecipeError: If there is none of that name.
    """
    import yaml

    if name not in WORDINGS:
        raise RecipeError(f"there are no wordings {name!r}: {nearest(name, WORDINGS)}")
    text = resources.files("egm.rationales").joinpath(f"wordings/{name}.yaml").read_text(encoding="utf-8")
    found: Mapping[str, Mapping[str, list[str]]] = yaml.safe_load(text)
    return found


def insert(text: str, sentence: str, rng: Rng) -> str:
    """Put a sentence before, between or behind those of a text."""
    sentences = text.split(". ")
    at = rng.between(0, len(sentences))
    if at == len(sentences):
        return f"{text} {sentence}"
    return " ".join([*(f"{each}." for each in sentences[:at]), sentence, ". ".join(sentences[at:])])


def _leak(sample: Sample, text: str, words: Mapping[str, list[str]], rng: Rng) -> tuple[str, str]:
    tells_boxes = text.count("(") >= 1
    kind = rng.choice([kind for kind in words if kind != "coordinates" or not tells_boxes])
    sentence = rng.choice(words[kind])
    if kind == "coordinates":
        assert sample.box is not None
        assert sample.size is not None
        numbers = zip(("x1", "y1", "x2", "y2"), sample.box.to_1000(sample.size), strict=True)
        return kind, insert(text, sentence.format(**dict(numbers)), rng)
    return kind, insert(text, sentence.format(color=rng.choice(_COLOURS)), rng)


def _wrong_length(text: str, words: Mapping[str, list[str]], rng: Rng) -> tuple[str, str]:
    kind = rng.choice(("short", "long"))
    if kind == "short":
        return kind, rng.choice(words["short"])
    limit = _TOO_MANY_WORDS[1 if "(" in text else 0]
    halves = [
        (each.split()[: len(each.split()) // 2], each.split()[len(each.split()) // 2 :]) for each in words["long"]
    ]
    pairs = rng.shuffled([(a, b) for a, _ in halves for _, b in halves])
    sentences = [*rng.shuffled(words["long"]), *(" ".join(a + b) for a, b in pairs)]
    while len(text.split()) < limit and sentences:
        text += f" {sentences.pop(0)}"
    return kind, text


def _repeat(text: str, words: Mapping[str, list[str]], rng: Rng) -> tuple[str, str]:
    kind = rng.choice(("loop", "stutter", "echo"))
    if kind == "loop":
        return kind, " ".join([text, *[rng.choice(words["loop"])] * rng.between(4, 12)])
    if kind == "echo":
        return kind, " ".join([text] * rng.between(3, 5))
    parts = text.split()
    at = rng.between(1, len(parts))
    return kind, " ".join([*parts[:at], *[rng.choice(words["stutter"])] * rng.between(4, 8), *parts[at:]])


def _touch_up(text: str, words: Mapping[str, list[str]], rng: Rng) -> str:
    if rng.chance(0.5):
        text = rng.choice(words["opening"]) + text[0].lower() + text[1:]
    return text + rng.choice(words["closing"]) if rng.chance(0.5) else text
