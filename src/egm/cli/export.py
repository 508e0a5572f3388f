"""`egm export`: answers to other people's tools."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from egm.cli import options
from egm.cli.printing import note, say_next
from egm.errors import DataError
from egm.terminal import shell_command, spaced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from egm.doors.answers import ExportedAnswer


IMPORT_TASKS: Final = "in Label Studio, make a project with the interface (.xml) and import the tasks (.json)"
"""What is done with tasks that are written for Label Studio."""


class AnswerForm(StrEnum):
    """What answers can be exported as."""

    COCO_RESULTS = "coco-results"
    LABEL_STUDIO = "label-studio"
    FIFTYONE = "fiftyone"


def export_command(
    answers: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A run of egm eval, or a file of egm ground --json.", show_default=False),
    ],
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="File to write: .json; of fiftyone the dataset.", show_default=False)
    ],
    form: Annotated[AnswerForm, typer.Option("--format", help="Whose form.", show_default=False)],
    images: options.Images = None,
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder to save drawn pictures to, those of SynthRef.", show_default=False),
    ] = None,
    field: Annotated[
        str | None, typer.Option(help="For fiftyone: the field of the answers; predictions.", show_default=False)
    ] = None,
    url: options.TaskUrl = None,
    allow_partial: options.AllowPartial = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a run's answers for pycocotools, Label Studio or FiftyOne.

    coco-results: OUT is what COCO.loadRes reads, and OUT with .truth.json in the place of .json the annotations, where
    the truth is known; each question is an image. label-studio: tasks with the answers as predictions and the true
    boxes as annotations, their pictures named relative to --images, and beside OUT the interface that they are made for
    (.xml). fiftyone: a dataset of that name with
    a sample for each picture; a name that is there gets the answers as another --field.
    """
    from egm.doors.answers import read_answers

    shown = (AnswerForm.FIFTYONE, AnswerForm.LABEL_STUDIO)
    for option, given, theirs in (
        ("--images", images, shown),
        ("--pictures", pictures, shown),
        ("--field", field, shown[:1]),
        ("--url", url, shown[1:]),
    ):
        if given is not None and form not in theirs:
            raise DataError(f"{option} is for {' and '.join(theirs)}, and not for {form}: leave it out")
    options.refuse_no_folder(images)
    if form is AnswerForm.FIFTYONE:
        from egm.doors.fiftyone import PREDICTION_FIELD, fiftyone_dataset

        found = read_answers(answers, allow_partial=allow_partial)
        dataset = fiftyone_dataset(found, out, images=images, pictures=pictures, field=field or PREDICTION_FIELD)
        print(spaced(f"{dataset.name}: {len(dataset)} samples"))
        say_next(shell_command("fiftyone", "app", "launch", dataset.name))
        return
    target = Path(out)
    if target.suffix != ".json":
        raise DataError(f"{out!r} is to be a file of JSON: end its name in .json")
    beside = target.with_suffix(".truth.json" if form is AnswerForm.COCO_RESULTS else ".xml")
    for path in (target, beside):
        if path.is_dir():
            raise DataError(f"{str(path)!r} is a folder: give another name for the file")
        if path.exists() and not force:
            raise DataError(f"{str(path)!r} is there already: give another name, or --force")
    found = read_answers(answers, allow_partial=allow_partial)
    if form is AnswerForm.LABEL_STUDIO:
        write_files(_tasks(found, url, pictures, images), target, beside)
        say_next(IMPORT_TASKS)
        return
    results, truth = _coco(found)
    write_files((results, truth), target, beside)
    if truth is not None:
        say_next(f"COCO({str(beside)!r}).loadRes({str(target)!r}) in pycocotools")


def _coco(answers: Sequence[ExportedAnswer]) -> tuple[Any, str | None]:
    from egm.doors.coco_results import coco_results

    results, truth = coco_results(answers)
    unsure = sum(sure is None for answer in answers for sure in answer.confidences)
    if unsure:
        note(f"{unsure:,} of {len(results):,} boxes have no confidence, and get the score 1: no precision ranks those")
    return results, json.dumps(truth, ensure_ascii=False) if answers[0].truths is not None else None


def _tasks(
    answers: Sequence[ExportedAnswer], url: str | None, pictures: Path | None, images: Path | None
) -> tuple[Any, str | None]:
    from egm.doors.answers import named_below, with_saved_pictures
    from egm.doors.label_studio import LABEL_CONFIG, answer_tasks

    if images is not None:
        answers = named_below(answers, images)
    elif folders := sorted({answer.folder for answer in answers if answer.folder}):
        note(f"pictures are named relative to {', '.join(folders)}; --images DIR names them relative to another folder")
    return answer_tasks(with_saved_pictures(answers, pictures), url=url or ""), LABEL_CONFIG


def write_files(content: tuple[Any, str | None], target: Path, beside: Path) -> None:
    """Write what is asked for as JSON, and what belongs to it, if anything does, and print their names.

    Where nothing belongs to it, what an earlier export left beside it goes.
    """
    from egm.files import write_text

    main, other = content
    target.parent.mkdir(parents=True, exist_ok=True)
    if other is None:
        beside.unlink(missing_ok=True)
    else:
        write_text(beside, other if other.endswith("\n") else f"{other}\n")
    write_text(target, json.dumps(main, ensure_ascii=False) + "\n")
    print(spaced(target))
    if other is not None:
        print(spaced(beside))
