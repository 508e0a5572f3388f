"""Models behind an OpenAI-compatible server: SGLang, vLLM, `transformers serve`, or a hosted API."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, Self, TypeVar

from egm.backends.base import GenerationSettings, Request
from egm.backends.openai.budget import think_within
from egm.backends.openai.connection import only_token, server_url, stop
from egm.backends.openai.faults import RetryPolicy, classify
from egm.backends.openai.messages import body
from egm.backends.openai.replies import Reply
from egm.errors import BackendError, EgmError, ModelError
from egm.types import Completion

_CONNECT_SECONDS = 10.0
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class _Outcome(Protocol[R_co]):
    """A future as far as it is waited for."""

    def result(self) -> R_co: ...


class OpenAIBackend:
    """A model behind a server, asked over several connections at once.

    Requests run in a thread of their own, so that times are right however slowly the replies are taken. What a server
    does not split off or count is left empty. Only parameters that every server takes are sent, and others as far as
    the settings need them: `top_k`, which `transformers serve` refuses, only above 0; what the server's own defaults
    add, such as vLLM's reading of generation_config.json, cannot be switched off from here.

    Args:
        url: Where the server is, such as "http://127.0.0.1:30000"; `/v1` is added where there is no path.
        model: The name it serves the model by. None asks it, and takes the only one.
        api_key: Its key; None takes OPENAI_API_KEY from the environment, if set.
        concurrency: Most requests under way at once.
        retry: How failed requests are sent again.
        stream: Ask for replies piece by piece, which tells the time to the first token. Whole replies are less work for
            both sides.
        stall_seconds: Longest silence in a streamed reply, before its first token too.
        timeout_seconds: Longest time for one try.
        logprobs: Ask for the log-probability of each token, which some servers refuse.

    Raises:
        EgmError: If the URL is none, or a number is out of range.
        ModelError: If the server serves no model, or several and none is named.
        BackendError: If it does not say.
    """

    budgets = True

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        api_key: str | None = None,
        concurrency: int = 8,
        retry: RetryPolicy | None = None,
        stream: bool = True,
        stall_seconds: float = 120.0,
        timeout_seconds: float = 1800.0,
        logprobs: bool = False,
    ) -> None:
        if concurrency < 1:
            raise EgmError(f"concurrency {concurrency} is out of range: give at least 1")
        for name, seconds in (("stall_seconds", stall_seconds), ("timeout_seconds", timeout_seconds)):
            if not seconds > 0:
                raise EgmError(f"{name} {seconds} is out of range: give more than 0")
        self.url, loopback = server_url(url)
        self.concurrency, self._logprobs = concurrency, logprobs
        self._retry = retry or RetryPolicy()
        self._stall, self._timeout = stall_seconds, timeout_seconds
        self._key = api_key or os.environ.get("OPENAI_API_KEY", "")
        self._streams = stream
        self._slots, self._lock = asyncio.Semaphore(concurrency), asyncio.Lock()
        self._closing_token: tuple[int | None] | None = None  # until it is asked for
        self._client = self._connect(loopback)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="egm-openai", daemon=True)
        self._thread.start()
        self._stop = weakref.finalize(self, stop, self._loop, self._thread, self._client)
        try:
            self.model = model or self._only_model()
        except BaseException:
            self.close()
            raise

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        """Answer requests; see `Backend.generate`. The first that fails for good ends the others."""
        replies: list[Completion | None] = [None] * len(requests)
        for index, reply in self.generate_each(requests, settings):
            if isinstance(reply, BackendError):
                raise reply
            replies[index] = reply
        return [reply for reply in replies if reply is not None]

    def generate_each(
        self, requests: Iterable[Request], settings: GenerationSettings
    ) -> Iterator[tuple[int, Completion | BackendError]]:
        """Answer requests, and hand out each reply as soon as it is complete.

        Args:
            requests: Questions, read no further ahead than twice the concurrency; there may be no end to them.
            settings: How to generate, the same for all.

        Yields:
            The number of a request, counted from 0, and its reply, or the error that was left after all tries. What is
            under way when the iterator is closed, or interrupted by Ctrl-C, is given up.
        """
        numbered = enumerate(requests)
        running: dict[Future[Completion], int] = {}
        try:
            while True:
                while len(running) < 2 * self.concurrency and (item := next(numbered, None)) is not None:
                    running[self.submit(item[1], settings)] = item[0]
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), outcome(future)
        finally:
            for future in running:
                future.cancel()

    def submit(self, request: Request, settings: GenerationSettings) -> Future[Completion]:
        """Queue a request.

        Returns:
            A future of its reply, which raises BackendError where the tries ran out; cancelling it closes the request.

        Raises:
            BackendError: If the backend is closed.
        """
        self._check_open()
        return asyncio.run_coroutine_threadsafe(self._answer(request, settings, time.perf_counter()), self._loop)

    def submit_rounds(
        self, rounds: Generator[list[Request], Sequence[Completion], R], settings: GenerationSettings
    ) -> Future[R]:
        """Queue requests that depend on the replies to earlier ones.

        Args:
            rounds: Yields requests to send at once, is sent their replies, and returns the result.
            settings: How to generate, the same for all.

        Returns:
            A future of the result; see `submit`. The first request that fails for good ends the others.

        Raises:
            BackendError: If the backend is closed.
        """
        self._check_open()
        return asyncio.run_coroutine_threadsafe(self._drive(rounds, settings), self._loop)

    def close(self) -> None:
        """Give up what is under way and close the connections. Leaving a `with` block does the same."""
        self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _connect(self, loopback: bool) -> Any:
        import openai

        return openai.AsyncOpenAI(
            base_url=self.url,
            api_key=self._key or "none",  # the library wants one even where the server does not
            max_retries=0,  # ours know the errors better, and can be seeded
            timeout=openai.Timeout(self._timeout, connect=min(_CONNECT_SECONDS, self._timeout)),
            # A proxy cannot reach this machine's own servers.
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not loopback),
        )

    def _only_model(self) -> str:
        async def ask() -> list[str]:
            async with asyncio.timeout(min(self._stall, self._timeout)):
                return sorted({str(model.id) for model in (await self._client.models.list()).data})

        try:
            names = asyncio.run_coroutine_threadsafe(ask(), self._loop).result()
        except Exception as error:
            text = self._clean(classify(error, now=time.time()).text)
            raise BackendError(f"{self.url} does not say which models it serves: {text}; or name the model") from error
        if not names:
            raise ModelError(f"{self.url} lists no model: name the one to ask for")
        if len(names) > 1:
            raise ModelError(f"{self.url} serves several models: name one of {', '.join(names)[:500]}")
        return names[0]

    def _check_open(self) -> None:
        if not self._stop.alive:
            raise BackendError(f"the connection to {self.url} is closed: make another OpenAIBackend")

    async def _drive(
        self, rounds: Generator[list[Request], Sequence[Completion], R], settings: GenerationSettings
    ) -> R:
        asked = next(rounds)
        while True:
            submitted = time.perf_counter()
            tasks = [asyncio.ensure_future(self._answer(request, settings, submitted)) for request in asked]
            try:
                replies = await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
            try:
                asked = rounds.send(replies)
            except StopIteration as end:
                result: R = end.value
                return result

    async def _answer(self, request: Request, settings: GenerationSettings, submitted: float) -> Completion:
        return await think_within(request, settings, partial(self._ask, submitted), self._closing)

    async def _closing(self) -> int | None:
        """Ask the server, once, for the token that closes reasoning."""
        async with self._lock:
            if self._closing_token is None:
                self._closing_token = (await only_token(self._client, self.url, model=self.model, text="</think>"),)
            return self._closing_token[0]

    async def _ask(self, submitted: float, request: Request, settings: GenerationSettings) -> Completion:
        async with self._slots:  # also while waiting between tries: a server that is overloaded gets fewer requests
            query = await asyncio.to_thread(body, request, settings, model=self.model)
            query |= {"logprobs": True} if self._logprobs else {}
            attempt = 0
            while True:
                streamed, sent = self._streams, time.perf_counter()
                try:
                    async with asyncio.timeout(self._timeout):
                        reply = await (self._stream(query) if streamed else self._whole(query))
                    return replace(reply, queue_seconds=sent - submitted)
                except Exception as error:
                    fault = classify(error, now=time.time())
                    if streamed and fault.about_streaming:
                        self._streams = False
                        continue
                    if not fault.retry or attempt >= self._retry.retries:
                        tries = f" after {attempt + 1} tries" if attempt else ""
                        text = self._clean(f"{self.model!r} at {self.url} did not answer{tries}: {fault.text}")
                        raise BackendError(text) from error
                await asyncio.sleep(self._retry.wait(attempt, draw=request.draw, retry_after=fault.retry_after))
                attempt += 1

    async def _stream(self, query: dict[str, Any]) -> Completion:
        start, first = time.perf_counter(), None
        reply = Reply()
        try:
            async with asyncio.timeout(self._stall) as silence:
                stream = await self._client.chat.completions.create(
                    **query, stream=True, stream_options={"include_usage": True}
                )
                async with stream:
                    if "json" in stream.response.headers.get("content-type", ""):  # it does not know how to stream
                        reply.add_json(await stream.response.aread())
                    else:
                        async for chunk in stream:
                            silence.reschedule(asyncio.get_running_loop().time() + self._stall)
                            if reply.add(chunk) and first is None:
                                first = time.perf_counter() - start
        except TimeoutError as error:
            if silence.expired():
                raise TimeoutError(f"nothing came for {self._stall:g} s") from error
            raise
        return replace(reply.completion(), seconds=time.perf_counter() - start, first_token_seconds=first)

    async def _whole(self, query: dict[str, Any]) -> Completion:
        start = time.perf_counter()
        response = await self._client.chat.completions.with_raw_response.create(**query)
        reply = Reply()
        reply.add_json(response.content)
        return replace(reply.completion(), seconds=time.perf_counter() - start)

    def _clean(self, text: str) -> str:
        """Take the key out of what a server said, on one line."""
        return " ".join((text.replace(self._key, "***") if self._key else text).split())


def outcome(future: _Outcome[R_co]) -> R_co | BackendError:
    """Wait for what `submit` or `submit_rounds` returned: the reply, or the error of the tries."""
    try:
        return future.result()
    except BackendError as error:
        return error
    except CancelledError as error:
        gone = BackendError("the request was given up: the connection was closed")
        gone.__cause__ = error
        return gone
