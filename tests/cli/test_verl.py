"""`egm verl` on the command line, where verl is not installed: what is said, and what is printed all the same."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from egm.errors import DataError
from egm.training.grpo.recipe import GRPORecipe
from egm.training.recipe import dump_recipe, load_recipe
from egm.training.verl.write_data import check_verl_rows

from .conftest import Egm

ROOT = Path(__file__).parents[2]
TINY, FINE_TUNING = ROOT / "recipes" / "egm-tiny-grpo.yaml", ROOT / "recipes" / "egm-tiny.yaml"


def test_print_shows_configuration_and_command(egm: Egm, tmp_path: Path) -> None:
    outcome = egm("verl", TINY, "--print", "--gpus", "2", "--out", tmp_path / "run", "--set", "optim.steps=10")
    assert outcome.code == 0
    content = yaml.safe_load(outcome.out)
    assert content["trainer"]["total_training_steps"] == 10
    assert (content["trainer"]["n_gpus_per_node"], content["trainer"]["nnodes"]) == (2, 1)
    last = outcome.out.splitlines()[-1]
    assert last.startswith("# ")
    assert last.endswith(f"-m verl.trainer.main_ppo --config-path {tmp_path / 'run'} --config-name verl")
    assert "note: in verl, model.freeze vision_tower, projector, embeddings: nothing is frozen" in outcome.err
    assert not (tmp_path / "run").exists()


def test_rows_of_a_file_that_expect_any_or_all_are_refused_at_once(egm: Egm, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    row = {"image": "a.png", "sent": "cup", "height": 40, "width": 40}
    one, none = row | {"bbox": [0, 0, 20, 20]}, row | {"bboxes": [], "expect": "any"}
    several = row | {"bboxes": [[0, 0, 20, 20], [20, 20, 40, 40]], "expect": "all"}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in (one, none, several)))
    (tmp_path / "right.jsonl").write_text((json.dumps(one) + "\n") * 64)
    said = "rows.jsonl has 3 rows, and of these 2 that expect any or all (line 2: any; line 3: all): a row of egm verl"
    held_out = "eval.data rows.jsonl: rows has 3 rows, and of these 2 that expect any or all (sample rows/2: any; "
    for setting, says in (("data.train=rows.jsonl", said), ("eval.data=rows.jsonl", held_out)):
        files = ("--set", "data.train=right.jsonl", "--set", setting)
        outcome = egm("verl", TINY, "--print", "--gpus", 1, "--out", tmp_path / "run", *files)
        assert (outcome.code, outcome.out) == (2, "")
        assert says in outcome.err.splitlines()[-1]
    elsewhere = ("--set", "data.train=right.jsonl", "--set", "eval.data=/cluster/val.jsonl")
    assert egm("verl", TINY, "--print", "--gpus", 1, "--out", tmp_path / "run", *elsewhere).code == 0
    with pytest.raises(DataError, match=re.escape(said)):
        check_verl_rows(load_recipe(GRPORecipe, TINY, ["data.train=rows.jsonl"]))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([FINE_TUNING], "is one of egm sft, not of egm grpo: run egm sft"),
        ([TINY], "egm verl needs verl >= 0.9.1, which is not installed here: uv pip install"),
        ([TINY, "--print", "--cluster", "auto"], "--print does not ask the cluster at auto: say --gpus and --nodes"),
        (
            [TINY, "--print", "--cluster", "auto", "--gpus", "8"],
            "--print does not ask the cluster at auto: say --gpus and --nodes",
        ),
        ([TINY, "--print", "--gpus", "8", "--nodes", "4"], "--nodes is for those of a Ray cluster: name it with"),
        ([TINY, "--nodes", "4"], "--nodes is for those of a Ray cluster: name it with --cluster"),
        ([TINY, "--cluster", "http://127.0.0.1:9"], "asked by Ray, which is not installed here: uv pip install"),
        ([TINY, "--print", "--gpus", "1", "--resume"], "it holds no checkpoint of verl's; run without --resume"),
        ([TINY, "--print", "--gpus", "7"], "do not divide among 7 GPUs"),
        (
            [TINY, "--print", "--gpus", "1", "--set", "data.train=synthref/train-any"],
            "data.train synthref/train-any has questions that nothing matches, or several boxes",
        ),
        (
            [TINY, "--print", "--gpus", "1", "--set", "eval.data=synthref/test-all"],
            "eval.data synthref/test-all has questions that nothing matches, or several boxes",
        ),
        (
            [TINY, "--print", "--gpus", "1", "--set", "data.train=synthref/val"],
            "data.train has synthref/val, which is frozen",
        ),
        (
            [TINY, "--print", "--gpus", "1", "--set", "data.train=[{name: synthref/train, expect: any}]"],
            "data.train.0.expect is any, and a row of egm verl's asks for one box",
        ),
        (
            [TINY, "--print", "--gpus", "1", "--set", "data.train=[{name: synthref/train}, {path: a.jsonl}]"],
            "data.train names several sources, and egm verl writes one",
        ),
        ([TINY, "--set", "optim.stepss=3"], "unknown key 'optim.stepss'; did you mean 'steps'?"),
        (["nothing.yaml"], "no recipe at nothing.yaml"),
        ([TINY, "--resume"], "it holds no checkpoint of verl's; run without --resume"),
    ],
)
def test_bad_input_is_one_line(egm: Egm, tmp_path: Path, arguments: list[object], says: str) -> None:
    outcome = egm("verl", *arguments, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert says in outcome.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run(egm: Egm, tmp_path: Path) -> None:
    """It is neither written over nor gone on from with another recipe."""
    run = tmp_path / "run"
    (run / "checkpoints" / "global_step_4" / "actor").mkdir(parents=True)
    (run / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("4")
    (run / "recipe.yaml").write_text(TINY.read_text())
    assert "holds a run already: go on with --resume" in egm("verl", TINY, "--out", run).err
    outcome = egm("verl", TINY, "--out", run, "--resume", "--set", "optim.kl=0.1")
    assert "differs from this recipe in optim.kl: resume with the same one" in outcome.err
    # With the same recipe it goes on to what is missing here.
    assert "egm verl needs verl >= 0.9.1" in egm("verl", TINY, "--out", run, "--resume").err


def test_a_run_that_is_at_its_end_starts_nothing(egm: Egm, tmp_path: Path) -> None:
    """Its model is named, where verl is not even installed."""
    model = tmp_path / "checkpoints" / "global_step_4" / "actor" / "huggingface"
    model.mkdir(parents=True)
    (model / "model.safetensors").touch()
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("4")
    settings = ("--set", "optim.steps=4", "--set", "optim.updates=1")
    (tmp_path / "recipe.yaml").write_text(dump_recipe(load_recipe(GRPORecipe, TINY, list(settings[1::2]))))
    outcome = egm("verl", TINY, "--out", tmp_path, "--resume", *settings)
    assert (outcome.code, outcome.out) == (0, f"{model}\n")


def test_print_shows_how_a_run_is_gone_on_with(egm: Egm, tmp_path: Path) -> None:
    actor = tmp_path / "checkpoints" / "global_step_4" / "actor"
    actor.mkdir(parents=True)
    (actor / "model_world_size_2_rank_0.pt").touch()
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("4")
    (tmp_path / "recipe.yaml").write_text(TINY.read_text())
    command = ("verl", TINY, "--print", "--out", tmp_path, "--resume")
    outcome = egm(*command, "--gpus", "2")
    content = yaml.safe_load(outcome.out)
    assert (content["trainer"]["resume_mode"], content["trainer"]["val_before_train"]) == ("auto", False)
    assert "from-000004.jsonl" in outcome.out
    assert "global_step_4 was written by 2 GPUs, and there are 4" in egm(*command, "--gpus", "4").err


def test_print_asks_to_be_told_the_gpus(egm: Egm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    outcome = egm("verl", TINY, "--print", "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "or say --gpus" in outcome.err


def test_print_counts_the_nodes_of_a_cluster(egm: Egm, tmp_path: Path) -> None:
    outcome = egm("verl", TINY, "--print", "--cluster", "auto", "--gpus", 2, "--nodes", 4, "--out", tmp_path)
    trainer = yaml.safe_load(outcome.out)["trainer"]
    assert (trainer["n_gpus_per_node"], trainer["nnodes"]) == (2, 4)


def test_a_job_begins_in_the_folder_of_the_command(egm: Egm, tmp_path: Path) -> None:
    """Recipes name models and data from where the command is given; a job server has a folder of its own."""
    outcome = egm("verl", TINY, "--cluster", "http://head:8265", "--print")
    job = shlex.split(outcome.out.partition(" -- ")[2])
    begins = [*job[: job.index("-m") - 1], sys.executable, "-c", "from pathlib import Path; print(Path.cwd())"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    said = subprocess.run(begins, cwd=elsewhere, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str(Path.cwd())


def test_a_job_server_gets_the_command(egm: Egm, tmp_path: Path) -> None:
    outcome = egm("verl", TINY, "--cluster", "http://head:8265", "--print", "--out", tmp_path, "--resume")
    assert outcome.code == 0
    assert "job submit --address http://head:8265 -- " in outcome.out
    assert outcome.out.endswith(f"-m egm.cli verl {TINY} --resume --out {tmp_path} --rollouts vllm --cluster auto\n")
