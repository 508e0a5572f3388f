"""RefCOCO, RefCOCO+ and RefCOCOg: their splits, how large each is, and where their files are looked for."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from egm.datasets.dataset import Dataset
from egm.datasets.formats import lmms_lab
from egm.errors import DataError


class Size(NamedTuple):
    """How large a split is, counted from the data; None where only the expressions are documented."""

    expressions: int
    refs: int | None = None
    images: int | None = None


SIZES: dict[str, Size] = {
    "refcoco/train": Size(120_624),
    "refcoco/val": Size(10_834, 3_811, 1_500),
    "refcoco/testA": Size(5_657, 1_975, 750),
    "refcoco/testB": Size(5_095, 1_810, 750),
    "refcoco+/train": Size(120_191),
    "refcoco+/val": Size(10_758, 3_805, 1_500),
    "refcoco+/testA": Size(5_726, 1_975, 750),
    "refcoco+/testB": Size(4_889, 1_798, 750),
    "refcocog/train": Size(80_512),
    "refcocog/val": Size(4_896, 2_573, 1_300),
    "refcocog/test": Size(9_602, 5_023, 2_600),
}
"""The splits by name; those of RefCOCOg are umd's, the others unc's."""

EVALUATION = tuple(name for name in SIZES if not name.endswith("/train"))
"""The eight splits that models are measured on."""

SPLIT_BY = {"refcoco": "unc", "refcoco+": "unc", "refcocog": "umd"}
_ALIASES = {
    "refcoco": ("refcoco", "RefCOCO"),
    "refcoco+": ("refcoco+", "refcocop", "refcocoplus", "RefCOCOplus", "RefCOCO+"),
    "refcocog": ("refcocog", "RefCOCOg"),
}
# How jxu124 calls splits, where it is otherwise; its `test` of RefCOCO and RefCOCO+ is unc's testA.
_SHARDS = {"val": ("val", "validation"), "testA": ("testA", "test")}


def find_files(name: str, data: Path) -> list[Path]:
    """Find the files of a split in a folder of annotations.

    Looked for in this order, under each spelling of the set: `refcoco_val` as .json, .jsonl or .parquet; the same as
    `refcoco/val`; parquet in shards, `refcoco/data/val-*.parquet` (jxu124 says `validation`, and `test` for testA);
    `refcoco/refs(unc).p`; `refcoco.zip`.

    Returns:
        One path, or the shards of one split in order.

    Raises:
        DataError: If there is none; the message says where to get one and where to put it.
    """
    family, _, split = name.partition("/")
    for alias in _ALIASES[family]:
        for stem in (f"{alias}_{split}", f"{alias}/{split}"):
            for suffix in (".json", ".jsonl", ".parquet"):
                if (data / (stem + suffix)).is_file():
                    return [data / (stem + suffix)]
        for folder in (data / alias, data / alias / "data"):
            for part in _SHARDS.get(split, (split,)):
                shards = sorted(folder.glob(f"{part}-*.parquet"))
                if shards:
                    return shards
        if (data / alias / f"refs({SPLIT_BY[family]}).p").is_file():
            return [data / alias]
        if (data / f"{alias}.zip").is_file():
            return [data / f"{alias}.zip"]
    minigpt4 = f"{family}_{split}.json from Vision-CAIR/MiniGPT-4 (eval_scripts/eval_data) or "
    raise DataError(
        f"no annotations of {name} in {str(data)!r}: take {minigpt4 if name in EVALUATION else ''}{family}.zip from "
        "lichengunc/refer, put it there, or say where it is (EGM_DATA, or --data-root where a command has that)"
    )


def check_size(name: str, data: Dataset, file: Path) -> None:
    """Hold what was read against the published size of a split.

    Raises:
        DataError: If expressions, referents or images differ, as far as they are known; the message says why, where the
            reason is known.
    """
    size, samples = SIZES[name], data.annotations()
    found = {"expressions": len(samples)}
    refs = [sample.meta.get("ref") for sample in samples]
    if None not in refs:
        found["refs"] = len({str(ref) for ref in refs})
    pictures = {str(sample.image) for sample in samples}
    found["images"] = len(pictures)
    wanted = size._asdict()
    wrong = [key for key, count in found.items() if wanted[key] is not None and count != wanted[key]]
    if not wrong:
        return
    counts = ", ".join(f"{found[key]:,} {key} instead of {wanted[key]:,}" for key in wrong)
    why = "it is incomplete or another split"
    more = any(found[key] > wanted[key] for key in wrong)
    if data.kind == lmms_lab.FORMAT.name and name.endswith("/val") and more:
        why = "lmms-lab's val mixes in 5,000 rows of the google split, which are no part of this one"
    raise DataError(
        f"{file} has {counts} for {name}: {why}; take MiniGPT-4's or UNC's files, or allow a part (--allow-partial)"
    )
