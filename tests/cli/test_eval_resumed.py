"""What makes another run of a repeated `egm eval`: other files of the model, or another server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from egm.backends.checkpoint import configuration_digest
from egm.datasets.synthetic import SynthRef
from egm.journal import read_journal
from egm.models import embedded_path

from ..backends.faulty_server import FaultyServer, say
from .conftest import Egm


def test_a_model_that_is_read_or_asked_otherwise_is_another_run(egm: Egm, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(embedded_path(), model)
    command = ("eval", "synthref/val", "--limit", 2, "--max-tokens", 1, "--model", model, "--out", "run")
    assert egm(*command).code == 0
    (model / "notes.txt").write_text("scored")  # which is no part of the model
    assert egm(*command).code == 0
    for name in ("processor_config.json", "tokenizer_config.json", "generation_config.json", "config.json"):
        content = (model / name).read_bytes()
        (model / name).write_bytes(content + b"\n")
        other = egm(*command)
        assert (other.code, "holds another run: engine.configuration is" in other.err) == (2, True)
        (model / name).write_bytes(content)
    journal = tmp_path / "run" / "journal.jsonl"
    header, *records = journal.read_text().splitlines(keepends=True)
    old = json.loads(header)
    del old["engine"]["configuration"]
    journal.write_text(json.dumps(old) + "\n" + "".join(records))
    (model / "config.json").write_bytes(content + b"\n")
    assert egm(*command).code == 0  # journals from before do not say


def test_files_that_ask_and_read_are_digested_by_name_and_content(tmp_path: Path) -> None:
    seen = {configuration_digest(tmp_path)}
    for name in (
        *("chat_template.jinja", "additional_chat_templates/tools.jinja", "tokenizer.json", "tokenizer.model"),
        *("vocab.json", "merges.txt", "preprocessor_config.json", "video_preprocessor_config.json"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        for content in ("a", "b"):
            (tmp_path / name).write_text(content)
            seen.add(configuration_digest(tmp_path))
    assert len(seen) == 1 + 2 * 8
    for name in ("README.md", "trainer_state.json", "summary.json", "model.safetensors"):
        (tmp_path / name).write_text("a")
    assert configuration_digest(tmp_path) in seen


def test_a_server_elsewhere_is_another_run(egm: Egm, tmp_path: Path) -> None:
    data = list(SynthRef("val", scenes=1))
    command = ("eval", "synthref/val", "--scenes", 1, "--model", "m", "--out", "run", "--server")
    for _ in range(2):
        with FaultyServer(
            {"": [say('</think> [{"bbox_2d": [0, 0, 500, 500]}]')]}
        ) as server:  # each at a port of its own
            assert egm(*command, server.url).code == 0
    header, records = read_journal(tmp_path / "run")
    assert (header.engine["server"], len(records)) == ("this machine/v1", len(data))
    for other in ("http://127.0.0.1:1/v2", "https://Example.invalid:8000"):
        outcome = egm(*command, other)
        assert (outcome.code, "holds another run: engine.server is" in outcome.err) == (2, True)
    assert "example.invalid:8000/v1" in outcome.err
    rows = (tmp_path / "run" / "journal.jsonl").read_text()
    (tmp_path / "run" / "journal.jsonl").write_text(rows.replace(', "server": "this machine/v1"', ""))
    assert egm(*command, "https://example.invalid:8000").code == 0  # nothing is left to ask, and it does not say
