"""Prompts read at once, against the library's own forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.models import build_model, build_processor, enable_fast_path
from egm.models.decode import prefill
from egm.models.decode.cache import grouped_attention
from egm.models.decode.graphs import RecordedCalls
from egm.models.decode.prefill import PromptReader, ReadPrompts
from egm.models.decode.prefixes import PictureSource, Prefix, PrefixCache
from egm.models.decode.prompt_batch import PromptBatch, make_prompts


@pytest.fixture
def model() -> Any:
    model = build_model("tiny-s").eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim >= 2:
                weight.mul_(4)
    return enable_fast_path(model)


@pytest.fixture(scope="module")
def asked() -> tuple[Any, list[str], list[Any]]:
    """Prompts of several lengths about pictures of several sizes."""
    processor, codec = build_processor(), get_codec("qwen3_vl")
    samples = [SynthRef("val").samples(number)[0] for number in range(3)]
    texts = [
        processor.apply_chat_template(codec.messages(sample.phrase), tokenize=False, add_generation_prompt=True)
        for sample in samples
    ]
    sizes = [(96, 64), (160, 128), (96, 64)]
    return processor, texts, [sample.image.resize(size) for sample, size in zip(samples, sizes, strict=True)]


def read(model: Any, prompts: PromptBatch) -> ReadPrompts:
    with torch.no_grad(), grouped_attention(model):
        return PromptReader(torch.device("cpu"), 0, graphs=True).read(model, prompts)


@pytest.mark.parametrize("pictures", [[0, 1, 2], [1, 1, 0]])
def test_scores_are_the_library_s(model: Any, asked: Any, pictures: list[int]) -> None:
    processor, texts, images = asked
    images = images[: max(pictures) + 1]
    ours = read(model, make_prompts(processor, texts, pictures, images))
    for row, (text, picture) in enumerate(zip(texts, pictures, strict=True)):
        inputs = processor(text=[text], images=[images[picture]], return_tensors="pt")
        with torch.no_grad():
            output = model(**inputs, use_cache=True)
        length = inputs["input_ids"].shape[1]
        torch.testing.assert_close(ours.scores[row], output.logits[0, -1], atol=1e-4, rtol=1e-4)
        assert ours.lengths[row] == length
        assert ours.start[row] == length + int(model.model.rope_deltas[0, 0])
        keys = output.past_key_values.layers[-1].keys[0]
        columns = torch.arange(length)
        columns += torch.where(columns < ours.prefix[row], 0, ours.gap[row])
        torch.testing.assert_close(ours.cache.keys[-1][row][:, columns], keys, atol=1e-4, rtol=1e-4)
    assert bool(ours.prefix.any()) is (len(set(pictures)) < 3)  # what prompts share is read once


def test_many_tokens_are_read_by_places_with_the_same_result(
    model: Any, asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor, texts, images = asked
    prompts = make_prompts(processor, texts, [1, 0, 1], images[:2])
    few = read(model, prompts)
    monkeypatch.setattr(prefill, "_MOST_TOKENS", 0)
    torch.testing.assert_close(read(model, prompts).scores, few.scores)


def test_what_was_read_of_a_picture_serves_further_questions(model: Any, asked: Any) -> None:
    processor, texts, images = asked
    reader = PromptReader(torch.device("cpu"), 0, graphs=True, prefix_bytes=2**26)

    def ask(texts: list[str], image: Any) -> ReadPrompts:
        prompts = make_prompts(processor, texts, [0] * len(texts), [image])
        with torch.no_grad(), grouped_attention(model):
            ours = reader.read(model, prompts)
            reader.keep_prefixes()
        torch.testing.assert_close(ours.scores, read(model, prompts).scores, atol=1e-4, rtol=1e-4)
        return ours

    assert not ask(texts[:1], images[0]).prefix.any()
    assert ask(texts[1:2], images[0].copy()).prefix.all()
    assert (reader.prefixes.hits, reader.prefixes.misses, len(reader.prefixes)) == (1, 1, 1)
    other = images[0].copy()
    other.putpixel((1, 1), (1, 2, 3))  # in none of the rows that are looked at first
    assert PictureSource(other).sample == PictureSource(images[0]).sample
    assert ask(texts[:2], other).prefix.all()
    assert (reader.prefixes.hits, reader.prefixes.misses) == (1, 2)
    assert ask(texts[1:], other).prefix.all()
    assert (reader.prefixes.hits, reader.prefixes.misses) == (2, 2)
    with torch.no_grad():
        model.model.visual.merger.linear_fc2.bias.add_(0.5)
    ask(texts[:1], other)
    assert (reader.prefixes.hits, reader.prefixes.misses, len(reader.prefixes)) == (2, 3, 1)


def test_the_prefix_used_least_lately_makes_room() -> None:
    pictures = [PictureSource(Image.new("RGB", (8, 8), (shade, 0, 0))) for shade in range(3)]
    prefix = Prefix([torch.zeros(10)], [torch.zeros(10)], 1)
    cache = PrefixCache(2 * prefix.nbytes)
    for source in pictures[:2]:
        cache.keep(source, (1,), prefix)
    assert cache.find(pictures[0], (1,)) is prefix
    assert cache.find(pictures[0], (2,)) is None
    cache.keep(pictures[2], (1,), prefix)
    assert [cache.find(source, (1,)) is prefix for source in pictures] == [True, False, True]
    assert (len(cache), cache.held) == (2, 2 * prefix.nbytes)
    cache.keep(pictures[1], (1,), Prefix([torch.zeros(99)], [], 1))
    assert len(cache) == 2


def test_many_prompts_of_one_call_are_not_kept(model: Any, asked: Any) -> None:
    processor, texts, images = asked
    reader = PromptReader(torch.device("cpu"), 0, graphs=True, prefix_bytes=2**26)
    prompts = make_prompts(processor, [texts[0]] * 5, list(range(5)), [images[0].resize((64, 64))] * 5)
    with torch.no_grad(), grouped_attention(model):
        reader.read(model, prompts)
        reader.keep_prefixes()
    assert len(reader.prefixes) == 0


def test_nothing_is_recorded_on_a_cpu() -> None:
    calls = RecordedCalls(torch.device("cpu"), 4, "doubling goes on")
    for number in range(3):
        assert calls("double", lambda x: (2 * x,), [torch.tensor(number)])[0] == 2 * number
    assert (calls.eager, calls.recorded, calls.replayed) == (3, 0, 0)
