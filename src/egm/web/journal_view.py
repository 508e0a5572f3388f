"""What the tab of journals shows, as values that gradio puts into the page; it knows nothing of gradio itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from egm.errors import EgmError
from egm.web.asking import BROKEN
from egm.web.fragments import fragment
from egm.web.runs import OUTCOME_TITLES, PAIRS, OpenRun, RecordFilter, RunShelf, page_of, title_counts

log = logging.getLogger(__name__)

NO_RUN: Final = "none"
"""What is chosen where a run is compared with no other."""
_LONGEST: Final = 500


@dataclass(frozen=True, slots=True)
class JournalView:
    """What is shown.

    Attributes:
        status: How many answers pass, and which are shown, or what is wrong; HTML.
        cards: The answers; HTML.
        number: The page's number, from 1.
    """

    status: str
    cards: str = ""
    number: int = 1


@dataclass(frozen=True, slots=True)
class JournalForm:
    """What was filled in.

    Attributes:
        name: The run.
        against: The run that it is compared with, or `NO_RUN`.
        outcomes: Keys of outcomes.
        phrase: "simple" or "complex", or nothing.
        split: A split, or nothing.
        pair: A key of `egm.web.runs.PAIRS`.
        words: Words to look for.
    """

    name: str
    against: str = NO_RUN
    outcomes: Sequence[str] = ()
    phrase: str | None = ""
    split: str | None = ""
    pair: str | None = ""
    words: str | None = ""


@dataclass(frozen=True, slots=True)
class FilterChoices:
    """What may be filtered by.

    Attributes:
        outcomes: Titles and keys of outcomes that there are.
        splits: Splits.
        is_pair: Whether two runs are compared.
    """

    outcomes: Sequence[tuple[str, str]] = ()
    splits: Sequence[str] = ()
    is_pair: bool = False


def opened_view(shelf: RunShelf, name: str, against: str, words: str = "") -> tuple[JournalView, FilterChoices]:
    """Open one run, or two to compare, and show the first page of all answers; what is wrong is said in the status.

    Args:
        shelf: The runs.
        name: The run.
        against: The run that it is compared with, or `NO_RUN`.
        words: Words to look for, which stay where another run is opened.
    """
    try:
        first, second = _runs(shelf, name, against)
        choices = FilterChoices(title_counts(first.outcomes), first.splits, second is not None)
        return _view(shelf, first, second, RecordFilter(words=(words or "")[:_LONGEST]), 1), choices
    except EgmError as error:
        return JournalView(_said(str(error))), FilterChoices()
    except Exception:
        log.exception("a journal was not opened")
        return JournalView(_said(BROKEN)), FilterChoices()


def tables_view(shelf: RunShelf, name: str, against: str) -> str:
    """The tables of one run, or of two that are compared; or what is wrong, in words."""
    try:
        return _tables(shelf, *_runs(shelf, name, against))
    except EgmError as error:
        return _said(str(error))
    except Exception:
        log.exception("no tables were made")
        return _said(BROKEN)


def journal_view(shelf: RunShelf, form: JournalForm, number: int) -> JournalView:
    """Show a page of the answers that pass, or say what is wrong.

    Args:
        shelf: The runs.
        form: What was filled in.
        number: The page's number, from 1; one beyond the last is the last.
    """
    try:
        first, second = _runs(shelf, form.name, form.against)
        wanted = RecordFilter(
            frozenset(form.outcomes),
            form.phrase or "",
            form.split or "",
            (form.words or "")[:_LONGEST],
            form.pair or "",
        )
        return _view(shelf, first, second, wanted, number)
    except EgmError as error:
        return JournalView(_said(str(error)))
    except Exception:
        log.exception("a journal was not shown")
        return JournalView(_said(BROKEN))


def _runs(shelf: RunShelf, name: str, against: str) -> tuple[OpenRun, OpenRun | None]:
    if against == name:
        raise EgmError("a run is compared with another one: choose two")
    return shelf.open(name), None if against in ("", None, NO_RUN) else shelf.open(against)


def _view(shelf: RunShelf, first: OpenRun, second: OpenRun | None, wanted: RecordFilter, number: int) -> JournalView:
    if wanted.pair not in PAIRS:
        raise EgmError(f"unknown choice {wanted.pair[:40]!r}")
    places = first.matching(wanted, second)
    shown, number, count = page_of(places, number)
    of = len(first.items) if second is None else sum(key in second.places for key in first.places)
    names = _names(first, second)
    rows = shelf.cards(first, shown, second)
    cards = fragment(
        "cards.html.j2",
        rows=rows,
        whys=dict.fromkeys(card.why for row in rows for card in row if card.why),
        names=names,
        titles=OUTCOME_TITLES,
        runs=[first.run.name],
        doubtful=(),
    )
    said = (
        f"{len(places):,} of {of:,} {'answers' if second is None else 'questions'} pass; page {number:,} of {count:,}"
    )
    return JournalView(_said(said), cards, number)


def _tables(shelf: RunShelf, first: OpenRun, second: OpenRun | None) -> str:
    if second is None:
        return fragment("tables.html.j2", remarks=first.run.remarks, grids=first.grids)
    names = _names(first, second)
    remarks = [
        f"{name}: {remark}" for name, each in zip(names, (first, second), strict=True) for remark in each.run.remarks
    ]
    grids = shelf.comparison_tables(first, second, (names[0], names[1]))
    return fragment("tables.html.j2", remarks=remarks, grids=grids)


def _names(first: OpenRun, second: OpenRun | None) -> list[str]:
    names = [first.run.name] if second is None else [first.run.name, second.run.name]
    return names if len(set(names)) == len(names) else [f"{name} ({n})" for n, name in enumerate(names, start=1)]


def _said(text: str) -> str:
    return fragment("status.html.j2", said=text)
