"""Files of predictions that others write, each row as a `Prediction`: what it answers, and what it says.

- `{"results": [{question, ground_truth, model_output}]}`: VLM-R1's logs. The truth, `x1, y1, x2, y2`, comes with them.
- A folder with `dataset_info.json`, or rows `{image, sent, bbox, height, width, generated_result}`: the output of the
  official implementation. The truth comes with it.
- Rows `{doc, filtered_resps}`: lmms-eval's samples.
- Rows `{row_idx, file_name, normal_caption, gt_bbox_xyxy, pred_box_xyxy_first, model_full_name, prompt_id}`: Ref-Adv's
  published predictions, a file a model, with the box that its script read, in pixels. Source: `run.py` and `outputs/`
  of dddraxxx/Ref-Adv.
- Rows `{id, pred_bbox, format}`: what Ref-L4 and HC-RefLoCo score; `format` says xyxy or xywh, in pixels.
- Rows `{id}` or `{image, phrase}`, with `text` or `box`: anybody's. `box` is `x1, y1, x2, y2` in pixels of the original
  image, or null where there is none; one that encloses no area, such as 0, 0, 0, 0, is a miss. Of a row with both, the
  text is read where a codec is declared, and else the box is taken. `truth` (likewise), `width`, `height` and
  `finish_reason` are optional. Where not exactly one box is expected, `boxes` lists any number of boxes in the place of
  `box`, and `confidences` says from 0 to 1 how sure each is; an empty list, or `box` null, says that nothing matches.

A row gives one answer: several that differ, such as those of lmms-eval's repeats, are refused.

Rows stand in a JSON list or one a line; a file may be compressed with gzip.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from egm.boxes import Box
from egm.datasets.fields import identity, is_coordinate, pixels, short, xyxy
from egm.datasets.formats.ref_adv import count_distractors
from egm.datasets.inputs import JsonError, bounded_lines, load_json, open_regular, read_whole
from egm.errors import DataError
from egm.extras import need
from egm.types import Failure, LabelledBox, usual_finish_reason

MAX_ROWS = 1_000_000
"""Most predictions in one file: all of them are held together."""

_Row = Mapping[str, Any]
_LONGEST_NAME = 4096
_REF_ADV = "ref-adv-s/test"
_QUESTION = re.compile(r".*(?:describes|description)\s*:\s*(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row of such a file.

    Attributes:
        where: File and row, for messages.
        id: The sample's id, if given.
        image: Name of the picture, if given.
        phrase: What was asked, if given.
        text: What the model wrote; None where the row gives only a box.
        gives_box: Whether the row says which box it means, or that there is none.
        boxes: The boxes that it gives, in pixels of the original image.
        failure: Why there is none, where the row gives no text either.
        truth: The true box in pixels, if the row carries it.
        size: Width and height of the original image, if the row carries it.
        finish_reason: "stop", or "length" if the token limit cut the text off.
        split: The split that rows of this form are about, where there is only one.
        model: What answered, where the row says it.
        meta: Facts of the sample that the row carries.
    """

    where: str
    id: str | None = None
    image: str | None = None
    phrase: str | None = None
    text: str | None = None
    gives_box: bool = False
    boxes: tuple[LabelledBox, ...] = ()
    failure: Failure = Failure.NO_BOX
    truth: Box | None = None
    size: tuple[int, int] | None = None
    finish_reason: str = "stop"
    split: str = ""
    model: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


def read_predictions(path: Path) -> list[Prediction]:
    """Read a file, or the official implementation's output folder.

    Raises:
        DataError: If it cannot be read, or a row is none of the known ones; the message names file and row.
    """
    predictions = [_prediction(row, where) for where, row in islice(_rows(path), MAX_ROWS + 1)]
    if len(predictions) > MAX_ROWS:
        raise DataError(f"{path} holds more than {MAX_ROWS:,} rows: score it in parts")
    if not predictions:
        raise DataError(f"{path} holds no predictions")
    return predictions


def _rows(path: Path) -> Iterator[tuple[str, _Row]]:
    if path.is_dir():
        rows: Any = _saved_dataset(path)
    else:
        content, why = _content(path), None
        try:
            rows = load_json(content)
        except JsonError as error:
            rows, why = None, error
        if isinstance(rows, dict) and "results" in rows:
            rows = rows["results"]
        elif rows is None or isinstance(rows, dict):
            yield from _lines(content, path, why)
            return
        del content
    if not isinstance(rows, list):
        raise DataError(f"{path} is neither a list of rows nor rows line by line: `egm score --help` names the formats")
    for number, row in enumerate(rows, 1):
        yield f"{path} row {number}", _object(row, f"{path} row {number}")


