"""A real tiny model, with random weights, on the CPU."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from egm.backends import GenerationSettings, Request
from egm.backends.transformers import TransformersBackend
from egm.codecs import get_codec
from egm.errors import BackendError
from egm.models.fast.enable import is_fast

from .tiny import one_token

GREEDY = GenerationSettings(max_new_tokens=16)
SAMPLED = GenerationSettings(max_new_tokens=16, temperature=0.9, top_p=0.95, top_k=50)


@pytest.fixture(scope="module")
def backend(tiny_folder: Path) -> TransformersBackend:
    return TransformersBackend.load(tiny_folder, device="cpu")


def texts(backend: TransformersBackend, requests: list[Request], settings: GenerationSettings) -> list[str]:
    return [reply.text for reply in backend.generate(requests, settings)]


def one_by_one(backend: TransformersBackend, requests: list[Request], settings: GenerationSettings) -> list[str]:
    return [text for request in requests for text in texts(backend, [request], settings)]


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_batch_answers_as_its_requests_alone(
    backend: TransformersBackend, requests_: list[Request], settings: GenerationSettings
) -> None:
    together = backend.generate(requests_, settings)
    alone = [backend.generate([request], settings)[0] for request in requests_]
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert len({reply.text for reply in together}) == len(together)
    assert "length" in {reply.finish_reason for reply in together}
    for reply, single, request in zip(together, alone, requests_, strict=True):
        assert reply.prompt_tokens == single.prompt_tokens  # padding is not counted
        assert (reply.completion_tokens, reply.finish_reason) == (single.completion_tokens, single.finish_reason)
        assert reply.finish_reason == ("length" if reply.completion_tokens == 16 else "stop")
        assert reply.seen_size == request.images[0].size  # multiples of 32 stay as they are
        assert reply.seconds > 0


def test_the_fast_path_answers_as_the_stock_model(
    backend: TransformersBackend, tiny_folder: Path, requests_: list[Request]
) -> None:
    stock = TransformersBackend.load(tiny_folder, device="cpu", fast=False)
    assert is_fast(backend.module)
    assert not is_fast(stock.module)
    assert texts(stock, requests_, GREEDY) == texts(backend, requests_, GREEDY)


def test_seeds(backend: TransformersBackend, requests_: list[Request]) -> None:
    once = texts(backend, requests_, SAMPLED)
    torch.manual_seed(1)
    assert texts(backend, requests_, SAMPLED) == once  # the global state has no say
    assert texts(backend, requests_, replace(SAMPLED, seed=1)) != once
    other_draws = [replace(request, seed_index=request.seed_index + 10) for request in requests_]
    assert texts(backend, other_draws, SAMPLED) != once
    state = torch.random.get_rng_state()
    texts(backend, requests_[:1], SAMPLED)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_almost_no_temperature_is_greedy(backend: TransformersBackend, requests_: list[Request]) -> None:
    cold = replace(SAMPLED, temperature=1e-4)
    assert texts(backend, requests_, cold) == texts(backend, requests_, GREEDY)


def test_stop_tokens(backend: TransformersBackend, requests_: list[Request]) -> None:
    tokenizer = backend.processor.tokenizer
    free = backend.generate(requests_[:2], GREEDY)
    begun = [texts(backend, requests_[:2], replace(GREEDY, max_new_tokens=tokens))[0] for tokens in range(1, 12)]
    tokens, stop = one_token(begun, lambda text: tokenizer.encode(text, add_special_tokens=False), free[1].text)
    stopping = TransformersBackend(copy.copy(backend.module), backend.processor)
    stopping.module.generation_config = copy.deepcopy(backend.module.generation_config)
    stopping.module.generation_config.eos_token_id = [stop]
    first, second = stopping.generate(requests_[:2], GREEDY)
    assert (first.finish_reason, first.completion_tokens) == ("stop", tokens)
    assert first.text == begun[tokens - 2]  # without the stop token, or padding after it
    assert second.logprob == pytest.approx(free[1].logprob, abs=1e-3)
    own = {"seconds": second.seconds, "logprob": second.logprob, "answer_logprob": second.answer_logprob}
    assert second == replace(free[1], **own)
    assert first.seconds < second.seconds  # its own last token, not the batch's


def test_placeholders_are_never_generated(backend: TransformersBackend, requests_: list[Request]) -> None:
    tokenizer = backend.processor.tokenizer
    first = tokenizer.encode(backend.generate(requests_[:1], GREEDY)[0].text, add_special_tokens=False)[0]
    other = TransformersBackend(copy.copy(backend.module), backend.processor)
    other.module.config = copy.deepcopy(backend.module.config)
    other.module.config.video_token_id = first
    text = other.generate(requests_[:1], GREEDY)[0].text
    assert first not in tokenizer.encode(text, add_special_tokens=False)


def test_a_checkpoints_penalties_do_not_count(tiny_folder: Path, tmp_path: Path, requests_: list[Request]) -> None:
    from transformers import GenerationConfig

    folder = Path(shutil.copytree(tiny_folder, tmp_path / "strict"))
    config = GenerationConfig.from_pretrained(folder)
    config.update(repetition_penalty=5.0, do_sample=True, top_k=3, no_repeat_ngram_size=2)
    config.save_pretrained(folder)
    strict, plain = (TransformersBackend.load(path, device="cpu") for path in (folder, tiny_folder))
    assert texts(strict, requests_[:1], GREEDY) == texts(plain, requests_[:1], GREEDY)


def test_pictures_that_are_resized_say_how_they_were_seen(backend: TransformersBackend) -> None:
    messages = get_codec("qwen3_vl").messages("the cup")
    sizes = [(640, 480), (1000, 50), (8, 8), (47, 211)]
    replies = backend.generate(
        [Request(messages, [Image.new("RGB", size, "teal")]) for size in sizes], replace(GREEDY, max_new_tokens=2)
    )
    for size, reply in zip(sizes, replies, strict=True):
        assert reply.seen_size is not None
        assert all(side % 32 == 0 for side in reply.seen_size)
        tokens = reply.seen_size[0] * reply.seen_size[1] // 32**2
        assert reply.prompt_tokens - tokens == replies[0].prompt_tokens - 12 * 9, size


def test_text_alone_and_several_pictures(backend: TransformersBackend) -> None:
    picture = Image.new("RGB", (64, 96), "teal")
    text = {"type": "text", "text": "hello"}
    requests = [
        Request([{"role": "user", "content": [text]}]),
        Request([{"role": "user", "content": [{"type": "image"}, {"type": "image"}, text]}], [picture, picture]),
        Request([{"role": "user", "content": [{"type": "image"}, text]}], [picture.rotate(90, expand=True)]),
    ]
    sizes = [reply.seen_size for reply in backend.generate(requests, replace(GREEDY, max_new_tokens=2))]
    assert sizes == [None, (64, 96), (96, 64)]


def test_requests_that_do_not_fit(backend: TransformersBackend) -> None:
    with pytest.raises(BackendError, match=r"leaves no room in .* context of 4096"):
        backend.generate([Request([{"role": "user", "content": "word " * 5000}])], GREEDY)
    with pytest.raises(BackendError, match="have 1 places for pictures, but 0 came"):
        backend.generate([Request(get_codec("qwen3_vl").messages("the cup"))], GREEDY)
    with pytest.raises(BackendError, match="the chat template refuses"):
        backend.generate([Request([{"role": "tool", "content": "x"}])], GREEDY)
    with pytest.raises(BackendError, match="failed to answer") as caught:
        backend.generate([Request(get_codec("qwen3_vl").messages("the cup"), [1.5])], GREEDY)  # type: ignore[list-item]
    assert "\n" not in str(caught.value)
    assert backend.generate([], GREEDY) == []


def test_half_precision(tiny_folder: Path, requests_: list[Request]) -> None:
    half = TransformersBackend.load(tiny_folder, device="cpu", dtype="bfloat16")
    assert half.module.dtype == torch.bfloat16
    assert half.generate(requests_, replace(GREEDY, max_new_tokens=2))[0].completion_tokens == 2


def test_the_terminal_stays_clean(
    tiny_folder: Path, requests_: list[Request], capfd: pytest.CaptureFixture[str]
) -> None:
    TransformersBackend.load(tiny_folder).generate(requests_, GREEDY)
    assert capfd.readouterr() == ("", "")


@pytest.mark.gpu
def test_on_a_gpu(tiny_folder: Path, requests_: list[Request]) -> None:
    backend = TransformersBackend.load(tiny_folder)
    assert (backend.module.device.type, backend.module.dtype) == ("cuda", torch.bfloat16)
    exact = TransformersBackend.load(tiny_folder, dtype="float32")
    for settings in (GREEDY, SAMPLED):
        assert texts(exact, requests_, settings) == one_by_one(exact, requests_, settings)
