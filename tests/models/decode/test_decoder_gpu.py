"""Decoding on a GPU: steps replayed as CUDA graphs write what eager steps write."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.models import build_model, build_processor, enable_fast_path
from egm.models.decode import decoder as module
from egm.models.decode import repetition
from egm.models.decode.decoder import BatchDecoder
from egm.models.decode.prompt_batch import PromptBatch, make_prompts
from egm.models.decode.sampling import Sampler, uniforms

pytestmark = pytest.mark.gpu

SAMPLERS = [Sampler(0.0), Sampler(0.9), Sampler(0.9, 0.95, 50)]


@pytest.fixture(scope="module")
def model() -> Any:
    """A lively model in float32, so that the order of sums decides no token."""
    model = build_model("tiny-s").eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim >= 2:
                weight.mul_(4)
    return enable_fast_path(model.cuda())


@pytest.fixture(scope="module")
def exact(model: Any) -> Any:
    """The same in float64: a draw may lie on the edge of two tokens, where float32 sums of another order part."""
    return copy.deepcopy(model).double()


@pytest.fixture(scope="module")
def prompts() -> PromptBatch:
    processor, codec = build_processor(), get_codec("qwen3_vl")
    scenes = [SynthRef("val").samples(number) for number in range(6)]
    samples = [sample for scene in scenes for sample in scene[:2]]
    texts = [
        processor.apply_chat_template(codec.messages(sample.phrase), tokenize=False, add_generation_prompt=True)
        for sample in samples
    ]
    return make_prompts(processor, texts, [number // 2 for number in range(12)], [scene[0].image for scene in scenes])


def make(model: Any, *, graphs: bool, max_rows: int | None = None, stops: Any = (2,)) -> BatchDecoder:
    return BatchDecoder(model, dtype=None, stops=stops, pad=0, banned=[12, 13], max_rows=max_rows, graphs=graphs)


def test_kernels_compute_the_steps(model: Any, prompts: PromptBatch) -> None:
    for rows in (1, 3, None):  # as vectors, and as a matrix
        options: dict[str, Any] = {"dtype": None, "stops": [], "pad": 0, "banned": [12, 13], "graphs": True}
        decoder, layers = (
            BatchDecoder(model, max_rows=rows, kernels=on, fast_prompts=on, **options) for on in (True, False)
        )
        ours, theirs = (each.generate(prompts, range(6), 60, Sampler(0.0), logprobs=True) for each in (decoder, layers))
        assert decoder._fused is not None
        assert layers._fused is None
        assert ours.ids == theirs.ids
        assert [sum(row) for row in ours.logprobs] == pytest.approx([sum(row) for row in theirs.logprobs], abs=1e-2)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("ahead", [1, 512])
def test_graphs_write_what_eager_steps_write(
    exact: Any, prompts: PromptBatch, sampler: Sampler, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_INITIAL_TOKENS", ahead)  # with 1 the states grow on the way
    which = [*range(12), 0, 0, 5]  # 15 of 16 rows
    numbers = None if sampler.greedy else uniforms(range(15), 150)
    eager = make(exact, graphs=False).generate(prompts, which, 150, sampler, numbers, logprobs=True)
    replayed = make(exact, graphs=True)
    for _ in range(2):  # recorded, then replayed from the start, on what the first left behind
        graphs = replayed.generate(prompts, which, 150, sampler, numbers, logprobs=True)
        assert graphs.ids == eager.ids
        assert [sum(row) for row in graphs.logprobs] == pytest.approx([sum(row) for row in eager.logprobs], abs=1e-2)
    alone = make(exact, graphs=True, max_rows=1).generate(prompts, which, 150, sampler, numbers)
    assert alone.ids == eager.ids


@pytest.mark.parametrize(("ahead", "few"), [(1, 128), (512, 1)])
def test_rows_end_one_by_one(
    exact: Any, prompts: PromptBatch, ahead: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_INITIAL_TOKENS", ahead)  # with 1 the states grow on the way
    monkeypatch.setattr(module, "_LAUNCH_BOUND_ROWS", few)  # with 1 they shrink
    numbers = uniforms(range(12), 200)
    free = make(exact, graphs=True).generate(prompts, range(12), 200, Sampler(0.9), numbers)
    stops = sorted({ids[min(10 + 15 * row, len(ids) - 1)] for row, ids in enumerate(free.ids)})[:2]
    eager, graphs = (
        make(exact, graphs=on, stops=stops).generate(prompts, range(12), 200, Sampler(0.9), numbers)
        for on in (False, True)
    )
    assert graphs.ids == eager.ids
    assert len({len(ids) for ids in graphs.ids}) > 2
    order = sorted(range(12), key=lambda row: len(graphs.ids[row]))
    assert [graphs.times[row] for row in order] == sorted(graphs.times)


def test_the_memory_of_graphs_can_be_had_back(model: Any, prompts: PromptBatch) -> None:
    decoder = make(model, graphs=True)
    decoder.generate(prompts, range(12), 40, Sampler(0.0))
    caches = [tensor for state in decoder._states.values() for tensor in (*state.cache.keys, *state.cache.values)]
    size, held = sum(tensor.nbytes for tensor in caches), torch.cuda.memory_allocated()
    assert size > 0
    del caches
    decoder.release_graphs()
    assert torch.cuda.memory_allocated() <= held - size


def test_graphs_stop_what_repeats_itself(model: Any, prompts: PromptBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repetition, "LONGEST_BLOCK", 8)
    monkeypatch.setattr(repetition, "REPEATED", 12)
    options: dict[str, Any] = {"dtype": None, "stops": (2,), "pad": 2, "banned": [12, 13], "max_rows": None}
    eager, replayed = (BatchDecoder(model, graphs=graphs, stop_repeats=True, **options) for graphs in (False, True))
    expected = eager.generate(prompts, range(12), 64, Sampler(0.0)).ids
    assert len({len(row) for row in expected}) > 1
    for _ in range(2):  # recorded, then replayed on what the first left behind
        assert replayed.generate(prompts, range(12), 64, Sampler(0.0)).ids == expected


@pytest.mark.parametrize("kernels", [True, False])
def test_drafts_write_what_single_steps_write(
    model: Any, prompts: PromptBatch, kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_INITIAL_TOKENS", 1)  # so that the cache grows on the way
    options: dict[str, Any] = {"dtype": None, "stops": (), "pad": 0, "banned": [12, 13], "max_rows": None}
    plain = BatchDecoder(model, graphs=False, kernels=False, **options)
    drafting = BatchDecoder(model, graphs=True, kernels=kernels, fast_prompts=kernels, drafts=True, **options)
    for row in (0, 3):
        expected = plain.generate(prompts, [row], 120, Sampler(0.0), logprobs=True)
        wrong = [*expected.ids[0][:30], 5, 6, 7, *expected.ids[0][40:]]
        for likely in ([], expected.ids, [wrong]):
            ours = drafting.generate(prompts, [row], 120, Sampler(0.0), logprobs=True, likely=likely)
            assert ours.ids == expected.ids
            assert ours.logprobs[0] == pytest.approx(expected.logprobs[0], abs=1e-2)
    counts = drafting.draft_counts
    assert counts.tokens == 6 * 120 == counts.passes + counts.accepted + 6
    assert counts.accepted > 300
    assert (drafting._fused is not None) is kernels
