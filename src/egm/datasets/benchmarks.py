"""Benchmarks beside RefCOCO's eight splits: what they are called, hold and expect, and where their files are had.

Nothing is downloaded. Files are looked for in `DATA/NAME`, as the hub's `hf download` leaves them there; how many
questions, pictures and questions without an answer they hold is checked against what is known of the published files.
Where a number stands here, a public reader or dataset card says it; where none does, none is checked.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from egm.datasets.dataset import Dataset
from egm.datasets.image_root import ImageRoot
from egm.datasets.inputs import open_regular
from egm.datasets.open_files import open_files
from egm.datasets.read_rows import Malformed
from egm.errors import DataError
from egm.types import Expect


@dataclass(frozen=True, slots=True)
class PublishedCounts:
    """What the published files of a split hold, as far as that is known.

    Attributes:
        questions: How many questions.
        pictures: About how many pictures.
        none: How many of the questions nothing matches.
        sha256: Of its one file.
    """

    questions: int | None = None
    pictures: int | None = None
    none: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A published set of questions.

    Attributes:
        name: The first part of its splits' names.
        splits: Its splits, by the second part.
        files: Where their files are, in `DATA/NAME`: patterns of which the first that fits anything counts. `{split}`
            stands for the split.
        source: Where the files are had.
        licence: What its authors say of it; pictures have licences of their own.
        expect: How many boxes its questions ask for.
        measure: What its authors count: `hit` an IoU of at least 0.5 (of several boxes an F1 of 1), `centre` a point in
            the true box, for which the centre of the answered box is taken.
        picture_folder: Folder of its pictures in the one that `--images` names, where they are no part of the files.
        flat: Whether only the last part of a picture's name counts.
        unproven: What of its form or numbers no public reader shows.
        by_negative: Where one file holds several splits: by the split what its rows say of being negative.
    """

    name: str
    splits: Mapping[str, PublishedCounts]
    files: tuple[str, ...]
    source: str
    licence: str
    expect: Expect = "one"
    measure: Literal["hit", "centre"] = "hit"
    picture_folder: str | None = None
    flat: bool = False
    unproven: str = ""
    by_negative: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its splits."""
        return tuple(f"{self.name}/{split}" for split in self.splits)

    @property
    def get(self) -> str:
        """How its files are had, in a few words."""
        if "://" in self.source:
            return f"take its files from {self.source} to the folder {self.name}"
        return f"hf download --repo-type dataset {self.source} --local-dir {self.name}"


BENCHMARKS: Final = (
    Benchmark(
        "ref-adv-s",
        {"test": PublishedCounts(1_142)},
        ("data/train-*.parquet", "*.parquet"),
        source="dddraxxx/ref-adv-s",
        licence="CC BY 4.0; pictures of COCO and OpenImages",
    ),
    Benchmark(
        "ref-l4",
        {
            "val": PublishedCounts(sha256="7aef079b3fa1ec5de7548774ae6206f375f4b189fd5acecae86741a452da1926"),
            "test": PublishedCounts(sha256="6af2bcac60d0aff5f78c0a0c834377e43ceb17d1e11cbaacdf4eda5f9a9e0068"),
            "all": PublishedCounts(45_341),
        },
        ("ref-l4-{split}.parquet",),
        source="JierunChen/Ref-L4",
        licence="CC BY-NC 4.0; pictures of COCO and Objects365",
        picture_folder="ref-l4",
        unproven="how many questions val and test hold each: their files are told by hash, both together by 45,341",
    ),
    Benchmark(
        "refcoco-m",
        {"val": PublishedCounts(5_598, 1_190)},
        ("data/validation-*.parquet", "*.parquet"),
        source="moondream/refcoco-m",
        licence="MIT; pictures of COCO",
    ),
    Benchmark(
        "groundingme",
        {"test": PublishedCounts(1_005)},
        ("data/test-*.parquet", "*.parquet"),
        source="lirang04/GroundingME",
        licence="research only, as SA-1B and HR-Bench, whose pictures it has",
        expect="any",
        unproven="how many of its questions nothing matches",
    ),
    Benchmark(
        "grefcoco",
        {
            "val": PublishedCounts(14_229, 1_500, 8_905),
            "testA": PublishedCounts(19_200, 750, 4_448),
            "testB": PublishedCounts(16_063, 750, 4_673),
        },
        ("grefs(unc).json", "grefs(unc).p"),
        source="FudanCVL/gRefCOCO",
        licence="CC BY-NC-SA 4.0; pictures of COCO",
        expect="all",
        picture_folder="train2014",
        flat=True,
    ),
    Benchmark(
        "finecops-ref",
        {
            "positive": PublishedCounts(9_605),
            "negative-text": PublishedCounts(9_814),
            "negative-image": PublishedCounts(8_507),
        },
        ("*test*coco*.json", "*coco*test*.json"),
        source="https://figshare.com/articles/dataset/26048050",
        licence="as its page on figshare says; pictures of GQA, and edited ones",
        expect="any",
        picture_folder="finecops-ref",
        unproven="the names of its files; which of their rows are negative, and how, is read from the rows",
        by_negative={"positive": None, "negative-text": "text", "negative-image": "image"},
    ),
    Benchmark(
        "hc-refloco",
        {"val": PublishedCounts(13_360), "test": PublishedCounts()},
        ("hc_refloco_{split}.parquet", "hc_refloco_{split}.json"),
        source="Jinjing713/HC-RefLoCo",
        licence="CC BY-NC 4.0; pictures of COCO, Objects365, OpenImages and LAION",
        picture_folder="hc-refloco",
        unproven="how many questions test holds",
    ),
    Benchmark(
        "screenspot-pro",
        {"test": PublishedCounts(1_581)},
        ("annotations/*.json", "data/*.parquet", "*.parquet"),
        source="likaixin/ScreenSpot-Pro",
        licence="MIT",
        measure="centre",
        picture_folder="screenspot-pro",
    ),
)
"""All of them, in the order of tables."""

_BY_SPLIT: Final[Mapping[str, tuple[Benchmark, str]]] = {
    f"{benchmark.name}/{split}": (benchmark, split) for benchmark in BENCHMARKS for split in benchmark.splits
}
BENCHMARK_SPLITS: Final = tuple(_BY_SPLIT)
"""The names of all their splits."""


def benchmark_of(split: str) -> Benchmark | None:
    """Return the benchmark that a split is of; None for any other dataset."""
    found = _BY_SPLIT.get(split)
    return None if found is None else found[0]


def counts_of(split: str) -> PublishedCounts | None:
    """Return what is known of the files of a benchmark's split; None for any other dataset."""
    found = _BY_SPLIT.get(split)
    return None if found is None else found[0].splits[found[1]]


