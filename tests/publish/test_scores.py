"""Scores on a card: of the model that is exported, by its weights where they are known, and of how many questions."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from egm.backends.checkpoint import tensors_digest, weights_digest
from egm.errors import DataError, ModelError
from egm.journal import Header, Journal, Record
from egm.models import embedded_path
from egm.publish.export import export_model
from egm.publish.scores import check_scores, latency_table, read_scores, score_table

TENSORS = {"language.first": np.arange(9000.0), "language.last": np.ones(5000), "visual.frozen": np.zeros((300, 300))}


def model(folder: Path, tensors: Mapping[str, Any], *, shards: bool = False) -> Path:
    folder.mkdir()
    for number, part in enumerate([{name: value} for name, value in tensors.items()] if shards else [dict(tensors)]):
        save_file(part, folder / f"model-{number}.safetensors")
    return folder


def journal(folder: Path, name: str, split: str = "synthref/val", n: int = 2, **engine: Any) -> Path:
    header = Header(name, {"name": "qwen3_vl"}, {}, {}, {split: {"n": n}}, engine={"backend": "X", **engine})
    known: dict[str, Any] = {"image": "a", "phrase": "it", "truth": (0.0, 0.0, 1.0, 1.0), "split": split}
    with Journal(folder, header) as writer:
        writer.append(Record("1", **known, box=(0.0, 0.0, 1.0, 0.75), iou=0.75, completion_tokens=10))
        writer.append(Record("2", **known, failure="no_box", completion_tokens=20))
    return folder


@pytest.mark.parametrize("tensor", list(TENSORS))
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_one_changed_tensor_is_another_model_and_other_files_are_none(tmp_path: Path, tensor: str, place: str) -> None:
    ours = model(tmp_path / "ours", TENSORS)
    changed = TENSORS[tensor].copy()
    changed.reshape(-1)[{"first": 0, "middle": changed.size // 2, "last": -1}[place]] += 1
    other = model(tmp_path / "other", {**TENSORS, tensor: changed})
    assert tensors_digest(other) != tensors_digest(ours)
    assert tensors_digest(model(tmp_path / "shards", TENSORS, shards=True)) == tensors_digest(ours)


@pytest.mark.parametrize("content", [b"", b"cut", b"\xff" * 8, (9).to_bytes(8, "little") + b'{"a": 1}.', b"[" * 99])
def test_weights_that_cannot_be_read_are_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"model.safetensors of .* is damaged or cut off"):
        tensors_digest(tmp_path)


def test_weights_decide_wherever_they_lie(tmp_path: Path) -> None:
    ours = model(tmp_path / "ours", TENSORS)
    other = model(tmp_path / "other", {**TENSORS, "language.last": np.zeros(5000)})
    written = model(tmp_path / "written", {name: value.astype("float16") for name, value in TENSORS.items()})
    copied = shutil.copytree(ours, tmp_path / "copied")
    fitting = {
        "copied": journal(tmp_path / "1", "/gone/elsewhere", tensors=tensors_digest(copied)),
        "exported": journal(tmp_path / "2", "x", tensors=tensors_digest(written)),
        "old": journal(tmp_path / "3", "x", weights=weights_digest(ours)),
        "by its path": journal(tmp_path / "4", str(copied)),
    }
    check_scores(read_scores(fitting.values()), (ours, written), ("ours",))
    for number, (name, engine) in enumerate(
        [
            ("ours", {"tensors": tensors_digest(other)}),  # under the very name
            ("ours", {"tensors": tensors_digest(other), "weights": weights_digest(ours)}),
            ("ours", {"weights": weights_digest(embedded_path())}),
            (str(other), {}),
            ("egm-tiny", {}),
        ]
    ):
        [run] = read_scores([journal(tmp_path / f"other-{number}", name, **engine)])
        with pytest.raises(ModelError, match=r"weights are not those of the exported model"):
            check_scores([run], (ours, written), ("ours", "egm-tiny"))


def test_behind_a_server_the_name_decides_and_the_card_says_so(tmp_path: Path) -> None:
    ours = model(tmp_path / "ours", TENSORS)
    names = {"ours": "ours", "me/ours": "me/ours", "/home/x/models/ours": "models/ours"}
    for number, (name, shown) in enumerate(names.items()):
        [run] = read_scores([journal(tmp_path / f"{number}", name, backend="OpenAIBackend")])
        check_scores([run], (ours,), ("ours",))
        assert f"| {shown} (served) | synthref/val |" in "\n".join(score_table([run]))
        assert "could not be compared" in score_table([run])[-1]
    [run] = read_scores([journal(tmp_path / "other", "Qwen/Qwen3-VL-8B-Thinking", backend="OpenAIBackend")])
    with pytest.raises(ModelError, match="say so with --title Qwen3-VL-8B-Thinking; else leave"):
        check_scores([run], (ours,), ("ours",))
    replayed = journal(tmp_path / "replayed", "ours", backend="ReplayBackend")
    with pytest.raises(ModelError, match="replayed from a file"):
        read_scores([replayed])


@pytest.mark.parametrize(
    ("split", "n", "answered"),
    [
        ("synthref/val", 1983, "2 of 1,983"),
        ("synthref/val", 24, "2 of 1,983"),
        ("refcoco/val", 2, "2 of 10,834"),
        ("mine", 5, "2 of 5"),
    ],
)
def test_a_row_says_how_much_of_its_split_was_answered(tmp_path: Path, split: str, n: int, answered: str) -> None:
    table = score_table(read_scores([journal(tmp_path / "run", "m|x", split, n)]))
    assert table[1] == rf"| m\|x (served) | {split} | {answered} | 50.0 (0.0-100.0) | 0.375 (0.000-1.000) | 50.0 | 15 |"


def test_a_row_says_how_it_was_asked_where_that_is_not_as_usual(tmp_path: Path) -> None:
    [plain] = read_scores([journal(tmp_path / "run", "m")])
    header = replace(
        plain.header, settings={"think": "never", "thinking_budget": 64, "votes": 3}, prompt={"style": "x|y"}
    )
    records = [replace(record, expect="any", seconds=0.5) for record in plain.records]
    asked = replace(plain, header=header, records=records)
    for table in (score_table([asked]), latency_table([asked])):
        [row] = [line for line in table if line.startswith("| m (served); ")]
        for said in ("--think never", "64 tokens of reasoning", "3 votes", r"--prompt x\|y", "--expect any"):
            assert said in row.split(" | ")[0]


def test_egm_tiny_is_exported_by_name_with_its_scores_and_no_others(tmp_path: Path) -> None:
    of_tiny = journal(tmp_path / "tiny", "egm-tiny", tensors=tensors_digest(embedded_path()))
    before = os.umask(0o022)
    try:
        out = export_model(Path("egm-tiny"), tmp_path / "out", scores=[of_tiny], dtype="float32")
    finally:
        os.umask(before)
    card = (out / "README.md").read_text()
    assert "\n# egm-tiny\n" in card
    assert "| egm-tiny | synthref/val | 2 of 1,983 | 50.0 (0.0-100.0) | 0.375 (0.000-1.000) | 50.0 | 15 |" in card
    assert "--codec qwen3_vl\n" in card
    assert 'ask = "Locate the cross farthest from the square, output its bbox coordinates using JSON format."' in card
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o644}
    for wrong, says in (
        (journal(tmp_path / "other", "other", tensors="0" * 16), "weights are not those"),
        (tmp_path / "none", "no journal at"),
    ):
        with pytest.raises((ModelError, DataError), match=says):
            export_model(Path("egm-tiny"), tmp_path / "refused", scores=[of_tiny, wrong])
    assert not (tmp_path / "refused").exists()
    again = journal(tmp_path / "again", str(out), tensors=json.loads(json.dumps(tensors_digest(out))))
    assert export_model(out, tmp_path / "twice", scores=[again], dtype="float32").is_dir()
