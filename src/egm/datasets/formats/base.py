"""What a format of rows is; to add one, see "Add a format" in docs/data.md."""

from __future__ import annotations

from dataclasses import dataclass

from egm.datasets.fields import BoxScale
from egm.datasets.read_rows import RowReader


@dataclass(frozen=True, slots=True)
class Format:
    """A format of rows.

    Attributes:
        name: What messages call it.
        keys: The keys that show it: a row that has all of them is of this format.
        read: Makes the samples of a row.
        lists: The column that lists the expressions, if a row holds several samples.
        scale: On which scale its boxes are.
        columns: The columns of a parquet file that `read` looks at; None for all of them. Others are not read at all.
        picture_keys: Keys by which a row may name its picture, where it need not, as that may lie inside the file: a
            picture that nothing names is called by its digest (`PICTURE`). None where every row has to name it.
        nests: Whether a row holds objects of several expressions each: then no index tells where a sample is, and a
            file is read whole.
    """

    name: str
    keys: frozenset[str]
    read: RowReader
    lists: str | None = None
    scale: BoxScale = "pixels"
    columns: frozenset[str] | None = None
    picture_keys: frozenset[str] | None = None
    nests: bool = False
