"""Journals as the page looks through them: opened once, filtered in memory, shown a few answers at a time."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, TypeVar

from egm.collector import paused_collector
from egm.errors import DataError, EgmError
from egm.journal import JOURNAL_NAME, is_journal
from egm.report.compare import Comparison, compare
from egm.report.gallery import Item, items_of, overlay, texts_of
from egm.report.grid import Grid
from egm.report.labels import MISS_TITLES
from egm.report.run_tables import card_grid, cost_grid, sets_grid
from egm.report.runs import Run, load_runs
from egm.report.tables import comparison_grids
from egm.terminal import printable

PAGE_ITEMS: Final = 12
"""Answers shown at a time."""
OUTCOME_TITLES: Final = {"hit": "hit", **{str(miss): title for miss, title in MISS_TITLES.items()}}
"""What may become of an answer, in words."""
PAIRS: Final = {
    "": "all",
    "gained": "only the second right",
    "lost": "only the first right",
    "both": "both right",
    "neither": "neither right",
}
"""What may become of a question that two runs answer: by the second run's gain."""
_OPEN_RUNS: Final = 4
_COMPARED: Final = 4

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """Which answers to show; what is empty lets all through.

    Attributes:
        outcomes: Keys of `OUTCOME_TITLES`; of them all that are not there are left out.
        phrase: "simple" or "complex".
        split: A split.
        words: Words that phrase, text or id must hold, all of them.
        pair: A key of `PAIRS`, where two runs are compared.
    """

    outcomes: frozenset[str] | None = None
    phrase: str = ""
    split: str = ""
    words: str = ""
    pair: str = ""


