"""The NumPy forward pass against transformers: the same text, token for token."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from egm.backends import GenerationSettings, Request
from egm.backends.checkpoint import Checkpoint, find_checkpoint
from egm.backends.numpy.backend import NumpyBackend
from egm.backends.numpy.folder import read_safetensors
from egm.backends.transformers import TransformersBackend
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.errors import BackendError, ModelError

from ..tiny import one_token

GREEDY = GenerationSettings(max_new_tokens=24)
SAMPLED = GenerationSettings(max_new_tokens=24, temperature=0.9, top_p=0.95, top_k=50)


@pytest.fixture(scope="module")
def backend(tiny_folder: Path) -> NumpyBackend:
    return NumpyBackend(find_checkpoint(tiny_folder))


@pytest.fixture(scope="module")
def reference(tiny_folder: Path) -> TransformersBackend:
    return TransformersBackend.load(tiny_folder, device="cpu", fast=False)


def test_it_answers_as_transformers_does(
    backend: NumpyBackend, reference: TransformersBackend, requests_: list[Request]
) -> None:
    text_only = Request([{"role": "user", "content": "Hello, wörld 123! <think>"}])
    rng = np.random.default_rng(0)
    noise = [
        Request(requests_[0].messages, [Image.fromarray(rng.integers(0, 255, (*size, 3)).astype(np.uint8))])
        for size in ((32, 64), (320, 32), (96, 96))
    ]
    for request in [*requests_, text_only, *noise]:
        ours, theirs = backend.generate([request], GREEDY)[0], reference.generate([request], GREEDY)[0]
        assert backend.prompt(request.messages) == reference.prompt(request.messages)
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-3)
        assert ours.answer_logprob == pytest.approx(theirs.answer_logprob, abs=1e-3)
        bare = {"seconds": 0, "logprob": None, "answer_logprob": None}
        assert replace(ours, **bare) == replace(theirs, **bare)


@pytest.mark.parametrize("size", [(640, 480), (1000, 50), (9, 9), (47, 211), (2000, 1500), (10, 2000)])
def test_resized_pictures_are_seen_alike(
    backend: NumpyBackend, reference: TransformersBackend, size: tuple[int, int]
) -> None:
    """Resampling differs in the last bit between Pillow and torchvision, so the texts need not agree."""
    gradient = np.linspace(0, 255, size[0] * size[1] * 3).reshape(size[1], size[0], 3).astype(np.uint8)
    request = Request(get_codec("qwen3_vl").messages("the cup"), [Image.fromarray(gradient)])
    once = replace(GREEDY, max_new_tokens=1)
    ours, theirs = backend.generate([request], once)[0], reference.generate([request], once)[0]
    assert (ours.seen_size, ours.prompt_tokens) == (theirs.seen_size, theirs.prompt_tokens)


def test_seeds(backend: NumpyBackend, requests_: list[Request]) -> None:
    def sampled(settings: GenerationSettings, shift: int = 0) -> list[str]:
        requests = [replace(request, seed_index=request.seed_index + shift) for request in requests_[:1]]
        return [reply.text for reply in backend.generate(requests, settings)]

    once = sampled(SAMPLED)
    assert sampled(SAMPLED) == once
    assert sampled(replace(SAMPLED, seed=1)) != once
    assert sampled(SAMPLED, shift=5) != once
    assert sampled(replace(SAMPLED, temperature=1e-4)) == sampled(GREEDY)
    assert sampled(replace(SAMPLED, top_k=1)) == sampled(GREEDY)
    assert sampled(replace(SAMPLED, top_k=0, top_p=1e-9)) == sampled(GREEDY)


def test_stop_tokens(tiny_folder: Path, tmp_path: Path, backend: NumpyBackend, requests_: list[Request]) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tiny_folder / "tokenizer.json"))
    settings = [replace(GREEDY, max_new_tokens=tokens) for tokens in range(1, 12)]
    begun = [backend.generate(requests_[:1], each)[0].text for each in settings]
    tokens, stop = one_token(begun, lambda text: tokenizer.encode(text, add_special_tokens=False).ids)
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "stopping"))
    (folder / "generation_config.json").write_text(f'{{"eos_token_id": {stop}}}')
    reply = NumpyBackend(find_checkpoint(folder)).generate(requests_[:1], GREEDY)[0]
    assert (reply.finish_reason, reply.completion_tokens) == ("stop", tokens)
    assert reply.text == begun[tokens - 2]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_weights_of_every_type(tmp_path: Path, dtype: str) -> None:
    import torch
    from safetensors.torch import save_file

    weight = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    save_file({"w": weight, "scalar": weight[0, 0].clone()}, tmp_path / "a.safetensors")
    read = read_safetensors(tmp_path)
    assert read["w"].dtype == np.float32
    np.testing.assert_array_equal(read["w"], weight.float().numpy())
    assert read["scalar"].shape == ()


def test_weights_of_a_type_that_it_does_not_read(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(2, dtype=torch.int8)}, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="holds w as I8"):
        read_safetensors(tmp_path)


def test_what_it_does_not_load(tiny_folder: Path, tmp_path: Path) -> None:
    checkpoint = find_checkpoint(tiny_folder)
    with pytest.raises(ModelError, match="not a dense Qwen3-VL"):
        NumpyBackend(Checkpoint("x", tiny_folder, {"model_type": "qwen3_vl_moe"}))
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="does not load") as caught:
        NumpyBackend(Checkpoint("x", folder, checkpoint.config))
    assert "\n" not in str(caught.value)


def test_requests_that_do_not_fit(backend: NumpyBackend) -> None:
    messages, picture = get_codec("qwen3_vl").messages("the cup"), Image.new("RGB", (64, 64))
    with pytest.raises(BackendError, match=r"leaves no room in .* context of 4096"):
        backend.generate([Request([{"role": "user", "content": "word " * 5000}])], GREEDY)
    with pytest.raises(BackendError, match="have 1 places for pictures, but 0 came"):
        backend.generate([Request(messages)], GREEDY)
    two = [{"role": "user", "content": [{"type": "image"}, {"type": "image"}]}]
    with pytest.raises(BackendError, match="takes one picture"):
        backend.generate([Request(two, [picture, picture])], GREEDY)
    with pytest.raises(BackendError, match="control tokens for pictures"):
        backend.generate([Request([{"role": "user", "content": "<|image_pad|>"}])], GREEDY)
    with pytest.raises(BackendError, match="the chat template refuses"):
        backend.generate([Request([{"role": "tool", "content": "x"}])], GREEDY)


def test_drafts_change_no_text(requests_: list[Request]) -> None:
    """egm-tiny's real answers, which repeat themselves and their frame; also sampled, cut short and begun by others."""
    checkpoint = find_checkpoint("egm-tiny")
    plain, drafting = (NumpyBackend(checkpoint, drafts=drafts) for drafts in (False, True))
    codec = get_codec("qwen3_vl")
    samples = SynthRef("val").samples(0)
    asked = [
        Request(
            codec.messages(sample.phrase),
            [sample.image],
            number,
            cut=partial(codec.answer_prefill, phrase=sample.phrase),
            drafts=(codec.frame(sample.phrase, size=sample.size), "words that no answer has"),
        )
        for number, sample in enumerate(samples[:2])
    ]
    greedy = GenerationSettings(max_new_tokens=400)
    for settings in (
        greedy,
        GenerationSettings(max_new_tokens=400, temperature=0.8, seed=3),
        replace(greedy, max_new_tokens=70),
        replace(greedy, thinking_budget=40),
        replace(greedy, stop=codec.tail_stops),
    ):
        for request in asked if settings is greedy else asked[:1]:
            [ours], [theirs] = drafting.generate([request], settings), plain.generate([request], settings)
            assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-4)
            bare = {"seconds": 0, "logprob": None, "answer_logprob": None}
            assert replace(ours, **bare) == replace(theirs, **bare)
    counts = drafting.draft_counts
    assert counts.accepted > counts.tokens / 3
    assert counts.passes < counts.tokens * 2 / 3
    assert plain.draft_counts.passes == 0


def test_a_few_pictures_are_remembered_and_no_more(backend: NumpyBackend) -> None:
    rng = np.random.default_rng(5)
    pictures = [Image.fromarray(rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)) for _ in range(10)]
    messages = get_codec("qwen3_vl").messages("the cup")
    once = replace(GREEDY, max_new_tokens=2)
    first = [backend.generate([Request(messages, [picture])], once)[0].text for picture in pictures]
    assert len(backend._seen) == 8
    again = [backend.generate([Request(messages, [picture])], once)[0].text for picture in reversed(pictures)]
    assert again[::-1] == first
