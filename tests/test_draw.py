from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from egm.boxes import Box
from egm.draw import BOX_COLOUR, TRUTH_COLOUR, NumberedBoxes, draw_boxes, draw_numbered, fitted, side_by_side
from egm.types import Failure, Grounding

GREEN = (0, 160, 0)
OUTSIDE = (190, 190, 190)


def plain(width: int = 640, height: int = 480) -> Image.Image:
    return Image.new("RGB", (width, height), GREEN)


def extent(image: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int] | None:
    """The box around all pixels of a colour, far edges exclusive."""
    ys, xs = np.nonzero((np.asarray(image) == colour).all(axis=2))
    return (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1) if len(xs) else None


def test_line_runs_just_outside_the_box_and_hides_nothing_in_it() -> None:
    drawn = draw_boxes(plain(), box=Box(100, 120, 300, 360))

    assert drawn.size == (640, 480)
    assert (np.asarray(drawn)[120:360, 100:300] == GREEN).all()
    found = extent(drawn, BOX_COLOUR)
    assert found is not None
    assert np.abs(np.array(found) - (100, 120, 300, 360)).max() <= 8
    # Between two white lines, so that it is seen on its own colour too.
    row = [drawn.getpixel((x, 240)) for x in range(90, 100)]
    assert row.count(BOX_COLOUR) >= 3
    assert row[-1] == (255, 255, 255)


def test_box_is_seen_on_a_ground_of_its_own_colour() -> None:
    drawn = draw_boxes(Image.new("RGB", (640, 480), BOX_COLOUR), box=Box(100, 120, 300, 360))
    assert extent(drawn, (255, 255, 255)) is not None


def test_the_picture_given_is_not_changed() -> None:
    picture = plain()
    draw_boxes(picture, box=Box(1, 1, 9, 9), caption="x")
    assert picture.getcolors() == [(640 * 480, GREEN)]


def test_without_anything_to_draw_the_picture_comes_back() -> None:
    drawn = draw_boxes(plain())
    assert drawn.size == (640, 480)
    assert drawn.getcolors() == [(640 * 480, GREEN)]


