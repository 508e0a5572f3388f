"""`egm score`: score predictions that are already written, ours or anybody's, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from egm.cli import options
from egm.cli.printing import console, note
from egm.errors import EgmError
from egm.progress import progress_task, track
from egm.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from egm.failures import Neighbour
    from egm.journal import Record
    from egm.report.judge import Judgement
    from egm.report.predictions import Reading
    from egm.types import Sample


@options.without(
    ("--thinking/--no-thinking", bool, "--codec qwen3_vl is read after thinking, --codec qwen3_vl_instruct without"),
)
def score_command(
    predictions: Annotated[
        list[Path],
        typer.Argument(metavar="A [B]", help="A file of predictions, or two to compare.", show_default=False),
    ],
    data: options.Data = None,
    data_root: options.DataRoot = None,
    codec: options.TextCodec = None,
    pixels_of: Annotated[
        str,
        typer.Option(help="With a codec of pixels: those of the picture as the model saw it (seen), or original."),
    ] = "seen",
    expect: options.Expect = None,
    allow_partial: options.AllowPartial = False,
    as_json: options.AsJson = False,
    draws: Annotated[int, typer.Option(min=100, help="Draws of the bootstrap.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    judge: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Let a model behind an OpenAI-compatible server class every miss too."),
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The judge's name; a server of one model needs none.")
    ] = None,
    images: options.Images = None,
) -> None:
    """Score predictions: accuracy and IoU with 95 % intervals by picture, and every miss by kind.

    Reads journals of `egm eval`, VLM-R1's logs, the official implementation's output, lmms-eval's samples, Ref-Adv's
    predictions, and rows (JSON list or lines, .gz too) with id, or image and phrase, and with text or box (pixels, x1
    y1 x2 y2). Two files are compared on the items that both answer. --codec ask tells which conventions fit the
    answers, by their form alone, and scores nothing. A judge's key is taken from OPENAI_API_KEY; it is shown the
    pictures if --images says where they lie.
    """
    import json

    from egm.failures import run_notes
    from egm.journal import is_journal, read_header
    from egm.report import compare, interval_summary, read_records
    from egm.report.grid import terminal
    from egm.report.predictions import asked_of, neighbours_in
    from egm.report.tables import comparison_grids, judgement_grids, summary_grids

    if codec == "ask":
        _ask(predictions, _samples(data, data_root, allow_partial) if data else None, as_json=as_json)
        return
    if len(predictions) > 2:
        raise EgmError(f"give one file of predictions, or two to compare, not {len(predictions)}")
    if judge is None and (judge_model is not None or images is not None):
        raise EgmError("--judge-model and --images are for a judge: give its server with --judge URL")
    reading = _reading(codec, pixels_of)
    if reading is not None and all(path.exists() and is_journal(path) for path in predictions):
        raise EgmError("a journal's answers are read already, by the codec that it names: leave --codec out")
    wanted = options.check_expect(expect)
    if wanted is not None and any(path.exists() and is_journal(path) for path in predictions):
        raise EgmError("a journal says how many boxes were asked for: leave --expect out")
    samples = _samples(data, data_root, allow_partial) if data else None
    neighbours = neighbours_in(samples) if samples is not None else None
    files = [
        read_records(path, samples=samples, reading=reading, partial=allow_partial, expect=wanted)
        for path in predictions
    ]
    asked = [asked_of(path, samples) for path in predictions]
    how: dict[str, Any] = {"neighbours": neighbours, "draws": draws, "seed": seed}
    summaries = [interval_summary(records, **how) for records in track(files, "computing intervals")]
    with progress_task("comparing"):
        comparison = compare(*files, **how) if len(files) == 2 else None
    judgements = _judge(judge, judge_model, files, images, neighbours) if judge is not None else []
    for path, records in zip(predictions, files, strict=True):
        declared = None if reading is None else reading.codec.name
        named = read_header(path).codec["name"] if is_journal(path) else declared
        for line in run_notes(records, named):
            note(f"{path}: {line}" if len(files) > 1 else line)
    if as_json:
        scores = [
            {"predictions": str(path), "samples": sum(counts.values()) or None, **summary.to_dict()}
            for path, counts, summary in zip(predictions, asked, summaries, strict=True)
        ]
        for score, judgement in zip(scores, judgements, strict=False):
            score["judge"] = judgement.to_dict()
        print(
            json.dumps({"scores": scores, "comparison": None if comparison is None else comparison.to_dict()}, indent=2)
        )
        return
    out = console()
    for number, (letter, path, summary) in enumerate(zip("AB", predictions, summaries, strict=False)):
        out.print(printable(f"{letter}: {path}" if comparison else str(path)), style="bold", markup=False)
        grids = summary_grids(summary, asked[number]) + (judgement_grids(judgements[number]) if judgements else [])
        out.print(terminal(*grids))
    if comparison is not None:
        out.print(terminal(*comparison_grids(comparison, ("A", "B"))))


def _ask(paths: list[Path], samples: list[tuple[str, Sample]] | None, *, as_json: bool) -> None:
    import json

    from egm.cli.printing import plain_table
    from egm.codecs import fit_answers
    from egm.report.predictions import answers_in

    found = [(path, fit_answers(answers_in(path, samples=samples))) for path in paths]
    if as_json:
        print(json.dumps([{"predictions": str(path), **fitting.to_dict()} for path, fitting in found], indent=2))
        return
    out = console()
    for path, fitting in found:
        table = plain_table("codec", "own form", "other form", "no box", "why", names=1)
        for fit in fitting.fits:
            why = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(fit.failures.items()))
            table.add_row(fit.codec, str(fit.own), str(fit.repaired), str(fit.unread), why)
        out.print(printable(f"{path}: {fitting.boxed} of {fitting.answers} answers hold a box"), markup=False)
        out.print(table)
        if len(fitting.fitting) == 1:
            note(f"the form of every box is {fitting.fitting[0]}'s alone")
        elif fitting.fitting:
            note(
                f"the text does not tell {', '.join(fitting.fitting)} apart: whoever made the file knows which it is, "
                "and no score may choose"
            )
        elif fitting.boxed:
            note("no convention fits all boxes in its own form: the file mixes several, or holds one that is not known")


def _judge(
    url: str,
    model: str | None,
    files: list[list[Record]],
    images: Path | None,
    neighbours: Mapping[str, Sequence[Neighbour]] | None,
) -> list[Judgement]:
    from egm.backends.openai.backend import OpenAIBackend
    from egm.report.judge import judge_misses

    options.refuse_no_folder(images)
    try:
        judge = OpenAIBackend(url, model)
    except EgmError as error:  # which names the option by which other commands name a model
        raise type(error)(str(error).replace("--model", "--judge-model")) from None
    with judge as backend:
        return [judge_misses(records, backend, images=images, neighbours=neighbours) for records in files]


def _reading(codec: str | None, pixels_of: str) -> Reading | None:
    from egm.codecs import codec_names, get_codec
    from egm.report.predictions import Reading

    if pixels_of not in ("seen", "original"):
        raise EgmError(f"--pixels-of must be seen or original, not {pixels_of!r}")
    reader = None if codec is None else get_codec(codec)
    if pixels_of == "original" and not (reader is not None and reader.speaks_pixels):
        speaking = " or ".join(name for name in codec_names() if get_codec(name).speaks_pixels)
        raise EgmError(f"--pixels-of original needs --codec {speaking}: the other codecs do not speak pixels")
    return None if reader is None else Reading(reader, "original" if pixels_of == "original" else "seen")


def _samples(names: list[str], root: Path | None, allow_partial: bool) -> list[tuple[str, Sample]]:
    from egm.datasets import open_dataset, with_sizes
    from egm.datasets.benchmarks import refuse_parts

    refuse_parts(names)
    found: list[tuple[str, Sample]] = []
    for name in names:
        dataset = open_dataset(name, data=root, allow_partial=allow_partial)
        if any(split == dataset.name for split, _ in found):
            raise EgmError(
                f"{name!r} is called {dataset.name!r}, as another --data is: name each once, or rename the file"
            )
        found += [(dataset.name, sample) for sample in with_sizes(dataset)]
    return found
