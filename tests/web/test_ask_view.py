"""What the tab that asks shows: HTML of pictures and answers, files to take away, past answers."""

from __future__ import annotations

import gc
import io
import json
import re
import weakref
from typing import Any

import pytest
from PIL import Image, ImageColor

from egm.boxes import Box
from egm.errors import EgmError
from egm.types import Completion, Failure, Grounding
from egm.web.answers import COLOURS, ShownBox, show_answer
from egm.web.ask_view import AskDesk, Shown, remember
from egm.web.asking import BROKEN, Written
from egm.web.fragments import picture_view
from egm.web.models import OpenModel
from egm.web.pictures import WebPicture

from .conftest import Typing, form

Pair = tuple[Typing, OpenModel]


def ask(desk: AskDesk, picture: WebPicture, **values: Any) -> list[Shown]:
    return list(desk.ask("session", desk.uploads.keep(picture), form(**values)))


def test_a_sample_is_shown_with_its_phrases(desk: AskDesk) -> None:
    for title in desk.samples:
        name, sample, shown = desk.take_sample(title)
        assert sample.phrases
        assert f"egm/pictures/{name}" in shown.pictures[0]
        found = desk.uploads.get(name)
        assert found is not None
        assert Image.open(io.BytesIO(found.preview)).size == found.image.size
    with pytest.raises(EgmError, match="choose one of example"):
        desk.take_sample("another")


def test_an_answer_is_whole_with_boxes_words_and_files(desk: AskDesk, typing: Pair, picture: WebPicture) -> None:
    typing[0].let()
    last = ask(desk, picture, phrases="the cup\nnothing", expect="any")[-1]
    assert last.status.startswith("typing: 1 box, 0.50 s")
    assert 'width="100.0" height="50.0"' in last.pictures[0]
    assert (
        'aria-label="grey.png with a box of typing: phrase 1 at 0.0, 0.0, 100.0, 50.0 (mean token probability 90%)"'
        in last.pictures[0]
    )
    for part in (
        "nothing matches",
        "mean token probability 90%",
        "latency 0.50 s",
        "tokens 9, 4 of them reasoning",
        "votes 1",
    ):
        assert part in last.panels[0]
    assert "It is there." in last.panels[0]
    [name] = last.names
    kept = desk.answers.get(name)
    assert kept is not None
    rows = [json.loads(line) for line in kept.lines().splitlines()]
    assert [(row["image"], row["model"], row["phrase"], row["box"]) for row in rows] == [
        ("grey.png", "typing", "the cup", [0.0, 0.0, 100.0, 50.0]),
        ("grey.png", "typing", "nothing", None),
    ]
    assert "confidence" not in "".join((*last.pictures, *last.panels))  # how probable tokens are is not how right it is


def test_of_several_votes_those_that_agree_are_told(desk: AskDesk, typing: Pair, picture: WebPicture) -> None:
    typing[0].let()
    last = ask(desk, picture, phrases="a vote", votes=3)[-1]
    for part in ("votes that agree 67%</span>", "50.0 (votes that agree 67%)"):
        assert part in last.panels[0]
    assert "token probability" not in last.panels[0]


def test_a_picture_is_taken_away_with_all_its_boxes_on_one_copy(
    desk: AskDesk, typing: Pair, picture: WebPicture
) -> None:
    typing[0].let()
    [name] = ask(desk, picture, phrases="the cup\nthe jug\nnothing", expect="any")[-1].names
    kept = desk.answers.get(name)
    assert kept is not None
    drawn = Image.open(io.BytesIO(kept.drawn(picture)))
    scale = 3  # of small pictures, as `draw_boxes` enlarges them
    margin = drawn.width - scale * picture.image.width
    assert 0 <= margin < 20  # for the lines of the jug, which ends in the corner
    assert drawn.height < 2 * scale * picture.image.height  # and not a panel a phrase
    shown = {colour for _, colour in drawn.getcolors(1 << 24) or ()}
    assert {ImageColor.getrgb(each) for each in COLOURS[:3]} <= shown
    small = Image.open(io.BytesIO(kept.drawn(WebPicture("x", Image.new("RGB", (9000, 20)), b""))))
    assert small.width < 4200


def test_no_picture_is_kept_but_in_its_one_place(desk: AskDesk, typing: Pair) -> None:
    typing[0].let()
    image = Image.new("RGB", (200, 100))
    name = desk.uploads.keep(WebPicture("a.png", image, image))
    last = [*desk.ask("session", name, form(phrases="the cup\nthe jug"))][-1]
    held = weakref.ref(image)
    del image
    typing[0].asked.clear()
    gc.collect()
    assert held() is not None
    assert desk.recall(last.names)[0] == name
    stream = io.BytesIO()
    Image.new("RGB", (40, 20)).save(stream, "PNG")
    for _ in range(32):
        desk.uploads.add(stream.getvalue(), "b.png")
    gc.collect()
    assert held() is None
    with pytest.raises(EgmError, match="the picture of that answer is no longer kept"):
        desk.recall(last.names)
    kept = desk.answers.get(last.names[0])
    assert kept is not None
    assert '"image": "a.png"' in kept.lines()  # which takes no picture


