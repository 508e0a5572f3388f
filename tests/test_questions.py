"""Questions on their way to a model: what is about another picture is not asked."""

from __future__ import annotations

import pytest
from PIL import Image

from egm.boxes import Box
from egm.errors import ImageError
from egm.questions import ImageCache, check_all, load_question
from egm.types import Sample


@pytest.mark.parametrize("size", [None, (60, 50)])
@pytest.mark.parametrize("amodal", [False, True])
@pytest.mark.parametrize("box", [Box(70, 10, 90, 40), Box(10, 50, 40, 60), Box(-9, 0, 0, 5), Box(100, 200, 300, 400)])
def test_a_true_box_beside_the_picture_is_an_error_of_the_sample(
    size: tuple[int, int] | None, amodal: bool, box: Box
) -> None:
    sample = Sample("1", Image.new("RGB", (60, 50)), "it", box, size, amodal=amodal)
    with pytest.raises(ImageError, match=r"the true box .* lies outside the picture of 60 x 50"):
        load_question(0, sample, ImageCache())
    with pytest.raises(ImageError, match=r"item 0: the true box"):
        check_all([sample])


@pytest.mark.parametrize(("amodal", "size"), [(True, None), (True, (60, 50)), (False, (60, 50))])
def test_a_true_box_that_passes_an_edge_is_asked_for(amodal: bool, size: tuple[int, int] | None) -> None:
    sample = Sample("1", Image.new("RGB", (60, 50)), "it", Box(-5, 10, 61, 40), size, amodal=amodal)
    assert load_question(0, sample, ImageCache()).phrase == "it"
