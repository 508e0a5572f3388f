"""Checkpoints that would hang, fill the memory or lead out of their folder: one line, before anything is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from egm.backends import chat_template
from egm.backends.chat_template import check_templates
from egm.backends.checkpoint import find_checkpoint
from egm.backends.transformers import TransformersBackend

from .test_checkpoint import refusal

INDEX = "model.safetensors.index.json"


def edit(file: Path, *path: str, value: Any) -> None:
    content = json.loads(file.read_text())
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("text_config", "num_hidden_layers"), 10**7, "says 10,000,000 layers"),
        (("vision_config", "depth"), 1001, "says 1,001 layers"),
        (("text_config", "hidden_size"), 10**9, "hidden_size 1,000,000,000"),
        (("text_config", "vocab_size"), 10**8, "vocab_size 100,000,000"),
        (("text_config", "intermediate_size"), 10**6, "intermediate_size 1,000,000"),
        (("text_config", "num_attention_heads"), 10**6, "num_attention_heads 1,000,000"),
        (("vision_config", "num_position_embeddings"), 10**9, "num_position_embeddings 1,000,000,000"),
        (("vision_config", "out_hidden_size"), 10**9, "out_hidden_size 1,000,000,000"),
        (("vision_config", "patch_size"), 10**5, "patch_size 100,000"),
        (("vision_config", "patch_size"), 0, "says patch_size 0, which is no size"),
        (("text_config", "num_key_value_heads"), 0, "says num_key_value_heads 0"),
        (("text_config", "max_position_embeddings"), 10**30, "a number beyond all use"),
        (("text_config", "hidden_size"), float("nan"), "a number beyond all use"),
    ],
)
def test_configurations_that_no_weights_fit(copy: Path, path: tuple[str, ...], value: Any, says: str) -> None:
    edit(copy / "config.json", *path, value=value)
    assert says in refusal(lambda: find_checkpoint(copy))


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("image_processor", "patch_size"), 0, "says patch_size 0"),
        (("image_processor", "merge_size"), -2, "says merge_size -2"),
        (("image_processor", "size", "shortest_edge"), 10**11, "enlarges every picture to 100,000,000,000 pixels"),
    ],
)
def test_processors_that_no_picture_fits(copy: Path, path: tuple[str, ...], value: Any, says: str) -> None:
    edit(copy / "processor_config.json", *path, value=value)
    assert says in refusal(lambda: find_checkpoint(copy))


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ({"weight_map": {"a": "../../model.safetensors"}}, "is no weights file of its folder"),
        ({"weight_map": {"a": "/etc/passwd"}}, "is no weights file of its folder"),
        ({"weight_map": {"a": "sub\\\\model.safetensors"}}, "is no weights file of its folder"),
        ({"weight_map": {"a": "pytorch_model.bin"}}, "is no weights file of its folder"),
        ({"weight_map": {"a": "model-00001-of-00002.safetensors"}}, "lacks model-00001-of-00002.safetensors"),
        ({"weight_map": ["a"]}, "has no weight_map"),
        ({"weight_map": {"a": 5}}, "has no weight_map"),
    ],
)
def test_an_index_names_files_of_its_folder(copy: Path, index: object, says: str) -> None:
    (copy / INDEX).write_text(json.dumps(index))
    assert says in refusal(lambda: find_checkpoint(copy))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(copy: Path, value: float) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["model.language_model.layers.1.mlp.up_proj.weight"][:] = value
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    message = refusal(lambda: TransformersBackend.load(copy))
    assert "not finite numbers (NaN or infinite), such as model.language_model.layers.1.mlp.up_proj.weight" in message
    assert torch.isfinite(weights["model.language_model.norm.weight"]).all()


LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
RECURSION = "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
ASK = "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (ASK + LOOPS, "takes more than 1 seconds"),
        (ASK + RECURSION, "takes more than 1 seconds"),
        (ASK + '{{ "a" * 20000000000 }}', "takes more than 256 MB"),
        (ASK + '{{ "a".ljust(20000000000) }}', "takes more than 256 MB"),
        (ASK + '{{ "a" * 20000000 }}', "more than 1,000,000 characters"),
        ("", "has no chat template"),
        (" \n", "has no chat template"),
    ],
)
def test_templates_without_end(monkeypatch: pytest.MonkeyPatch, template: str, says: str) -> None:
    monkeypatch.setattr(chat_template, "CPU_SECONDS", 1)
    monkeypatch.setattr(chat_template, "MAX_BYTES", 256 * 2**20)
    rendered: list[object] = []
    assert says in refusal(lambda: check_templates({"default": template}, {}, lambda m: rendered.append(m) or "", "x"))
    assert rendered == []  # not in this process


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (ASK + "{{ 1 / 0 }}", "division by zero"),
        (ASK + '{% include "x" %}', "fails"),
        (ASK + "{{ messages.nothing.at_all }}", "fails"),
        (ASK + '{{ raise_exception("not\nthis") }}', "fails (not this)"),
        (ASK + "{% for %}", "fails"),
        ("hello", "leaves the question out"),
    ],
)
def test_templates_that_fail(copy: Path, template: str, says: str) -> None:
    (copy / "chat_template.jinja").write_text(template, encoding="utf-8")
    message = refusal(lambda: TransformersBackend.load(copy))
    assert says in message
    assert "the chat template of " in message


def test_a_template_that_another_family_writes_is_tried_and_taken(copy: Path) -> None:
    template = "{{ bos_token }}{% generation %}" + ASK + "{% endgeneration %}"
    (copy / "chat_template.jinja").write_text(template, encoding="utf-8")
    backend = TransformersBackend.load(copy, device="cpu")
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "hello"}]}]
    assert backend.prompt(turns).endswith("hello")
