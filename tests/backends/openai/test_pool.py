"""One model behind several servers: how pictures are spread, and what becomes of a server that is gone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from PIL import Image

from egm.backends import GenerationSettings, Request
from egm.backends.openai.pool import ServerPool
from egm.backends.retry import RetryPolicy
from egm.codecs import get_codec
from egm.errors import BackendError, EgmError, ModelError
from egm.grounder import Grounder
from egm.types import Grounding

from ..faulty_server import FaultyServer, Play, fail, say

GREEDY = GenerationSettings(max_new_tokens=50)
QUICK = RetryPolicy(retries=2, backoff=0.01)
NOWHERE = "http://127.0.0.1:9"  # where nobody listens


def ask(phrase: str, picture: Image.Image) -> Request:
    return Request(get_codec("qwen3_vl").messages(phrase), [picture])


def pictures(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (64, 32), (number, 0, 0)) for number in range(count)]


@contextmanager
def servers(*plays: Play, models: tuple[str, ...] = ("tiny",)) -> Iterator[list[FaultyServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(FaultyServer({"": [play]}, models=models)) for play in plays]


def pool(those: list[FaultyServer], *more: str, **options: object) -> ServerPool:
    return ServerPool([*(server.url for server in those), *more], **{"retry": QUICK, **options})  # type: ignore[arg-type]


def shown(server: FaultyServer) -> set[bytes]:
    return {picture.tobytes() for _, picture in server.pictures()}


def restart(server: FaultyServer, **options: object) -> FaultyServer:
    """Another server at the place of one that has ended."""
    port = int(server.url.rpartition(":")[2])
    return FaultyServer({"": [say("again")]}, port=port, **options)  # type: ignore[arg-type]


def wait_for(caplog: pytest.LogCaptureFixture, words: str, backend: ServerPool) -> None:
    """Ask on until the log says something."""
    for _ in range(10_000):
        if words in caplog.text:
            return
        backend.generate([ask("x", pictures(1)[0])], GREEDY)
    raise AssertionError(caplog.text)


def test_all_questions_about_a_picture_go_to_one_server_and_all_servers_are_asked() -> None:
    those = pictures(9)
    requests = [ask(f"{n}", picture.copy()) for n in range(4) for picture in those]  # loaded anew each time
    with servers(say("a"), say("a"), say("a")) as found, pool(found, concurrency=6) as backend:
        assert {reply.text for reply in backend.generate(requests, GREEDY)} == {"a"}
        assert (backend.model, backend.concurrency) == ("tiny", 6)
        seen = [shown(server) for server in found]
        assert all(seen)
        assert sum(map(len, seen)) == len(set.union(*seen)) == len(those)
        assert sum(len(server.asked) for server in found) == len(requests)
        assert all(server.busiest <= 2 for server in found)  # its share of the connections


@pytest.mark.parametrize("concurrency", [1, 3])
def test_all_servers_together_are_asked_no_more_than_the_concurrency_at_once(
    concurrency: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_too_many = threading.Barrier(concurrency + 1, action=lambda: met_at.append(concurrency + 1))
    met_at: list[int] = []
    play = FaultyServer.next

    def met(server: FaultyServer, query: dict[str, Any], headers: dict[str, str]) -> Play:
        with suppress(threading.BrokenBarrierError):  # for the first of them in a second, for all others at once
            one_too_many.wait(timeout=1)
        return play(server, query, headers)

    monkeypatch.setattr(FaultyServer, "next", met)
    with servers(say("a"), say("a")) as found, pool(found, concurrency=concurrency) as backend:
        assert len(backend.generate([ask("x", picture) for picture in pictures(6)], GREEDY)) == 6
        assert all(server.asked for server in found)
    assert one_too_many.broken
    assert not met_at


def test_a_grounder_connects_to_several() -> None:
    answer = '</think> [{"bbox_2d": [0, 0, 500, 500]}]'
    with servers(say(answer), say(answer)) as found, Grounder.connect([s.url for s in found], retry=QUICK) as grounder:
        results = list(grounder.ground_each((picture, "it") for picture in pictures(6)))
        assert all(isinstance(result, Grounding) and result.box is not None for result in results)
        assert all(server.asked for server in found)


def test_a_server_that_is_gone_is_left_out_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    one, other = FaultyServer({"": [say("one")]}), FaultyServer({"": [say("other")]})
    requests = [ask(str(n), picture) for n, picture in enumerate(pictures(8))]
    with one, pool([one, other]) as backend:
        assert {reply.text for reply in backend.generate(requests, GREEDY)} == {"one", "other"}
        for number in range(2):
            other.vanish()
            caplog.clear()
            assert {reply.text for reply in backend.generate(requests, GREEDY)} == {"one"}  # also about its pictures
            assert caplog.text.count("left out") == 1
            assert f"{other.url}/v1 is left out until it answers, 1 of 2 servers go on: the connection " in caplog.text
            other = restart(other)
            wait_for(caplog, f"{other.url}/v1 answers again, and is asked again", backend)
            news = [fresh(8 * number + k) for k in range(8)]
            requests = [*requests, *news]
            assert "again" in {reply.text for reply in backend.generate(news, GREEDY)}
        other.vanish()


def fresh(number: int) -> Request:
    """A question about a picture that was never shown."""
    return ask("new", Image.new("RGB", (64, 32), (0, number, 255)))


def test_one_that_is_gone_at_the_start_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with servers(say("a")) as found, pool(found, NOWHERE) as backend:
        assert {reply.text for reply in backend.generate([*map(fresh, range(4))], GREEDY)} == {"a"}
        assert f"{NOWHERE}/v1 is left out until it answers, 1 of 2 servers go on: the connection failed" in caplog.text


def test_a_server_that_fails_where_another_answers_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with servers(fail(500, "engine died"), say("a")) as found, pool(found) as backend:
        assert {reply.text for reply in backend.generate([*map(fresh, range(6))], GREEDY)} == {"a"}
        assert f"{found[0].url}/v1 is left out until it answers, 1 of 2 servers go on: 'tiny' at" in caplog.text
        assert "engine died" in caplog.text


def test_what_all_servers_fail_at_is_the_questions_own_fault(caplog: pytest.LogCaptureFixture) -> None:
    refused = pytest.raises(BackendError, match="HTTP 500: no such thing")
    with servers(fail(500, "no such thing"), fail(500, "no such thing")) as found, pool(found) as backend, refused as e:
        backend.generate([fresh(0)], GREEDY)
    assert e.type is BackendError
    assert "left out" not in caplog.text
    refused = pytest.raises(BackendError, match="HTTP 400: too long")
    with servers(fail(400, "too long"), say("a")) as found, pool(found) as backend, refused as e:
        backend.generate([fresh(0)], GREEDY)
    assert e.type is BackendError
    assert "left out" not in caplog.text


def test_a_connection_that_breaks_for_a_moment_leaves_nobody_out(caplog: pytest.LogCaptureFixture) -> None:
    broken = [say("a", after="reset"), say("a")]
    with FaultyServer({"": broken}) as one, servers(say("a")) as found, pool([one, *found]) as backend:
        assert [reply.text for reply in backend.generate([fresh(0)], GREEDY)] == ["a"]
        assert len(one.asked) == 2
    assert "left out" not in caplog.text


def test_one_that_falls_silent_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with servers(Play(before="stall"), say("a")) as found, pool(found, stall_seconds=0.2) as backend:
        assert {reply.text for reply in backend.generate([fresh(0), fresh(1)], GREEDY)} == {"a"}
        assert f"{found[0].url}/v1 is left out" in caplog.text
        assert "nothing came for 0.2 s" in caplog.text


def test_without_any_server_questions_fail(caplog: pytest.LogCaptureFixture) -> None:
    with servers(say("a"), say("a")) as found, pool(found) as backend:
        backend.generate([fresh(0)], GREEDY)
        for server in found:
            server.vanish()
        with pytest.raises(BackendError, match="none of the 2 servers of 'tiny' answers"):
            backend.generate([fresh(1)], GREEDY)
        assert "no server is left" in caplog.text


def test_one_that_comes_back_with_another_model_stays_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    other = FaultyServer({"": [say("other")]})
    with servers(say("one")) as found, pool([*found, other]) as backend:
        other.vanish()
        assert {reply.text for reply in backend.generate([*map(fresh, range(4))], GREEDY)} == {"one"}
        with restart(other, models=("small",)) as changed:
            while not any(path == "/v1/models" for path, _ in changed.fetched):
                backend.generate([fresh(9)], GREEDY)
            assert {reply.text for reply in backend.generate([*map(fresh, range(10, 20))], GREEDY)} == {"one"}
            assert not changed.asked
            wait_for(caplog, f"{changed.url}/v1 serves small now, not 'tiny', and stays left out", backend)


@pytest.mark.parametrize(
    ("one", "two", "model", "said"),
    [
        (("a",), ("b",), None, r"serve different models, http\S+ a, http\S+ b: give servers of one model"),
        (("a", "b"), ("b",), None, "serve different models"),
        (("a", "b"), ("b",), "a", r"serve different models, http\S+ a, b, http\S+ b: give"),
        (("a",), ("b",), "c", "serve different models"),
        (("a", "b"), ("a", "b"), None, r"http\S+ a, b, and so do the others: name one \(--model\)"),
        ((), (), None, "lists no model"),
    ],
)
def test_servers_of_different_models_are_refused(
    one: tuple[str, ...], two: tuple[str, ...], model: str | None, said: str
) -> None:
    refused = pytest.raises(ModelError, match=said)
    with servers(say("x"), models=one) as found, servers(say("x"), models=two) as others, refused:
        pool([*found, *others], model=model)


def test_servers_of_one_model_are_asked_for_it_whatever_else_they_serve() -> None:
    with servers(say("x"), models=("a", "b")) as found, servers(say("x"), models=("b", "c")) as others:
        with pool([*found, *others], model="b") as backend:
            backend.generate([*map(fresh, range(4))], GREEDY)
        assert {query["model"] for server in (*found, *others) for query in server.asked} == {"b"}
    with servers(say("x"), say("x"), models=()) as found, pool(found, model="unlisted") as backend:
        assert backend.model == "unlisted"


def test_the_same_name_for_another_checkpoint_is_refused() -> None:
    with servers(say("x"), say("x"), models=("egm",)) as found:
        for server, root in zip(found, ("/here/EGM-4B", "/there/EGM-8B"), strict=True):
            server.pages["/v1/models"] = {"object": "list", "data": [{"id": "egm", "root": root}]}
        with pytest.raises(ModelError, match=r"different models as 'egm': \S+ has it from 'EGM-4B', \S+ from 'EGM-8B'"):
            pool(found)
        found[1].pages["/v1/models"]["data"][0]["root"] = "/there/EGM-4B"
        with pool(found) as backend:
            assert backend.model == "egm"


def test_bad_input_is_one_line() -> None:
    with servers(say("x")) as found:
        with pytest.raises(EgmError, match="is given twice: name each once"):
            pool(found, found[0].url + "/v1")
        with pytest.raises(EgmError, match="is no server's URL"):
            pool(found, "nowhere")
        with pytest.raises(EgmError, match="concurrency 0 is out of range"):
            pool(found, concurrency=0)
        found[0].pages["/v1/models"] = fail(404)
        with pytest.raises(BackendError, match=r"does not say which models it serves: HTTP 404.*compared at the start"):
            pool(found, NOWHERE)
    with pytest.raises(BackendError, match="none of the 2 servers answers, the first with: the connection failed"):
        ServerPool([NOWHERE, "http://127.0.0.1:1"])
    with pytest.raises(EgmError, match="there is no server"):
        ServerPool([])


def test_what_is_closed_is_not_asked() -> None:
    with servers(say("x"), say("x")) as found:
        backend = pool(found)
        backend.close()
        with pytest.raises(BackendError, match="are closed"):
            backend.generate([fresh(0)], GREEDY)


def test_what_failed_tries_took_is_counted_over_all_servers() -> None:
    empty = say("", usage={"prompt_tokens": 7, "completion_tokens": 3})
    with servers(empty, say("a")) as found, pool(found) as backend:
        (reply,) = backend.generate([ask("x", pictures(1)[0])], GREEDY)
        assert (reply.text, reply.lost_tokens, len(found[0].asked)) == ("a", (21, 9), 3)
    with servers(empty, empty) as found, pool(found) as backend, pytest.raises(BackendError) as caught:
        backend.generate([ask("x", pictures(1)[0])], GREEDY)
    assert caught.value.lost_tokens == (42, 18)
