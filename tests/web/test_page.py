"""The page as it is served: nothing in it lies elsewhere, pictures go in, answers come out, the rest is not there."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image

from egm.server.run import bind
from egm.web.ask_view import AskDesk
from egm.web.files import add_routes
from egm.web.models import OpenModel
from egm.web.page import build_page, build_web_app
from egm.web.pictures import WebPicture
from egm.web.runs import RunShelf

from .conftest import WAIT, Typing, box_text, form, open_model
from .test_runs import write_run


@dataclass
class Served:
    """A page that is served."""

    place: str
    desk: AskDesk

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.place, timeout=WAIT)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET" if body is None else "POST", path, body, named)
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        return reply.status, {key.lower(): value for key, value in reply.getheaders()}, content


@pytest.fixture(scope="module")
def model() -> Iterator[OpenModel]:
    backend = Typing({"the cup": [box_text(0, 0, 500, 500)]})
    backend.let()
    opened = open_model(backend)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def served(model: OpenModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    run = write_run(tmp_path_factory.mktemp("runs") / "one", "one", {1})
    desk = AskDesk({"typing": model, "another": model})
    server = uvicorn.Server(uvicorn.Config(build_web_app(desk, RunShelf([run])), ws="none", log_config=None))
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield Served("{}:{}".format(*listener.getsockname()), desk)
        server.should_exit = True
        thread.join(WAIT)
        assert not thread.is_alive()


def test_nothing_that_is_loaded_lies_elsewhere(served: Served) -> None:
    status, headers, page = served.ask("/")
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    text = re.sub(r"<meta[^>]*>", "", page.decode())
    config = json.loads(served.ask("/config")[2])
    style = served.ask("/theme.css")[2].decode()
    for where in (text, style):
        assert re.findall(r"""(?:src|href|url|@import)\s*[=(]?\s*["']?\s*(?:https?:)?//[^\s"')]+""", where) == []
    assert config["analytics_enabled"] is False
    assert not config.get("is_space")
    assert config["stylesheets"] == []


def test_every_field_has_a_label(served: Served) -> None:
    parts = json.loads(served.ask("/config")[2])["components"]
    kinds = {"textbox", "radio", "dropdown", "checkbox", "checkboxgroup", "slider", "number"}
    fields = [part["props"] for part in parts if part["type"] in kinds]
    assert len(fields) > 12
    assert all(field["label"].strip() and field["show_label"] for field in fields)
    labels = {field["label"] for field in fields}
    assert {"Phrases, one a line", "Expect", "Model", "Compare with", "Past answers", "Run", "Outcome"} <= labels


def test_no_event_is_an_api(served: Served) -> None:
    config = json.loads(served.ask("/config")[2])
    assert {each["api_visibility"] for each in config["dependencies"]} <= {"private", "undocumented"}


def test_an_upload_comes_back_as_a_picture(served: Served) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (50, 40), (9, 9, 9)).save(stream, "PNG")
    status, _, said = served.ask("/egm/pictures", stream.getvalue(), X_File_Name="my%20cat.png")
    told = json.loads(said)
    assert (status, told["name"]) == (200, "my cat.png")
    status, headers, picture = served.ask(f"/egm/pictures/{told['picture']}")
    assert (status, headers["content-type"]) == (200, "image/webp")
    assert Image.open(io.BytesIO(picture)).size == (50, 40)


def test_what_is_no_picture_is_refused_in_a_line(served: Served) -> None:
    status, _, said = served.ask("/egm/pictures", b"# notes", X_File_Name="notes.md")
    assert status == 422
    assert json.loads(said)["error"].startswith("'notes.md' is not a picture")


def test_answers_are_taken_away(served: Served) -> None:
    name, _, _ = served.desk.take_sample("example")
    *_, last = served.desk.ask("x", name, form())
    [kept] = last.names
    status, headers, lines = served.ask(f"/egm/answers/{kept}.jsonl")
    assert (status, json.loads(lines)["image"]) == (200, "shapes.png")
    status, headers, drawn = served.ask(f"/egm/answers/{kept}.png")
    assert (status, headers["content-type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(drawn)).format == "PNG"
    for number in range(32):
        served.desk.uploads.keep(WebPicture("x", Image.new("RGB", (9, 9), (number, 0, 0)), b""))
    assert served.ask(f"/egm/answers/{kept}.png")[0] == 404  # its picture is no longer kept
    assert served.ask(f"/egm/answers/{kept}.jsonl")[0] == 200
    for gone in (f"{kept}.txt", "nobodys.png", kept):
        assert served.ask(f"/egm/answers/{gone}")[0] == 404
    assert served.ask("/egm/pictures/nobodys")[0] == 404


class Counted(asyncio.Semaphore):
    """Counts whom it lets through."""

    let_through = 0

    async def acquire(self) -> Literal[True]:
        self.let_through += 1
        return await super().acquire()


def test_what_holds_a_picture_in_memory_waits_for_its_turn(model: OpenModel) -> None:
    desk, app, turn = AskDesk({"typing": model}), FastAPI(), Counted(1)
    add_routes(app, desk.uploads, desk.answers, turn)
    name, _, _ = desk.take_sample("example")
    *_, last = desk.ask("x", name, form())

    async def run() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for number, path in enumerate((f"pictures/{name}", f"answers/{last.names[0]}.png"), 1):
                assert (await client.get(f"/egm/{path}")).status_code == 200
                assert turn.let_through == number
            assert (await client.post("/egm/pictures", content=b"# notes")).status_code == 422
            assert turn.let_through == 3
            assert (await client.get(f"/egm/answers/{last.names[0]}.jsonl")).status_code == 200
            assert turn.let_through == 3

    asyncio.run(run())


@pytest.mark.parametrize("path", ["/gradio_api/file=/etc/hosts", "/gradio_api/upload", "/monitoring", "/openapi.json"])
def test_gradios_other_paths_are_shut(served: Served, path: str) -> None:
    assert served.ask(path)[0] == 404


def test_a_page_without_runs_says_how_to_name_one(model: OpenModel) -> None:
    page = build_page(AskDesk({"typing": model}), RunShelf())
    assert "egm web --run RUN" in str(page.get_config_file())
