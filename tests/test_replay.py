"""Answers from a file, in Python as in `egm eval --script`."""

from __future__ import annotations

from pathlib import Path

import pytest

from egm.backends import ReplayBackend, ScriptedBackend
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.errors import BackendError, DataError
from egm.evaluate import evaluate, read_script
from egm.grounder import Grounder

SAMPLES = list(SynthRef("val", scenes=2))
KEYS = [("val", sample.id) for sample in SAMPLES]


def run(backend: ReplayBackend | ScriptedBackend, folder: Path) -> list[tuple[str, str, str | None]]:
    grounder = Grounder(backend, get_codec("qwen3_vl"))
    result = evaluate(SAMPLES, grounder, folder, name="val", progress=False, max_errors=1.0)
    return [(record.id, record.text, record.error) for record in result.records]


def test_lines_go_to_samples_in_order_and_begin_anew(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one\\n</think> [1]\ntwo\nthree")
    texts = {identity: text for identity, text, _ in run(read_script(tmp_path / "lines.txt", KEYS), tmp_path / "run")}
    assert [texts[identity] for _, identity in KEYS][:4] == ["one\n</think> [1]", "two", "three", "one\n</think> [1]"]


def test_a_journal_gives_each_sample_what_it_said_errors_too(tmp_path: Path) -> None:
    first = run(ScriptedBackend({SAMPLES[0].phrase: "a", SAMPLES[1].phrase: "b"}), tmp_path / "first")
    assert {text for _, text, _ in first} == {"a", "b", ""}
    for path in (tmp_path / "first", tmp_path / "first" / "journal.jsonl"):
        again = run(read_script(path, []), tmp_path / f"again-{path.suffix}")
        assert [(identity, text, error is None) for identity, text, error in again] == [
            (identity, text, error is None) for identity, text, error in first
        ]


def test_what_is_no_script(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(DataError, match="is empty: give a text a line"):
        read_script(tmp_path / "empty", KEYS)
    with pytest.raises(DataError, match="cannot be read"):
        read_script(tmp_path / "nowhere", KEYS)
    with pytest.raises(BackendError, match="no answer to this sample"):
        Grounder(ReplayBackend({}), get_codec("qwen3_vl")).ground(SAMPLES[0].image, "x")
