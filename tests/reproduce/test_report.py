"""The report from journals with known results: each verdict is reached by figures, and what is missing is said."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egm.backends.checkpoint import weights_digest
from egm.errors import DataError
from egm.journal import Header, Journal, Record
from egm.models.costs import Cost, cost_model
from egm.report.grid import Grid
from egm.report.runs import Run
from egm.reproduce.arms import Arm, resolve
from egm.reproduce.claims import Claim, Verdict, decide, judge, paragraph
from egm.reproduce.folder import ArmFolder, settle
from egm.reproduce.latency import FILE_NAME, apart, read_timings, why_again
from egm.reproduce.recipe import ReproduceRecipe
from egm.reproduce.report import grids_of, write_report
from egm.reproduce.results import Result, complexity_gain, complexity_gap, load_results
from egm.reproduce.run import ReproductionPlan, make_plan
from egm.stats import Estimate, cluster_mean, paired_difference
from egm.training.recipe import load_recipe
from egm.training.sft.recipe import SFTRecipe

from .conftest import Write

SIMPLE, COMPLEX = "the red circle", "the second star from the left"
TRUTH = (0.0, 0.0, 100.0, 100.0)
ROWS = 240  # two a picture, one of them complex; the last quarter of the pictures amodal
Rule = Callable[[int, bool, bool], bool]
"""Whether a row is right, by the number of its picture, whether it is complex, and whether it is amodal."""


def share(simple: float, complex_: float | None = None, amodal: float | None = None) -> Rule:
    """The first so many of a hundred pictures are right."""

    def rule(picture: int, is_complex: bool, is_amodal: bool) -> bool:
        wanted = amodal if is_amodal and amodal is not None else complex_ if is_complex else None
        return (picture * 37 % 100) / 100 < (simple if wanted is None else wanted)

    return rule


def records(rule: Rule, tokens: int = 10) -> list[Record]:
    made = []
    for row in range(ROWS):
        picture, is_complex = divmod(row, 2)
        is_amodal = picture >= ROWS * 3 // 8
        hit = rule(picture, bool(is_complex), is_amodal)
        box = TRUTH if hit else (100.0, 100.0, 200.0, 200.0)
        phrase = COMPLEX if is_complex else SIMPLE
        made.append(
            Record(str(row), f"p{picture}", phrase, TRUTH, (200, 200), split="synthref/val", box=box, iou=float(hit),
                   amodal=is_amodal, prompt_tokens=80, completion_tokens=tokens, seconds=1.0)
        )  # fmt: skip
    return made


def costs_of(size: str, tokens: int) -> Cost:
    model = cost_model(size)
    assert model is not None
    return model.answer((200, 200), prompt=80, written=tokens)


def timing(seconds: float, hardware: str = "H200", **versions: str) -> dict[str, Any]:
    times = [seconds * (1 + 0.1 * math.sin(number)) for number in range(40)]
    spread = {"n": 40, "mean": sum(times) / 40, "p50": seconds, "p90": 1.1 * seconds, "p99": 1.1 * seconds}
    row = {"latency": spread, "seconds": times, "concurrency": 1, "requests_per_second": 1 / seconds}
    about = {"hardware": hardware, "engine": "TransformersBackend", "versions": {"torch": "2.15", **versions}}
    return {"about": about, "weights": "", "alone": row, "load": {**row, "concurrency": 8}}


class Made:
    """A folder of arms that answered by rules."""

    def __init__(self, recipe: ReproduceRecipe, out: Path) -> None:
        self.recipe, self.out = recipe, out
        settle(out, recipe, resolve(recipe, ["unboxed"]))

    def answer(self, rules: Mapping[str, Rule], **tokens: int) -> None:
        for name, rule in rules.items():
            folder = ArmFolder(self.out, name)
            folder.path.mkdir(parents=True, exist_ok=True)
            facts = {"synthref/val": {"n": ROWS, "digest": "x"}}
            settings = {"max_new_tokens": 4}
            header = Header(name, {"name": "qwen3_vl"}, {"style": "qwen3"}, settings, facts, versions={"egm": "0"})
            with Journal(folder.evaluate, header) as journal:
                for record in records(rule, tokens.get(name, 10)):
                    journal.append(record)
            folder.finish("train", {}, 1.0)
            folder.finish("evaluate", {}, 1.0)

    def time(self, **timings: dict[str, Any]) -> None:
        settings = self.recipe.latency.model_dump() | {"device": self.recipe.device}
        content = {"started": "", "settings": settings, "arms": timings}
        (self.out / FILE_NAME).write_text(json.dumps(content))

    @property
    def plan(self) -> ReproductionPlan:
        return make_plan(self.recipe, self.out)

    def claims(self) -> dict[str, Claim]:
        return {claim.key: claim for claim in judge(load_results(self.plan))}

    def grids(self) -> dict[str, Grid]:
        results = load_results(self.plan)
        return grids_of(results, judge(results))


@pytest.fixture
def seeded(write: Write, tmp_path: Path) -> Made:
    seeds = {f"arms__{arm}__seeds": [0, 1] for arm in ("direct", "thinking")}
    return Made(load_recipe(ReproduceRecipe, write(evaluate__scenes=None, **seeds)), tmp_path / "out")


@pytest.fixture
def made(write: Write, tmp_path: Path) -> Made:
    return Made(load_recipe(ReproduceRecipe, write(evaluate__scenes=None)), tmp_path / "out")


AS_THE_PAPER = {
    "direct": share(0.6, 0.2),
    "large": share(0.7, 0.5),
    "thinking": share(0.75, 0.7),
    "reinforced": share(0.9),
}


def test_all_hold_where_the_figures_are_the_papers(made: Made) -> None:
    made.answer(AS_THE_PAPER, large=10, reinforced=30)
    made.time(**{name: timing(0.4 if name == "large" else 0.1) for name in AS_THE_PAPER})
    claims = made.claims()
    assert {key for key, claim in claims.items() if claim.verdict is not Verdict.HELD} == {"fewer_tokens"}
    assert (claims["fewer_tokens"].verdict, claims["fewer_tokens"].difference.value) == (
        Verdict.NOT_HELD,
        pytest.approx(-20),
    )
    large_costs, best_costs = (costs_of(size, tokens) for size, tokens in (("tiny-m", 10), ("tiny-s", 30)))
    assert claims["fewer_operations"].difference.value == pytest.approx(large_costs.operations - best_costs.operations)
    assert claims["fewer_bytes"].difference.value == pytest.approx(large_costs.bytes - best_costs.bytes)
    assert f"against {large_costs.bytes / 1e9:.4g} (large)" in claims["fewer_bytes"].figures
    (line,) = (line for line in made.grids()["models"].sections[0][1] if line.name == "large")
    cells = dict(zip(made.grids()["models"].columns[1:], line.cells, strict=True))
    assert cells["GFLOP"].text == f"{large_costs.operations / 1e9:.4g}"
    large = sum(record.iou for record in records(AS_THE_PAPER["large"])) / ROWS
    best = sum(record.iou for record in records(AS_THE_PAPER["reinforced"])) / ROWS
    beats = claims["beats_large"]
    assert beats.difference is not None
    assert beats.difference.value == pytest.approx(best - large)
    assert f"{100 * best:.2f} % (reinforced) against {100 * large:.2f} % (large)" in beats.figures
    assert "McNemar p < 0.0001" in beats.figures
    faster = claims["faster"].difference
    assert faster is not None
    assert faster.value == pytest.approx(0.3, rel=0.02)
    assert faster.low < faster.value < faster.high
    assert "with 30 tokens (reinforced) against" in claims["faster"].figures
    assert "in batches of 8, " in claims["faster_under_load"].figures
    assert "10.0 against 2.5 answers a second" in claims["faster_under_load"].figures


def test_one_batch_says_nothing_of_the_spread(made: Made) -> None:
    made.answer(AS_THE_PAPER)
    timings = {name: timing(0.4 if name == "large" else 0.1) for name in AS_THE_PAPER}
    for each in timings.values():
        each["load"]["concurrency"] = 40
    made.time(**timings)
    claims = made.claims()
    assert (claims["faster"].verdict, claims["faster_under_load"].verdict) == (Verdict.HELD, Verdict.UNDECIDED)


def test_none_holds_where_it_is_the_other_way_round(made: Made) -> None:
    worse = {"direct": share(0.5, 0.9), "large": share(0.9), "thinking": share(0.3, 0.4), "reinforced": share(0.2, 0.1)}
    made.answer(worse, large=5, reinforced=600)
    made.time(**{name: timing(0.1 if name == "large" else 0.4) for name in worse})
    claims = made.claims()
    assert {key for key, claim in claims.items() if claim.verdict is not Verdict.NOT_HELD} == set()
    text = paragraph(list(claims.values()), load_results(made.plan))
    assert text.startswith(
        "Of 12 claims of the paper, on SynthRef and with models of 11.5M to 40.4M parameters trained"
    )
    assert ": 12 did not hold (95 % intervals). Did not hold: a small model that thinks" in text
    assert "\n" not in text


def test_nothing_is_decided_where_the_interval_holds_0(made: Made) -> None:
    made.answer(dict.fromkeys(AS_THE_PAPER, share(0.5)))
    made.time(**{name: timing(0.1) for name in AS_THE_PAPER})
    decided = {key for key, claim in made.claims().items() if claim.verdict is not Verdict.UNDECIDED}
    assert decided == {"fewer_operations", "fewer_bytes"}  # of equally long answers those of the smaller model
    text = paragraph(list(made.claims().values()), load_results(made.plan))
    assert "10 not decided (95 % intervals)." in text
    assert "Not decided, as the interval holds 0: " in text


def test_the_ends_of_an_interval_decide() -> None:
    def interval_summary(low: float, high: float) -> Estimate:
        return Estimate((low + high) / 2, low, high, 0.1, 9, 9)

    assert decide(interval_summary(0.001, 0.2)) is Verdict.HELD
    assert decide(interval_summary(0.0, 0.2)) is Verdict.UNDECIDED
    assert decide(interval_summary(-0.1, 0.0)) is Verdict.UNDECIDED
    assert decide(interval_summary(-0.2, -0.001)) is Verdict.NOT_HELD


def test_differences_between_kinds_of_phrases_are_those_of_the_means() -> None:
    before, after = records(share(0.6, 0.2)), records(share(0.7, 0.6))

    def answered(rows: list[Record]) -> Result:
        arm = Arm("a", SFTRecipe.model_validate({"model": {"name": "tiny-s"}, "optim": {"steps": 1}}))
        return Result(arm, {None: Run("a", Header("a", {}, {}, {}, {}), rows, {})}, {})

    def mean(rows: list[Record], phrase: str) -> float:
        hits = [record.iou for record in rows if record.phrase == phrase]
        return sum(hits) / len(hits)

    gap = complexity_gap(answered(before))
    assert gap.value == pytest.approx(mean(before, SIMPLE) - mean(before, COMPLEX))
    gain = complexity_gain(answered(before), answered(after))
    gains = [mean(after, phrase) - mean(before, phrase) for phrase in (COMPLEX, SIMPLE)]
    assert gain.value == pytest.approx(gains[0] - gains[1])
    for found in (gap, gain):
        assert -1 <= found.low < found.value < found.high
    with pytest.raises(ValueError, match="all phrases are simple"):
        complexity_gap(answered([replace(record, phrase=SIMPLE) for record in before]))


def test_what_is_missing_is_said_and_the_rest_reported(made: Made) -> None:
    with pytest.raises(DataError, match="is evaluated yet: there is nothing to report"):
        write_report(made.plan)
    made.answer({name: AS_THE_PAPER[name] for name in ("direct", "thinking")})
    text, _, path = write_report(made.plan)
    page = path.read_text()
    assert "**Incomplete.** large: not trained; reinforced: not trained; unboxed: not trained." in page
    assert "2 held" in text
    assert "Not measured: " in text
    assert "large, reinforced are missing" in text
    claims = {claim["key"]: claim for claim in json.loads((path.parent / "claims.json").read_text())}
    assert claims["sft_adds"]["verdict"] == "held"
    assert claims["faster"]["verdict"] == "not measured"
    assert "Latencies are left out: nothing is timed." in page
    assert not (path.parent / "accuracy_latency.png").exists()


def test_the_whole_report(made: Made) -> None:
    made.answer(AS_THE_PAPER | {"unboxed": share(0.7, 0.6)}, reinforced=30)
    made.time(**{name: timing(0.4 if name == "large" else 0.1) for name in [*AS_THE_PAPER, "unboxed"]})
    text, _, path = write_report(made.plan)
    page = path.read_text()
    assert text in page
    assert "Incomplete" not in page
    assert "H200, TransformersBackend; torch 2.15" in page
    for name in ("accuracy_latency", "accuracy_tokens"):
        assert f"({name}.png)" in page
        assert (path.parent / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (path.parent / f"{name}.svg").read_bytes()
    with (path.parent / "models.csv").open() as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["direct", "large", "thinking", "reinforced", "unboxed"]
    assert (rows["reinforced"]["parameters"], rows["reinforced"]["training samples"]) == ("11.5M", "12 + 4")
    assert (rows["large"]["p50"], rows["large"]["tokens"], rows["reinforced"]["tokens"]) == ("400.0", "10", "30")
    assert rows["large"]["answers/s in batches of 8"] == "2.5"
    grids = made.grids()
    pairs = [line.name for line in grids["paired"].sections[0][1]]
    assert pairs == [
        "thinking minus large",
        "reinforced minus large",
        "thinking minus direct",
        "reinforced minus thinking",
        "unboxed minus thinking",
    ]
    misses = {line.name: line.cells for line in grids["errors"].sections[0][1]}
    wrong = [record for record in records(AS_THE_PAPER["direct"]) if not record.iou]
    hard = sum(record.phrase == COMPLEX for record in wrong)
    assert (misses["direct"][0].text, misses["direct"][1].text) == (str(len(wrong)), f"{100 * hard / len(wrong):.2f}")
    assert misses["direct"][2].text == "50.00"
    complexity = grids["complexity"]
    assert complexity.columns[:3] == ("model", "simple", "complex")
    tex = (path.parent / "report.tex").read_text()
    assert tex.count(r"\begin{tabular}") == len(grids)


def test_latencies_of_two_machines_are_flagged_and_taken_again(made: Made, tmp_path: Path) -> None:
    made.answer(AS_THE_PAPER)
    assert why_again(made.out, {}, made.recipe) == "nothing is timed yet"
    models = dict.fromkeys(AS_THE_PAPER, made.out)  # as if all had the same weights

    def timed(*about: str, **versions: str) -> dict[str, Any]:
        return timing(0.1, *about, **versions) | {"weights": weights_digest(made.out)}

    same = {name: timed() for name in AS_THE_PAPER}
    made.time(**same)
    assert why_again(made.out, models, made.recipe) is None
    for strange in (timed("H100"), timed(driver="570.1"), timed(torch="2.16")):
        made.time(**same | {"large": strange})
        why = "large timed on another machine, driver or version than direct"
        assert apart(read_timings(made.out)[0]) == why
        assert why_again(made.out, models, made.recipe) == why
        gone = {name: path for name, path in models.items() if name != "large"}
        assert why_again(made.out, gone, made.recipe) is None  # what is not here cannot be timed again
        assert made.claims()["faster"].verdict is Verdict.UNMEASURED
        assert f"Latencies are left out: {why}." in made.grids()["models"].notes
    (tmp_path / "model.safetensors").write_bytes(b"others")
    made.time(**same)
    assert why_again(made.out, {"unboxed": made.out}, made.recipe) == "unboxed not timed yet"
    assert why_again(made.out, {"large": tmp_path}, made.recipe) == "large trained anew"
    other = made.recipe.model_copy(update={"device": "cuda"})
    assert why_again(made.out, {}, other) == "the settings of latency or the device are others"


def test_seeds_are_pooled_by_question_and_shown_one_by_one(seeded: Made) -> None:
    rules = {"thinking.seed0": share(0.6), "thinking.seed1": share(0.3), "large": share(0.5)}
    seeded.answer(rules | {"reinforced.seed1": share(0.9)}, **{"thinking.seed0": 10, "thinking.seed1": 20, "large": 15})
    seeded.time(**{"thinking.seed0": timing(0.1), "thinking.seed1": timing(0.3), "large": timing(0.4)})
    hits = {name: np.array([record.iou for record in records(rule)]) for name, rule in rules.items()}
    pooled = (hits["thinking.seed0"] + hits["thinking.seed1"]) / 2
    pictures = np.arange(ROWS) // 2

    claim = seeded.claims()["thinking_beats_large"]
    expected = paired_difference(hits["large"], pooled, pictures).analytic
    assert claim.difference is not None
    assert (claim.difference.value, claim.difference.low, claim.difference.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    alone = [float((hits[f"thinking.seed{seed}"] - hits["large"]).mean()) for seed in (0, 1)]
    assert claim.trainings == pytest.approx(alone)
    each = ", ".join(f"{100 * value:+.2f}" for value in alone)
    assert claim.figures.endswith(f"; by training {each} points, not all of one sign")
    assert "McNemar" not in claim.figures
    assert seeded.claims()["rl_adds"].trainings == pytest.approx(
        [float(np.mean([r.iou for r in records(share(0.9))]) - hits[f"thinking.seed{seed}"].mean()) for seed in (0, 1)]
    )

    _, _, path = write_report(seeded.plan)
    with (path.parent / "models.csv").open() as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["large", "thinking", "thinking (seed 0)", "thinking (seed 1)", "reinforced (seed 1)"]
    accuracy = [float(rows[name]["synthref/val"]) for name in list(rows)[1:4]]
    assert accuracy == pytest.approx([100 * each.mean() for each in (pooled, *list(hits.values())[:2])], abs=0.005)
    low = cluster_mean(pooled, pictures).low
    assert float(rows["thinking"]["synthref/val low"]) == pytest.approx(100 * low, abs=0.5)
    assert [rows[name]["tokens"] for name in list(rows)[1:4]] == ["15", "10", "20"]
    assert [rows[name]["p50"] for name in list(rows)[1:4]] == ["200.0", "100.0", "300.0"]
    page = path.read_text()
    for lost in ("direct.seed0: not trained; ", "reinforced.seed0: not trained; ", "reinforced.seed1: not timed."):
        assert lost in page
    names = [line.name for line in seeded.grids()["paired"].sections[0][1]]
    assert names[:3] == [
        "thinking minus large",
        "thinking (seed 0) minus large",
        "thinking (seed 1) minus large",
    ]


def test_trainings_are_compared_with_their_like(seeded: Made) -> None:
    rules = {f"{arm}.seed{seed}": share(0.2 + 0.3 * seed + more) for arm, more in (("direct", 0.0), ("thinking", 0.4))
             for seed in (0, 1)}  # fmt: skip
    seeded.answer(rules)
    hits = {name: np.mean([record.iou for record in records(rule)]) for name, rule in rules.items()}
    likes = [hits[f"thinking.seed{seed}"] - hits[f"direct.seed{seed}"] for seed in (0, 1)]
    assert seeded.claims()["sft_adds"].trainings == pytest.approx(likes)


def test_latencies_of_two_runs_are_said_to_be_and_how_far_they_differ(made: Made) -> None:
    made.answer(AS_THE_PAPER)
    first, second = ({"started": time} for time in ("8:00", "9:00"))
    timings = {name: timing(0.1) | second for name in AS_THE_PAPER} | {"large": timing(0.4) | first}
    made.time(**timings)
    said = "Models were timed in 2 runs, on the same hardware with the same driver and versions"
    assert any(f"{said}; none of them in two" in note for note in made.grids()["models"].notes)
    mean = timings["direct"]["alone"]["latency"]["mean"]
    made.time(**timings | {"direct": timings["direct"] | {"earlier": [1.07 * mean]}})
    ((note),) = (note for note in made.grids()["models"].notes if said in note)
    assert "several differ by up to 7.0 % between them." in note
