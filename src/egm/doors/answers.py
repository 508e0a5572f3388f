"""What models answered, as other tools are told it: from a journal, or from the lines of `egm ground --json`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from egm.boxes import Box
from egm.datasets import jsonl
from egm.datasets.convert import save_picture
from egm.datasets.fields import flag, is_coordinate, pixels, short, text, xyxy
from egm.datasets.image_root import ImageRoot
from egm.errors import DataError, EgmError, ImageError
from egm.images import check_picture_size, read_picture_header
from egm.journal import Header, Record, is_journal
from egm.report.gallery import drawn_again
from egm.report.runs import load_runs
from egm.types import EXPECTS, Expect


@dataclass(frozen=True, slots=True)
class ExportedAnswer:
    """An answer to one question.

    Attributes:
        id: Unique among the answers that are exported together.
        image: Name of the picture, as the journal or the line has it.
        phrase: What was asked.
        size: Width and height of the upright image in pixels, if known.
        boxes: The boxes that count, in pixels.
        confidences: Of each box, or of the answer, where known.
        truths: The true boxes; None where they are not known.
        failure: Why there is no answer, if there is none.
        split: The split of the sample; empty where there is none.
        iou: IoU with the truth, see `egm.types.Score`; None where it is not known.
        model: What answered.
        expect: How many boxes were asked for.
        amodal: Whether the whole object was asked for.
        folder: What `image` is relative to, as the journal has it; empty for the current folder.
    """

    id: str
    image: str
    phrase: str
    size: tuple[int, int] | None
    boxes: tuple[Box, ...]
    confidences: tuple[float | None, ...]
    truths: tuple[Box, ...] | None
    failure: str | None
    split: str
    iou: float | None
    model: str
    expect: Expect = "one"
    amodal: bool = False
    folder: str = ""


def read_answers(path: str | Path, *, allow_partial: bool = False) -> list[ExportedAnswer]:
    """Read a journal of `egm eval`, or a file of what `egm ground --json` printed.

    Args:
        path: A run folder, a journal, or the file.
        allow_partial: Take a run that has not ended, or a shard.

    Raises:
        DataError: If it is neither, or damaged; the message names file and line.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"there is nothing at {str(path)!r}: give a run of `egm eval`, or lines of `egm ground --json`")
    if is_journal(path):
        (run,) = load_runs([path], allow_partial=allow_partial)
        several = len(run.split_sizes) > 1
        return [_of_record(record, run.header, several=several) for record in run.records]
    if path.is_dir():
        raise DataError(f"{str(path)!r} holds no journal: give a run folder of `egm eval`")
    answers: list[ExportedAnswer] = []
    for where, row in jsonl.read_lines(path):
        if isinstance(row, DataError):
            raise DataError(f"{path} {where}: {row}")
        try:
            answers.append(_of_line(row, f"{path.name}/{len(answers) + 1}"))
        except EgmError as error:
            raise DataError(f"{path} {where}: {error}: give what `egm ground --json` printed, or a run") from None
    if not answers:
        raise DataError(f"{path} holds no answers: give what `egm ground --json` printed, or a run")
    return answers


def _of_record(record: Record, header: Header, *, several: bool) -> ExportedAnswer:
    boxes = tuple(Box(*corners) for corners in record.answered)
    sure = record.confidences or (record.confidence,) * len(boxes)
    return ExportedAnswer(
        id=f"{record.split}:{record.id}" if several else record.id,
        image=record.image,
        phrase=record.phrase,
        size=record.size,
        boxes=boxes,
        confidences=sure,
        truths=tuple(Box(*corners) for corners in record.true_boxes),
        failure=record.failure,
        split=record.split,
        iou=record.iou,
        model=header.model,
        expect=record.expect,
        amodal=record.amodal,
        folder=header.images,
    )


def _of_line(row: Mapping[str, Any], name: str) -> ExportedAnswer:
    """Read what `Grounding.to_dict` says, with `image` and `model` beside it."""
    expect, failure, model = row.get("expect", "one"), row.get("failure"), row.get("model", "")
    if expect not in EXPECTS:
        raise DataError(f"expect {short(expect)} is none of {', '.join(EXPECTS)}")
    if not (failure is None or isinstance(failure, str)) or not isinstance(model, str):
        raise DataError("failure and model must be words")
    listed = row.get("boxes")
    if "box" not in row or not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise DataError("has no box and boxes")
    found = [(xyxy(item.get("box"), "box"), item.get("confidence", row.get("confidence"))) for item in listed]
    if expect != "all":
        # The share of votes is the answer's own; without votes a box may have one.
        own = row["confidence"] if row.get("confidence") is not None else next((sure for _, sure in found), None)
        found = [] if row["box"] is None else [(xyxy(row["box"], "box"), own)]
    if failure is not None and found:
        raise DataError(f"has a box, and the failure {short(failure)}")
    if not all(sure is None or (is_coordinate(sure) and 0 <= sure <= 1) for _, sure in found):
        raise DataError("a confidence must be a number from 0 to 1")
    return ExportedAnswer(
        id=name,
        image=text(row, "image"),
        phrase=text(row, "phrase"),
        size=_size(row.get("size")),
        boxes=tuple(box for box, _ in found),
        confidences=tuple(sure for _, sure in found),
        truths=None,
        failure=failure,
        split="",
        iou=None,
        model=model,
        expect=expect,
        amodal=flag(row, "amodal"),
    )


