"""How a teacher and a blind check are asked: the mark, the styles, prices, and what a blind check may not see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from egm.boxes import Box
from egm.codecs import get_codec
from egm.errors import EgmError, RecipeError
from egm.rationales import load_styles, style_of
from egm.rationales.blind import without_box
from egm.rationales.mark import COLOURS, choose_colour, draw_mark, stroke_width
from egm.rationales.prices import Budget, Spending, load_prices, read_budget
from egm.rationales.styles import STYLES_FILE

SIZE = (320, 240)


@pytest.mark.parametrize("name", COLOURS)
def test_the_colour_of_a_mark_is_not_that_of_the_picture(name: str) -> None:
    picture = Image.new("RGB", SIZE, COLOURS[name])
    assert choose_colour(picture, Box(40, 40, 200, 160)) != name


def test_the_colour_shows_along_the_border_and_not_elsewhere() -> None:
    """A picture that is green but for the surroundings of the border, which are red."""
    pixels = np.full((240, 320, 3), COLOURS["green"], dtype=np.uint8)
    pixels[30:170, 30:210] = COLOURS["red"]
    picture = Image.fromarray(pixels)
    assert choose_colour(picture, Box(40, 40, 200, 160)) != "red"


@given(
    x=st.floats(-60, 330),
    y=st.floats(-60, 250),
    width=st.floats(1, 400),
    height=st.floats(1, 300),
    size=st.sampled_from([(320, 240), (9, 7), (1, 1), (2000, 40)]),
)
def test_a_mark_is_drawn_wherever_the_box_lies_and_leaves_what_it_holds(
    x: float, y: float, width: float, height: float, size: tuple[int, int]
) -> None:
    picture, box = Image.new("RGB", size, (128, 128, 128)), Box(x, y, x + width, y + height)
    colour = choose_colour(picture, box)
    marked = np.asarray(draw_mark(picture, box, colour))
    drawn = (marked == COLOURS[colour]).all(axis=2)
    assert drawn.any()
    assert np.asarray(picture).max() == 128  # not drawn on itself
    line = stroke_width(size)
    inside = drawn[
        max(0, round(box.y1)) + line : round(box.y2) - line, max(0, round(box.x1)) + line : round(box.x2) - line
    ]
    inner = inside[line:-line, line:-line] if min(inside.shape) > 2 * line else inside[:0]
    assert not inner.any()


def test_every_style_asks_for_the_phrase_and_the_box_and_leaves_no_place_open() -> None:
    for name, style in load_styles().items():
        if style.asks == "grounding":
            continue
        for colour in ("cyan", None):
            for amodal in (True, False):
                text = style.question("{the} cup", "[1, 2, 3, 4]", colour=colour, amodal=amodal)
                assert '"{the} cup"' in text
                assert "[1, 2, 3, 4]" in text
                assert ("cyan" in text) == (colour is not None)
                assert "{" not in text.replace("{the}", ""), name


def test_no_style_asks_for_a_language_that_its_filter_may_not_want() -> None:
    """The filter of languages drops what is not in the phrase's."""
    for name, style in load_styles().items():
        asked = style.question("左边的狗", "[1, 2, 3, 4]", colour="red", amodal=True)
        assert "English" not in asked, name
        assert style.asks == "grounding" or "the language that it was asked in" in " ".join(asked.split()), name


def test_control_tokens_in_a_phrase_stay_words() -> None:
    text = style_of("official").question("cup<|im_end|>", "[1, 2, 3, 4]", colour=None)
    assert "<|im_end|>" not in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1]", "must hold keys, not a list"),
        ("{}", "hold no style"),
        (
            "mine: {about: a, words: [9, 1], boxes: false, prompt: '{phrase} {box}'}",
            "most before fewest: exchange them",
        ),
        ("mine: {about: a, words: [1, 9], boxes: false, prompt: 'Why {phrase}?'}", "prompt has no place {box}"),
        ("mine: {about: a, words: [1, 9], boxes: false}", "asks explanation needs a prompt"),
        ("mine: {about: a, words: [1, 9], boxes: false, promt: x}", "unknown key 'mine.promt'|did you mean 'prompt'"),
        (
            "mine: {about: a, words: [1, 9], boxes: false, asks: grounding, prompt: '{phrase} {box}'}",
            "leave prompt out",
        ),
    ],
)
def test_a_style_that_cannot_be_asked_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(RecipeError, match=said):
        load_styles(tmp_path / "mine.yaml")


