"""`egm grpo`, for real and at toy size: it learns, goes on after an end, and tells mistakes in one line."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from egm.cli import app
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.errors import DataError, EgmError, ModelError, RecipeError
from egm.training.grpo import run as grpo
from egm.training.grpo.prompts import PromptCollator
from egm.training.grpo.recipe import GRPORecipe
from egm.training.grpo.rollouts import read_rollouts
from egm.training.grpo.run import make_trainer, run_grpo
from egm.training.recipe import ModelSection, dump_recipe, load_recipe
from egm.training.rewards.reward import Grades, Reward, RewardSection
from egm.training.shared.model import open_model

from ...families import random_checkpoint
from ..shallow import shallow_model

CODEC = get_codec("qwen3_vl")
TOY: dict[str, Any] = {
    "data": {"scenes": 4},
    "rollout": {"group": 4, "max_new_tokens": 8, "keep": 1},
    "optim": {"steps": 2, "prompts": 2, "learning_rate": 1e-5, "warmup_steps": 0},
    "run": {"log_every": 1, "save_every": 1},
}


def toy(**changes: Any) -> GRPORecipe:
    base = TOY | {"model": {"name": str(random_checkpoint("qwen3_vl"))}}
    return GRPORecipe.model_validate({**base, **{k: base.get(k, {}) | v for k, v in changes.items()}})


class Digits(Reward):
    """Pays for the share of digits among the characters: something that eight tokens can earn."""

    def __init__(self, *actions: Any) -> None:
        super().__init__(RewardSection(), CODEC)
        self.seen: list[float] = []
        self._actions = actions

    def grade(self, texts: Any, **columns: Any) -> Grades:
        grades = super().grade(texts, **columns)
        totals = np.array([sum(c.isdigit() for c in text) / max(1, len(text)) for text in texts])
        if len(self.seen) < len(self._actions):
            self._actions[len(self.seen)]()
        self.seen.append(float(totals.mean()))
        return Grades(grades.groundings, grades.scores, {"digits": totals}, totals)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("grpo") / "toy"
    recipe = toy(optim={"accumulation": 2, "updates": 2, "kl": 0.01, "loss": "gspo"})
    assert run_grpo(recipe, out, check=False, reward=Digits()) == out / "model"
    return out


def test_the_run_folder_says_what_was_done(trained: Path) -> None:
    assert load_recipe(GRPORecipe, trained / "recipe.yaml").optim.loss == "gspo"
    run = json.loads((trained / "run.json").read_text())
    assert run["steps"] == 2
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert {"reward", "reward/digits", "accuracy", "frac_reward_zero_std", "kl", "entropy"} <= log[0].keys()
    notes = [entry["note"] for entry in log if "note" in entry]  # once, though every step is cut off
    assert len(notes) == 1
    assert notes[0].startswith(
        "at step 1, 8 of 8 rollouts are truncated, which usually means: the token limit cut them"
    )
    from egm.grounder import Grounder

    assert Grounder.load(trained / "model", device="cpu").codec.name == "qwen3_vl"


def test_a_dry_run_checks_and_writes_nothing(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(toy()))
    arguments = ["grpo", str(recipe), "--out", str(tmp_path / "run"), "--dry-run"]
    done = CliRunner().invoke(app, [*arguments, "--skip-preflight"])
    assert done.stdout == "nothing wrong was found; without --dry-run it is trained\n", done.output
    refused = CliRunner().invoke(app, [*arguments, "--set", "rollout.max_new_tokens=2"])
    assert isinstance(refused.exception, EgmError)
    assert str(refused.exception).startswith("preflight: ")
    assert not (tmp_path / "run").exists()


def test_each_step_is_logged_also_where_it_is_measured(tmp_path: Path) -> None:
    recipe = toy(run={"log_every": 1, "save_every": 99})
    recipe = GRPORecipe.model_validate(recipe.model_dump() | {"eval": {"every": 1, "samples": 1}})
    run_grpo(recipe, tmp_path / "run", check=False, reward=Digits())
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if "eval_accuracy" in entry] == [0, 1, 2]
    assert [entry["step"] for entry in log if "learning_rate" in entry and "reward" in entry] == [1, 2]


def test_rollouts_are_kept(trained: Path) -> None:
    rollouts = list(read_rollouts(trained / "rollouts"))
    assert len(rollouts) == 4  # two updates of one generation: one group of four
    [asked] = [s for s in SynthRef("train", scenes=4).samples(0) if s.id == rollouts[0]["id"]]
    for rollout in rollouts:
        assert (rollout["phrase"], rollout["truth"]) == (asked.phrase, list(asked.box or ()))
        assert (rollout["box"], rollout["failure"], rollout["iou"]) == (None, "truncated", 0.0)  # in eight tokens
        digits = sum(c.isdigit() for c in rollout["text"]) / len(rollout["text"])
        assert rollout["parts"] == {"digits": rollout["reward"]} == {"digits": digits}
    assert (trained / "rollouts" / "pictures" / rollouts[0]["picture"]).exists()
    rewards = np.array([rollout["reward"] for rollout in rollouts])
    spread = rewards.std(ddof=1) + 1e-4
    assert [r["advantage"] for r in rollouts] == pytest.approx((rewards - rewards.mean()) / spread, abs=1e-4)


def test_it_learns(tmp_path: Path) -> None:
    reward = Digits()
    recipe = toy(
        model={"name": str(shallow_model())},  # random weights write no digits to begin with
        optim={"steps": 10, "prompts": 4, "learning_rate": 1e-3},
        data={"scenes": 1},
        rollout={"temperature": 4.0},  # what it begins with is as good as certain
        run={"save_every": 99},
    )
    run_grpo(recipe, tmp_path / "run", check=False, reward=reward)
    assert np.mean(reward.seen[-2:]) > np.mean(reward.seen[:2]) + 0.1, reward.seen


@pytest.mark.usefixtures("on_cpu")
def test_probabilities_are_those_of_the_plain_model(tmp_path: Path) -> None:
    recipe = toy(rollout={"temperature": 2.0, "max_new_tokens": 12, "keep": 0}, optim={"prompts": 4})
    trainer = make_trainer(recipe, tmp_path / "run", reward=Digits())
    numbers = [0, 1, 4, 9]
    batch = trainer._generate_and_score_completions([{"number": n} for n in numbers for _ in range(4)])
    order = torch.tensor([5, 2, 14, 9, 0, 7])  # as after TRL's shuffling: some pictures are missing, some come twice
    trainer._rows = batch["rows"][order]
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)[order]
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)[order]
    keep = batch["completion_ids"].shape[1]
    with torch.no_grad():
        found, entropies, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, keep, batch_size=4, compute_entropy=True
        )
    model, processor = open_model(recipe.model, seed=0)
    prompts = trainer._prompts
    for place, row in enumerate(batch["rows"][order].tolist()):
        alone = PromptCollator(processor, CODEC, None)([prompts.samples[row]])
        answer = batch["completion_ids"][order[place]][: int(batch["completion_mask"][order[place]].sum())]
        whole = torch.cat([torch.tensor(alone.ids[0]), answer])[None]
        with torch.no_grad():
            asked = {"pixel_values": alone.pixels, "image_grid_thw": torch.tensor(alone.grids)}
            asked["mm_token_type_ids"] = (whole == processor.image_token_id).long()
            scores = model(input_ids=whole, **asked).logits[0, -len(answer) - 1 : -1] / 2.0
        logs = scores.log_softmax(-1)
        expected = logs.gather(1, answer[:, None])[:, 0]
        torch.testing.assert_close(found[place, : len(answer)], expected, atol=2e-3, rtol=0)
        torch.testing.assert_close(entropies[place, : len(answer)], -(logs.exp() * logs).sum(-1), atol=2e-3, rtol=0)


def test_sigterm_leaves_a_checkpoint_to_go_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = toy(run={"save_every": 99, "workers": 1})

    def tell() -> None:
        for child in multiprocessing.active_children():  # as `timeout` and terminals do
            os.kill(child.pid, signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    told = Digits(tell)
    (tmp_path / "toy.yaml").write_text(dump_recipe(recipe))
    command = ["grpo", str(tmp_path / "toy.yaml"), "--skip-preflight", "--out", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr(grpo, "Reward", lambda *settings: told)
        ended = CliRunner().invoke(app, command)
    assert (ended.exit_code, ended.stdout) == (143, "")  # 128 and the signal's number, as a shell has it
    assert ended.stderr.endswith(f"\nstopped by SIGTERM with a checkpoint: go on with --resume --out {command[-1]}\n")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["checkpoint-1"]
    with pytest.raises(RecipeError, match="holds a run already: go on with --resume"):
        run_grpo(recipe, tmp_path / "run")
    other = toy(run={"save_every": 99, "workers": 1}, optim={"kl": 0.5})
    with pytest.raises(RecipeError, match=r"optim\.kl"):
        run_grpo(other, tmp_path / "run", resume=True)
    assert run_grpo(recipe, tmp_path / "run", resume=True, reward=Digits()) == tmp_path / "run" / "model"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["steps"] == 2


def test_a_full_disk_leaves_the_last_checkpoint(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    limits, out = resource.getrlimit(resource.RLIMIT_FSIZE), tmp_path / "run"

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))

    def refusal(reward: Reward, **options: Any) -> str:
        try:
            with pytest.raises(EgmError) as caught:
                run_grpo(toy(), out, check=False, reward=reward, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    says = refusal(Digits(fill))
    assert says.startswith("the checkpoint of step 1 could not be written (")
    assert says.endswith("run again without --resume: there is no checkpoint to go on from")
    says = refusal(Digits(lambda: None, fill))
    assert says.startswith("the checkpoint of step 2 could not be written (")
    assert says.endswith("go on with --resume from the checkpoint before")
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["checkpoint-1"]
    assert "<p>1 of 1 groups." in (out / "rollouts.html").read_text()  # as it was at the checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(
            "egm.training.grpo.rollouts.write_page", lambda *paths: fill()
        )  # between training and the last save
        says = refusal(Digits(), resume=True)
    assert says.startswith(f"the trained model in {out / 'model'} could not be written (")
    assert says.endswith("end the run with --resume from its last checkpoint")
    assert not (out / "model").exists()
    trainers = logging.getLogger("transformers.trainer")  # it does not hand on what it is told
    trainers.addHandler(caplog.handler)
    try:
        assert run_grpo(toy(), out, resume=True, reward=Digits()) == out / "model"
    finally:
        trainers.removeHandler(caplog.handler)
    assert "missing keys" not in caplog.text
    assert not [told for told in recwarn if "is_gradient_checkpointing" in str(told.message)]
    assert "<p>2 of 2 groups." in (out / "rollouts.html").read_text()


@pytest.mark.parametrize("gpus", [0, 2])
def test_any_launcher_will_do(tmp_path: Path, gpus: int, warm_start: dict[str, str]) -> None:
    if torch.cuda.device_count() < gpus:
        pytest.skip("needs two GPUs")
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(toy(optim={"steps": 1})))
    program = tmp_path / "run.py"
    program.write_text("from egm.cli import main\nmain()\n")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, str(program), "grpo", str(path)]
    done = subprocess.run(
        [sys.executable, *command, "--skip-preflight", "--out", str(tmp_path / "run")],
        env=os.environ | ({} if gpus else warm_start | {"CUDA_VISIBLE_DEVICES": ""}),  # one GPU would not do for two
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path.name for path in (tmp_path / "run" / "rollouts").glob("*.jsonl")} == {
        "step-000001.p0.jsonl",
        "step-000001.p1.jsonl",
    }
    asked = {rollout["id"] for rollout in read_rollouts(tmp_path / "run" / "rollouts")}
    assert len(asked) == 2  # each process has a prompt of its own
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"data": {"train": "none.jsonl"}}, DataError, "no dataset at none.jsonl"),
        ({"data": {"scenes": 1}, "optim": {"prompts": 8}}, DataError, "fewer than a step asks"),
        ({"model": {"name": "no/such/folder"}}, ModelError, "no/such/folder"),
        ({"data": {"prompt": "rhyme"}}, EgmError, "rhyme"),
        ({"run": {"flatten": True}}, RecipeError, "run.flatten is for egm sft"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        run_grpo(toy(**changes), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_dataset_with_a_row_without_a_box_is_refused(tmp_path: Path) -> None:
    bare = {"image": "none.png", "sent": "it", "height": 64, "width": 64}
    rows: list[Any] = [bare | {"bbox": [1, 2, 30, 40]} for _ in range(9)]  # their picture is not looked for
    rows[2], rows[-2] = [], bare
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    says = r"rows\.jsonl has 9 rows, and of these 1 .*line 3.*; 1 without a box \(line 8\): a reward needs the true box"
    with pytest.raises(DataError, match=says):
        run_grpo(toy(data={"train": str(tmp_path / "rows.jsonl")}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    sample = SynthRef("val").samples(0)[0]
    from dataclasses import replace

    processor = open_model(ModelSection(name="egm-tiny"), seed=0)[1]
    with pytest.raises(DataError, match="has no box"):
        PromptCollator(processor, CODEC, None)([replace(sample, box=None)])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("optim: {steps: 1, prompts: 3, accumulation: 7}", "do not divide into"),
        ("optim: {steps: 1, stepz: 2}", "did you mean 'steps'?"),
        ("optim: {steps: 1}\nreward: {terms: [{kind: iou, alpha: 1}]}", "unknown key 'reward.terms.0.iou.alpha'"),
        ("optim: {steps: 1}\nreward: {terms: [{kind: iuo}]}", "unknown kind 'iuo'"),
        ("optim: {steps: 1}\nrollout: {group: 1}", "rollout.group: "),
        ("optim: {steps: 1}\nrollout: {temperature: 0}", "rollout.temperature: "),
        ("optim: {steps: 1, loss: ppo}", "optim.loss: "),
        ("optim: {}", "key 'optim.steps' is missing"),
    ],
)
def test_recipe_errors_are_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"model: {{name: egm-tiny}}\n{text}\n")
    result = CliRunner().invoke(app, ["grpo", str(path)])
    assert isinstance(result.exception, RecipeError)
    assert says in str(result.exception)
    assert "\n" not in str(result.exception)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[3] / "recipes").glob("*grpo*.yaml")), ids=lambda p: p.name
)
def test_shipped_recipes_are_right(path: Path) -> None:
    assert load_recipe(GRPORecipe, path).stage == "grpo"


class Noted(Digits):
    """Keeps all totals, a row a group of four."""

    def __init__(self) -> None:
        super().__init__()
        self.totals: list[Any] = []

    def grade(self, texts: Any, **columns: Any) -> Grades:
        grades = super().grade(texts, **columns)
        self.totals.append(grades.totals.reshape(-1, 4))
        return grades


def test_of_several_candidates_those_that_differ_most_are_trained_on(tmp_path: Path) -> None:
    reward = Noted()
    recipe = toy(
        model={"name": str(shallow_model())},
        rollout={"candidates": 3, "temperature": 4.0, "keep": 2},
        optim={"steps": 1, "prompts": 2},
    )
    run_grpo(recipe, tmp_path / "run", check=False, reward=reward)
    asked, taken = reward.totals
    assert (len(asked), len(taken)) == (6, 2)
    spread = np.sort(asked.std(axis=1))
    assert np.sort(taken.std(axis=1)) == pytest.approx(spread[-2:])
    assert spread[0] < spread[-2]
    kept = [rollout["reward"] for rollout in read_rollouts(tmp_path / "run" / "rollouts")]
    assert np.reshape(kept, (2, 4)) == pytest.approx(taken)
    log = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert log["candidates/reward/digits"] == pytest.approx(asked.mean())
    assert log["reward/digits"] == pytest.approx(taken.mean())


class OneQuestion(Digits):
    """Pays for one question of those it is asked first, and for no other."""

    paid: Any = None

    def grade(self, texts: Any, **columns: Any) -> Grades:
        grades, truths = super().grade(texts, **columns), columns["truths"]
        self.paid = self.paid or min(truths, key=truths.count)  # two may ask for one box
        totals = grades.totals * [truth == self.paid for truth in truths]
        return Grades(grades.groundings, grades.scores, {"digits": totals}, totals)


def test_groups_without_spread_are_counted_where_the_batch_has_some(tmp_path: Path) -> None:
    rollout = {"candidates": 2, "temperature": 4.0, "keep": 0}
    recipe = toy(model={"name": str(shallow_model())}, optim={"steps": 1, "scale": "batch"}, rollout=rollout)
    run_grpo(recipe, tmp_path / "run", check=False, reward=OneQuestion())
    log = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert (log["frac_reward_zero_std"], log["candidates/frac_reward_zero_std"]) == (0.5, 0.75)
    assert log["reward_std"] > 0


def test_questions_are_asked_in_several_styles_and_held_out_ones_in_the_first(tmp_path: Path) -> None:
    recipe = toy(data={"prompt": ["qwen3", "grounding"], "train": [{"name": "synthref/train"}] * 2})
    trainer = make_trainer(recipe, tmp_path / "toy", check=False)
    samples = [trainer._prefetcher._table[number] for number in range(20)]
    decode = trainer.processing_class.tokenizer.decode

    def locating(collator: PromptCollator) -> int:
        return sum("Locate" in decode(ids) for ids in collator(samples).ids)

    assert 0 < locating(trainer._prefetcher._collator) < len(samples)
    assert locating(trainer._collator) == len(samples)
