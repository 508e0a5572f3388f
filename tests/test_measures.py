"""What counts as right in a benchmark whose authors count the centre is what counts in every figure of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from egm.backends import GenerationSettings, ScriptedBackend
from egm.boxes import Box, iou
from egm.calibrate import calibrate, read_pairs
from egm.calibrate.frontier import frontier_grid
from egm.codecs import get_codec
from egm.evaluate import evaluate, totals
from egm.evaluate.progress import RunningCounts
from egm.failures import run_notes
from egm.grounder import Grounder
from egm.journal import Header, Record
from egm.publish.scores import ScoredRun, score_table
from egm.report import compare, interval_summary
from egm.report.figure_points import points_of
from egm.report.figures import latency_figure
from egm.report.grid import Grid
from egm.report.known_truths import KnownTruths, known_truths_grid
from egm.report.run_tables import card_grid
from egm.report.runs import Run
from egm.report.summary import misses_of
from egm.report.tables import comparison_grids, summary_grids
from egm.types import Completion, Sample

SCREEN = "screenspot-pro/test"
CENTRE, BOTH = "centre in the true box", "Acc@0.5 or centre in the true box"
TRUTH = (40.0, 40.0, 60.0, 60.0)
WIDE = (20.0, 20.0, 80.0, 80.0)  # IoU 1/9, the same centre
BESIDE = (58.0, 40.0, 70.0, 60.0)


def record(name: str, box: tuple[float, ...] | None, split: str = SCREEN, **facts: Any) -> Record:
    overlap = 0.0 if box is None else iou(Box(*box), Box(*TRUTH))
    failure = "no_box" if box is None else None
    return Record(
        name,
        f"{name}.png",
        "the button",
        TRUTH,
        (100, 100),
        split=split,
        box=box,
        iou=overlap,
        failure=failure,
        **facts,
    )


ONE = [record("a", WIDE), record("b", WIDE), record("c", BESIDE), record("d", None)]
MIXED = [*ONE, record("a", WIDE, "x/val"), record("b", TRUTH, "x/val")]


def run_of(records: list[Record]) -> Run:
    sizes = {split: sum(each.split == split for each in records) for split in {each.split: None for each in records}}
    return Run(
        "m", Header("m", {"name": "qwen3_vl"}, {}, {}, {split: {"n": n} for split, n in sizes.items()}), records, sizes
    )


def titles(grids: list[Grid]) -> str:
    return "\n".join(
        "\n".join((grid.title, *grid.columns, *(line.name for _, part in grid.sections for line in part)))
        for grid in grids
    )


def test_the_centre_counts_inside_the_true_box_edges_included() -> None:
    edge = record("e", (50.0, 40.0, 70.0, 60.0))
    assert [each.hit() for each in (*ONE, edge)] == [True, True, False, False, True]
    assert [each.hit() for each in MIXED[4:]] == [False, True]
    assert not record("e", None, expect="any").hit()


def test_counts_and_misses_of_a_run_are_of_the_same_hits() -> None:
    assert totals(MIXED)["accuracy"] == 0.5
    assert [miss is None for miss in misses_of(MIXED)] == [True, True, False, False, False, True]
    counts = RunningCounts(len(ONE), 0.5)
    for each in ONE:
        counts.add(each)
    assert counts.says() == f"{CENTRE} 50.00"
    scaled = [record(str(n), tuple(10 * side for side in TRUTH)) for n in range(4)]
    assert [note for note in run_notes(scaled, None) if "0-1000 scale" in note]


def test_a_summary_counts_alike_in_all_its_tables() -> None:
    found = interval_summary(ONE, draws=100)
    assert (found.pooled["centre"].value, found.pooled["acc@0.5"].value) == (0.5, 0.0)
    assert found.bootstrap.keys() == {"centre", "mean_iou"}
    assert {estimate.value for part in ("words", "size") for estimate in found.groups[part].values()} == {0.5}
    assert sum(found.misses.values()) == 2
    assert found.complexity.accuracy_simple is not None
    assert found.complexity.accuracy_simple.value == 0.5
    shown = titles(summary_grids(found)[1:])
    assert (CENTRE in shown, "Acc@0.5" in shown) == (True, False)
    mixed = interval_summary(MIXED, draws=100)
    assert (mixed.pooled["counted"].value, mixed.bootstrap["counted"].value) == (0.5, 0.5)
    assert f"{BOTH}, by split" in summary_grids(mixed)[0].columns
    assert "counted" not in interval_summary(MIXED[4:], draws=100).pooled


def test_a_comparison_says_what_it_counts() -> None:
    better = [record(name, TRUTH) for name in "abcd"]
    found = compare(ONE, better, draws=100)
    assert (found.mcnemar.only_b, found.mcnemar.both) == (2, 2)
    shown = titles(comparison_grids(found, ("A", "B")))
    assert (f"{CENTRE}, exact McNemar" in shown, "Acc@0.5" in shown) == (True, False)
    assert BOTH in titles(comparison_grids(compare(MIXED, MIXED, draws=100), ("A", "B")))


def test_averages_figures_and_lists_of_truths_count_alike() -> None:
    run = run_of(MIXED)
    assert run.accuracy[SCREEN].value == 0.5
    average = run.average((SCREEN, "x/val"))
    assert average is not None
    assert average.value == 0.5
    assert card_grid([run_of(ONE)]).title == f"{CENTRE}, %"
    assert known_truths_grid([run_of(ONE)], KnownTruths()).title.startswith(CENTRE)
    svg = latency_figure(points_of([run_of([*ONE[:3], record("d", None, seconds=1.0)])], (SCREEN,)), (SCREEN,))[".svg"]
    assert CENTRE.encode() in svg


def test_a_model_card_says_what_it_counts() -> None:
    run = run_of(ONE)
    table = score_table([ScoredRun(Path(), run.header, run.records)])
    assert f"| {CENTRE}, % |" in table[0]
    assert "| 50.0 (" in table[2 - 1]
    assert any(f"Of {SCREEN} an answer is right if" in line for line in table)


def test_a_gate_is_fitted_to_what_counts(tmp_path: Path) -> None:
    codec = get_codec("qwen3_vl")
    samples = [Sample(str(n), Image.new("RGB", (100, 100), (n, 0, 0)), "the button", Box(*TRUTH)) for n in range(120)]
    wide = "200, 200, 800, 800"
    folders = []
    for think, text, tokens in (("never", f"{wide}]}}]", 10), ("always", f"so\n</think>\n\n[[{wide}]]", 100)):
        reply = Completion(text, "stop", 10, tokens, reasoning_tokens=80 if think == "always" else 0)
        settings = GenerationSettings(think=think)  # type: ignore[arg-type]
        grounder = Grounder(ScriptedBackend([reply] * len(samples), model="m"), codec, settings=settings)
        evaluate({SCREEN: samples}, grounder, tmp_path / think, progress=False)
        folders.append(tmp_path / think)
    pairs, _, _ = read_pairs(*folders)
    assert (pairs.direct.mean(), pairs.thinking.mean(), pairs.counted) == (1.0, 1.0, CENTRE)
    _, found = calibrate(*folders, points=5)
    assert f"{CENTRE}, %" in frontier_grid(found).columns
    assert found.chosen is not None
    assert (found.saved, found.saved_reasoning) == (pytest.approx(0.9), 1.0)