class OpenRun:
    """A run whose journal is read.

    Args:
        run: The run.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        with paused_collector():
            self.items: Sequence[Item] = items_of(0, run)
        self.places = {item.record.key: place for place, item in enumerate(self.items)}

    @property
    def outcomes(self) -> Counter[str]:
        """How often each outcome is."""
        return Counter(item.outcome for item in self.items)

    @property
    def splits(self) -> list[str]:
        """Its splits."""
        return list(self.run.split_sizes)

    @cached_property
    def is_complex(self) -> list[bool]:
        """Of each answer, whether its phrase is complex."""
        return [item.is_complex for item in self.items]

    @cached_property
    def texts(self) -> list[str]:
        """What of each answer is searched for words."""
        return [f"{r.phrase}\n{r.text}\n{r.id}".lower() for r in (item.record for item in self.items)]

    @cached_property
    def grids(self) -> list[Grid]:
        """Its tables."""
        found = [card_grid([self.run]), cost_grid([self.run]), sets_grid([self.run])]
        return [grid for grid in found if grid is not None]

    def matching(self, wanted: RecordFilter, other: OpenRun | None = None) -> list[int]:
        """The places of the answers that pass.

        Args:
            wanted: The filter.
            other: The run that this one is compared with; then only what both answer is looked at.
        """
        words = wanted.words.lower().split()
        complex_ = {"simple": False, "complex": True}.get(wanted.phrase)
        found: list[int] = []
        for place, item in enumerate(self.items):
            if wanted.outcomes is not None and item.outcome not in wanted.outcomes:
                continue
            if wanted.split and item.record.split != wanted.split:
                continue
            if complex_ is not None and self.is_complex[place] is not complex_:
                continue
            if words and not all(word in self.texts[place] for word in words):
                continue
            if other is not None:
                theirs = other.places.get(item.record.key)
                if theirs is None or not _in_pair(wanted.pair, item, other.items[theirs]):
                    continue
            found.append(place)
        return found


def _in_pair(pair: str, first: Item, second: Item) -> bool:
    if not pair:
        return True
    right = first.outcome == "hit", second.outcome == "hit"
    return right == {"gained": (False, True), "lost": (True, False), "both": (True, True)}.get(pair, (False, False))


@dataclass(frozen=True, slots=True)
class ShownRecord:
    """An answer as it is shown.

    Attributes:
        item: The answer.
        reasoning: What was thought, printable.
        answer: What was answered, printable.
        picture: The picture with boxes, as a `data:` URL; empty where it is not at hand.
        why: Why it is not.
    """

    item: Item
    reasoning: str
    answer: str
    picture: str
    why: str = ""


class RunShelf:
    """The runs that may be looked at: those that were named when the page was started, and no others.

    Args:
        places: Run folders, journals, or folders of run folders.
        images: Folder that the pictures' names in the journals are relative to. Those of SynthRef are drawn again.

    Raises:
        DataError: If there is no journal at one of the places.
    """

    def __init__(self, places: Sequence[Path] = (), images: Path | None = None) -> None:
        self._images, self._folders = images, list(places)
        self._open: OrderedDict[str, tuple[tuple[int, int], OpenRun]] = OrderedDict()
        self._compared: OrderedDict[tuple[int, int], tuple[Comparison, OpenRun, OpenRun]] = OrderedDict()
        self._lock, self._comparing = threading.Lock(), threading.Lock()
        for place in places:
            if not _journals_in(place):
                raise DataError(f"there is no journal at {str(place)!r}: give a folder that `egm eval` wrote (--run)")

    def names(self) -> list[str]:
        """The runs by the names that they are opened by; looked for anew, as a run may have begun."""
        return list(self._found())

    def open(self, name: str) -> OpenRun:
        """Open a run; one that has not changed since is opened once.

        Raises:
            DataError: If there is no run of that name here, or its journal is damaged.
        """
        path = self._found().get(name)
        if path is None:
            raise DataError(f"there is no run {str(name)[:200]!r} here: name it with --run when egm web is started")
        with self._lock:  # reading one takes all of a processor anyway
            facts = path.stat()
            stamp = facts.st_mtime_ns, facts.st_size
            known = self._open.get(name)
            if known is None or known[0] != stamp:
                [run] = load_runs([path], allow_partial=True)
                known = stamp, OpenRun(run)
            _keep(self._open, name, known, _OPEN_RUNS)
            return known[1]

    def compare(self, first: OpenRun, second: OpenRun) -> Comparison:
        """Compare two runs, the second against the first.

        Raises:
            DataError: If they are not about the same samples.
        """
        key = id(first), id(second)
        with self._comparing:
            if (known := self._compared.get(key)) is None:
                known = compare(first.run.records, second.run.records), first, second  # which keeps the ids their own
            _keep(self._compared, key, known, _COMPARED)
            return known[0]

    def comparison_tables(self, first: OpenRun, second: OpenRun, names: tuple[str, str]) -> list[Grid]:
        """The tables of a comparison; arguments and errors as of `compare`."""
        return comparison_grids(self.compare(first, second), names)

    def cards(self, opened: OpenRun, places: Sequence[int], other: OpenRun | None = None) -> list[list[ShownRecord]]:
        """Show answers, those of two runs to one question side by side."""
        shown = []
        for place in places:
            item = opened.items[place]
            row = [self._card(opened, item)]
            if other is not None:
                row.append(self._card(other, other.items[other.places[item.record.key]]))
            shown.append(row)
        return shown

    def _card(self, opened: OpenRun, item: Item) -> ShownRecord:
        picture = why = ""
        try:
            picture = overlay(item.record, opened.run, self._images)
        except EgmError as error:
            why = printable(str(error))
        return ShownRecord(item, *texts_of(item.record, opened.run), picture, why)

    def _found(self) -> dict[str, Path]:
        found = [path for place in self._folders for path in _journals_in(place)]
        return {printable(str(path.parent if path.name == JOURNAL_NAME else path)): path for path in found}


def page_of(places: Sequence[int], number: int) -> tuple[list[int], int, int]:
    """Take one page of places.

    Returns:
        The places, the number of the page, counted from 1 and within bounds, and how many pages there are.

    Example:
        >>> page_of(range(30), 9)
        ([24, 25, 26, 27, 28, 29], 3, 3)
    """
    count = max(1, -(-len(places) // PAGE_ITEMS))
    number = min(max(1, number), count)
    return list(places[(number - 1) * PAGE_ITEMS : number * PAGE_ITEMS]), number, count


def _journals_in(place: Path) -> list[Path]:
    """The journals at a place: its own, or those of the folders in it."""
    if place.is_file():
        return [place] if is_journal(place) else []
    if (place / JOURNAL_NAME).is_file():
        return [place / JOURNAL_NAME]
    return sorted(place.glob(f"*/{JOURNAL_NAME}")) if place.is_dir() else []


def _keep(held: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    held[key] = value
    held.move_to_end(key)
    while len(held) > most:
        held.popitem(last=False)


def title_counts(counts: Mapping[str, int], say: Callable[[int], str] = "{:,}".format) -> list[tuple[str, str]]:
    """Titles of outcomes with how often they are, and their keys, for those that are at all."""
    return [(f"{title} ({say(counts[key])})", key) for key, title in OUTCOME_TITLES.items() if counts.get(key)]
