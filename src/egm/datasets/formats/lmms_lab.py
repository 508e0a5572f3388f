"""lmms-lab's RefCOCO: `{question_id, answer, bbox}` in parquet, the picture in the file.

`answer` is the list of expressions (`question` is not one), `bbox` is `x, y, width, height` in pixels. Source:
lmms-lab/RefCOCO and its sisters on the Hugging Face Hub.
"""

from __future__ import annotations

from egm.datasets.coco_names import image_of_ref
from egm.datasets.fields import Row, text, xywh
from egm.datasets.formats.base import Format
from egm.datasets.formats.expressions import samples_of_list
from egm.datasets.image_root import ImageRoot
from egm.types import Sample


def _read(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    """Read a row of lmms-lab: a sample for each expression."""
    ref = text(row, "file_name") if "file_name" in row else name
    phrases = row.get("answer")
    return samples_of_list(row, name, images(image_of_ref(ref)), phrases, xywh(row.get("bbox")), {"ref": ref})


FORMAT = Format("lmms-lab", frozenset({"question_id", "answer", "bbox"}), _read, lists="answer")
