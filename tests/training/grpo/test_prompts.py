"""Prompts for a generation, and completions of them: made ahead, passed over, decoded as the library decodes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from egm.boxes import Box
from egm.codecs import get_codec
from egm.errors import DataError
from egm.models import build_processor
from egm.models.decode.decoder import BatchDecoder
from egm.models.fast.enable import enable_fast_path
from egm.training.data import SynthRefRows, open_rows
from egm.training.grpo.prompts import PromptCollator, PromptPrefetcher, SampleTable
from egm.training.recipe import ModelSection
from egm.training.shared.model import open_model
from egm.types import Sample

CODEC = get_codec("qwen3_vl")


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    model, processor = open_model(ModelSection(name="egm-tiny"), seed=0)
    return enable_fast_path(model), processor


def decoder(tiny: tuple[Any, Any], rows: int = 6) -> BatchDecoder:
    model, processor = tiny
    tokenizer, banned = processor.tokenizer, [model.config.image_token_id, model.config.video_token_id]
    stops = [tokenizer.eos_token_id]
    return BatchDecoder(
        model, dtype=torch.float32, stops=stops, pad=tokenizer.pad_token_id, banned=banned, max_rows=rows, graphs=False
    )


def test_greedy_decoding_is_that_of_generate(tiny: tuple[Any, Any]) -> None:
    from egm.backends import GenerationSettings
    from egm.backends.transformers import TransformersBackend
    from egm.grounder import Grounder

    table = SampleTable(SynthRefRows(4, 1))
    samples = [table[i] for i in (0, 1, 5, 9)]
    prompts = PromptCollator(tiny[1], CODEC, None)(samples)
    answers = decoder(tiny)(prompts, 2, max_new_tokens=40, temperature=0.0)
    grounder = Grounder(TransformersBackend(*tiny), CODEC, settings=GenerationSettings(max_new_tokens=40))
    expected = [grounding.text for grounding in grounder.ground_many(samples) for _ in range(2)]
    assert tiny[1].tokenizer.batch_decode(answers) == expected


def test_sampling_follows_the_models_probabilities(tiny: tuple[Any, Any]) -> None:
    model, processor = tiny
    prompts = PromptCollator(processor, CODEC, None)([SampleTable(SynthRefRows(1, 1))[0]])
    torch.manual_seed(0)
    answers = decoder(tiny, 125)(prompts, 250, max_new_tokens=1, temperature=3.0)
    ids = torch.tensor(prompts.ids)
    with torch.no_grad():
        asked = {"pixel_values": prompts.pixels, "image_grid_thw": torch.tensor(prompts.grids)}
        asked["mm_token_type_ids"] = (ids == processor.image_token_id).long()
        scores = model(input_ids=ids, **asked).logits[0, -1]
    scores[[model.config.image_token_id, model.config.video_token_id]] = -torch.inf
    shares = (scores / 3.0).softmax(0)
    likeliest = int(shares.argmax())
    share = np.mean([answer[0] == likeliest for answer in answers])
    assert share == pytest.approx(float(shares[likeliest]), abs=0.08)
    assert not {token for answer in answers for token in answer} & {
        model.config.image_token_id,
        model.config.video_token_id,
    }
    narrow = decoder(tiny, 50)(prompts, 50, max_new_tokens=1, temperature=3.0, top_k=2)
    assert len({answer[0] for answer in narrow}) <= 2
    nucleus = decoder(tiny, 50)(prompts, 50, max_new_tokens=1, temperature=3.0, top_p=1e-6)
    assert {answer[0] for answer in nucleus} == {likeliest}


def test_questions_made_ahead_are_the_same(tiny: tuple[Any, Any]) -> None:
    table, collate = SampleTable(SynthRefRows(4, 1)), PromptCollator(tiny[1], CODEC, None)
    prefetcher = PromptPrefetcher(table, collate, stride=4, workers=1)
    for first in (0, 4, 8, 2):
        made = prefetcher.get([first, first + 1])
        expected = collate([table[first], table[first + 1]])
        assert made.ids == expected.ids
        assert torch.equal(made.pixels, expected.pixels)
    prefetcher.close()


def test_questions_are_made_ahead_after_a_signal_to_all_processes(tiny: tuple[Any, Any]) -> None:
    table, collate = SampleTable(SynthRefRows(20, 1)), PromptCollator(tiny[1], CODEC, None)
    prefetcher = PromptPrefetcher(table, collate, stride=2, workers=1)
    for first in range(0, 12, 2):  # further than is prefetched
        assert prefetcher.get([first]).ids == collate([table[first]]).ids
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGTERM)


def test_a_box_outside_its_picture_is_not_reinforced(tiny: tuple[Any, Any]) -> None:
    collate = PromptCollator(tiny[1], CODEC, None)
    row = Sample("a", Image.new("RGB", (64, 64)), "it", Box(1, 2, 300, 40))
    with pytest.raises(DataError, match=r"^sample a has its box outside its image of \(64, 64\) pixels$"):
        collate([row])
    assert len(collate([replace(row, amodal=True)]).ids) == 1


def write_rows(folder: Path, form: str) -> Path:
    """Two pictures with three phrases each, as paths or inside the file, mixed up."""
    row: dict[str, Any] = {"bbox": [1.0, 2.0, 30.0, 40.0], "height": 64, "width": 64}
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (64, 64), colour).save(folder / name)
    rows = [row | {"image": name, "sent": f"phrase {n}"} for n in range(3) for name in ("a.png", "b.png")]
    if form == "jsonl":
        (folder / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
        return folder / "rows.jsonl"
    if form == "parquet with pictures":
        held = {name: {"bytes": (folder / name).read_bytes(), "path": None} for name in ("a.png", "b.png")}
        rows = [
            {"question_id": str(n), "answer": [each["sent"]], "bbox": each["bbox"], "image": held[each["image"]]}
            for n, each in enumerate(rows)
        ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    return folder / "rows.parquet"


@pytest.mark.parametrize("form", ["jsonl", "parquet", "parquet with pictures"])
def test_each_picture_is_processed_once_however_many_phrases_it_has(tmp_path: Path, form: str) -> None:
    table = SampleTable(open_rows(str(write_rows(tmp_path, form)), seed=0, images=tmp_path))
    samples = [table[number] for number in range(len(table))]
    assert len(samples) == 6
    prompts = PromptCollator(build_processor(), CODEC, None)(samples)
    assert len(prompts.grids) == len(prompts.sizes) == 2
    assert prompts.pictures == [0, 1, 0, 1, 0, 1]
    part = prompts.part([1, 5])
    assert (len(part.grids), part.pictures) == (1, [0, 0])


class Listed:
    """Rows of a list."""

    blocks = None
    samples_per_row = 2

    def __init__(self, rows: list[list[Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[Any]:
        return self.rows[index]


def test_rows_without_samples_are_passed_over() -> None:
    table = SampleTable(Listed([["a", "b"], [], ["c"], []]))
    assert [table[number] for number in range(8)] == ["a", "b", "c", "c", "c", "c", "a", "b"]
    with pytest.raises(DataError, match="not one sample"):
        SampleTable(Listed([[], []]))[1]


def test_none_and_many_are_asked_for_and_rewarded(tiny: tuple[Any, Any]) -> None:
    from egm.training.grpo.grading import grade
    from egm.training.rewards.reward import Reward, RewardSection

    samples = [sample for row in range(4) for sample in SynthRefRows(9, 0, split="train-any")[row]]
    tokenizer = tiny[1].tokenizer
    prompts = PromptCollator(tiny[1], CODEC, None)(samples)
    for ids, sample in zip(prompts.ids, samples, strict=True):
        question = CODEC.messages(sample.phrase, expect=sample.expect)[0]["content"][-1]["text"]
        assert question in tokenizer.decode(ids)
    answers = [CODEC.target(s.phrase, s.truths or (), size=s.size or (1, 1), rationale="So.") for s in samples]
    completions = [tokenizer(text)["input_ids"] for text in answers]
    _, grades = grade(Reward(RewardSection(), CODEC), prompts, range(len(samples)), completions, tokenizer, [])
    assert (grades.totals > 0.9).all()
    assert grades.accuracy() == 1
