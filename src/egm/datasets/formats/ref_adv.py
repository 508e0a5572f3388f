"""Ref-Adv-s: `{image, file_name, normal_caption, solution, width, height}` in parquet, the picture in the file.

`solution` is `x1, y1, x2, y2` in pixels; `distractors` lists what could be taken for the referent, or as JSON.
Source: the reader of dddraxxx/Ref-Adv, `run.py` (Apache-2.0), which reads dddraxxx/ref-adv-s on the Hugging Face Hub.
"""

from __future__ import annotations

from typing import Any

from egm.datasets.fields import Row, pixels, text, xyxy
from egm.datasets.formats.base import Format
from egm.datasets.image_root import ImageRoot
from egm.datasets.inputs import JsonError, load_json
from egm.types import Sample

_FACTS = ("image_source", "human_authored", "use_negation")


def _read(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    """Read a row; `meta` gets the facts that its authors report by."""
    meta = {key: row[key] for key in _FACTS if row.get(key) is not None}
    if (count := count_distractors(row.get("distractors"))) is not None:
        meta["distractors"] = count
    picture = images(text(row, "file_name"))
    box = xyxy(row.get("solution"), "solution")
    return [Sample(name, picture, text(row, "normal_caption"), box, pixels(row), meta=meta)]


def count_distractors(said: Any) -> int | None:
    """How many distractors a row lists, whichever way; None where that cannot be told."""
    if isinstance(said, str):
        try:
            said = load_json(said.encode(errors="surrogatepass"))
        except JsonError:
            return None
    if isinstance(said, list):
        return len(said)
    return said if isinstance(said, int) and not isinstance(said, bool) and said >= 0 else None


_COLUMNS = frozenset({"image", "file_name", "normal_caption", "solution", "width", "height", "distractors", *_FACTS})
FORMAT = Format("Ref-Adv", frozenset({"normal_caption", "solution", "file_name"}), _read, columns=_COLUMNS)
