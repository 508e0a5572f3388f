"""What `egm verl` starts and refuses, by verl and Ray themselves."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..training.verl.recipes import recipe
from .environments import ROOT, uv

pytestmark = pytest.mark.integration


def test_recipes_are_accepted_and_what_goes_unused_is_not(python: Any, tmp_path: Path) -> None:
    tiny = ROOT / "recipes" / "egm-tiny-grpo.yaml"
    shown = python("-m", "egm.cli", "verl", tiny, "--print", "--gpus", 1, "--out", tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert yaml.safe_load(shown.stdout)["trainer"]["total_training_steps"] == 75
    published = ROOT / "recipes" / "egm-8b-grpo.yaml"
    shown = python(
        "-m", "egm.cli", "verl", published, "--print", "--gpus", 8, "--out", tmp_path, "--set", "model.name=egm-tiny"
    )
    assert shown.returncode == 0, shown.stderr
    code = f"""
import pathlib, sys, yaml
from egm.errors import EgmError
from egm.training.verl.check import check_configuration
path = pathlib.Path({str(tmp_path / "verl.yaml")!r})
for setting in sys.argv[1:]:
    try:
        check_configuration(path, [setting])
        print("accepted")
    except EgmError as error:
        print(error)
"""
    (tmp_path / "verl.yaml").write_text(shown.stdout)
    expected = {
        "trainer.test_freq=5": "accepted",
        "+data.cache_dir=/tmp": "accepted",
        "actor_rollout_ref.actor.policy_loss.loss_mode=gsp0": "knows no .*loss_mode 'gsp0': did you mean 'gspo'?",
        "+data.imagekey=x": "no key data.imagekey, and would take it without using it: did you mean data.image_key",
        "+actor_rollout_ref.rollout.temprature=1": "no key actor_rollout_ref.rollout.temprature",
        "+algorithm.lambda=1": "no key algorithm.lambda, and would take it without using it",
        "custom_reward_function.path=x": "takes custom_reward_function.path without using it: set reward.custom_rew",
        "actor_rollout_ref.actor.freeze_vision_tower=true": "without using it: no engine reads it",
        "actor_rollout_ref.actor.ppo_mini_batch_size=512": "refuses the configuration: train_batch_size",
        "algorithm.advestimator=grpo": "refuses the setting: Could not override",
    }
    ended = python("-c", code, *expected)
    lines = ended.stdout.splitlines()
    assert len(lines) == len(expected), ended.stderr[-2000:]
    for line, says in zip(lines, expected.values(), strict=True):
        assert re.search(says, line), line


def test_an_environment_without_rollouts_or_with_another_trl_is_refused(python: Any, tmp_path: Path) -> None:
    tiny = ROOT / "recipes" / "egm-tiny-grpo.yaml"
    ended = python("-m", "egm.cli", "verl", tiny, "--out", tmp_path / "run")
    assert ended.returncode == 2
    assert 'rollouts need vllm, which is not installed here: pip install "verl[vllm]"' in ended.stderr
    code = "from egm.training.verl.packages import _check_trl\n_check_trl()"
    ended = python("-c", code)
    assert "has no AutoModelForCausalLMWithValueHead, which verl's actor patches" in ended.stderr


def test_a_cluster_is_asked(python: Any, tmp_path: Path) -> None:
    """A local one stands for one elsewhere: it has no GPUs, and its node is asked what it sees."""
    code = f"""
import pathlib, sys
from egm.errors import EgmError
from egm.training.verl.cluster import check_nodes, connected, measure_cluster
with connected("local") as ray:
    for look in (
        lambda: measure_cluster(ray, "local", gpus=None, nodes=None),
        lambda: check_nodes(ray, [pathlib.Path({str(tmp_path)!r})]),
        lambda: check_nodes(ray, [pathlib.Path({str(tmp_path / "none.jpg")!r})]),
    ):
        try:
            print("fine", look())
        except EgmError as error:
            print(error)
"""
    ended = python("-c", code)
    no_gpu, sees, blind = ended.stdout.splitlines()[-3:]
    assert "the Ray cluster at local has 1 nodes and no GPUs" in no_gpu
    assert sees == "fine None"
    assert "does not see 1 of the files that its workers open" in blind


MEASURE = """
import sys
from egm.errors import EgmError
from egm.training.verl.cluster import connected, measure_cluster

def say(ray, **wanted):
    try:
        print(measure_cluster(ray, sys.argv[1], **wanted))
    except EgmError as error:
        print(error)

