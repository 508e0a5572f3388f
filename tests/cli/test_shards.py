"""`egm eval --shard` and `egm eval merge`: what is typed, printed and refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from egm.journal import read_journal

from .conftest import Egm
from .test_suite import SUITE as ALL

SUITE = (*ALL, "--script", "right.txt")
pytestmark = pytest.mark.usefixtures("small_refcoco")  # of four pictures


def test_shards_of_a_suite_become_its_row(egm: Egm) -> None:
    whole = egm(*SUITE, "--out", "whole")
    for shard in ("1/3", "2/3", "3/3"):
        part = egm(*SUITE, "--shard", shard)
        assert part.code == 0, part.err
        assert f"scripted, only shard {shard}\n" in part.out
        assert "EGM-8B" not in part.out  # the table is the whole suite's
    folders = [f"runs/eval/scripted_refcoco_shard-{number}-of-3" for number in (3, 1, 2)]
    merged = egm("eval", "merge", *folders, "--out", "merged")
    assert (merged.code, merged.err) == (0, "")
    assert merged.out == whole.out.replace("whole", "merged")
    assert Path("merged/summary.json").read_bytes() == Path("whole/summary.json").read_bytes()
    assert read_journal("merged")[1] == read_journal("whole")[1]
    numbers = json.loads(egm("eval", "merge", *folders, "--out", "merged", "--json").out)
    assert numbers == {**json.loads(egm(*SUITE, "--out", "whole", "--json").out), "folder": "merged"}
    assert egm("report", "merged").code == 0
    assert egm(*SUITE, "--out", "merged").err.endswith("answers were there already\n")  # a run like any other


def test_what_is_not_finished_is_said(egm: Egm) -> None:
    for number in (1, 2):
        assert egm(*SUITE, "--shard", f"{number}/3", "--out", number).code == 0
    refused = egm("eval", "merge", 1, 2, "--out", "merged")
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "shard 3 of 3 is missing" in refused.err
    partial = egm("eval", "merge", 1, 2, "--out", "merged", "--allow-partial")
    assert (partial.code, partial.err) == (0, "note: shard 3 of 3 is missing\n")
    assert partial.next == "the command of a shard, without --shard and with --out merged"
    assert "incomplete" in partial.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*SUITE, "--shard", "4/3"), "there is no shard 4 of 3: give 1/N to N/N"),
        ((*SUITE, "--shard", "one"), "'one' is no shard: give its number and how many there are"),
        ((*SUITE, "--shard", "1/5"), "4 pictures cannot be dealt out to 5 shards"),
        (("eval", "merge", "nowhere", "--out", "merged"), "there is no journal at"),
        (
            ("eval", "merge", "x", "--out", "merged", "--max-errors", "9"),
            "max_errors 9.0 is out of range: give a",
        ),
        (("eval", "merge", "x", "--out", "merged", "--max-errors", "nan"), "max_errors nan is out of range"),
        (("eval",), "there is nothing to evaluate: name datasets"),
    ],
)
def test_bad_input_is_one_line(egm: Egm, arguments: tuple[object, ...], said: str) -> None:
    outcome = egm(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err.splitlines()[-1]
    assert outcome.err.count("error:") == 1


def test_eval_has_its_own_help_and_a_file_may_be_called_like_a_command(egm: Egm, tmp_path: Path) -> None:
    for words in (("eval", "--help"), ("eval", "run", "-h")):
        outcome = egm(*words)
        assert outcome.code == 0
        assert "--shard I/N" in outcome.out
    assert "egm eval merge [OPTIONS] {RUN...}" in egm("eval", "merge", "--help").out
    (tmp_path / "merge").write_text("no rows")
    assert "merge is no dataset" in egm("eval", "./merge", "--script", "right.txt").err


def test_the_scripts_of_the_documentation_run_all_shards_and_merge_them(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    array, loop = re.findall(r"```bash\n(.*?)```", page.partition("## Shards")[2], flags=re.DOTALL)[:2]
    (tmp_path / "egm").write_text(f'#!/bin/bash\nmkdir -p "${{@: -1}}"; echo "$@" >> {tmp_path}/calls\n')
    (tmp_path / "egm").chmod(0o755)

    def recorded(script: str, **environment: str) -> list[list[str]]:
        path = f"{tmp_path}:{os.environ['PATH']}"
        subprocess.run(["bash", "-eu", "-c", script], check=True, env={"PATH": path, **environment})
        calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
        (tmp_path / "calls").unlink()
        return calls

    number = int(re.findall(r"--array=1-(\d+)", array)[0])
    [call] = recorded(array, SLURM_ARRAY_TASK_ID="3")
    assert call[call.index("--shard") + 1] == f"3/{number}"
    assert call[-1].endswith("/3")
    *shards, merge = recorded(loop)
    assert sorted(call[call.index("--shard") + 1] for call in shards) == ["1/4", "2/4", "3/4", "4/4"]
    assert merge[:2] == ["eval", "merge"]
    assert merge[2 : merge.index("--out")] == sorted(call[-1] for call in shards)
