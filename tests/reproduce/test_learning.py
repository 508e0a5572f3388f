"""Whether trainings had stopped improving, from logs with known slopes, and what that says of a claim."""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path

import pytest

from egm.reproduce.arms import Arm, Training
from egm.reproduce.claims import Claim, decide
from egm.reproduce.folder import ArmFolder
from egm.reproduce.learning import Curve, could_gain, in_short, learning_figure, learning_grid, longer_grid, read_curves
from egm.reproduce.recipe import ReproduceRecipe
from egm.reproduce.run import ReproductionPlan, make_plan
from egm.stats import Estimate
from egm.training.recipe import load_recipe

from .conftest import Write

STEPS = range(5, 101, 5)


@pytest.fixture
def plan(write: Write, tmp_path: Path) -> ReproductionPlan:
    evaluated = {"data": "synthref/val", "every": 25, "samples": 0, "greedy": 100}
    recipe = load_recipe(ReproduceRecipe, write(defaults__sft__eval=evaluated, arms__direct__seeds=[0, 1]))
    return make_plan(recipe, tmp_path / "out")


def log(plan: ReproductionPlan, name: str, lines: list[dict[str, float]]) -> None:
    folder = ArmFolder(plan.out, name)
    folder.train.mkdir(parents=True)
    (folder.train / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    folder.finish("train", {}, 1.0)


def falling(first: float, last: float) -> list[dict[str, float]]:
    """A loss that falls by one slope up to half of the steps, and then by another."""
    return [{"step": at, "loss": 9 - first * min(at, 50) - last * max(0, at - 50)} for at in STEPS]


def test_the_last_quarter_is_held_against_the_first(plan: ReproductionPlan) -> None:
    accuracies = [
        {"step": step, "eval_accuracy": value} for step, value in ((25, 0.1), (50, 0.3), (75, 0.5), (100, 0.6))
    ]
    log(plan, "direct.seed0", falling(0.1, 0.05) + accuracies)
    log(plan, "large", falling(0.1, 0.002))
    log(plan, "reinforced", [{"step": step, "loss": 0.0, "reward": 0.01 * step} for step in STEPS])
    noise = [9, 8, 7, 6, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5.1, 4.7, 5.2, 4.6, 4.8]
    log(plan, "direct.seed1", [{"step": step, "loss": loss} for step, loss in zip(STEPS, noise, strict=True)])
    log(plan, "thinking", [{"step": 1, "loss": 1.0}])
    curves = read_curves(plan)
    rows = {line.name: [cell.text for cell in line.cells] for line in learning_grid(curves).sections[0][1]}
    assert rows["direct.seed0"] == ["loss", "7.5", "5", "3.25", "2", "50.0", "still improving",
                                    "10.0, 30.0, 50.0, 60.0", "+10.0 (13.7)"]  # fmt: skip
    assert rows["large"][5:] == ["2.0", "levelled off", "", ""]
    assert float(rows["direct.seed1"][5]) > 5  # and yet it may be chance
    assert rows["direct.seed1"][6] == "levelled off"
    assert rows["reinforced"][0] == "reward"
    assert rows["reinforced"][5:7] == ["100.0", "still improving"]
    assert rows["thinking"][5:] == ["", "", "", ""]
    assert set(learning_figure(curves)) == {".png", ".svg"}
    said = in_short(learning_grid(curves), None)
    assert said.startswith(
        "As they ended, 2 of 4 trainings were still improving, by loss or reward; whether longer ones"
    )
    few = in_short(learning_grid([curve for curve in curves if curve.training.name == "thinking"]), None)
    assert few == "Too little was logged to tell whether trainings had stopped improving."


def curve(arm: Arm, held_out: dict[int, float], *, seed: int | None = None, asked: int = 400) -> Curve:
    return Curve(Training(arm, seed), {1: 1.0}, held_out, asked)


def test_what_an_arm_could_gain_is_its_last_quarter_and_chance(plan: ReproductionPlan) -> None:
    arm = plan.arms["direct"]
    first, second = ({75: 0.5, 100: end} for end in (0.52, 0.48))
    chance = 1.96 * sqrt((0.25 + 0.52 * 0.48) / 400)
    assert could_gain(arm, [curve(arm, first, seed=0)]) == pytest.approx(0.02 + chance)
    assert could_gain(arm, [curve(arm, second, seed=0)]) == pytest.approx(chance)  # a loss is no gain
    both = [curve(arm, first, seed=0), curve(arm, second, seed=1)]
    assert could_gain(arm, both) == pytest.approx(chance)
    assert could_gain(arm, [both[0], curve(arm, {}, seed=1)]) is None
    assert could_gain(arm, [curve(arm, {99: 0.5, 100: 0.6})]) is None  # that was no quarter
    assert could_gain(arm, [curve(arm, first, asked=0)]) is None


@pytest.mark.parametrize(
    ("interval", "gains", "says"),
    [
        ((0.10, 0.20), (0.05, 0.50), "would not change"),  # the second may gain what it wants
        ((0.10, 0.20), (0.12, 0.00), "could change"),
        ((-0.20, -0.10), (0.50, 0.05), "would not change"),
        ((-0.20, -0.10), (0.00, 0.12), "could change"),
        ((-0.02, 0.05), (0.04, 0.01), "would not change"),
        ((-0.02, 0.05), (0.06, 0.01), "could change"),
        ((-0.02, 0.05), (0.04, 0.03), "could change"),
    ],
)
def test_a_claim_could_change_where_a_gain_carries_its_interval_over_0(
    plan: ReproductionPlan, interval: tuple[float, float], gains: tuple[float, float], says: str
) -> None:
    difference = Estimate(sum(interval) / 2, *interval, 0.1, 9, 9)
    names = ("large", "thinking")
    claim = Claim("k", "it is better", decide(difference), "", difference, (), names)
    many = 10**9  # questions, so that nothing is chance
    curves = [
        curve(plan.arms[name], {75: 0.2, 100: 0.2 + gain}, asked=many) for name, gain in zip(names, gains, strict=True)
    ]
    grid = longer_grid([claim, Claim("other", "faster", claim.verdict, "", difference)], plan.arms, curves)
    assert grid is not None
    ((line,),) = (lines for _, lines in grid.sections)
    assert line.cells[-1].text == says
    losses = {line["step"]: line["loss"] for line in falling(0.1, 0.05)}
    logged = [Curve(Training(plan.arms["large"]), {int(at): loss for at, loss in losses.items()}, {}, 0)]
    changed = int(says == "could change")
    assert in_short(learning_grid(logged), grid).endswith(
        f"; of 1 claims about accuracy a longer training could change {changed}."
    )
    unknown = longer_grid([claim], plan.arms, curves[:1])
    assert unknown is not None
    assert unknown.sections[0][1][0].cells[-1].text.startswith("not known")