def test_line_grows_with_the_picture() -> None:
    def thickness(width: int) -> int:
        drawn = draw_boxes(plain(width, width), box=Box(width / 4, width / 4, width / 2, width / 2))
        column = np.asarray(drawn)[:, width * 3 // 8]
        return int((column == BOX_COLOUR).all(axis=1).sum())

    assert thickness(2400) >= 3 * thickness(600)


def test_truth_has_its_own_colour_and_lets_an_equal_box_show() -> None:
    box = Box(100, 120, 300, 360)
    apart = draw_boxes(plain(), truth=box)
    assert extent(apart, BOX_COLOUR) is None
    assert extent(apart, TRUTH_COLOUR) is not None

    both = np.asarray(draw_boxes(plain(), box=box, truth=box))[:480]
    for colour in (BOX_COLOUR, TRUTH_COLOUR):
        assert (both == colour).all(axis=2).sum() > 200


def test_several_answers_are_drawn_alike() -> None:
    near, far = Box(100, 120, 300, 360), Box(400, 20, 500, 100)
    drawn = draw_boxes(plain(), box=[near, far])
    found = extent(drawn, BOX_COLOUR)
    assert found is not None
    assert np.abs(np.array(found) - (100, 20, 500, 360)).max() <= 8
    assert draw_boxes(plain(), box=[near]) == draw_boxes(plain(), box=near)
    assert draw_boxes(plain(), box=[], truth=near) == draw_boxes(plain(), truth=near)


def test_key_appears_with_two_boxes_only() -> None:
    box = Box(100, 120, 300, 360)
    assert draw_boxes(plain(), box=box).height == 480
    assert draw_boxes(plain(), box=box, truth=box).height > 480


def test_small_pictures_are_enlarged_by_a_whole_factor() -> None:
    drawn = draw_boxes(plain(100, 60), box=Box(20, 20, 40, 40))
    assert drawn.size == (500, 300)
    assert (np.asarray(drawn)[100:200, 100:200] == GREEN).all()
    found = extent(drawn, BOX_COLOUR)
    assert found is not None
    assert found[0] in range(94, 100)


def test_caption_stands_in_a_band_below() -> None:
    drawn = draw_boxes(plain(), caption="the red circle")
    pixels = np.asarray(drawn)
    assert drawn.width == 640
    assert (pixels[:480] == GREEN).all()
    band = pixels[480:]
    assert (band == 255).all(axis=2).mean() > 0.5
    assert (band < 64).all(axis=2).any()


def test_long_captions_wrap_inside_the_picture_and_end_somewhere() -> None:
    one = draw_boxes(plain(), caption="word").height
    three = draw_boxes(plain(), caption="word " * 30).height
    endless = draw_boxes(plain(), caption="word " * 10_000)
    assert one < three < endless.height < 480 + 300
    assert (np.asarray(endless)[480:, -6:] == 255).all()


def test_a_word_wider_than_the_picture_is_cut() -> None:
    drawn = draw_boxes(plain(), caption="w" * 200)
    assert drawn.height > draw_boxes(plain(), caption="w").height
    assert (np.asarray(drawn)[480:, -6:] == 255).all()


def test_narrow_pictures_get_a_band_wide_enough_to_read() -> None:
    drawn = draw_boxes(plain(10, 500), caption="tall")
    assert drawn.width == 320
    assert drawn.getpixel((160, 250)) == GREEN
    assert drawn.getpixel((5, 250)) == OUTSIDE


@pytest.mark.parametrize(
    "caption",
    [
        "😀👩‍👩‍👧 cat",
        "שלום العربية",
        "椅子の左",
        "\ud800 lone",
        "a\0b\x1b[31m",
        "two\nlines\ttab",
        "\u202e\u200f",
        "🇩🇪" * 300,
        " \n ",
    ],
)
def test_any_caption_can_be_drawn(caption: str) -> None:
    assert draw_boxes(plain(), caption=caption).width == 640


@given(st.text(max_size=60))
def test_arbitrary_text_can_be_drawn(caption: str) -> None:
    assert draw_boxes(plain(448, 20), caption=caption).width == 448


def test_amodal_box_gets_a_margin_and_is_drawn_whole() -> None:
    drawn = draw_boxes(plain(), box=Box(-100, 120, 300, 560))
    found = extent(drawn, BOX_COLOUR)
    assert found is not None
    assert found[2] - found[0] == pytest.approx(400, abs=16)
    assert found[3] - found[1] == pytest.approx(440, abs=16)
    # The picture moved right by what was added at the left, and the margin is not picture.
    assert drawn.getpixel((drawn.width - 1, 0)) == GREEN
    assert drawn.getpixel((2, 2)) == OUTSIDE


def test_box_far_outside_is_cut_at_half_a_picture() -> None:
    drawn = draw_boxes(plain(), box=Box(-1e12, -1e12, 1e12, 1e12), truth=Box(5000, 5000, 6000, 6000))
    assert drawn.width == 640 + 2 * 320
    assert extent(drawn, BOX_COLOUR) is not None  # the key
    assert extent(drawn.crop((0, 0, drawn.width, 480 + 2 * 320)), BOX_COLOUR) is None


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_other_modes(mode: str) -> None:
    assert draw_boxes(Image.new(mode, (500, 400)), box=Box(10, 10, 99, 99)).mode == "RGB"


coordinate = st.floats(-3000, 3000)


@given(st.integers(1, 900), st.integers(1, 900), coordinate, coordinate, st.floats(0.01, 3000), st.floats(0.01, 3000))
def test_any_box_on_any_picture(width: int, height: int, x: float, y: float, w: float, h: float) -> None:
    drawn = draw_boxes(plain(width, height), box=Box(x, y, x + w, y + h))
    longest = max(width, height) * max(1, -(-448 // max(width, height)))
    assert drawn.width >= width
    assert drawn.height >= height
    assert max(drawn.size) <= 2 * longest


def test_grounding_draws_itself() -> None:
    grounding = Grounding(box=Box(100, 120, 300, 360), failure=None, phrase="the cup", image=plain())
    drawn = grounding.draw(truth=Box(90, 120, 300, 360))
    assert extent(drawn, BOX_COLOUR) is not None
    assert extent(drawn, TRUTH_COLOUR) is not None
    assert drawn.height > 480
    for failure, caption in (
        (Failure.NO_BOX, "the cup (no box)"),
        (Failure.OUT_OF_RANGE, "the cup (no box, out of range)"),
    ):
        without = Grounding(box=None, failure=failure, phrase="the cup", image=plain())
        assert without.draw().tobytes() == draw_boxes(plain(), caption=caption).tobytes()


def test_boxes_of_several_captions_stand_on_one_copy() -> None:
    boxes = ((Box(100, 120, 300, 360), Box(20, 20, 60, 60)), (Box(400, 20, 500, 100),), ())
    answers = [
        NumberedBoxes(f"caption {n}", each, colour)
        for n, (each, colour) in enumerate(zip(boxes, ("#0060c0", "#00784f", "#9a4f00"), strict=True))
    ]
    picture = plain()
    drawn = draw_numbered(picture, answers)
    assert picture.getcolors() == [(640 * 480, GREEN)]
    assert drawn.width == 640
    assert (np.asarray(drawn)[120:360, 100:300] == GREEN).all()  # labels hide nothing of a box that has room above
    upper = drawn.crop((0, 0, 640, 480))
    for colour, (x1, y1, x2, y2) in (((0, 0x60, 0xC0), (20, 20, 300, 360)), ((0, 0x78, 0x4F), (400, 20, 500, 100))):
        found = extent(upper, colour)
        assert found is not None
        assert np.abs(np.array(found)[[0, 2, 3]] - (x1, x2, y2)).max() <= 8
        assert y1 - 40 < found[1] < y1 - 8  # the label is above
    assert extent(upper, (0x9A, 0x4F, 0)) is None
    assert extent(drawn, (0x9A, 0x4F, 0)) is not None  # listed below


def test_a_list_of_many_captions_does_not_outgrow_the_picture() -> None:
    many = [NumberedBoxes("word " * 100, (), "#0060c0")] * 20
    for size in ((1600, 1200), (4000, 1000)):
        assert draw_numbered(plain(*size), many).height <= 2.5 * size[1]
    assert draw_numbered(plain(), []).width == 640


def test_a_large_picture_is_made_to_fit() -> None:
    small, scale = fitted(plain(2000, 1000), 500)
    assert (small.size, scale) == ((500, 250), 0.25)
    assert fitted(plain(4000, 1), 500)[0].size == (500, 1)
    picture = plain()
    assert fitted(picture, 640) == (picture, 1.0)


def test_side_by_side() -> None:
    row = side_by_side([Image.new("RGB", (10, 20), "red"), Image.new("RGB", (30, 5), "blue")])
    assert row.size == (52, 20)
    assert [row.getpixel(xy) for xy in ((0, 19), (11, 0), (22, 0), (22, 19))] == [
        (255, 0, 0),
        (255, 255, 255),
        (0, 0, 255),
        (255, 255, 255),
    ]


def test_one_picture_stays_as_it_is() -> None:
    only = Image.new("RGB", (10, 20), "red")
    assert side_by_side([only]) is only
