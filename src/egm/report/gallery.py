"""A gallery of answers: one HTML file with pictures, boxes, phrases and reasoning, and filters, that needs no network.

What is shown is chosen here; `egm.pages` writes the page, and says what it may hold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from egm.codecs.parsing.reading import split_reasoning
from egm.datasets.synthetic import SPLITS, VERSION, SynthRef
from egm.errors import DataError, ImageError
from egm.failures import phrase_facts
from egm.images import load_image
from egm.journal import Record
from egm.pages.page import overlay_url, readable, render
from egm.progress import track
from egm.report.labels import MISS_TITLES
from egm.report.runs import Run
from egm.report.summary import misses_of

if TYPE_CHECKING:
    from PIL.Image import Image

GALLERY_ITEMS: Final = 200
"""Most answers in a gallery, unless another number is asked for."""

Shown = TypeVar("Shown")
_HIT: Final = "hit"
# A picture goes by the first sample about it, or, where a split is drawn as it is asked, by its scene.
_MADE: Final = re.compile(rf"(?:.+:)?synthref(\d{{1,3}})/({'|'.join(SPLITS)})/(-?\d{{1,18}})/(\d{{1,9}})(?:/\d+|\.png)")


@dataclass(frozen=True, slots=True)
class Item:
    """One answer of one run.

    Attributes:
        run: Number of the run.
        record: What was asked and answered.
        outcome: "hit" or one of `egm.failures.Miss`.
    """

    run: int
    record: Record
    outcome: str

    @property
    def is_complex(self) -> bool:
        """Whether the phrase is complex, as `egm.failures` counts."""
        return phrase_facts(self.record.phrase).is_complex


def gallery(
    runs: Sequence[Run],
    *,
    images: Path | None = None,
    items: int = GALLERY_ITEMS,
    doubtful: Collection[tuple[str, str]] = (),
) -> str:
    """Write the gallery as one HTML page.

    Args:
        runs: Whose answers to show.
        images: Folder that the pictures' names in the journals are relative to. Pictures of SynthRef are drawn again.
        items: Most answers to show.
        doubtful: Questions, by split and id, whose truth is doubtful; they are marked.

    Raises:
        DataError: If a picture was held in a dataset's own file, or is not the one that was asked about.
        ImageError: If a picture is missing or cannot be read.
    """
    everything = [item for number, run in enumerate(runs) for item in items_of(number, run)]
    shown = draw_evenly(everything, items, kind_of)
    totals, counts = (Counter(item.outcome for item in of) for of in (everything, shown))
    titles = {_HIT: "hit", **{str(miss): title for miss, title in MISS_TITLES.items()}}
    return render(
        "gallery.html.j2",
        script="gallery.js",
        runs=[run.name for run in runs],
        splits=list(dict.fromkeys(item.record.split for item in shown)),
        outcomes=[(key, title, counts[key], totals[key]) for key, title in titles.items() if totals[key]],
        titles=titles,
        doubtful=doubtful,
        total=len(everything),
        shown=len(shown),
        items=(
            (item, *texts_of(item.record, runs[item.run]), overlay(item.record, runs[item.run], images))
            for item in track(shown, "drawing answers")
        ),
    )


def kind_of(item: Item) -> tuple[int, str, str]:
    """What an answer is one of in a gallery: its run, its split and what became of it."""
    return item.run, item.record.split, item.outcome


def draw_evenly(items: Sequence[Shown], most: int, kind: Callable[[Shown], Hashable]) -> list[Shown]:
    """Take at most `most`: as many of each kind as of any other, as far as there are so many.

    Those of one kind are taken at even distances, so that they come from all over the split; the order stays.
    """
    strata: dict[Hashable, list[int]] = {}
    for number, item in enumerate(items):
        strata.setdefault(kind(item), []).append(number)
    taken: list[int] = []
    # From the rarest to the commonest, so that what one cannot fill is left to the others.
    for done, numbers in enumerate(sorted(strata.values(), key=len)):
        share = -(-(most - len(taken)) // (len(strata) - done))
        count = min(share, len(numbers), most - len(taken))
        taken += [numbers[k * len(numbers) // count] for k in range(count)]
    return [items[number] for number in sorted(taken)]


def items_of(number: int, run: Run) -> list[Item]:
    """Class every answer of a run, the `number`th of the gallery from 0."""
    misses = zip(run.records, misses_of(run.records), strict=True)
    return [Item(number, record, _HIT if miss is None else str(miss)) for record, miss in misses]


def texts_of(record: Record, run: Run) -> tuple[str, str]:
    """Reasoning and answer, printable and of bounded length."""
    prefilled = bool(run.header.codec.get("thinking_prefilled", False))
    reasoning, answer = split_reasoning(record.text, thinking_prefilled=prefilled)
    return readable(reasoning), readable(answer or "")


def overlay(record: Record, run: Run, images: Path | None) -> str:
    """The picture with both boxes, as a `data:` URL; arguments and errors as of `gallery`."""
    picture = _picture(record, run, images)
    if record.size is not None and picture.size != record.size:
        raise DataError(
            f"the picture of {record.id!r}, {record.image!r}, is {picture.width} x {picture.height}, and the run's "
            f"was {record.size[0]} x {record.size[1]}: give the folder of the pictures that were asked about (--images)"
        )
    return overlay_url(picture, boxes=record.answered, truths=record.true_boxes)


def _picture(record: Record, run: Run, images: Path | None) -> Image:
    if (drawn := drawn_again(record.image)) is not None:
        return drawn
    if record.image.startswith(f"{record.split}:"):
        raise DataError(
            f"the picture of {record.id!r} lay in the file of its dataset, where a journal cannot find it again: a "
            "gallery shows pictures on disk and SynthRef's, so report without --gallery"
        )
    if images is None:
        known = f" {run.header.images!r}" if run.header.images else ""
        what = record.split or run.name
        raise DataError(f"a gallery of {what} needs its pictures: give their folder{known} with --images")
    try:
        return load_image(record.image, root=images)
    except ImageError as error:
        raise ImageError(f"{error} (--images)") from None


def is_scene(image: str) -> bool:
    """Whether a picture, as journals name it, is of a scene of SynthRef, and can be drawn again."""
    return _MADE.fullmatch(image) is not None


def drawn_again(image: str) -> Image | None:
    """Draw the picture of a scene of SynthRef, as journals name it; None of any other.

    Raises:
        DataError: If it is of another version of SynthRef.
    """
    made = _MADE.fullmatch(image)
    if made is None:
        return None
    version, split, seed, scene = made.groups()
    if int(version) != VERSION:
        raise DataError(
            f"{image!r} is of SynthRef {version} and this is SynthRef {VERSION}: evaluate again, or report "
            "without --gallery"
        )
    return _drawn_again(split, int(seed), int(scene))


@lru_cache(maxsize=8)
def _drawn_again(split: str, seed: int, scene: int) -> Image:
    from PIL import Image

    return Image.fromarray(SynthRef(split, seed=seed).scene(scene).pixels)
