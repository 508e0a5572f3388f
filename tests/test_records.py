"""Values of a journal's lines: each is checked, whatever reads it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egm.errors import DataError
from egm.evaluate import read_script
from egm.journal import Header, Journal, Record, is_journal, read_journal, read_whole_run
from egm.record_rules import RECORD_RULES, check_record, check_values
from egm.report import read_records
from egm.report.runs import load_runs

HEADER = Header(
    model="m",
    codec={"name": "qwen3_vl"},
    prompt={"style": "qwen3"},
    settings={"seed": 0},
    datasets={"x/val": {"n": 2, "digest": "abc"}},
)
NAN, INFINITE = float("nan"), float("inf")


def record(name: str, **facts: Any) -> Record:
    facts = {"box": (0, 0, 10, 10), "iou": 1.0, "split": "x/val", **facts}
    return Record(id=name, image="a.jpg", phrase="cup", truth=(0, 0, 10, 10), **facts)


def written(folder: Path, lines: list[Any]) -> Path:
    """A journal of so many lines, each an object or a text that is to stand there."""
    folder.mkdir(exist_ok=True)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "journal.jsonl").write_text("".join(text + "\n" for text in texts))
    return folder


READERS: list[Callable[[Path], Any]] = [
    read_journal,
    lambda folder: load_runs([folder]),
    read_records,
    lambda folder: read_script(folder, []),
    lambda folder: Journal(folder, HEADER),
]


@pytest.mark.parametrize(
    "change",
    [
        *({"iou": value} for value in (7, -0.1, NAN, INFINITE, "high", None, True, 10**400)),
        *(
            {"box": value}
            for value in ([0, 0, 1], [0, 0, NAN, 1], [0, 0, "1", 1], [5, 0, 1, 1], "box", {}, 5, [[]] * 4)
        ),
        *({"truth": value} for value in (None, [], [0, 0, 0, 1], [False, 0, 1, 1], [0, 0, INFINITE, 1])),
        *({name: [1]} for name in ("id", "image", "phrase", "split", "text", "error", "finish_reason")),
        *({"id": value} for value in (1, None)),
        *({"size": value} for value in ([1], [0, 5], [1.5, 2], 5)),
        *({"failure": value} for value in ("lazy", 5, [], {})),
        *({name: value} for name in ("prompt_tokens", "completion_tokens") for value in (-1, 1.5, True, 10**400, "9")),
        *({name: value} for name in ("seconds", "queue_seconds") for value in (-1, NAN, None, "1")),
        *({"first_token_seconds": value} for value in (-0.5, NAN)),
        *({"votes": value} for value in (0, 1.5, None)),
        *({"confidence": value} for value in (1.5, NAN)),
        *({"logprob": value} for value in (NAN, -INFINITE, "-1")),
        *({name: value} for name in ("cold", "amodal") for value in (1, None)),
        *({"meta": value} for value in (None, [], json.loads("[" * 60 + "]" * 60))),
        {"meta": {"deep": json.loads("[" * 60 + "]" * 60)}},
    ],
    ids=lambda change: " ".join(f"{key}={str(value)[:20]}" for key, value in change.items()),
)
def test_a_bad_value_is_one_line_with_its_place_for_every_reader(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = written(tmp_path, [HEADER.to_dict(), record("1").to_dict(), {**record("2").to_dict(), **change}])
    for read in READERS:
        with pytest.raises(DataError) as caught:
            read(folder)
        said = str(caught.value)
        assert said.startswith(f"{str(folder / 'journal.jsonl')!r} line 3: its {next(iter(change))} is ")
        assert "\n" not in said
        assert len(said) < 500


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"datasets": value}
            for value in (5, [], {"x/val": 5}, {"x/val": {}}, {"x/val": {"n": -1}}, {"x/val": {"n": NAN}})
        ),
        {"datasets": {"x/val": {"n": "2"}}},
        *({"codec": value} for value in ("qwen3_vl", {}, {"name": 5}, None)),
        *({name: 5} for name in ("model", "prompt", "settings", "engine", "images", "versions", "command", "started")),
        *({"concurrency": value} for value in (0, "8", None)),
        {"command": "egm eval"},
        {"versions": {"egm": 1}},
        {"settings": {"deep": json.loads("[" * 60 + "]" * 60)}},
    ],
    ids=lambda change: " ".join(f"{key}={str(value)[:20]}" for key, value in change.items()),
)
def test_a_bad_value_of_the_header_too(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = written(tmp_path, [{**HEADER.to_dict(), **change}, record("1").to_dict()])
    for read in READERS:
        with pytest.raises(DataError, match=f"line 1: its {next(iter(change))} is "):
            read(folder)


@pytest.mark.parametrize("key", ["id", "image", "phrase", "truth"])
def test_a_record_lacks_nothing_that_has_no_default(tmp_path: Path, key: str) -> None:
    row = record("1").to_dict()
    del row[key]
    folder = written(tmp_path, [HEADER.to_dict(), row])
    for read in READERS:
        with pytest.raises(DataError, match=rf"line 2: not a line of a journal \(.*'{key}'"):
            read(folder)


@pytest.mark.parametrize("key", ["model", "codec", "prompt", "settings", "datasets", "command"])
def test_a_header_neither(tmp_path: Path, key: str) -> None:
    row = HEADER.to_dict()
    del row[key]
    folder = written(tmp_path, [row, record("1").to_dict()])
    for read in READERS:
        with pytest.raises(DataError, match=f"line 1: its header is not one that this version reads .*{key}"):
            read(folder)


@pytest.mark.parametrize("line", ["[" * 100_000, '{"id": ' + "9" * 5000 + "}", "\0" * 40, "{", "5", ""])
def test_a_line_that_is_none(tmp_path: Path, line: str) -> None:
    for lines, number in ([HEADER.to_dict(), line, record("1").to_dict()], 2), ([line, record("1").to_dict()], 1):
        folder = written(tmp_path, lines)
        with pytest.raises(DataError, match=f"line {number} is damaged"):
            read_journal(folder)
        assert is_journal(folder / "journal.jsonl") == (number == 2)


@pytest.mark.parametrize(
    ("records", "says"),
    [
        (
            [record("1", split="other/val")],
            "sample '1' of other/val is of split 'other/val', which its header does not",
        ),
        ([record("1"), record("2"), record("3")], "holds 3 samples of x/val, and its header says that there are 2"),
        ([record("1", iou=0.5)], "has an IoU of 0.5, and its boxes one of 1"),
        ([record("1", box=(0, 0, 1e300, 1e300))], "has an IoU of 1, and its boxes one of"),
        ([record("1", box=None)], "has an IoU of 1 and no box"),
        ([record("1", failure="refused")], "has a box, and the failure 'refused'"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_records_that_cannot_be_of_the_run_are_not_counted(tmp_path: Path, records: list[Record], says: str) -> None:
    folder = written(tmp_path, [HEADER.to_dict(), *(item.to_dict() for item in records)])
    readers = (read_whole_run, lambda folder: load_runs([folder], allow_partial=True), read_records)
    for read in readers:
        with pytest.raises(DataError, match=says):
            read(folder)


def test_a_pipe_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "journal.jsonl")
    for read in (*READERS, lambda folder: is_journal(folder / "journal.jsonl")):
        with pytest.raises(DataError, match="is no plain file"):
            read(tmp_path)


JSON = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
VALUES = JSON | st.lists(JSON, max_size=4) | st.dictionaries(st.text(max_size=3), JSON, max_size=2)


@given(st.dictionaries(st.sampled_from([*RECORD_RULES, "unknown"]), VALUES, max_size=6))
def test_a_record_is_checked_by_the_rules_one_by_one(values: dict[str, Any]) -> None:
    said: list[str | None] = []
    for check in (check_record, lambda row: check_values(row, RECORD_RULES)):
        for row in (values, record("1").to_dict() | values):
            try:
                check(row)
                said.append(None)
            except DataError as error:
                said.append(str(error))
    assert said[:2] == said[2:]
