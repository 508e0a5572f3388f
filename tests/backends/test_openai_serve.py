"""A real server: `transformers serve` with egm-tiny answers as the same model in this process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sysconfig
import urllib.request
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

MODEL = str(find_checkpoint("egm-tiny").path)
GREEDY = GenerationSettings(max_new_tokens=100)  # enough for every third sample to come to an end


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("uvicorn", reason="transformers serve needs transformers[serving]")
    pytest.importorskip("fastapi", reason="transformers serve needs transformers[serving]")
    program = shutil.which("transformers", path=sysconfig.get_path("scripts"))
    assert program is not None
    home = tmp_path_factory.mktemp("serve")
    (home / "hub").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    plain = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [program, "serve", MODEL, "--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1"]
    with (home / "log").open("wb") as log:
        child = subprocess.Popen(
            [*command, "--port", str(port)], env={**os.environ, **plain}, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", child, home / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        child.terminate()
        child.wait(timeout=30)


def wait_for(health: str, child: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(600):
        try:
            with opener.open(health, timeout=5):
                return
        except OSError:
            try:
                child.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                continue
    pytest.fail(f"transformers serve did not start: {log.read_text(errors='replace')[-2000:]}")


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
