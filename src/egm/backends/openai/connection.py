"""Where a server is, and how the thread that talks to it ends."""

from __future__ import annotations

import asyncio
import ipaddress
import threading
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from egm.backends.base import Request
from egm.errors import EgmError
from egm.types import Completion

R = TypeVar("R")
_ASK_SECONDS = 10.0


def server_url(url: str) -> tuple[str, bool]:
    """Check a server's URL.

    Returns:
        The URL with its path, `/v1` where it has none, and whether the server is on this machine.

    Raises:
        EgmError: If it is no URL of a server, or holds a password.
    """
    if any(map(str.isspace, url)):  # whatever of it is a password
        raise EgmError("a server's URL has no spaces: give one such as http://127.0.0.1:30000")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = None, None
    if parts is None or parts.scheme not in ("http", "https") or not host:
        shown = url.rpartition("@")[2].partition("?")[0][:200]  # what goes before, or follows, may be a key
        raise EgmError(f"{shown!r} is no server's URL: give one such as http://127.0.0.1:30000")
    if "@" in url:  # also where a password holds / or ?, and what stands before it is read as the host
        host = url.rpartition("@")[2].partition("/")[0].partition("?")[0]
        raise EgmError(f"the URL of {host} holds a password: pass it as api_key, or set OPENAI_API_KEY")
    if parts.query or parts.fragment:
        raise EgmError(
            f"the URL of {host} goes on after its path: leave that out, and pass a key as api_key or OPENAI_API_KEY"
        )
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    path = parts.path.rstrip("/") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}", loopback


async def list_models(client: Any, seconds: float) -> dict[str, str | None]:
    """Ask a server which models it serves.

    Args:
        client: The openai library's, asynchronous.
        seconds: Most to wait.

    Returns:
        By name, in order of the alphabet, where the server has the model from, if it says that, as vLLM does.
    """
    async with asyncio.timeout(seconds):
        models = (await client.models.list()).data
    roots = {str(model.id): getattr(model, "root", None) for model in models}
    return {name: root if isinstance(root, str) else None for name, root in sorted(roots.items())}


async def only_token(client: Any, url: str, *, model: str, text: str) -> int | None:
    """Ask a server which token a text is.

    The OpenAI protocol has no such question; vLLM and SGLang answer it at `/tokenize`.

    Args:
        client: The openai library's, asynchronous.
        url: The server's, as `server_url` returns it.
        model: The name that it serves the model by.
        text: The text.

    Returns:
        The token; None if the text is not exactly one, or the server does not say.
    """
    query = {"model": model, "prompt": text, "add_special_tokens": False}
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            reply = await client.post(f"{url.removesuffix('/v1')}/tokenize", cast_to=object, body=query)
        tokens = reply["tokens"]
    except Exception:  # whatever is wrong with the answer: it is one that can be done without
        return None
    one = isinstance(tokens, list) and len(tokens) == 1 and isinstance(tokens[0], int)
    return tokens[0] if one else None


async def drive_rounds(
    rounds: Generator[list[Request], Sequence[Completion], R], answer: Callable[[Request], Awaitable[Completion]]
) -> R:
    """Answer rounds of requests (`RemoteBackend.submit_rounds`), those of a round at once; return what they come to.

    The first request that fails for good ends the others.
    """
    asked = next(rounds)
    while True:
        tasks = [asyncio.ensure_future(answer(request)) for request in asked]
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


def stop_loop(loop: asyncio.AbstractEventLoop, thread: threading.Thread, client: Any) -> None:
    """Give up what is under way, close the client, and end the thread that runs the loop."""

    async def clear() -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()
        await loop.shutdown_asyncgens()  # the library's streams
        await loop.shutdown_default_executor()

    def end() -> None:
        loop.create_task(clear()).add_done_callback(lambda _: loop.stop())

    if thread.is_alive():
        loop.call_soon_threadsafe(end)
        if thread is not threading.current_thread():
            thread.join(timeout=5)
    if not loop.is_running():
        loop.close()
