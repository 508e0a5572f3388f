"""Whether arms had stopped improving as their training ended, from its log, and what that means for the claims.

The loss says whether a model still learns: what it fell by in the last quarter of the steps, against the first. It does
not say in points of accuracy what further training would give, so claims are held against accuracy on held-out
questions: a claim may change if one of its arms could gain as much again as in its last quarter, chance included, and
the other nothing, and that were enough to carry an end of the interval across 0, or the whole of it away from 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any, Final

import numpy as np

from egm.report.figures import FIGURE_STYLE, figure_files
from egm.report.grid import Cell, Grid, Line
from egm.reproduce.arms import Arm, Training
from egm.reproduce.claims import Claim
from egm.reproduce.folder import ArmFolder
from egm.reproduce.run import ReproductionPlan
from egm.training.sft.recipe import SFTRecipe

LEVEL: Final = 0.05
"""What was learnt has levelled off where it improved in the last quarter by less than this share of the first."""
IMPROVING, LEVELLED = "still improving", "levelled off"
COULD, WOULD_NOT = "could change", "would not change"
_SURE: Final = 1.96  # standard errors


@dataclass(frozen=True)
class Curve:
    """What a training logged.

    Attributes:
        training: The training.
        values: The loss by step; of reinforcement the reward, as its loss says nothing of what is learnt.
        held_out: Acc@0.5 of greedy answers to held-out questions by step, as far as it was logged.
        asked: How many of these questions there are; 0 if that is not known.
    """

    training: Training
    values: Mapping[int, float]
    held_out: Mapping[int, float]
    asked: int

    @property
    def quarters(self) -> list[float | None]:
        """Mean value in each quarter of the steps; None where nothing was logged."""
        found = [[value for _, value in part] for part in self._parts()]
        return [float(np.mean(part)) if part else None for part in found]

    @property
    def last_against_first(self) -> float | None:
        """How much it improved in the last quarter, as a share of the first; None where it did not improve in that."""
        first, _, last, _ = self._improved()
        return None if first is None or last is None or first <= 0 else last / first

    @property
    def verdict(self) -> str:
        """`IMPROVING` or `LEVELLED`; empty where too little was logged."""
        first, _, last, error = self._improved()
        if first is None or last is None or error is None:
            return ""
        return IMPROVING if last > max(LEVEL * first, 2 * error) else LEVELLED

    def _improved(self) -> tuple[float | None, ...]:
        """What it improved by over the first and the last quarter, each with its standard error."""
        sign = -1 if isinstance(self.training.recipe, SFTRecipe) else 1
        first, *_, last = map(_change, self._parts())
        (a, a_error), (b, b_error) = first, last
        return None if a is None else sign * a, a_error, None if b is None else sign * b, b_error

    @property
    def gain(self) -> tuple[float, float] | None:
        """What held-out accuracy gained in the last quarter, and its standard error; None where that was not logged.

        The error takes both times for independent samples, so it is rather too large.
        """
        if not self.asked or len(self.held_out) < 2:
            return None
        *before, end = sorted(self.held_out)
        start = min(before, key=lambda step: abs(step - 0.75 * end))
        if not 0.5 * end <= start <= 0.9 * end:
            return None
        a, b = self.held_out[start], self.held_out[end]
        return b - a, sqrt((a * (1 - a) + b * (1 - b)) / self.asked)

    def _parts(self) -> list[list[tuple[int, float]]]:
        end = max(self.values, default=0)
        parts: list[list[tuple[int, float]]] = [[], [], [], []]
        for step, value in self.values.items():
            parts[max(0, 4 * step - 1) // max(1, end)].append((step, value))
        return parts


def read_curves(plan: ReproductionPlan) -> list[Curve]:
    """Read the logs of all trainings that are done."""
    trainings = ((ArmFolder(plan.out, name), each) for name, each in plan.trainings.items())
    curves = [_read(each, folder.train / "log.jsonl") for folder, each in trainings if folder.is_done("train")]
    return [curve for curve in curves if curve.values]


def _read(training: Training, log: Path) -> Curve:
    recipe = training.recipe
    if isinstance(recipe, SFTRecipe):
        key, asked = "loss", 0 if recipe.eval is None else recipe.eval.greedy
    else:
        key, asked = "reward", 0 if recipe.eval is None else recipe.eval.samples
    lines: list[dict[str, Any]] = []
    if log.exists():
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]

    def by_step(name: str) -> dict[int, float]:
        return {line["step"]: float(line[name]) for line in lines if "step" in line and name in line}

    return Curve(training, by_step(key), by_step("eval_accuracy"), asked)


def _change(part: Sequence[tuple[int, float]]) -> tuple[float | None, float | None]:
    """The change along the straight line through values by step, and its standard error, which three values tell."""
    if len(part) < 3:
        return None, None
    steps, values = np.array(part).T
    slope, start = np.polyfit(steps, values, 1)
    rest = values - start - slope * steps
    error = sqrt(float((rest**2).sum()) / (len(part) - 2) / float(((steps - steps.mean()) ** 2).sum()))
    span = float(steps.max() - steps.min())
    return float(slope) * span, error * span


def could_gain(arm: Arm, curves: Sequence[Curve]) -> float | None:
    """What an arm's accuracy could gain by training on: its last quarter's gain, and 1.96 standard errors.

    The learning rate falls to its end, where gains are smaller than at the same step of a longer training; but later
    quarters give less than earlier ones. With several seeds gain and error are means over them.
    """
    gains = [curve.gain for curve in curves if curve.training.arm == arm]
    known = [gain for gain in gains if gain is not None]
    if not known or len(known) < len(gains):
        return None
    value, error = np.mean(known, axis=0)
    return float(max(0.0, value) + _SURE * error)


def learning_grid(curves: Sequence[Curve]) -> Grid:
    """The curves by quarter, with a verdict."""

    def number(value: float | None, form: str) -> Cell:
        return Cell("" if value is None else f"{value:{form}}")

    lines = []
    for curve in curves:
        share, gain = curve.last_against_first, curve.gain
        accuracy = ", ".join(f"{100 * value:.1f}" for _, value in sorted(curve.held_out.items()))
        cells = (
            Cell("loss" if isinstance(curve.training.recipe, SFTRecipe) else "reward"),
            *(number(value, ".4g") for value in curve.quarters),
            number(None if share is None else 100 * share, ".1f"),
            Cell(curve.verdict),
            Cell(accuracy),
            Cell("" if gain is None else f"{100 * gain[0]:+.1f} ({100 * _SURE * gain[1]:.1f})"),
        )
        lines.append(Line(curve.training.name, cells))
    return Grid(
        "Whether trainings had stopped improving",
        (
            *("training", "of", "1st quarter", "2nd", "3rd", "4th", "last against first, %", "verdict"),
            *("held-out Acc@0.5 (%) as it went", "gain in the last quarter, points"),
        ),
        (("", tuple(lines)),),
        (
            "Means over each quarter of the steps. Last against first: the change over the last quarter as a share of "
            f"that over the first, each of the straight line through it; levelled off: below {100 * LEVEL:.0f} %, or "
            "no more than two standard errors of the line. The learning rate falls towards the end, and the loss with "
            "it. In brackets 1.96 standard errors.",
        ),
    )


def longer_grid(claims: Sequence[Claim], arms: Mapping[str, Arm], curves: Sequence[Curve]) -> Grid | None:
    """Whether a longer training could change the claims about accuracy; None where nothing was claimed of it."""
    lines = []
    for claim in claims:
        if claim.difference is None or not claim.arms:
            continue
        cells = _judged(claim, [could_gain(arms[name], curves) for name in claim.arms])
        lines.append(Line(claim.says, (Cell(claim.verdict), *map(Cell, cells))))
    if not lines:
        return None
    return Grid(
        "Whether a longer training could change the claims",
        ("claim", "here", "points that would change it", "points that could be gained", "by a longer training"),
        (("", tuple(lines)),),
        (
            "It could if one of the two arms gained as much accuracy again as in its last quarter, on held-out "
            "questions and with 1.96 standard errors, the other nothing, and the verdict were another then. That is of "
            "an arm's own stage, not of its parent's. Claims of another kind than accuracy are not judged.",
        ),
    )


def _judged(claim: Claim, gains: Sequence[float | None]) -> tuple[str, str, str]:
    """What would change a verdict, what each arm could gain, and whether that is enough."""
    assert claim.difference is not None
    low, high = claim.difference.low, claim.difference.high
    first, second = claim.arms
    needed = {}  # by the arm that would have to gain
    if high >= 0:  # not below 0 yet, or held no longer
        needed[first] = low if low > 0 else high
    if low <= 0:
        needed[second] = abs(high if high < 0 else low)
    told = [f"{100 * value:.1f} by {name}" for name, value in needed.items()]
    if None in gains:
        return " or ".join(told), "", "not known: no held-out accuracy at three quarters of the training"
    could = {name: gain for name, gain in zip(claim.arms, gains, strict=True) if gain is not None}
    enough = any(could[name] >= value for name, value in needed.items())
    said = ", ".join(f"{100 * value:.1f} by {name}" for name, value in could.items() if name in needed)
    return " or ".join(told), said, COULD if enough else WOULD_NOT


def in_short(learning: Grid, longer: Grid | None) -> str:
    """The verdicts of both tables in one sentence."""
    place = learning.columns.index("verdict") - 1
    verdicts = [line.cells[place].text for _, lines in learning.sections for line in lines]
    told = [verdict for verdict in verdicts if verdict]
    if not told:
        return "Too little was logged to tell whether trainings had stopped improving."
    text = f"As they ended, {told.count(IMPROVING)} of {len(told)} trainings were {IMPROVING}, by loss or reward"
    judged = [line.cells[-1].text for _, lines in longer.sections for line in lines] if longer is not None else []
    changing, staying = judged.count(COULD), judged.count(WOULD_NOT)
    if not changing + staying:
        return f"{text}; whether longer ones could change a claim is not known without accuracy on held-out questions."
    return f"{text}; of {changing + staying} claims about accuracy a longer training could change {changing}."


def _by_share(curve: Curve) -> dict[int, float]:
    """Held-out accuracy in percent, by percent of the steps: stages have very different numbers of these."""
    end = max(curve.values)
    return {round(100 * step / end): 100 * value for step, value in curve.held_out.items()}


def learning_figure(curves: Sequence[Curve]) -> dict[str, bytes]:
    """Draw loss, reward and held-out accuracy, a colour an arm and a stroke a seed: the content of files by suffix."""
    import matplotlib
    from matplotlib.figure import Figure

    tuned = [curve for curve in curves if isinstance(curve.training.recipe, SFTRecipe)]
    rest = [curve for curve in curves if curve not in tuned]
    panels: list[tuple[str, str, list[tuple[Curve, Mapping[int, float]]]]] = [
        ("step", "loss of fine-tuning", [(curve, curve.values) for curve in tuned]),
        ("step", "reward", [(curve, curve.values) for curve in rest]),
        ("% of the steps", "held-out Acc@0.5, %", [(curve, _by_share(curve)) for curve in curves if curve.held_out]),
    ]
    shown = [panel for panel in panels if panel[2]]
    colours = {
        name: f"C{at % 10}" for at, name in enumerate(dict.fromkeys(curve.training.arm.name for curve in curves))
    }
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", **FIGURE_STYLE}):
        figure = Figure(figsize=(4.8 * len(shown), 3.8), dpi=200, layout="constrained")
        for axes, (x_title, y_title, lines) in zip(
            figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True
        ):
            for curve, values in lines:
                training, steps = curve.training, sorted(values)
                seeds = training.arm.seeds
                stroke = ("-", "--", ":", "-.")[seeds.index(training.seed) % 4 if training.seed in seeds else 0]
                ys, colour = [values[step] for step in steps], colours[training.arm.name]
                axes.plot(steps, ys, label=training.name, color=colour, linestyle=stroke, linewidth=1)
            axes.set(xlabel=x_title, ylabel=y_title)
            axes.legend(fontsize=7, frameon=False)
        return figure_files(figure)
