"""Benchmarks beside RefCOCO's eight splits: what they are called, hold and expect, and where their files are had.

Where a number stands here, a public reader or dataset card says it; where none does, none is checked.
`egm.datasets.benchmark_files` opens them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from egm.errors import DataError
from egm.types import Expect

Measure: TypeAlias = Literal["acc@0.5", "centre"]
"""What counts as right: an IoU of at least 0.5, or that the centre of the box lies in the true one."""
MEASURE_TITLES: Final[Mapping[Measure, str]] = {"acc@0.5": "Acc@0.5", "centre": "centre in the true box"}
"""What tables and figures call it."""


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
        measure: What its authors count: `acc@0.5` an IoU of at least 0.5 (of several boxes an F1 of 1), `centre` a
            point in the true box, for which the centre of the answered box is taken.
        picture_folder: Folder of its pictures in the one that `--images` names, where they are no part of the files.
        flat: Whether only the last part of a picture's name counts.
        unproven: What of its form or numbers no public reader shows.
        by_negative: Where one file holds several splits: by the split what its rows say of being negative.
        hub_config: The configuration of its dataset on the Hub that holds its splits.
        hub_splits: What the Hub calls a split, where it is another name; None where it is no split there.
    """

    name: str
    splits: Mapping[str, PublishedCounts]
    files: tuple[str, ...]
    source: str
    licence: str
    expect: Expect = "one"
    measure: Measure = "acc@0.5"
    picture_folder: str | None = None
    flat: bool = False
    unproven: str = ""
    by_negative: Mapping[str, str | None] = field(default_factory=dict)
    hub_config: str = "default"
    hub_splits: Mapping[str, str | None] = field(default_factory=dict)

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
        ("data/train-*-of-*.parquet", "train-*-of-*.parquet"),
        source="dddraxxx/ref-adv-s",
        licence="CC BY 4.0; pictures of COCO and OpenImages",
        hub_splits={"test": "train"},
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
        hub_config="ref_l4",
        hub_splits={"all": None},
    ),
    Benchmark(
        "refcoco-m",
        {"val": PublishedCounts(5_598, 1_190)},
        ("data/validation-*-of-*.parquet", "validation-*-of-*.parquet"),
        source="moondream/refcoco-m",
        licence="MIT; pictures of COCO",
        hub_splits={"val": "validation"},
    ),
    Benchmark(
        "groundingme",
        {"test": PublishedCounts(1_005)},
        ("data/test-*-of-*.parquet", "test-*-of-*.parquet"),
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
        ("*test*coco_format.json",),
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
        hub_config="hc_refloco",
    ),
    Benchmark(
        "screenspot-pro",
        {"test": PublishedCounts(1_581)},
        ("annotations/*.json", "data/train-*-of-*.parquet", "data/test-*-of-*.parquet"),
        source="likaixin/ScreenSpot-Pro",
        licence="MIT",
        measure="centre",
        picture_folder="screenspot-pro",
    ),
)
"""All of them, in the order of tables."""
WHOLE: Final = "all"
"""What a split is called that holds all others of its benchmark."""

_BY_SPLIT: Final[Mapping[str, tuple[Benchmark, str]]] = {
    f"{benchmark.name}/{split}": (benchmark, split) for benchmark in BENCHMARKS for split in benchmark.splits
}
BENCHMARK_SPLITS: Final = tuple(_BY_SPLIT)
"""The names of all their splits."""


def split_of(name: str) -> tuple[Benchmark, str]:
    """Return the benchmark of one of `BENCHMARK_SPLITS`, and which of its splits it is."""
    return _BY_SPLIT[name]


def benchmark_of(split: str) -> Benchmark | None:
    """Return the benchmark that a split is of; None for any other dataset."""
    found = _BY_SPLIT.get(split)
    return None if found is None else found[0]


def parts_among(splits: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Find which splits hold all questions of others among them, as `ref-l4/all` does of `ref-l4/val`: those by it."""
    names = tuple(splits)
    wholes = {name: found[0].names for name in names if (found := _BY_SPLIT.get(name)) and found[1] == WHOLE}
    parts = {name: tuple(each for each in names if each in own and each != name) for name, own in wholes.items()}
    return {name: those for name, those in parts.items() if those}


def refuse_parts(splits: Iterable[str]) -> None:
    """Refuse splits of which one is given twice, or holds all questions of another: these would count twice.

    Raises:
        DataError: If there are such.
    """
    names = tuple(splits)
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{name!r} is given twice: name each dataset once")
    for name, parts in parts_among(names).items():
        raise DataError(
            f"{name} holds the questions of {' and '.join(parts)} too, which would count twice: name either"
        )


def hub_split(split: str) -> tuple[str, str] | None:
    """Return the Hub's configuration and name of a split, of a benchmark or any other dataset; None where it has none.

    Example:
        >>> hub_split("refcoco-m/val"), hub_split("ref-l4/all")
        (('default', 'validation'), None)
    """
    found = _BY_SPLIT.get(split)
    if found is None:
        return "default", split.partition("/")[2] or split
    benchmark, own = found
    name = benchmark.hub_splits.get(own, own)
    return None if name is None else (benchmark.hub_config, name)


def counts_of(split: str) -> PublishedCounts | None:
    """Return what is known of the files of a benchmark's split; None for any other dataset."""
    found = _BY_SPLIT.get(split)
    return None if found is None else found[0].splits[found[1]]


def measure_of(split: str) -> Measure:
    """Say what counts as right in a split, of a benchmark or of any other dataset."""
    benchmark = benchmark_of(split)
    return "acc@0.5" if benchmark is None else benchmark.measure


def measures_of(splits: Iterable[str]) -> tuple[Measure, ...]:
    """Say what counts as right in some splits, each measure once, always in the same order."""
    found = set(map(measure_of, splits)) or {"acc@0.5"}
    return tuple(measure for measure in MEASURE_TITLES if measure in found)


def measure_title(splits: Iterable[str]) -> str:
    """Name what counts as right in some splits, as the title of an accuracy over them.

    Example:
        >>> measure_title(["refcoco/val", "screenspot-pro/test"])
        'Acc@0.5 or centre in the true box'
    """
    return " or ".join(MEASURE_TITLES[measure] for measure in measures_of(splits))
