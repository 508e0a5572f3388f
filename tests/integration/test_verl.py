"""From a dataset through verl's own dataset, processor and reward manager to what `egm eval` measures."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from egm.backends import ScriptedBackend
from egm.boxes import Box
from egm.codecs import Codec, get_codec
from egm.datasets import open_dataset
from egm.datasets.rl_rows import write_rl_rows
from egm.datasets.synthetic import SynthRef
from egm.evaluate import evaluate
from egm.grounder import Grounder
from egm.models import build_processor, embedded_path
from egm.training.grpo.prompts import PromptCollator
from egm.training.rewards.reward import Reward, RewardSection
from egm.training.verl.configure import Cluster, Options, configure
from egm.training.verl.policy import AskedModel
from egm.types import Completion, Sample

from ..real.conftest import real_data as real_data
from ..training.verl.recipes import recipe
from .environments import ROOT

pytestmark = pytest.mark.integration

SECTION = {
    "terms": [{"kind": "mix"}],
    "format_gate": {"factor": 0.5},
    "overlong": {"limit": 120, "buffer": 60},
    "repetition": {},
}
TAGS = ["<ref>", "</ref>", "<box>", "</box>"]
NAMES = ("qwen3_vl", "qwen3_vl_instruct", "internvl")


@dataclass(frozen=True)
class Case:
    """Samples that are asked about, by one codec."""

    samples: list[Sample]
    codec: Codec
    style: str | None = None


def answers(sample: Sample, codec: Codec, chance: random.Random) -> list[str]:
    """Texts about a sample: right, near, on another scale, out of form, cut off, long, repeated, and none."""
    assert sample.box is not None
    assert sample.size is not None
    width, height = sample.size
    near = Box(
        *(
            value + chance.uniform(-0.04, 0.04) * side
            for value, side in zip(sample.box, (width, height) * 2, strict=True)
        )
    )
    inside = Box(*(min(max(value, 0.0), side) for value, side in zip(near, (width, height) * 2, strict=True)))
    right = codec.target(sample.phrase, sample.box, size=sample.size, rationale="It is there.")
    numbers = ", ".join(str(round(value)) for value in sample.box)
    return [
        right,
        codec.target(sample.phrase, inside, size=sample.size, rationale="It is [1] there, and no other."),
        codec.target(sample.phrase, inside, size=sample.size),
        f"So.\n</think>\n\nThe box is [{numbers}].",
        right[: len(right) * 2 // 3],
        f"I see it. So.\n</think>\n\n{sample.phrase}: ({numbers})",
        "there " * 150 + right,
        "No such thing.\n</think>\n\nnone",
        "",
    ]


def whole(samples: Sequence[Sample]) -> list[Sample]:
    """The same questions about whole objects, whose boxes leave the frame."""
    found = []
    for sample in samples:
        assert sample.box is not None
        x1, y1, x2, y2 = sample.box
        found.append(replace(sample, box=Box(x1 - x2, y1, x2, y2), amodal=True, id=f"{sample.id} whole"))
    return found


def synthetic(codec: Codec) -> Case:
    samples = list(SynthRef("val", scenes=3))
    return Case([*samples, *whole(samples[:3])], codec)


def photographs(codec: Codec, find: Callable[[str], Path]) -> Case:
    pictures = find("coco_images")
    dataset = open_dataset("refcoco+/val", data=find("refcoco/refcoco+_val.json").parent, images=pictures)
    there = [sample for sample in dataset.annotations() if Path(str(sample.image)).exists()]
    assert len(there) > 3
    return Case([*there[:6], *whole(there[:2])], codec, "grounding")


def run_verl(python: Any, folder: Path, case: Case, *, tagged: bool = False) -> None:
    """Hold verl's prompts and rewards of a case against those of `egm grpo` and `egm eval`."""
    model = folder / "model"
    processor = build_processor()
    if tagged:
        processor.tokenizer.add_special_tokens({"additional_special_tokens": TAGS})
    processor.save_pretrained(model)
    (model / "config.json").write_bytes((embedded_path() / "config.json").read_bytes())
    tokenizer, codec = processor.tokenizer, case.codec
    made = recipe(reward=SECTION, data={"prompt": case.style})
    asked = AskedModel(made)
    write_rl_rows(
        case.samples, folder / "train.parquet", source="x", codec=codec, prompt=case.style, embed=True,
        pixels=asked.policy.pixels,
    )  # fmt: skip
    content = configure(made, folder, replace(asked.policy, path=model), Cluster(1, 1, 16), Options()).content
    content["reward"]["custom_reward_function"]["reward_kwargs"]["codec"] = codec.name
    (folder / "verl.yaml").write_text(yaml.safe_dump(content))

    chance = random.Random(3)
    texts = [answers(sample, codec, chance) for sample in case.samples]
    ids = [[[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in some] for some in texts]
    job = {
        "configuration": str(folder / "verl.yaml"),
        "parquet": str(folder / "train.parquet"),
        "model": str(model),
        "completions": ids,
    }
    (folder / "job.json").write_text(json.dumps(job))
    ended = python(ROOT / "tests" / "integration" / "verl_side.py", folder / "job.json", folder / "out.json")
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads((folder / "out.json").read_text())

    prompts = PromptCollator(processor, codec, case.style)(case.samples)
    counts = np.cumsum([0, *(int(np.prod(grid)) for grid in prompts.grids)])
    for number, theirs in enumerate(found["asked"]):
        picture = prompts.pictures[number]
        assert theirs["ids"] == prompts.ids[number]
        assert theirs["grid"] == list(prompts.grids[picture])
        pixels = prompts.pixels[counts[picture] : counts[picture + 1]].flatten()[::97].tolist()
        # verl resizes by Pillow before the processor, which resizes by torch: the same filter, rounded otherwise.
        assert np.abs(np.subtract(theirs["pixels"], pixels)).mean() < 0.02

    reward = Reward(RewardSection.model_validate(SECTION), codec)
    for place in range(len(texts[0])):
        rows = range(len(texts))
        words = {n: tokenizer.decode(ids[n][place][:-1], skip_special_tokens=False) for n in rows}
        measured = evaluated(folder / f"run-{place}", case, words)
        grades = reward.grade(
            [words[n] for n in rows],
            truths=[case.samples[n].box for n in rows],  # type: ignore[misc]
            sizes=[case.samples[n].size for n in rows],  # type: ignore[misc]
            amodal=[case.samples[n].amodal for n in rows],
            tokens=[len(ids[n][place]) for n in rows],
            phrases=[case.samples[n].phrase for n in rows],
        )
        for n, total in zip(rows, grades.totals, strict=True):
            theirs = found["scores"][n][place]
            assert theirs["iou"] == pytest.approx(measured[n], abs=1e-9), words[n]
            assert theirs["acc"] == float(measured[n] >= 0.5)
            assert theirs["score"] == pytest.approx(float(total), abs=1e-9), words[n]


def evaluated(folder: Path, case: Case, words: dict[int, str]) -> dict[int, float]:
    """What `egm eval` measures of texts: the IoU of each."""
    samples = [replace(case.samples[n], id=f"{n}", phrase=f"{case.samples[n].phrase} #{n}") for n in words]
    replies = {sample.phrase: Completion(words[int(sample.id)]) for sample in samples}
    run = evaluate(samples, Grounder(ScriptedBackend(replies), case.codec), folder)
    return {int(record.id): record.iou or 0.0 for record in run.records}


@pytest.mark.parametrize("name", NAMES)
def test_synthref(python: Any, tmp_path: Path, name: str) -> None:
    run_verl(python, tmp_path, synthetic(get_codec(name)))


@pytest.mark.parametrize("name", ["qwen3_vl", "internvl"])
def test_photographs(python: Any, tmp_path: Path, name: str, real_data: Callable[[str], Path]) -> None:
    run_verl(python, tmp_path, photographs(get_codec(name), real_data))


def test_tags_that_are_special_tokens(python: Any, tmp_path: Path) -> None:
    """verl's decoding strips them, and what is left is form all the same."""
    run_verl(python, tmp_path, synthetic(get_codec("internvl")), tagged=True)
