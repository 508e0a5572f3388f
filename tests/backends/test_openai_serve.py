"""A real server: `transformers serve` with egm-tiny answers as the same model in this process."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from egm.backends import GenerationSettings, Request
from egm.backends.checkpoint import find_checkpoint
from egm.backends.numpy_backend import NumpyBackend
from egm.backends.openai_backend import OpenAIBackend
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.errors import BackendError
from egm.grounder import Grounder

three = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "three_backends.py"))
MODEL = str(find_checkpoint("egm-tiny").path)
# Seven samples come to an end. None ends at the limit itself, which the server calls "length", and none is cut at a
# line feed, which its stream holds back.
GREEDY = GenerationSettings(max_new_tokens=210)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("uvicorn", reason="transformers serve needs transformers[serving]")
    pytest.importorskip("fastapi", reason="transformers serve needs transformers[serving]")
    with three["serve"](MODEL, tmp_path_factory.mktemp("serve")) as url:
        yield url


def requests() -> list[Request]:
    codec, data = get_codec("qwen3_vl"), SynthRef("val")
    samples = [data.samples(number)[0] for number in range(20)]
    return [
        Request(codec.messages(sample.phrase), [sample.image], draw=index)  # type: ignore[list-item]
        for index, sample in enumerate(samples)
    ]


def test_twenty_greedy_texts_are_those_of_the_model_in_this_process(url: str) -> None:
    here = NumpyBackend(find_checkpoint("egm-tiny")).generate(requests(), GREEDY)
    with OpenAIBackend(url, MODEL, concurrency=2) as backend:
        there = backend.generate(requests(), GREEDY)
    assert [reply.text for reply in there] == [reply.text for reply in here]
    assert len({reply.text for reply in there}) > 10
    assert {reply.finish_reason for reply in there} == {"stop", "length"}
    for mine, reply in zip(here, there, strict=True):
        assert (reply.finish_reason, reply.prompt_tokens) == (mine.finish_reason, mine.prompt_tokens)
        assert reply.completion_tokens == mine.completion_tokens
        assert reply.first_token_seconds is not None
        assert 0 < reply.first_token_seconds < reply.seconds


def test_texts_that_are_cut_off(url: str) -> None:
    short = replace(GREEDY, max_new_tokens=12)
    here = NumpyBackend(find_checkpoint("egm-tiny")).generate(requests()[:2], short)
    with OpenAIBackend(url, MODEL) as backend:
        there = backend.generate(requests()[:2], short)
    assert [reply.finish_reason for reply in there] == ["length", "length"]
    assert [reply.text for reply in there] == [reply.text for reply in here]


def test_grounding_and_a_refusal(url: str) -> None:
    sample = SynthRef("val").samples(0)[0]
    grounding = Grounder.connect(url, MODEL).ground(sample.image, sample.phrase)
    here = Grounder.load().ground(sample.image, sample.phrase)
    assert grounding == replace(here, seconds=grounding.seconds, logprob=None, answer_logprob=None)
    with pytest.raises(BackendError, match=r"HTTP 422: .*top_k"):
        OpenAIBackend(url, MODEL).generate(requests()[:1], GenerationSettings(temperature=1.0, top_k=5))


def test_three_backends_give_the_same_accuracy(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splits = {f"synthref/{name}": SynthRef(name).samples(2)[:1] for name in three["SPLITS"]}
    found = three["run"]("egm-tiny", url, splits, GenerationSettings(max_new_tokens=450), tmp_path)
    assert three["report"](found, 0.1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(splits)
    assert all(line.endswith("0 served, 0 replayed") for line in lines[1:])
    assert {record.failure for record in found[0]} == {None}
    first = found[1][0]
    for change in ({"iou": 1.0 - round(first.iou)}, {"failure": "error"}):
        assert not three["report"]([found[0], [replace(first, **change), *found[1][1:]], found[2]], 0.1)
    assert not three["report"]([*found[:2], [replace(found[2][0], text="other"), *found[2][1:]]], 0.1)
