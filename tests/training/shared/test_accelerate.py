"""The shipped accelerate configurations: read by accelerate itself, and true of the models they are for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from egm.models import build_model
from egm.training.recipe import LoraSection, ModelSection
from egm.training.shared.trainable import choose_parts

FOLDER = Path(__file__).parents[3] / "recipes" / "accelerate"
FILES = sorted(FOLDER.glob("*.yaml"))


def test_all_are_there() -> None:
    assert [path.stem for path in FILES] == ["fsdp2-8gpu", "fsdp2-multinode", "zero3-8gpu", "zero3-multinode"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_accelerate_knows_every_key(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    config = load_config_from_file(str(path))
    assert config.num_processes == 8 * config.num_machines
    known = {action.dest for action in launch_command_parser()._actions}
    assert set(config.fsdp_config) <= known
    assert set(config.deepspeed_config) <= known
    assert (config.num_machines > 1) == (config.main_process_ip is not None)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_accelerate_passes_them_on(path: Path) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    command = ["--config_file", str(path), "-m", "egm.cli", "sft", "recipe.yaml"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    content = yaml.safe_load(path.read_text())
    assert arguments.num_processes == content["num_processes"]
    if "fsdp_config" in content:
        assert arguments.use_fsdp
        environment = prepare_multi_gpu_env(arguments)
        assert environment["FSDP_VERSION"] == "2"
    else:
        assert arguments.use_deepspeed
        assert int(arguments.zero_stage) == 3


@pytest.mark.parametrize("path", [path for path in FILES if "fsdp2" in path.stem], ids=lambda path: path.stem)
@pytest.mark.parametrize("size", ["8B", "30B-A3B", "8B with LoRA"])
def test_each_decoder_layer_and_vision_block_is_a_unit(path: Path, size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
    from accelerate.utils.launch import prepare_multi_gpu_env

    command = ["--config_file", str(path), "-m", "egm.cli", "sft", "recipe.yaml"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    for name, value in prepare_multi_gpu_env(arguments).items():
        if name.startswith("FSDP"):
            monkeypatch.setenv(name, value)
    name, _, adapter = size.partition(" with ")
    model = build_model(name, device="meta")
    core = model.model
    if adapter:
        model = choose_parts(model, ModelSection(name=name, lora=LoraSection(rank=1)), seed=0)
    policy = fsdp2_prepare_auto_wrap_policy(FullyShardedDataParallelPlugin(), model)
    wrapped = {id(module) for module in model.modules() if policy(module)}
    assert wrapped == {id(module) for module in (*core.language_model.layers, *core.visual.blocks)}


def test_the_module_that_launchers_start_is_the_command_line() -> None:
    result = subprocess.run([sys.executable, "-m", "egm.cli", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.strip()
