"""`egm sft` on newer bases: a step is the step of plain TRL on the same samples, whatever of the model is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from trl import SFTConfig, SFTTrainer

from egm.backends import GenerationSettings
from egm.backends.transformers import TransformersBackend
from egm.boxes import Box
from egm.codecs import Codec, get_codec
from egm.errors import ModelError
from egm.grounder import Grounder
from egm.models.families import trained_family
from egm.publish.export import export_model
from egm.training.data import SynthRefRows
from egm.training.data.collate import IGNORED, Collator
from egm.training.sft import trainer as sft_trainer
from egm.training.sft.recipe import EvalSection, SFTRecipe
from egm.training.sft.run import make_trainer, run_sft
from egm.training.shared.model import checkpointing_name, make_codec
from egm.training.shared.trainable import choose_parts
from egm.types import Sample

from ...families import MODEL_TYPES, config_of, processor_of, random_checkpoint, random_model

pytestmark = pytest.mark.usefixtures("on_cpu")

WAYS: dict[str, dict[str, Any]] = {
    "whole": {},
    "tied": {},
    "recomputed": {},
    "frozen": {"freeze": ["vision_tower", "embeddings"]},
    "adapter": {"lora": {"rank": 2, "full": ["projector"]}},
}
RATE = 1e-3


ROWS = SynthRefRows(1, 0)


def samples_of_two_sizes() -> list[Sample]:
    """Those of a scene, and one whose picture every processor has to resize."""
    wide = Image.radial_gradient("L").resize((317, 90)).convert("RGB")
    return [*ROWS[0], Sample("w", wide, "it", Box(1, 2, 30, 40), wide.size, rationale="Here.")]


def recipe_of(model_type: str, *, recompute: float = 0.0, **model: Any) -> SFTRecipe:
    optim = {"steps": 1, "learning_rate": RATE, "warmup_steps": 0, "optimizer": "adamw", "recompute": recompute}
    return SFTRecipe.model_validate(
        {
            "model": {"name": str(random_checkpoint(model_type)), **model},
            "data": {"scenes": 1},
            "optim": optim | {"batch_size": ROWS.samples_per_row},
            "run": {"log_every": 1, "save_every": 100},
        }
    )


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.requires_grad}


def conversation(codec: Codec, processor: Any, sample: Sample) -> dict[str, Any]:
    """A sample as plain TRL reads it; boxes in pixels are those of the picture after the processor's resizing."""
    assert sample.box is not None
    assert sample.size is not None
    text = processor.apply_chat_template(codec.messages(sample.phrase), tokenize=False, add_generation_prompt=True)
    images, seen = processor.image_processor, None
    if codec.speaks_pixels:
        _, rows, columns = images(images=[sample.image], return_tensors="pt")["image_grid_thw"][0].tolist()
        seen = (columns * images.patch_size, rows * images.patch_size)
    target = codec.target(sample.phrase, sample.box, size=sample.size, rationale=sample.rationale, seen_size=seen)
    return {"images": [sample.image], "prompt": text, "completion": target + processor.tokenizer.eos_token}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_step_is_that_of_plain_trl(
    model_type: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "tied":
        monkeypatch.setattr(sft_trainer, "_SMALL_VOCABULARY", 0)  # so that the output layer is TRL's, as of large ones
    # Of experts only the shared ones are linear layers. InternVL's tower names its layers as the language model does.
    lora = {"modules": ["q_proj", "v_proj", *(["qkv"] if model_type != "internvl" else [])]}
    model = {"lora": WAYS[way]["lora"] | lora} if way == "adapter" else WAYS[way]
    recipe, processor = recipe_of(model_type, recompute=float(way == "recomputed"), **model), processor_of(model_type)
    ours = make_trainer(recipe, random_model(model_type, tied=way == "tied"), processor, ROWS, tmp_path / "run")
    before = weights(ours.model)
    ours.train()

    plain = choose_parts(random_model(model_type, tied=way == "tied"), recipe.model, seed=recipe.run.seed)
    options: dict[str, Any] = {"report_to": "none", "save_strategy": "no", "max_length": None, "use_cpu": True}
    options |= {"max_steps": 1, "per_device_train_batch_size": ROWS.samples_per_row, "logging_steps": 1}
    options |= {"bf16": False, checkpointing_name(SFTConfig): False, "completion_only_loss": True}
    options |= {"learning_rate": RATE}
    options |= {"max_grad_norm": recipe.optim.max_grad_norm, "adam_beta2": recipe.optim.beta2}
    options |= {"weight_decay": recipe.optim.weight_decay, "optim": "adamw_torch"}
    codec = make_codec(plain.config, processor)
    from datasets import Dataset

    trl = SFTTrainer(
        model=plain,
        args=SFTConfig(output_dir=str(tmp_path / "trl"), **options),
        train_dataset=Dataset.from_list([conversation(codec, processor, sample) for sample in ROWS[0]]),
        processing_class=processor,
    )
    trl.train()
    figures, wanted = ours.state.log_history[0], trl.state.log_history[0]
    assert figures["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
    assert figures["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-4)
    after, expected = weights(ours.model), weights(trl.model)
    assert after.keys() == expected.keys() == before.keys()
    still = [name for name in after if torch.equal(after[name], before[name])]
    assert all("lora_A" in name for name in still)  # whose gradient is 0 as long as the other factor is
    for name, value in after.items():
        # AdamW's first step is the rate times the gradient's sign, which rounding decides where that is next to 0.
        near = (value - expected[name]).abs() < 0.05 * RATE
        assert near.float().mean() > 0.98, name


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_parameter_belongs_to_one_part(model_type: str) -> None:
    family = trained_family(config_of(model_type))
    with torch.device("meta"):
        from transformers import AutoModelForImageTextToText

        model = AutoModelForImageTextToText.from_config(config_of(model_type))
    parts = [part for part in family.parts if part != "embeddings"]
    for parameter, _ in model.named_parameters():
        assert sum(family.has(parameter, part) for part in parts) == 1, parameter
    for part in family.parts:
        found = [name for name, _ in model.named_parameters() if family.has(name, part)]
        assert found, part
        assert all(any(f".{prefix}" in name for name in found) for prefix in family.parts[part] if prefix != "lm_head.")


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_batch_is_what_the_processor_and_the_model_make_of_it(model_type: str) -> None:
    """Tokens, positions and pixels, which travel another way than through the processor."""
    samples = samples_of_two_sizes()
    processor, model = processor_of(model_type), random_model(model_type)
    codec = make_codec(model.config, processor)
    batch = Collator(ROWS, processor, codec, model.config, fast=False).collate(samples)
    rows = [conversation(codec, processor, sample) for sample in samples]
    texts = [row["prompt"] + row["completion"] for row in rows]
    inputs = processor(text=texts, images=[sample.image for sample in samples], padding=True, return_tensors="pt")
    mask, labels = inputs["attention_mask"].bool(), batch["labels"]
    for ids, told, wanted, own in zip(batch["input_ids"], labels, inputs["input_ids"], mask, strict=True):
        assert torch.equal(ids[: own.sum()], wanted[own])  # padded on the other side
        completion = ids[: own.sum()][(told != IGNORED)[: own.sum()]]
        assert torch.equal(completion, ids[own.sum() - len(completion) : own.sum()])
        assert processor.tokenizer.decode(completion) == rows.pop(0)["completion"]  # the loss is on that alone
    pixels = trained_family(model.config).pixel_values(processor, batch["pixels"])
    torch.testing.assert_close(pixels, inputs["pixel_values"], atol=1e-5, rtol=0)
    if model_type == "internvl":  # whose library counts them by itself, one by one
        real = mask.flip(1)  # the processor pads on the left
        assert torch.equal(batch["position_ids"][:, : mask.shape[1]][real], (real.cumsum(1) - 1)[real])
        return
    grids = {"image_grid_thw": inputs["image_grid_thw"], "mm_token_type_ids": inputs["mm_token_type_ids"]}
    positions = model.model.get_rope_index(inputs["input_ids"], **grids, attention_mask=inputs["attention_mask"])[0]
    assert torch.equal(batch["position_ids"][:, :, : mask.shape[1]][:, mask], positions[:, mask])
    assert torch.equal(batch["image_grid_thw"], inputs["image_grid_thw"])


@pytest.mark.parametrize("way", ["whole", "adapter"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_run_gives_a_model_that_answers(model_type: str, way: str, tmp_path: Path) -> None:
    lora = {"lora": {"rank": 2, "modules": ["q_proj", "v_proj"]}} if way == "adapter" else {}
    held_out = EvalSection(data="synthref/val", every=1, samples=2, greedy=2, max_new_tokens=3)
    recipe = recipe_of(model_type, **lora).model_copy(update={"eval": held_out})
    assert run_sft(recipe, tmp_path / "run") == tmp_path / "run" / ("adapter" if lora else "model")
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert any("eval_loss" in line and "eval_accuracy" in line for line in log)
    out = export_model(tmp_path / "run", tmp_path / "out")
    assert not json.loads((out / "config.json").read_text())["text_config"].get("output_router_logits")
    settings = GenerationSettings(max_new_tokens=3)
    with Grounder.load(out, device="cpu", settings=settings) as grounder:
        assert [result.tokens for result in grounder.ground_many(ROWS[0][:2], progress=False)] == [3, 3]


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "qwen3_5_moe"])  # whose files have other names than the model
def test_a_resumed_run_goes_on_with_the_weights_that_it_saved(model_type: str, tmp_path: Path) -> None:
    recipe, out = recipe_of(model_type), tmp_path / "run"
    recipe = recipe.model_copy(
        update={
            "optim": recipe.optim.model_copy(update={"steps": 2}),
            "run": recipe.run.model_copy(update={"save_every": 1}),
        }
    )
    run_sft(recipe, out)
    whole = load_file(out / "model" / "model.safetensors")
    shutil.rmtree(out / "checkpoints" / "checkpoint-2")
    shutil.rmtree(out / "model")
    run_sft(recipe, out, resume=True)
    for name, value in load_file(out / "model" / "model.safetensors").items():
        assert torch.equal(value, whole[name]), name


def test_experts_balance_their_load_in_flattened_batches_too(tmp_path: Path) -> None:
    losses = []
    for flatten in (False, True):
        recipe = recipe_of("qwen3_vl_moe")
        recipe = recipe.model_copy(update={"run": recipe.run.model_copy(update={"flatten": flatten})})
        processor = processor_of("qwen3_vl_moe")
        out = tmp_path / str(flatten)
        trainer = make_trainer(recipe, random_model("qwen3_vl_moe"), processor, ROWS, out)
        trainer.train()
        losses.append(trainer.state.log_history[0])
    assert losses[1]["loss"] == pytest.approx(losses[0]["loss"], rel=1e-5)
    assert losses[1]["aux_loss"] == pytest.approx(losses[0]["aux_loss"], rel=1e-5)
    assert losses[1]["grad_norm"] == pytest.approx(losses[0]["grad_norm"], rel=1e-4)


def test_a_checkpoint_that_asks_for_router_logits_answers_in_batches(tmp_path: Path) -> None:
    """As plain TRL leaves it."""
    folder = Path(shutil.copytree(random_checkpoint("qwen3_5_moe"), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["output_router_logits"] = True
    (folder / "config.json").write_text(json.dumps(config))
    with Grounder.load(folder, device="cpu", settings=GenerationSettings(max_new_tokens=3)) as grounder:
        assert all(result.text for result in grounder.ground_many(ROWS[0][:2], progress=False))


def test_tags_are_taught_and_read_as_the_special_tokens_that_they_are() -> None:
    processor, config = processor_of("internvl"), config_of("internvl")
    codec = make_codec(config, processor)
    [sample] = SynthRefRows(1, 0)[0][:1]
    batch = Collator(ROWS, processor, codec, config).collate([sample])
    ids = batch["labels"][0][batch["labels"][0] != IGNORED].tolist()
    tags = processor.tokenizer.convert_tokens_to_ids(["<ref>", "</ref>", "<box>", "</box>"])
    special = {token for token, added in processor.tokenizer.added_tokens_decoder.items() if added.special}
    assert [token for token in ids if token in special] == [*tags, ids[-1]]
    backend = TransformersBackend(random_model("internvl"), processor)
    assert sample.size is not None
    text = backend._decode(ids[:-1])  # as evaluation does
    assert codec.parse(text, size=sample.size).box is not None
    assert text == codec.target(sample.phrase, sample.box, size=sample.size, rationale=sample.rationale)


def test_an_answer_ends_where_the_chat_template_ends_a_turn(tmp_path: Path) -> None:
    """Also where neither the tokenizer nor the configuration calls that its end."""
    processor, model = processor_of("internvl"), random_model("internvl")
    processor.tokenizer.eos_token = "<|endoftext|>"
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    backend = TransformersBackend.load(tmp_path / "model", device="cpu")
    batch = Collator(ROWS, backend.processor, get_codec("internvl"), backend.module.config).collate(ROWS[0][:1])
    last = batch["labels"][0][batch["labels"][0] != IGNORED][-1]
    assert processor.tokenizer.decode([last]) == "<|im_end|>"
    assert int(last) in backend._stops()


def test_boxes_in_pixels_are_taught_in_those_that_the_model_sees() -> None:
    processor, config = processor_of("qwen2_5_vl"), config_of("qwen2_5_vl")
    codec = get_codec("qwen2_5_vl")
    collator = Collator(ROWS, processor, codec, config, thinking=False, fast=False)
    image = Image.new("RGB", (1120, 840))  # seen as 308 x 224
    batch = collator.collate([Sample("a", image, "it", Box(0, 0, 560, 420), image.size)])
    labels = batch["labels"][0]
    text = processor.tokenizer.decode(labels[labels >= 0], skip_special_tokens=True)
    assert "[0, 0, 154, 112]" in text
    assert codec.parse(text, size=image.size, seen_size=(308, 224)).box == Box(0, 0, 560, 420)


def test_no_reasoning_is_taught_behind_a_template_that_has_ended_it() -> None:
    processor, config = processor_of("qwen3_5"), config_of("qwen3_5")
    processor.chat_template = processor.chat_template.replace("<think>\\n", "<think>\\n\\n</think>\\n\\n")
    codec = make_codec(config, processor)
    assert codec.name == "qwen3_vl_instruct"
    with pytest.raises(ModelError, match=r"ends the reasoning before the answer begins: set data\.thinking to false"):
        Collator(ROWS, processor, codec, config).collate(ROWS[0])
    collator = Collator(ROWS, processor, codec, config, thinking=False, fast=False)
    assert (collator.collate(ROWS[0])["labels"] >= 0).any()
