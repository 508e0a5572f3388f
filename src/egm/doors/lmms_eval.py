"""A dataset as a task of lmms-eval (`--include_path`): its question, and its answer read by the codec that is declared.

`lmms_eval_task` writes the task's YAML, which names the functions below, and its rows beside it. Nothing here imports
lmms-eval: it imports this, in its own environment. Source: lmms-eval 0.7, `lmms_eval/api/task.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from egm._version import __version__
from egm.boxes import Box
from egm.codecs import Codec, get_codec
from egm.datasets.conversations import IMAGE, question_text
from egm.datasets.convert import image_name
from egm.datasets.dataset import Dataset
from egm.datasets.rl_rows import box_and_size
from egm.errors import DataError
from egm.files import write_text
from egm.images import check_picture_size, load_image
from egm.scoring import score

if TYPE_CHECKING:
    from PIL.Image import Image

METRICS: Final = ("acc@0.5", "mean_iou", "no_box")
"""What the task reports, each the mean over its rows: shares of hits and of answers without a box, and the IoU."""
_YAML = """\
task: {task}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {rows}
test_split: test
output_type: generate_until
reasoning_tags: none # the codec reads the whole text
doc_to_visual: !function egm.doors.lmms_eval.doc_to_visual
doc_to_text: !function egm.doors.lmms_eval.doc_to_text
doc_to_target: bbox
process_results: !function egm.doors.lmms_eval.process_results
generation_kwargs:
  max_new_tokens: {max_new_tokens}
  temperature: 0
  do_sample: false
metric_list:
{metrics}lmms_eval_specific_kwargs:
  default:
    images: {images}
metadata:
  version: "1.0"
  egm: {egm}
  codec: {codec}
  dataset: {dataset}
"""
_METRIC = """\
  - metric: {name}
    aggregation: mean
    higher_is_better: {better}
"""


def lmms_eval_task(
    dataset: Dataset, path: str | Path, *, codec: Codec, prompt: str | None = None, max_new_tokens: int = 4096
) -> str:
    """Write the YAML of a task, and its rows beside it as .jsonl.

    Args:
        dataset: Samples that expect one box, whose pictures are files of its root and whose sizes are known.
        path: The YAML; its folder is what `--include_path` is given.
        codec: Whose question is asked, and by whose convention answers are read.
        prompt: Prompt style of the codec; None takes its own.
        max_new_tokens: Most tokens of an answer.

    Returns:
        The task's name, `egm_` and that of the file.

    Raises:
        DataError: If a sample lacks its box or size or expects not exactly one box, the pictures are no files of one
            folder, or the name is none.
    """
    path = Path(path)
    if not dataset.names_files:
        raise DataError(f"the pictures of {dataset.name} are not files: save them too (--pictures DIR)")
    if not re.fullmatch(r"[\w-]+", path.stem, re.ASCII):
        raise DataError(f"{path.name!r} cannot name a task: letters, digits, _ and - alone, and .yaml")
    root = (dataset.root or Path()).resolve()
    lines = []
    for sample in dataset.annotations():
        box, (width, height) = box_and_size(sample)
        row = {
            "id": sample.id,
            "image": image_name(sample, root),
            "answer": sample.phrase,  # the phrase, as in lmms-lab's own rows, by which `egm score` finds the sample
            "question": question_text(sample, codec, prompt).replace(IMAGE, ""),
            "bbox": list(box),
            "width": width,
            "height": height,
            "amodal": sample.amodal,
            "codec": codec.name,
        }
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    task, rows = f"egm_{path.stem}", path.with_suffix(".jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(rows, "".join(lines))
    metrics = (_METRIC.format(name=json.dumps(name), better=str(name != "no_box").lower()) for name in METRICS)
    facts = {"task": task, "rows": str(rows.resolve()), "images": str(root), "egm": __version__}
    facts |= {"codec": codec.name, "dataset": dataset.name}
    quoted = {key: _quoted(value) for key, value in facts.items()}
    write_text(path, _YAML.format(**quoted, metrics="".join(metrics), max_new_tokens=max_new_tokens))
    return task


def _quoted(text: str) -> str:
    """Write a text as YAML reads it: what can be read stands as it is."""
    shown = json.dumps(text, ensure_ascii=False)
    return "".join(sign if sign.isprintable() else f"\\U{ord(sign):08x}" for sign in shown)


def doc_to_visual(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any]) -> list[Image]:
    """Load the picture of a row, upright, from the folder that the task names and from nowhere else.

    Raises:
        ImageError: If there is none, or it is of another size than the row says.
    """
    picture = load_image(str(doc["image"]), root=Path(lmms_eval_specific_kwargs["images"]))
    check_picture_size((doc["width"], doc["height"]), picture.size)
    return [picture]


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:  # noqa: ARG001
    """Return the codec's question."""
    return str(doc["question"])


def process_results(doc: Mapping[str, Any], results: Sequence[str], **_: Any) -> dict[str, float]:
    """Read an answer by the row's codec, and score it against the true box.

    lmms-eval does not tell whether a text was cut off: such an answer counts as one without a box.

    Returns:
        A value for each of `METRICS`.
    """
    grounding = get_codec(doc["codec"]).parse(
        results[0] if results else "",
        size=(doc["width"], doc["height"]),
        amodal=bool(doc["amodal"]),
        phrase=str(doc["answer"]),
    )
    found = score(grounding, Box(*doc["bbox"]))
    return dict(zip(METRICS, (float(found.hit()), found.iou, float(found.failure is not None)), strict=True))
