"""The resize rule of Qwen's image processors, by hand and against transformers' own."""

from __future__ import annotations

import itertools

import pytest

from egm.codecs.resize import smart_resize
from egm.images import MAX_ASPECT


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((640, 480), (644, 476)),
        ((434, 368), (448, 364)),  # 15.5 cells round to even
        ((500, 375), (504, 364)),
        ((28, 28), (56, 56)),
        ((10, 10), (56, 56)),
        ((2, 500), (28, 504)),
        ((8000, 6000), (4116, 3080)),
    ],
)
def test_smart_resize_by_hand(size: tuple[int, int], seen: tuple[int, int]) -> None:
    assert smart_resize(size, factor=28, min_pixels=3136, max_pixels=12_845_056, least=28) == seen


def test_smart_resize_is_that_of_transformers() -> None:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize as theirs

    sides = [*range(8, 60, 3), *range(60, 1000, 41), 2000, 3999]
    for factor, low, high in ((28, 3136, 12_845_056), (32, 4096, 112_896), (32, 65_536, 16_777_216)):
        for size in itertools.product(sides, sides):
            if max(size) <= MAX_ASPECT * min(size):
                expected = theirs(size[1], size[0], factor=factor, min_pixels=low, max_pixels=high)[::-1]
                ours = smart_resize(size, factor=factor, min_pixels=low, max_pixels=high)
                assert ours == expected
                assert all(side >= factor and side % factor == 0 for side in ours)
                assert ours == smart_resize(size, factor=factor, min_pixels=low, max_pixels=high, least=factor) or (
                    2 * min(size) <= factor
                )
