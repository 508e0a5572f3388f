"""The application: what is asked at which path, and how it is answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse

from egm._version import __version__
from egm.backends.base import Backend
from egm.errors import EgmError
from egm.server.errors import HttpError, invalid_fields
from egm.server.guard import CLEANUP, Guard
from egm.server.limits import DEFAULT_CONTEXT, LONGEST_TOKEN, Held, Limits
from egm.server.listener import Listener
from egm.server.messages import read_request
from egm.server.protocol import ChatRequest, TokenizeRequest
from egm.server.replies import WARNING, Answer, error_event
from egm.server.scheduler import Finished, QueuedRequest, Scheduler
from egm.terminal import printable

log = logging.getLogger(__name__)
_DECODED_AT_ONCE = 2  # pictures: one may take a second, and half a gigabyte
_JOIN_SECONDS = 10.0


def build_app(
    backend: Backend, *, names: Sequence[str] = (), batch_size: int = 8, limits: Limits | None = None, key: str = ""
) -> FastAPI:
    """Make the application that serves a backend, which stays open for whoever opened it to close.

    Args:
        backend: What answers. One thread runs it; nobody else may while the application does.
        names: What the model is called in requests; by default as the backend calls it.
        batch_size: Most requests to answer together.
        limits: The limits.
        key: The key that requests must bring; empty where none is asked for.

    Raises:
        EgmError: If the batch size is out of range.
    """
    if batch_size < 1:
        raise EgmError(f"batch_size {batch_size} is out of range: give at least 1")
    service = _Service(backend, tuple(names) or (backend.model,), batch_size, limits or Limits())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.scheduler = service.start()
        yield
        await asyncio.to_thread(app.state.scheduler.close, _JOIN_SECONDS)

    # No pages of documentation: they load scripts from elsewhere.
    app = FastAPI(title="EGM", version=__version__, lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, limits=service.limits, key=key)
    app.add_api_route("/health", service.health, methods=["GET"])
    app.add_api_route("/version", service.version, methods=["GET"])
    app.add_api_route("/v1/models", service.models, methods=["GET"])
    app.add_api_route("/tokenize", service.tokenize, methods=["POST"])
    app.add_api_route("/v1/chat/completions", service.chat, methods=["POST"], response_model=None)

    @app.exception_handler(HttpError)
    async def refused(request: Request, error: HttpError) -> JSONResponse:
        log.info("%s %s: %d %s", request.method, printable(request.url.path), error.status, printable(error.message))
        return JSONResponse(error.body(), error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return await refused(request, invalid_fields(error.errors()))

    @app.exception_handler(EgmError)
    async def wrong(request: Request, error: EgmError) -> JSONResponse:
        return await refused(request, HttpError(422, str(error)))

    @app.exception_handler(400)
    async def unreadable(request: Request, error: HTTPException) -> JSONResponse:  # noqa: ARG001 - a handler gets it
        return await refused(request, HttpError(400, "the body cannot be read: send a JSON object, in UTF-8"))

    @app.exception_handler(HTTPException)
    @app.exception_handler(404)
    @app.exception_handler(405)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        return await refused(request, HttpError(error.status_code, str(error.detail), headers=error.headers))

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:  # which is raised anew, and logged by uvicorn
        return await refused(request, HttpError(500, f"the server failed: {type(error).__name__}"))

    return app


class _Service:
    """The paths, over one scheduler."""

    def __init__(self, backend: Backend, names: tuple[str, ...], batch_size: int, limits: Limits) -> None:
        self.backend, self.names, self.limits = backend, names, limits
        self._batch_size, self._context = batch_size, backend.context or DEFAULT_CONTEXT
        self._pixels = Held("pixels", limits.held_pixels)
        self._decoding = asyncio.Semaphore(_DECODED_AT_ONCE)
        self._scheduler: Scheduler

    def start(self) -> Scheduler:
        self._scheduler = Scheduler(self.backend, batch_size=self._batch_size, queue=self.limits.queue)
        return self._scheduler

    async def health(self) -> JSONResponse:
        return JSONResponse({}, 200 if self._scheduler.alive else 503)

    async def version(self) -> dict[str, str]:
        return {"version": __version__}

    async def models(self) -> dict[str, Any]:
        own = {"object": "model", "created": 0, "owned_by": "egm", "max_model_len": self._context}
        return {"object": "list", "data": [{"id": name, **own} for name in self.names]}

    async def tokenize(self, body: TokenizeRequest) -> dict[str, Any]:
        self._check_model(body.model or self.names[0])
        self._check_length(len(body.prompt))
        tokens = await asyncio.wrap_future(self._scheduler.call(lambda: self.backend.tokenize(body.prompt)))
        if tokens is None:
            raise HttpError(501, f"{type(self.backend).__name__} does not tell its tokens")
        own = {"max_model_len": self._context, "token_strs": None}
        return {"count": len(tokens), "tokens": tokens, **own}

    async def chat(self, body: ChatRequest, request: Request) -> Response:
        listener = Listener(self.limits.request_seconds)
        answer = Answer(body, self._context)
        await self._begin(body, request, listener)
        event = await listener.next()
        if body.stream:  # what is wrong with a request is known by now, and told by a status
            warned = _header(answer.known_warnings())
            return StreamingResponse(_stream(event, listener, answer), headers=warned, media_type="text/event-stream")
        while not isinstance(event, Finished):
            event = await listener.next()
        log.info("answered: %s", answer.note(event.completion))
        return JSONResponse(answer.whole(event.completion), headers=_header(answer.warnings(event.completion)))

    async def _begin(self, body: ChatRequest, request: Request, listener: Listener) -> None:
        """Let a request wait for its turn; it is given up when its client goes, or its scope ends."""
        stack: AsyncExitStack = request.scope[CLEANUP]
        self._check_model(body.model)
        self._check_length(body.characters)
        self._scheduler.check_room()
        settings = body.settings(self._context)
        async with self._decoding:
            asked = await asyncio.to_thread(read_request, body)
        pixels = sum(image.width * image.height for image in asked.images)
        self._pixels.take(pixels)
        stack.callback(self._pixels.give_back, pixels)
        job = QueuedRequest(asked, settings, listener.tell)
        self._scheduler.submit(job)
        stack.callback(self._scheduler.give_up, job)
        gone = asyncio.create_task(_until_gone(request))
        gone.add_done_callback(lambda _: listener.tell(HttpError(499, "the client has gone")))
        stack.callback(gone.cancel)

    def _check_length(self, characters: int) -> None:
        if characters > LONGEST_TOKEN * self._context:
            raise HttpError(400, f"a text of {characters} characters leaves no room in a context of {self._context}")

    def _check_model(self, name: str) -> None:
        if name not in self.names:
            served = ", ".join(map(repr, self.names))
            raise HttpError(404, f"there is no model {name[:100]!r} here: this server has {served}", field="model")


async def _stream(event: str | Finished, listener: Listener, answer: Answer) -> AsyncIterator[bytes]:
    yield answer.first()
    try:
        while not isinstance(event, Finished):
            yield answer.piece(event)
            event = await listener.next()
    except HttpError as error:
        log.info("a stream ended: %s", printable(error.message))
        yield error_event(error.body())
        return
    if event.text:
        yield answer.piece(event.text)
    for line in answer.last(event.completion):
        yield line
    log.info("streamed: %s", answer.note(event.completion))


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _header(warnings: Sequence[str]) -> dict[str, str]:
    return {WARNING: "; ".join(warnings)} if warnings else {}
