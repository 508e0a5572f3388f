"""The files of benchmarks: where they are looked for, opened, and held against what is known of the published ones.

Nothing is downloaded. Files are looked for in `DATA/NAME`, as the hub's `hf download` leaves them there; how many
questions, pictures and questions without an answer they hold is checked against `egm.datasets.benchmarks`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from egm.datasets.benchmarks import WHOLE, Benchmark, split_of
from egm.datasets.dataset import Dataset
from egm.datasets.fields import short
from egm.datasets.image_root import ImageRoot
from egm.datasets.inputs import data_folder, open_regular
from egm.datasets.open_files import open_files
from egm.datasets.read_rows import Malformed
from egm.errors import DataError
from egm.types import Sample


def find_benchmark(name: str, data: Path) -> list[Path]:
    """Find the files of a split in a folder of annotations.

    Raises:
        DataError: If there are none; the message says how they are had, and where they are looked for.
    """
    benchmark, split = split_of(name)
    wanted = [part for part in benchmark.splits if part != WHOLE] if split == WHOLE else [split]
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
    # Hidden files are what some systems leave beside others.
    return sorted(path for path in folder.glob(pattern) if path.is_file() and not path.name.startswith("."))


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
    benchmark, split = split_of(name)
    folder = data_folder(data)
    files = find_benchmark(name, folder)
    root = ImageRoot(_picture_folder(benchmark, images, folder), flat=benchmark.flat)
    if files[0].suffix == ".parquet":
        dataset = open_files(files, name=name, images=root, malformed=malformed)
    else:
        parts = [open_files([file], name=name, images=root, split=split, malformed=malformed) for file in files]
        dataset = parts[0] if len(parts) == 1 and not benchmark.by_negative else _joined(name, files, parts)
    if not (allow_partial or malformed):
        check_counts(name, dataset, files)
    dataset._add_meta("split", split)
    return dataset


def _joined(name: str, files: Sequence[Path], parts: Sequence[Dataset]) -> Dataset:
    """The questions of a split out of all files that may hold some of it.

    Raises:
        DataError: If a file is of another form than the first, repeats a question of an earlier one, or holds a
            question that is of no split.
    """
    benchmark, split = split_of(name)
    first = parts[0]
    samples: list[Sample] = []
    asked: dict[object, Path] = {}
    for file, part in zip(files, parts, strict=True):
        if part.kind != first.kind:
            raise DataError(
                f"{file} holds {part.kind}, and {files[0]} {first.kind}: leave the files of {benchmark.name} alone in "
                "their folder"
            )
        own = [each for each in part.annotations() if _is_of(each, benchmark, split, file)]
        for each in own:
            if (other := asked.setdefault((str(each.image), each.phrase, each.truths), file)) != file:
                raise DataError(f"{file} asks {short(each.phrase)} as {other} does: keep one copy of a question")
        samples += own
    if len({each.id for each in samples}) < len(samples):  # each file counts the rows that have no id, from 1
        samples = [
            replace(each, id=f"{name}/{number}") if each.id.startswith(f"{name}/") else each
            for number, each in enumerate(samples, 1)
        ]
    return Dataset(name, samples, root=first.root, kind=first.kind, scale=first.scale)


def _is_of(sample: Sample, benchmark: Benchmark, split: str, file: Path) -> bool:
    """Whether a question is of a split, where its row says that by how it is negative."""
    if not benchmark.by_negative:
        return True
    said = sample.meta.get("negative_cate")
    if said not in benchmark.by_negative.values() or (said is None) != (sample.truths != ()):
        raise DataError(
            f"{file}: {sample.id} is of no split of {benchmark.name}: its negative_cate is {short(said)}, and "
            f"{'nothing matches it' if sample.truths == () else 'it has a true box'}"
        )
    return benchmark.by_negative[split] == said


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
    benchmark, split = split_of(name)
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
