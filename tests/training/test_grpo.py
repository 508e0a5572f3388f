"""`egm grpo`, for real and at toy size: it learns, goes on after an end, and tells mistakes in one line."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from egm.cli import app
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.errors import DataError, EgmError, ModelError, RecipeError
from egm.models.decode import Decoder
from egm.models.fast import enable_fast_path
from egm.training.data import SynthRefRows
from egm.training.grpo import _build, run_grpo
from egm.training.grpo_recipe import GRPORecipe
from egm.training.preflight import check_digits
from egm.training.prompts import Ahead, Asker, SampleTable
from egm.training.recipe import ModelSection, dump_recipe, load_recipe_as
from egm.training.rewards import Grades, Reward, RewardSection
from egm.training.rollouts import read_rollouts, write_page
from egm.training.sft import open_model

CODEC = get_codec("qwen3_vl")
TOY: dict[str, Any] = {
    "model": {"name": "egm-tiny"},
    "data": {"scenes": 4},
    "rollout": {"group": 4, "max_new_tokens": 8, "keep": 1},
    "optim": {"steps": 2, "prompts": 2, "learning_rate": 1e-5, "warmup_steps": 0},
    "run": {"log_every": 1, "save_every": 1},
}


def toy(**changes: Any) -> GRPORecipe:
    return GRPORecipe.model_validate({**TOY, **{k: TOY.get(k, {}) | v for k, v in changes.items()}})


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
    assert load_recipe_as(GRPORecipe, trained / "recipe.yaml").optim.loss == "gspo"
    run = json.loads((trained / "run.json").read_text())
    assert run["steps"] == 2
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert {"reward", "reward/digits", "accuracy", "frac_reward_zero_std", "kl", "entropy"} <= log[0].keys()
    from egm.grounder import Grounder

    assert Grounder.load(trained / "model", device="cpu").codec.name == "qwen3_vl"


def test_rollouts_are_kept(trained: Path) -> None:
    rollouts = list(read_rollouts(trained / "rollouts"))
    assert len(rollouts) == 4  # two updates of one generation: one group of four
    first = rollouts[0]
    assert first["phrase"]
    assert first["parts"]["digits"] == first["reward"]
    assert (trained / "rollouts" / "pictures" / first["picture"]).exists()
    assert sum(rollout["advantage"] for rollout in rollouts) == pytest.approx(0, abs=1e-4)


def test_the_page_loads_nothing_and_escapes_all(trained: Path, tmp_path: Path) -> None:
    rollout = next(read_rollouts(trained / "rollouts"))
    folder = tmp_path / "rollouts"
    (folder / "pictures").mkdir(parents=True)
    (folder / "pictures" / rollout["picture"]).write_bytes(b"\xff\xd8")
    hostile = "<script>alert(1)</script>\"'&"
    row = rollout | {"phrase": hostile, "text": hostile, "id": hostile, "image": hostile, "failure": hostile}
    (folder / "step-000001.p0.jsonl").write_text(json.dumps(row) + "\n")
    page = write_page(folder, tmp_path / "page.html").read_text()
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 5


def test_it_learns(tmp_path: Path) -> None:
    reward = Digits()
    recipe = toy(
        optim={"steps": 10, "prompts": 4, "learning_rate": 1e-3},
        data={"scenes": 1},
        rollout={"temperature": 4.0},  # what it begins with is as good as certain
        run={"save_every": 99},
    )
    run_grpo(recipe, tmp_path / "run", check=False, reward=reward)
    assert np.mean(reward.seen[-2:]) > np.mean(reward.seen[:2]) + 0.1, reward.seen


def test_probabilities_are_those_of_the_plain_model(tmp_path: Path) -> None:
    recipe = toy(rollout={"temperature": 2.0, "max_new_tokens": 12, "keep": 0}, optim={"prompts": 4})
    trainer, _ = _build(recipe, tmp_path / "run", check=False, reward=Digits())
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
    model, processor = open_model(ModelSection(name="egm-tiny"), seed=0)
    prompts = trainer._prompts
    for place, row in enumerate(batch["rows"][order].tolist()):
        alone = Asker(processor, CODEC, None)([prompts.samples[row]])
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


def test_sigterm_leaves_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    recipe = toy(run={"save_every": 99})
    told = Digits(lambda: signal.raise_signal(signal.SIGTERM))
    assert run_grpo(recipe, tmp_path / "run", check=False, reward=told) is None
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["checkpoint-1"]
    with pytest.raises(RecipeError, match="holds a run already: go on with --resume"):
        run_grpo(recipe, tmp_path / "run")
    other = toy(run={"save_every": 99}, optim={"kl": 0.5})
    with pytest.raises(RecipeError, match=r"optim\.kl"):
        run_grpo(other, tmp_path / "run", resume=True)
    assert run_grpo(recipe, tmp_path / "run", resume=True, reward=Digits()) == tmp_path / "run" / "model"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["steps"] == 2


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    fill = Digits(lambda: None, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1])))
    try:
        with pytest.raises(EgmError, match=r"checkpoint of step 2 could not be written") as caught:
            run_grpo(toy(), tmp_path / "run", check=False, reward=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["checkpoint-1"]
    assert run_grpo(toy(), tmp_path / "run", resume=True, reward=Digits()) is not None


def test_groups_without_spread_are_masked(tmp_path: Path) -> None:
    recipe = toy(optim={"steps": 1, "kl": 0.1, "weight_decay": 0.0})
    run_grpo(recipe, tmp_path / "run", check=False)  # eight tokens hold no box: every reward is 0
    entry = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert (entry["frac_reward_zero_std"], entry["loss"], entry["grad_norm"]) == (1.0, 0.0, 0.0)


def test_any_launcher_will_do(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(toy(optim={"steps": 1})))
    program = tmp_path / "run.py"
    program.write_text("from egm.cli import main\nmain()\n")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, str(program), "grpo", str(path)]
    done = subprocess.run(
        [sys.executable, *command, "--skip-preflight", "--out", str(tmp_path / "run")], capture_output=True, text=True
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
        ({"data": {"scenes": 1}, "optim": {"prompts": 8}}, DataError, "fewer than optim.prompts"),
        ({"model": {"name": "no/such/folder"}}, ModelError, "no/such/folder"),
        ({"data": {"prompt": "rhyme"}}, EgmError, "rhyme"),
        ({"run": {"fast_path": False}}, RecipeError, "run.fast_path"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        run_grpo(toy(**changes), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_dataset_without_boxes_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    row = {"image": "a.png", "sent": "it", "height": 64, "width": 64}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError):
        run_grpo(toy(data={"train": str(tmp_path / "rows.jsonl")}), tmp_path / "run")
    sample = SynthRef("val").samples(0)[0]
    from dataclasses import replace

    processor = open_model(ModelSection(name="egm-tiny"), seed=0)[1]
    with pytest.raises(DataError, match="has no box"):
        Asker(processor, CODEC, None)([replace(sample, box=None)])


def test_another_family_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "internvl", "architectures": ["InternVLForConditionalGeneration"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError) as caught:
        run_grpo(toy(model={"name": str(tmp_path)}), tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_numbers_must_be_one_digit_a_token() -> None:
    check_digits(open_model(ModelSection(name="egm-tiny"), seed=0)[1].tokenizer, "egm-tiny")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"7": 0, "42": 1, "999": 2, "?": 3}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ModelError, match="writes 42 as 1 tokens"):
        check_digits(PreTrainedTokenizerFast(tokenizer_object=words), "other")


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
    "path", sorted((Path(__file__).parents[2] / "recipes").glob("*grpo*.yaml")), ids=lambda p: p.name
)
def test_shipped_recipes_are_right(path: Path) -> None:
    assert load_recipe_as(GRPORecipe, path).stage == "grpo"


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    model, processor = open_model(ModelSection(name="egm-tiny"), seed=0)
    return enable_fast_path(model), processor


def decoder(tiny: tuple[Any, Any]) -> Decoder:
    model, processor = tiny
    tokenizer, banned = processor.tokenizer, [model.config.image_token_id, model.config.video_token_id]
    stops = [tokenizer.eos_token_id]
    return Decoder(
        model, dtype=torch.float32, stops=stops, pad=tokenizer.pad_token_id, banned=banned, rows=6, graphs=False
    )


def test_greedy_decoding_is_that_of_generate(tiny: tuple[Any, Any]) -> None:
    from egm.backends import GenerationSettings
    from egm.backends.transformers import TransformersBackend
    from egm.grounder import Grounder

    table = SampleTable(SynthRefRows(4, 1))
    samples = [table[i] for i in (0, 1, 5, 9)]
    prompts = Asker(tiny[1], CODEC, None)(samples)
    answers = decoder(tiny)(prompts, 2, max_new_tokens=40, temperature=0.0)
    grounder = Grounder(TransformersBackend(*tiny), CODEC, settings=GenerationSettings(max_new_tokens=40))
    expected = [grounding.text for grounding in grounder.ground_many(samples) for _ in range(2)]
    assert tiny[1].tokenizer.batch_decode(answers) == expected


def test_sampling_follows_the_models_probabilities(tiny: tuple[Any, Any]) -> None:
    model, processor = tiny
    prompts = Asker(processor, CODEC, None)([SampleTable(SynthRefRows(1, 1))[0]])
    torch.manual_seed(0)
    answers = decoder(tiny)(prompts, 600, max_new_tokens=1, temperature=3.0)
    ids = torch.tensor(prompts.ids)
    with torch.no_grad():
        asked = {"pixel_values": prompts.pixels, "image_grid_thw": torch.tensor(prompts.grids)}
        asked["mm_token_type_ids"] = (ids == processor.image_token_id).long()
        scores = model(input_ids=ids, **asked).logits[0, -1]
    scores[[model.config.image_token_id, model.config.video_token_id]] = -torch.inf
    shares = (scores / 3.0).softmax(0)
    likeliest = int(shares.argmax())
    share = np.mean([answer[0] == likeliest for answer in answers])
    assert share == pytest.approx(float(shares[likeliest]), abs=0.08)
    assert not {token for answer in answers for token in answer} & {
        model.config.image_token_id,
        model.config.video_token_id,
    }
    narrow = decoder(tiny)(prompts, 50, max_new_tokens=1, temperature=3.0, top_k=2)
    assert len({answer[0] for answer in narrow}) <= 2
    nucleus = decoder(tiny)(prompts, 50, max_new_tokens=1, temperature=3.0, top_p=1e-6)
    assert {answer[0] for answer in nucleus} == {likeliest}


def test_questions_made_ahead_are_the_same(tiny: tuple[Any, Any]) -> None:
    table, asker = SampleTable(SynthRefRows(4, 1)), Asker(tiny[1], CODEC, None)
    ahead = Ahead(table, asker, stride=4, workers=1)
    for first in (0, 4, 8, 2):
        made = ahead.get([first, first + 1])
        expected = asker([table[first], table[first + 1]])
        assert made.ids == expected.ids
        assert torch.equal(made.pixels, expected.pixels)


class Listed:
    """Rows of a list."""

    blocks = None
    samples_per_row = 2

    def __init__(self, rows: list[list[Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[Any]:
        return self.rows[index]


def test_rows_without_samples_are_passed_over() -> None:
    table = SampleTable(Listed([["a", "b"], [], ["c"], []]))
    assert [table[number] for number in range(8)] == ["a", "b", "c", "c", "c", "c", "a", "b"]
    with pytest.raises(DataError, match="not one sample"):
        SampleTable(Listed([[], []]))[1]
