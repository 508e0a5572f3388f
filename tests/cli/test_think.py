"""`--think` and `--gate` on the command line, from calibration on a server to the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from egm.thinking import read_gate

from ..backends.faulty_server import FaultyServer, Play, say
from .conftest import Egm

PICTURES = 60
SURE = "0, 0, 500, 1000]}]"


def spoken(text: str, logprob: float) -> Play:
    """A text whose tokens are its characters, all equally sure."""
    content = [{"token": character, "logprob": logprob} for character in text]
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": {"content": content}}
    body = {"choices": [choice], "usage": {"prompt_tokens": 20, "completion_tokens": 10}}
    return Play(raw=json.dumps(body).encode(), streams=False)


class Mind:
    """Answers what is easy at once, and rightly; the rest only after it has thought."""

    thought = say("so\n</think>\n\n[[0, 0, 500, 1000]]", usage={"prompt_tokens": 18, "completion_tokens": 100})

    def __init__(self) -> None:
        self.server = FaultyServer({"": [self.thought]})
        self.server.next = self.answer  # type: ignore[method-assign]

    def answer(self, query: dict[str, object], headers: dict[str, str]) -> Play:
        self.server.asked.append(query)
        messages = query["messages"]
        assert isinstance(messages, list)
        if len(messages) == 1:
            return self.thought
        easy = "easy" in json.dumps(messages[0]["content"][-1])
        return spoken(SURE, -0.01) if easy else spoken("500, 500, 999, 999]}]", -2.0)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    lines = []
    for number in range(PICTURES):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(tmp_path / f"{number}.png")
        for kind in ("easy", "hard"):
            row = {"id": f"{number}{kind}", "image": f"{number}.png", "sent": f"the {kind} one", "bbox": [0, 0, 20, 40]}
            lines.append(json.dumps({**row, "height": 40, "width": 40}))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "rows.jsonl"


def test_from_calibration_to_report(egm: Egm, rows: Path) -> None:
    mind = Mind()
    with mind.server as server:
        where = ("--server", server.url, "--images", rows.parent)
        fitted = egm("calibrate", rows.name, *where, "--out", "gate", "--points", 8)
        assert (fitted.code, "thinks about 50.0 % of the questions and saves 40.0 %" in fitted.out) == (0, True)
        served = f"--server {server.url} --model {read_gate(rows.parent / 'gate').model}"
        assert fitted.next == f"egm eval DATASET {served} --think auto --gate gate/gate.json"
        asked = len(server.asked)
        assert asked == 4 * PICTURES
        used = egm("eval", rows.name, *where, "--out", "auto", "--think", "auto", "--gate", "gate/gate.json")
        assert used.code == 0, used.err
        assert "thought about 50.0 % of 120; direct answers that were not taken: 5.0 of the tokens" in used.out
        again = egm("eval", rows.name, *where, "--out", "auto", "--think", "auto", "--gate", "gate/gate.json", "--json")
        assert json.loads(again.out)["all"]["accuracy"] == 1.0
        assert len(server.asked) == asked + 3 * PICTURES
        never = egm("ground", rows.parent / "1.png", "the easy one", "--server", server.url, "--think", "never")
        assert (never.code, ", asked directly)" in never.out) == (0, True)
        arguments = ("--server", server.url, "--think", "auto", "--gate", "gate", "--json")
        hard = json.loads(egm("ground", rows.parent / "1.png", "the hard one", *arguments).out)
        assert (hard["thought"], hard["certainty"], hard["tokens"]) == (True, -2.0, 110)
        other = egm("ground", rows.parent / "1.png", "x", *arguments, "--prompt", "grounding")
        assert (other.code, "the gate was fitted on something else: prompt." in other.err) == (2, True)
    report = egm("report", "auto", "--format", "csv", "--out", "report")
    assert report.code == 0
    table = (rows.parent / "report" / "latency.csv").read_text()
    assert "thought about, %" in table
    assert "thinks only where its gate says that it pays (--think auto)" in table
    page = (rows.parent / "report" / "report.md").read_text()
    assert "60.0 tokens an answer, direct answers that were not taken included, against 100.0 of always" in page


def test_what_comes_next_asks_as_the_gate_was_fitted(egm: Egm, rows: Path) -> None:
    mind = Mind()
    alike = "--prompt grounding --sample --max-tokens 900 --cut-tail"
    with mind.server as server:
        where = ("--server", server.url, "--images", rows.parent)
        fitted = egm("calibrate", rows.name, *where, "--out", "gate", "--points", 8, *alike.split())
        assert fitted.code == 0, fitted.err
        model = f"--model {read_gate(rows.parent / 'gate').model}"
        end = "--think auto --gate gate/gate.json"
        assert fitted.next == f"egm eval DATASET --server {server.url} {model} {alike} {end}"
        command = fitted.next.replace("DATASET", f"{rows.name} --images .").split()[1:]
        assert egm(*command, "--out", "auto").code == 0  # where an option is missing, the gate refuses to decide
        without = [word for word in command if word != "--cut-tail"]
        assert "the gate was fitted on something else: settings.stop" in egm(*without, "--out", "other").err
    runs = ("--direct", "gate/direct", "--thinking", "gate/thinking")
    again = egm("calibrate", *runs, "--out", "gate", "--points", 8)
    assert (again.code, again.next) == (0, f"egm eval DATASET {model} {alike} {end}")


def test_a_gate_is_refused_for_another_number_of_boxes_before_anything_is_asked(egm: Egm, rows: Path) -> None:
    mind = Mind()
    with mind.server as server:
        where = ("--server", server.url, "--images", rows.parent)
        assert egm("calibrate", rows.name, *where, "--out", "gate", "--points", 8).code == 0
        asked = len(server.asked)
        how = ("--think", "auto", "--gate", "gate", "--out", "run")
        for expect in ("any", "all"):
            outcome = egm("eval", rows.name, *where, *how, "--expect", expect)
            said = f"the gate was fitted on questions that expect one, not {expect}: calibrate on such questions, or"
            assert (outcome.code, said in outcome.err) == (2, True)
        facts = json.loads((rows.parent / "gate" / "gate.json").read_text())
        (rows.parent / "gate" / "gate.json").write_text(json.dumps({**facts, "expects": ["all"]}))
        outcome = egm("eval", rows.name, *where, *how)
        assert (outcome.code, "questions that expect all, not one" in outcome.err) == (2, True)
        assert len(server.asked) == asked
    assert not (rows.parent / "run").exists()


def test_bad_input(egm: Egm, rows: Path) -> None:
    for arguments, said in (
        (("--think", "auto"), "think=auto needs a gate, which egm calibrate fits: give its file (--gate)"),
        (("--think", "auto", "--gate", "nowhere.json"), "gate 'nowhere.json' cannot be read"),
        (("--think", "maybe"), "unknown think 'maybe'"),
        (("--think", "auto", "--sample", "--votes", 3), "one direct answer first"),
        (("--think", "never", "--thinking-budget", 3), "thinking_budget bounds reasoning"),
    ):
        outcome = egm("ground", rows.parent / "1.png", "x", *arguments)
        assert (outcome.code, outcome.out) == (2, "")
        assert said in outcome.err
    (rows.parent / "script.txt").write_text("</think> [1, 2, 3, 4]")
    outcome = egm("eval", rows.name, "--images", ".", "--script", "script.txt", "--think", "never")
    assert (outcome.code, "--script replays answers as they were given" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    "given", [("refcoco/val",), ("--model", "m"), ("--limit", "3"), ("--seed", "1"), ("--max-tokens", "4")]
)
def test_calibration_passes_over_no_option_where_the_answers_are_there(egm: Egm, given: tuple[str, ...]) -> None:
    outcome = egm("calibrate", *given, "--direct", "a", "--thinking", "b")
    assert outcome.code == 2
    named = given[0] if given[0].startswith("--") else "datasets"
    assert outcome.err == (
        f"error: {named} is for asking, and --direct and --thinking are answers that are there: leave it out\n"
    )