def test_a_copied_style_is_the_same_and_an_edited_one_is_not(tmp_path: Path) -> None:
    text = STYLES_FILE.read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text("# mine\n" + text)
    assert style_of("official", tmp_path / "mine.yaml").digest == style_of("official").digest
    (tmp_path / "mine.yaml").write_text(text.replace("In one or two sentences", "In a sentence"))
    assert style_of("official", tmp_path / "mine.yaml").digest != style_of("official").digest


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("200_000 tokens", Budget(200000)),
        ("5usd", Budget(5, "usd")),
        ("0.5 USD", Budget(0.5, "usd")),
        ("1token", Budget(1)),
    ],
)
def test_budgets(tmp_path: Path, text: str, budget: Budget) -> None:
    (tmp_path / "p.yaml").write_text("currency: usd\nmodels:\n  m: {input: 2, output: 8}\n")
    assert read_budget(text, load_prices(tmp_path / "p.yaml")) == budget


@pytest.mark.parametrize(
    "text", ["", "usd", "-1usd", "nan tokens", "1e9tokens", "5 usd 3", "0.0tokens", "1,5usd", "1,500tokens"]
)
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(EgmError, match=r"is no budget|pays for nothing"):
        read_budget(text, None)


def test_what_a_call_may_take_is_kept_free() -> None:
    spending = Spending(Budget(1000))
    assert spending.affords(1000)
    spending.reserved = 400
    assert not spending.affords(601)
    spending.add("m", 500, 50)
    assert (spending.affords(50), spending.affords(51)) == (True, False)
    assert spending.most("m", (10, 7)) == (500, 7)  # at least as much as an earlier call has read
    assert (spending.reserve(51), spending.reserve(50), spending.reserve(1)) == (False, True, False)
    spending.release(50)
    assert spending.reserve(1)


def test_money_is_by_the_million_tokens_of_each_model(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "currency: eur\nmodels:\n  m: {input: 2, output: 8}\n  own: {input: 0, output: 0}\n"
    )
    spending = Spending(None, load_prices(tmp_path / "p.yaml"))
    spending.add("m", 1_000_000, 500_000)
    spending.add("own", 1_000_000, 1_000_000)
    assert (spending.money, spending.tokens) == (6.0, 3_500_000)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("models:\n  m: {input: 1, output: 1}\n", "currency"),
        ("currency: dollars\nmodels:\n  m: {input: 1, output: 1}\n", "currency"),
        ("currency: usd\nmodels: {}\n", "models"),
        ("currency: usd\nmodels:\n  m: {input: -1, output: 1}\n", "models.m.input"),
        ("currency: usd\nmodels:\n  m: {input: .nan, output: 1}\n", "models.m.input"),
        ("currency: usd\nmodels:\n  m: {input: 1}\n", "models.m.output"),
        ("currency: usd\ncurrency: eur\n", "currency"),
        ("- usd\n", "must hold keys, not a list"),
    ],
)
def test_price_lists_with_faults_are_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "p.yaml").write_text(content)
    with pytest.raises(RecipeError, match=said):
        load_prices(tmp_path / "p.yaml")


def test_the_box_is_taken_out_of_a_rationale_but_where_it_introduces_a_candidate() -> None:
    codec, box = get_codec("qwen3_vl"), Box(50, 50, 90, 90)
    hide = [
        ("It is the red one [50, 50, 90, 90], surely.", "It is the red one, surely."),
        ("It is the red one, at (51,50,90,89).", "It is the red one."),
        ("A cup at [10, 10, 20, 20]; it is the other.", "A cup at [10, 10, 20, 20]; it is the other."),
        (
            "1 (10,10,20,20); 2 (50,50,90,90). So it is 2 (50,50,90,90).",
            "1 (10,10,20,20); 2 (50,50,90,90). So it is 2.",
        ),
    ]
    for text, left in hide:
        assert without_box(text, box, (1000, 1000), codec) == left
