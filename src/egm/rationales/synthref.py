"""The offline teacher: SynthRef's execution traces worded in each style, without any model."""

from __future__ import annotations

from typing import Final

from egm.errors import DataError
from egm.types import Sample

STYLES: Final = ("official", "candidates", "amodal", "inventory", "unboxed")
"""Styles that it speaks."""


def explain(sample: Sample, style: str = "official", attempt: int = 0) -> str:  # noqa: ARG001
    """Word why a SynthRef sample's box is the right one.

    Args:
        sample: A sample of SynthRef, told by its id.
        style: One of `STYLES`.
        attempt: Another number gives another wording, where the style has several.

    Raises:
        DataError: If the sample is none of SynthRef, or there is no such style.
    """
    raise DataError(f"sample {sample.id} cannot be explained in {style!r}: the offline teacher is still being written")
