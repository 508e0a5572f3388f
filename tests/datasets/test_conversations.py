"""Conversations of other tools: written, read back, and read where only the tool's own keys are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from egm.boxes import Box
from egm.codecs import get_codec
from egm.datasets import Dataset, open_dataset, write_dataset
from egm.datasets.conversations import TOOLS, dataset_info
from egm.errors import DataError
from egm.types import Sample

QUESTION = "<image>\nLocate the cup, output its bbox coordinates using JSON format."
ANSWER = 'Left of the jug.\n</think>\n\n```json\n[\n\t{"bbox_2d": [100, 200, 300, 400], "label": "the cup"}\n]\n```'
TURNS = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": f"<think>\n{ANSWER}"}]
MESSAGES = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": f"<think>\n{ANSWER}"}]
ROWS: dict[str, dict[str, Any]] = {
    "qwen-vl-finetune": {"image": "a.png", "conversations": TURNS},
    "llama-factory": {"images": ["a.png"], "conversations": TURNS},
    "ms-swift": {"images": ["a.png"], "messages": MESSAGES},
}
CODEC = {"codec": "qwen3_vl"}


def opened(folder: Path, row: dict[str, Any], **options: Any) -> Sample:
    Image.new("RGB", (200, 100)).save(folder / "a.png")
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    [sample] = open_dataset(folder / "rows.jsonl", **options)
    return sample


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("codec", ["qwen3_vl", "qwen3_vl_instruct", "qwen2_5_vl", "internvl"])
def test_what_is_written_is_read_back_whole(tmp_path: Path, tool: str, codec: str) -> None:
    Image.new("RGB", (640, 480)).save(tmp_path / "a.png")
    samples = [
        Sample("1", tmp_path / "a.png", 'the "red" cup', Box(12.5, 30.25, 100, 80), (640, 480), rationale="It is red."),
        Sample("2", tmp_path / "a.png", "Tasse <image>", Box(0, 0, 640, 480), (640, 480), meta={"kind": "plain"}),
        Sample("3", tmp_path / "a.png", "the cup", Box(-20, 10, 90, 99), (640, 480), amodal=True, rationale="Hidden."),
    ]
    kept = samples if codec.startswith("qwen3") else samples[:2]  # others write no box that leaves the frame
    write_dataset(Dataset("d", kept, root=tmp_path), tmp_path / "out.jsonl", tool, codec=get_codec(codec))
    for read, sample in zip(open_dataset(tmp_path / "out.jsonl"), kept, strict=True):
        assert (read.id, read.phrase, read.box, read.size) == (sample.id, sample.phrase, sample.box, sample.size)
        assert (read.amodal, read.rationale, dict(read.meta)) == (sample.amodal, sample.rationale, dict(sample.meta))
        assert read.image == tmp_path / "a.png"


@pytest.mark.parametrize("tool", TOOLS)
def test_a_row_with_the_tools_own_keys_is_read_once_its_convention_is_said(tmp_path: Path, tool: str) -> None:
    for sample in (opened(tmp_path, ROWS[tool] | CODEC), opened(tmp_path, ROWS[tool], codec="qwen3_vl")):
        assert (sample.phrase, sample.size, sample.rationale) == ("the cup", (200, 100), "Left of the jug.")
        assert sample.box == Box(20, 20, 60, 40)
    if tool != "qwen-vl-finetune":  # of which rows without a codec are EGM's own, in its one convention
        with pytest.raises(
            DataError, match=r"line 1: does not say in whose convention its box is written.*--from-codec"
        ):
            opened(tmp_path, ROWS[tool])


def test_a_system_turn_is_passed_over_and_the_convention_decides_what_numbers_mean(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, *MESSAGES]
    sample = opened(
        tmp_path, {"images": "a.png", "messages": turns, "codec": "qwen2_5_vl", "width": 840, "height": 616}
    )
    assert sample.box == Box(100, 200, 300, 400)


def test_boxes_that_ms_swift_keeps_apart(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "<image>Locate <ref-object>, output its bbox coordinates using JSON format."},
        {"role": "assistant", "content": "<bbox>"},
    ]
    row: dict[str, Any] = {"images": ["a.png"], "messages": turns}
    objects: dict[str, Any] = {"ref": ["the cup"], "bbox": [[10, 20, 30, 40]]}
    sample = opened(tmp_path, row | {"objects": objects})
    assert (sample.phrase, sample.box) == ("the cup", Box(10, 20, 30, 40))
    shares = objects | {"bbox": [[0.1, 0.2, 0.3, 0.4]], "bbox_type": "norm1"}
    assert opened(tmp_path, row | {"objects": shares, "width": 200, "height": 100}).box == Box(20, 20, 60, 40)
    for wrong, said in (
        (shares, "needs to be real, or norm1 with width and height"),
        (objects | {"bbox": [[1, 2, 3, 4]] * 2}, "objects holds 2 boxes: one is needed"),
    ):
        with pytest.raises(DataError, match=said):
            opened(tmp_path, row | {"objects": wrong})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"codec": "qwen9"}, "codec 'qwen9' is no convention that is known"),
        ({"bbox": [1, 2, 30, 40]}, "is not the box of the answer"),
        ({"messages": MESSAGES[:1]}, "must hold a turn of user and one of assistant"),
        ({"messages": [*MESSAGES, *MESSAGES]}, "must hold a turn of user and one of assistant"),
        ({"messages": [MESSAGES[0], {"role": "assistant", "content": "I see none."}]}, "the answer holds no box"),
        (
            {"messages": [MESSAGES[0], {"role": "assistant", "content": f"{ANSWER[-66:-5]},{ANSWER[-60:]}"}]},
            "the answer holds",
        ),
        ({"messages": [MESSAGES[0], {"role": "assistant", "content": [1]}]}, "has a turn that holds no text"),
        ({"messages": "hello"}, "must hold turns, each with role and content"),
        ({"images": ["a.png", "b.png"]}, "picture"),
        ({"images": ["none.png"]}, "says no width and height, and its picture does not either"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        opened(tmp_path, ROWS["ms-swift"] | CODEC | change)
    assert "rows.jsonl line 1" in str(caught.value)


def test_a_codec_is_for_conversations_alone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no conversations, which alone need to be told a codec"):
        open_dataset("synthref/val", codec="qwen3_vl")
    (tmp_path / "rows.parquet").touch()
    with pytest.raises(DataError, match="leave --from-codec out"):
        open_dataset(tmp_path / "rows.parquet", codec="qwen3_vl")


def test_llama_factory_is_told_where_its_columns_are() -> None:
    assert dataset_info("mine", "rows.jsonl") == {
        "mine": {
            "file_name": "rows.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "conversations", "images": "images"},
        }
    }
