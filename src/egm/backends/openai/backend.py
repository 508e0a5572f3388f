"""Models behind an OpenAI-compatible server: SGLang, vLLM, `transformers serve`, or a hosted API."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from egm.backends.base import EngineInfo, GenerationSettings, Request, no_logprobs
from egm.backends.openai.bounds import TextBound, bound_wire, bounded_response
from egm.backends.openai.budget import answer_within_budget
from egm.backends.openai.connection import drive_rounds, list_models, only_token, server_url, stop_loop
from egm.backends.openai.early_stop import answer_up_to_stop
from egm.backends.openai.faults import ServerFaultError, classify_exception
from egm.backends.openai.key import read_key, without_key
from egm.backends.openai.messages import RemoteRequest, body, plain_jpeg
from egm.backends.openai.replies import Reply
from egm.backends.openai.server_info import ask_server, context_length
from egm.backends.openai.told import ToldText
from egm.backends.remote import RemoteBackend, Rounds
from egm.backends.retry import RetryPolicy
from egm.errors import BackendError, EgmError, ModelError
from egm.types import Completion, Message

if TYPE_CHECKING:
    from PIL.Image import Image

    from egm.images import ImageSource

_CONNECT_SECONDS = 10.0
R = TypeVar("R")


class OpenAIBackend(RemoteBackend):
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
        alone: Whether no other server could answer. Else what fails raises ServerFaultError, and what gets no answer
            is not tried again here.

    Raises:
        EgmError: If the URL is none, or a number is out of range.
        ModelError: If the server serves no model, or several and none is named.
        BackendError: If it does not say.
    """

    thinking_budgets = True

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
        alone: bool = True,
    ) -> None:
        if concurrency < 1:
            raise EgmError(f"concurrency {concurrency} is out of range: give at least 1")
        for name, seconds in (("stall_seconds", stall_seconds), ("timeout_seconds", timeout_seconds)):
            if not seconds > 0:
                raise EgmError(f"{name} {seconds} is out of range: give more than 0")
        self.url, self._loopback = server_url(url)
        self.concurrency, self.tells_logprobs, self._alone = concurrency, logprobs, alone
        self._retry = retry or RetryPolicy()
        self._stall, self._timeout = stall_seconds, timeout_seconds
        self._key = read_key(api_key or os.environ.get("OPENAI_API_KEY", ""))
        self.streams = stream
        self._takes_stop: bool | None = None  # until a reply shows it
        self._slots, self._lock = asyncio.Semaphore(concurrency), asyncio.Lock()
        self._think_end_token: tuple[int | None] | None = None  # until it is asked for
        self._client = self._connect()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="egm-openai", daemon=True)
        self._thread.start()
        self._stop = weakref.finalize(self, stop_loop, self._loop, self._thread, self._client)
        try:
            self.model = model or self._only_model()
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
        """Build a request; see `Backend.make_request`. Of the source, a plain JPEG is sent as it is."""
        file = None if source is None else plain_jpeg(source, image)
        return RemoteRequest(messages, [image], seed_index, cut=cut, ends=ends, files=(file,))

    def submit(self, request: Request, settings: GenerationSettings) -> Future[Completion]:
        """Queue a request; see `RemoteBackend.submit`."""
        self._check_open()
        return asyncio.run_coroutine_threadsafe(self._answer(request, settings, time.perf_counter()), self._loop)

    def submit_rounds(self, rounds: Rounds[R], settings: GenerationSettings) -> Future[R]:
        """Queue requests that depend on the replies to earlier ones; see `RemoteBackend.submit_rounds`."""
        self._check_open()
        submitted = time.perf_counter()
        answer = partial(self._answer, settings=settings, submitted=submitted)
        return asyncio.run_coroutine_threadsafe(drive_rounds(rounds, answer), self._loop)

    def describe(self) -> EngineInfo:
        """Ask the server for its name and version; one that does not say is "server". What it runs on it cannot say."""
        name, release = ask_server(self.url, api_key=self._key, loopback=self._loopback)
        return EngineInfo(name, release, packages=("openai",))

    def usual_settings(self) -> GenerationSettings:
        """Greedy settings whose answers leave a quarter of the server's context, where it states one, to the prompt."""
        usual = GenerationSettings()
        context = context_length(self.url, self.model, api_key=self._key, loopback=self._loopback)
        most = usual.max_new_tokens if context is None else min(usual.max_new_tokens, max(1, 3 * context // 4))
        return replace(usual, max_new_tokens=most)

    def text_fields(self, request: Request, settings: GenerationSettings) -> dict[str, int]:
        """Ask once, not streamed, and say how many characters stand in each field of the message that holds text.

        Servers differ in where they put the reasoning, and some put it where no client looks.

        Raises:
            BackendError: If the server does not answer.
        """

        async def ask() -> Any:
            query = await asyncio.to_thread(body, request, settings, model=self.model)
            bound_wire(settings.max_new_tokens, logprobs=False)
            async with asyncio.timeout(self._timeout):
                return (await self._client.chat.completions.with_raw_response.create(**query)).content

        self._check_open()
        try:
            content = asyncio.run_coroutine_threadsafe(ask(), self._loop).result()
            message = json.loads(content)["choices"][0]["message"]
            return {str(name): len(held) for name, held in message.items() if isinstance(held, str)}
        except Exception as error:
            fault = classify_exception(error, now=time.time(), clean=self._clean)
            raise BackendError(f"{self.model!r} at {self.url} did not answer: {fault.text}") from None

    def close(self) -> None:
        """Give up what is under way and close the connections."""
        self._stop()

    def _connect(self) -> Any:
        import openai

        return openai.AsyncOpenAI(
            base_url=self.url,
            api_key=self._key or "none",  # the library wants one even where the server does not
            max_retries=0,  # ours know the errors better
            timeout=openai.Timeout(self._timeout, connect=min(_CONNECT_SECONDS, self._timeout)),
            # A proxy cannot reach this machine's own servers.
            http_client=openai.DefaultAsyncHttpxClient(
                trust_env=not self._loopback,
                follow_redirects=False,  # key and pictures are for the server that was named
                headers={"Accept-Encoding": "identity"},
                event_hooks={"response": [bounded_response]},
            ),
        )

    def served_models(self, seconds: float) -> Future[dict[str, str | None]]:
        """Ask which models it serves.

        Args:
            seconds: Most to wait.

        Returns:
            A future of what `list_models` returns, which raises ServerFaultError where the server does not say.
        """

        async def ask() -> dict[str, str | None]:
            try:
                return await list_models(self._client, seconds)
            except Exception as error:
                fault = classify_exception(error, now=time.time(), clean=self._clean)
                # The cause may hold the key, in what the server said of it: a traceback would print that.
                raise ServerFaultError(f"{self.url} does not say which models it serves: {fault.text}", fault) from None

        self._check_open()
        return asyncio.run_coroutine_threadsafe(ask(), self._loop)

    def _only_model(self) -> str:
        try:
            names = list(self.served_models(min(self._stall, self._timeout)).result())
        except ServerFaultError as error:
            raise BackendError(f"{error} (or name the model, as --model does)") from None
        if not names:
            raise ModelError(f"{self.url} lists no model: name the one to ask for")
        if len(names) > 1:
            raise ModelError(
                f"{self.url} serves several models: name one, as --model does: {self._clean(', '.join(names))[:500]}"
            )
        return names[0]

    def _check_open(self) -> None:
        if not self._stop.alive:
            raise BackendError(f"the connection to {self.url} is closed: make another OpenAIBackend")

    async def _answer(self, request: Request, settings: GenerationSettings, submitted: float) -> Completion:
        async def ask(request: Request, settings: GenerationSettings) -> Completion:
            return await answer_up_to_stop(
                request, settings, partial(self._ask, submitted), lambda: self._takes_stop is not False
            )

        return await answer_within_budget(request, settings, ask, self._think_end)

    async def _think_end(self) -> int | None:
        """Ask the server, once, for the token that closes reasoning."""
        async with self._lock:
            if self._think_end_token is None:
                self._think_end_token = (await only_token(self._client, self.url, model=self.model, text="</think>"),)
            return self._think_end_token[0]

    async def _ask(self, submitted: float, request: Request, settings: GenerationSettings) -> Completion:
        async with self._slots:  # also while waiting between tries: a server that is overloaded gets fewer requests
            query = await asyncio.to_thread(body, request, settings, model=self.model)
            tells = self.tells_logprobs or request.token_logprobs
            query |= {"logprobs": True} if tells else {}
            stopping = "stop" in query
            bound_wire(settings.max_new_tokens, logprobs=tells)
            attempt, lost = 0, (0, 0)
            while True:
                if self._takes_stop is False:
                    query.pop("stop", None)
                streamed, sent = self.streams, time.perf_counter()
                try:
                    async with asyncio.timeout(self._timeout):
                        reply = await (self._stream(query, request) if streamed else self._whole(query))
                    text = without_key(reply.text, self._key, answer=True)  # as one that shows what it was sent does
                    finish_reason = without_key(reply.finish_reason, self._key)
                    self._note_stop(sent="stop" in query, wanted=stopping)
                    queued = sent - submitted
                    return replace(
                        reply, text=text, finish_reason=finish_reason, queue_seconds=queued, lost_tokens=lost
                    )
                except Exception as error:
                    fault = classify_exception(error, now=time.time(), clean=self._clean)
                    lost = lost[0] + fault.tokens[0], lost[1] + fault.tokens[1]
                    if streamed and fault.about_streaming:
                        self.streams = False
                        continue
                    if fault.about_stop and self._takes_stop is None and query.pop("stop", None):
                        continue
                    if request.token_logprobs and not fault.retry and "logprob" in fault.text.lower():
                        raise EgmError(no_logprobs(f"{self.url} refuses to tell them ({fault.text})")) from None
                    elsewhere = not self._alone and (fault.unreachable or fault.timed_out)
                    again = fault.retry and not elsewhere and attempt < self._retry.retries
                    if again and any(fault.tokens) and request.on_lost is not None:
                        again = request.on_lost(fault.tokens)
                        fault = fault if again else replace(fault, retry=False)  # on no other server either
                    if not again:
                        tries = f" after {attempt + 1} tries" if attempt else ""
                        said = f"{self.model!r} at {self.url} did not answer{tries}: {fault.text}"
                        failed = BackendError(said) if self._alone else ServerFaultError(said, fault)
                        failed.lost_tokens = lost
                        raise failed from None  # the cause may hold the key
                await asyncio.sleep(self._retry.wait(attempt, retry_after=fault.retry_after))
                attempt += 1

    def _note_stop(self, *, sent: bool, wanted: bool) -> None:
        """Note by a reply whether the server takes stop strings; one that answers only without them takes none."""
        if wanted and self._takes_stop is None:
            self._takes_stop = sent
            if not sent:
                warnings.warn(
                    f"{self.url} fails at stop strings, and is asked without them: its answers are whole, and no tail "
                    "is cut (cut_tail, --cut-tail)",
                    stacklevel=2,
                )

    async def _stream(self, query: dict[str, Any], request: Request) -> Completion:
        start, first = time.perf_counter(), None
        reply, bound = Reply(query["max_tokens"], query.get("stop", ())), TextBound(query["max_tokens"])
        begun = request.prefill if isinstance(request, RemoteRequest) else ""
        told = ToldText(request, self._key, begun=begun)
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
                            if brought := reply.add(chunk):
                                first = time.perf_counter() - start if first is None else first
                                bound.take(brought)
                                if told.take(reply):
                                    reply.finish_reason = "stop"
                                    break
            completion = reply.completion()
        except BaseException as error:
            told.take_back()
            if isinstance(error, TimeoutError) and silence.expired():
                raise TimeoutError(f"nothing came for {self._stall:g} s") from error
            raise
        return replace(completion, seconds=time.perf_counter() - start, first_token_seconds=first)

    async def _whole(self, query: dict[str, Any]) -> Completion:
        start = time.perf_counter()
        response = await self._client.chat.completions.with_raw_response.create(**query)
        reply = Reply(query["max_tokens"], query.get("stop", ()))
        reply.add_json(response.content)
        return replace(reply.completion(), seconds=time.perf_counter() - start)

    def _clean(self, text: str) -> str:
        """Take the key out of what a server said of an error."""
        return without_key(text, self._key)
