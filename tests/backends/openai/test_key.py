"""Keys are read whole, sent to one server, and shown nowhere."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import pytest
from PIL import Image

from egm.backends.openai.backend import OpenAIBackend
from egm.backends.openai.key import read_key, without_key
from egm.datasets import open_dataset
from egm.errors import BackendError, EgmError
from egm.evaluate import evaluate
from egm.grounder import Grounder

from ..faulty_server import FaultyServer, fail, say

KEY = "sk-SECRET/123456+abc"


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", " {} ", "\t{}"])
def test_white_space_around_a_key_is_none_of_it(monkeypatch: pytest.MonkeyPatch, around: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", around.format(KEY))
    with FaultyServer({"": [say("</think> [0, 0, 500, 500]")]}) as server:
        with Grounder.connect(server.url) as grounder:
            assert grounder.ground(Image.new("RGB", (64, 32)), "the cup").box is not None
        assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}


@pytest.mark.parametrize("key", ["sk-1\n23456", "sk-1\r23456", "sk 123456", "sk-\x00123456", "sk-\u00e4123456"])
def test_what_no_header_holds_is_refused_before_a_request(key: str) -> None:
    with pytest.raises(EgmError, match="the api_key holds") as caught:
        OpenAIBackend("http://127.0.0.1:1", "tiny", api_key=key)
    assert "123456" not in str(caught.value)


ECHOES = [KEY, repr(KEY), json.dumps(KEY), KEY.replace("/", "\\/"), KEY.replace("/", "%2F").replace("+", "%2B")]


@pytest.mark.parametrize("echo", ECHOES)
def test_no_form_of_it_is_shown(echo: str) -> None:
    with (
        FaultyServer({"": [fail(401, f"bad key  {echo} here")]}) as server,
        Grounder.connect(server.url, "tiny", api_key=KEY) as grounder,
        pytest.raises(BackendError) as caught,
    ):
        grounder.ground(Image.new("RGB", (64, 32)), "the cup")
    shown = "".join(traceback.format_exception(caught.value))
    assert "bad key" in shown
    assert "SECRET" not in shown


def test_a_journal_never_holds_it(tmp_path: Path) -> None:
    Image.new("RGB", (64, 32)).save(tmp_path / "a.png")
    row = {"image": "a.png", "sent": "cup", "bbox": [0, 0, 32, 16], "width": 64, "height": 32}
    (tmp_path / "d.jsonl").write_text(json.dumps(row))
    data = open_dataset(str(tmp_path / "d.jsonl"))
    with FaultyServer({"": [fail(401, f"no such key: {KEY}")]}) as server:
        with Grounder.connect(server.url, "tiny", api_key=KEY + "\n") as grounder:
            evaluate(data, grounder, tmp_path / "run", progress=False)
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    written = b"".join(path.read_bytes() for path in (tmp_path / "run").iterdir())
    assert b"no such key: ***" in written
    assert b"SECRET" not in written


def test_a_url_that_holds_one_is_not_shown() -> None:
    for url in (f"http://127.0.0.1:1/v1?api_key={KEY}", f"http://me:{KEY}@127.0.0.1:1", f"nothing://{KEY}@x?y={KEY}"):
        with pytest.raises(EgmError) as caught:
            OpenAIBackend(url, "tiny")
        assert "SECRET" not in str(caught.value)


def test_words_that_are_no_key_stay() -> None:
    assert without_key("the key k is kept", read_key("k")) == "the key k is kept"
