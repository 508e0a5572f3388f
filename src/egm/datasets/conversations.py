"""Rows of conversations for other people's trainers; each can be read back (`egm.datasets.formats`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from egm.boxes import Box
from egm.codecs import Codec
from egm.types import Sample

IMAGE: Final = "<image>"
"""What stands for the picture in a question."""


def conversation_row(tool: str, sample: Sample, name: str, codec: Codec) -> dict[str, Any]:
    """Write a sample as a row of a tool's file.

    The answer is what the codec writes and nothing else (`Codec.turn`). `id`, `sent`, `bbox`, `width`, `height`,
    `amodal`, `codec` and `meta` stand beside what the tool reads, for EGM to read the same sample back.

    Args:
        tool: One of `TOOLS`.
        sample: The sample; its box and its size are known.
        name: Its picture.
        codec: The family that is trained.
    """
    assert sample.box is not None
    assert sample.size is not None
    question = question_text(sample, codec)
    answer = codec.turn(sample.phrase, sample.box, size=sample.size, rationale=sample.rationale)
    return {"id": sample.id, **TOOLS[tool](question, answer, name), **_facts(sample, sample.box, sample.size, codec)}


def question_text(sample: Sample, codec: Codec) -> str:
    """Write the question of a codec as one text, with `<image>` for the picture, and nothing added."""
    parts = codec.messages(sample.phrase, amodal=sample.amodal)[0]["content"]
    return "".join(IMAGE if part["type"] == "image" else part["text"] for part in parts)


def _facts(sample: Sample, box: Box, size: tuple[int, int], codec: Codec) -> dict[str, Any]:
    facts = {
        "sent": sample.phrase,
        "bbox": list(box),
        "width": size[0],
        "height": size[1],
        "amodal": sample.amodal,
        "codec": codec.name,
    }
    # As text: these tools load rows into columns, each of one type throughout.
    return facts | ({"meta": json.dumps(dict(sample.meta), ensure_ascii=False)} if sample.meta else {})


def _qwen_vl_finetune(question: str, answer: str, image: str) -> dict[str, Any]:
    return {"image": image, "conversations": _human_and_gpt(question, answer)}


def _llama_factory(question: str, answer: str, image: str) -> dict[str, Any]:
    return {"conversations": _human_and_gpt(question, answer), "images": [image]}


def _ms_swift(question: str, answer: str, image: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, "images": [image]}


def _human_and_gpt(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


TOOLS: Final[Mapping[str, Callable[[str, str, str], dict[str, Any]]]] = {
    "qwen-vl-finetune": _qwen_vl_finetune,
    "llama-factory": _llama_factory,
    "ms-swift": _ms_swift,
}
"""What each tool reads of a row, by the tool's name."""


def dataset_info(name: str, file: str) -> dict[str, Any]:
    """Return the entry of LLaMA-Factory's `dataset_info.json` for a file of `llama-factory` rows."""
    columns = {"messages": "conversations", "images": "images"}
    return {name: {"file_name": file, "formatting": "sharegpt", "columns": columns}}
