"""Everything that can be wrong with training data, looked for before the first step and told by row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from egm.datasets.check import is_file, is_outside, leak_key
from egm.datasets.coco_names import coco_number
from egm.datasets.dataset import SampleSource
from egm.datasets.fields import BoxScale
from egm.datasets.formats import egm_rl
from egm.datasets.registry import evaluation_images
from egm.errors import DataError, EgmError
from egm.files import write_text
from egm.progress import track
from egm.record_rules import refuse_number
from egm.training.data.rows import DatasetRows, MixedRows, Rows
from egm.training.shared.processes import is_first
from egm.types import Sample

_SHOWN = 5
_SCALES: Mapping[BoxScale, str] = {
    "pixels": "in pixels of the upright image",
    "0-1000": "on the 0-1000 scale",
    "pixels or 0-1000": "in pixels, and on the 0-1000 scale where only ground_truth gives them",
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DataReport:
    """What a check of training data found.

    Attributes:
        samples: How many samples the files hold; scenes that are made on the fly are not counted.
        leaks: What is known of leaks of evaluation images, in a sentence.
    """

    samples: int
    leaks: str


@dataclass
class _Fault:
    """One kind of fault: how many rows have it, and where the first few are."""

    says: str
    advice: str
    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        self.count += 1
        if len(self.places) < _SHOWN:
            self.places.append(place)

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.places) else ""
        return f"{self.count:,} {self.says} ({'; '.join(self.places)}{more}): {self.advice}"


class _Unasked(_Fault):
    """Rows whose truth cannot answer what is asked of them."""

    def __init__(self, part: DatasetRows) -> None:
        super().__init__("that cannot be asked so", "mend expect of the rows or of their source in data.train")
        self._expect = part.expect

    def look(self, place: str, sample: Sample) -> None:
        try:
            refuse_number(self._expect or sample.expect, len(sample.truths or ()))
        except DataError as error:
            self.add(f"{place}: {error}")


def check_rows(
    rows: Rows,
    *,
    thinking: bool = True,
    max_length: int | None = None,
    length: Callable[[Sample], int] | None = None,
    held_out: Mapping[str, list[str]] | None = None,
    allow_leak: bool = False,
    listing: Path | None = None,
) -> DataReport:
    """Go once through the files that are trained on; SynthRef's scenes are right by construction and passed over.

    Pictures are looked for, but not opened: one that is damaged, or of another size than its row says, is told when it
    is loaded. Boxes of rows without width and height are held against the picture then, too.

    Args:
        rows: The rows.
        thinking: Whether every sample needs a rationale.
        max_length: Longest sequence in tokens.
        length: Gives the tokens of a sample, such as `Collator.length`.
        held_out: Names of images that may not be trained on, each with the splits it is in; by default those of the
            eight evaluation splits of RefCOCO, if their annotations are in EGM_DATA or `./data`.
        allow_leak: Train on images of these splits all the same.
        listing: File that gets the whole list of evaluation images, if there are any: a name and its splits a line.

    Raises:
        DataError: If rows cannot be trained on, or hold evaluation images: what, how many, and the first few.
    """
    parts = [part for part in _parts(rows) if isinstance(part, DatasetRows)]
    datasets = [part.samples for part in parts]
    if not datasets:
        return DataReport(0, "no files, so nothing to leak")
    unknown = None
    if held_out is None:
        try:
            held_out = evaluation_images()
        except DataError as error:
            held_out, unknown = {}, str(error)
    faults, leaks = [], _Leaks(held_out)
    for part in parts:
        dataset = part.samples
        found = _Checks(part, thinking=thinking, max_length=max_length, length=length)
        faults.append(found)
        for place, sample in track(dataset.scan(), f"checking rows of {dataset.place}", len(dataset)):
            found.look(place, sample)
            if isinstance(sample, Sample):
                leaks.look(sample)
    if unknown is not None and not leaks.may_leak:
        unknown = None
    nameless = [data for data in datasets if _hides_names(data)]
    if nameless and unknown is None:
        unknown = f"the pictures inside {nameless[0].place} have no names to tell them by"
    verdict = leaks.verdict(unknown, allow=allow_leak, listing=listing)
    for found in faults:
        found.refuse()
    return DataReport(sum(found.total for found in faults), verdict)


def check_boxes(rows: Rows, *, one_each: bool = False) -> None:
    """Go once through the files that are reinforced on for rows without a box; of pictures nothing is looked at.

    Args:
        rows: The rows; SynthRef's scenes have boxes by construction and are passed over.
        one_each: Whether every row has to expect one box, as those of verl do.

    Raises:
        DataError: If rows have none, or cannot be read: how many, and the first few.
    """
    for part in (part for part in _parts(rows) if isinstance(part, DatasetRows)):
        dataset, unasked = part.samples, _Unasked(part)
        broken = _Fault("cannot be read", "mend or drop them")
        no_box = _Fault("without a box", "a reward needs the true box in every row")
        many = _Fault("that expect any or all", "a row of egm verl's asks for one box: drop them, or use egm grpo")
        total = 0
        for place, sample in track(dataset.scan(), f"checking boxes of {dataset.place}", len(dataset)):
            total += 1
            if isinstance(sample, EgmError):
                broken.add(f"{place}: {sample}")
            elif sample.truths is None:
                no_box.add(place)
            elif one_each and (expect := part.expect or sample.expect) != "one":
                many.add(f"{place}: {expect}")
            else:
                unasked.look(place, sample)
        _refuse(dataset, total, (broken, no_box, many, unasked))


def _refuse(dataset: SampleSource, total: int, faults: Iterable[_Fault]) -> None:
    found = [str(fault) for fault in faults if fault.count]
    if found:
        raise DataError(f"{dataset.place} has {total:,} rows, and of these {'; '.join(found)}")


def _warn(says: str) -> None:
    """Log a warning, of several processes by the first alone: all of them look at the same rows."""
    if is_first():
        _log.warning("%s", says)


def _parts(rows: Rows) -> Sequence[Rows]:
    return rows.parts if isinstance(rows, MixedRows) else [rows]


def _hides_names(dataset: SampleSource) -> bool:
    """Tell whether pictures lie inside a file that does not say their names."""
    return dataset.kind == egm_rl.FORMAT.name and not dataset.names_files


class _Checks:
    """The faults of one file, row by row."""

    def __init__(
        self,
        part: DatasetRows,
        *,
        thinking: bool,
        max_length: int | None,
        length: Callable[[Sample], int] | None,
    ) -> None:
        self._thinking, self._max_length, self._length = thinking, max_length, length
        dataset = part.samples
        self._unasked = _Unasked(part)
        self._scale = dataset.scale
        self._names_files = dataset.names_files
        self._broken = _Fault("cannot be read", "mend or drop them")
        self._no_box = _Fault("without a box", "training needs one in every row")
        self._no_rationale = _Fault("without a rationale", "add one, or set data.thinking to false")
        self._outside = _Fault(
            "with a box outside its image", f"boxes of this format are {_SCALES[self._scale]}: convert or drop them"
        )
        self._missing = _Fault("whose image is missing", "check data.images, or drop them")
        self._long = _Fault(
            f"longer than data.max_length {max_length}",
            "raise it, shorten the rationales, or lower the image size",
        )
        self._there: dict[int, bool] = {}
        self._dataset, self.total = dataset, 0

    def look(self, place: str, sample: Sample | EgmError) -> None:
        self.total += 1
        if isinstance(sample, EgmError):
            self._broken.add(f"{place}: {sample}")
            return
        if sample.truths is None:
            self._no_box.add(place)
            return
        self._unasked.look(place, sample)
        outside = next(
            (box for box in sample.truths if sample.size and is_outside(box, sample.size, amodal=sample.amodal)), None
        )
        if sample.size is not None and outside is not None:
            box = outside.to_1000(sample.size) if self._scale == "0-1000" else outside
            corners = ", ".join(f"{value:g}" for value in box)
            self._outside.add(f"{place}: {corners} in {sample.size[0]} x {sample.size[1]} pixels")
        if self._thinking and not sample.rationale:
            self._no_rationale.add(place)
        elif self._length is not None and self._max_length is not None and sample.size is not None:
            tokens = self._length(sample)
            if tokens > self._max_length:
                self._long.add(f"{place}: {tokens} tokens")
        if self._names_files and isinstance(sample.image, str | Path) and not self._is_there(sample.image):
            self._missing.add(f"{place}: {Path(sample.image).name}")

    def _is_there(self, image: str | Path) -> bool:
        key = hash(image)  # whole names of millions of pictures would take more memory than all else
        if key not in self._there:
            self._there[key] = is_file(image)
        return self._there[key]

    def refuse(self) -> None:
        faults = (
            self._broken,
            self._no_box,
            self._unasked,
            self._no_rationale,
            self._outside,
            self._missing,
            self._long,
        )
        _refuse(self._dataset, self.total, faults)


class _Leaks:
    def __init__(self, held_out: Mapping[str, list[str]]) -> None:
        self._known = {leak_key(name): splits for name, splits in held_out.items()}
        self._pictures: set[str] = set()
        self._found: dict[str, str] = {}  # by name: a picture and its mirrored copy are two to be dropped
        self._samples = 0
        self.may_leak = False  # whether a name holds a COCO number, as all of evaluation images do

    def look(self, sample: Sample) -> None:
        if not isinstance(sample.image, str | Path):
            return
        self.may_leak = self.may_leak or coco_number(str(sample.image)) is not None
        if not self._known:
            return
        key = leak_key(str(sample.image))
        splits = self._known.get(key)
        if splits:
            self._samples += 1
            self._pictures.add(key)
            self._found.setdefault(Path(sample.image).name, ", ".join(splits))

    def verdict(self, unknown: str | None, *, allow: bool, listing: Path | None) -> str:
        """Say what is known in a sentence, which is also logged unless there is nothing to worry about."""
        if self._found:
            first = "; ".join(f"{name} is in {splits}" for name, splits in islice(self._found.items(), _SHOWN))
            more = f"; and {len(self._found) - _SHOWN:,} more" if len(self._found) > _SHOWN else ""
            says = f"{self._samples:,} samples show {len(self._pictures):,} images of evaluation splits: {first}{more}"
            if listing is not None:
                says += f" (the whole list is in {self._write(listing)})"
            if not allow:
                raise DataError(f"{says}: drop them, or pass --allow-leak to train on them all the same")
            _warn(says)
            return says
        if unknown is not None:
            says = f"leaks of evaluation images were not looked for: {unknown}"
            _warn(says)
            return says
        return "no image is named as one of the eight evaluation splits of RefCOCO"

    def _write(self, listing: Path) -> Path:
        if is_first():
            try:
                listing.parent.mkdir(parents=True, exist_ok=True)
                write_text(listing, "".join(f"{name}\t{splits}\n" for name, splits in self._found.items()))
            except OSError as error:
                raise DataError(
                    f"{self._samples:,} samples show images of evaluation splits, and their list cannot be written to "
                    f"{listing}: {error}"
                ) from None
        return listing
