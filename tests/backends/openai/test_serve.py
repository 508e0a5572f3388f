"""A real server: `transformers serve` with egm-tiny answers as the same model in this process."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from egm.backends import GenerationSettings, Request
from egm.backends.base import Backend
from egm.backends.checkpoint import find_checkpoint
from egm.backends.numpy.backend import NumpyBackend
from egm.backends.openai.backend import OpenAIBackend
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.doctor import EngineVerdict, examine_server
from egm.errors import BackendError, EgmError
from egm.grounder import Grounder
from egm.types import Completion

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "three_backends.py"
three = runpy.run_path(str(SCRIPT))
MODEL = str(find_checkpoint("egm-tiny").path)
# The first sample comes to an end. None ends at the limit itself, which the server calls "length", and none is
# cut at a line feed, which its stream holds back.
GREEDY = GenerationSettings(max_new_tokens=210)
CUT = GenerationSettings(max_new_tokens=24)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with three["serve"](MODEL, tmp_path_factory.mktemp("serve")) as url:
        yield url


def requests() -> list[Request]:
    codec, data = get_codec("qwen3_vl"), SynthRef("val")
    samples = [data.samples(number)[0] for number in range(20)]
    return [
        Request(codec.messages(sample.phrase), [sample.image], seed_index=index)  # type: ignore[list-item]
        for index, sample in enumerate(samples)
    ]


def test_twenty_greedy_texts_are_those_of_the_model_in_this_process(url: str) -> None:
    def twenty(backend: Backend) -> list[Completion]:
        asked = requests()
        return [*backend.generate(asked[:1], GREEDY), *backend.generate(asked[1:], CUT)]

    here = twenty(NumpyBackend(find_checkpoint("egm-tiny")))
    with OpenAIBackend(url, MODEL, concurrency=2) as backend:
        there = twenty(backend)
    assert [reply.text for reply in there] == [reply.text for reply in here]
    assert len({reply.text for reply in there}) > 10
    assert {reply.finish_reason for reply in there} == {"stop", "length"}
    for mine, reply in zip(here, there, strict=True):
        assert (reply.finish_reason, reply.prompt_tokens) == (mine.finish_reason, mine.prompt_tokens)
        assert reply.completion_tokens == mine.completion_tokens
        assert reply.first_token_seconds is not None
        assert 0 < reply.first_token_seconds < reply.seconds


def test_the_doctor_raises_no_alarm(url: str) -> None:
    rounds = ("alone", "controls", "whole")
    found = examine_server(url, MODEL, pictures=["224", "tall", "5:1", "tiny"], rounds=rounds, max_new_tokens=40)
    assert (found.diagnosis.verdict, found.diagnosis.findings) == (EngineVerdict.RIGHT, ())


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


def test_whole_replies_are_the_same_texts(url: str) -> None:
    here = NumpyBackend(find_checkpoint("egm-tiny")).generate(requests()[:1], GREEDY)
    with OpenAIBackend(url, MODEL, stream=False) as backend:
        there = backend.generate(requests()[:1], GREEDY)
    assert [(reply.text, reply.finish_reason) for reply in there] == [
        (reply.text, reply.finish_reason) for reply in here
    ]


# ---- benchmarks/three_backends.py


def test_three_backends_give_the_same_accuracy(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = three["Job"]("egm-tiny", "1234", tmp_path, GenerationSettings(max_new_tokens=450), ["val"], scenes=1)
    here = three["load"](job)
    three["answer"](job, 0, here, three["connect"](job, url, here))
    sides = three["collect"]([tmp_path])
    assert three["report"](sides, 0.1)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    count = str(len(SynthRef("val").samples(0)))
    assert [line[:2] for line in lines[1:3]] == [["synthref/val", count], ["all", count]]
    assert all(line[-4:] == ["0", "served,", "0", "replayed"] for line in lines[1:3])
    for line, engine in zip(lines[3:], ("NumpyBackend;", "OpenAIBackend;", "ReplayBackend;"), strict=True):
        assert line[2:5] == [engine, count, "answered,"] or line[2:] == [engine, count, "answered"]
    assert {record.failure for record in sides["here"].records.values()} == {None}

    first = next(iter(sides["served"].records.values()))
    for side, change in (
        ("served", {"iou": 1.0 - round(first.iou)}),
        ("served", {"failure": "error"}),
        ("replayed", {"text": "other"}),
    ):
        other = three["Side"](sides[side].records | {first.key: replace(sides[side].records[first.key], **change)})
        assert not three["report"](sides | {side: other}, 0.1)
    fewer = three["Side"]({first.key: first})  # what one has not answered is compared by none
    capsys.readouterr()
    assert three["report"](sides | {"served": fewer}, 0.1)
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["synthref/val", "1"]


def test_shards_are_the_whole_and_go_on(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--only", "here", "--splits", "val", "--scenes", "3", "--max-tokens", "3"]
    shares = [tmp_path / "a", tmp_path / "b"]
    for number, folder in enumerate(shares, 1):
        for more in ((), ("--minutes", "0")):  # the second run finds all done, and has no time
            share = ("--shard", f"{number}/2", "--folder", str(folder))
            run = subprocess.run([*command, *share, *more], capture_output=True, text=True, check=False)
            assert run.returncode == 0, run.stderr
            assert "transformers serve: nothing; 0 answered" in run.stdout
    found = [three["collect"]([folder])["here"].records for folder in shares]
    assert not found[0].keys() & found[1].keys()
    both = three["collect"](shares)
    assert not three["report"](both, 0.1)  # the server's answers are missing
    assert both["here"].records == found[0] | found[1]
    assert {key[1] for key in both["replayed"].records} == {sample.id for sample in SynthRef("val", scenes=3)}


def test_journals_of_other_settings_are_not_merged(tmp_path: Path) -> None:
    for folder, tokens in (("a", 1), ("b", 2)):
        job = three["Job"]("egm-tiny", "1", tmp_path / folder, GenerationSettings(max_new_tokens=tokens), ["val"], 1)
        three["answer"](job, 0, three["load"](job), None)
    with pytest.raises(EgmError, match="are of other weights or settings"):
        three["collect"]([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(EgmError, match="there are no journals"):
        three["collect"]([tmp_path])


@pytest.mark.parametrize("stream", [True, False])
def test_it_fails_at_stop_strings_and_is_asked_without(url: str, stream: bool) -> None:
    sample = SynthRef("val").samples(0)[0]
    short = GenerationSettings(max_new_tokens=8)
    subject = Grounder.connect(url, MODEL, settings=short, cut_tail=True, stream=stream)
    with subject, pytest.warns(UserWarning, match="fails at stop strings"):
        cut = subject.ground(sample.image, sample.phrase)
    assert (cut.tokens, cut.tail_cut, cut.text[:7]) == (8, False, "1 (416,")
