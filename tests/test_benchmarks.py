"""The benchmark of test-time compute in its tiny form."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from egm.backends.checkpoint import find_checkpoint
from egm.backends.numpy.backend import NumpyBackend
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.grounder import Grounder

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "test_time_compute.py"


@pytest.mark.integration  # ten seconds of answering
def test_votes_stops_and_budgets_are_compared_on_the_same_phrases(tmp_path: Path, warm_start: dict[str, str]) -> None:
    asked = ["--split", "val", "--scenes", "1", "--votes", "1", "2", "--stop", "0.95", "--budgets", "8"]
    command = [sys.executable, SCRIPT, "egm-tiny", "--device", "cpu", *asked, "--out", tmp_path]
    result = subprocess.run(command, env=os.environ | warm_start, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    written = json.loads((tmp_path / "results.json").read_text())
    rows = {row["name"]: row for row in written["rows"]}
    assert list(rows) == ["greedy", "votes 1", "votes 2", "stop at 0.95", "budget 8"]
    assert all(name in result.stdout for name in rows)
    assert rows["budget 8"]["tokens"] < rows["greedy"]["tokens"] < rows["votes 2"]["tokens"]
    assert rows["stop at 0.95"]["tokens"] <= rows["votes 2"]["tokens"]
    assert rows["greedy"]["gain"]["value"] == 0
    assert all((tmp_path / name).stat().st_size > 0 for name in ("tokens.png", "reliability.png"))


def test_a_line_of_the_chart_does_not_fold_back() -> None:
    line = runpy.run_path(str(SCRIPT))["line"]
    rows = [{"name": name, "tokens": n} for name, n in (("budget 8", 120), ("votes 1", 9), ("budget 16", 111))]
    assert [row["name"] for row in line(rows, "budget")] == ["budget 16", "budget 8"]


def test_every_benchmark_finds_what_it_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))  # as where a script is run
    for script in sorted(SCRIPT.parent.glob("*.py")):
        runpy.run_path(str(script), run_name="imported")


def test_the_page_shows_what_is_worked_out() -> None:
    page = (SCRIPT.parents[1] / "docs" / "scaling.md").read_text()
    for table in runpy.run_path(str(SCRIPT.with_name("rl_on_paper.py")))["tables"]():
        assert table in page


def test_a_step_on_paper_is_made_of_what_was_measured() -> None:
    paper = runpy.run_path(str(SCRIPT.with_name("rl_on_paper.py")))
    for at_once, rate in ((1, 1 / 0.592), (8, 9.7), (64, 33.2), (512, 33.2)):
        assert at_once / paper["wave"](at_once) == pytest.approx(rate)
    assert paper["floor"](1) == pytest.approx(
        3.56e-3, rel=0.01
    )  # as benchmarks/decode_floor.py has it, behind fewer tokens
    seconds = [sum(paper["parts"](gpus, 2048).values()) for gpus in paper["GPUS"]]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[-1] > paper["tail"](2048) > 0.8 * seconds[-1]
    for gpus in paper["GPUS"]:
        split = paper["apart"](gpus)
        assert 0 < split.drawing < gpus
        assert split.seconds < sum(paper["parts"](gpus, 2048).values())


def test_a_failed_launch_is_told_by_the_error_and_not_by_the_launcher() -> None:
    last_words = runpy.run_path(str(SCRIPT.with_name("several_gpus.py")))["last_words"]
    launcher = "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:\n=====\negm.cli FAILED\n====="
    assert last_words(f"step 1\nerror: it does not fit\n{launcher}") == "error: it does not fit"
    assert last_words(f"[rank1]: ValueError: no\n{launcher}") == "ValueError: no"
    assert last_words("Killed\n\n") == "Killed"


def test_losses_are_held_against_one_gpu_at_the_same_steps() -> None:
    table = runpy.run_path(str(SCRIPT.with_name("several_gpus.py")))["table"]
    alone = {"task": "lora", "way": "one", "shown": "1", "ended": "", "steps": {"1": 3.0, "2": 2.0, "3": 1.0}}
    resumed = {"task": "lora", "way": "fsdp2", "shown": "2 then 1", "ended": "", "steps": {"2": 2.0, "3": 1.25}}
    failed = {"task": "whole", "way": "zero3", "shown": "2", "ended": "error: no"}
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table([alone, resumed, failed]).splitlines()]
    assert [row[-2:] for row in rows[2:]] == [
        ["1: 3.0000, 2.0000, 1.0000", ""],
        ["2: 2.0000, 1.2500", "0.2500"],
        ["error: no", ""],
    ]


def test_latencies_stand_beside_their_floors_and_are_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    latency, file = runpy.run_path(str(SCRIPT.with_name("latency.py"))), tmp_path / "results.jsonl"
    plan = [("first-token", "bf16"), ("decode", "no-kernels"), ("phrases", "host-pixels"), ("drafts", "bf16")]
    latency["run"](file, "tiny-s", plan)
    assert not latency["left"](file, plan)
    rows = {(row["part"], row["way"]): row for row in latency["lines_of"](file) if row.get("floor")}
    assert set(rows) == set(plan)
    assert all(row["floor"] > 0 for row in rows.values())
    cases = [row["case"] for row in latency["lines_of"](file) if row.get("part") == "drafts" and "case" in row]
    assert [case.split(",")[0] for case in cases] == ["no drafts", "no drafts", "drafts", "drafts"]
    alone, drafted = (float(case.split()[-2]) for case in cases[1::2])
    assert 1 == alone < drafted  # tokens a pass, of texts that random weights would not write
    with file.open("a") as stream:
        stream.write('{"begun": ["decode", "no-ker')  # a run that was cut
    measured = len(latency["lines_of"](file))
    latency["run"](file, "tiny-s", plan)
    more = latency["lines_of"](file)[measured:]
    assert [set(line) for line in more] == [{"about", "made_in"}]
    table = latency["table"](latency["lines_of"](file))
    assert "tiny-s, float32" in table
    assert "| 2 phrases x 2 pictures in a call |" in table
    assert latency["left"](file, [*plan, ("request", "bf16")]) == [("request", "bf16")]


def test_where_two_answers_part_is_told_with_how_likely_either_goes_on() -> None:
    parting = runpy.run_path(str(SCRIPT.with_name("drafts.py")))["parting"]
    backend, sample = NumpyBackend(find_checkpoint("egm-tiny")), SynthRef("val").samples(0)[0]
    answer = Grounder(backend, get_codec("qwen3_vl")).ground(sample.image, sample.phrase).text
    at = answer.index("bbox_2d")
    told = parting(backend, get_codec("qwen3_vl"), sample, [answer, answer[:at] + "cube" + answer[at:]])
    place, own, other = re.fullmatch(r".*, token (\d+): without drafts .* (\S+), with drafts .* (\S+)", told).groups()
    assert int(place) == len(backend.tokenize(answer[:at]))
    assert float(other) < float(own) <= 0  # it wrote its own
