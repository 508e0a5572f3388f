"""What answers a command: a model in this process, one behind servers, or a server of the command's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from egm.cli import options
from egm.cli.served import served_grounder

if TYPE_CHECKING:
    from egm.grounder import Grounder
    from egm.serve import RunningServer

Facts: TypeAlias = Callable[[], dict[str, Any]]
"""Tells what decides answers, for a run to be gone on with by the same; reads the weights, for which not all ask."""


@contextmanager
def opened_grounder(
    model: str | None,
    *,
    server: str | Sequence[str] | None,
    serve: str | None = None,
    aim: str | None = None,
    codec: str | None,
    device: str,
    dtype: str,
    concurrency: int | None = None,
    logprobs: bool = False,
    **asking: Any,
) -> Iterator[tuple[Grounder, Facts]]:
    """Open what answers a command.

    Args:
        model: The model, or its name behind the server; None takes egm-tiny, or the server's only model.
        server: The server's URL, or those of several.
        serve: The engine that is started; `refuse_two_servers` has refused it beside a server.
        aim: For what.
        codec: Name of the codec.
        device: Where a model in this process, or of a server that is started, computes.
        dtype: Its type.
        concurrency: Most questions answered together; None takes 8 a server, and in this process what suits the model.
        logprobs: Whether servers that are there are asked for log-probabilities.
        **asking: What `Grounder.load` and `Grounder.connect` take both.

    Yields:
        The grounder, which is closed after, and what decides its answers.
    """
    from egm.codecs import DEFAULT_CODEC
    from egm.grounder import Grounder

    if serve is not None:
        placed: dict[str, Any] = {"device": device, "dtype": dtype, "concurrency": concurrency or 8}
        with served_grounder(model, serve, aim, codec=codec, **placed, **asking) as (grounder, there):
            yield grounder, lambda: served_facts(there, aim)
        return
    if server:
        options.refuse_placement(device, dtype)
        servers = [server] if isinstance(server, str) else [*server]
        most = 8 * len(servers) if concurrency is None else concurrency
        with Grounder.connect(
            servers, model, codec=codec or DEFAULT_CODEC, concurrency=most, logprobs=logprobs, **asking
        ) as grounder:
            yield grounder, lambda: _server_facts(servers)
        return
    name = model or "egm-tiny"
    with Grounder.load(name, codec=codec, device=device, dtype=dtype, batch_size=concurrency, **asking) as grounder:
        yield grounder, lambda: _local_facts(name, device, dtype)


def served_facts(server: RunningServer, aim: str | None) -> dict[str, Any]:
    """What of a server decides its answers or their latency, for a journal; its port changes from start to start."""
    return {"serve": server.engine, "version": server.version, "aim": aim, **_digests(server.folder)}


def server_place(server: str) -> str:
    """Which server it is, for a run to go on with: on this machine, ports change from start to start."""
    from egm.backends.openai.connection import server_url

    url, loopback = server_url(server)
    parts = urlsplit(url)
    return ("this machine" if loopback else parts.netloc.lower()) + parts.path


def _server_facts(servers: Sequence[str]) -> dict[str, Any]:
    # Several are of the same kind as one, so that a run may be gone on with by more of them, or fewer.
    return {"backend": "OpenAIBackend", "server": ", ".join(sorted({*map(server_place, servers)}))}


def _local_facts(model: str, device: str, dtype: str) -> dict[str, Any]:
    from egm.backends.checkpoint import find_checkpoint

    return {"device": device, "dtype": dtype, **_digests(find_checkpoint(model).path)}


def _digests(folder: Path) -> dict[str, Any]:
    from egm.backends.checkpoint import configuration_digest, tensors_digest, weights_digest

    return {
        "weights": weights_digest(folder),
        "tensors": tensors_digest(folder),
        "configuration": configuration_digest(folder),
    }
