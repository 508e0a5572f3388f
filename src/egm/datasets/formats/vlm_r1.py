"""VLM-R1's rows for referring expressions: `{image, problem, solution}`, and often `normal_caption`, height and width.

`solution` is `x1, y1, x2, y2` in pixels of the original image. `normal_caption` is the expression; `problem` is the
expression or the question around it. Source: om-ai-lab/VLM-R1, `rec_jsons_processed`.
"""

from __future__ import annotations

from egm.datasets.fields import Row, name_of_picture, pixels, refuse_several_pictures, text, xyxy
from egm.datasets.formats.base import Format
from egm.datasets.image_root import ImageRoot
from egm.datasets.question_phrases import phrase_of
from egm.errors import DataError
from egm.types import Sample


def _read(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    """Read a row."""
    problem = text(row, "problem")
    refuse_several_pictures(problem)
    try:
        asked = phrase_of(problem)[0]
    except DataError:
        asked = problem
    return [
        Sample(
            id=name,
            image=images(name_of_picture(row.get("image"))),
            phrase=text(row, "normal_caption") if "normal_caption" in row else asked,
            box=xyxy(row.get("solution"), "solution"),
            size=pixels(row),
            meta={key: row[key] for key in ("dataset_name", "text_type") if isinstance(row.get(key), str)},
        )
    ]


FORMAT = Format("VLM-R1", frozenset({"image", "problem", "solution"}), _read)
