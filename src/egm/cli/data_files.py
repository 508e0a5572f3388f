"""`egm data check` and `egm data convert`: datasets that users have."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from egm.cli import options
from egm.cli.export import IMPORT_TASKS, write_files
from egm.cli.printing import console, note, say_next
from egm.codecs import DEFAULT_CODEC, get_codec
from egm.datasets.coco_names import coco_number
from egm.errors import DataError, nearest
from egm.files import write_text
from egm.terminal import printable, shell_command, spaced

if TYPE_CHECKING:
    from egm.datasets import Finding

_Source = Annotated[
    str, typer.Argument(metavar="DATASET", help="A split, such as refcoco/val, or a path.", show_default=False)
]
_SHOWN = 20
_TOOLS = {"label-studio": ".json", "lmms-eval": ".yaml"}
"""Formats of other people's tools that are not read row by row, with the ending of their files."""
_BESIDE = {"label-studio": ".xml", "lmms-eval": ".jsonl"}
"""What lies beside those."""


_NO_DATA = ("--data", str, "give the folder of the annotations with --data-root")


@options.without(_NO_DATA)
def check(
    context: typer.Context,
    dataset: _Source,
    images: options.Images = None,
    data_root: options.DataRoot = None,
    allow_partial: options.AllowPartial = False,
    from_codec: options.FromCodec = None,
    leaks: Annotated[bool, typer.Option(help="Look for images of the eight evaluation splits.")] = True,
    listing: Annotated[
        Path | None,
        typer.Option(
            "--list",
            metavar="FILE",
            help="File to write every problem to, one a line: kind, sample and detail between tabs.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Report malformed rows, missing images, wrong sizes, boxes outside, duplicates and leaks; exit with 1 if any.

    Samples that their own truth cannot answer, such as none or several boxes where one is expected, are reported too.
    A note says where boxes look as if they were on another scale than their format's.
    What follows a malformed row is checked all the same; egm eval and the trainings refuse such a row.
    Pictures are opened if --images is given, or where egm eval finds them: inside the file, beside a .jsonl, or in the
    current folder. Leaks are looked for in every dataset that is
    not one of the evaluation splits itself; that needs the annotations of all eight, see --data-root.
    """
    from egm.datasets import EVALUATION, SIZES, Malformed, check_dataset, open_dataset
    from egm.datasets.benchmarks import benchmark_of
    from egm.datasets.check import is_file, malformed_rows
    from egm.datasets.registry import evaluation_images
    from egm.datasets.scale_check import scale_notes

    options.refuse_no_folder(images)
    if listing is not None and listing.exists():
        raise DataError(f"{str(listing)!r} is there already: give --list another name")
    malformed: list[Malformed] = []
    try:
        opened = open_dataset(
            dataset,
            images=images,
            data=data_root,
            allow_partial=allow_partial,
            codec=from_codec,
            malformed=malformed,
        )
    except DataError as error:
        if not malformed:
            raise
        note(f"nothing else was looked at: {error}")  # such as that no other rows are there
        _report(dataset, 0, malformed_rows(malformed), listing)
        raise typer.Exit(1) from None
    notes, held_out = [], None
    is_benchmark = benchmark_of(opened.name) is not None
    if leaks and opened.name not in EVALUATION and not is_benchmark and opened.kind != "SynthRef":
        try:
            held_out = evaluation_images(data_root, allow_partial=allow_partial)
        except DataError as error:
            if data_root is not None:
                raise
            if any(coco_number(str(sample.image)) for sample in opened.annotations()) or not opened.names_files:
                notes.append(f"leaks were not looked for: {error}")  # which other names than COCO's never are
    look = images is not None or not opened.names_files or any(is_file(s.image) for s in opened.annotations())
    if not look:
        notes.append("images were not opened, as none is where egm eval would look: give --images")
    published = opened.name in SIZES or is_benchmark  # which repeat some rows, and stay as published
    if published:
        notes.append("repeats were not looked for: published splits hold some, and stay as published")
    found = check_dataset(opened, malformed=malformed, images=look, held_out=held_out, repeats=not published)
    notes += scale_notes(opened)
    for line in notes:
        note(line)
    _report(opened.name, len(opened), found, listing)
    if found:
        say_next("mend or drop these rows" if listing is not None else "--list FILE writes all of it, one a line")
        raise typer.Exit(1)
    places = options.given_again(context, "images", "data_root", "allow_partial")
    say_next(shell_command("egm", "eval", dataset, *places))


def _report(name: str, rows: int, found: list[Finding], listing: Path | None) -> None:
    from rich.table import Table
    from rich.text import Text

    out, name = console(), printable(name)
    if listing is not None:
        lines = ("\t".join(" ".join(part.split()) for part in astuple(finding)) for finding in found)
        write_text(listing, "".join(f"{line}\n" for line in lines))
    if not found:
        out.print(Text(f"{name}: {rows:,} samples, no problems"))
        return
    table = Table(title=Text(f"{name}: {rows:,} samples, problems: {len(found):,}"), title_justify="left")
    for heading in ("problem", "count", "sample", "detail"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "count" else "left")
    counts, shown = Counter(finding.kind for finding in found), Counter[str]()
    limit = max(1, _SHOWN // len(counts))
    for finding in found:
        shown[finding.kind] += 1
        first = shown[finding.kind] == 1
        if shown[finding.kind] <= limit:
            count = f"{counts[finding.kind]:,}" if first else ""
            # Names come from files: as Text they cannot hold markup.
            table.add_row(
                finding.kind if first else "", count, Text(printable(finding.sample)), Text(printable(finding.detail))
            )
        elif shown[finding.kind] == limit + 1:
            hint = "--list FILE writes all" if listing is None else f"all are in {listing}"
            table.add_row("", "", "...", Text(f"{counts[finding.kind] - limit:,} more: {hint}"))
    out.print(table)


@options.without(_NO_DATA)
def convert(
    dataset: _Source,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="File to write: .jsonl, .parquet, .json or .yaml.", show_default=False)
    ],
    kind: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="jsonl, parquet (RL), coco, qwen-vl-finetune, llama-factory, ms-swift, label-studio or lmms-eval; by "
            "default what OUT ends in.",
            show_default=False,
        ),
    ] = None,
    images: options.Images = None,
    data_root: options.DataRoot = None,
    allow_partial: options.AllowPartial = False,
    pictures: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder to save pictures to that are no files: those inside a file, drawn or mirrored."
        ),
    ] = None,
    codec: options.Codec = None,
    from_codec: options.FromCodec = None,
    prompt: options.Prompt = None,
    embed: Annotated[bool, typer.Option("--embed", help="Put the pictures into the parquet file.")] = False,
    url: options.TaskUrl = None,
    flip: Annotated[bool, typer.Option("--flip", help="Write the mirrored copies in place of the samples.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a dataset as rows of JSON, as parquet for reinforcement learning, as COCO JSON, or for other tools.

    Parquet holds the question of --codec in the style of --prompt, and the conversations of other trainers its question
    and its answer. Pictures are not copied: names stay relative to --images, or as they were; in parquet they are
    absolute, and the pictures have to be there, or are inside with --embed. Those inside a file, as lmms-lab's, are
    saved to --pictures, and named relative to it. Mirrored copies exchange left and right in the phrase; samples whose
    side no word tells, as at "2 o'clock", are left out. For lmms-eval, OUT is a task, and its rows lie beside it; for
    Label Studio, its interface does.
    """
    from egm.datasets import Flipped, open_dataset, write_dataset
    from egm.datasets.convert import ENDINGS, save_pictures

    endings = {**ENDINGS, **_TOOLS}
    if kind is None:
        kind = next((name for name, ending in endings.items() if out.suffix == ending), None)
    if kind is None:
        raise DataError(
            f"{str(out)!r} does not say which format: end it in {', '.join(dict.fromkeys(endings.values()))}"
        )
    if kind not in endings:
        raise DataError(f"there is no format {kind!r} to write: {nearest(kind, tuple(endings))}")
    if kind in _TOOLS and out.suffix != _TOOLS[kind]:
        raise DataError(f"{str(out)!r} is to be a file for {kind}: end its name in {_TOOLS[kind]}")
    for path in (out, out.with_suffix(_BESIDE[kind])) if kind in _BESIDE else (out,):
        if path.exists() and not force:
            raise DataError(f"{str(path)!r} is there already: give another name, or --force")
    if pictures is not None and images is not None and not flip:
        raise DataError("--images and --pictures are two folders of pictures: give the first where they are files")
    for name, given in (("--codec", codec), ("--prompt", prompt)):
        if given and kind in ("jsonl", "coco", "label-studio"):
            raise DataError(f"{name} is for formats that hold questions, and not for {kind}: leave it out")
    if embed and kind != "parquet":
        raise DataError(f"--embed is for parquet, which holds pictures, and not for {kind}: leave it out")
    if url is not None and kind != "label-studio":
        raise DataError(f"--url is for label-studio, and not for {kind}: leave it out")
    asked = None if codec is None else get_codec(codec)
    opened = open_dataset(dataset, images=images, data=data_root, allow_partial=allow_partial, codec=from_codec)
    opened = Flipped(opened) if flip else opened
    opened = opened if pictures is None else save_pictures(opened, pictures)
    if kind == "label-studio":
        from egm.doors.label_studio import LABEL_CONFIG, dataset_tasks

        write_files((dataset_tasks(opened, url=url or ""), LABEL_CONFIG), out, out.with_suffix(_BESIDE[kind]))
        say_next(IMPORT_TASKS)
        return
    if kind == "lmms-eval":
        from egm.doors.lmms_eval import lmms_eval_task

        task = lmms_eval_task(opened, out, codec=asked or get_codec(DEFAULT_CODEC), prompt=prompt)
        print(spaced(out))
        say_next(shell_command("lmms-eval", "--include_path", out.parent, "--tasks", task))
        return
    write_dataset(opened, out, kind, codec=asked, prompt=prompt, embed=embed)
    print(spaced(out))
    # Names stay relative to where the pictures lie, and only parquet says where that is.
    root = opened.root if opened.names_files and kind != "parquet" else None
    beside = root is None or root.resolve() == out.parent.resolve()
    places = () if beside else ("--images", root)
    say_next(shell_command("egm", "data", "check", out, *places))
