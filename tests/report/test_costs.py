"""What answers took, from their records."""

from __future__ import annotations

import math

import pytest

from egm.journal import Header, Record
from egm.models.costs import cost_model
from egm.report.costs import answer_costs
from egm.report.run_tables import cost_grid
from egm.report.runs import Run

TRUTH = (0.0, 0.0, 10.0, 10.0)


def record(**facts: object) -> Record:
    return Record("a", "p", "x", TRUTH, (200, 200), **{"prompt_tokens": 80, "completion_tokens": 30, **facts})  # type: ignore[arg-type]


def test_an_answer_takes_what_its_tokens_do_and_one_asked_twice_both() -> None:
    model = cost_model("tiny-s")
    assert model is not None
    plain, twice = record(), record(prompt_tokens=160, completion_tokens=38, direct_tokens=8)
    found = answer_costs([plain, twice], model)
    once = model.answer((200, 200), prompt=80, written=30)
    both = once + model.answer((200, 200), prompt=80, written=8)
    assert found.tokens.tolist() == [30, 38]
    assert found.operations.tolist() == pytest.approx([once.operations, both.operations])
    assert found.bytes.tolist() == pytest.approx([once.bytes, both.bytes])
    assert found.mean("bytes") == pytest.approx((once.bytes + both.bytes) / 2)


def test_what_cannot_be_told_is_left_out() -> None:
    rows = [
        record(prompt_tokens=None),
        record(votes=3, confidence=1.0),
        record(failure="error", completion_tokens=None),
    ]
    found = answer_costs(rows, cost_model("tiny-s"))
    assert all(map(math.isnan, found.operations))
    assert (found.mean("operations"), found.mean("tokens")) == (None, 30)
    assert answer_costs([record()], None).mean("bytes") is None


def test_of_reasoning_that_a_server_cut_off_nothing_is_computed() -> None:
    def run(name: str, backend: str, budget: int | None) -> Run:
        settings, datasets = {"thinking_budget": budget}, {"x/val": {"n": 1}}
        header = Header("tiny-s", {}, {}, settings, datasets, engine={"backend": backend})
        return Run(name, header, [record(split="x/val")], {"x/val": 1})

    runs = [run("bound", "OpenAIBackend", 8), run("free", "OpenAIBackend", None), run("here", "NumpyBackend", 8)]
    grid = cost_grid(runs)
    column = grid.columns.index("GFLOP") - 1
    (_, lines), *_ = grid.sections
    assert [bool(line.cells[column].text) for line in lines] == [False, True, True]
    assert [note.partition(":")[0] for note in grid.notes if note.startswith("No operations")] == [
        "No operations and bytes of bound"
    ]
    assert "GFLOP" not in cost_grid(runs[:1]).columns
    assert any("by a second request" in note for note in cost_grid(runs[:1]).notes)
