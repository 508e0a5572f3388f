"""One name or path in, samples out."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from egm.datasets.benchmark_files import open_benchmark
from egm.datasets.benchmarks import BENCHMARK_SPLITS, counts_of
from egm.datasets.dataset import Dataset
from egm.datasets.image_root import ImageRoot
from egm.datasets.inputs import data_folder
from egm.datasets.open_files import open_files
from egm.datasets.read_rows import Malformed
from egm.datasets.refcoco import EVALUATION, SIZES, SPLIT_BY, check_size, find_files
from egm.errors import DataError, nearest
from egm.progress import progress_task
from egm.types import Sample

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_SYNTHREF = "synthref"


def dataset_names() -> tuple[str, ...]:
    """Names that `open_dataset` knows beside paths.

    Example:
        >>> dataset_names()[:3]
        ('refcoco/train', 'refcoco/val', 'refcoco/testA')
    """
    from egm.datasets.synthetic import SPLITS, TRAINING

    return (*SIZES, *BENCHMARK_SPLITS, *(f"{_SYNTHREF}/{split}" for split in SPLITS if split not in TRAINING))


def split_size(name: str) -> int | None:
    """Return how many samples the split of a name has, None where nothing says.

    Example:
        >>> split_size("refcoco/val"), split_size("synthref/val")
        (10834, 1983)
    """
    from egm.datasets.synthetic import SPLITS

    if name in SIZES:
        return SIZES[name].expressions
    if (counts := counts_of(name)) is not None:
        return counts.questions
    family, _, split = name.partition("/")
    return SPLITS[split].samples if family == _SYNTHREF and split in SPLITS else None


def open_dataset(
    name_or_path: str | Path,
    *,
    images: str | Path | None = None,
    data: str | Path | None = None,
    allow_partial: bool = False,
    first: int | None = None,
    codec: str | None = None,
    malformed: list[Malformed] | None = None,
) -> Dataset:
    """Open a dataset by the name of a split, or by its path.

    Every row is checked when it is opened, pictures when they are used. Which format a file has shows in its keys.

    Args:
        name_or_path: A split, such as `refcoco/val`, `refcoco+/testA`, `refcocog/test`, `ref-adv-s/test` or
            `synthref/val`; or the path of a .json, .jsonl or .parquet file, or of a UNC folder, zip or `refs(*).p`.
        images: Folder that images lie in; no row can lead out of it. COCO's train2014 may be the folder or lie in it.
            If left out, names stay as they are in the file, and annotations can be read without the pictures; those of
            a .jsonl file are then taken from its own folder, others from the current one, which no link may lead out
            of.
        data: Folder with the annotations of RefCOCO and the benchmarks; else the environment variable EGM_DATA, else
            `./data`.
        allow_partial: Take a split whose size is not the published one.
        first: Take the first so many samples alone; of SynthRef no more scenes are made, and any split will do.
        codec: For conversations whose rows do not say it: the name of the codec that their answers are written in.
        malformed: For `check_dataset`: gets the rows that are wrong, which are left out then, and the size of a split
            that has any is not held against the published one. Without it, the first of them is an error.

    Returns:
        The samples; `name` is the split, or the file's name without its ending.

    Raises:
        DataError: If the name or the file is unknown, a row is wrong, the size of a split is, or a link leads out.

    Example:
        >>> sample = open_dataset("synthref/val", first=1)[0]
        >>> sample.id, sample.phrase
        ('synthref1/val/0/0/0', 'small orange diamond')
    """
    images, data = (None if folder is None else Path(folder) for folder in (images, data))
    with progress_task(f"reading {name_or_path}"):
        dataset = _open(
            name_or_path, images, data, allow_partial=allow_partial, first=first, codec=codec, malformed=malformed
        )
    if first is not None:
        dataset = dataset.first(first)
    if dataset.names_files and dataset.root is None:
        _confine(dataset)
    return dataset


def _confine(dataset: Dataset) -> None:
    """Refuse pictures that a link leads out of the current folder to; names alone are refused as they are read."""
    inside = ImageRoot(Path())
    is_linked = functools.cache(lambda folder: any(map(os.path.islink, (folder, *folder.parents))))
    for name in dict.fromkeys(str(sample.image) for sample in dataset.annotations()):
        # Following every path takes seven times as long as asking whether there is a link in it, which is rare.
        if os.path.islink(name) or is_linked(Path(name).parent):  # noqa: PTH114 - a path for each name takes time
            try:
                inside(name)
            except DataError as error:
                raise DataError(f"{error}: give the folder that they lie in with --images") from None


def _open(
    name_or_path: str | Path,
    images: Path | None,
    data: Path | None,
    *,
    allow_partial: bool,
    first: int | None = None,
    codec: str | None = None,
    malformed: list[Malformed] | None = None,
) -> Dataset:
    text = str(name_or_path)
    if codec is not None and (text in SIZES or text in BENCHMARK_SPLITS or text.startswith(f"{_SYNTHREF}/")):
        raise DataError(f"{text} holds no conversations, which alone need to be told a codec: leave --from-codec out")
    if text in SIZES:
        return _open_refcoco(text, images, data, allow_partial=allow_partial, malformed=malformed)
    if text in BENCHMARK_SPLITS:
        return open_benchmark(text, images=images, data=data, allow_partial=allow_partial, malformed=malformed)
    if text.startswith(f"{_SYNTHREF}/") and not Path(text).exists():
        return _SynthRows(text.partition("/")[2], first)
    path = Path(text)
    try:
        there = path.exists()
    except (OSError, ValueError):  # a name too long, or with a NUL
        there = False
    if not there:
        raise DataError(f"no dataset at {text}: {nearest(text, dataset_names())}; or give a path")
    if images is None and path.suffix == ".jsonl":
        images = path.parent
    name = path.stem if path.is_file() else path.resolve().name
    return open_files([path], name=name, images=ImageRoot(images), codec=codec, malformed=malformed)


def _open_refcoco(
    name: str, images: Path | None, data: Path | None, *, allow_partial: bool, malformed: list[Malformed] | None
) -> Dataset:
    family, _, split = name.partition("/")
    files = find_files(name, data_folder(data))
    if images is not None and (images / "train2014").is_dir():
        images = images / "train2014"
    root = ImageRoot(images, flat=True)
    dataset = open_files(files, name=name, images=root, by=SPLIT_BY[family], split=split, malformed=malformed)
    if not (allow_partial or malformed):
        check_size(name, dataset, files[0])
    dataset._add_meta("split", split)
    return dataset


def evaluation_images(data: Path | None = None, *, allow_partial: bool = False) -> dict[str, list[str]]:
    """Names of the images of the eight evaluation splits, each with the splits that it is in.

    Raises:
        DataError: If the annotations of a split are not there, or of another size and `allow_partial` is not given.
    """
    found: dict[str, list[str]] = {}
    for name in EVALUATION:
        samples = _open(name, None, data, allow_partial=allow_partial).annotations()  # whose pictures nobody opens
        for image in {str(sample.image) for sample in samples}:
            found.setdefault(image, []).append(name)
    return found


class _SynthRows(Dataset):
    """A split of SynthRef: pictures are drawn when a sample is taken, a scene at a time."""

    names_files = False

    def __init__(self, split: str, first: int | None = None) -> None:
        from egm.datasets.synthetic import SynthRef

        self._source = SynthRef(split)
        if self._source.scenes is None and first is None:
            raise DataError(f"SynthRef {split} has no end: write a part of it with egm data synthetic --scenes 1000")
        self._scenes: list[int] = []
        samples: list[Sample] = []
        for index in itertools.count() if self._source.scenes is None else range(self._source.scenes):
            if first is not None and len(samples) >= first:
                break
            drawn = self._source.samples(index)
            self._scenes += [index] * len(drawn)
            samples += [dataclasses.replace(sample, image=f"{sample.id.rsplit('/', 1)[0]}.png") for sample in drawn]
        self._drawn: tuple[int, Picture] | None = None
        super().__init__(f"{_SYNTHREF}/{split}", samples, kind="SynthRef")

    def _at(self, index: int) -> Sample:
        from PIL import Image

        scene, sample = self._scenes[index], self._samples[index]
        if self._drawn is None or self._drawn[0] != scene:
            self._drawn = scene, Image.fromarray(self._source.scene(scene).pixels)
        return dataclasses.replace(sample, image=self._drawn[1])
