"""Every fault of a server: what is tried again, what is not, and that one failure costs no other answer."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from PIL import Image

from egm.backends import GenerationSettings, Request
from egm.backends.openai.backend import OpenAIBackend
from egm.backends.retry import RetryPolicy
from egm.codecs import get_codec
from egm.errors import BackendError, EgmError
from egm.grounder import GroundedCompletion, Grounder
from egm.types import Completion, Grounding

from ..faulty_server import FaultyServer, Play, fail, say

GREEDY = GenerationSettings(max_new_tokens=50)
FAST = RetryPolicy(retries=3, backoff=0.001, most=0.002, retry_after_most=0.005)
OPTIONS: dict[str, Any] = {"retry": FAST, "stall_seconds": 5.0, "api_key": "k"}
ANSWER = '</think> [{"bbox_2d": [0, 0, 500, 500]}]'
PICTURE = Image.new("RGB", (64, 32), "teal")


def ask(phrase: str, seed_index: int = 0) -> Request:
    return Request(get_codec("qwen3_vl").messages(phrase), [PICTURE], seed_index=seed_index)


PASSING = {
    "429": fail(429),
    "429-retry-after": fail(429, retry_after="1"),
    "429-retry-after-date": fail(429, retry_after="Wed, 21 Oct 2065 07:28:00 GMT"),
    "429-retry-after-nonsense": fail(429, retry_after="soon"),
    "408": fail(408),
    "500": fail(500),
    "502": fail(502),
    "503": fail(503, retry_after="2"),
    "504-html": Play(status=504, raw=b"<html>gateway</html>"),
    "reset": Play(before="reset"),
    "closed": Play(before="close"),
    "reset-in-the-stream": say("one", after="reset"),
    "closed-in-the-stream": say(ANSWER, after="close"),
    "no-finish": say(ANSWER, finish=None),
    "no-finish-whole": say(ANSWER, finish=None, streams=False),
    "given-up": say("one", finish="abort"),
    "no-json": Play(raw=b'data: {"choices": [\n\n'),
    "no-utf-8": Play(raw=b"data: \xff\xfe\n\n"),
    "odd-json": Play(raw=b'data: {"choices": [3]}\n\n'),
    "odd-types": Play(raw=b'data: {"choices": 7}\n\n'),
    "html": Play(raw=b"<html>hello</html>"),
    "html-whole": Play(raw=b"<html>hello</html>", streams=False),
    "nothing": Play(raw=b""),
    "done-alone": Play(raw=b"data: [DONE]\n\n"),
    "error-in-the-stream": Play(raw=b'data: {"error": {"message": "out of memory"}}\n\n'),
    "error-text-in-the-stream": Play(raw=b'data: {"error": "out of memory"}\n\n'),
}
LASTING = {
    "400": fail(400, "too long"),
    "401": fail(401),
    "404": fail(404, "no such model"),
    "413": fail(413),
    "422": fail(422, "top_k"),
    "quota": Play(status=429, raw=b'{"error": {"message": "no", "code": "insufficient_quota"}}'),
    "400-in-the-stream": Play(raw=b'data: {"error": {"message": "bad picture", "code": 400}}\n\n'),
}


@pytest.fixture
def server() -> Iterator[Any]:
    with FaultyServer({}) as server:
        yield server


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_tried_again(server: Any, name: str) -> None:
    server.script[""] = [PASSING[name], PASSING[name], say("good")]
    with OpenAIBackend(server.url, "tiny", **OPTIONS) as backend:
        assert backend.generate([ask("x")], GREEDY)[0].text == "good"
    assert len(server.asked) == 3
    assert server.asked[0] == server.asked[2]


@pytest.mark.parametrize("name", PASSING)
def test_what_does_not_pass_is_an_error_in_the_end(server: Any, name: str) -> None:
    server.script[""] = [PASSING[name]]
    with OpenAIBackend(server.url, "tiny", **OPTIONS) as backend, pytest.raises(BackendError) as caught:
        backend.generate([ask("x")], GREEDY)
    assert "'tiny' at http://127.0.0.1:" in str(caught.value)
    assert "did not answer after 4 tries: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(server.asked) == 4


@pytest.mark.parametrize("name", LASTING)
def test_a_refusal_is_never_tried_again(server: Any, name: str) -> None:
    server.script[""] = [LASTING[name], say("good")]
    with OpenAIBackend(server.url, "tiny", **OPTIONS) as backend, pytest.raises(BackendError, match="did not answer: "):
        backend.generate([ask("x")], GREEDY)
    assert len(server.asked) == 1


def test_an_empty_purse_is_told_from_too_many_calls(server: Any) -> None:
    server.script = {"the cup": [LASTING["quota"]], "the dog": [fail(429)]}
    with OpenAIBackend(server.url, "tiny", **OPTIONS) as backend:
        with pytest.raises(BackendError, match="nothing left to spend: top it up"):
            backend.generate([ask("the cup")], GREEDY)
        with pytest.raises(BackendError, match="lower the concurrency"):
            backend.generate([ask("the dog")], GREEDY)


@pytest.mark.parametrize("play", [Play(before="stall"), say("one", after="stall")], ids=["silent", "in-the-stream"])
@pytest.mark.parametrize("limit", ["stall_seconds", "timeout_seconds"])
def test_a_stall_is_tried_again(server: Any, play: Any, limit: str) -> None:
    server.script = {"the cup": [play, say("good")], "the dog": [play]}
    with OpenAIBackend(server.url, "tiny", **{**OPTIONS, limit: 0.2}) as backend:
        assert backend.generate([ask("the cup")], GREEDY)[0].text == "good"
        with pytest.raises(BackendError, match="after 4 tries: timed out"):
            backend.generate([ask("the dog")], GREEDY)
    assert len(server.asked) >= 6


def test_no_server() -> None:
    with FaultyServer({}) as gone:
        url = gone.url
    with OpenAIBackend(url, "tiny", **OPTIONS) as backend, pytest.raises(BackendError, match="is the server running"):
        backend.generate([ask("x")], GREEDY)


def test_one_failure_costs_no_other_answer(server: Any) -> None:
    server.script = {
        "": [say(ANSWER)],
        "the dog": [fail(503)],
        "the bee": [fail(400)],
        "the cat": [fail(429), say(ANSWER)],
    }
    phrases = ["the cup", "the dog", "the cat", "", "the bee", "the jug"]
    kinds = [Grounding, BackendError, Grounding, EgmError, BackendError, Grounding]
    grounder = Grounder.connect(server.url, concurrency=2, **OPTIONS)
    results = list(grounder.ground_each((PICTURE, phrase) for phrase in phrases))
    assert all(isinstance(result, kind) for result, kind in zip(results, kinds, strict=True))
    assert [result.phrase for result in results if isinstance(result, Grounding)] == ["the cup", "the cat", "the jug"]
    answers = list(grounder.answer_each((index, (PICTURE, phrase)) for index, phrase in enumerate(phrases)))
    assert [type(answer) is GroundedCompletion for answer in answers] == [kind is Grounding for kind in kinds]
    with pytest.raises(BackendError, match=r"^item 1: 'tiny' .* HTTP 503"):
        grounder.ground_many([(PICTURE, phrase) for phrase in phrases if phrase])


def test_answers_come_as_they_are_complete(server: Any) -> None:
    server.script = {"": [say("quick")], "the dog": [Play(before="stall")]}
    with OpenAIBackend(server.url, "tiny", concurrency=2, **OPTIONS) as backend:
        each = backend.generate_each((ask("the dog" if n == 0 else "x", n) for n in range(10**9)), GREEDY)
        got = [next(each) for _ in range(5)]
        assert 0 not in [index for index, _ in got]
        assert {reply.text for _, reply in got if isinstance(reply, Completion)} == {"quick"}
        each.close()


def test_the_stated_concurrency_is_reached_and_kept(server: Any) -> None:
    server.script = {"": [say("good")]}
    server.gate = threading.Barrier(3)  # nobody is answered before three are there
    with OpenAIBackend(server.url, "tiny", concurrency=3, **OPTIONS) as backend:
        assert len(backend.generate([ask("x", n) for n in range(12)], GREEDY)) == 12
    assert server.busiest == 3


def test_waits() -> None:
    policy = RetryPolicy(backoff=0.5, most=8.0, retry_after_most=60.0)
    waits = [policy.wait(2) for _ in range(200)]
    assert 0 <= min(waits) < 0.2
    assert 1.8 < max(waits) <= 2.0  # full jitter under the doubled backoff; by chance alone it is not, once in 10**9
    assert max(policy.wait(40) for _ in range(200)) <= 8.0
    assert 7.0 <= policy.wait(0, retry_after=7.0) <= 7.5
    assert 60.0 <= policy.wait(0, retry_after=1e9) <= 60.5
    with pytest.raises(EgmError, match="retries -1 is out of range"):
        RetryPolicy(retries=-1)


def test_clients_that_failed_together_do_not_wait_alike() -> None:
    """Two processes that were started alike, with the same state of chance, ask again at times of their own."""
    random.seed(0)
    first, state = RetryPolicy().wait(3), random.getstate()
    random.seed(0)
    assert RetryPolicy().wait(3) != first
    assert random.getstate() == state  # and the state is left alone


class Noted(RetryPolicy):
    """Waits for nothing, and notes what it was asked to wait for."""

    noted: ClassVar[list[tuple[int, float | None]]] = []

    def wait(self, attempt: int, *, retry_after: float | None = None) -> float:
        self.noted.append((attempt, retry_after))
        return 0.0


def test_what_the_server_says_to_wait_reaches_the_policy(server: Any) -> None:
    server.script[""] = [fail(429, retry_after="7"), fail(503, retry_after="2.5"), Play(before="close"), say("good")]
    with OpenAIBackend(server.url, "tiny", **{**OPTIONS, "retry": Noted()}) as backend:
        assert backend.generate([ask("x", 3)], GREEDY)[0].text == "good"
    assert Noted.noted == [(0, 7.0), (1, 2.5), (2, None)]


CHILD = """
import sys
from PIL import Image
from egm.grounder import Grounder
try:
    list(Grounder.connect(sys.argv[1], "tiny").ground_each((Image.new("RGB", (64, 32)), "x") for _ in range(9)))
except KeyboardInterrupt:
    print("stopped")
"""


def test_ctrl_c_stops_at_once(server: Any) -> None:
    server.script = {"": [Play(before="stall")]}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, server.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert server.arrived.wait(timeout=60)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert (out, err, child.returncode) == ("stopped\n", "", 0)
