"""Whole steps of `egm grpo`: their gradients are those of the papers' formulas, row by row on stock transformers."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from egm.codecs import Codec, get_codec
from egm.training.data import SynthRefRows
from egm.training.grpo.prompts import SampleTable
from egm.training.grpo.recipe import GRPORecipe
from egm.training.grpo.run import make_trainer
from egm.training.recipe import ModelSection, dump_recipe, load_recipe
from egm.training.rewards.reward import Grades, Reward, RewardSection
from egm.training.shared.model import make_codec, open_model
from egm.types import Sample

pytestmark = pytest.mark.usefixtures("on_cpu")

CODEC = get_codec("qwen3_vl")
Batch: TypeAlias = Mapping[str, torch.Tensor]
SCENES, GROUP, PROMPTS = 5, 3, 4
TEMPERATURE = 2.0
CLIP_LOW, CLIP_HIGH = 0.05, 0.1
ROOM = 1e-4  # what TRL adds to a deviation before dividing by it


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that ends its answers at one token in eight: short ones have several lengths, and some are cut off."""
    from ...families import random_checkpoint  # two processes run this file as a script, which is in no package

    folder = tmp_path_factory.mktemp("model")
    model, processor = open_model(ModelSection(name=str(random_checkpoint("qwen3_vl"))), seed=0)
    model.generation_config.eos_token_id = [processor.tokenizer.eos_token_id, *range(0, len(processor.tokenizer), 8)]
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def worth(text: str, left: float) -> float:
    """What an answer earns: its share of digits, and a little for vowels, which random weights write too.

    Of questions with an even left edge it is the same whatever it says.
    """
    paid = sum(1.0 if c.isdigit() else 0.1 * (c in "aeiou") for c in text)
    return 0.25 if int(left) % 2 == 0 else paid / max(1, len(text))


class Digits(Reward):
    def __init__(self, codec: Codec = CODEC) -> None:
        super().__init__(RewardSection(), codec)

    def grade(self, texts: Any, *, truths: Any, **columns: Any) -> Grades:
        grades = super().grade(texts, truths=truths, **columns)
        totals = np.array([worth(text, truth.x1) for text, truth in zip(texts, truths, strict=True)])
        return Grades(grades.groundings, grades.scores, {"digits": totals}, totals)


@dataclass
class Run(TrainerCallback):  # type: ignore[misc]
    """What a run did: the weights before each step, its gradient, what each pass was given, and the log."""

    weights: list[dict[str, torch.Tensor]] = field(default_factory=list)
    gradients: list[dict[str, torch.Tensor]] = field(default_factory=list)
    passes: list[dict[str, torch.Tensor]] = field(default_factory=list)
    log: list[dict[str, float]] = field(default_factory=list)

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.weights.append({name: value.detach().clone() for name, value in model.named_parameters()})

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.gradients.append({name: value.grad.clone() for name, value in model.named_parameters()})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.log.append(dict(logs))


def train(recipe: GRPORecipe, out: Path, codec: Codec = CODEC) -> Run:
    trainer = make_trainer(recipe, out, reward=Digits(codec))
    run, loss = Run(), trainer._compute_loss

    def noted(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        run.passes.append({name: value.clone() for name, value in inputs.items()})
        return loss(model, inputs)

    trainer._compute_loss = noted
    trainer.add_callback(run)
    trainer.train()
    return run


class Answer:
    """A completion, as the plain model reads it with its own picture, and what it earned."""

    def __init__(self, inputs: Any, tokens: list[int], shared: int, sample: Sample, model: Any, processor: Any) -> None:
        assert sample.box is not None
        self.sample, self.tokens, self.shared = sample, tokens, shared
        self.own = len(tokens) - shared
        self.ids = torch.cat([inputs["input_ids"], torch.tensor([tokens])], dim=1)
        self.fields = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}
        if "mm_token_type_ids" in self.fields:
            self.fields["mm_token_type_ids"] = (self.ids == processor.image_token_id).long()
        stops = model.generation_config.eos_token_id
        self.ended = tokens[-1] in stops
        assert not set(tokens[:-1]) & set(stops)
        self.reward = worth(processor.tokenizer.decode(tokens[:-1] if self.ended else tokens), sample.box.x1)
        self.advantage = self.spread = 0.0

    def log_probabilities(self, model: Any) -> torch.Tensor:
        logits = model(input_ids=self.ids, **self.fields).logits[0, -len(self.tokens) - 1 : -1] / TEMPERATURE
        return logits.log_softmax(-1).gather(1, torch.tensor(self.tokens)[:, None])[:, 0]  # type: ignore[no-any-return]


