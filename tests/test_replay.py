"""Answers from a file, in Python as in `egm eval --script`."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from egm.backends import ReplayBackend, ScriptedBackend
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.errors import BackendError, DataError
from egm.evaluate import evaluate, read_script
from egm.grounder import Grounder

SAMPLES = list(SynthRef("val", scenes=2))
ASKED = [("val", sample) for sample in SAMPLES]


def run(backend: ReplayBackend | ScriptedBackend, folder: Path) -> list[tuple[str, str, str | None]]:
    grounder = Grounder(backend, get_codec("qwen3_vl"))
    result = evaluate(SAMPLES, grounder, folder, name="val", progress=False, max_errors=1.0)
    return [(record.id, record.text, record.error) for record in result.records]


def test_lines_go_to_samples_in_order_and_begin_anew(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one\\n</think> [1]\ntwo\nthree")
    texts = {identity: text for identity, text, _ in run(read_script(tmp_path / "lines.txt", ASKED), tmp_path / "run")}
    assert [texts[sample.id] for sample in SAMPLES][:4] == ["one\n</think> [1]", "two", "three", "one\n</think> [1]"]


def test_a_journal_gives_each_sample_what_it_said_errors_too(tmp_path: Path) -> None:
    first = run(ScriptedBackend({SAMPLES[0].phrase: "a", SAMPLES[1].phrase: "b"}), tmp_path / "first")
    assert {text for _, text, _ in first} == {"a", "b", ""}
    for path in (tmp_path / "first", tmp_path / "first" / "journal.jsonl"):
        again = run(read_script(path, ASKED), tmp_path / f"again-{path.suffix}")
        assert [(identity, text, error is None) for identity, text, error in again] == [
            (identity, text, error is None) for identity, text, error in first
        ]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0c", "\x0b", "\x1c", "\x1e", "\r"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_feed_alone_ends_a_line(tmp_path: Path, mark: str, end: str) -> None:
    (tmp_path / "lines.txt").write_bytes(f"\ufeffone{mark}more{end}two{end}".encode())
    texts = {identity: text for identity, text, _ in run(read_script(tmp_path / "lines.txt", ASKED), tmp_path / "run")}
    assert [texts[sample.id] for sample in SAMPLES][:3] == [f"one{mark}more", "two", f"one{mark}more"]


def test_a_journal_of_other_questions_is_refused(tmp_path: Path) -> None:
    picture = io.BytesIO()
    SAMPLES[0].image.save(picture, "PNG")
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(picture.getvalue())
    sample = replace(SAMPLES[0], image=tmp_path / "a.png")
    evaluate([sample], Grounder(ScriptedBackend({sample.phrase: "x"}), get_codec("qwen3_vl")), tmp_path, name="val")
    read_script(tmp_path, [("val", sample), ("val", SAMPLES[1])])
    for other in (replace(sample, phrase="something else"), replace(sample, image=str(tmp_path / "b.png"))):
        with pytest.raises(DataError, match=r"answers another question than .* of val asks: its (phrase|picture)"):
            read_script(tmp_path, [("val", other)])


def test_what_is_no_script(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(DataError, match="is empty: give a text a line"):
        read_script(tmp_path / "empty", ASKED)
    with pytest.raises(DataError, match="cannot be read"):
        read_script(tmp_path / "nowhere", ASKED)
    with pytest.raises(BackendError, match="no answer to this sample"):
        Grounder(ReplayBackend({}), get_codec("qwen3_vl")).ground(SAMPLES[0].image, "x")


@pytest.mark.parametrize(
    ("lines", "then"), [(1, "after the last it begins anew"), (99, "the last of them stay unread")]
)
def test_a_script_of_another_length_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lines: int, then: str
) -> None:
    (tmp_path / "lines.txt").write_text("a\n" * lines)
    read_script(tmp_path / "lines.txt", iter(ASKED))
    assert f"has {lines} lines for {len(ASKED)} answers: {then}" in caplog.text
    caplog.clear()
    (tmp_path / "lines.txt").write_text("a\n" * len(ASKED))
    read_script(tmp_path / "lines.txt", ASKED)
    assert not caplog.text
