"""How fast a model answers: closed loops with so many requests under way at once, and open loops of Poisson arrivals.

A closed loop sends the next request when an answer comes, so a slow engine slows its own load down; in this process it
sends so many together as one batch, and the next batch when the last answer of it has come. An open loop sends each
request at its time, whatever is still running, as users do; the wait from there to sending is reported as queue.
"""

from __future__ import annotations

import io
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, cycle
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from egm.backends.base import GenerationSettings, Request
from egm.backends.remote import RemoteBackend, outcome
from egm.backends.retry import RetryPolicy
from egm.codecs import DEFAULT_CODEC
from egm.errors import BackendError, DataError, EgmError
from egm.journal import Record
from egm.progress import progress_task, track
from egm.questions import LoadedQuestion

if TYPE_CHECKING:
    from concurrent.futures import Future

    from egm.codecs import Codec
    from egm.grounder import Grounder
    from egm.types import Completion, Sample

CONNECTIONS: Final = 1000
"""Most requests under way at once, in an open loop too: as many connections as the client opens."""

_Reply: TypeAlias = "Completion | BackendError"


def connect(
    server: str,
    model: str | None = None,
    *,
    codec: str | Codec = DEFAULT_CODEC,
    max_tokens: int | None = None,
    cut_tail: bool = False,
) -> Grounder:
    """Connect to a server for measuring: every request is tried once, so that no time holds a wait between tries.

    Args:
        server: URL of an OpenAI-compatible server.
        model: The name it serves the model by; None takes the only one.
        codec: How the model is asked.
        max_tokens: Most tokens to generate; None takes the default.
        cut_tail: What `Grounder.connect` takes.

    Raises:
        EgmError: As `Grounder.connect` raises.
    """
    from egm.grounder import Grounder

    return Grounder.connect(server, model, codec=codec, **connection(max_tokens), cut_tail=cut_tail)


def connection(max_tokens: int | None = None) -> dict[str, Any]:
    """How a server is asked for measuring, as `Grounder.connect` takes it."""
    return {"concurrency": CONNECTIONS, "settings": _settings(max_tokens), "retry": RetryPolicy(retries=0)}


def load(
    model: str = "egm-tiny",
    *,
    codec: str | Codec | None = None,
    device: str = "auto",
    dtype: str = "auto",
    max_tokens: int | None = None,
    cut_tail: bool = False,
) -> Grounder:
    """Load a model in this process for measuring.

    Args:
        model: What `Grounder.load` takes.
        codec: The same.
        device: The same.
        dtype: The same.
        max_tokens: Most tokens to generate; None takes the default.
        cut_tail: The same.

    Raises:
        EgmError: As `Grounder.load` raises.
    """
    from egm.grounder import Grounder

    options: dict[str, Any] = {"settings": _settings(max_tokens), "cut_tail": cut_tail}
    return Grounder.load(model, codec=codec, device=device, dtype=dtype, batch_size=1, **options)


def arrivals(rate: float, number: int, *, seed: int = 0) -> list[float]:
    """Draw when requests arrive in a Poisson process.

    Args:
        rate: Mean requests a second.
        number: How many arrivals.
        seed: The same seed gives the same times.

    Returns:
        Seconds from the start, ascending; the gaps are exponential.

    Raises:
        EgmError: If the rate is not above 0.

    Example:
        >>> len(arrivals(2.0, 3)), arrivals(2.0, 3) == arrivals(2.0, 3)
        (3, True)
    """
    if not 0 < rate < math.inf:
        raise EgmError(f"rate {rate} is out of range: give requests a second, above 0")
    rng = random.Random(seed)
    at, times = 0.0, []
    for _ in range(number):
        at += rng.expovariate(rate)
        times.append(at)
    return times


