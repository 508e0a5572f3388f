"""What a server says of itself: the engine's name with its models, and its version where vLLM and SGLang say that."""

from __future__ import annotations

import json
from typing import Any

from egm.backends.openai.key import without_key

_ANSWER_BYTES = 1 << 20
_ASK_SECONDS = 5.0


def ask_server(url: str, *, api_key: str, loopback: bool) -> tuple[str, str | None]:
    """Ask a server for its name and version.

    Args:
        url: Where it is, as `server_url` returns it.
        api_key: Its key, or nothing. No redirect is followed: the key is for the server that was named.
        loopback: Whether it is on this machine; then no proxy is used, which could not reach it.

    Returns:
        The name, "server" where it says none, and the version, None where it does not say.
    """
    root = url.removesuffix("/v1")
    with _client(api_key, loopback=loopback) as client:
        models = _get(client, f"{url}/models").get("data")
        owner = (
            models[0].get("owned_by") if isinstance(models, list) and models and isinstance(models[0], dict) else None
        )
        release = None
        for path in ("version", "server_info", "get_server_info"):
            release = _printable(_get(client, f"{root}/{path}").get("version"), api_key)
            if release is not None:
                break
    return _printable(owner, api_key) or "server", release


def context_length(url: str, model: str, *, api_key: str, loopback: bool) -> int | None:
    """Ask a server how many tokens a prompt and its answer may have together; None where it does not say.

    Args:
        url: See `ask_server`, as for the key and the loopback.
        model: The name that it serves the model by.
        api_key: Its key, or nothing.
        loopback: Whether it is on this machine.
    """
    with _client(api_key, loopback=loopback) as client:
        models = _get(client, f"{url}/models").get("data")
    for one in models if isinstance(models, list) else []:
        if isinstance(one, dict) and one.get("id") == model:
            length = one.get("max_model_len")
            return length if isinstance(length, int) and length > 0 else None
    return None


def _client(api_key: str, *, loopback: bool) -> Any:
    import openai

    headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
    # The openai library's own HTTP client (httpx or its successor, as its version has it).
    return openai.DefaultHttpxClient(
        headers=headers, timeout=_ASK_SECONDS, follow_redirects=False, trust_env=not loopback
    )


def _printable(value: object, api_key: str) -> str | None:
    text = " ".join(without_key(value, api_key).split())[:80] if isinstance(value, str) else ""
    return text if text and text.isprintable() else None


def _get(client: Any, url: str) -> dict[str, Any]:
    """Fetch a JSON object; an empty one stands for whatever is wrong, since a name is no reason not to measure."""
    content = b""
    try:
        with client.stream("GET", url) as reply:
            if not reply.is_success:
                return {}
            for chunk in reply.iter_raw():
                content += chunk
                if len(content) > _ANSWER_BYTES:
                    return {}
        value = json.loads(content)
    except Exception:
        return {}
    return value if isinstance(value, dict) else {}
