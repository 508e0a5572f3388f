"""What was measured: the engine, the versions of what decides its speed, and the hardware."""

from __future__ import annotations

import json
import os
import urllib.request
from typing import TYPE_CHECKING, Any

from egm.environment import cpu_name, driver_version, gpu_name, package_versions

if TYPE_CHECKING:
    from egm.grounder import Grounder

_ANSWER_BYTES = 1 << 20
_ASK_SECONDS = 5.0


def describe(grounder: Grounder, server: str | None = None) -> dict[str, Any]:
    """Say what is measured.

    Args:
        grounder: What `measure` gets.
        server: Its URL, if it is behind one; the server is asked for its name and version.

    Returns:
        `engine`, `model`, `versions` by name (on a GPU, the driver's too), and `hardware`, None behind a server. A
        server that does not say what it is is "server".
    """
    hardware, extra = None, dict[str, str]()
    if server is None:
        engine = type(grounder.backend).__name__
        names = ("numpy",) if engine == "NumpyBackend" else ("torch", "transformers")
        module = getattr(grounder.backend, "module", None)
        hardware = cpu_name()
        if module is not None and module.device.type == "cuda":
            hardware = gpu_name() or hardware
            extra = {"driver": driver} if (driver := driver_version()) else {}
    else:
        engine, release = _server(str(getattr(grounder.backend, "url", server)))
        names = ("openai",)
        extra = {engine: release} if release is not None else {}
    versions = extra | package_versions(*names)
    return {"engine": engine, "model": grounder.backend.model, "versions": versions, "hardware": hardware}


def _server(url: str) -> tuple[str, str | None]:
    """Ask a server for its name and version: what it says of its models, and where vLLM and SGLang say the rest."""
    root = url.removesuffix("/v1")
    models = _get(f"{url}/models").get("data")
    owner = models[0].get("owned_by") if isinstance(models, list) and models and isinstance(models[0], dict) else None
    release = None
    for path in ("version", "server_info", "get_server_info"):
        release = _word(_get(f"{root}/{path}").get("version"))
        if release is not None:
            break
    return _word(owner) or "server", release


def _word(value: object) -> str | None:
    text = " ".join(value.split())[:80] if isinstance(value, str) else ""
    return text if text and text.isprintable() else None


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key is for the server that was named."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _get(url: str) -> dict[str, Any]:
    from egm.backends.openai.connection import server_url

    handlers: list[urllib.request.BaseHandler] = [_Stay()]
    if server_url(url)[1]:
        handlers.append(urllib.request.ProxyHandler({}))  # a proxy cannot reach this machine's own servers
    key = os.environ.get("OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        query = urllib.request.Request(url, headers=headers)  # noqa: S310  # server_url let only http and https pass
        with urllib.request.build_opener(*handlers).open(query, timeout=_ASK_SECONDS) as reply:
            value = json.loads(reply.read(_ANSWER_BYTES))
    except Exception:  # whatever is wrong with the answer: a name is no reason not to measure
        return {}
    return value if isinstance(value, dict) else {}
