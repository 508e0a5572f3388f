"""Fused steps, in plain torch, against the library's layers."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.models import build_model, build_processor, enable_fast_path
from egm.models.decode import prefill
from egm.models.decode.cache import grouped_attention
from egm.models.decode.decoder import BatchDecoder
from egm.models.decode.fused import FusedModel, why_not_fused
from egm.models.decode.kernels.operations import NewTokens
from egm.models.decode.kernels.plain import PlainOperations
from egm.models.decode.prefill import PromptReader
from egm.models.decode.prompt_batch import PromptBatch, make_prompts
from egm.models.decode.sampling import Sampler, uniforms

from ...families import random_model

GREEDY = Sampler(0.0)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def stock() -> Any:
    """A lively model in float32, so that the order of sums decides no token."""
    return enable_fast_path(random_model("qwen3_vl", head=16, tied=True))


@pytest.fixture
def model(stock: Any) -> Any:
    """A copy, whose parameters may be made views."""
    return copy.deepcopy(stock)


@pytest.fixture(scope="module")
def prompts() -> PromptBatch:
    """Questions of several lengths about pictures of several sizes."""
    processor, codec = build_processor(), get_codec("qwen3_vl")
    samples = [SynthRef("val").samples(number)[number] for number in range(3)]
    texts = [
        processor.apply_chat_template(codec.messages(sample.phrase), tokenize=False, add_generation_prompt=True)
        for sample in samples
    ]
    return make_prompts(processor, texts, [0, 1, 2], [sample.image for sample in samples])


def make(model: Any, **changes: Any) -> BatchDecoder:
    options: dict[str, Any] = {"dtype": None, "stops": [2], "pad": 0, "banned": [12, 13], "graphs": False}
    return BatchDecoder(model, max_rows=None, **options | changes)


def write(decoder: BatchDecoder, prompts: PromptBatch, sampler: Sampler = GREEDY, tokens: int = 12) -> Any:
    numbers = None if sampler.greedy else uniforms(range(5), 12)
    return decoder.generate(prompts, [0, 1, 2, 2, 2], tokens, sampler, numbers, logprobs=True)


@pytest.mark.parametrize("sampler", [Sampler(0.0), Sampler(0.9)], ids=["greedy", "sampled"])
def test_fused_steps_write_what_the_layers_write(
    stock: Any, model: Any, prompts: PromptBatch, sampler: Sampler
) -> None:
    expected = write(make(stock), prompts, sampler)
    fused = write(make(model, operations=PlainOperations()), prompts, sampler)
    assert fused.ids == expected.ids
    for ours, theirs in zip(fused.logprobs, expected.logprobs, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_fused_reading_gives_what_the_layers_give(
    model: Any, prompts: PromptBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = FusedModel(model, PlainOperations())
    for shown in ([0, 1, 2], [1, 1, 1], [0, 2, 0]):  # each its own, one for all, and both
        asked = PromptBatch(
            [[*prompts.ids[p][:-2], n, n] for n, p in enumerate(shown)], shown, prompts.pixels, prompts.grids
        )
        for most in (2048, 0):  # with features for all tokens, and by their places
            monkeypatch.setattr(prefill, "_MOST_TOKENS", most)
            with torch.no_grad(), grouped_attention(model):
                reader = PromptReader(torch.device("cpu"), 0, graphs=False)
                ours, theirs = reader.read(model, asked, fused=fused), reader.read(model, asked)
            torch.testing.assert_close(ours.scores, theirs.scores, atol=1e-4, rtol=1e-4)
            for mine, other in ((ours.cache.keys, theirs.cache.keys), (ours.cache.values, theirs.cache.values)):
                torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


def test_parameters_become_views_and_stay_the_models_own(model: Any, prompts: PromptBatch, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    decoder = make(model, operations=PlainOperations())
    first = write(decoder, prompts)
    attention = model.model.language_model.layers[1].self_attn
    storages = {getattr(attention, name).weight.untyped_storage().data_ptr() for name in ("q_proj", "k_proj", "v_proj")}
    assert len(storages) == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, dtype=torch.float32)
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.state_dict().items())
    assert write(make(enable_fast_path(loaded.eval())), prompts).ids == first.ids


@pytest.mark.parametrize("fp8", [False, True])
def test_weights_that_change_are_read_anew(model: Any, prompts: PromptBatch, fp8: bool) -> None:
    def fused(model: Any) -> BatchDecoder:
        return make(model, operations=PlainOperations(), fp8=fp8)

    decoder = fused(model)
    first = write(decoder, prompts, tokens=6)
    with torch.no_grad():  # as an optimiser does
        for name, weight in model.named_parameters():
            if "language_model.layers" in name:
                weight.mul_(1.1).add_(0.01)
    changed = write(decoder, prompts, tokens=6)
    assert changed.ids != first.ids
    assert changed.ids == write(fused(copy.deepcopy(model)), prompts, tokens=6).ids
    for parameter in model.parameters():  # as a move to another device does
        parameter.data = parameter.data * 0.9
    moved = write(decoder, prompts, tokens=6)
    assert moved.ids == write(fused(copy.deepcopy(model)), prompts, tokens=6).ids


def test_a_copy_in_another_type_is_fused_in_it(stock: Any, prompts: PromptBatch) -> None:
    """What rollouts of training do: the trained weights stay as they are, and are copied before each generation."""
    source = copy.deepcopy(stock)
    decoder = make(source, operations=PlainOperations(), dtype=torch.bfloat16)
    for _ in range(2):
        ours = write(decoder, prompts)
        loaded = copy.deepcopy(source)
        for parameter in loaded.parameters():
            parameter.data = parameter.data.bfloat16()
        assert ours.ids == write(make(loaded, operations=PlainOperations()), prompts).ids
        with torch.no_grad():
            for weight in source.parameters():
                weight.mul_(1.05)
    assert source.model.language_model.layers[0].self_attn.q_proj.weight.dtype == torch.float32


def test_fp8_is_near_the_weights(model: Any) -> None:
    plain = PlainOperations()
    results = []
    for fp8 in (False, True):
        fused, steps = FusedModel(copy.deepcopy(model), plain, fp8=fp8), []
        fused.operations = _Watched(steps)
        fused.try_step(2)
        results.append(steps[0])
    off = (results[1] - results[0]).norm() / results[0].norm()
    assert 0 < off < 0.06


class _Watched(PlainOperations):
    """Keeps what attention is asked with."""

    def __init__(self, seen: list[torch.Tensor]) -> None:
        self._seen = seen

    def attend(self, new: NewTokens, keys: torch.Tensor, values: torch.Tensor, scaling: float) -> torch.Tensor:
        self._seen.append(new.qkv)
        return super().attend(new, keys, values, scaling)


class _Broken(PlainOperations):
    """As kernels that do not compile."""

    def likeliest(self, logits: torch.Tensor, banned: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise ValueError("no such instruction")


def test_where_kernels_fail_the_layers_serve_with_one_warning(stock: Any, model: Any, prompts: PromptBatch) -> None:
    decoder = make(model, operations=_Broken())
    with pytest.warns(UserWarning, match="library's layers, slower: ValueError: no such instruction") as caught:
        first = write(decoder, prompts)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert write(decoder, prompts).ids == first.ids == write(make(stock), prompts).ids


def test_models_that_are_built_otherwise_are_told_apart(model: Any, prompts: PromptBatch) -> None:
    assert why_not_fused(model) is None
    layer = model.model.language_model.layers[1]
    layer.mlp.up_proj.bias = torch.nn.Parameter(torch.zeros(layer.mlp.up_proj.out_features))
    with pytest.warns(UserWarning, match="its up_proj is no linear layer without a bias"):
        assert write(make(model, operations=PlainOperations()), prompts).ids == write(make(model), prompts).ids
    assert why_not_fused(build_model("30b-a3b", device="meta")) is not None