def _content(path: Path) -> bytes:
    try:
        return read_whole(path, unpack=True)
    except FileNotFoundError:
        raise DataError(f"there are no predictions at {path}: check the path") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _lines(content: bytes, path: Path, why: JsonError | None) -> Iterator[tuple[str, _Row]]:
    if why is not None and content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        raise DataError(f"{path} {why}")  # one list, not rows line by line
    for number, (_, line) in enumerate(bounded_lines(io.BytesIO(content), path), 1):
        if line.strip():
            where = f"{path} line {number}"
            try:
                row = load_json(line)
            except JsonError as error:
                raise DataError(f"{where} {error}") from None
            yield where, _object(row, where)


def _object(row: Any, where: str) -> _Row:
    if not isinstance(row, dict):
        raise DataError(f"{where} must be an object, such as {{id, text}}")
    return row


def _saved_dataset(path: Path) -> list[Any]:
    if not (path / "dataset_info.json").exists():
        raise DataError(f"{path} is a folder without a journal or a saved dataset: give a file of predictions")
    need(f"reading the saved dataset {path}", "pyarrow")
    import pyarrow as pa  # type: ignore[import-untyped]

    # What `Dataset.save_to_disk` writes are Arrow streams: they hold no code, and pictures are left as they are.
    wanted = {"image", "sent", "bbox", "height", "width", "generated_result"}
    rows: list[Any] = []
    try:
        for file in load_json(read_whole(path / "state.json"))["_data_files"]:
            name = path / Path(file["filename"]).name
            open_regular(name).close()
            with pa.memory_map(str(name)) as source:
                names = pa.ipc.open_stream(source).schema.names
                source.seek(0)
                fields = [number for number, name in enumerate(names) if name in wanted]
                for batch in pa.ipc.open_stream(source, options=pa.ipc.IpcReadOptions(included_fields=fields)):
                    rows += batch.to_pylist()
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError(f"the saved dataset {path} cannot be read: {error}") from None
    return rows


def _prediction(row: _Row, where: str) -> Prediction:
    if "model_output" in row:
        question = str(row.get("question", row.get("problem", "")))
        asked = _QUESTION.fullmatch(question)
        phrase = asked[1] if asked else question
        return Prediction(
            where,
            id=_id(row, where),
            image=_image(row, "image"),
            phrase=re.sub(r"</?ref>", "", phrase).strip().removesuffix("."),
            text=_answer(row["model_output"], where),
            truth=_box(row.get("ground_truth"), "ground_truth", where),
            size=_size(row, where),
        )
    if "doc" in row and ("filtered_resps" in row or "resps" in row):
        doc = _object(row["doc"], f"{where}: doc")
        if not isinstance(doc.get("answer"), str):
            raise DataError(f"{where}: doc.answer must be the phrase; log the task that asks one phrase a row")
        return Prediction(
            where,
            image=_image(doc, "file_name") or _image(doc, "image"),
            phrase=doc["answer"],
            text=_answer(row.get("filtered_resps", row.get("resps")), where),
        )
    if "pred_box_xyxy_first" in row:
        return _ref_adv(row, where)
    if "pred_bbox" in row:
        return _with_format(row, where)
    if "generated_result" in row:
        return Prediction(
            where,
            image=_image(row, "image"),
            phrase=_text_or_none(row, "sent"),
            text=_answer(row["generated_result"], where),
            truth=_box(row.get("bbox"), "bbox", where),
            size=_size(row, where),
        )
    if "boxes" in row and "box" in row:
        raise DataError(f"{where} has box and boxes: keep one of them")
    if not {"text", "box", "boxes"} & row.keys():
        raise DataError(f"{where} has neither text nor box: `egm score --help` names the formats")
    empty = _encloses_nothing(row.get("box"))
    text = _answer(row.get("text"), where)
    return Prediction(
        where,
        id=_id(row, where),
        image=_image(row, "image"),
        phrase=_text_or_none(row, "phrase") or _text_or_none(row, "sent"),
        text=text if text.strip() or not {"box", "boxes"} & row.keys() else None,
        gives_box="box" in row or "boxes" in row,
        boxes=() if empty else _boxes(row, where),
        failure=Failure.DEGENERATE if empty else Failure.NO_BOX,
        truth=_box(row.get("truth"), "truth", where),
        size=_size(row, where),
        finish_reason=usual_finish_reason(str(row.get("finish_reason") or "stop")),
    )