try:
    with connected(sys.argv[1]) as ray:
        say(ray, gpus=None, nodes=None)
        say(ray, gpus=1, nodes=1)
        say(ray, gpus=3, nodes=None)
        say(ray, gpus=None, nodes=2)
        holder = ray.remote(num_gpus=1)(type("Holder", (), {"hold": lambda self: 1})).remote()
        ray.get(holder.hold.remote())
        say(ray, gpus=2, nodes=1)
except EgmError as error:
    print(error)
"""


def test_a_cluster_that_is_there_is_measured(python: Any, tmp_path: Path) -> None:
    """Ray takes a node's word for its GPUs, so that one without any can stand for one with two."""
    (tmp_path / "measure.py").write_text(MEASURE)
    code = f"""
import os, socket, subprocess, sys
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
words = f"start --head --block --port {{port}} --num-gpus 2 --num-cpus 9 --include-dashboard false".split()
token = os.environ | {{"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-token-of-this-test-alone"}}
head = subprocess.Popen([sys.executable, "-m", "ray.scripts.scripts", *words], stdout=subprocess.PIPE, env=token)
try:
    for line in head.stdout:
        if b"Ray runtime started" in line:
            break
    for environment in (os.environ | {{"RAY_AUTH_MODE": "disabled"}}, token):
        command = [sys.executable, {str(tmp_path / "measure.py")!r}, f"127.0.0.1:{{port}}"]
        print(subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True).stdout, end="")
finally:
    head.terminate()
    head.wait()
"""
    ended = python("-c", code)
    shut, *lines = ended.stdout.splitlines()
    assert "asks for a token: set RAY_AUTH_MODE=token" in shut, ended.stderr[-2000:]
    assert lines[:2] == ["Cluster(gpus=2, nodes=1, cpus=9)", "Cluster(gpus=1, nodes=1, cpus=9)"]
    assert "has nodes with 2 GPUs, not 1 nodes with 3: lower --nodes or --gpus" in lines[2]
    assert "has nodes with 2 GPUs, not 2 nodes with 2: lower --nodes or --gpus" in lines[3]
    assert "1 are free, and 2 are needed: wait for the job that holds them" in lines[4]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="verl's queue takes two CPUs")
def test_verl_itself_goes_as_far_as_its_gpus(python: Any, tmp_path: Path) -> None:
    """Its own command reads the configuration, starts a cluster and its queue, opens the data, and asks for GPUs."""
    code = f"""
import pathlib, yaml
from egm.errors import EgmError
from egm.training.grpo.recipe import GRPORecipe
from egm.training.verl.configure import Cluster, Options, configure
from egm.training.verl.launch import run_trainer, trainer_command
from egm.training.verl.policy import AskedModel
from egm.training.verl.write_data import write_questions
out = pathlib.Path({str(tmp_path)!r})
made = GRPORecipe.model_validate_json({recipe().model_dump_json()!r})
asked = AskedModel(made)
write_questions(made, asked, out / "data")
content = configure(made, out, asked.policy, Cluster(1, 1, 6), Options(log=out / "log.jsonl")).content
(out / "verl.yaml").write_text(yaml.safe_dump(content))
try:
    run_trainer(trainer_command(out, []), out, address="local", look=lambda: None)
except EgmError as error:
    print(error)
"""
    ended = python("-c", code)
    said = (tmp_path / "verl.log").read_text()
    assert "the cluster has too few free GPUs (Total available GPUs 0" in ended.stdout, said[-3000:]
    assert "dataset len: 48" in said  # 6 rollouts of 8 questions
    assert ended.stdout.count("\n") == 1


def test_both_can_be_installed_side_by_side(tmp_path: Path) -> None:
    """The line of docs/verl.md, by the resolver alone; nothing is downloaded but metadata."""
    line = next(
        line for line in (ROOT / "docs" / "verl.md").read_text().splitlines() if line.startswith("$ uv pip install")
    )
    wanted = [word.strip('"') for word in line.split()[4:]]
    assert wanted[0].startswith("egm-grounding[")
    (tmp_path / "wanted.in").write_text("\n".join([wanted[0].replace("egm-grounding", f"{ROOT}"), *wanted[1:]]) + "\n")
    place = ("--no-config", "--python-version", "3.12", "--python-platform", "linux")
    resolved = uv("pip", "compile", "--quiet", *place, tmp_path / "wanted.in")
    names = {line.split("==")[0].strip() for line in resolved.splitlines() if "==" in line}
    assert {"verl", "vllm", "torch", "transformers", "transferqueue", "ray", "pyarrow", "typer"} <= names
    assert "trl" not in names
