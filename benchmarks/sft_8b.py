"""Fine-tuning a published size through egm sft and through stock TRL: speed, memory and loss on the same data.

    python benchmarks/sft_8b.py                          # 8B, LoRA and frozen-vision full fine-tuning, on one GPU
    python benchmarks/sft_8b.py --ways full --recompute 0.5 --batch 8
    python benchmarks/sft_8b.py --preset tiny-s --batch 2 --steps 3 --warmup 1

The architecture is the real one with random weights, so nothing is downloaded; the tokenizer is egm-tiny's with the
published vocabulary around it. Pictures are noise in sizes that COCO has, seen at full size. Stock is TRL's SFTTrainer
with its own collator and defaults (gradient checkpointing, no workers); both see the same batches in the same order.

Model FLOPs utilisation counts the work that has to be done, on real tokens: 6 FLOPs a weight and token of the language
model (4 where its weights are frozen), 6 a weight of the output layer and token of an answer (4), 2 a weight and patch
of the frozen vision tower, 6 (2) a weight of the mergers and merged token, 6 an adapter weight and token, and
6 x layers x width x length^2 for causal attention; over `--peak` TFLOP/s times the time.
"""

from __future__ import annotations

import argparse
import gc
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from torch.utils.data import SequentialSampler
from transformers import AutoModelForImageTextToText, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

from egm.boxes import Box
from egm.codecs import get_codec
from egm.datasets import Dataset as SampleDataset
from egm.datasets.synthetic import SynthRef
from egm.models import build_config, build_processor, get_preset
from egm.models.families import trained_family
from egm.training.data import DatasetRows
from egm.training.data.collate import IGNORED, Collator
from egm.training.sft.recipe import SFTRecipe
from egm.training.sft.run import make_trainer
from egm.training.shared.trainable import choose_parts
from egm.types import Sample

SIZES = [(640, 480), (480, 640), (640, 427), (500, 375), (612, 612)]
RATE = 1e-5
ON_GPU = torch.cuda.is_available()


def make_samples(count: int, folder: Path) -> list[Sample]:
    """Write noisy pictures, with SynthRef's phrases and rationales and boxes anywhere."""
    draw, source = random.Random(0), SynthRef("train")
    texts = [sample for scene in range(count) for sample in source.samples(scene)[:1]]
    samples = []
    for number, text in enumerate(texts):
        width, height = size = draw.choice(SIZES)
        noise = np.random.default_rng(number).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        path = folder / f"{number}.jpg"
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path)
        box = Box(draw.uniform(0, width / 2), draw.uniform(0, height / 2), width * 0.8, height * 0.9)
        samples.append(Sample(str(number), str(path), text.phrase, box, size, rationale=text.rationale))
    return samples


def make_model(name: str, processor: Any, dtype: str) -> Any:
    config = build_config(get_preset(name))
    for key in ("image_pad", "video_pad", "vision_start", "vision_end"):
        attribute = {"image_pad": "image_token_id", "video_pad": "video_token_id"}.get(key, f"{key}_token_id")
        setattr(config, attribute, processor.tokenizer.convert_tokens_to_ids(f"<|{key}|>"))
    torch.manual_seed(0)
    with torch.device("cuda" if ON_GPU else "cpu"):
        return AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, dtype))


def make_recipe(options: argparse.Namespace, way: str) -> SFTRecipe:
    parts = {"lora": {"rank": options.rank}} if way == "lora" else {"freeze": ["vision_tower"]}
    recompute = options.recompute if options.recompute is not None else (0.0 if way == "lora" else 1.0)
    optim = {"learning_rate": RATE, "schedule": "constant_with_warmup", "warmup_steps": 0, "recompute": recompute}
    return SFTRecipe.model_validate(
        {
            "model": {"name": options.preset, "dtype": options.dtype} | parts,
            "data": {"max_length": 4096},
            "optim": {"steps": options.steps, "batch_size": options.batch} | optim,
            "run": {"workers": options.workers, "flatten": True, "log_every": 1, "save_every": 10**6},
        }
    )


def make_stock(recipe: SFTRecipe, model: Any, processor: Any, samples: list[Sample], out: Path) -> Any:
    codec, rows = get_codec("qwen3_vl"), []
    for sample in samples:
        assert sample.box is not None
        assert sample.size is not None
        messages = codec.messages(sample.phrase)
        prompt = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        target = codec.target(sample.phrase, sample.box, size=sample.size, rationale=sample.rationale)
        rows.append({"prompt": prompt, "completion": target + "<|im_end|>", "images": [str(sample.image)]})
    from datasets import Image as Picture
    from datasets import List
    from peft import LoraConfig

    data = Dataset.from_list(rows).cast_column("images", List(Picture()))
    lora = recipe.model.lora
    adapter = lora and LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.modules), task_type="CAUSAL_LM"
    )
    if lora is None:
        choose_parts(model, recipe.model)
    arguments = SFTConfig(
        output_dir=str(out),
        max_steps=recipe.optim.steps,
        per_device_train_batch_size=recipe.optim.batch_size,
        learning_rate=RATE,
        lr_scheduler_type="constant_with_warmup",
        max_length=None,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        seed=recipe.run.seed,
        use_cpu=not ON_GPU,
        bf16=ON_GPU,
        disable_tqdm=True,
    )
    return SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=processor, peft_config=adapter)


