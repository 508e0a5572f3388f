"""What a command says at its end: which command comes next, on standard error, and never among what programs read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from typer.testing import CliRunner

from egm.cli import options
from egm.terminal import shell_command

from .conftest import Egm

COMMANDS = [
    ("data synthetic --scenes 3 --out s", "egm data check s/val.jsonl, then egm eval s/val.jsonl"),
    (
        "data synthetic --split train --scenes 1 --out t",
        "egm data check t/train.jsonl, then egm sft RECIPE.yaml --set data.train=t/train.jsonl",
    ),
    ("data check s/val.jsonl", "egm eval s/val.jsonl"),
    ("data check s/val.jsonl --images s", "egm eval s/val.jsonl --images s"),
    ("data convert s/val.jsonl s/coco.json", "egm data check s/coco.json"),
    ("data convert s/val.jsonl other/rows.jsonl", "egm data check other/rows.jsonl --images HERE/s"),
    (
        "data convert s/val.jsonl tasks.json --format label-studio",
        "in Label Studio, make a project with the interface (.xml) and import the tasks (.json)",
    ),
    ("data convert s/val.jsonl l/task.yaml", "lmms-eval --include_path l --tasks egm_task"),
    (
        "eval s/val.jsonl --script right.txt --out run",
        "egm report run --gallery run/gallery.html --images HERE/s/images",
    ),
    ("eval synthref/val --limit 2 --script right.txt --out drawn", "egm report drawn --gallery drawn/gallery.html"),
    ("eval s/val.jsonl --script right.txt --shard 1/2 --out 1", "egm eval merge RUN... --out DIR, of all shards"),
    ("eval s/val.jsonl --script right.txt --shard 2/2 --out 2", "egm eval merge RUN... --out DIR, of all shards"),
    ("eval merge 1 2 --out whole", "egm report whole --gallery whole/gallery.html --images HERE/s/images"),
    ("export run run.json --format coco-results", "COCO('run.truth.json').loadRes('run.json') in pycocotools"),
    (
        "export run ls.json --format label-studio",
        "in Label Studio, make a project with the interface (.xml) and import the tasks (.json)",
    ),
    ("report run --gallery run/gallery.html --images s/images", "open run/gallery.html in a browser"),
    (
        "rationales synthref/train --teacher synthref --limit 8 --out r",
        "egm rationales report r, then egm sft RECIPE.yaml --set data.train=r/train.jsonl",
    ),
    (
        "rationales synthref/train --teacher synthref --limit 8 --shard 1/2 --out r1",
        "egm rationales report r1, then egm rationales merge RUN... --out DIR, of all shards",
    ),
    (
        "rationales synthref/train --teacher synthref --limit 8 --shard 2/2 --out r2",
        "egm rationales report r2, then egm rationales merge RUN... --out DIR, of all shards",
    ),
    ("rationales merge r1 r2 --out rs", "the command of a shard, without --shard and with --out rs"),
    ("rationales report r --rows 2", "open r/report.html in a browser"),
    (
        "doctor --record egm-tiny --no-simulate --picture 224 --out d.json",
        "egm doctor --server URL --reference d.json --picture 224",
    ),
    (
        "bench latency --model egm-tiny --requests 1 --warmup 0 --max-tokens 2 --codec qwen3_vl --device cpu",
        "egm eval DATASET --model egm-tiny --codec qwen3_vl --max-tokens 2 --device cpu",
    ),
]
"""Commands in an order in which each finds what it reads, and what they say last."""


def test_a_command_that_takes_long_says_what_comes_next(egm: Egm, tmp_path: Path) -> None:
    (tmp_path / "right.txt").write_text('</think> [{"bbox_2d": [0, 0, 500, 500], "label": "it"}]')
    said = []
    for command, _ in COMMANDS:
        outcome = egm(*command.split())
        assert outcome.code == 0, outcome.err
        assert "next:" not in outcome.out + outcome.err
        said.append((command, outcome.next.replace(str(tmp_path), "HERE")))
    assert said == COMMANDS


def test_a_run_whose_pictures_lay_in_a_file_is_reported_without_them(egm: Egm, tmp_path: Path) -> None:
    (tmp_path / "right.txt").write_text('</think> [{"bbox_2d": [0, 0, 500, 500], "label": "it"}]')
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    row = {"image": "a.png", "sent": "cup", "bbox": [0, 0, 20, 20], "height": 40, "width": 40}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    assert egm("data", "convert", "rows.jsonl", "p.parquet", "--embed").code == 0
    assert egm("eval", "p.parquet", "--script", "right.txt", "--out", "run").next == "egm report run"


def test_options_are_repeated_as_they_were_given() -> None:
    app = typer.Typer()

    @app.command()
    def command(
        context: typer.Context,
        names: Annotated[list[str] | None, typer.Option("--name")] = None,
        place: Annotated[Path | None, typer.Option("--in")] = None,
        warm: Annotated[bool, typer.Option("--warm/--cold")] = True,
        seed: int = 0,
        left: int = 0,
    ) -> None:
        typer.echo(shell_command(left, *options.given_again(context, "warm", "seed", "names", "place")))

    given = CliRunner().invoke(app, ["--name", "a", "--in", "my folder", "--cold", "--name", "b", "--left", "3"])
    assert given.output == "3 --cold --name a --name b --in 'my folder'\n"
    assert CliRunner().invoke(app, ["--seed", "0"]).output == "0 --seed 0\n"


def test_standard_output_is_for_programs(egm: Egm, tmp_path: Path) -> None:
    (tmp_path / "right.txt").write_text('</think> [{"bbox_2d": [0, 0, 500, 500], "label": "it"}]')
    assert egm("data", "synthetic", "--scenes", 1, "--out", ".").code == 0
    outcome = egm("eval", "val.jsonl", "--script", "right.txt", "--out", "run", "--json")
    assert json.loads(outcome.out)["all"]["n"] > 0
    assert outcome.next == f"egm report run --gallery run/gallery.html --images {tmp_path / 'images'}"


def test_faults_in_data_name_what_lists_them(egm: Egm, tmp_path: Path) -> None:
    row = {"image": "a.png", "sent": "cup", "bbox": [0, 0, 50, 50], "height": 9, "width": 9}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    outcome = egm("data", "check", "rows.jsonl")
    assert (outcome.code, outcome.next) == (1, "--list FILE writes all of it, one a line")
    listed = egm("data", "check", "rows.jsonl", "--list", "all.tsv")
    assert (listed.code, listed.next) == (1, "mend or drop these rows")


def test_what_ends_in_an_error_says_no_more(egm: Egm) -> None:
    outcome = egm("eval", "nowhere.jsonl")
    assert (outcome.code, outcome.next) == (2, "")
    assert "next:" not in outcome.err
