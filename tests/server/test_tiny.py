"""egm-tiny behind the server answers as in process: greedy, sampled, within a budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import openai
import pytest
from PIL import ExifTags, Image

from egm.backends import GenerationSettings, Request
from egm.backends.numpy.backend import NumpyBackend
from egm.backends.openai.backend import OpenAIBackend
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.grounder import Grounder
from egm.thinking import Gate, gate_subject
from egm.types import Sample

from .serving import ask, data_url, served


class Recording(NumpyBackend):
    """egm-tiny, which keeps what it answered."""

    tokens: list[int]

    def generate(self, requests: Any, settings: GenerationSettings) -> Any:
        replies = super().generate(requests, settings)
        self.tokens = [*self.__dict__.get("tokens", []), *[reply.completion_tokens for reply in replies]]
        return replies


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [SynthRef("val").samples(number)[0] for number in range(2)]


@pytest.fixture(scope="module")
def url(tiny: NumpyBackend) -> Any:
    with served(tiny) as (place, _):
        yield f"http://{place}"


def requests(samples: list[Sample]) -> list[Request]:
    codec = get_codec("qwen3_vl")
    return [Request(codec.messages(own.phrase), [own.image], seed_index=n) for n, own in enumerate(samples)]  # type: ignore[list-item]


@pytest.mark.parametrize("stream", [True, False])
def test_greedy_answers_are_those_in_process(url: str, tiny: NumpyBackend, samples: list[Sample], stream: bool) -> None:
    settings = GenerationSettings(max_new_tokens=16)
    here = tiny.generate(requests(samples), settings)
    with OpenAIBackend(url, stream=stream) as backend:
        there = backend.generate(requests(samples), settings)
        assert backend.model == "egm-tiny"
    for mine, reply in zip(here, there, strict=True):
        assert (reply.text, reply.finish_reason) == (mine.text, mine.finish_reason)
        assert (reply.prompt_tokens, reply.completion_tokens) == (mine.prompt_tokens, mine.completion_tokens)


def test_a_thinking_budget_is_kept(url: str, samples: list[Sample]) -> None:
    """The client cuts the reasoning, begins the answer, and has the server go on and bar what would close it again."""
    settings = GenerationSettings(max_new_tokens=60, thinking_budget=12)
    here = Grounder.load("egm-tiny", settings=settings).ground(samples[0].image, samples[0].phrase)
    there = Grounder.connect(url, settings=settings).ground(samples[0].image, samples[0].phrase)
    assert there.text == here.text
    assert there.text.count("</think>") == 1


@pytest.mark.parametrize("stream", [True, False])
def test_log_probabilities_are_those_in_process(
    url: str, tiny: NumpyBackend, samples: list[Sample], stream: bool
) -> None:
    settings = GenerationSettings(max_new_tokens=24)
    asked = [replace(own, token_logprobs=True) for own in requests(samples)]
    here = tiny.generate(asked, settings)
    with OpenAIBackend(url, stream=stream) as backend:
        there, untold = backend.generate(asked, settings), backend.generate(requests(samples), settings)
    for mine, reply in zip(here, there, strict=True):
        assert [end for end, _ in reply.token_logprobs] == [end for end, _ in mine.token_logprobs]
        values = [value for _, value in mine.token_logprobs]
        assert [value for _, value in reply.token_logprobs] == pytest.approx(values, abs=1e-5)
        assert reply.logprob == pytest.approx(mine.logprob, abs=1e-5)
    assert not any(reply.token_logprobs for reply in untold)


def test_a_gate_decides_behind_the_server_too(url: str, samples: list[Sample]) -> None:
    """The server begins the answer as the chat template writes it, and says how sure it is."""
    settings = GenerationSettings(max_new_tokens=12, think="auto")
    subject = gate_subject("egm-tiny", get_codec("qwen3_vl"), None, settings)
    with Grounder.connect(url, settings=settings, gate=Gate("least", -99.0, **subject)) as grounder:
        results = grounder.ground_many([(own.image, own.phrase) for own in samples])
    assert all(result.thought is (result.certainty is None) for result in results)
    assert all(result.text.startswith("</think>") for result in results if not result.thought)


def test_a_token_that_is_barred(url: str) -> None:
    place = url.removeprefix("http://")
    token = ask(place, "/tokenize", {"model": "egm-tiny", "prompt": "</think>", "add_special_tokens": False})[2]
    assert (token["count"], token["max_model_len"]) == (1, 4096)
    begun = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "So.\n</think>\n\nSo."}]
    fields = {"model": "egm-tiny", "messages": begun, "temperature": 0, "max_tokens": 3}
    fields |= {"continue_final_message": True, "add_generation_prompt": False}
    texts = []
    for bias in (None, {str(token["tokens"][0]): -100}):
        answer = ask(place, "/v1/chat/completions", {**fields, "logit_bias": bias})[2]
        texts.append(answer["choices"][0]["message"]["content"])
    assert "</think>" not in texts[1]


def test_the_same_seed_gives_the_same_text(url: str, samples: list[Sample]) -> None:
    client = openai.Client(base_url=f"{url}/v1", api_key="EMPTY")
    part = {"type": "image_url", "image_url": {"url": data_url(samples[0].image)}}  # type: ignore[arg-type]
    messages: Any = [{"role": "user", "content": [part, {"type": "text", "text": "Where is it?"}]}]
    fields: Any = {"model": "egm-tiny", "messages": messages, "temperature": 3.0, "top_p": 0.99, "max_tokens": 8}
    whole = [client.chat.completions.create(**fields, seed=seed) for seed in (1, 1, 2)]
    one, same, other = (answer.choices[0].message.content for answer in whole)
    assert one == same != other
    stream = client.chat.completions.create(**fields, seed=1, stream=True)
    pieces = [piece.choices[0].delta.content or "" for piece in stream]
    assert "".join(pieces) == one
    assert len(pieces) > 5
    assert client.models.list().data[0].owned_by == "egm"
    client.close()


def test_answers_end_behind_their_box_as_in_process(url: str, tiny: NumpyBackend, samples: list[Sample]) -> None:
    settings = GenerationSettings(max_new_tokens=640)
    own = Grounder(tiny, get_codec("qwen3_vl"), settings=settings, cut_tail=True)
    with Grounder.connect(url, codec="qwen3_vl", settings=settings, cut_tail=True) as there:
        results = [[subject.ground(one.image, one.phrase) for one in samples] for subject in (own, there)]
    facts = [[(one.text, one.box, one.tokens, one.tail_cut) for one in row] for row in results]
    assert facts[0] == facts[1]
    assert all(one.tail_cut and one.box for one in results[0])


def test_a_picture_is_seen_upright_whatever_its_format(url: str, tiny: NumpyBackend, samples: list[Sample]) -> None:
    place = url.removeprefix("http://")
    image = samples[0].image
    assert isinstance(image, Image.Image)
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    stored = image.transpose(Image.Transpose.ROTATE_90)
    urls = [data_url(image), data_url(image, "WEBP", lossless=True), data_url(stored, "PNG", exif=turned)]
    seen = set()
    for own in urls:
        part = {"type": "image_url", "image_url": {"url": own}}
        body = {
            "model": "egm-tiny",
            "messages": [{"role": "user", "content": [part]}],
            "temperature": 0,
            "max_tokens": 8,
        }
        status, _, answer = ask(place, "/v1/chat/completions", body)
        assert status == 200
        seen.add((answer["choices"][0]["message"]["content"], answer["usage"]["prompt_tokens"]))
    assert len(seen) == 1


def test_two_pictures_and_control_tokens_are_refused(url: str, samples: list[Sample]) -> None:
    place = url.removeprefix("http://")
    part = {"type": "image_url", "image_url": {"url": data_url(samples[0].image)}}  # type: ignore[arg-type]
    for content, said in (([part, part], "takes one picture a request"), ("<|image_pad|>", "holds control tokens")):
        body = {"model": "egm-tiny", "messages": [{"role": "user", "content": content}]}
        status, _, answer = ask(place, "/v1/chat/completions", body)
        assert status == 400
        assert said in answer["error"]["message"]


def test_the_model_stops_writing_for_a_stream_that_is_cancelled(samples: list[Sample], tiny: NumpyBackend) -> None:
    from egm.backends.checkpoint import find_checkpoint

    backend = Recording(find_checkpoint("egm-tiny"))
    with served(backend) as (place, _), openai.Client(base_url=f"http://{place}/v1", api_key="EMPTY") as client:
        fields: Any = {"model": "egm-tiny", "messages": [{"role": "user", "content": "Locate the red cross."}]}
        fields |= {"temperature": 0, "max_tokens": 4000, "extra_body": {"logit_bias": {"2": -100}}}
        with client.chat.completions.create(**fields, stream=True) as stream:
            for number, _ in enumerate(stream):
                if number == 4:
                    break
        short = requests(samples)[:1]
        with OpenAIBackend(f"http://{place}") as after:
            after.generate(short, GenerationSettings(max_new_tokens=1))
    [cancelled, last] = backend.tokens
    [whole] = tiny.generate([replace(short[0])], GenerationSettings(max_new_tokens=1))
    assert last == whole.completion_tokens == 1
    assert 4 <= cancelled < 3000