def _ref_adv(row: _Row, where: str) -> Prediction:
    """A row of Ref-Adv's predictions: a box, or an empty list where its script found none."""
    number, listed = row.get("row_idx"), row["pred_box_xyxy_first"]
    if type(number) is not int or number < 0:
        raise DataError(f"{where}: row_idx must be the number of a row of the dataset, from 0")
    empty = _encloses_nothing(listed)
    box = None if listed == [] or empty else _box(listed, "pred_box_xyxy_first", where)
    asked = {"direct": "", "cot": ", CoT prompt"}.get(str(row.get("prompt_id")), f", {row.get('prompt_id')}")
    model = _text_or_none(row, "model_full_name")
    meta = {"distractors": count_distractors(row.get("distractor_count")), "use_negation": row.get("use_negation")}
    return Prediction(
        where,
        id=f"{_REF_ADV}/{number + 1}",
        image=_image(row, "file_name"),
        phrase=_text_or_none(row, "normal_caption"),
        gives_box=True,
        boxes=() if box is None else (LabelledBox(box),),
        failure=Failure.DEGENERATE if empty else Failure.NO_BOX,
        truth=_box(row.get("gt_bbox_xyxy"), "gt_bbox_xyxy", where),
        split=_REF_ADV,
        model=None if model is None else f"{model}{asked}",
        meta={key: value for key, value in meta.items() if isinstance(value, int)},
    )


def _with_format(row: _Row, where: str) -> Prediction:
    """A row that says how its box is meant."""
    form, numbers = row.get("format"), row["pred_bbox"]
    if form not in ("xyxy", "xywh"):
        raise DataError(f"{where}: format must be xyxy or xywh, not {short(form)}")
    if form == "xywh" and isinstance(numbers, list) and len(numbers) == 4 and all(map(is_coordinate, numbers)):
        numbers = [numbers[0], numbers[1], numbers[0] + numbers[2], numbers[1] + numbers[3]]
    empty = _encloses_nothing(numbers)
    box = None if empty else _box(numbers, "pred_bbox", where)
    return Prediction(
        where,
        id=_id(row, where),
        gives_box=True,
        boxes=() if box is None else (LabelledBox(box),),
        failure=Failure.DEGENERATE if empty else Failure.NO_BOX,
    )


def _answer(value: Any, where: str) -> str:
    """A text, out of the lists that some logs put around it; nothing at all is an empty answer."""
    values = [value]
    while any(isinstance(each, list) for each in values):
        values = [part for each in values for part in (each if isinstance(each, list) else [each])]
    for each in values:
        if each is not None and not isinstance(each, str):
            raise DataError(f"{where}: the answer must be text, not {type(each).__name__}")
    if len(set(values)) > 1:
        raise DataError(f"{where} holds {len(values)} answers that differ: keep one a sample")
    return values[0] or "" if values else ""


def _text_or_none(row: _Row, key: str) -> str | None:
    value = row.get(key)
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip() else None


def _image(row: _Row, key: str) -> str | None:
    """The name of a picture; some files hold the picture itself in its place."""
    name = _text_or_none(row, key)
    return None if name is None or name.startswith("data:") or len(name) > _LONGEST_NAME else name


def _id(row: _Row, where: str) -> str | None:
    try:
        return identity(row, "id", "") or None
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _box(numbers: Any, key: str, where: str) -> Box | None:
    if numbers is None:
        return None
    try:
        return xyxy(numbers, key)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _boxes(row: _Row, where: str) -> tuple[LabelledBox, ...]:
    """The boxes of a row, each with its confidence if the row says it."""
    if "boxes" not in row:
        box = _box(row.get("box"), "box", where)
        return () if box is None else (LabelledBox(box),)
    listed, sure = row["boxes"], row.get("confidences")
    if not isinstance(listed, list):
        raise DataError(f"{where}: boxes must be a list of boxes, none if nothing matches")
    found = [_box(numbers, "boxes", where) for numbers in listed]
    if sure is None:
        sure = [None] * len(found)
    elif not isinstance(sure, list) or not all(is_coordinate(share) and 0 <= share <= 1 for share in sure):
        raise DataError(f"{where}: confidences must be numbers from 0 to 1")
    if None in found or len(sure) != len(found):
        raise DataError(f"{where}: boxes must hold boxes alone, and confidences one number for each")
    return tuple(LabelledBox(box, None, share) for box, share in zip(found, sure, strict=True) if box is not None)


def _encloses_nothing(numbers: Any) -> bool:
    """Whether these are four numbers, but of no box: a model's mistake, where anything else is one of the file."""
    if not isinstance(numbers, list) or len(numbers) != 4 or any(type(n) not in (int, float) for n in numbers):
        return False
    x1, y1, x2, y2 = numbers
    return all(map(is_coordinate, numbers)) and not (x2 > x1 and y2 > y1)


def _size(row: _Row, where: str) -> tuple[int, int] | None:
    try:
        return pixels(row)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