def read(recipe: GRPORecipe, passes: Sequence[Sequence[Batch]]) -> list[list[Answer]]:
    """Find the sample of each row by the tokens of its question, and read the row, by pass."""
    model, processor = open_model(recipe.model, seed=0)
    codec, table = make_codec(model.config, processor), SampleTable(SynthRefRows(recipe.data.scenes, 0))
    asked = {}
    for number in range(len(table)):
        messages = codec.messages(table[number].phrase, amodal=table[number].amodal)
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs = processor(text=[text], images=[table[number].image], return_tensors="pt")
        asked[tuple(inputs["input_ids"][0].tolist())] = inputs, table[number]
    assert len(asked) == len(table)
    answers: list[list[Answer]] = []
    for batches in passes:
        answers.append([])
        for batch in batches:
            for row in range(len(batch["prompt_ids"])):
                question, tokens = (
                    batch[f"{name}_ids"][row][batch[f"{name}_mask"][row].bool()].tolist()
                    for name in ("prompt", "completion")
                )
                left_out = batch["tool_mask"][row] == 0 if "tool_mask" in batch else torch.zeros(1)
                shared = 0 if left_out.all() else int(left_out.sum())
                inputs, sample = asked[tuple(question)]
                answers[-1].append(Answer(inputs, tokens, shared, sample, model, processor))
    return answers


def judge(answers: Sequence[Answer], scale: str) -> None:
    """Give each answer its advantage over the others to its question (arXiv 2402.03300, section 4.1.2)."""
    everything = np.std([answer.reward for answer in answers], ddof=1)
    for answer in answers:
        group = [other.reward for other in answers if other.sample is answer.sample]
        assert len(group) == GROUP
        answer.spread = max(group) - min(group)
        divisor = {"group": np.std(group, ddof=1) + ROOM, "batch": everything + ROOM, "none": 1.0}[scale]
        answer.advantage = float((answer.reward - np.mean(group)) / divisor)


def losses(now: Any, before: Any, start: Any, answer: Answer, *, sequence: bool, kl: float) -> torch.Tensor:
    """The loss at each token under three models: of now, of when it was answered (None: the same), and of the start.

    The clipped surrogate (of whole sequences, arXiv 2507.18071), less the KL divergence, which is weighed by the ratio
    where there is one a token (arXiv 2512.02556, equation 7).
    """
    logs = answer.log_probabilities(now)
    with torch.no_grad():
        earlier = logs if before is None else answer.log_probabilities(before)
        gone = answer.log_probabilities(start) - logs if kl else None
    gain = logs - earlier.detach()
    ratio = gain[answer.shared :].mean().exp().expand_as(logs) if sequence else gain.exp()
    clipped = ratio.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH)
    gained = torch.minimum(ratio * answer.advantage, clipped * answer.advantage)
    if gone is None:
        return -gained
    gone = gone + logs.detach() - logs  # with its gradient
    return kl * (1.0 if sequence else ratio) * (gone.exp() - gone - 1) - gained


def expected(recipe: GRPORecipe, run: Run, step: int, generation: Sequence[Sequence[Answer]]) -> dict[str, Any]:
    """The gradient of a step by the formulas; a generation's answers come by pass, those of all processes together."""
    optim = recipe.optim
    number = step % (optim.updates * optim.iterations)
    everything = [answer for answers in generation for answer in answers]
    judge(everything, optim.scale or ("none" if optim.loss == "dr_grpo" else "group"))
    start = open_model(recipe.model, seed=0)[0]
    now, before = copy.deepcopy(start), copy.deepcopy(start)
    now.load_state_dict(run.weights[step], strict=False)
    before.load_state_dict(run.weights[step - number], strict=False)
    counted = [answer for answer in everything if answer.spread > 0 or optim.zero_spread == "count"]
    tokens, rows = sum(answer.own for answer in counted), len(counted)
    first = number % optim.updates * optim.accumulation
    for answer in (answer for part in generation[first : first + optim.accumulation] for answer in part):
        if answer not in counted:
            continue
        divisor = {
            "dapo": tokens,
            "grpo": rows * answer.own,
            "gspo": rows * answer.own,
            "dr_grpo": rows * recipe.rollout.max_new_tokens,
        }[optim.loss] / optim.updates  # of a generation, of which this is one step's share
        told = losses(now, before if number else None, start, answer, sequence=optim.loss == "gspo", kl=optim.kl)
        (told[answer.shared :].sum() / divisor).backward()
    return {name: value.grad for name, value in now.named_parameters()}


