"""Start the server: a port that is free, a key where others can reach it, a model, and a clean end."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from egm.errors import EgmError
from egm.extras import need
from egm.server.limits import Limits

log = logging.getLogger(__name__)

KEY_VARIABLE: Final = "EGM_SERVER_KEY"
_LONGEST_KEY = 4096
_SHORTEST_KEY = 8


def serve(
    model: str | os.PathLike[str] = "egm-tiny",
    *,
    host: str = "127.0.0.1",
    port: int = 30000,
    names: Sequence[str] = (),
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int = 8,
    limits: Limits | None = None,
    key: str = "",
) -> None:
    """Serve a model until SIGTERM or SIGINT comes; call it in the main thread.

    Args:
        model: What `find_checkpoint` takes. egm-tiny is run in NumPy, unless another device or type is asked for.
        host: The address to listen at; one that other machines reach needs a key.
        port: The port; 0 takes one that is free.
        names: What the model is called in requests; by default as it is given.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        dtype: "auto" (bfloat16 on a GPU, float32 on the CPU), "float32", "bfloat16" or "float16".
        batch_size: Most requests to answer together.
        limits: The limits.
        key: The key that requests must bring; empty where none is asked for.

    Raises:
        EgmError: If the address is for other machines and there is no key, the port is taken, or a number is out of
            range.
        ModelError: If the model cannot be loaded.
        MissingExtraError: Without fastapi and uvicorn.
    """
    need("a server of one's own", "fastapi", "uvicorn")
    limits = limits or Limits()
    check_address(host, key)
    with closing(bind(host, port)) as listener:
        from egm.backends.load import load_backend
        from egm.server.app import build_app
        from egm.server.connections import make_server

        port = listener.getsockname()[1]
        with load_backend(model, device=device, dtype=dtype) as backend:
            app = build_app(backend, names=names or (os.fspath(model),), batch_size=batch_size, limits=limits, key=key)
            server = make_server(app, limits)
            for number in (signal.SIGINT, signal.SIGTERM):  # once it has ended, uvicorn raises them anew
                signal.signal(number, server.end)
            _listen(listener, host, port)
            shown = f"[{host}]" if ":" in host else host
            log.info("serving %s at http://%s:%d/v1 with %s", model, shown, port, type(backend).__name__)
            server.run(sockets=[listener])
    log.info("ended")


def check_address(host: str, key: str) -> None:
    """Refuse an address that other machines reach, without a key.

    Raises:
        EgmError: If it is one.
    """
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback and not key:
        raise EgmError(
            f"{host!r} can be reached from other machines, and there is no key: set {KEY_VARIABLE}, give --key-file, "
            "or listen at 127.0.0.1"
        )


def bind(host: str, port: int) -> socket.socket:
    """Take a port, so that what is wrong with it is known before a model is loaded; nothing listens there yet.

    Raises:
        EgmError: If it is taken, not allowed or none, or there is no such address here.
    """
    if not 0 <= port < 2**16:
        raise EgmError(f"port {port} is out of range: give 1 to 65535, or 0 for one that is free")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _unusable(error, host, port) from error
    return listener


def _listen(listener: socket.socket, host: str, port: int) -> None:
    try:
        listener.listen()
    except OSError as error:  # somebody else took the same port, and was quicker to load
        raise _unusable(error, host, port) from error


def _unusable(error: OSError, host: str, port: int) -> EgmError:
    if error.errno == errno.EADDRINUSE:
        return EgmError(f"port {port} of {host} is taken: end what listens there, or give another --port")
    return EgmError(f"cannot listen at {host}, port {port} ({error.strerror or error}): give another --host or --port")


def read_key(file: Path | None) -> str:
    """Read the server's key from a file, or else from the environment.

    Args:
        file: A file that holds nothing else; None reads `EGM_SERVER_KEY`.

    Returns:
        The key, empty where there is none.

    Raises:
        EgmError: If the file cannot be read, or the key is short, or holds what no header can.
    """
    given, where = os.environ.get(KEY_VARIABLE, ""), KEY_VARIABLE
    if file is not None:
        where = f"--key-file {file}"
        try:
            with file.open("rb") as content:
                given = content.read(_LONGEST_KEY + 1).decode("ascii", "replace")
        except OSError as error:
            raise EgmError(f"cannot read {where}: {error.strerror}: check the path and its permissions") from error
    key = given.strip()
    if file is None and not key:
        return ""
    sound = key.isascii() and key.isprintable() and " " not in key
    if not sound or not _SHORTEST_KEY <= len(key) <= _LONGEST_KEY:
        raise EgmError(
            f"the key in {where} is no key: give {_SHORTEST_KEY} to {_LONGEST_KEY} letters, digits and signs, "
            "such as `openssl rand -hex 24` prints"
        )
    return key
