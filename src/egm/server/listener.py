"""What happens to a job, as whoever waits for its answer hears it in the event loop."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from egm.server.errors import HttpError
from egm.server.scheduler import Event, Finished


class Listener:
    """Takes what the backend's thread tells, and hands it out in time.

    Args:
        seconds: How long all of it may take from now on.
    """

    def __init__(self, seconds: float) -> None:
        self._loop, self._seconds = asyncio.get_running_loop(), seconds
        self._deadline = self._loop.time() + seconds
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    def tell(self, event: Event) -> None:
        """Take an event, from any thread."""
        with suppress(RuntimeError):  # the loop has ended, and all who waited with it
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def next(self) -> str | Finished:
        """Wait for the next piece of the text, or its end.

        Raises:
            HttpError: If there is no answer, or none in time.
        """
        try:
            async with asyncio.timeout_at(self._deadline):
                event = await self._events.get()
        except TimeoutError:
            raise HttpError(504, f"no answer within {self._seconds:g} seconds") from None
        if isinstance(event, HttpError):
            raise event
        return event
