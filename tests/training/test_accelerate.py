"""The shipped accelerate configurations: read by accelerate itself, and true of the models they are for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "recipes" / "accelerate"
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
        assert environment["FSDP_TRANSFORMER_CLS_TO_WRAP"] == "Qwen3VLTextDecoderLayer,Qwen3VLVisionBlock"
    else:
        assert arguments.use_deepspeed
        assert int(arguments.zero_stage) == 3


def test_the_wrapped_classes_are_those_of_the_model() -> None:
    from transformers.models.qwen3_vl import modeling_qwen3_vl

    for path in FILES:
        wrapped = yaml.safe_load(path.read_text()).get("fsdp_config", {}).get("fsdp_transformer_layer_cls_to_wrap")
        for name in wrapped.split(",") if wrapped else ():
            assert hasattr(modeling_qwen3_vl, name)


def test_the_module_that_launchers_start_is_the_command_line() -> None:
    result = subprocess.run([sys.executable, "-m", "egm.cli", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.strip()
