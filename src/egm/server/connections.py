"""Connections: so many at once, and none that stays without asking anything."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from egm.server.errors import HttpError
from egm.server.limits import Limits
from egm.server.scheduler import Scheduler


def bounded_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """Make the class of connections that keep to limits, which uvicorn itself does not set: it waits for ever for a
    request's head, and accepts any number.
    """
    too_many = HttpError(503, f"{limits.connections} connections are open, and that is the limit: try later")
    body = json.dumps(too_many.body()).encode()
    head = f"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    refusal = f"{head}retry-after: 1\r\nconnection: close\r\n\r\n".encode() + body

    class BoundedConnection(H11Protocol):
        """A connection that is closed where no request begins in time, or where there are too many."""

        waits: asyncio.TimerHandle | None = None
        refused = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                self.refused = True
                transport.write(refusal)
                transport.close()
            else:
                self._time_head()

        def data_received(self, data: bytes) -> None:
            if not self.refused:
                super().data_received(data)
                self._time_head()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._time_head()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._stop_timer()

        def _time_head(self) -> None:
            """See that a head comes in time, and also the rest of a body that was refused before it was there."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_timer()
            elif self.waits is None and not self.transport.is_closing():
                self.waits = self.loop.call_later(limits.head_seconds, self._too_late)

        def _too_late(self) -> None:
            self.waits = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.abort()

        def _stop_timer(self) -> None:
            if self.waits is not None:
                self.waits.cancel()
                self.waits = None

    return BoundedConnection


_CLOSE_SECONDS = 5  # after what was under way was given up


class Server(uvicorn.Server):
    """A uvicorn server that bounds its own end, and whose end by a signal is none by an error.

    Args:
        config: uvicorn's.
        limits: The limits.
    """

    def __init__(self, config: uvicorn.Config, limits: Limits) -> None:
        super().__init__(config)
        self._limits = limits

    def end(self, *_: Any) -> None:
        """Tell the server to end; takes what a signal's handler is given."""
        self.should_exit = True

    async def shutdown(self, sockets: Any = None) -> None:
        """Answer what is under way, for so long as the limits say, then give it up."""
        app: Any = self.config.app
        scheduler: Scheduler = app.state.scheduler
        timer = asyncio.get_running_loop().call_later(self._limits.grace_seconds, scheduler.stop)
        await super().shutdown(sockets)
        timer.cancel()


def make_server(app: FastAPI, limits: Limits) -> Server:
    """Make the server of an application; its `run` takes the socket that it is to listen at.

    Args:
        app: What `build_app` returns.
        limits: The limits, the same.
    """
    config = uvicorn.Config(
        app,
        http=bounded_protocol(limits),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=math.ceil(limits.head_seconds),
        timeout_graceful_shutdown=int(limits.grace_seconds) + _CLOSE_SECONDS,
    )
    return Server(config, limits)
