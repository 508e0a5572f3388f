from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egm.codecs import Codec, InternVL, Qwen3VL, Qwen3VLInstruct, Qwen25VL
from egm.errors import DataError
from egm.journal import Header, Journal, Record, question_line, read_journal

HEADER = Header(
    model="m",
    codec={"name": "qwen3_vl", "thinking_prefilled": True},
    prompt={"style": "qwen3", "modal": "Locate PHRASE"},
    settings={"seed": 0, "max_new_tokens": 8},
    datasets={"refcoco/val": {"n": 3, "digest": "abc"}},
    engine={"device": "cpu"},
    versions={"egm": "1", "torch": "2"},
    command=("egm", "eval"),
)


def record(name: str, **facts: Any) -> Record:
    return Record(id=name, image="a.jpg", phrase="ünï \ud800 \u2028", truth=(0.0, 0.0, 1.5, 2.0), **facts)


def write(folder: Path, *records: Record, header: Header = HEADER) -> None:
    with Journal(folder, header) as journal:
        for item in records:
            journal.append(item)


@given(
    st.text(),
    st.text(),
    st.text(),
    st.tuples(*[st.integers() | st.floats(allow_nan=False, allow_infinity=False)] * 4),
    st.booleans(),
)
def test_a_question_is_digested_as_json_writes_it(
    identity: str, phrase: str, image: str, truth: tuple[float, float, float, float], amodal: bool
) -> None:
    """So that journals from before still have the digests of their splits."""
    line = question_line(identity, phrase, image, truth, amodal=amodal)
    assert line == json.dumps((identity, phrase, image, truth, amodal)).encode()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    first = record("1", size=(4, 5), box=(0.1, 0.2, 0.3, 1e300), iou=1 / 3, meta={"kind": "x", "n": [1, 2]}, cold=True)
    second = record("2", failure="error", error="BackendError: gone", finish_reason=None, first_token_seconds=0.25)
    write(tmp_path / "new" / "run", first, second)
    assert read_journal(tmp_path / "new" / "run") == (HEADER, [first, second])
    assert read_journal(tmp_path / "new" / "run" / "journal.jsonl") == (HEADER, [first, second])


def test_a_line_counts_the_tokens_of_the_answer_apart(tmp_path: Path) -> None:
    known = record("1", prompt_tokens=70, reasoning_tokens=4, completion_tokens=9)
    write(tmp_path, known, record("2", completion_tokens=9))
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()[1:]]
    names = ("prompt_tokens", "reasoning_tokens", "answer_tokens", "completion_tokens")
    assert [[line[name] for name in names] for line in lines] == [[70, 4, 5, 9], [None, None, None, 9]]
    assert replace(known, completion_tokens=10).answer_tokens == 6


def test_a_journal_from_before_answers_were_counted_apart_is_read(tmp_path: Path) -> None:
    known = record("1", reasoning_tokens=4, completion_tokens=9)
    write(tmp_path, known)
    file = tmp_path / "journal.jsonl"
    file.write_text(file.read_text().replace('"answer_tokens": 5, ', ""))
    assert "answer_tokens" not in file.read_text()
    assert [item.answer_tokens for item in read_journal(tmp_path)[1]] == [5]


def test_a_line_is_in_the_file_as_soon_as_it_is_appended(tmp_path: Path) -> None:
    with Journal(tmp_path, HEADER) as journal:
        for count in range(1, 4):
            journal.append(record(str(count)))
            assert len(read_journal(tmp_path)[1]) == count


@pytest.mark.parametrize(("seconds", "syncs"), [(0.0, 3), (1e9, 0)])
def test_lines_are_synced_as_time_passes_and_on_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, syncs: int
) -> None:
    # Only a power cut would show the difference, so the calls are counted; they do reach the disk.
    fsync, calls = os.fsync, list[int]()
    monkeypatch.setattr("os.fsync", lambda file: (calls.append(file), fsync(file)))
    monkeypatch.setattr("egm.append_only.SYNC_SECONDS", seconds)
    with Journal(tmp_path, HEADER) as journal:
        assert len(calls) == 1  # the header
        for name in ("1", "2", "3"):
            journal.append(record(name))
        assert len(calls) == 1 + syncs
    assert len(calls) == 1 + syncs + 1


def test_going_on_gives_what_was_there(tmp_path: Path) -> None:
    write(tmp_path, record("1"), record("2"))
    with Journal(tmp_path, HEADER) as journal:
        assert journal.records == [record("1"), record("2")]
        journal.append(record("3"))
    assert [item.id for item in read_journal(tmp_path)[1]] == ["1", "2", "3"]


def test_a_journal_torn_anywhere_in_its_last_line_goes_on(tmp_path: Path) -> None:
    write(tmp_path, record("1"), record("2"))
    file = tmp_path / "journal.jsonl"
    content = file.read_bytes()
    start = content.rstrip(b"\n").rfind(b"\n") + 1
    for end in (start, start + 1, start + 10, len(content) - 2, len(content) - 1):
        file.write_bytes(content[:end])
        assert [item.id for item in read_journal(tmp_path)[1]] == ["1"]
        write(tmp_path, record("2"))
        assert file.read_bytes() == content


