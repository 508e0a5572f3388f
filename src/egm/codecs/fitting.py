"""Which conventions fit answers, told by their form alone: no truth is looked at, and none is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from egm.codecs.registry import codec_names, get_codec
from egm.types import Grounding

_FORMLESS = frozenset(["broken_json", "bbox_key", "punctuation", "quoted_numbers", "spaces"])
"""Repairs of what any family may write badly; the others say that a form is not the family's."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How far a convention fits a number of answers.

    Attributes:
        codec: The convention's name.
        own: Answers with a box in its own form and within its scale.
        repaired: Answers with a box in another form, such as another family's tags or a plain list.
        unread: Answers that have a box to some codec and none to this one.
        failures: Why those have none, each with its count.
    """

    codec: str
    own: int
    repaired: int
    unread: int
    failures: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Fitting:
    """What the form of answers tells.

    Attributes:
        fits: A `Fit` a codec, those that fit most answers first.
        answers: How many answers were looked at.
        boxed: How many of them have a box to some codec.
        fitting: The codecs to which each of those has a box in their own form. None: the answers mix conventions, or
            hold one that is not known. Several: the text does not tell which it is, and whoever made it must.
    """

    fits: tuple[Fit, ...]
    answers: int
    boxed: int
    fitting: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {**asdict(self), "fits": [fit.to_dict() for fit in self.fits], "fitting": list(self.fitting)}


def fit_answers(answers: Iterable[tuple[str, tuple[int, int]]]) -> Fitting:
    """Tell how far each known convention fits answers, by their form and the range of their numbers.

    Args:
        answers: Texts, each with width and height of its picture in pixels.

    Example:
        >>> fit_answers([('[{"bbox_2d": [100, 200, 300, 900], "label": "the cup"}]', (640, 480))]).fitting
        ('qwen3_vl', 'qwen3_vl_instruct')
    """
    codecs = [get_codec(name) for name in codec_names()]
    rows = [[codec.parse(text, size=size) for codec in codecs] for text, size in answers]
    boxed = [row for row in rows if any(grounding.box is not None for grounding in row)]
    fits = [_fit(codec.name, [row[number] for row in boxed]) for number, codec in enumerate(codecs)]
    fits.sort(key=lambda fit: (-fit.own, -fit.repaired, fit.codec))
    fitting = tuple(fit.codec for fit in fits if boxed and fit.own == len(boxed))
    return Fitting(tuple(fits), len(rows), len(boxed), fitting)


def _fit(name: str, groundings: list[Grounding]) -> Fit:
    failures = Counter(str(grounding.failure) for grounding in groundings if grounding.box is None)
    own = sum(grounding.box is not None and set(grounding.repairs) <= _FORMLESS for grounding in groundings)
    unread = failures.total()
    return Fit(name, own, len(groundings) - unread - own, unread, dict(failures))
