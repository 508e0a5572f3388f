"""From questions to a gate, on the command line and in Python, and from the gate to answers."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from egm.backends import Backend, GenerationSettings, Request
from egm.boxes import Box
from egm.calibrate import calibrate, read_pairs
from egm.cli.commands import app
from egm.codecs import get_codec
from egm.errors import DataError
from egm.evaluate import evaluate
from egm.grounder import Grounder
from egm.thinking import read_gate
from egm.types import Completion, Expect, Sample

CODEC = get_codec("qwen3_vl")
PICTURES = 120
LEARNER = {"backend": "Learner"}


class Learner(Backend):
    """Sees at once what is easy, and knows that it does not see the rest; thinks its way to both."""

    model = "learner"
    thinking_budgets = True

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Request) -> Completion:
        asked = request.messages[0]["content"][-1]["text"]
        if not request.prefill:
            return Completion("a thought\n</think>\n\n[[0, 0, 500, 1000]]", "stop", 10, 100, reasoning_tokens=90)
        easy = "easy" in asked
        box = "0, 0, 500, 1000" if easy else "500, 500, 999, 999"
        box = box if request.prefill.endswith("[") else '[{"bbox_2d": [' + box  # where there might be none
        return Completion(box + "]}]", "stop", 14, 10, token_logprobs=((3, -0.1 if easy else -3.0), (len(box), 0.0)))


def samples() -> list[Sample]:
    return [
        Sample(
            f"s{picture}-{number}", image, f"the {'easy' if (picture + number) % 3 else 'hard'} one", Box(0, 0, 20, 40)
        )
        for picture in range(PICTURES)
        for image in [Image.new("RGB", (40, 40), (picture, 0, 0))]
        for number in range(2)
    ]


def run(folder: Path, think: str, expect: Expect | None = None, **others: Any) -> Path:
    settings = GenerationSettings(think=think, **others)  # type: ignore[arg-type]
    evaluate(samples(), Grounder(Learner(), CODEC, settings=settings), folder, progress=False, expect=expect)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return run(folder / "never", "never"), run(folder / "always", "always")


def test_a_gate_is_fitted_written_and_used(runs: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "gate"
    result = CliRunner().invoke(
        app, ["calibrate", "--direct", str(runs[0]), "--thinking", str(runs[1]), "--points", "5", "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    assert "thinks about 3" in result.output
    assert "saves 5" in result.output
    assert "% of those of reasoning)" in result.output
    gate = read_gate(out)
    assert (gate.model, gate.codec["name"], gate.prompt["style"]) == ("learner", "qwen3_vl", "qwen3")
    assert gate.measure in ("mean", "least")
    assert -3.0 < (gate.threshold or 0) <= -0.05
    bound, expected = gate.facts["bound"], gate.facts["expected"]
    assert (bound["points"], bound["confidence"], bound["most_questions"]) == (5, 0.95, 2)
    assert expected["accuracy"] == expected["accuracy_always"] == 1.0
    assert expected["tokens"] == pytest.approx(10 + 100 * expected["thought"])
    assert expected["tokens_always"] == 100
    with (out / "frontier.csv").open() as file:
        names = [row["name"] for row in csv.DictReader(file)]
    assert names == ["always", "the gate", "not certified", "never"]
    for suffix in (".png", ".svg"):
        assert (out / f"frontier{suffix}").stat().st_size > 1000
    settings = GenerationSettings(think="auto")
    grounder = Grounder(Learner(), CODEC, settings=settings, gate=out)
    used = evaluate(samples(), grounder, tmp_path / "auto", progress=False).summary()["all"]
    assert (used["accuracy"], used["thinking"]["thought"]) == (1.0, pytest.approx(1 / 3, abs=0.01))
    assert used["tokens"]["completion"] == pytest.approx(10 + 100 * used["thinking"]["thought"])


def test_what_it_costs_and_how_it_is_used_are_said(runs: tuple[Path, Path], tmp_path: Path) -> None:
    asked = ["calibrate", "--direct", str(runs[0]), "--thinking", str(runs[1]), "--out", str(tmp_path)]
    all_direct = CliRunner().invoke(app, [*asked, "--points", "45"]).output
    assert "thinks about 0.0 % of the questions" in all_direct
    assert "at a loss of 32.81 points" in all_direct
    assert f"next: egm eval DATASET --model learner --think auto --gate {tmp_path / 'gate.json'}" in all_direct


def test_what_was_asked_for_another_number_of_boxes_is_used_so(tmp_path: Path) -> None:
    both = [run(tmp_path / think, think, "any") for think in ("never", "always")]
    asked = ["calibrate", "--direct", str(both[0]), "--thinking", str(both[1]), "--points", "99"]
    said = CliRunner().invoke(app, [*asked, "--out", str(tmp_path)]).output
    assert "next: egm eval DATASET --model learner --expect any --think auto" in said


def test_in_python_it_is_the_same(runs: tuple[Path, Path]) -> None:
    gate, found = calibrate(*runs, points=5)
    assert found.chosen is not None
    assert gate.threshold == found.chosen.threshold
    assert gate.facts["datasets"]["samples"]["n"] == 2 * PICTURES
    assert json.loads(gate.to_json())["settings"] == {
        name: value for name, value in gate.settings.items() if name not in ("think", "seed")
    }


def test_runs_that_do_not_go_together_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    never, always = runs
    with pytest.raises(DataError, match="was not asked with --think never"):
        read_pairs(always, always)
    with pytest.raises(DataError, match="was not asked with --think always"):
        read_pairs(never, never)
    other = run(tmp_path / "other", "always", max_new_tokens=99)
    with pytest.raises(DataError, match=r"differ in more .* settings.max_new_tokens is 4096, was 99"):
        read_pairs(never, other)
    lines = (always / "journal.jsonl").read_text().splitlines()
    short = tmp_path / "short"
    short.mkdir()
    (short / "journal.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(DataError, match=r"of 240 questions 240 have a direct answer and 239 one after thinking"):
        read_pairs(never, short)
    failed = {**json.loads(lines[-1]), "failure": "error", "error": "x", "box": None, "iou": 0.0, "finish_reason": None}
    (short / "journal.jsonl").write_text("\n".join([*lines[:-1], json.dumps(failed)]) + "\n")
    with pytest.raises(DataError, match="1 answers are errors of the engine"):
        read_pairs(never, short)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--direct", "x"], "give both, or neither"),
        (["--direct", "x", "--thinking", "y", "--model", "egm-tiny"], "--model is for asking"),
        (["synthref/val", "--scenes", "3"], "3 pictures are too few"),
        (["synthref/val", "--scenes", "3", "--points", "1e-320"], "ask about 1,000,000,002 at least"),
    ],
)
def test_bad_input_is_refused_before_anything_is_asked(arguments: list[str], said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["calibrate", *arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code != 0
    assert said in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_where_direct_answers_are_wrong_the_gate_always_thinks(runs: tuple[Path, Path], tmp_path: Path) -> None:
    class Blind(Learner):
        def answer(self, request: Request) -> Completion:
            told = super().answer(request)
            return replace(told, text=told.text.replace("0, 0, 500", "900, 900, 950")) if request.prefill else told

    settings = GenerationSettings(think="never")
    evaluate(samples(), Grounder(Blind(), CODEC, settings=settings), tmp_path / "blind", engine=LEARNER, progress=False)
    arguments = ["--direct", str(tmp_path / "blind"), "--thinking", str(runs[1]), "--points", "5"]
    result = CliRunner().invoke(app, ["calibrate", *arguments, "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "no threshold saves tokens within the bound: the gate always thinks" in result.output
    gate = read_gate(tmp_path)
    assert (gate.threshold, gate.facts["expected"]["thought"]) == (None, 1.0)
    used = Grounder(Learner(), CODEC, settings=GenerationSettings(think="auto"), gate=gate)
    assert used.ground(Image.new("RGB", (40, 40)), "the easy one").tokens == 100


def test_a_model_here_is_asked_both_ways_and_gone_on_with(tmp_path: Path) -> None:
    arguments = ["calibrate", "synthref/val", "--scenes", "3", "--points", "80", "--confidence", "0.6"]
    arguments += ["--max-tokens", "60", "--out", str(tmp_path)]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output  # cut off while it reasons it is wrong, so direct answers lose nothing
    gate = read_gate(tmp_path)
    assert (gate.model, len(gate.tensors or ""), gate.facts["bound"]["points"]) == ("egm-tiny", 16, 80)
    journals = [(tmp_path / name / "journal.jsonl").read_text() for name in ("direct", "thinking")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert [(tmp_path / name / "journal.jsonl").read_text() for name in ("direct", "thinking")] == journals
    settings = GenerationSettings(think="auto", max_new_tokens=60)
    with Grounder.load("egm-tiny", settings=settings, gate=replace(gate, model="moved")) as grounder:
        assert grounder.gate == gate