def test_a_journal_torn_in_its_header_begins_anew(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    for torn in (b"", b'{"jour'):
        file.write_bytes(torn)
        with pytest.raises(DataError, match="is empty: the run ended before it began"):
            read_journal(tmp_path)
        write(tmp_path, record("1"))
        assert read_journal(tmp_path) == (HEADER, [record("1")])


def test_a_long_torn_line(tmp_path: Path) -> None:
    write(tmp_path, record("1"))
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(b"x" * 200_000)
    write(tmp_path, record("2"))
    assert [item.id for item in read_journal(tmp_path)[1]] == ["1", "2"]


@pytest.mark.parametrize("damage", [b"\0\0\0", b"[1]", b'{"id": "1"}', b'{"id": "1", "truth": null, "zzz": 1}'])
def test_damage_before_the_end_is_refused_by_line(tmp_path: Path, damage: bytes) -> None:
    write(tmp_path, record("1"), record("2"))
    file = tmp_path / "journal.jsonl"
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([lines[0], damage, lines[2], b""]))
    content = file.read_bytes()
    for act in (lambda: read_journal(tmp_path), lambda: write(tmp_path)):
        with pytest.raises(DataError, match="line 2"):
            act()
    assert file.read_bytes() == content


def test_the_last_of_several_lines_counts(tmp_path: Path) -> None:
    write(tmp_path, record("1", failure="error"), record("2"), record("1", iou=0.5), record("1", split="other"))
    assert read_journal(tmp_path)[1] == [record("1", iou=0.5), record("2"), record("1", split="other")]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"iou": 0.5}, {"iou": 0.25}),
        ({}, {"failure": "no_box"}),
        ({"failure": "no_box"}, {"box": (0.0, 0.0, 1.5, 2.0), "iou": 1.0}),
        ({"iou": 0.5}, {"failure": "error", "error": "gone"}),
    ],
)
def test_a_second_answer_is_damage(tmp_path: Path, first: dict[str, Any], second: dict[str, Any]) -> None:
    write(tmp_path, record("2", failure="error"), record("1", **first), record("2"), record("1", **first))
    assert [item.id for item in read_journal(tmp_path)[1]] == ["2", "1"]  # a line twice, and an error asked again
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write(json.dumps(record("1", **second).to_dict()) + "\n")
    for act in (lambda: read_journal(tmp_path), lambda: write(tmp_path)):
        with pytest.raises(DataError, match="line 6: another answer to sample '1', which an earlier line answers"):
            act()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "n"}, 'model is "n", was "m"'),
        ({"codec": {"name": "internvl"}}, 'codec.name is "internvl", was "qwen3_vl"; codec.thinking_prefilled is null'),
        ({"prompt": {"style": "grounding", "modal": "Locate PHRASE"}}, 'prompt.style is "grounding", was "qwen3"'),
        ({"settings": {"seed": 1, "max_new_tokens": 8}}, "settings.seed is 1, was 0"),
        ({"datasets": {"refcoco/val": {"n": 3, "digest": "abd"}}}, 'datasets.refcoco/val.digest is "abd", was "abc"'),
        ({"concurrency": 2}, "concurrency is 2, was 1"),
        ({"engine": {"device": "cuda"}}, 'engine.device is "cuda", was "cpu"'),
        ({"versions": {"egm": "2"}}, 'egm is "2", was "1"'),
    ],
)
def test_another_run_is_refused_by_name(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    write(tmp_path, record("1"))
    content = (tmp_path / "journal.jsonl").read_bytes()
    with pytest.raises(DataError) as caught:
        Journal(tmp_path, replace(HEADER, **change))
    assert f"holds another run: {says}" in str(caught.value)
    assert (tmp_path / "journal.jsonl").read_bytes() == content


def test_what_may_differ(tmp_path: Path) -> None:
    write(tmp_path, record("1"))
    other = replace(HEADER, command=("other",), versions={"egm": "1", "torch": "3"}, images="/x", started="now")
    with Journal(tmp_path, other) as journal:
        assert (journal.header, journal.records) == (HEADER, [record("1")])


@pytest.mark.parametrize(
    ("old", "codec"),
    [
        ({"name": "qwen3_vl", "thinking_prefilled": True}, Qwen3VL()),
        ({"name": "qwen3_vl", "thinking_prefilled": False}, Qwen3VLInstruct()),
        ({"name": "qwen2_5_vl", "min_pixels": 3136, "max_pixels": 12845056}, Qwen25VL()),
        ({"name": "internvl"}, InternVL()),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value.name,
)
def test_a_journal_from_before_instruct_had_a_codec_of_its_own_goes_on(
    tmp_path: Path, old: dict[str, Any], codec: Codec
) -> None:
    line = json.dumps({**HEADER.to_dict(), "codec": old}) + "\n" + json.dumps(record("1").to_dict()) + "\n"
    (tmp_path / "journal.jsonl").write_text(line)
    write(tmp_path, record("2"), header=replace(HEADER, codec=codec.to_dict()))
    header, records = read_journal(tmp_path)
    assert (header.codec, [item.id for item in records]) == (codec.to_dict(), ["1", "2"])
    other = Qwen3VL() if codec.name == "qwen3_vl_instruct" else Qwen3VLInstruct()
    with pytest.raises(DataError, match="holds another run: codec"):
        Journal(tmp_path, replace(HEADER, codec=other.to_dict()))


def test_two_writers_are_refused(tmp_path: Path) -> None:
    with Journal(tmp_path, HEADER), pytest.raises(DataError, match="is being written by another process"):
        Journal(tmp_path, HEADER)
    Journal(tmp_path, HEADER).close()


def test_what_is_no_journal(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no journal at"):
        read_journal(tmp_path)
    file = tmp_path / "journal.jsonl"
    for line in ({"id": "1"}, {**HEADER.to_dict(), "journal": 99}, {"journal": 1}, {**HEADER.to_dict(), "more": 1}):
        file.write_text(json.dumps(line) + "\n")
        with pytest.raises(DataError, match=r"line 1: its .*(first line|header)"):
            read_journal(tmp_path)
