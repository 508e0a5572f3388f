"""The guard: for this machine or who has the key, from no other page, and only what the page needs."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from typing import Any

import pytest

from egm.web.guard import POLICY, WebGuard, is_plain

KEY = "correct-horse"
BASIC = "Basic " + base64.b64encode(f"me:{KEY}".encode()).decode()
OWN = {"host": "127.0.0.1:7860"}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def ask(
    path: str, headers: dict[str, str], *, key: str = "", body: bytes = b"", method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    """Send a request through the guard: status, headers and body of what comes back."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "path": path, "method": method, "headers": pairs}
    asyncio.run(WebGuard(echo, host="127.0.0.1", key=key)(scope, receive, send))
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, sent[1]["body"]


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "[::1]:7860", "127.0.0.1"])
def test_this_machines_names_are_known(host: str) -> None:
    status, headers, _ = ask("/", {"host": host})
    assert status == 200
    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "host", ["evil.example:7860", "192.168.1.2:7860", "", "127.0.0.1.evil.example", "[::1", "[x]:1", "a@b:c"]
)
def test_another_name_is_a_strangers(host: str) -> None:
    assert ask("/", {"host": host})[0] == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://[::1"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_another_page_may_not_ask(headers: dict[str, str]) -> None:
    path = "/gradio_api/queue/join"
    assert ask(path, {**OWN, **headers}, method="POST", body=b'{"data": []}')[0] == 403
    own = {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}
    assert ask(path, {**OWN, **own}, method="POST", body=b'{"data": []}')[0] == 200


@pytest.mark.parametrize("given", ["", "Basic x", "Basic " + base64.b64encode(b"me:wrong").decode(), "Bearer wrong"])
def test_without_the_key_nothing_comes_through(given: str) -> None:
    for path in ("/", "/config", "/egm/pictures/x", "/nothing"):
        status, headers, said = ask(path, {"host": "10.0.0.5:7860", "authorization": given}, key=KEY)
        assert status == 401
        assert headers["www-authenticate"].startswith("Basic ")
        assert KEY.encode() not in said


@pytest.mark.parametrize("given", [BASIC, f"Bearer {KEY}"])
def test_with_the_key_any_name_will_do(given: str) -> None:
    assert ask("/", {"host": "box.example:7860", "authorization": given}, key=KEY)[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=http://example.com/x.png",
        "/gradio_api/file/x",
        "/gradio_api/proxy=https://example.com/",
        "/gradio_api/upload",
        "/gradio_api/run/predict",
        "/gradio_api/call/asked",
        "/gradio_api/component_server",
        "/gradio_api/deep_link",
        "/gradio_api/stream/x",
        "/gradio_api/openapi.json",
        "/monitoring",
        "/docs",
        "/egm/../etc/passwd",
        "/assets/../../x",
        "/x",
    ],
)
def test_what_the_page_does_not_need_is_not_there(path: str) -> None:
    assert ask(path, OWN)[0] == 404


def test_an_event_holds_no_file_nor_address() -> None:
    file = {"path": "http://example.com/x.png", "meta": {"_type": "gradio.FileData"}}
    for data in ([file], [[file]], [[[[["deep"]]]]], {"path": "x"}):
        body = json.dumps({"data": data, "fn_index": 0}).encode()
        assert ask("/gradio_api/queue/join", OWN, method="POST", body=body)[0] == 400
    for text in (
        '"fn_index": "x"',
        '"fn_index": -1',
        '"fn_index": 1e999',
        '"fn_index": true',
        '"session_hash": 5',
        '"data": [1e999]',
    ):
        assert not is_plain(b"{" + text.encode() + b"}")
    assert not is_plain(b"[" * 100_000)
    for told in (
        file,
        {"picture": file},
        {"picture": ["x"]},
        {"picture": {}},
        {"url": "http://example.com"},
        {"meta": None},
        [file],
        {"picture": math.inf},
    ):
        body = json.dumps({"data": [], "event_data": told}).encode()
        assert ask("/gradio_api/queue/join", OWN, method="POST", body=body)[0] == 400
    for told in ({"picture": "x", "index": 1, "selected": True}, "words", ["hit"], 1, None):
        assert is_plain(json.dumps({"data": [], "event_data": told}).encode())
    plain = json.dumps({"data": ["cup", 1, True, None, ["hit", "other"]], "event_data": None}).encode()
    assert ask("/gradio_api/queue/join", OWN, method="POST", body=plain)[::2] == (200, plain)


def test_bodies_are_bounded() -> None:
    assert ask("/gradio_api/queue/join", OWN, method="POST", body=b" " * (2 << 20))[0] == 413
    assert ask("/egm/pictures", OWN, method="POST", body=b" " * (2 << 20))[0] == 200
    assert ask("/egm/pictures", {**OWN, "content-length": str(300 << 20)}, method="POST")[0] == 413
