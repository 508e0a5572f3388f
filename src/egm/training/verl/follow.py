"""A run as it goes: verl's figures and rollouts become the log, the rollouts and the page of `egm grpo`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np

from egm.codecs import Codec, neutralise
from egm.datasets import open_dataset
from egm.files import write_text
from egm.training.grpo.recipe import GRPORecipe
from egm.training.grpo.rollouts import RolloutWriter, write_page
from egm.training.rewards.reward import Grades, Reward
from egm.types import Sample

FIGURES: Final = {
    "critic/score/mean": "reward",
    "response_length/mean": "completions/mean_length",
    "response_length/clip_ratio": "completions/clipped_ratio",
    "actor/entropy": "entropy",
    "actor/kl_loss": "kl",
    "actor/grad_norm": "grad_norm",
    "actor/pg_clipfrac": "clip_ratio",
    "actor/lr": "learning_rate",
    "training/rollout_probs_diff_mean": "sampling/probability_difference",
    "timing_s/step": "step_time",
    "timing_s/gen": "generation_time",
}
"""What `egm grpo` calls verl's figures; the others keep their names."""
_SHOWN = ("reward", "accuracy", "no_box", "frac_reward_zero_std", "completions/mean_length", "kl", "grad_norm")
_SPREAD = 1e-8


