"""Rows that list several expressions for one box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from egm.boxes import Box
from egm.datasets.fields import Row, pixels
from egm.errors import DataError
from egm.types import Sample


def samples_of_list(row: Row, name: str, image: Path, phrases: Any, box: Box, meta: Row) -> list[Sample]:
    """Make a sample for each expression of a row.

    Args:
        row: Where the size is.
        name: Id of the row; the samples are `name/number`, counted from 1.
        image: The picture.
        phrases: The expressions.
        box: The box that all of them name.
        meta: What the samples keep; entries that are None are left out.

    Raises:
        DataError: If there are no expressions, or one is empty.
    """
    if not isinstance(phrases, list) or not phrases:
        raise DataError("has no expressions")
    if not all(isinstance(phrase, str) and phrase.strip() for phrase in phrases):
        raise DataError("has an expression that is empty or no string")
    size = pixels(row)
    meta = {key: value for key, value in meta.items() if value is not None}
    return [Sample(f"{name}/{n}", image, phrase, box, size, meta=meta) for n, phrase in enumerate(phrases, 1)]