def test_a_new_asking_of_a_session_stops_the_one_before(desk: AskDesk, typing: Pair, picture: WebPicture) -> None:
    name = desk.uploads.keep(picture)
    first, other = desk.ask("session", name, form()), desk.ask("another", name, form())
    next(first)
    next(other)
    second = desk.ask("session", name, form(phrases="the jug"))
    next(second)
    typing[0].let()
    assert [*first][-1].status == "typing: stopped"
    assert [*other][-1].status.startswith("typing: 1 box")


def test_the_end_of_an_asking_forgets_no_other(desk: AskDesk, typing: Pair, picture: WebPicture) -> None:
    name = desk.uploads.keep(picture)
    first, second = (desk.ask("session", name, form(phrases=phrase)) for phrase in ("the cup", "the jug"))
    next(first)
    next(second)
    first.close()  # type: ignore[attr-defined]
    desk.stop("session")
    typing[0].let()
    assert [*second][-1].status == "typing: stopped"


def test_what_comes_before_the_end_is_shown_as_it_is(desk: AskDesk, typing: Pair, picture: WebPicture) -> None:
    backend = typing[0]
    views = desk.ask("session", desk.uploads.keep(picture), form())
    assert "waits for its turn" in next(views).panels[0]
    backend.let(2)
    seen = next(view for view in views if "thinks" in view.panels[0])
    assert seen.names == ()
    assert seen.status == "asking typing"
    backend.let(4)
    open_ = next(view for view in views if "writes" in view.panels[0])
    assert 'class="box open"' in open_.pictures[0]
    backend.let()
    assert 'class="box"' in [*views][-1].pictures[0]


def test_stop_ends_what_the_session_asks(desk: AskDesk, typing: Pair, picture: WebPicture) -> None:
    views = desk.ask("session", desk.uploads.keep(picture), form())
    typing[0].let(1)
    next(view for view in views if "thinks" in view.panels[0])
    desk.stop("another")
    desk.stop("session")
    typing[0].let()
    last = [*views][-1]
    assert last.status == "typing: stopped"
    assert last.names == ()
    assert "It is there." in last.panels[0]


def test_words_are_words_whatever_they_hold(desk: AskDesk, typing: Pair, picture: WebPicture) -> None:
    typing[0].let()
    odd = WebPicture('"><img src=x onerror=alert(1)>.png', picture.image, picture.source)
    last = ask(desk, odd, phrases="odd <i>x</i>")[-1]
    for part in (*last.pictures, *last.panels):
        assert "<script" not in part
        assert "<img" not in part
        assert "<i>x" not in part
    assert "&lt;script&gt;" in last.panels[0]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"phrases": " "}, "the phrase is empty"),
        ({"phrases": "a\n" * 30}, "30 phrases are over the limit"),
        ({"expect": "two"}, "unknown number of boxes"),
        ({"model": "gpt"}, "there is no model 'gpt' here"),
        ({"model": ["x"]}, "there is no model"),
        ({"votes": 99}, "99 votes are out of range"),
        ({"votes": "x"}, "votes must be a whole number"),
        ({"seed": -1}, "the seed must be a whole number"),
        ({"seed": 0.5}, "the seed must be a whole number"),
        ({"phrases": None}, "no box"),
    ],
)
def test_bad_input_is_said_in_words(desk: AskDesk, typing: Pair, picture: WebPicture, values: Any, said: str) -> None:
    typing[0].let()
    if values == {"phrases": None}:
        values, said = {"phrases": "bad"}, f"typing: {BROKEN}"
    last = ask(desk, picture, **values)[-1]
    assert said in last.status
    assert "Traceback" not in last.status
    assert last.names == ()


def test_a_picture_that_is_gone_is_said_in_words(desk: AskDesk) -> None:
    [shown] = desk.ask("session", "nobody's", form())
    assert "no longer kept" in shown.status


def test_past_answers_come_back_with_what_was_asked(desk: AskDesk, typing: Pair, picture: WebPicture) -> None:
    typing[0].let()
    last = ask(desk, picture, phrases="the jug\nthe cup", amodal=True)[-1]
    past = remember(remember([], last), ask(desk, picture)[-1])
    assert [title for title, _ in past] == ["the cup: grey.png, typing", "the jug (and 1 more): grey.png, typing"]
    kept, asking, shown = desk.recall(past[1][1])
    assert (asking.phrases, asking.amodal, shown.models) == (("the jug", "the cup"), True, ("typing",))
    assert shown.panels == last.panels
    strip = re.compile(r"egm/pictures/[\w-]+")
    assert strip.sub("", shown.pictures[0]) == strip.sub("", last.pictures[0])
    assert desk.uploads.get(kept) is not None
    for gone in ((), ("nobody's",), (*past[1][1], "nobody's")):
        with pytest.raises(EgmError, match="no longer kept"):
            desk.recall(gone)


def test_an_amodal_box_widens_the_view(picture: WebPicture) -> None:
    view = picture_view("x", picture, [ShownBox(1, Box(-20, 10, 230, 400))], model="m")
    assert 'viewBox="-20 0 250 200"' in view.replace(".0", "")  # no further than half the longer side


@pytest.mark.parametrize("failure", list(Failure))
def test_every_failure_has_words(failure: Failure) -> None:
    grounding = Grounding(None, failure, text="hm", phrase="x")
    shown = show_answer(1, Written("x", grounding, completion=Completion("hm")), votes=1)
    assert shown.state.startswith("no box: ")
    assert shown.is_good is False
    assert not any("token probability" in name for name, _ in shown.facts)