class Clock(TrainerCallback):
    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs
        if ON_GPU:
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def flops(model: Any, batch: dict[str, Any], way: str) -> float:
    """FLOPs of the model on one batch, see above."""
    weights = {"vision_tower": 0, "projector": 0, "language_model": 0, "head": 0, "adapter": 0}
    family = trained_family(model.config)
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or ("embed" in name and "patch_embed" not in name):
            continue
        part = next((part for part in ("vision_tower", "projector") if family.has(name, part)), None)
        part = part or ("adapter" if "lora_" in name else "head" if "lm_head" in name else "language_model")
        weights[part] += parameter.numel()
    patches, labels = len(batch["pixels"]), batch["labels"]
    lengths = (torch.arange(1, labels.shape[1] + 1) * (labels != IGNORED)).amax(1).double()
    tokens, answers = float(lengths.sum()), float((labels != IGNORED).sum())
    text = model.config.get_text_config()
    frozen = way == "lora"
    width = text.num_attention_heads * text.head_dim
    return (
        (4 if frozen else 6) * (weights["language_model"] * tokens + weights["head"] * answers)
        + 2 * weights["vision_tower"] * patches
        + (2 if frozen else 6) * weights["projector"] * patches / 4
        + 6 * weights["adapter"] * tokens
        + 6 * text.num_hidden_layers * width * float((lengths**2).sum())
    )


def measure(kind: str, way: str, options: argparse.Namespace, samples: list[Sample], folder: Path) -> list[str]:
    recipe, processor = make_recipe(options, way), build_processor()
    processor.image_processor.size = {"shortest_edge": 64 * 64, "longest_edge": 4096 * 32 * 32}
    model, rows = make_model(options.preset, processor, options.dtype), DatasetRows(SampleDataset("benchmark", samples))
    set_seed(recipe.run.seed)
    if kind == "egm":
        trainer: Any = make_trainer(recipe, model, processor, rows, folder)
    else:
        trainer = make_stock(recipe, model, processor, samples, folder)
    trainer._get_train_sampler = lambda *_: SequentialSampler(trainer.train_dataset)
    trainer.args.save_strategy = "no"  # an 8B model's last checkpoint takes longer to write than all that is timed
    clock = Clock()
    trainer.add_callback(clock)
    if ON_GPU:
        torch.cuda.reset_peak_memory_stats()
    try:
        trainer.train()
    except torch.OutOfMemoryError:
        return [kind, way, "out of memory", "", "", ""]
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    timed = options.steps - options.warmup
    seconds = (clock.times[-1] - clock.times[options.warmup - 1]) / timed
    collate = Collator(rows, processor, get_codec("qwen3_vl"), model.config, max_length=4096).collate
    batches = [collate(samples[i * options.batch : (i + 1) * options.batch]) for i in range(options.steps)]
    work = sum(flops(trainer.model, batch, way) for batch in batches[options.warmup :]) / timed
    peak = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if ON_GPU else "-"
    share = f"{work / seconds / options.peak / 1e12:.1%}"
    return [kind, way, f"{options.batch / seconds:.2f}", peak, share, f"{losses[0]:.4f} -> {losses[-1]:.4f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="8B")
    parser.add_argument("--ways", nargs="+", choices=["lora", "full"], default=["lora", "full"])
    parser.add_argument("--kinds", nargs="+", choices=["stock", "egm"], default=["stock", "egm"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--warmup", type=int, default=3, help="steps that are not timed")
    parser.add_argument("--recompute", type=float, help="egm's optim.recompute; 0 for lora and 1 for full by default")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--workers", type=int, default=8 if ON_GPU else 0)
    parser.add_argument("--dtype", default="bfloat16" if ON_GPU else "float32")
    parser.add_argument(
        "--peak", type=float, default=989.0, help="TFLOP/s; 989 is an H100's and H200's, dense bfloat16"
    )
    options = parser.parse_args()
    table = [["", "way", "samples/s", "peak memory", "MFU", "loss"]]
    with tempfile.TemporaryDirectory() as name:
        samples = make_samples(options.batch * options.steps, Path(name))
        for way in options.ways:
            for kind in options.kinds:
                table.append(measure(kind, way, options, samples, Path(name) / f"{way}-{kind}"))
                gc.collect()
                torch.cuda.empty_cache()
    where = torch.cuda.get_device_name() if ON_GPU else "CPU"
    timed = options.steps - options.warmup
    print(f"\n{options.preset}, {options.dtype}, batch {options.batch}, {timed} steps timed, {where}")
    for row in table:
        print("".join(cell.ljust(width) for cell, width in zip(row, (8, 8, 16, 14, 8, 20), strict=True)).rstrip())


if __name__ == "__main__":
    main()
