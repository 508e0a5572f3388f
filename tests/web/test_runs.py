"""Journals looked through: filters, pages, pairs of two runs, and what is no run here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from egm.boxes import Box, iou
from egm.errors import DataError
from egm.journal import Header, Journal, Record
from egm.report.compare import compare
from egm.web.journal_view import NO_RUN, JournalForm, journal_view, opened_view, tables_view
from egm.web.runs import RecordFilter, RunShelf, page_of

TRUTH = (10.0, 10.0, 60.0, 60.0)
BESIDE = (100.0, 60.0, 150.0, 90.0)
SPLITS = {"a/val": 20, "a/test": 10}


def write_run(folder: Path, model: str, misses: set[int], *, splits: dict[str, int] = SPLITS) -> Path:
    """A run whose every question of a number in `misses` is missed; the tenth of each split is a complex phrase."""
    facts: dict[str, Any] = {split: {"n": n, "digest": "0" * 16} for split, n in splits.items()}
    header = Header(
        model=model,
        codec={"name": "qwen3_vl"},
        prompt={"style": "qwen3", "example": "x"},
        settings={"seed": 0},
        datasets=facts,
    )
    number = 0
    with Journal(folder, header) as journal:
        for split, n in splits.items():
            for place in range(n):
                box = BESIDE if number in misses else TRUTH
                phrase = "the cup left of the jug that is behind the man" if place == 9 else f"cup {place}"
                journal.append(
                    Record(
                        id=f"{split}/{place}",
                        image=f"p{place % 3}.png",
                        phrase=phrase,
                        truth=TRUTH,
                        size=(200, 100),
                        split=split,
                        text="<b>Thinks</b> of it.\n</think>\n\nhere",
                        box=box,
                        iou=iou(Box(*box), Box(*TRUTH)),
                        completion_tokens=5,
                    )
                )
                number += 1
    return folder


@pytest.fixture
def shelf(tmp_path: Path) -> RunShelf:
    write_run(tmp_path / "runs" / "one", "one", {0, 1, 2, 25})
    write_run(tmp_path / "runs" / "two", "two", {2, 3})
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(2):
        Image.new("RGB", (200, 100), (0, 90 * number, 0)).save(pictures / f"p{number}.png")
    return RunShelf([tmp_path / "runs"], pictures)


def names(shelf: RunShelf) -> tuple[str, str]:
    one, two = shelf.names()
    return one, two


def test_runs_are_found_in_a_folder_of_them(shelf: RunShelf, tmp_path: Path) -> None:
    assert shelf.names() == [str(tmp_path / "runs" / "one"), str(tmp_path / "runs" / "two")]
    write_run(tmp_path / "runs" / "three", "three", set())
    assert len(shelf.names()) == 3  # one that began meanwhile
    assert RunShelf([tmp_path / "runs" / "one" / "journal.jsonl"]).names() == [str(tmp_path / "runs" / "one")]
    with pytest.raises(DataError, match="there is no journal at"):
        RunShelf([tmp_path / "pictures"])


def test_no_file_is_opened_but_those_that_were_named(shelf: RunShelf, tmp_path: Path) -> None:
    elsewhere = write_run(tmp_path / "elsewhere", "x", set())
    for name in (str(elsewhere), "../elsewhere", f"{names(shelf)[0]}/../../elsewhere", "/etc/passwd", ""):
        with pytest.raises(DataError, match="there is no run"):
            shelf.open(name)


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (RecordFilter(), 30),
        (RecordFilter(outcomes=frozenset(["hit"])), 26),
        (RecordFilter(outcomes=frozenset()), 0),
        (RecordFilter(split="a/test"), 10),
        (RecordFilter(phrase="complex"), 2),
        (RecordFilter(phrase="simple"), 28),
        (RecordFilter(words="CUP 1"), 23),  # also where 1 is in the id
        (RecordFilter(words="thinks jug"), 2),
        (RecordFilter(outcomes=frozenset(["hit"]), split="a/val", words="cup"), 17),
    ],
)
def test_filters(shelf: RunShelf, wanted: RecordFilter, count: int) -> None:
    opened = shelf.open(names(shelf)[0])
    places = opened.matching(wanted)
    slow = [
        place
        for place, item in enumerate(opened.items)
        if (wanted.outcomes is None or item.outcome in wanted.outcomes)
        and wanted.split in ("", item.record.split)
        and wanted.phrase in ("", "complex" if item.is_complex else "simple")
        and all(
            word in f"{item.record.phrase} {item.record.text} {item.record.id}".lower()
            for word in wanted.words.lower().split()
        )
    ]
    assert places == slow
    if "1" not in wanted.words:
        assert len(places) == count


def test_pairs_of_two_runs(shelf: RunShelf) -> None:
    first, second = map(shelf.open, names(shelf))
    counts = {
        pair: len(first.matching(RecordFilter(pair=pair), second)) for pair in ("gained", "lost", "both", "neither")
    }
    result = compare(first.run.records, second.run.records).mcnemar
    assert counts == {"gained": 3, "lost": 1, "both": 25, "neither": 1}
    assert [result.only_b, result.only_a, result.both, result.neither] == list(counts.values())
    view, choices = opened_view(shelf, *names(shelf))
    assert (choices.is_pair, choices.splits) == (True, ["a/val", "a/test"])
    tables = tables_view(shelf, *names(shelf))
    assert "two minus one" in tables
    assert "exact McNemar" in tables
    gained = journal_view(shelf, JournalForm(*names(shelf), ("hit", "other", "wrong_object"), pair="gained"), 1)
    assert "3 of 30 questions pass" in gained.status
    assert gained.cards.count("<article") == 6
    assert view.cards.count("<article") == 24


def test_pages(shelf: RunShelf) -> None:
    form = JournalForm(names(shelf)[0], outcomes=("hit",))
    shown = [journal_view(shelf, form, number) for number in (0, 1, 2, 3, 99)]
    assert [view.number for view in shown] == [1, 1, 2, 3, 3]
    assert [view.cards.count("<article") for view in shown] == [12, 12, 12, 2, 2]
    assert page_of([], 5) == ([], 1, 1)


def test_a_card_shows_picture_and_words_and_runs_nothing(shelf: RunShelf) -> None:
    view, choices = opened_view(shelf, names(shelf)[0], NO_RUN)
    assert choices.outcomes[0] == ("hit (26)", "hit")
    assert view.cards.count('src="data:image/webp;base64,') == 8  # the third picture is not there
    assert view.cards.count("without its picture") == 4
    assert "p2.png" in re.sub(r"data:[^\"]+", "", view.cards)  # and why is said, once a picture
    assert "&lt;b&gt;Thinks&lt;/b&gt;" in view.cards
    assert 'alt="cup 0: the true box and the model’s"' in view.cards


def test_what_is_wrong_is_said_in_words(shelf: RunShelf, tmp_path: Path) -> None:
    one, two = names(shelf)
    assert "there is no run" in opened_view(shelf, "x", NO_RUN)[0].status
    assert "choose two" in opened_view(shelf, one, one)[0].status
    assert "unknown choice" in journal_view(shelf, JournalForm(one, two, ("hit",), pair="x"), 1).status
    other = write_run(tmp_path / "runs" / "other", "other", set(), splits={"b/val": 3})
    assert "share no item" in tables_view(shelf, one, str(other))
    (tmp_path / "runs" / "two" / "journal.jsonl").write_text('{"journal": 99}\n{}\n')
    assert "is not the header of a journal" in opened_view(shelf, two, NO_RUN)[0].status


def test_a_journal_that_has_grown_is_read_anew(shelf: RunShelf, tmp_path: Path) -> None:
    name = names(shelf)[0]
    before = shelf.open(name)
    assert shelf.open(name) is before
    path = tmp_path / "runs" / "one" / "journal.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert len(shelf.open(name).items) == 29
    assert "incomplete: 1 of 30 samples are missing" in tables_view(shelf, name, NO_RUN)
