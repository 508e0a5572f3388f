"""A generation that repeats itself is stopped as such, by every engine in this process alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from egm.backends import GenerationSettings, Request
from egm.backends.checkpoint import find_checkpoint
from egm.backends.numpy.backend import NumpyBackend
from egm.backends.tokens import finished
from egm.backends.transformers import TransformersBackend
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.models.decode import repetition
from egm.models.decode.repetition import LONGEST_BLOCK, REPEATED, ends_repeated
from egm.types import Completion, Failure

SETTINGS = GenerationSettings(max_new_tokens=32)


@pytest.mark.parametrize("block", [1, 2, 7, LONGEST_BLOCK])
def test_a_block_over_and_over_is_a_repetition_to_the_token(block: int) -> None:
    row = [*range(100, 400), *(token % block for token in range(REPEATED))]
    assert ends_repeated(row)
    assert not any(ends_repeated(row[:count]) for count in range(len(row)))
    assert finished(row, [2000]) == (row, "repeated")
    assert finished([*row, 2000], [2000]) == (row, "stop")  # it ended by itself
    other = list(row)
    other[-REPEATED // 2] = 99
    assert not ends_repeated(other)


def test_a_longer_block_is_none() -> None:
    assert not ends_repeated([token % (LONGEST_BLOCK + 1) for token in range(4 * REPEATED)])


@pytest.fixture
def easily_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits by which some texts of a random model repeat themselves soon, and others never."""
    monkeypatch.setattr(repetition, "LONGEST_BLOCK", 8)
    monkeypatch.setattr(repetition, "REPEATED", 12)


@pytest.fixture(scope="module", params=["numpy", "own decoder", "generate"])
def engine(request: pytest.FixtureRequest, tiny_folder: Path) -> NumpyBackend | TransformersBackend:
    if request.param == "numpy":
        return NumpyBackend(find_checkpoint(tiny_folder))
    return TransformersBackend.load(tiny_folder, device="cpu", fast=request.param == "own decoder")


@pytest.fixture(scope="module")
def asked() -> list[Request]:
    codec, samples = get_codec("qwen3_vl"), SynthRef("val").samples(0)
    return [Request(codec.messages(sample.phrase), [sample.image]) for sample in samples]  # type: ignore[list-item]


@pytest.fixture(scope="module")
def unstopped(tiny_folder: Path, asked: list[Request]) -> list[Completion]:
    return NumpyBackend(find_checkpoint(tiny_folder)).generate(asked, SETTINGS)


@pytest.mark.usefixtures("easily_stopped")
def test_an_engine_stops_what_repeats_itself_and_nothing_else(
    engine: NumpyBackend | TransformersBackend, asked: list[Request], unstopped: list[Completion]
) -> None:
    replies = engine.generate(asked, SETTINGS)
    assert {reply.finish_reason for reply in replies} == {"repeated", "length"}
    for reply, free in zip(replies, unstopped, strict=True):
        if reply.finish_reason == "length":  # its neighbours stopped, and it went on
            assert (reply.text, reply.completion_tokens) == (free.text, free.completion_tokens)
        else:
            assert free.text.startswith(reply.text)
            assert reply.completion_tokens is not None
            assert reply.completion_tokens < SETTINGS.max_new_tokens
    repeated = next(index for index, reply in enumerate(replies) if reply.finish_reason == "repeated")
    count = replies[repeated].completion_tokens
    assert count is not None
    before = engine.generate([asked[repeated]], replace(SETTINGS, max_new_tokens=count - 1))[0]
    assert before.finish_reason == "length"  # at the first token that makes it a repetition


@pytest.mark.usefixtures("easily_stopped")
def test_a_thinking_budget_runs_out_first(
    engine: NumpyBackend | TransformersBackend, asked: list[Request], unstopped: list[Completion]
) -> None:
    bound = replace(SETTINGS, thinking_budget=SETTINGS.max_new_tokens - 2)
    cuts: list[str] = []

    def cut(text: str) -> str:
        cuts.append(text)
        return "</think>"

    engine.generate([replace(request, cut=cut) for request in asked], bound)
    assert len(cuts) == len(asked)
    assert all(free.text.startswith(text) for text, free in zip(cuts, unstopped, strict=True))


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("1 (0,0,2,2) large star; " * 40, Failure.REPEATED),
        ('</think> [{"bbox_2d": [1, 2, 3' + ", 3" * 90, Failure.REPEATED),
        ("</think> the cup " * 40, Failure.REPEATED),
        ("</think> " + '[{"bbox_2d": [9, 9, 9, 9]}, ' * 40, Failure.DEGENERATE),
        ("</think> " + '{"bbox_2d": [100, 100, 200, 200]}, ' * 40, None),
    ],
)
def test_a_repeated_text_is_read_as_one_cut_off(text: str, failure: Failure | None) -> None:
    codec = get_codec("qwen3_vl")
    grounding = codec.parse(text, size=(1000, 1000), finish_reason="repeated")
    assert grounding.failure == failure
    cut = codec.parse(text, size=(1000, 1000), finish_reason="length")
    assert (cut.box, cut.failure) == (grounding.box, Failure.TRUNCATED if failure is Failure.REPEATED else failure)


def test_rationales_and_answers_of_synthref_never_repeat_themselves() -> None:
    from egm.models import build_processor

    tokenizer, codec = build_processor().tokenizer, get_codec("qwen3_vl")
    for style in ("candidates", "inventory", "unboxed"):
        data = SynthRef("val", scenes=20, rationale=style)  # type: ignore[arg-type]
        for sample in (sample for number in range(20) for sample in data.samples(number)[:1]):
            assert sample.box is not None
            assert sample.size is not None
            text = codec.target(sample.phrase, sample.box, size=sample.size, rationale=sample.rationale)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert not any(ends_repeated(ids[:count]) for count in range(REPEATED, len(ids) + 1))