def check(found: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> None:
    names = sorted(right)
    ours, theirs = (torch.cat([part[name].flatten() for name in names]).double() for part in (found, right))
    assert float(theirs.norm()) > 1e-3
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-3


def recipe_of(folder: Path, *, optim: dict[str, Any], **more: Any) -> GRPORecipe:
    base = {"steps": 1, "prompts": PROMPTS, "learning_rate": 3e-4, "schedule": "constant_with_warmup",
            "warmup_steps": 0, "max_grad_norm": 1e9, "clip_low": CLIP_LOW, "clip_high": CLIP_HIGH}  # fmt: skip
    drawn = {"group": GROUP, "max_new_tokens": 10, "temperature": TEMPERATURE, "keep": 0} | more
    parts = {"model": {"name": str(folder)}, "data": {"scenes": SCENES}, "rollout": drawn, "optim": base | optim}
    return GRPORecipe.model_validate(parts | {"run": {"save_every": 99, "log_every": 1}})


def compare(recipe: GRPORecipe, *runs: Run) -> list[Answer]:
    """Hold every step of a run, given by process, to the formulas; return all answers."""
    run, optim = runs[0], recipe.optim
    answers = read(recipe, list(zip(*(run.passes for run in runs), strict=True)))
    assert len(run.gradients) == optim.steps
    for step, gradient in enumerate(run.gradients):
        begin = (step - step % (optim.updates * optim.iterations)) * optim.accumulation
        generation = answers[begin : begin + optim.updates * optim.accumulation]
        check(gradient, expected(recipe, run, step, generation))
    return [answer for part in answers for answer in part]


@pytest.mark.parametrize(
    ("loss", "accumulation", "candidates", "zero_spread"),
    [("dapo", 1, 2, "mask"), ("dapo", 2, 1, "count"), ("grpo", 2, 1, "mask"), ("grpo", 1, 2, "count")],
)
def test_a_step_has_the_gradient_of_the_formula(
    model_folder: Path, tmp_path: Path, loss: str, accumulation: int, candidates: int, zero_spread: str
) -> None:
    optim = {"loss": loss, "accumulation": accumulation, "zero_spread": zero_spread}
    recipe = recipe_of(model_folder, optim=optim, candidates=candidates)
    run = train(recipe, tmp_path / "run")
    answers = compare(recipe, run)
    assert len({len(answer.tokens) for answer in answers}) > 2
    assert {answer.ended for answer in answers} == {True, False}
    if candidates == 1:
        assert {answer.spread > 0 for answer in answers} == {True, False}


@pytest.mark.parametrize(
    "optim",
    [
        {"loss": "dapo", "accumulation": 2, "zero_spread": "mask"},
        {"loss": "grpo", "accumulation": 2, "zero_spread": "count"},
        {"loss": "dr_grpo", "kl": 0.1},
        {"loss": "gspo", "updates": 2, "steps": 2, "learning_rate": 1e-4},
    ],
    ids=lambda optim: optim["loss"],
)
def test_what_a_group_shares_is_not_trained_on(model_folder: Path, tmp_path: Path, optim: dict[str, Any]) -> None:
    recipe = recipe_of(model_folder, optim=optim, branch=" ", candidates=2)
    answers = compare(recipe, train(recipe, tmp_path / "run"))
    branched = [answer for answer in answers if answer.shared]
    assert branched
    processor = open_model(recipe.model, seed=0)[1]
    for answer in branched:
        group = [other for other in answers if other.sample is answer.sample]
        begin = answer.tokens[: answer.shared]
        assert all(other.tokens[: answer.shared] == begin for other in group)
        assert processor.tokenizer.decode(begin).count(" ") == 1
        assert " " not in processor.tokenizer.decode(begin[:-1])
        assert len({tuple(other.tokens[: answer.shared + 3]) for other in group}) > 1


@pytest.mark.parametrize(
    "optim",
    [
        {"loss": "dapo", "updates": 2, "accumulation": 2, "iterations": 2, "steps": 4, "scale": "batch", "kl": 0.2},
        {"loss": "gspo", "updates": 2, "iterations": 2, "steps": 4, "kl": 0.2, "learning_rate": 1e-2},
        {"loss": "dr_grpo", "iterations": 2, "steps": 3},
    ],
    ids=lambda optim: optim["loss"],
)
def test_later_steps_weigh_by_the_policy_that_answered(
    model_folder: Path, tmp_path: Path, optim: dict[str, Any]
) -> None:
    recipe = recipe_of(model_folder, optim=optim)
    run = train(recipe, tmp_path / "run")
    compare(recipe, run)
    assert run.log[0]["clip_ratio/region_mean"] == 0
    assert max(entry.get("clip_ratio/region_mean", 0) for entry in run.log) > 0


@pytest.mark.parametrize("family", ["qwen3_vl", "internvl"])
def test_two_processes_take_the_step_of_one(
    model_folder: Path, tmp_path: Path, warm_start: dict[str, str], family: str
) -> None:
    from ...families import random_checkpoint

    folder = model_folder if family == "qwen3_vl" else random_checkpoint(family)
    recipe = recipe_of(folder, optim={"loss": "dapo", "accumulation": 2})
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    hidden = os.environ | warm_start | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *launch, __file__, str(tmp_path)], env=hidden, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    runs = [Run(**torch.load(tmp_path / f"{process}.pt")) for process in range(2)]
    for name, value in runs[0].gradients[0].items():
        assert torch.equal(value, runs[1].gradients[0][name])
    compare(recipe, *runs)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    done_here = train(load_recipe(GRPORecipe, folder / "recipe.yaml"), folder / "run")
    torch.save(vars(done_here), folder / f"{torch.distributed.get_rank()}.pt")
