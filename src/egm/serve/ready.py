"""Whether a server is ready: it listens, it is healthy, and it answers a question of grounding as a model does."""

from __future__ import annotations

import errno
import http.client
import socket
from contextlib import closing
from typing import Any, Final
from urllib.parse import urlsplit

from egm.backends.base import GenerationSettings
from egm.backends.checkpoint import EMBEDDED, EMBEDDED_MAX_NEW_TOKENS
from egm.backends.retry import RetryPolicy
from egm.datasets.synthetic.example import example_picture
from egm.errors import BackendError, EgmError
from egm.grounder import Grounder
from egm.images import load_image
from egm.types import HIT_IOU, Sample

PHRASE: Final = "the cross farthest from the square"
"""What is asked of the example picture."""
_BOX = (195.072, 170.912, 218.88, 195.104)  # the answer of egm-tiny in process, which is right
_TOKENS = 512  # an answer by a model that thinks; one without sense goes on to the end
_SECONDS = 5.0
_FIRST_SECONDS = 600.0  # a first answer waits for kernels to be compiled


def free_port() -> int:
    """Find a port of this machine that nobody listens on."""
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def check_port(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on, before anything is loaded.

    Raises:
        EgmError: If the port is taken or not allowed, or the address is none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with closing(socket.socket(family, kind, protocol)) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: one that has ended is no matter
            one.bind(address)
    except OSError as error:
        why = error.strerror or error
        if error.errno == errno.EADDRINUSE:
            raise EgmError(f"port {port} of {host} is taken: end what listens there, or give another --port") from None
        raise EgmError(f"{host}:{port} cannot be listened on ({why}): check --host and --port") from None


def is_healthy(url: str) -> bool:
    """Whether a server says that it is well."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    with closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=_SECONDS)) as connection:
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False


def check_grounding(url: str, model: str, codec: str, *, name: str, key: str = "", context: int = 4096) -> str:
    """Ask a server about the example picture, and look at the answer.

    Args:
        url: Where it is.
        model: The name that it serves the model by.
        codec: How that is asked.
        name: What the model is: of egm-tiny, the box must be right.
        key: The server's key, or nothing.
        context: Tokens that its context has room for.

    Returns:
        What came, in a few words.

    Raises:
        BackendError: If no text came, or that of egm-tiny points elsewhere.
    """
    tokens = EMBEDDED_MAX_NEW_TOKENS if name == EMBEDDED else min(_TOKENS, max(1, context // 4))
    settings = GenerationSettings(max_new_tokens=tokens)
    image = load_image(example_picture())
    patient: dict[str, Any] = {"retry": RetryPolicy(retries=2), "stall_seconds": _FIRST_SECONDS}
    with Grounder.connect(url, model, codec=codec, settings=settings, api_key=key or "none", **patient) as grounder:
        found = next(iter(grounder.answer_each([(0, Sample(id="ready", image=image, phrase=PHRASE))])))
    if isinstance(found, EgmError):
        raise BackendError(f"the server does not answer a question of grounding: {found}")
    answer = found.grounding
    if answer.box is None:
        if name == EMBEDDED or not found.completion.text.strip():
            raise BackendError(f"the server answers without a box ({answer.failure}), as {name} does not")
        return f"text came, without a box ({answer.failure})"
    shown = " ".join(f"{value:.0f}" for value in answer.box)
    if name == EMBEDDED:
        from egm.boxes import Box, iou

        if iou(answer.box, Box(*_BOX)) < HIT_IOU:
            raise BackendError(f"the server points at {shown} for {PHRASE!r}, and {name} does not: egm doctor says why")
    return f"box {shown} for {PHRASE!r}"