def find_benchmark(name: str, data: Path) -> list[Path]:
    """Find the files of a split in a folder of annotations.

    Raises:
        DataError: If there are none; the message says how they are had, and where they are looked for.
    """
    benchmark, split = _BY_SPLIT[name]
    wanted = [part for part in benchmark.splits if part != "all"] if split == "all" else [split]
    files: list[Path] = []
    for part in wanted:
        patterns = (pattern.format(split=part) for pattern in benchmark.files)
        found = next((there for pattern in patterns if (there := _fitting(data / benchmark.name, pattern))), None)
        if found is None:
            raise DataError(
                f"no files of {name} in {str(data / benchmark.name)!r}: in {str(data)!r} {benchmark.get} "
                f"(licence: {benchmark.licence}), or say where they are (EGM_DATA, or --data-root)"
            )
        files += found
    return list(dict.fromkeys(files))


def _fitting(folder: Path, pattern: str) -> list[Path]:
    if "*" not in pattern:
        return [folder / pattern] if (folder / pattern).is_file() else []
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def open_benchmark(
    name: str,
    *,
    images: Path | None,
    data: Path | None,
    allow_partial: bool,
    malformed: list[Malformed] | None = None,
) -> Dataset:
    """Open a split of a benchmark by its name; arguments as of `open_dataset`.

    Raises:
        DataError: If its files are missing or wrong, or are not the published ones and `allow_partial` is not given.
    """
    benchmark, split = _BY_SPLIT[name]
    folder = data if data is not None else Path(os.environ.get("EGM_DATA") or "data")
    files = find_benchmark(name, folder)
    root = ImageRoot(_picture_folder(benchmark, images, folder), flat=benchmark.flat)
    if files[0].suffix == ".parquet":
        dataset = open_files(files, name=name, images=root, malformed=malformed)
    else:
        parts = [open_files([file], name=name, images=root, split=split, malformed=malformed) for file in files]
        samples = [sample for part in parts for sample in part.annotations()]
        if benchmark.by_negative:
            samples = [each for each in samples if each.meta.get("negative_cate") == benchmark.by_negative[split]]
        if len(parts) > 1 or benchmark.by_negative:
            if len({each.id for each in samples}) < len(samples):  # each file counts its rows from 1
                samples = [replace(each, id=f"{name}/{number}") for number, each in enumerate(samples, 1)]
            dataset = Dataset(name, samples, root=root.root, kind=parts[0].kind, scale=parts[0].scale)
        else:
            dataset = parts[0]
    if not (allow_partial or malformed):
        check_counts(name, dataset, files)
    dataset._add_meta("split", split)
    return dataset


def _picture_folder(benchmark: Benchmark, images: Path | None, data: Path) -> Path | None:
    """Where a benchmark's pictures lie: in a folder of its own, if there is one, whether with others or its files."""
    if benchmark.picture_folder is None:
        return images
    beside = data / benchmark.name / "images"
    if images is None:
        return beside if beside.is_dir() else None
    own = images / benchmark.picture_folder
    inside = own / "images"
    return inside if inside.is_dir() else own if own.is_dir() else images


def check_counts(name: str, dataset: Dataset, files: Sequence[Path]) -> None:
    """Hold what was read against what is known of the published files.

    Raises:
        DataError: If it is something else; the message names the counts, and the hash of the first file.
    """
    benchmark, split = _BY_SPLIT[name]
    known, samples = benchmark.splits[split], dataset.annotations()
    found = {
        "questions": len(samples),
        "pictures": len({str(sample.image) for sample in samples}),
        "none": sum(sample.truths == () for sample in samples),
    }
    words = {"questions": "questions", "pictures": "pictures", "none": "questions that nothing matches"}
    differing = [
        f"{count:,} {words[key]} instead of {wanted:,}"
        for key, count in found.items()
        if (wanted := getattr(known, key)) is not None and wanted != count
    ]
    digest = "" if known.sha256 is None and not differing else file_sha256(files[0])
    if known.sha256 is not None and digest != known.sha256:
        differing.append(f"another hash than {known.sha256[:16]}")
    if differing:
        raise DataError(
            f"{files[0]} is another version of {name}: {', '.join(differing)} (its sha256 is {digest[:16]}); "
            f"the published one is had by: {benchmark.get}; --allow-partial takes it as it is"
        )


def file_sha256(path: Path) -> str:
    """Digest a file, whatever its size."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
