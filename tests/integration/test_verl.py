"""From a dataset through verl's own dataset, processor and reward manager to what `egm eval` measures."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from egm.backends import ScriptedBackend
from egm.boxes import Box
from egm.codecs import Codec, get_codec
from egm.datasets import open_dataset
from egm.datasets.rl_rows import write_rl_rows
from egm.datasets.synthetic import SynthRef
from egm.evaluate import evaluate
from egm.grounder import Grounder
from egm.models import build_processor, embedded_path
from egm.training.grpo.prompts import PromptCollator
from egm.training.rewards.reward import Reward, RewardSection
from egm.training.verl.configure import Cluster, Options, configure
from egm.training.verl.policy import AskedModel
from egm.types import Completion, Sample

from ..real.conftest import real_data as real_data
from ..training.verl.recipes import recipe
from .environments import ROOT, uv

pytestmark = pytest.mark.integration

HERE = (
    "torch",
    "torchvision",
    "triton",
    "tensorboard",
    "wandb",
    "pyarrow",
    "pandas",
    "numpy",
    "datasets",
    "peft",
    "accelerate",
)
"""What verl asks for and this environment has already, or verl does without here."""
SECTION = {
    "terms": [{"kind": "mix"}],
    "format_gate": {"factor": 0.5},
    "overlong": {"limit": 120, "buffer": 60},
    "repetition": {},
}
TAGS = ["<ref>", "</ref>", "<box>", "</box>"]
NAMES = ("qwen3_vl", "qwen3_vl_instruct", "internvl")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Python of an environment with verl, on the torch of this one."""
    if sys.version_info >= (3, 13):
        pytest.skip("verl 0.9.1 needs a Python before 3.13")
    folder = tmp_path_factory.mktemp("verl")
    (folder / "left_out.txt").write_text("".join(f"{name}; python_version < '3'\n" for name in HERE))
    uv("venv", "--quiet", "--python", sys.executable, folder / "env")
    wanted = ("verl>=0.9.1", "TransferQueue>=0.1.10", "qwen-vl-utils", "cachetools")
    place = ("--no-config", "--python", folder / "env", "--overrides", folder / "left_out.txt")
    uv("pip", "install", "--quiet", *place, *wanted)
    (site,) = (folder / "env").glob("lib/python3*/site-packages")
    (site / "of_the_tests.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "COV"))}
    bare |= {"PYTHONPATH": str(ROOT / "src"), "RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1"}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [folder / "env" / "bin" / "python", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=bare)

    return run


@dataclass(frozen=True)
class Case:
    """Samples that are asked about, by one codec."""

    samples: list[Sample]
    codec: Codec
    style: str | None = None


def answers(sample: Sample, codec: Codec, chance: random.Random) -> list[str]:
    """Texts about a sample: right, near, on another scale, out of form, cut off, long, repeated, and none."""
    assert sample.box is not None
    assert sample.size is not None
    width, height = sample.size
    near = Box(
        *(
            value + chance.uniform(-0.04, 0.04) * side
            for value, side in zip(sample.box, (width, height) * 2, strict=True)
        )
    )
    inside = Box(*(min(max(value, 0.0), side) for value, side in zip(near, (width, height) * 2, strict=True)))
    right = codec.target(sample.phrase, sample.box, size=sample.size, rationale="It is there.")
    numbers = ", ".join(str(round(value)) for value in sample.box)
    return [
        right,
        codec.target(sample.phrase, inside, size=sample.size, rationale="It is [1] there, and no other."),
        codec.target(sample.phrase, inside, size=sample.size),
        f"So.\n</think>\n\nThe box is [{numbers}].",
        right[: len(right) * 2 // 3],
        f"I see it. So.\n</think>\n\n{sample.phrase}: ({numbers})",
        "there " * 150 + right,
        "No such thing.\n</think>\n\nnone",
        "",
    ]


def whole(samples: Sequence[Sample]) -> list[Sample]:
    """The same questions about whole objects, whose boxes leave the frame."""
    found = []
    for sample in samples:
        assert sample.box is not None
        x1, y1, x2, y2 = sample.box
        found.append(replace(sample, box=Box(x1 - x2, y1, x2, y2), amodal=True, id=f"{sample.id} whole"))
    return found


def synthetic(codec: Codec) -> Case:
    samples = list(SynthRef("val", scenes=3))
    return Case([*samples, *whole(samples[:3])], codec)


def photographs(codec: Codec, find: Callable[[str], Path]) -> Case:
    pictures = find("coco_images")
    dataset = open_dataset("refcoco+/val", data=find("refcoco/refcoco+_val.json").parent, images=pictures)
    there = [sample for sample in dataset.annotations() if Path(str(sample.image)).exists()]
    assert len(there) > 3
    return Case([*there[:6], *whole(there[:2])], codec, "grounding")


def run_verl(python: Any, folder: Path, case: Case, *, tagged: bool = False) -> None:
    """Hold verl's prompts and rewards of a case against those of `egm grpo` and `egm eval`."""
    model = folder / "model"
    processor = build_processor()
    if tagged:
        processor.tokenizer.add_special_tokens({"additional_special_tokens": TAGS})
    processor.save_pretrained(model)
    (model / "config.json").write_bytes((embedded_path() / "config.json").read_bytes())
    tokenizer, codec = processor.tokenizer, case.codec
    made = recipe(reward=SECTION, data={"prompt": case.style})
    asked = AskedModel(made)
    write_rl_rows(
        case.samples, folder / "train.parquet", source="x", codec=codec, prompt=case.style, embed=True,
        pixels=asked.policy.pixels,
    )  # fmt: skip
    content = configure(made, folder, replace(asked.policy, path=model), Cluster(1, 1, 16), Options()).content
    content["reward"]["custom_reward_function"]["reward_kwargs"]["codec"] = codec.name
    (folder / "verl.yaml").write_text(yaml.safe_dump(content))

    chance = random.Random(3)
    texts = [answers(sample, codec, chance) for sample in case.samples]
    ids = [[[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in some] for some in texts]
    job = {
        "configuration": str(folder / "verl.yaml"),
        "parquet": str(folder / "train.parquet"),
        "model": str(model),
        "completions": ids,
    }
    (folder / "job.json").write_text(json.dumps(job))
    ended = python(ROOT / "tests" / "integration" / "verl_side.py", folder / "job.json", folder / "out.json")
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads((folder / "out.json").read_text())

    prompts = PromptCollator(processor, codec, case.style)(case.samples)
    counts = np.cumsum([0, *(int(np.prod(grid)) for grid in prompts.grids)])
    for number, theirs in enumerate(found["asked"]):
        picture = prompts.pictures[number]
        assert theirs["ids"] == prompts.ids[number]
        assert theirs["grid"] == list(prompts.grids[picture])
        pixels = prompts.pixels[counts[picture] : counts[picture + 1]].flatten()[::97].tolist()
        # verl resizes by Pillow before the processor, which resizes by torch: the same filter, rounded otherwise.
        assert np.abs(np.subtract(theirs["pixels"], pixels)).mean() < 0.02

    reward = Reward(RewardSection.model_validate(SECTION), codec)
    for place in range(len(texts[0])):
        rows = range(len(texts))
        words = {n: tokenizer.decode(ids[n][place][:-1], skip_special_tokens=False) for n in rows}
        measured = evaluated(folder / f"run-{place}", case, words)
        grades = reward.grade(
            [words[n] for n in rows],
            truths=[case.samples[n].box for n in rows],  # type: ignore[misc]
            sizes=[case.samples[n].size for n in rows],  # type: ignore[misc]
            amodal=[case.samples[n].amodal for n in rows],
            tokens=[len(ids[n][place]) for n in rows],
            phrases=[case.samples[n].phrase for n in rows],
        )
        for n, total in zip(rows, grades.totals, strict=True):
            theirs = found["scores"][n][place]
            assert theirs["iou"] == pytest.approx(measured[n], abs=1e-9), words[n]
            assert theirs["acc"] == float(measured[n] >= 0.5)
            assert theirs["score"] == pytest.approx(float(total), abs=1e-9), words[n]


def evaluated(folder: Path, case: Case, words: dict[int, str]) -> dict[int, float]:
    """What `egm eval` measures of texts: the IoU of each."""
    samples = [replace(case.samples[n], id=f"{n}", phrase=f"{case.samples[n].phrase} #{n}") for n in words]
    replies = {sample.phrase: Completion(words[int(sample.id)]) for sample in samples}
    run = evaluate(samples, Grounder(ScriptedBackend(replies), case.codec), folder)
    return {int(record.id): record.iou or 0.0 for record in run.records}


@pytest.mark.parametrize("name", NAMES)
def test_synthref(python: Any, tmp_path: Path, name: str) -> None:
    run_verl(python, tmp_path, synthetic(get_codec(name)))


@pytest.mark.parametrize("name", ["qwen3_vl", "internvl"])
def test_photographs(python: Any, tmp_path: Path, name: str, real_data: Callable[[str], Path]) -> None:
    run_verl(python, tmp_path, photographs(get_codec(name), real_data))


def test_tags_that_are_special_tokens(python: Any, tmp_path: Path) -> None:
    """verl's decoding strips them, and what is left is form all the same."""
    run_verl(python, tmp_path, synthetic(get_codec("internvl")), tagged=True)


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