class Follower:
    """Looks at what verl has written, and brings log, rollouts and page up to date.

    Args:
        recipe: The recipe.
        codec: How answers are read.
        out: The run folder, whose `verl_rollouts/` has verl's completions.
        train: The questions, as parquet.
        log: verl's figures of this start.
        begun: The rollout that this start goes on from; what was logged beyond it is done again.
    """

    def __init__(self, recipe: GRPORecipe, codec: Codec, out: Path, *, train: Path, log: Path, begun: int = 0) -> None:
        self._recipe, self._codec, self._out, self._log = recipe, codec, out, log
        section = recipe.reward.model_copy(update={"overlong": None})  # tokens are not in verl's files; the reward is
        self._reward = Reward(section, codec)
        self._writer = RolloutWriter(out / "rollouts", keep=recipe.rollout.keep, process=0)
        self._questions = Questions(train)  # now, while nothing is lost by what cannot be read
        self._lines = {line["step"]: line for line in _json_lines(out / "log.jsonl") if line["step"] <= begun}
        self._sizes: dict[Path, int] = {}
        self._said = set(self._lines)
        for path in self._dumps():
            if _step(path) > begun:
                path.unlink()
        self._done = set(self._dumps())

    def look(self, *, last: bool = False) -> None:
        """Take in what is new.

        Args:
            last: Whether nothing more will come, so that files that did not grow since are whole.
        """
        changed = False
        for record in _json_lines(self._log):
            line = self._lines.setdefault(record["step"], {"step": record["step"]})
            new = {FIGURES.get(name, name): value for name, value in record["data"].items()}
            if any(line.get(name) != value for name, value in new.items()):
                line |= new
                changed = True
        for path in self._dumps():
            size = path.stat().st_size
            if path not in self._done and (last or self._sizes.get(path) == size):
                self._take(_step(path), list(_json_lines(path)))
                self._done.add(path)
                changed = True
            self._sizes[path] = size
        if changed:
            lines = [self._lines[step] for step in sorted(self._lines)]
            write_text(self._out / "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
            if self._recipe.rollout.keep:
                write_page(self._out / "rollouts", self._out / "rollouts.html")

    def say(self) -> int:
        """Write the last step's figures to standard error, once; return the last step that was said."""
        for step in sorted(self._lines):
            line = self._lines[step]
            if step in self._said or "step_time" not in line:
                continue
            self._said.add(step)
            figures = [f"{name} {line[name]:.4g}" for name in _SHOWN if isinstance(line.get(name), int | float)]
            print(f"rollout {step}:", ", ".join([*figures, f"{line['step_time']:.1f} s"]), file=sys.stderr)  # noqa: T201
        return max(self._said, default=0)

    def _dumps(self) -> list[Path]:
        return sorted(self._out.glob("verl_rollouts/*.jsonl"), key=_step)

    def _take(self, step: int, rollouts: list[dict[str, Any]]) -> None:
        """Grade the rollouts of a step again, to know its accuracy, and keep the first groups."""
        questions = self._questions
        groups = [list(group) for _, group in groupby(rollouts, key=lambda r: str(r["uid"]).rsplit("_", 2)[0])]
        found = [(group, number) for group in groups if (number := questions.find(group[0])) is not None]
        if not found:
            return
        samples = [questions.sample(number) for _, number in found]
        grades = self._grade([(sample, r) for sample, (group, _) in zip(samples, found, strict=True) for r in group])
        lengths = [len(group) for group, _ in found]
        spread = [np.ptp(part) > _SPREAD for part in np.split(grades.totals, np.cumsum(lengths)[:-1])]
        self._lines.setdefault(step, {"step": step}).update(
            accuracy=grades.accuracy(),
            mean_iou=float(np.mean([score.iou for score in grades.scores])),
            no_box=float(np.mean([score.failure is not None for score in grades.scores])),
            frac_reward_zero_std=1 - float(np.mean(spread)),
        )
        whole = [i for i, (group, _) in enumerate(found) if len(group) == self._recipe.rollout.group]
        kept = whole[: self._recipe.rollout.keep]
        if not kept:
            return
        chosen = [questions.with_picture(found[i][1]) for i in kept]
        texts = [r["output"] for i in kept for r in found[i][0]]
        few = self._grade([(sample, r) for sample, i in zip(chosen, kept, strict=True) for r in found[i][0]])
        sizes = [sample.size for sample in chosen if sample.size is not None]
        self._writer.write(step, chosen, sizes, texts, few, self._advantages(few))

    def _grade(self, asked: Sequence[tuple[Sample, dict[str, Any]]]) -> Grades:
        grades = self._reward.grade(
            [self._codec.restore_tags(r["output"]) for _, r in asked],
            truths=[sample.box for sample, _ in asked if sample.box is not None],
            sizes=[sample.size for sample, _ in asked if sample.size is not None],
            amodal=[sample.amodal for sample, _ in asked],
            phrases=[sample.phrase for sample, _ in asked],
        )
        if self._recipe.reward.overlong is None:
            return grades
        totals = np.array([float(r["score"]) for _, r in asked])
        return replace(grades, totals=totals, parts=grades.parts | {"overlong": totals - grades.totals})

    def _advantages(self, grades: Grades) -> list[float]:
        groups = grades.totals.reshape(-1, self._recipe.rollout.group)
        scaled = (self._recipe.optim.scale or ("none" if self._recipe.optim.loss == "dr_grpo" else "group")) != "none"
        divisor = groups.std(axis=1, ddof=1, keepdims=True) + 1e-6 if scaled else 1.0
        values: list[float] = ((groups - groups.mean(axis=1, keepdims=True)) / divisor).reshape(-1).tolist()
        return values


class Questions:
    """The questions of a run, found again by what verl writes of them: the prompt's words and the true box.

    Args:
        path: The parquet file.
    """

    def __init__(self, path: Path) -> None:
        self._dataset = open_dataset(path, images=Path("/"))
        self._by_box: dict[tuple[float, ...], list[int]] = {}
        for number, sample in enumerate(self._dataset.annotations()):
            self._by_box.setdefault(tuple(sample.box or ()), []).append(number)

    def find(self, rollout: dict[str, Any]) -> int | None:
        """Return the number of the question that a rollout answers; None if it is none of these."""
        words = " ".join(str(rollout["input"]).split())
        numbers = self._by_box.get(tuple(map(float, rollout["gts"] or ())), [])
        fitting = [number for number in numbers if self._words(number) in words]
        return max(fitting, key=lambda number: len(self._words(number)), default=None)

    def sample(self, number: int) -> Sample:
        """Return a question without its picture."""
        return self._dataset.annotations()[number]

    def with_picture(self, number: int) -> Sample:
        """Return a question with its picture."""
        return self._dataset[number]

    def _words(self, number: int) -> str:
        return " ".join(neutralise(self.sample(number).phrase).split()).rstrip(". ")


def _step(path: Path) -> int:
    return int(path.stem) if path.stem.isdecimal() else -1


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file, up to a line that is not whole yet."""
    try:
        # Texts may hold other ends of lines, which are none between records.
        lines: Iterable[str] = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return
    for line in filter(None, lines):
        try:
            record = json.loads(line)
        except ValueError:
            return
        if isinstance(record, dict):
            yield record