def measure(
    grounder: Grounder,
    *,
    requests: int = 48,
    rounds: int = 4,
    concurrency: Sequence[int] = (1,),
    rates: Sequence[float] = (),
    warmup: int = 4,
    cold: bool = True,
    seed: int = 0,
) -> Iterator[dict[str, Any]]:
    """Measure latency and throughput, one load after the other, each after a warm-up of its own.

    The questions are SynthRef val's, and are made before a load's clock starts. Servers get the pictures as JPEG.

    Args:
        grounder: What to ask, from `connect` or `load`.
        requests: How many to measure for each load, at least.
        rounds: How many times over, at least, a closed loop is measured: so many requests for each that is under way
            at once. In one round all start together, which is a burst and no load that lasts.
        concurrency: Closed loops: how many requests to keep under way; in this process, how many make a batch.
        rates: Open loops: mean arrivals a second.
        warmup: Requests before each load that are not measured.
        cold: A new picture for every request, also across loads; else one picture for all, with its four phrases.
        seed: Fixes arrivals and pictures. Another seed has other pictures, which no cache of the server knows yet.

    Returns:
        For each load, when it has run, JSON-ready: `loop` ("closed" or "open"), `concurrency` or `rate`, `requests`,
        `errors`, `first_error`, `wall_seconds`, `requests_per_second` (answered); `latency` (from sending to the last
        token), `first_token` and `queue`, each with `n`, `mean`, `p50`, `p90` and `p99`, or None; `seconds`, what
        `latency` is of: one a request in order, None after an error; `tokens_per_second`, of all requests together, and
        `mean_tokens`, None where the engine counts none; and where weights lie on a GPU of this machine,
        `floor_bytes`, which `add_floors` makes a time of.

    Raises:
        EgmError: If a number is out of range, or the engine cannot run so many requests at once.
    """
    loads = [_Load(at_once=number) for number in concurrency] + [_Load(rate=rate) for rate in rates]
    if requests < 1:
        raise EgmError(f"requests {requests} is out of range: give at least 1")
    if rounds < 1:
        raise EgmError(f"rounds {rounds} is out of range: give at least 1")
    numbers = [max(requests, rounds * (load.at_once or 0)) for load in loads]
    _check(grounder, loads, numbers, warmup, cold)
    return _measure(grounder, loads, numbers, warmup, cold, seed)


@dataclass(frozen=True, slots=True)
class _Load:
    at_once: int | None = None
    rate: float | None = None

    def __str__(self) -> str:
        return f"{self.at_once} at once" if self.rate is None else f"{self.rate:g} a second"


def _settings(max_tokens: int | None) -> GenerationSettings | None:
    return None if max_tokens is None else GenerationSettings(max_new_tokens=max_tokens)


def _check(grounder: Grounder, loads: Sequence[_Load], numbers: Sequence[int], warmup: int, cold: bool) -> None:
    if warmup < 0:
        raise EgmError(f"warmup {warmup} is out of range: give 0 or more")
    if not loads:
        raise EgmError("there is nothing to measure: give a concurrency or a rate")
    backend = grounder.backend
    most = backend.concurrency if isinstance(backend, RemoteBackend) else CONNECTIONS
    for load in loads:
        if load.rate is not None:
            arrivals(load.rate, 0)
            if not isinstance(backend, RemoteBackend):
                raise EgmError("a model in this process takes no arrivals: measure a concurrency, or give a server")
        elif load.at_once is None or not 1 <= load.at_once <= most:
            raise EgmError(f"concurrency {load.at_once} is out of range: give 1 to {most}")
        elif load.at_once > 1 and not backend.batches:
            raise EgmError(
                f"{backend.model} in {type(backend).__name__} answers one request at a time: measure concurrency 1, "
                "name a device such as cpu or cuda to run it in PyTorch, or give a server"
            )
    needed, there = sum(numbers) + len(loads) * warmup, _scenes()
    if cold and needed > there:
        raise DataError(
            f"{needed} requests need as many pictures, and SynthRef val has {there}: measure fewer requests, rounds "
            "or loads at a time (with another seed each), or with warm images"
        )


def _scenes() -> int:
    from egm.datasets.synthetic import SPLITS

    return SPLITS["val"].scenes or 0


def _measure(
    grounder: Grounder, loads: Sequence[_Load], numbers: Sequence[int], warmup: int, cold: bool, seed: int
) -> Iterator[dict[str, Any]]:
    pairs = _requests(grounder, cold=cold, seed=seed)
    for load, number in zip(loads, numbers, strict=True):
        first = [next(pairs)[1] for _ in range(warmup)]
        batch = [next(pairs) for _ in range(number)]
        _closed(grounder, first, load.at_once or 1, f"warming up for {load}")
        yield _run(grounder, load, batch, cold=cold, seed=seed)


def _requests(grounder: Grounder, *, cold: bool, seed: int) -> Iterator[tuple[Sample, Request]]:
    from egm.datasets.synthetic import SynthRef

    data = SynthRef("val", seed=seed)
    scenes = (samples for number in count() if (samples := data.samples(number)))
    if cold:
        for samples in scenes:
            yield samples[0], _request(grounder, samples[0])
    yield from cycle([(sample, _request(grounder, sample)) for sample in next(scenes)])


def _request(grounder: Grounder, sample: Sample) -> Request:
    from egm.images import load_image

    image = load_image(sample.image)
    question = LoadedQuestion(0, image, sample.phrase, sample.amodal, image)
    if not isinstance(grounder.backend, RemoteBackend):
        return grounder.request(question)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95)  # now, so that encoding takes no time from what is measured
    return grounder.request(replace(question, source=stream.getvalue()))


