"""What waits together is answered together, and neither what is given up nor what does not fit costs the others."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from egm.backends import GenerationSettings, Request
from egm.server.errors import HttpError
from egm.server.scheduler import Event, Finished, QueuedRequest, Scheduler
from egm.types import STOP_STRING

from .serving import WAIT, Typist

FIVE = GenerationSettings(max_new_tokens=5)


@pytest.fixture
def typist() -> Typist:
    return Typist()


@pytest.fixture
def scheduler(typist: Typist) -> Iterator[Scheduler]:
    scheduler = Scheduler(typist, batch_size=3, queue=6)
    yield scheduler
    scheduler.close(WAIT)


def job(text: str, settings: GenerationSettings = FIVE) -> tuple[QueuedRequest, queue.Queue[Event]]:
    events: queue.Queue[Event] = queue.Queue()
    return QueuedRequest(Request([{"role": "user", "content": text}]), settings, events.put), events


def end(events: queue.Queue[Event]) -> tuple[str, Event]:
    """The pieces as they came, and what came last."""
    text = ""
    while isinstance(event := events.get(timeout=WAIT), str):
        text += event
    return text, event


def test_what_waits_is_answered_together_in_order_and_by_settings(typist: Typist, scheduler: Scheduler) -> None:
    first, others = job("first"), [job(text) for text in "abcd"]
    other = job("other", GenerationSettings(max_new_tokens=2))
    scheduler.submit(first[0])
    typist.reached(1)
    for one in [others[0], other, *others[1:]]:
        scheduler.submit(one[0])
    typist.let()
    assert {end(events)[0] for _, events in [first, *others]} == {"abcde"}
    assert end(other[1])[0] == "ab"
    assert typist.batches_seen == [["first"], ["a", "b", "c"], ["other"], ["d"]]


def test_a_backend_that_answers_one_by_one_gets_one(typist: Typist) -> None:
    typist.batches = False
    scheduler = Scheduler(typist, batch_size=3, queue=6)
    typist.let()
    jobs = [job(text) for text in "abc"]
    for one, _ in jobs:
        scheduler.submit(one)
    assert all(isinstance(end(events)[1], Finished) for _, events in jobs)
    assert typist.batches_seen == [["a"], ["b"], ["c"]]
    scheduler.close(WAIT)


def test_one_that_does_not_fit_costs_its_neighbours_nothing(typist: Typist, scheduler: Scheduler) -> None:
    first, jobs = job("first"), [job("a"), job("odd"), job("b")]
    scheduler.submit(first[0])
    typist.reached(1)
    for one, _ in jobs:
        scheduler.submit(one)
    typist.let()
    assert [end(events)[0] for _, events in jobs] == ["abcde", "", "abcde"]


def test_what_does_not_fit_is_the_requests_fault(typist: Typist, scheduler: Scheduler) -> None:
    one, events = job("odd")
    scheduler.submit(one)
    error = end(events)[1]
    assert isinstance(error, HttpError)
    assert (error.status, error.message) == (400, "nothing to say to odd")


def test_what_is_given_up_is_not_begun_or_ends(typist: Typist, scheduler: Scheduler) -> None:
    long = GenerationSettings(max_new_tokens=100_000)
    running, waiting, last = job("running", long), job("waiting", long), job("last")
    scheduler.submit(running[0])
    typist.reached(1)
    for one in (waiting, last):
        scheduler.submit(one[0])
    typist.let(3)
    for _ in range(3):
        running[1].get(timeout=WAIT)
    scheduler.give_up(waiting[0])
    scheduler.give_up(running[0])
    typist.reached(2)
    typist.let()
    assert end(last[1])[0] == "abcde"
    assert typist.batches_seen == [["running"], ["last"]]
    assert typist.written == {"running": 3, "last": 5}
    assert running[1].empty()
    assert waiting[1].empty()


def test_the_queue_has_an_end(typist: Typist, scheduler: Scheduler) -> None:
    scheduler.submit(job("running")[0])
    typist.reached(1)
    for text in "abcdef":
        scheduler.submit(job(text)[0])
    with pytest.raises(HttpError, match="6 requests wait already") as caught:
        scheduler.submit(job("g")[0])
    assert (caught.value.status, caught.value.headers) == (429, {"Retry-After": "1"})


def test_calls_come_between_two_tokens(typist: Typist, scheduler: Scheduler) -> None:
    scheduler.submit(job("running")[0])
    typist.reached(1)
    assert scheduler.call(lambda: 6 * 7).result(WAIT) == 42
    assert typist.written == {}


def test_many_at_once_from_many_threads(typist: Typist) -> None:
    scheduler = Scheduler(typist, batch_size=4, queue=1000)
    typist.let(1_000_000)

    def ask(number: int) -> str:
        one, events = job(str(number), GenerationSettings(max_new_tokens=1 + number % 3))
        scheduler.submit(one)
        return end(events)[0]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(300))) == ["a", "ab", "abc"] * 100
    scheduler.close(WAIT)


def test_the_end_is_told_to_all(typist: Typist, scheduler: Scheduler) -> None:
    running, waiting = job("running"), job("waiting")
    for one, _ in (running, waiting):
        scheduler.submit(one)
    typist.reached(1)
    scheduler.close(WAIT)
    for _, events in (running, waiting):
        error = end(events)[1]
        assert isinstance(error, HttpError)
        assert error.status == 503
    assert not scheduler.alive
    with pytest.raises(HttpError, match="ending"):
        scheduler.submit(job("late")[0])


def test_a_stop_string_ends_the_work_too(typist: Typist, scheduler: Scheduler) -> None:
    one, events = job("text", GenerationSettings(max_new_tokens=100_000, stop=("de", "xyz")))
    scheduler.submit(one)
    typist.let()
    text, event = end(events)
    assert isinstance(event, Finished)
    reply = event.completion
    assert (text + event.text, reply.text, reply.finish_reason, reply.stop_reason) == ("abc", "abc", STOP_STRING, "de")
    assert typist.written["text"] == 5
