"""Phrases asked: what is there while it is written, several models and votes, and what stops or breaks it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from egm.backends.retry import RetryPolicy
from egm.boxes import Box
from egm.errors import EgmError, PhraseError
from egm.grounder import Grounder
from egm.web.asking import BROKEN, Asking, LiveAnswers, ask, read_expect, read_phrases
from egm.web.models import OpenModel, open_models, split_server
from egm.web.pictures import WebPicture

from ..backends.faulty_server import FaultyServer, fail, say
from .conftest import Typing, box_text, open_model

Pair = tuple[Typing, OpenModel]


def ended(models: list[OpenModel], picture: WebPicture, asking: Asking) -> list[LiveAnswers]:
    *_, last = ask(models, picture, asking, pause=0.0)
    return last


def test_a_box_is_there_as_soon_as_it_is_written(typing: Pair, picture: WebPicture) -> None:
    backend, model = typing
    live = LiveAnswers(model, picture, Asking(("the cup",)), threading.Event())
    seen: list[tuple[str, list[Box]]] = []
    for _ in range(8):
        backend.let(1)
        backend.written()
        [written] = live.written()
        assert written.grounding is not None
        seen.append((written.grounding.text, [box for part in written.partial for box in part.answered]))
        if seen[-1][1]:
            break
    assert [boxes for _, boxes in seen[:-1]] == [[]] * (len(seen) - 1)
    assert seen[-1][1] == [Box(0, 0, 100, 50)]
    assert not live.done
    backend.let()
    assert ended([model], picture, Asking(("the cup",)))[0].done


def test_several_phrases_are_asked_and_whole_answers_come_with_their_cost(typing: Pair, picture: WebPicture) -> None:
    backend, model = typing
    backend.let()
    [live] = ended([model], picture, Asking(("the cup", "the jug")))
    first, second = live.written()
    assert [each.grounding.box for each in (first, second) if each.grounding] == [
        Box(0, 0, 100, 50),
        Box(100, 50, 200, 100),
    ]
    assert first.completion is not None
    assert (first.completion.reasoning_tokens, first.completion.seconds) == (4, 0.5)


def test_two_models_are_asked_at_once(typing: Pair, picture: WebPicture) -> None:
    backend, model = typing
    other = Typing({"the cup": [box_text(0, 0, 1000, 1000)]}, model="other")
    opened = open_model(other)
    asked = ask([model, opened], picture, Asking(("the cup",)), pause=0.0)
    other.let()
    first = next(asked)
    assert [each.model.name for each in first] == ["typing", "other"]
    for live in asked:
        if live[1].done:
            break
    assert (live[0].done, live[1].done) == (False, True)
    backend.let()
    *_, live = asked
    assert [each.written()[0].grounding.box.width for each in live] == [100.0, 200.0]  # type: ignore[union-attr]
    opened.close()


def test_votes_are_counted_and_their_boxes_seen(typing: Pair, picture: WebPicture) -> None:
    backend, model = typing
    live = LiveAnswers(model, picture, Asking(("a vote",), votes=3, seed=7), threading.Event())
    backend.let(6)
    for _ in range(6):
        backend.written()
    [written] = live.written()
    assert len(written.partial) == 1
    assert written.partial[0].box == Box(0, 0, 100, 50)
    backend.let()
    [live] = ended([model], picture, Asking(("a vote",), votes=3, seed=7))
    [written] = live.written()
    assert written.grounding is not None
    assert written.grounding.confidence == pytest.approx(2 / 3)
    assert (written.grounding.votes, written.grounding.tokens) == (3, 27)


def test_what_is_stopped_says_so_and_ends_the_model(typing: Pair, picture: WebPicture) -> None:
    backend, model = typing
    changed = threading.Event()
    live = LiveAnswers(model, picture, Asking(("the cup", "the jug")), changed)
    backend.let(1)
    backend.written()
    live.stop()
    backend.let()
    while not live.done:
        assert changed.wait(60)
        changed.clear()
    assert [each.error for each in live.written()] == ["stopped", "stopped"]
    assert live.written()[0].grounding is not None  # what was written stays to be read
    assert ended([model], picture, Asking(("the cup",)))[0].written()[0].error == ""


def test_closing_the_asking_stops_it(typing: Pair, picture: WebPicture) -> None:
    backend, model = typing
    asked = ask([model], picture, Asking(("the cup",)))
    [live] = next(asked)
    asked.close()
    backend.let()
    assert ended([model], picture, Asking(("the jug",)))[0].written()[0].error == ""
    assert live.written()[0].error == "stopped"


def test_a_model_that_breaks_says_no_more_than_that(
    typing: Pair, picture: WebPicture, caplog: pytest.LogCaptureFixture
) -> None:
    backend, model = typing
    backend.let()
    [live] = ended([model], picture, Asking(("bad",)))
    assert live.written()[0].error == BROKEN
    assert "ZeroDivisionError" in caplog.text  # for who runs it


def test_a_server_streams_and_a_broken_try_is_forgotten(picture: WebPicture) -> None:
    text = box_text(0, 0, 500, 500)
    pieces = [text[start : start + 7] for start in range(0, len(text), 7)]
    with FaultyServer({"the cup": [say(*pieces[:3], after="close"), say(*pieces)], "the jug": [fail(400)]}) as server:
        wait = RetryPolicy(retries=1, backoff=0.0)
        model = OpenModel("served", Grounder.connect(server.url, retry=wait))
        [live] = ended([model], picture, Asking(("the cup", "the jug")))
        model.close()
    good, bad = live.written()
    assert good.grounding is not None
    assert (good.grounding.box, good.grounding.text) == (Box(0, 0, 100, 50), text)
    assert "did not answer" in bad.error


def test_models_and_servers_are_opened_by_their_names() -> None:
    with FaultyServer({}, models=("a", "b")) as server, open_models(["egm-tiny"], [f"b@{server.url}"]) as opened:
        assert list(opened) == ["egm-tiny", f"b at {server.url}"]
        assert opened[f"b at {server.url}"].grounder.backend.model == "b"
    with pytest.raises(EgmError, match="given twice"), open_models(["egm-tiny", "egm-tiny"], []):
        pass


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("https://h/v1", (None, "https://h/v1")),
        ("org/name@http://h:1", ("org/name", "http://h:1")),
        ("http://user:pw@h", (None, "http://user:pw@h")),
        ("a@b@http://h", ("a@b", "http://h")),
    ],
)
def test_a_server_may_bear_a_models_name(text: str, parts: Any) -> None:
    assert split_server(text) == parts


def test_phrases_stand_one_a_line() -> None:
    assert read_phrases(" the cup \n\n the jug\n") == ("the cup", "the jug")
    for text, error in ((" \n", PhraseError), ("x" * 1001, PhraseError), ("a\n" * 21, EgmError)):
        with pytest.raises(error):
            read_phrases(text)
    with pytest.raises(EgmError, match="one, any, all"):
        read_expect("two")


@pytest.mark.parametrize("votes", [0, 17])
def test_votes_are_bounded(typing: Pair, picture: WebPicture, votes: int) -> None:
    with pytest.raises(EgmError, match="1 to 16"):
        next(ask([typing[1]], picture, Asking(("the cup",), votes=votes)))
