"""Models that cannot be loaded: one line each, which says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest

from egm.backends.checkpoint import find_checkpoint
from egm.backends.transformers import TransformersBackend
from egm.errors import ModelError
from egm.grounder import Grounder


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ModelError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_folder_is_found_by_path_and_by_text(tiny_folder: Path) -> None:
    assert find_checkpoint(tiny_folder).model_type == "qwen3_vl"
    assert find_checkpoint(str(tiny_folder)).path == tiny_folder


@pytest.mark.parametrize("name", ["egm-large", "./no/such/folder", "", "a/b/c", "x" * 5000, "no\0such"])
def test_unknown_names(name: str) -> None:
    assert "'egm-tiny', a folder with config.json" in refusal(lambda: find_checkpoint(name))


def test_a_hub_name_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = refusal(lambda: find_checkpoint("nobody-at-all/no-such-model"))
    assert "check the network, or give a local folder" in message


def test_a_file(tiny_folder: Path) -> None:
    assert "give the folder it is in" in refusal(lambda: find_checkpoint(tiny_folder / "config.json"))


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "holds no config.json" in refusal(lambda: find_checkpoint(tmp_path))


def test_an_adapter(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "Qwen/Qwen3-VL-8B-Thinking"}')
    assert "merge them" in refusal(lambda: find_checkpoint(tmp_path))


def test_a_folder_without_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    assert "holds no weights (*.safetensors)" in refusal(lambda: find_checkpoint(copy))


@pytest.mark.parametrize("suffix", ["bin", "pt", "pth"])
def test_pickled_weights(copy: Path, suffix: str) -> None:
    (copy / "model.safetensors").rename(copy / f"pytorch_model.{suffix}")
    assert "save it as safetensors" in refusal(lambda: find_checkpoint(copy))


@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer_config.json"])
def test_code_of_its_own_is_never_run(copy: Path, file: str) -> None:
    (copy / "evil.py").write_text("raise SystemExit('ran')")
    edit(copy / file, auto_map={"AutoConfig": "evil.Config", "AutoProcessor": "evil.Processor"})
    assert "EGM runs no code from checkpoints" in refusal(lambda: find_checkpoint(copy))


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000])
def test_a_damaged_configuration(copy: Path, content: str) -> None:
    (copy / "config.json").write_text(content)
    assert "copy or download it again" in refusal(lambda: find_checkpoint(copy))


@pytest.mark.parametrize("content", ["{}", '{"model_type": null}'])
def test_a_configuration_without_architecture(copy: Path, content: str) -> None:
    (copy / "config.json").write_text(content)
    assert "names no model_type" in refusal(lambda: find_checkpoint(copy))


def test_a_family_that_no_codec_knows(copy: Path) -> None:
    edit(copy / "config.json", model_type="llama")
    message = refusal(lambda: Grounder.load(copy))
    assert "'llama' model" in message
    assert "qwen3_vl" in message


@pytest.mark.parametrize("model_type", ["llama", "no_such_architecture"])
def test_an_architecture_that_cannot_answer_about_images(copy: Path, model_type: str) -> None:
    edit(copy / "config.json", model_type=model_type)
    assert f"'{model_type}' model, which this version" in refusal(lambda: TransformersBackend.load(copy))


def test_cut_off_weights(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1_000])
    assert "do not load" in refusal(lambda: TransformersBackend.load(copy))
    weights.write_bytes(weights.read_bytes()[:10_000])
    assert "cut off, or of another model" in refusal(lambda: TransformersBackend.load(copy))


def test_missing_weights_are_not_made_up(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    del weights["model.visual.merger.norm.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 1 of its weights, such as model.visual.merger.norm.weight" in refusal(
        lambda: TransformersBackend.load(copy)
    )


def test_weights_of_another_size(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 512
    (copy / "config.json").write_text(json.dumps(config))
    message = refusal(lambda: TransformersBackend.load(copy))
    assert "are of other sizes than its config.json says, such as model.language_model.layers.0.mlp.down" in message
    assert "x512): copy both" in message


def test_a_processor_that_is_missing(copy: Path) -> None:
    for file in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (copy / file).unlink()
    assert "copy all its files" in refusal(lambda: TransformersBackend.load(copy))


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "mps", ""])
def test_devices_that_are_not_there(tiny_folder: Path, device: str) -> None:
    assert "use auto" in refusal(lambda: TransformersBackend.load(tiny_folder, device=device))


def test_types_that_do_not_exist(tiny_folder: Path) -> None:
    assert "use auto, float32" in refusal(lambda: TransformersBackend.load(tiny_folder, dtype="int4"))