def _size(sides: Any) -> tuple[int, int] | None:
    if sides is None:
        return None
    if not isinstance(sides, list) or len(sides) != 2:
        raise DataError(f"size {short(sides)} is not width and height in pixels")
    return pixels({"width": sides[0], "height": sides[1]})


def known_size(answer: ExportedAnswer) -> tuple[int, int]:
    """Return the size of an answer's picture.

    Raises:
        DataError: If it is not known, so that nothing relative to it can be written.
    """
    if answer.size is None:
        raise DataError(f"the size of {answer.image!r} is not known, which {answer.id!r} needs: ask about it again")
    return answer.size


class PictureFiles:
    """Finds the files of answers' pictures, none of them outside one folder; those of SynthRef are drawn and saved.

    Args:
        images: Folder that the names are relative to.
        pictures: Folder to save drawn pictures to.
    """

    def __init__(self, images: Path | None, pictures: Path | None) -> None:
        self._images = ImageRoot(Path() if images is None else images)
        self._pictures = None if pictures is None else ImageRoot(pictures)
        self._found: dict[str, tuple[Path, tuple[int, int]]] = {}

    def __call__(self, answer: ExportedAnswer) -> tuple[Path, tuple[int, int]]:
        """Return the file, absolute, and the size of the upright picture.

        Raises:
            DataError: If the name leads out of the folder, or a drawn picture has nowhere to go.
            ImageError: If there is no picture, or it is of another size than was asked about.
        """
        if answer.image not in self._found:
            self._found[answer.image] = self._find(answer)
        path, size = self._found[answer.image]
        check_picture_size(answer.size, size)
        return path, size

    def _find(self, answer: ExportedAnswer) -> tuple[Path, tuple[int, int]]:
        drawn = drawn_again(answer.image)
        if drawn is not None and self._pictures is not None:
            path = self._pictures(answer.image.rpartition(":")[2].removesuffix(".png") + ".png")
            save_picture(path, drawn)
            return path.absolute(), drawn.size
        _refuse_inside(answer)
        path = self._images(answer.image).absolute()
        if drawn is not None and not path.is_file():
            raise DataError(f"the picture {answer.image!r} is drawn, and no file: say where to save it with --pictures")
        try:
            return path, read_picture_header(path)[0]
        except ImageError as error:
            raise ImageError(f"{error} (--images)") from None


def _refuse_inside(answer: ExportedAnswer) -> None:
    """Refuse a picture that lay in the file of its dataset, or was drawn: other tools open files."""
    if answer.split and answer.image.startswith(f"{answer.split}:"):
        raise DataError(
            f"the picture of {answer.id!r} is no file: --pictures DIR saves those of SynthRef, and `egm data convert` "
            "those inside a dataset's file, for another run"
        )


def named_below(answers: Sequence[ExportedAnswer], root: Path) -> list[ExportedAnswer]:
    """Name pictures relative to a folder, and not to the one that all pictures of the run happen to share.

    Args:
        answers: Their pictures are files, or drawn: those of SynthRef keep their names.
        root: The folder; neither it nor a picture has to be there.

    Raises:
        DataError: If a picture lies outside.
    """
    named, tops = [], (Path(os.path.normpath(root.absolute())), root.resolve())
    for answer in answers:
        if drawn_again(answer.image) is None:
            _refuse_inside(answer)
            path = Path(os.path.normpath(Path(answer.folder, answer.image).absolute()))
            top = next((top for top in tops if path.is_relative_to(top)), None)
            if top is None:
                raise DataError(f"the picture {str(path)!r} of {answer.id!r} is not below {str(root)!r} (--images)")
            answer = replace(answer, image=path.relative_to(top).as_posix(), folder=str(top))
        named.append(answer)
    return named


def with_saved_pictures(answers: Sequence[ExportedAnswer], pictures: Path | None) -> list[ExportedAnswer]:
    """Save the drawn pictures of answers, those of SynthRef, and name the files, relative to the folder.

    Raises:
        DataError: If a picture is drawn and there is no folder, or lies in the file of its dataset.
    """
    find, named = PictureFiles(None, pictures), []
    for answer in answers:
        if pictures is not None and drawn_again(answer.image) is not None:
            path, _ = find(answer)
            named.append(replace(answer, image=path.relative_to(pictures.resolve()).as_posix()))
        else:
            _refuse_inside(answer)
            named.append(answer)
    return named


def by_picture(answers: Sequence[ExportedAnswer]) -> dict[str, list[ExportedAnswer]]:
    """Group answers by the name of their picture, in the order in which these first occur."""
    groups: dict[str, list[ExportedAnswer]] = {}
    for answer in answers:
        groups.setdefault(answer.image, []).append(answer)
    return groups
