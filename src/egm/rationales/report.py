"""What became of a run, from its journal alone: counts by filter, and a page of tries, kept and dropped."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from egm.boxes import Box
from egm.errors import DataError, ImageError
from egm.images import load_image
from egm.pages.page import overlay_url, readable, render
from egm.progress import progress_task, track
from egm.rationales.blind import NAME, REASON
from egm.rationales.filters import filter_reasons
from egm.rationales.ledger import Call, convention, read_ledger
from egm.rationales.mark import COLOURS, draw_mark
from egm.rationales.tally import FAILED
from egm.rationales.teachers import rationale_of
from egm.report.gallery import draw_evenly, drawn_again

if TYPE_CHECKING:
    from PIL.Image import Image

PAGE_ROWS: Final = 200
"""Most tries on a page, unless another number is asked for."""
KEPT: Final = "kept"
"""What a try is called that nothing spoke against."""


@dataclass(frozen=True, slots=True)
class DecidedTry:
    """A try, and what became of it.

    Attributes:
        id: Id of the sample.
        attempt: Which of its tries, counted from 0.
        phrase: What was explained.
        image: Which picture, as journals name it.
        size: Width and height of it in pixels.
        truth: The true box in pixels.
        text: All that the teacher wrote.
        colour: Colour of the mark, if there was one.
        against: Why it was dropped, by filter.
        box: The box of the blind check in pixels, if there was one.
        iou: Its IoU with the true one, where there was a blind check.
    """

    id: str
    attempt: int
    phrase: str
    image: str
    size: tuple[int, int] | None
    truth: tuple[float, float, float, float]
    text: str
    colour: str | None
    against: Mapping[str, str]
    box: tuple[float, float, float, float] | None
    iou: float | None

    @property
    def outcome(self) -> str:
        """`KEPT`, or the first filter that spoke against it."""
        return next(iter(self.against), KEPT)


@dataclass(frozen=True, slots=True)
class RationaleReport:
    """A run as its journal tells it.

    Attributes:
        header: Its first line.
        tries: Every try that was decided on, in order.
        unasked: Why samples were dropped without being asked, by filter: of how many.
        failed: Samples whose last call failed.
        usual_error: What most of these failed with; nothing where none did.
    """

    header: Mapping[str, Any]
    tries: Sequence[DecidedTry]
    unasked: Counter[str]
    failed: int
    usual_error: str = ""

    def counts(self) -> dict[str, int]:
        """Tries that each filter spoke against, in the order of the run's filters; several may speak against one."""
        found = self.unasked + Counter(name for each in self.tries for name in each.against)
        names = [*self.header["identity"]["filters"], NAME]
        return {name: found[name] for name in dict.fromkeys([*names, *found]) if name != NAME or self._is_blind}

    @property
    def _is_blind(self) -> bool:
        return self.header["identity"].get("blind") is not None

    @property
    def kept(self) -> int:
        """Samples that have a rationale."""
        return sum(not each.against for each in self.tries)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, JSON-ready."""
        identity = self.header["identity"]
        samples = len({each.id for each in self.tries})
        return {
            "dataset": identity["data"]["name"],
            "samples": identity["data"]["n"],
            "teacher": identity["teacher"]["model"],
            "style": identity["style"]["name"],
            "tried": samples,
            "tries": len(self.tries),
            KEPT: self.kept,
            FAILED: self.failed,
            "filters": self.counts(),
        }


def reasons() -> dict[str, str]:
    """What is wrong with what each filter drops, the blind check among them."""
    return {**filter_reasons(), NAME: REASON}


def read_report(path: str | os.PathLike[str]) -> RationaleReport:
    """Read a run.

    Args:
        path: Its folder.

    Raises:
        DataError: If there is none, or its journal is damaged.
    """
    with progress_task(f"reading {path}"):
        header, lines = read_ledger(path)
    asked: dict[str, Call] = {}
    failed: dict[str, str] = {}
    tries, unasked = [], Counter[str]()
    for line in lines:
        if isinstance(line, Call):
            failed.pop(line.id, None)
            if line.error is not None:
                failed[line.id] = line.error
            if line.asked == "teacher" and line.error is None:
                asked[line.id] = line
            continue
        call = asked.get(line.id)
        if call is None and line.against:
            unasked.update(tuple(line.against))
            continue
        if call is None or call.truth is None or call.attempt != line.attempt:
            where = f"{os.fspath(path)!r}: sample {line.id!r}"
            raise DataError(f"{where} was decided on without an answer: restore the file")
        facts = (call.id, call.attempt, call.phrase, call.image, call.size, call.truth, call.text, call.colour)
        tries.append(DecidedTry(*facts, line.against, line.box, line.iou))
    usual = next((error for error, _ in Counter(failed.values()).most_common(1)), "")
    return RationaleReport(header, tries, unasked, len(failed), usual)


def rationale_page(report: RationaleReport, *, images: Path | None = None, rows: int = PAGE_ROWS) -> str:
    """Write tries, kept and dropped, as one HTML page that needs no network.

    Args:
        report: The run.
        images: Folder that the pictures' names are relative to. Those of SynthRef are drawn again; of others none are
            shown without it, nor where one is missing.
        rows: Most tries to show, as many of each outcome as of any other.
    """
    identity = report.header["identity"]
    shown = draw_evenly(report.tries, rows, lambda row: row.outcome)
    totals, counts = (Counter(row.outcome for row in of) for of in (report.tries, shown))
    says = {KEPT: "nothing spoke against it", **reasons()}
    ordered = sorted(totals, key=lambda key: key != KEPT)
    return render(
        "rationales.html.j2",
        script="gallery.js",
        name=identity["data"]["name"],
        teacher=identity["teacher"]["model"],
        asked=identity["style"]["name"],
        outcomes=[(key, says.get(key, key), counts[key], totals[key]) for key in ordered],
        total=len(report.tries),
        shown=len(shown),
        items=_items(report, shown, images),
    )


def _items(
    report: RationaleReport, shown: Sequence[DecidedTry], images: Path | None
) -> Iterator[tuple[DecidedTry, str, str, str]]:
    style, codec = convention(report.header)
    for row in track(shown, "drawing tries"):
        rationale = rationale_of(row.text, style, codec)
        yield row, readable(rationale), readable(row.text), _overlay(row, images)


def _overlay(row: DecidedTry, images: Path | None) -> str:
    """The picture as the teacher saw it, with the blind check's box, as a `data:` URL; nothing if it is not at hand."""
    picture = _picture(row, images)
    if picture is None or (row.size is not None and picture.size != row.size):
        return ""
    is_marked = row.colour in COLOURS
    if row.colour is not None and is_marked:
        picture = draw_mark(picture, Box(*row.truth), row.colour)
    return overlay_url(picture, boxes=[] if row.box is None else [row.box], truths=[] if is_marked else [row.truth])


def _picture(row: DecidedTry, images: Path | None) -> Image | None:
    if (drawn := drawn_again(f"rationales:{row.id}")) is not None:
        return drawn
    if images is None or not row.image:
        return None
    try:
        return load_image(row.image, root=images)
    except ImageError:
        return None