def _run(
    grounder: Grounder, load: _Load, batch: Sequence[tuple[Sample, Request]], *, cold: bool, seed: int
) -> dict[str, Any]:
    from egm.evaluate.totals import totals
    from egm.journal import ERROR
    from egm.types import sum_if_all

    queries = [request for _, request in batch]
    late = [0.0] * len(batch)
    start = time.perf_counter()
    if load.rate is not None and isinstance(grounder.backend, RemoteBackend):
        times = arrivals(load.rate, len(batch), seed=seed)
        outcomes, late = _open(grounder.backend, grounder.settings, queries, times, str(load))
    else:
        outcomes = _closed(grounder, queries, load.at_once or 1, str(load))
    wall = time.perf_counter() - start
    records = []
    for (sample, _), reply, wait_seconds in zip(batch, outcomes, late, strict=True):
        truth = (0.0, 0.0, 0.0, 0.0) if sample.box is None else (*sample.box,)
        facts: dict[str, Any] = {"id": sample.id, "image": sample.id, "phrase": sample.phrase, "truth": truth}
        if isinstance(reply, BackendError):
            records.append(Record(**facts, failure=ERROR, error=str(reply)))
            continue
        records.append(
            Record(
                **facts,
                size=sample.size,
                prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens,
                seconds=reply.seconds,
                first_token_seconds=reply.first_token_seconds,
                queue_seconds=wait_seconds + reply.queue_seconds,
                cold=cold,
            )
        )
    summary = totals(records)
    spreads = summary["latency"]
    errors = [record.error for record in records if record.failure == ERROR]
    tokens = sum_if_all([record.completion_tokens for record in records if record.failure != ERROR])
    return {
        "loop": "closed" if load.rate is None else "open",
        "concurrency": load.at_once,
        "rate": load.rate,
        "requests": len(batch),
        "errors": len(errors),
        "first_error": errors[0] if errors else None,
        "wall_seconds": wall,
        "requests_per_second": (len(batch) - len(errors)) / wall,
        "latency": spreads["seconds"],
        "seconds": [None if record.failure == ERROR else record.seconds for record in records],
        "first_token": spreads["first_token"],
        "queue": spreads["queue"],
        "tokens_per_second": tokens / wall if tokens else None,
        "mean_tokens": summary["tokens"]["completion"] if tokens else None,
        **_computed(grounder, [record for record in records if record.failure != ERROR], load.at_once or 1),
    }


def _computed(grounder: Grounder, records: Sequence[Record], at_once: int) -> dict[str, float | None]:
    """Mean floating-point operations and bytes moved of an answer, where they can be computed (`egm.models.costs`).

    Where the weights lie on a GPU of this machine, also what has to be read there for all answers of a batch.
    """
    from egm.models.costs import cost_model

    costs, widths = cost_model(grounder.backend.model), grounder.backend.describe().weight_bytes
    asked = [
        (record.size, {"prompt": record.prompt_tokens, "written": record.completion_tokens, "at_once": at_once})
        for record in records
        if costs and record.size and record.prompt_tokens is not None and record.completion_tokens is not None
    ]

    def mean(name: str, costs: Any) -> float | None:
        return sum(getattr(costs.answer(size, **how), name) for size, how in asked) / len(asked) if asked else None

    found = {name: mean(name, costs) for name in ("operations", "bytes")}
    if asked and costs and widths is not None:
        moved = mean("bytes", replace(costs, layer_width=widths[0], width=widths[1]))
        found["floor_bytes"] = None if moved is None else moved * at_once
    return found


def _closed(grounder: Grounder, queries: Sequence[Request], at_once: int, name: str) -> list[_Reply]:
    if isinstance(grounder.backend, RemoteBackend):
        each = grounder.backend.generate_each(queries, grounder.settings, limit=at_once)
        found = dict(track(each, name, len(queries)))
        return [found[number] for number in range(len(queries))]
    batches = (queries[start : start + at_once] for start in range(0, len(queries), at_once))
    with progress_task(name, len(queries)) as task:
        outcomes: list[_Reply] = []
        for batch in batches:
            outcomes += _generate_batch(grounder, batch)
            task.update(len(outcomes))
    return outcomes


def _generate_batch(grounder: Grounder, batch: Sequence[Request]) -> Sequence[_Reply]:
    try:
        return grounder.backend.generate(batch, grounder.settings)
    except BackendError as error:
        return [error] * len(batch)


def _open(
    backend: RemoteBackend, settings: GenerationSettings, queries: Sequence[Request], times: Sequence[float], name: str
) -> tuple[list[_Reply], list[float]]:
    futures: list[Future[Completion]] = []
    late: list[float] = []
    start = time.perf_counter()
    try:
        for query, due in track(zip(queries, times, strict=True), name, len(times)):
            if (early := start + due - time.perf_counter()) > 0:
                time.sleep(early)
            late.append(max(0.0, time.perf_counter() - start - due))
            futures.append(backend.submit(query, settings))
        return [outcome(future) for future in futures], late
    finally:
        for future in futures:
            future.cancel()  # what is done stays so
