"""What every backend keeps to, whatever answers behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from egm.backends import Backend, EngineInfo, GenerationSettings, RemoteBackend, ReplayBackend, Request, ScriptedBackend
from egm.backends.checkpoint import find_checkpoint
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.errors import BackendError
from egm.grounder import Grounder
from egm.types import Completion, Grounding, Sample

from .faulty_server import FaultyServer, fail, say

SHORT = GenerationSettings(max_new_tokens=12)
FORCED = "\n</think>\n\n[12"
KINDS = ("scripted", "replay", "numpy", "transformers", "openai", "servers")


def samples() -> list[Sample]:
    data = SynthRef("val")
    return [data.samples(number)[number % 3] for number in range(4)]


def texts() -> dict[str, str]:
    return {
        sample.phrase: f'It is thing {number}\n</think>\n\n[{{"bbox_2d": [0, 0, {100 * number + 100}, 500]}}]'
        for number, sample in enumerate(samples())
    }


@contextmanager
def made(kind: str, folder: Path, *, cut_off: bool = False) -> Iterator[Backend]:
    if kind == "scripted":
        yield ScriptedBackend(texts())
    elif kind == "replay":
        yield ReplayBackend({number: [text] for number, text in enumerate(texts().values())})
    elif kind == "numpy":
        from egm.backends.numpy.backend import NumpyBackend

        yield NumpyBackend(find_checkpoint(folder))
    elif kind == "transformers":
        from egm.backends.transformers import TransformersBackend

        yield TransformersBackend.load(folder, device="cpu")
    else:
        from egm.backends.openai.backend import OpenAIBackend
        from egm.backends.openai.pool import ServerPool

        plays = {phrase: [say(text)] for phrase, text in texts().items()}
        if cut_off:
            plays = {phrase: [say("It is", finish="length"), say(", 1, 2, 3]")] for phrase in texts()}
        with FaultyServer(plays) as server, FaultyServer(plays) as other:
            urls = (server.url, other.url)
            with ServerPool(urls) if kind == "servers" else OpenAIBackend(urls[0], concurrency=2) as backend:
                yield backend


@pytest.fixture(scope="module", params=KINDS)
def backend(request: pytest.FixtureRequest, tiny_folder: Path) -> Iterator[Backend]:
    with made(request.param, tiny_folder) as backend:
        yield backend


def asked(backend: Backend) -> list[Request]:
    codec = get_codec("qwen3_vl")
    return [
        backend.make_request(codec.messages(sample.phrase), sample.image, source=sample.image, seed_index=number)  # type: ignore[arg-type]
        for number, sample in enumerate(samples())
    ]


def test_it_is_one_and_says_what_it_is(backend: Backend) -> None:
    assert isinstance(backend, Backend)
    assert backend.model
    info = backend.describe()
    assert isinstance(info, EngineInfo)
    assert info.name
    assert all(version(package) for package in info.packages)
    assert (info.hardware is None) == isinstance(backend, RemoteBackend)


def test_a_request_shows_its_picture(backend: Backend) -> None:
    for number, (request, sample) in enumerate(zip(asked(backend), samples(), strict=True)):
        request.check()
        assert (list(request.images), request.seed_index, request.vote, request.cut) == (
            [sample.image],
            number,
            0,
            None,
        )


def test_replies_come_in_the_order_of_the_requests(backend: Backend) -> None:
    requests = asked(backend)
    replies = backend.generate(requests, SHORT)
    assert all(isinstance(reply, Completion) for reply in replies)
    alone = [backend.generate([request], SHORT)[0].text for request in requests]
    assert [reply.text for reply in replies] == alone
    assert [reply.text for reply in backend.generate(requests[::-1], SHORT)] == alone[::-1]
    assert len(set(alone)) == 4
    assert backend.generate([], SHORT) == []


@pytest.mark.parametrize("backend", KINDS[:4], indirect=True)  # behind a server it is the server that ends a text
def test_a_text_ends_before_a_stop_string_where_its_request_lets_it(backend: Backend) -> None:
    [whole] = backend.generate(asked(backend)[:1], SHORT)
    stop = whole.text[len(whole.text) // 2 :][:3]
    at, settings = whole.text.index(stop), replace(SHORT, stop=(stop,))
    ended = replace(asked(backend)[0], ends=lambda text: len(text) == at)
    [reply] = backend.generate([ended], settings)
    assert (reply.text, reply.finish_reason, reply.stop_reason) == (whole.text[:at], "stop_string", stop)
    [reply] = backend.generate([replace(ended, ends=lambda _: None)], settings)
    assert (reply.text, reply.finish_reason, reply.stop_reason) == (whole.text, whole.finish_reason, None)


@pytest.mark.parametrize("backend", KINDS[2:], indirect=True)  # the others look at no picture
def test_pictures_and_their_places_must_fit(backend: Backend) -> None:
    with pytest.raises(BackendError, match="have 1 places for pictures, but 0 came"):
        backend.generate([replace(asked(backend)[0], images=())], SHORT)


def test_tokens_are_counted_or_it_says_that_they_are_not(backend: Backend) -> None:
    few, many = backend.count_tokens("the cup"), backend.count_tokens("the cup on the left of the jug")
    assert (few is None and many is None) or (few is not None and many is not None and 0 < few < many)
    assert backend.count_tokens("") in (None, 0)


def test_a_grounder_asks_it(backend: Backend) -> None:
    grounder = Grounder(backend, get_codec("qwen3_vl"), settings=SHORT, batch_size=2)
    results = list(grounder.ground_each(samples()))
    assert all(isinstance(result, Grounding) for result in results)
    assert [result.phrase for result in results if isinstance(result, Grounding)] == [s.phrase for s in samples()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_thinking_budget_is_kept(kind: str, tiny_folder: Path) -> None:
    """What runs out is cut, and what `cut` writes of it stands after it."""
    thoughts: list[str] = []
    with made(kind, tiny_folder, cut_off=True) as backend:
        assert backend.thinking_budgets
        request = replace(asked(backend)[0], cut=lambda text: thoughts.append(text) or FORCED)  # type: ignore[func-returns-value]
        [reply] = backend.generate([request], replace(SHORT, thinking_budget=3))
    assert len(thoughts) == 1
    assert reply.text.startswith(thoughts[0] + FORCED)


@pytest.mark.parametrize("kind", KINDS)
def test_closing_twice_is_closing_once(kind: str, tiny_folder: Path) -> None:
    with made(kind, tiny_folder) as backend, backend as entered:
        assert entered is backend
        backend.close()
        backend.close()


def test_what_a_backend_need_not_say() -> None:
    class Least(Backend):
        model = "least"

        def generate(self, requests: object, settings: GenerationSettings) -> list[Completion]:
            return []

    backend = Least()
    assert (backend.thinking_budgets, backend.batches, backend.count_tokens("x")) == (False, True, None)
    assert (backend.describe().name, backend.describe().packages) == ("Least", ())
    with pytest.raises(TypeError, match="generate"):
        Backend()  # type: ignore[abstract]


# ---- behind a server


def test_the_first_failure_of_a_call_is_raised_and_the_rest_given_up() -> None:
    from egm.backends.openai.backend import OpenAIBackend

    refused = pytest.raises(BackendError, match="too long")
    with FaultyServer({"": [fail(400, "too long")]}) as server, OpenAIBackend(server.url) as backend, refused:
        backend.generate(asked(backend), SHORT)


def test_no_more_is_submitted_than_the_limit() -> None:
    from egm.backends.openai.backend import OpenAIBackend

    taken = 0

    def requests(backend: Backend) -> Iterator[Request]:
        nonlocal taken
        for request in asked(backend) * 10**6:
            taken += 1
            yield request

    with FaultyServer({"": [say("x")]}) as server, OpenAIBackend(server.url, concurrency=2) as backend:
        each = backend.generate_each(requests(backend), SHORT)
        next(each)
        assert taken <= 4
        each.close()  # type: ignore[attr-defined]
        taken = 0
        each = backend.generate_each(requests(backend), SHORT, limit=1)
        for count in range(1, 4):
            next(each)
            assert taken == count
        each.close()  # type: ignore[attr-defined]
