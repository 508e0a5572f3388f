"""The offline teacher: SynthRef's execution traces worded in each style, without any model.

It knows a sample by its id, draws its scene again, and words the program that the phrase came from. So it explains
SynthRef alone, wherever its samples were written to, and can be wrong only where SynthRef itself is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from egm.datasets.synthetic import SPLITS, VERSION, SynthRef, Traced
from egm.datasets.synthetic import STYLES as OWN_STYLES
from egm.datasets.synthetic.official import official
from egm.datasets.synthetic.rationale import write_rationale
from egm.datasets.synthetic.rng import Rng
from egm.errors import DataError, nearest
from egm.rationales.amodal import amodal
from egm.types import Sample

STYLES: Final = ("official", "amodal", *(style for style in OWN_STYLES if style != "official"))
"""Styles that it speaks: `official` names only what decides, in one or two sentences; `amodal` adds what hides the
object and how far it goes on; the others are those of `SynthRef`."""


def explain_sample(sample: Sample, style: str = "official", attempt: int = 0) -> str:
    """Word why a SynthRef sample's box is the right one.

    Args:
        sample: A sample of SynthRef, told by its id.
        style: One of `STYLES`.
        attempt: Another number gives another wording, where the style has several.

    Raises:
        DataError: If the sample is none of SynthRef, or there is no such style.

    Example:
        >>> sample = SynthRef("val").samples(0)[0]
        >>> explain_sample(sample)[:44]
        'The only small orange diamond is the small s'
    """
    check_style(style)
    split, seed, scene = _place(sample.id)
    for traced in _scene(split, seed, scene):
        if traced.sample.id == sample.id and traced.sample.phrase == sample.phrase:
            return tell(traced, style, attempt)
    raise DataError(
        f"sample {sample.id} asks for {sample.phrase!r}, which SynthRef's does not: explain SynthRef as drawn"
    )


def tell(traced: Traced, style: str = "official", attempt: int = 0) -> str:
    """Word a question whose execution is known; see `explain_sample`."""
    sample = traced.sample
    rng = Rng(f"{sample.id}/{style}/{attempt}")
    if style == "amodal":
        return amodal(traced, rng)
    if style == "official":
        return official(traced.proof, traced.scene, rng)
    return write_rationale(traced.proof, traced.scene, amodal=sample.amodal, style=style)  # type: ignore[arg-type]


def explained_samples(
    split: str = "train", *, style: str = "official", seed: int = 0, scenes: int | None = None
) -> Iterator[tuple[Sample, str]]:
    """Yield samples of a split with their rationales, each scene drawn once; see `SynthRef`.

    Raises:
        DataError: If there is no such split or style.
    """
    check_style(style)
    source = SynthRef(split, seed=seed, scenes=scenes)
    for index in itertools.count() if source.scenes is None else range(source.scenes):
        for traced in source.traced(index):
            yield traced.sample, tell(traced, style)


def check_style(style: str) -> None:
    """Refuse a style that the offline teacher does not speak.

    Raises:
        DataError: If it is none of `STYLES`.
    """
    if style not in STYLES:
        raise DataError(f"the offline teacher has no style {style!r}: {nearest(style, STYLES)}")


def _place(name: str) -> tuple[str, int, int]:
    """Split, seed and scene of a sample's id."""
    parts = name.split("/")
    numbers = parts[2:]
    if len(parts) != 5 or parts[0] != f"synthref{VERSION}" or parts[1] not in SPLITS:
        raise DataError(
            f"sample {name[:80]!r} is none of SynthRef {VERSION}: the offline teacher explains no other data"
        )
    if not all(number.isascii() and number.isdecimal() and len(number) < 12 for number in numbers):
        raise DataError(f"sample {name[:80]!r} has no number of a SynthRef scene: the offline teacher cannot draw it")
    return parts[1], int(numbers[0]), int(numbers[1])


@lru_cache(maxsize=8)
def _scene(split: str, seed: int, index: int) -> tuple[Traced, ...]:
    return tuple(SynthRef(split, seed=seed).traced(index))
