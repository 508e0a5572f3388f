"""`egm score`: score predictions that are already written, ours or anybody's, without a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from egm.cli.ground import clean
from egm.errors import EgmError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from egm.datasets import Dataset
    from egm.failures import Neighbour
    from egm.journal import Record
    from egm.report.judge import Judgement
    from egm.report.predictions import Reading
    from egm.types import Sample


def score_command(
    predictions: Annotated[
        list[Path],
        typer.Argument(metavar="A [B]", help="A file of predictions, or two to compare.", show_default=False),
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="What was asked: a split such as refcoco/val, or a file. May be given again for more splits."
        ),
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the annotations of named splits lie.")
    ] = None,
    codec: Annotated[
        str | None, typer.Option(help="How texts are read: qwen3_vl, qwen2_5_vl or internvl. Never guessed.")
    ] = None,
    pixels_of: Annotated[
        str, typer.Option(help="With qwen2_5_vl: pixels of the picture as the model saw it (seen), or original.")
    ] = "seen",
    thinking: Annotated[
        bool, typer.Option("--thinking/--no-thinking", help="With qwen3_vl: whether the template opened the reasoning.")
    ] = True,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Score what is answered, though a split has more samples.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    draws: Annotated[int, typer.Option(min=100, help="Draws of the bootstrap.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    judge: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Let a model behind an OpenAI-compatible server class every miss too."),
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The judge's name; a server of one model needs none.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="With --judge: where the pictures lie, to show them to it.")
    ] = None,
) -> None:
    """Score predictions: accuracy and IoU with 95 % intervals by picture, and every miss by kind.

    Reads journals of `egm eval`, VLM-R1's logs, the official implementation's output, lmms-eval's samples, and rows
    (JSON list or lines, .gz too) with id, or image and phrase, and with text or box (pixels, x1 y1 x2 y2). Two files
    are compared on the items that both answer. A judge's key is taken from OPENAI_API_KEY.
    """
    import json

    from rich.console import Console

    from egm.report import compare, interval_summary, read_records
    from egm.report.grid import terminal
    from egm.report.predictions import neighbours_in
    from egm.report.tables import comparison_grids, judgement_grids, summary_grids

    if len(predictions) > 2:
        raise EgmError(f"give one file of predictions, or two to compare, not {len(predictions)}")
    if judge is None and (judge_model is not None or images is not None):
        raise EgmError("--judge-model and --images are for a judge: give its server with --judge URL")
    reading = _reading(codec, pixels_of, thinking)
    samples = _samples(data, data_root, allow_partial) if data else None
    neighbours = neighbours_in(samples) if samples is not None else None
    files = [read_records(path, samples=samples, reading=reading, partial=allow_partial) for path in predictions]
    summaries = [interval_summary(records, neighbours=neighbours, draws=draws, seed=seed) for records in files]
    comparison = compare(*files, neighbours=neighbours, draws=draws, seed=seed) if len(files) == 2 else None
    judgements = _judge(judge, judge_model, files, images, neighbours) if judge is not None else []
    if as_json:
        scores = [
            {"predictions": str(path), **summary.to_dict()}
            for path, summary in zip(predictions, summaries, strict=True)
        ]
        for score, judgement in zip(scores, judgements, strict=False):
            score["judge"] = judgement.to_dict()
        print(
            json.dumps({"scores": scores, "comparison": None if comparison is None else comparison.to_dict()}, indent=2)
        )
        return
    console = Console(highlight=False)
    console = Console(highlight=False, width=max(console.width, 140)) if not console.is_terminal else console
    for number, (letter, path, summary) in enumerate(zip("AB", predictions, summaries, strict=False)):
        console.print(clean(f"{letter}: {path}" if comparison else str(path)), style="bold", markup=False)
        grids = summary_grids(summary) + (judgement_grids(judgements[number]) if judgements else [])
        console.print(terminal(*grids))
    if comparison is not None:
        console.print(terminal(*comparison_grids(comparison, ("A", "B"))))


def _judge(
    url: str,
    model: str | None,
    files: list[list[Record]],
    images: Path | None,
    neighbours: Mapping[str, Sequence[Neighbour]] | None,
) -> list[Judgement]:
    from egm.backends.openai.backend import OpenAIBackend
    from egm.report.judge import judge_misses

    if images is not None and not images.is_dir():
        raise EgmError(f"there is no folder {str(images)!r} of images: check --images")
    with OpenAIBackend(url, model) as backend:
        return [judge_misses(records, backend, images=images, neighbours=neighbours) for records in files]


def _reading(codec: str | None, pixels_of: str, thinking: bool) -> Reading | None:
    from egm.codecs import get_codec
    from egm.report.predictions import Reading

    if pixels_of not in ("seen", "original"):
        raise EgmError(f"--pixels-of must be seen or original, not {pixels_of!r}")
    if pixels_of == "original" and codec != "qwen2_5_vl":
        raise EgmError("--pixels-of original needs --codec qwen2_5_vl: the other codecs do not speak pixels")
    if codec is None:
        return None
    options = {"thinking_prefilled": thinking} if codec == "qwen3_vl" else {}
    return Reading(get_codec(codec, **options), "original" if pixels_of == "original" else "seen")


def _samples(names: list[str], root: Path | None, allow_partial: bool) -> list[tuple[str, Sample]]:
    from egm.datasets.registry import open_dataset

    found: list[tuple[str, Sample]] = []
    for name in names:
        dataset = open_dataset(name, data=root, allow_partial=allow_partial)
        found += [(dataset.name, sample) for sample in _sized(dataset)]
    return found


def _sized(dataset: Dataset) -> Iterator[Sample]:
    """The samples; where rows with pictures inside say no size, as lmms-lab's, with that of the picture."""
    from egm.images import load_image

    known: dict[str, tuple[int, int]] = {}
    for number, sample in enumerate(dataset.annotations()):
        if sample.size is None and not dataset.names_files:
            name = str(sample.image)
            if name not in known:
                known[name] = load_image(dataset[number].image).size
            sample = replace(sample, size=known[name])
        yield sample
