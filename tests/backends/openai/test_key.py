"""Keys are read whole, sent to one server, and shown nowhere."""

from __future__ import annotations

import base64
import html
import json
import traceback
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image

from egm.backends import GenerationSettings, Request
from egm.backends.openai.backend import OpenAIBackend
from egm.backends.openai.key import read_key, without_key
from egm.backends.retry import RetryPolicy
from egm.codecs import get_codec
from egm.datasets import open_dataset
from egm.errors import BackendError, EgmError, ModelError
from egm.evaluate import evaluate
from egm.grounder import Grounder

from ..faulty_server import FaultyServer, Play, fail, say

KEY = 'sk-SECRET/123456+a&b<\\"z'


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


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


ECHOES = {
    "as it is": KEY,
    "Python": repr(KEY),
    "JSON": json.dumps(KEY),
    "JSON's slash": KEY.replace("/", "\\/"),
    "JSON in JSON": json.dumps(json.dumps(KEY)),
    "JSON's escapes": "".join(f"\\u{ord(c):04x}" for c in KEY),
    "some of JSON's escapes": json.dumps(KEY).replace("&", "\\u0026").replace("S", "\\u0053"),
    "Python's escapes": "".join(f"\\x{ord(c):02x}" for c in KEY),
    "URL": quote(KEY, safe=""),
    "URL, small": quote(KEY, safe="").lower(),
    "URL of all": "".join(f"%{ord(c):02X}" for c in KEY),
    "URL twice": quote(quote(KEY, safe="")),
    "HTML": html.escape(KEY),
    "HTML twice": html.escape(html.escape(KEY)),
    "HTML's numbers": "".join(f"&#{ord(c)};" for c in KEY),
    "HTML's hexadecimals": "".join(f"&#x{ord(c):X};" for c in KEY),
    "HTML of JSON": html.escape(json.dumps(KEY)),
    "capitals": KEY.upper(),
    "small": KEY.lower(),
    "base64": base64_of(KEY),
    "base64 of a header": base64_of(f"Bearer {KEY}"),
    "base64 of a password": base64_of(f"user:{KEY}"),
    "hexadecimal": KEY.encode().hex(),
    "in words": f"Bearer{KEY}.",
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
@pytest.mark.parametrize("answer", [True, False])
def test_no_form_of_it_is_shown(echo: str, answer: bool) -> None:
    shown = without_key(f"bad key  {echo} here, and {echo}", KEY, answer=answer)
    assert shown.startswith("bad key  ")
    assert shown.count("***") == 2
    for part in (
        KEY[4:10],
        "u0045",
        "x45",
        "%45",
        "&#",
        "%3c",
        "&lt",
        '\\"z',
        base64_of(KEY[3:]),
        KEY[4:10].encode().hex(),
    ):
        assert part.lower() not in shown.lower()


@pytest.mark.parametrize("end", [9, 12, len(KEY) - 1])
def test_the_beginning_of_one_is_not_shown_but_in_an_answer(end: int) -> None:
    assert without_key(f"bad key {KEY[:end]}...", KEY) == "bad key ***..."
    assert without_key(f"{KEY[:end]}: [0, 0, 9, 9]", KEY, answer=True) == f"{KEY[:end]}: [0, 0, 9, 9]"


PLACES = [*range(160, 310, 17), 7_990]


@pytest.mark.parametrize(
    "reply",
    [
        lambda text: fail(400, text),
        lambda text: Play(raw=text.encode(), streams=False),
        lambda text: Play(raw=json.dumps({"error": {"message": text, "code": 400}}).encode(), streams=False),
        lambda text: Play(({"content": [{"type": text}]},)),
        lambda text: say("x", finish=text),
        lambda text: say(text, finish=None),
        lambda text: say("It is there.</think>" + text + "[0, 0, 500, 500]"),
    ],
    ids=["400", "no JSON", "error", "part", "finish reason", "no end", "answer"],
)
def test_no_part_of_it_is_left_where_a_text_is_cut(reply: Callable[[str], Play]) -> None:
    plays = [reply("A" * place + " " + KEY) for place in PLACES]
    with (
        FaultyServer({"": plays}) as server,
        OpenAIBackend(server.url, "tiny", api_key=KEY, retry=RetryPolicy(retries=0)) as backend,
    ):
        for _ in PLACES:
            request = Request(get_codec("qwen3_vl").messages("x"), [Image.new("RGB", (64, 32))])
            try:
                shown = str(backend.generate([request], GenerationSettings(max_new_tokens=9))[0])
            except BackendError as error:
                shown = "".join(traceback.format_exception(error))
            assert KEY[:4] not in shown.replace("***", "")


def test_a_server_that_is_called_as_the_key_is_not_shown() -> None:
    with FaultyServer({}, models=("a" * 470 + KEY, "b" + KEY)) as server:
        server.pages = {
            "/v1/models": {"data": [{"id": "tiny", "owned_by": "x" * 70 + KEY}]},
            "/version": {"version": KEY},
        }
        with OpenAIBackend(server.url, "tiny", api_key=KEY) as backend:
            told = backend.describe()
        assert (told.name, told.release) == ("x" * 70 + "***", "***")
        server.pages = {}
        with pytest.raises(ModelError, match="serves several") as caught:
            OpenAIBackend(server.url, api_key=KEY)
    assert "SECRET" not in str(caught.value)


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
