"""One model behind several servers: pictures are spread over them, and one that is gone is left out until it answers.

All questions about a picture go to one server, whose prefix cache then holds it. A question that a server fails at for
good is asked of another; where that one answers it, it was the server, and not the question.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
import weakref
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from egm.backends.base import EngineInfo, GenerationSettings, Request
from egm.backends.openai.backend import OpenAIBackend
from egm.backends.openai.connection import drive_rounds, server_url, stop_loop
from egm.backends.openai.faults import ServerFaultError
from egm.backends.openai.messages import RemoteRequest
from egm.backends.openai.same_model import agree_on_model, is_as_agreed
from egm.backends.remote import RemoteBackend, Rounds
from egm.backends.retry import RetryPolicy
from egm.errors import BackendError, EgmError
from egm.terminal import printable
from egm.types import Completion, Message

if TYPE_CHECKING:
    from PIL.Image import Image

    from egm.images import ImageSource

R = TypeVar("R")
_log = logging.getLogger(__name__)
_UNNAMED: Final = "?"
_START_SECONDS: Final = 30.0
_PROBE_SECONDS: Final = 10.0
_MOST_HOMES: Final = 8192  # pictures whose server is remembered: many more than are asked about at a time
_MOST_KEYS: Final = 64


@dataclass(eq=False, slots=True)
class _Server:
    """A server, and how it stands with it.

    Attributes:
        backend: What asks it.
        slots: Its share of the requests that may be under way.
        alive: Whether it is asked.
        load: Requests submitted to it, and not yet answered.
        pause: Seconds to wait before it is looked at again, the next time that it is left out.
        is_other: Whether it was found to serve another model.
        probe: What was last done to see whether it answers, or is under way.
    """

    backend: OpenAIBackend
    slots: asyncio.Semaphore
    alive: bool = True
    load: int = 0
    pause: float = 1.0
    is_other: bool = False
    probe: asyncio.Task[bool] | None = None


@dataclass(slots=True)
class _Failures:
    """What went wrong with one request so far.

    Attributes:
        servers: Servers that failed at it after all their tries, and why.
        broken: How often its connection could not be made, or broke.
        waits: How often it waited for any server to be there.
        lost: Tokens read and generated in tries that failed.
    """

    servers: dict[_Server, str] = field(default_factory=dict)
    broken: int = 0
    waits: int = 0
    lost: tuple[int, int] = (0, 0)

    def lose(self, tokens: tuple[int, int]) -> tuple[int, int]:
        """Add what a server counted of its failed tries; returns all of it."""
        self.lost = self.lost[0] + tokens[0], self.lost[1] + tokens[1]
        return self.lost

    def error(self, message: str) -> BackendError:
        """Make the error of a request that nobody answers."""
        error = BackendError(message)
        error.lost_tokens = self.lost
        return error


class ServerPool(RemoteBackend):
    """A model behind several servers that all serve it.

    Servers are compared at the start. One that does not answer then, or later, is left out with a warning in the log,
    looked at again and again, and asked once more as soon as it answers, if it serves the same model.

    Args:
        urls: Where the servers are, see `OpenAIBackend`.
        model: The name that all serve it by. None takes the only one.
        concurrency: Most requests under way at once, of all servers together; each gets its even share.
        retry: How failed requests are sent again, and how often and long servers are waited for if none is there.
        **options: What else `OpenAIBackend` takes.

    Raises:
        EgmError: If one is given twice, or a URL is none.
        ModelError: If the servers serve different models, or several and none is named.
        BackendError: If none of them answers, or one does not say what it serves.
    """

    thinking_budgets = True

    def __init__(
        self,
        urls: Sequence[str],
        model: str | None = None,
        *,
        concurrency: int = 8,
        retry: RetryPolicy | None = None,
        **options: Any,
    ) -> None:
        places = [server_url(url)[0] for url in urls]
        if again := next((place for place in places if places.count(place) > 1), None):
            raise EgmError(f"the server {again} is given twice: name each once")
        if not places:
            raise EgmError("there is no server to ask: give at least one URL")
        if concurrency < 1:
            raise EgmError(f"concurrency {concurrency} is out of range: give at least 1")
        self.concurrency, self._retry = concurrency, retry or RetryPolicy()
        self.tells_logprobs = bool(options.get("logprobs", False))
        share = math.ceil(concurrency / len(places))
        self._servers = [
            _Server(
                OpenAIBackend(url, _UNNAMED, concurrency=share, retry=retry, alone=False, **options),
                asyncio.Semaphore(share),
            )
            for url in places
        ]
        self.streams = any(server.backend.streams for server in self._servers)
        self._slots = asyncio.Semaphore(concurrency)  # shares that do not come out even are more together
        self._homes: OrderedDict[int, _Server] = OrderedDict()
        self._keys: OrderedDict[int, tuple[Image, int]] = OrderedDict()
        self._watching: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="egm-servers", daemon=True)
        self._thread.start()
        servers = _Closing([server.backend for server in self._servers])
        self._stop = weakref.finalize(self, stop_loop, self._loop, self._thread, servers)
        try:
            self.model = self._compare(model)
        except BaseException:
            self.close()
            raise

    def make_request(
        self,
        messages: Sequence[Message],
        image: Image,
        *,
        source: ImageSource | None = None,
        seed_index: int = 0,
        cut: Callable[[str], str] | None = None,
        ends: Callable[[str], bool | None] | None = None,
    ) -> RemoteRequest:
        """Build a request; see `OpenAIBackend.make_request`."""
        first = self._servers[0].backend
        return first.make_request(messages, image, source=source, seed_index=seed_index, cut=cut, ends=ends)

    def submit(self, request: Request, settings: GenerationSettings) -> Future[Completion]:
        """Queue a request; see `RemoteBackend.submit`."""
        self._check_open()
        return asyncio.run_coroutine_threadsafe(self._answer(request, settings), self._loop)

    def submit_rounds(self, rounds: Rounds[R], settings: GenerationSettings) -> Future[R]:
        """Queue requests that depend on the replies to earlier ones; see `RemoteBackend.submit_rounds`."""
        self._check_open()
        answer = partial(self._answer, settings=settings)
        return asyncio.run_coroutine_threadsafe(drive_rounds(rounds, answer), self._loop)

    def describe(self) -> EngineInfo:
        """Ask the first server that is there for its name and version."""
        return next((server for server in self._servers if server.alive), self._servers[0]).backend.describe()

    def usual_settings(self) -> GenerationSettings:
        """Greedy settings whose answers all servers' contexts have room for; see `OpenAIBackend.usual_settings`."""
        each = (server.backend.usual_settings() for server in self._servers)
        return min(each, key=lambda settings: settings.max_new_tokens)

    def close(self) -> None:
        """Give up what is under way and close the connections."""
        self._stop()

    def _check_open(self) -> None:
        if not self._stop.alive:
            raise BackendError("the connections to the servers are closed: make another ServerPool")

    def _compare(self, model: str | None) -> str:
        """Ask all servers what they serve, and leave those out that do not answer; returns the model's name."""
        asked = [(server, server.backend.served_models(_START_SECONDS)) for server in self._servers]
        served: dict[str, Mapping[str, str | None]] = {}
        gone: dict[_Server, str] = {}
        for server, future in asked:
            try:
                served[server.backend.url] = future.result()
            except ServerFaultError as error:
                if not error.fault.retry:
                    raise BackendError(f"{error}; several servers are compared at the start") from None
                gone[server] = error.fault.text
        if not served:
            raise BackendError(f"none of the {len(asked)} servers answers, the first with: {next(iter(gone.values()))}")
        self._agreed = agree_on_model(served, model)
        for server in self._servers:
            server.backend.model = self._agreed.name
        for server, why in gone.items():
            self._loop.call_soon_threadsafe(self._leave_out, server, why)
        return self._agreed.name

    async def _answer(self, request: Request, settings: GenerationSettings) -> Completion:
        submitted, key, failures = time.perf_counter(), self._picture(request), _Failures()
        while True:
            server = self._choose(key, failures)
            if server is None:
                await self._wait_for_any(failures)
                continue
            server.load += 1
            try:
                # Its own first: who waits for one server is not in the way of those who ask another.
                async with server.slots, self._slots:
                    waited = time.perf_counter() - submitted
                    reply = await asyncio.wrap_future(server.backend.submit(request, settings))
            except ServerFaultError as error:
                await self._take_fault(server, error, failures)
                continue
            finally:
                server.load -= 1
            for other, why in failures.servers.items():
                self._leave_out(other, why)
            lost = failures.lose(reply.lost_tokens)
            return replace(reply, queue_seconds=reply.queue_seconds + waited, lost_tokens=lost)

    def _picture(self, request: Request) -> int | None:
        """A number for the picture that a request shows, the same for all that show it; None without one."""
        if not request.images:
            return None
        image = request.images[0]
        if (known := self._keys.get(id(image))) is not None:
            return known[1]
        file = request.files[0] if isinstance(request, RemoteRequest) and request.files else None
        key = zlib.crc32(image.tobytes() if file is None else file)
        self._keys[id(image)] = image, key  # which keeps the id its own
        if len(self._keys) > _MOST_KEYS:
            self._keys.popitem(last=False)
        return key

    def _choose(self, key: int | None, failures: _Failures) -> _Server | None:
        """The picture's server, or else the one with least to do, which is then the picture's."""
        there = [server for server in self._servers if server.alive and server not in failures.servers]
        home = None if key is None else self._homes.get(key)
        if home in there:
            return home
        chosen = min(there, key=lambda server: server.load, default=None)
        if chosen is not None and key is not None:
            self._homes[key] = chosen
            self._homes.move_to_end(key)
            if len(self._homes) > _MOST_HOMES:
                self._homes.popitem(last=False)
        return chosen

    async def _wait_for_any(self, failures: _Failures) -> None:
        """Wait a while for a server that could answer; raises BackendError where there is none any more."""
        if any(server.alive for server in failures.servers):  # each has had all its tries
            raise failures.error(next(reversed(failures.servers.values())))
        if failures.waits >= self._retry.retries:
            raise failures.error(f"none of the {len(self._servers)} servers of {self.model!r} answers")
        await asyncio.sleep(self._retry.wait(failures.waits))
        failures.waits += 1

    async def _take_fault(self, server: _Server, error: ServerFaultError, failures: _Failures) -> None:
        """Decide what becomes of a request after a fault; raises BackendError where it is the request's own."""
        fault = error.fault
        failures.lose(error.lost_tokens)
        if not fault.retry:
            raise failures.error(str(error)) from None
        failures.broken += fault.unreachable
        if failures.broken > self._retry.retries:  # it may be the request that breaks servers
            raise failures.error(str(error)) from None
        if not server.alive:
            return
        if (fault.unreachable or fault.timed_out) and not await self._answers(server):
            self._leave_out(server, fault.text)
        elif fault.unreachable:  # it broke for a moment
            await asyncio.sleep(self._retry.wait(failures.broken - 1))
        else:
            failures.servers[server] = str(error)

    async def _answers(self, server: _Server) -> bool:
        """Tell whether a server answers, and serves the model; asked once for all who want to know."""
        if server.probe is None or server.probe.done():
            server.probe = asyncio.ensure_future(self._probe(server))
        return await asyncio.shield(server.probe)

    async def _probe(self, server: _Server) -> bool:
        try:
            served = await asyncio.wrap_future(server.backend.served_models(_PROBE_SECONDS))
        except BackendError:
            return False
        if not (same := is_as_agreed(served, self._agreed)) and not server.is_other:
            said = printable(", ".join(served))[:200] or "no model"
            _log.warning("%s serves %s now, not %r, and stays left out", server.backend.url, said, self.model)
        server.is_other = not same
        return same

    def _leave_out(self, server: _Server, why: str) -> None:
        if server.alive:
            server.alive = False
            others = sum(other.alive for other in self._servers)
            rest = f"{others} of {len(self._servers)} servers go on" if others else "no server is left"
            _log.warning("%s is left out until it answers, %s: %s", server.backend.url, rest, printable(why))
            task = asyncio.ensure_future(self._watch(server))
            self._watching.add(task)
            task.add_done_callback(self._watching.discard)

    async def _watch(self, server: _Server) -> None:
        """Look at a server that is left out, less and less often, until it answers."""
        pause, server.pause = server.pause, min(2 * server.pause, 60.0)
        while True:
            await asyncio.sleep(pause)
            if await self._answers(server):
                break
            pause = min(2 * pause, 30.0)
        server.alive = True
        _log.warning("%s answers again, and is asked again", server.backend.url)


class _Closing:
    """Backends, closed as the openai library's client is."""

    def __init__(self, backends: Sequence[OpenAIBackend]) -> None:
        self._backends = backends

    async def close(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(backend.close) for backend in self._backends))
