"""`egm download` from a Hub on this machine, and what `egm models` says is here."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from egm.errors import ModelError
from egm.models import embedded_path
from egm.progress import ProgressDisplay, ProgressTask
from egm.publish.download import download, hub_name, known_models, state

NAME = "nvidia/EGM-8B"


class Hub:
    """Answers as the Hugging Face Hub does to what its client asks for a snapshot.

    Attributes:
        folder: The repository's files.
        refusal: Status and error code of every answer, if it refuses.
        cut: Bytes after which the connection breaks, once, while a file is sent.
        asked: The paths of all requests.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, list[str]()
        self.refusal: tuple[int, str] | None = None
        self.cut: int | None = None
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, *, body: bool) -> None:
                hub.asked.append(self.path)
                path = hub.folder / self.path.rpartition("/")[2]
                if hub.refusal is not None:
                    self.send(hub.refusal[0], b"{}", {"X-Error-Code": hub.refusal[1]}, body)
                elif "/tree/" in self.path:
                    files = [
                        {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": file.name}
                        for file in sorted(hub.folder.iterdir())
                    ]
                    self.send(200, json.dumps(files).encode(), {}, body)
                elif self.path.startswith("/api/models/"):
                    files = [{"rfilename": file.name} for file in sorted(hub.folder.iterdir())]
                    about = {"id": NAME, "sha": "c" * 40, "private": False, "gated": False, "siblings": files}
                    self.send(200, json.dumps(about).encode(), {}, body)
                elif path.is_file():
                    content = path.read_bytes()
                    tag = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": "c" * 40}
                    begin = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
                    more = {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"} if begin else {}
                    self.send(
                        206 if begin else 200, content[begin:], tag | more, body, cut=path.suffix == ".safetensors"
                    )
                else:
                    self.send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, body)

            def send(
                self, status: int, content: bytes, headers: dict[str, str], body: bool, *, cut: bool = False
            ) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if body and cut and hub.cut is not None:
                    content, hub.cut, self.close_connection = content[: hub.cut], None, True
                if body:
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    shutil.copytree(embedded_path(), tmp_path / "hub")
    (tmp_path / "hub" / "modeling.py").write_text("raise SystemExit")
    (tmp_path / "hub" / "pytorch_model.bin").write_bytes(b"pickled")
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield hub
    hub.close()


def test_a_model_is_fetched_by_its_short_name_and_looked_through(hub: Hub, tmp_path: Path) -> None:
    assert state(NAME) == "not here"
    found = download("egm-8b")
    assert (found.name, found.model_type) == (NAME, "qwen3_vl")
    assert found.folder.is_relative_to(tmp_path / "cache")
    assert (found.folder / "model.safetensors").read_bytes() == (hub.folder / "model.safetensors").read_bytes()
    names = {path.name for path in found.folder.iterdir()}
    assert not {"modeling.py", "pytorch_model.bin"} & names
    assert "README.md" in names  # which says its licence
    assert found.size == sum(path.stat().st_size for path in found.folder.iterdir())
    assert state(NAME) == "here"
    hub.asked.clear()
    assert download(NAME).folder == found.folder
    assert not [path for path in hub.asked if path.endswith(".safetensors")]  # it is not fetched again


class Fetched(ProgressDisplay):
    """Keeps how many bytes tasks had told of when they ended."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())
        self.ended: list[tuple[str, float, float | None]] = []

    def remove(self, task: ProgressTask, *, keep: bool = False) -> None:
        self.ended.append((task.name, task.done, task.total))
        super().remove(task, keep=keep)


def test_bytes_are_told_as_they_come_and_the_client_draws_no_bar(hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    with Fetched() as display:
        found = download(NAME)
    small = sum(path.stat().st_size for path in found.folder.iterdir() if path.suffix != ".safetensors")
    weights = (found.folder / "model.safetensors").stat().st_size
    assert display.ended == [(f"fetching {NAME}", small, small), (f"fetching {NAME}", weights, weights)]
    assert capfd.readouterr() == ("", "")


def test_into_a_folder(hub: Hub, tmp_path: Path) -> None:
    found = download(NAME, to=tmp_path / "models" / "EGM-8B")
    assert found.folder == tmp_path / "models" / "EGM-8B"
    assert {"config.json", "model.safetensors"} <= {path.name for path in found.folder.iterdir()}
    with pytest.raises(ModelError, match="is a file: name a folder with --to"):
        download(NAME, to=found.folder / "config.json")


def test_a_transfer_that_breaks_off_goes_on(hub: Hub, tmp_path: Path) -> None:
    hub.cut = 100_000
    try:
        found = download(NAME)
    except ModelError:  # where the client does not try again by itself
        assert state(NAME) == "partly"
        found = download(NAME)
    assert (found.folder / "model.safetensors").stat().st_size == (hub.folder / "model.safetensors").stat().st_size


def test_what_is_not_whole_is_told(hub: Hub) -> None:
    index = {"metadata": {}, "weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
    (hub.folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(
        ModelError, match=r"lacks model-00002\.safetensors, which model\.safetensors\.index\.json names"
    ):
        download(NAME)
    assert state(NAME) == "partly"


def test_weights_that_are_damaged_are_told(hub: Hub) -> None:
    weights = hub.folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"model\.safetensors of 'nvidia/EGM-8B' came damaged or cut off: delete"):
        download(NAME)


def test_a_model_that_cannot_be_used_is_refused_before_its_weights_are_fetched(hub: Hub) -> None:
    config = json.loads((hub.folder / "config.json").read_bytes())
    (hub.folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "modeling.Odd"}}))
    with pytest.raises(ModelError, match="needs Python code of its own"):
        download(NAME)
    assert not [path for path in hub.asked if path.endswith((".safetensors", ".py"))]
    assert state(NAME) == "partly"


@pytest.mark.parametrize(
    ("refusal", "says"),
    [
        ((403, "GatedRepo"), "is behind a licence on the Hugging Face Hub: accept it there and run `hf auth login`"),
        ((404, "RepoNotFound"), "no model on the Hugging Face Hub: check the name"),
        ((500, ""), r"fetching it from the Hugging Face Hub failed \(\w+\): check the network"),
    ],
)
def test_a_hub_that_refuses(hub: Hub, refusal: tuple[int, str], says: str) -> None:
    hub.refusal = refusal
    with pytest.raises(ModelError, match=says) as caught:
        download(NAME)
    assert "\n" not in str(caught.value)


def test_no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.close()
    with pytest.raises(ModelError, match="check the network, or give a local folder"):
        download(NAME)


def test_names() -> None:
    assert {hub_name(name.partition("/")[2].lower()) for name in known_models()} == set(known_models())
    assert hub_name("EGM-4B") == "nvidia/EGM-4B"
    assert hub_name("somebody/else") == "somebody/else"
    with pytest.raises(ModelError, match=r"no model 'Qwen3-VL-8B-Thinkin': did you mean 'Qwen/Qwen3-VL-8B-Thinking'\?"):
        hub_name("Qwen3-VL-8B-Thinkin")
    with pytest.raises(ModelError, match="comes with the package"):
        hub_name("egm-tiny")


def test_the_commands(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from egm.cli import app

    monkeypatch.setenv("COLUMNS", "120")
    outcome = CliRunner().invoke(app, ["download", "EGM-8B"])
    assert outcome.exit_code == 0
    folder = outcome.stdout.strip()
    assert (Path(folder) / "model.safetensors").is_file()
    assert "nvidia/EGM-8B, qwen3_vl: 0.02 GB in 8 files, whole" in outcome.stderr
    assert outcome.stderr.endswith("next: egm ground IMAGE PHRASE --model nvidia/EGM-8B\n")
    rows = CliRunner().invoke(app, ["models"]).stdout.splitlines()
    assert next(row for row in rows if NAME in row and "SFT" not in row).split()[1] == "yes"
    assert next(row for row in rows if "nvidia/EGM-4B" in row).split()[1] == "-"
