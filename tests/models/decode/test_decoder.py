"""The decoder and what it draws with, against the library's own generate."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
import torch

from egm.backends import GenerationSettings, Request
from egm.backends.transformers import TransformersBackend
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.models import build_processor, enable_fast_path
from egm.models.decode import decoder as module
from egm.models.decode import repetition, state
from egm.models.decode.cache import grouped_attention
from egm.models.decode.decoder import BatchDecoder, supports_batch_decoding
from egm.models.decode.job import DecodeJob
from egm.models.decode.kernels.plain import PlainOperations
from egm.models.decode.prompt_batch import PromptBatch, make_prompts
from egm.models.decode.sampling import Sampler, uniforms
from egm.models.decode.state import TokenClock, bucket_size
from egm.types import Completion

from ...families import random_model

GREEDY = GenerationSettings(max_new_tokens=16)
SAMPLED = GenerationSettings(max_new_tokens=16, temperature=0.9, top_p=0.95, top_k=50)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def stock() -> TransformersBackend:
    """What goes through generate: a lively model as the library has it."""
    return TransformersBackend(random_model("qwen3_vl"), build_processor())


@pytest.fixture(scope="module")
def backend(stock: TransformersBackend) -> TransformersBackend:
    return TransformersBackend(enable_fast_path(copy.deepcopy(stock.module)), build_processor())


@pytest.fixture(scope="module")
def requests_() -> list[Request]:
    """Questions about pictures of several sizes, with phrases of several lengths; two of them share a picture."""
    codec, data = get_codec("qwen3_vl"), SynthRef("val")
    scenes = [data.samples(number) for number in range(3)]
    samples = [scenes[0][0], scenes[1][1], scenes[1][2], scenes[2][3]]
    assert samples[1].image is samples[2].image
    return [
        Request(codec.messages(sample.phrase), [sample.image], seed_index=index)  # type: ignore[list-item]
        for index, sample in enumerate(samples)
    ]


def agree(ours: list[Completion], theirs: list[Completion]) -> None:
    assert [reply.text for reply in ours] == [reply.text for reply in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert mine.answer_logprob == pytest.approx(other.answer_logprob, abs=1e-4)
        times = {"seconds": mine.seconds, "logprob": mine.logprob, "answer_logprob": mine.answer_logprob}
        assert mine == replace(other, **times)


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_it_writes_what_generate_writes(
    backend: TransformersBackend, stock: TransformersBackend, requests_: list[Request], settings: GenerationSettings
) -> None:
    assert supports_batch_decoding(backend.module)
    assert not supports_batch_decoding(stock.module)
    agree(backend.generate(requests_, settings), stock.generate(requests_, settings))
    votes = [replace(request, vote=vote) for request in requests_[:2] for vote in (0, 1)]
    agree(backend.generate(votes, settings), stock.generate(votes, settings))


def test_rows_are_left_behind_and_the_others_get_more_room(
    backend: TransformersBackend,
    stock: TransformersBackend,
    requests_: list[Request],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_INITIAL_TOKENS", 1)
    settings = replace(SAMPLED, max_new_tokens=100)
    free = backend.generate(requests_, settings)
    assert -(-max(reply.prompt_tokens for reply in free) // 64) * 64 + 100 > 256  # the first state is too short
    ids = [stock._encode(reply.text) for reply in free]
    stop = next(token for token in ids[0][10:40] if token not in ids[1][:50] and token not in ids[3])
    pair = []
    for plain in (backend, stock):
        other = TransformersBackend(copy.copy(plain.module), plain.processor)
        other.module.generation_config = copy.deepcopy(plain.module.generation_config)
        other.module.generation_config.eos_token_id = [stop]
        pair.append(other.generate(requests_, settings))
    agree(*pair)
    assert len({reply.completion_tokens for reply in pair[0]}) > 1
    assert {reply.finish_reason for reply in pair[0]} == {"stop", "length"}
    in_order = sorted(pair[0], key=lambda reply: reply.completion_tokens)
    assert [reply.seconds for reply in in_order] == sorted(reply.seconds for reply in in_order)


def test_each_answer_has_its_own_room_in_the_context(backend: TransformersBackend, requests_: list[Request]) -> None:
    other = TransformersBackend(backend.module, backend.processor)
    other.context = 200
    replies = other.generate(requests_, replace(GREEDY, max_new_tokens=300))
    assert len({reply.prompt_tokens for reply in replies}) > 1
    assert [reply.prompt_tokens + reply.completion_tokens for reply in replies] == [200] * 4


def make(backend: TransformersBackend, max_rows: int | None, **changes: Any) -> BatchDecoder:
    options: dict[str, Any] = {"dtype": None, "stops": [2], "pad": 0, "banned": [], "graphs": False}
    return BatchDecoder(backend.module, max_rows=max_rows, **options | changes)


def asked(backend: TransformersBackend, requests: list[Request]) -> PromptBatch:
    texts = [backend.prompt(request.messages) for request in requests]
    images = [request.images[0] for request in requests]
    return make_prompts(backend.processor, texts, list(range(len(images))), images)


def test_few_rows_at_a_time_write_the_same(backend: TransformersBackend, requests_: list[Request]) -> None:
    prompts, which, numbers = asked(backend, requests_), [0, 0, 1, 2, 2, 2, 3], uniforms(range(7), 12)
    whole = make(backend, None).generate(prompts, which, 12, Sampler(0.9), numbers, logprobs=True)
    parts = make(backend, 2).generate(prompts, which, 12, Sampler(0.9), numbers, logprobs=True)
    assert parts.ids == whole.ids
    assert len({tuple(ids) for ids in whole.ids}) == 7
    assert [sum(row) for row in parts.logprobs] == pytest.approx([sum(row) for row in whole.logprobs], abs=1e-3)
    assert all(one <= two for one, two in zip(parts.times, parts.times[2:], strict=False))
    assert make(backend, None).generate(prompts, which, 12, Sampler(0.9), numbers).logprobs == [[]] * 7


def test_a_copy_in_another_type_is_the_model_loaded_in_it(
    backend: TransformersBackend, requests_: list[Request], tmp_path: Path
) -> None:
    source = TransformersBackend(copy.deepcopy(backend.module), backend.processor)
    decoder, prompts = make(source, None, dtype=torch.bfloat16), asked(backend, requests_)
    for step in ("begin", "trained"):
        source.module.save_pretrained(tmp_path / step)
        loaded = type(source.module).from_pretrained(tmp_path / step, dtype=torch.bfloat16)
        there = make(TransformersBackend(enable_fast_path(loaded.eval()), backend.processor), None)
        ours, theirs = (
            each.generate(prompts, [0, 1, 2, 3], 24, Sampler(0.0), logprobs=True) for each in (decoder, there)
        )
        assert ours.ids == theirs.ids
        assert ours.logprobs == theirs.logprobs
        with torch.no_grad():
            for weight in source.module.parameters():
                weight.add_(0.01)


def test_banned_tokens_and_stops(backend: TransformersBackend, requests_: list[Request]) -> None:
    prompts = asked(backend, requests_)
    free = make(backend, None)(prompts, 1, max_new_tokens=8, temperature=0.0)
    bare = make(backend, None, banned=[free[0][0]])(prompts, 1, max_new_tokens=8, temperature=0.0)
    assert free[0][0] not in {token for ids in bare for token in ids}
    short = make(backend, None, stops=[free[0][3]])(prompts, 1, max_new_tokens=8, temperature=0.0)
    assert short[0] == free[0][: free[0].index(free[0][3]) + 1]
    assert make(backend, None)(prompts, 1, max_new_tokens=1, temperature=0.0) == [ids[:1] for ids in free]


def test_one_call_can_end_at_further_tokens(backend: TransformersBackend, requests_: list[Request]) -> None:
    decoder, prompts = make(backend, None), asked(backend, requests_)
    whole = decoder(prompts, 1, max_new_tokens=12, temperature=0.0)
    until = whole[0][4]
    ended = decoder(prompts, 1, max_new_tokens=12, temperature=0.0, until=[until])
    assert ended == [ids[: ids.index(until) + 1] if until in ids else ids for ids in whole]
    assert len(ended[0]) <= 5
    kept = {token for ids in whole for token in ids}
    many = [token for token in range(len(backend.processor.tokenizer)) if token not in kept][:60]
    assert decoder(prompts, 1, max_new_tokens=12, temperature=0.0, until=[until, *many]) == ended
    assert decoder(prompts, 1, max_new_tokens=12, temperature=0.0) == whole


def test_draws_follow_the_shares() -> None:
    shares = torch.tensor([0.5, 0.0, 0.3, 0.15, 0.05, 0.0])
    scores = shares.log().repeat(20_000, 1)
    numbers = torch.rand(20_000, generator=torch.Generator().manual_seed(0))

    def drawn(*how: Any) -> list[float]:
        return (torch.bincount(Sampler(*how)(scores, numbers), minlength=6) / 20_000).tolist()

    assert drawn(1.0) == pytest.approx(shares.tolist(), abs=0.01)
    assert drawn(0.5) == pytest.approx((shares**2 / (shares**2).sum()).tolist(), abs=0.01)
    assert drawn(1.0, 1.0, 2) == pytest.approx([0.625, 0, 0.375, 0, 0, 0], abs=0.01)
    assert drawn(1.0, 0.7) == pytest.approx([0.625, 0, 0.375, 0, 0, 0], abs=0.01)
    assert drawn(1.0, 1e-9) == drawn(0.0) == drawn(1e-30) == [1, 0, 0, 0, 0, 0]


def test_the_ends_of_the_range_draw_what_can_be_drawn() -> None:
    scores = torch.randn(64, 5000, generator=torch.Generator().manual_seed(0)) * 5
    scores[:, [0, 1, -1]] = -torch.inf
    for number in (0.0, 1 - 2**-24):
        drawn = Sampler(1.0)(scores, torch.full((64,), number))
        assert torch.isfinite(scores.gather(1, drawn[:, None])).all()


def test_random_numbers_are_each_seeds_own() -> None:
    state = torch.random.get_rng_state()
    numbers = uniforms([3, 5, 2**63 - 1], 100)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(uniforms([5], 7), numbers[1:2, :7])
    assert len({row[0].item() for row in numbers}) == 3
    assert float(numbers.min()) >= 0
    assert float(numbers.max()) < 1


def test_threads_and_shared_pictures_change_nothing() -> None:
    processor, codec, data = build_processor(), get_codec("qwen3_vl"), SynthRef("val")
    scenes = [data.samples(number) for number in range(20)]
    samples, images = [sample for scene in scenes for sample in scene[:2]], [scene[0].image for scene in scenes]
    texts = [
        processor.apply_chat_template(codec.messages(sample.phrase), tokenize=False, add_generation_prompt=True)
        for sample in samples
    ]
    pictures = [number // 2 for number in range(40)]
    one, two = (make_prompts(processor, texts, pictures, images, threads=threads) for threads in (1, 2))
    assert torch.equal(one.pixels, two.pixels)
    assert (one.ids, one.grids) == (two.ids, two.grids)
    whole = processor(text=texts[:6], images=[images[picture] for picture in pictures[:6]])
    assert whole["input_ids"] == one.ids[:6]
    part = one.part([5, 8, 9])
    assert (part.ids, part.pictures) == ([one.ids[5], one.ids[8], one.ids[9]], [0, 1, 1])
    assert torch.equal(
        part.pixels, processor.image_processor([images[2], images[4]], return_tensors="pt")["pixel_values"]
    )
    assert part.grids == [one.grids[2], one.grids[4]]


def test_few_numbers_are_rounded_to() -> None:
    assert [bucket_size(count, 1, 4) for count in (1, 2, 5, 9, 129, 191, 256, 1000)] == [
        1,
        2,
        5,
        10,
        160,
        192,
        256,
        1024,
    ]
    assert [bucket_size(count, 64, 8) for count in (1, 64, 65, 600, 1100, 8000)] == [64, 64, 128, 640, 1152, 8192]


@pytest.mark.parametrize("operations", [None, PlainOperations()], ids=["layers", "fused"])
def test_drafts_write_the_same_in_fewer_passes(
    backend: TransformersBackend, requests_: list[Request], operations: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_INITIAL_TOKENS", 1)  # so that the cache grows on the way
    own = TransformersBackend(enable_fast_path(random_model("qwen3_vl", head=16)), backend.processor)
    prompts = asked(own, requests_[:1])
    plain = make(own, None).generate(prompts, [0], 250, Sampler(0.0), logprobs=True)
    written = plain.ids[0]
    wrong = [*written[:30], 5, 6, 7, *written[40:]]
    for likely in ([written], [wrong], []):
        decoder = make(own, None, drafts=True, operations=operations)
        drafted = decoder.generate(prompts, [0], 250, Sampler(0.0), logprobs=True, likely=likely)
        assert drafted.ids == plain.ids
        assert drafted.logprobs[0] == pytest.approx(plain.logprobs[0], abs=1e-3)
        counts = decoder.draft_counts
        # The end of the last draft may lie behind the answer's, and is dropped.
        beyond = counts.passes + counts.accepted + 1 - len(written)
        assert counts.tokens == len(written)
        assert 0 <= beyond <= 7
        assert counts.accepted <= counts.drafted
        if likely == [written]:
            assert counts.passes < len(written) / 3
    several = make(own, None, drafts=True).generate(prompts, [0, 0], 20, Sampler(0.0))
    assert several.ids == [written[:20]] * 2  # side by side without drafts


def test_rows_that_go_on_elsewhere_let_the_cache_that_they_leave_go(
    backend: TransformersBackend, requests_: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "_BLOCK_BYTES", 1)  # a block each layer
    decoder, prompts = make(backend, None), asked(backend, requests_)
    states, alive = [], []
    job = DecodeJob(
        backend.module, [0, 1], 40, Sampler(0.0), None, (), logprobs=False, pad=0, stop_repeats=False, ends=()
    )
    with grouped_attention(backend.module), torch.no_grad():
        begun = decoder._begin(job, prompts, TokenClock())
    blocks = [ref(block) for block in begun._blocks]
    made = torch.Tensor.new_zeros

    def counted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        alive.append(sum(block() is not None for block in blocks))
        return made(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "new_zeros", counted)
    states.append(decoder._compact(job, begun, [1], 30))
    assert len(alive) == len(blocks) > 2
    assert alive[-1] == 1  # and never both caches whole


def test_an_earlier_answer_about_a_picture_is_a_draft_of_the_next(
    backend: TransformersBackend, requests_: list[Request]
) -> None:
    other, first, second = (asked(backend, [requests_[number]]) for number in (0, 1, 2))  # the last two share a picture
    decoder = make(backend, None, drafts=True, keep_prefixes=True)
    passes = []
    for prompts in (first, other, first, second):
        before = decoder.draft_counts.passes
        written = decoder.generate(prompts, [0], 60, Sampler(0.0)).ids
        assert written == make(backend, None).generate(prompts, [0], 60, Sampler(0.0)).ids
        passes.append(decoder.draft_counts.passes - before)
    assert passes[2] < passes[0] / 2
    assert decoder.reader.said[-60:] == written[0]


def test_drafted_answers_end_where_others_do(
    backend: TransformersBackend, requests_: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = asked(backend, requests_[1:2])
    free = make(backend, None).generate(prompts, [0], 60, Sampler(0.0)).ids[0]
    stop = next(token for place, token in enumerate(free) if place > 20 and token not in free[:place])

    def end_after(count: int) -> Any:
        seen: list[int] = []

        def end(tokens: Any) -> int | None:
            seen.extend(tokens)
            return count if len(seen) >= count else None

        return end

    def both(until: Any = (), end_at: int | None = None, **changes: Any) -> list[int]:
        rows = []
        for drafts in (False, True):
            ends = [] if end_at is None else [end_after(end_at)]
            decoder = make(backend, None, drafts=drafts, **changes)
            rows += decoder.generate(prompts, [0], 60, Sampler(0.0), until=until, ends=ends, likely=[free]).ids
        assert rows[0] == rows[1]
        return rows[1]

    assert both() == free
    assert both(stops=[stop]) == free[: free.index(stop) + 1]
    assert both(until=[stop])[-1] == stop
    assert both(end_at=13) == free[:13]
    monkeypatch.setattr(repetition, "LONGEST_BLOCK", 2)
    monkeypatch.setattr(repetition, "REPEATED", 4)
    assert repetition.ends_repeated([9, 7, 8, 7, 8])
    both(stop_repeats=True, pad=2)
