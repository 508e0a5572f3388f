"""Reading on a GPU: recordings give what eager calls give, for whatever picture and text, and nobody waits for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from egm.models import build_model, enable_fast_path
from egm.models.decode.cache import grouped_attention
from egm.models.decode.graphs import RecordedCalls
from egm.models.decode.prefill import PromptReader, ReadPrompts
from egm.models.decode.prefixes import PictureSource
from egm.models.decode.prompt_batch import PromptBatch
from egm.models.tiny.vocabulary import token_id

pytestmark = pytest.mark.gpu
GRID = (1, 8, 12)


@pytest.fixture(scope="module")
def model() -> Any:
    return enable_fast_path(build_model("tiny-s").eval().cuda())


def prompts_of(config: Any, seed: int, words: tuple[int, ...] = (9, 30)) -> PromptBatch:
    """Ask random questions about one random picture."""
    draw = torch.Generator().manual_seed(seed)
    visual = [config.image_token_id] * (GRID[1] * GRID[2] // 4)
    begin, end = token_id("<|vision_start|>"), token_id("<|vision_end|>")
    ids = [[begin, *visual, end, *torch.randint(282, 600, (count,), generator=draw).tolist()] for count in words]
    pixels = torch.randn(GRID[1] * GRID[2], 1536, generator=torch.Generator().manual_seed(seed)).cuda()
    source = PictureSource(Image.new("RGB", (192, 128), (seed, 0, 0)))
    return PromptBatch(ids, [0] * len(ids), pixels, [GRID], sources=(source,))


def read(reader: PromptReader, model: Any, prompts: PromptBatch) -> ReadPrompts:
    with torch.no_grad(), grouped_attention(model):
        return reader.read(model, prompts)


def test_recordings_give_what_eager_calls_give(model: Any) -> None:
    eager, recorded = (PromptReader(torch.device("cuda"), 0, graphs=graphs) for graphs in (False, True))
    for seed, words in enumerate([(9, 30), (9, 30), (20, 7), (31, 12), (9,), (8,), (7,)]):
        prompts = prompts_of(model.config, seed, words)
        ours, expected = read(recorded, model, prompts), read(eager, model, prompts)
        torch.testing.assert_close(ours.scores, expected.scores, atol=1e-4, rtol=1e-4)
        for mine, theirs in ((ours.cache.keys, expected.cache.keys), (ours.cache.values, expected.cache.values)):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
        assert torch.equal(ours.start, expected.start)
    assert (recorded.towers.eager, recorded.towers.recorded, recorded.towers.replayed) == (1, 1, 6)
    assert (recorded.readings.eager, recorded.readings.recorded, recorded.readings.replayed) == (2, 2, 9)
    assert eager.towers.recorded == eager.readings.recorded == 0


def test_what_was_read_of_a_picture_serves_further_questions(model: Any) -> None:
    eager = PromptReader(torch.device("cuda"), 0, graphs=False)
    keeping = PromptReader(torch.device("cuda"), 0, graphs=True, prefix_bytes=2**28)
    for seed, words in [(0, (9,)), (1, (9,)), (0, (7,)), (0, (8,)), (1, (5,)), (2, (5,)), (0, (4, 3)), (2, (6,))]:
        prompts = prompts_of(model.config, seed, words)
        ours, expected = read(keeping, model, prompts), read(eager, model, prompts)
        torch.testing.assert_close(ours.scores, expected.scores, atol=1e-3, rtol=1e-3)
        keeping.keep_prefixes()
    assert (keeping.prefixes.hits, keeping.prefixes.misses) == (5, 3)
    assert keeping.towers.replayed == 2


def test_the_host_never_waits_for_what_is_read(model: Any) -> None:
    reader, prompts = PromptReader(torch.device("cuda"), 0, graphs=True), prompts_of(model.config, 0)
    other = prompts_of(model.config, 1)
    for _ in range(2):
        read(reader, model, prompts)
    torch.cuda.set_sync_debug_mode("error")
    try:
        read(reader, model, other)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_key_used_more_often_takes_the_place_of_the_one_used_least() -> None:
    calls = RecordedCalls(torch.device("cuda"), 1, "doubling goes on")

    def double(size: int) -> list[float]:
        x = torch.full((size,), 3.0, device="cuda")
        return calls(size, lambda x: (2 * x,), [x])[0].tolist()

    for size in (1, 1, 2, 2, 2, 2, 1):  # 1 is recorded at its second use, and 2 not while it is rarer than twice that
        assert double(size) == [6.0] * size
    assert (calls.recorded, calls.replayed, calls.eager) == (1, 2, 5)
    for _ in range(3):
        assert double(2) == [6.0] * 2
    assert (calls.recorded, calls.replayed) == (2, 3)


def test_what_cannot_be_recorded_goes_on_with_one_warning() -> None:
    calls = RecordedCalls(torch.device("cuda"), 4, "counting goes on")

    def double(x: torch.Tensor) -> tuple[torch.Tensor]:
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError("it waits for the device")
        return (2 * x,)

    def call() -> float:
        return calls("double", double, [torch.ones(1, device="cuda")])[0].item()

    assert call() == 2.0
    with pytest.warns(UserWarning, match="counting goes on without CUDA graphs: it waits for the device"):
        assert call() == 2.0
    assert call() == 2.0
    assert (calls.recorded, calls.eager) == (0, 3)
