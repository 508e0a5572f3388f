"""Before training: a few rollouts are scored, and a run that could not learn is refused with the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from egm.boxes import iou
from egm.codecs import Codec, get_codec
from egm.errors import EgmError, ModelError
from egm.models.decode.base import Decoder
from egm.progress import progress_task
from egm.training.grpo.grading import grade
from egm.training.grpo.prompts import PromptCollator, Prompts
from egm.training.grpo.recipe import GRPORecipe
from egm.training.recipe import Prompts as PromptStyles
from egm.training.rewards.reward import Grades, Reward
from egm.training.yaml_reader import read_yaml
from egm.types import Sample

PROMPTS, COMPLETIONS = 4, 4
"""How many samples are asked about, and how often each: 16 rollouts."""

_LEAST_TOKENS = 4
_LEAST_SHARE = 0.02


def check_digits(tokenizer: Any, name: str) -> None:
    """Refuse a tokenizer that does not write each digit of a number as a token of its own.

    Qwen-VL's do, and coordinates are learnt and rewarded digit by digit; another one cannot be the model's own.

    Raises:
        ModelError: If that is so.
    """
    for number in ("7", "42", "999"):
        count = len(tokenizer(number, add_special_tokens=False)["input_ids"])
        if count != len(number):
            raise ModelError(
                f"the tokenizer of {name!r} writes {number} as {count} tokens, not one a digit as its family's: it is "
                "not the tokenizer that the model was trained with: copy the right one beside the weights"
            )


def preflight(
    recipe: GRPORecipe,
    samples: Sequence[Sample],
    *,
    collator: PromptCollator,
    decoder: Decoder,
    reward: Reward,
    stops: Sequence[int],
) -> Grades:
    """Sample and score 16 rollouts.

    Args:
        recipe: What is to be done.
        samples: The first samples.
        collator: Makes prompts of them.
        decoder: Decodes completions.
        reward: What these are worth.
        stops: Tokens that end a completion.

    Returns:
        What they were worth.

    Raises:
        EgmError: If the terms of the reward are all equal, or no box overlaps the truth and it can be told why; the
            message says so.
    """
    rollout = recipe.rollout

    def sample(collate: PromptCollator, count: int) -> tuple[Prompts, list[str], Grades]:
        prompts = collate(samples[:PROMPTS])
        with progress_task("preflight: sampling rollouts"):
            completions = decoder(
                prompts,
                count,
                max_new_tokens=rollout.max_new_tokens,
                temperature=rollout.temperature,
                top_p=rollout.top_p,
                top_k=rollout.top_k,
            )
        rows = [row for row in range(len(prompts.samples)) for _ in range(count)]
        return prompts, *grade(reward, prompts, rows, completions, collate.processor.tokenizer, stops)

    prompts, texts, grades = sample(collator, COMPLETIONS)
    differ = np.ptp(grades.terms) > 1e-8
    if differ and any(score.iou > 0 for score in grades.scores):
        return grades

    def in_style(style: str) -> Grades:
        return sample(collator.styled(style), 1)[2]

    reason = (
        _shrunk(prompts, collator)
        or _cut_off(grades, texts, rollout.max_new_tokens)
        or _other_prompt_style(recipe, collator.codec, grades, in_style)
        or _other_convention(prompts, texts, grades, COMPLETIONS)
        or _unreadable(grades, texts)
    )
    if differ and reason is None:  # honest misses, of which `giou_below` tells near from far
        return grades
    reason = reason or (
        f"every answer earns the same, such as {_quote(texts[0])}: raise rollout.temperature, or give harder samples"
    )
    symptom = "no box overlaps the truth" if differ else f"the rewards are all {_worth(grades)}"
    raise EgmError(
        f"preflight: of {len(texts)} rollouts {symptom}, so no box could be learnt: {reason} (--skip-preflight trains "
        "all the same)"
    )


def _worth(grades: Grades) -> str:
    if np.ptp(grades.totals) > 1e-8:
        return f"{grades.terms[0]:.3g} but for format and penalties"
    return f"{grades.totals[0]:.3g}"


def _shrunk(prompts: Prompts, collator: PromptCollator) -> str | None:
    """Tell whether the processor leaves next to nothing of a picture."""
    family, processor = collator.family, collator.processor
    for size, grid in zip(prompts.sizes, prompts.grids, strict=True):
        seen = family.seen_size(processor, grid)
        tokens = family.placeholders(processor, grid).count(processor.image_token)
        if seen is None:  # cut into tiles of one size, which are never shrunk to nothing
            continue
        if tokens < _LEAST_TOKENS or seen[0] * seen[1] < _LEAST_SHARE * size[0] * size[1]:
            return (
                f"a picture of {size[0]} x {size[1]} pixels is resized to {seen[0]} x {seen[1]} ({tokens} tokens): "
                "raise the largest size in the model's processor_config.json"
            )
    return None


def _cut_off(grades: Grades, texts: Sequence[str], limit: int) -> str | None:
    cut = [i for i, grounding in enumerate(grades.groundings) if grounding.failure == "truncated"]
    if len(cut) * 2 < len(texts):
        return None
    return (
        f"{len(cut)} are cut off by rollout.max_new_tokens {limit} before they answer, such as "
        f"{_quote(texts[cut[0]])}: raise it, or shorten the rationales of the fine-tuning"
    )


def _other_prompt_style(
    recipe: GRPORecipe, codec: Codec, grades: Grades, in_style: Callable[[str], Grades]
) -> str | None:
    """Tell whether the fine-tuning asked in another prompt style: by its recipe, or because that earns more."""
    styles_here = _styles(recipe.data.prompt, codec)
    taught = _fine_tuning_prompt(Path(recipe.model.name).parent / "recipe.yaml", codec)
    if taught is not None and (other := [style for style in styles_here if style not in taught]):
        said = repr(other[0]) if len(styles_here) == 1 else f"of {', '.join(styles_here)}"
        return (
            f"data.prompt is {said}, but the fine-tuning asked in the style {taught[0]!r}: set data.prompt to that"
            if len(taught) == 1
            else f"data.prompt is {said}, but the fine-tuning asked in {', '.join(taught)}: set data.prompt to these"
        )
    for style in codec.prompts:
        if style not in styles_here and (better := in_style(style)).totals.mean() > grades.totals.mean() + 0.1:
            return (
                f"asked in the style {style!r} the model earns {better.totals.mean():.2f} on average: the fine-tuning "
                f"seems to have used it, so set data.prompt to {style}"
            )
    return None


def _styles(prompt: PromptStyles | None, codec: Codec) -> tuple[str, ...]:
    """Return the prompt styles that a recipe names, or the codec's own."""
    return (prompt or codec.prompts[0],) if prompt is None or isinstance(prompt, str) else tuple(prompt)


def _fine_tuning_prompt(path: Path, codec: Codec) -> tuple[str, ...] | None:
    """Return the prompt styles of the run that a model folder lies in; None if unknown."""
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
        return _styles(content["data"].get("prompt"), codec) if content.get("stage") == "sft" else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _other_convention(prompts: Prompts, texts: Sequence[str], grades: Grades, completions: int) -> str | None:
    """Tell whether the numbers would be right if they meant something else; this only words the refusal."""
    readings: dict[str, list[float]] = {}
    for i, text in enumerate(texts):
        sample = prompts.samples[i // completions]
        size = prompts.sizes[prompts.pictures[i // completions]]
        for name, codec in (("pixels", "qwen2_5_vl"), ("another family's tags on 0-1000", "internvl")):
            box = get_codec(codec).parse(text.rpartition("</think>")[2], size=size, seen_size=size).box
            overlap = 0.0 if box is None or sample.box is None else iou(box, sample.box)
            readings.setdefault(name, []).append(overlap)
    name, values = max(readings.items(), key=lambda item: float(np.mean(item[1])))
    as_read = float(np.mean([score.iou for score in grades.scores]))
    if np.mean(values) > as_read + 0.1:
        return (
            f"the boxes would fit the truth if their numbers meant {name} (mean IoU {np.mean(values):.2f}, against "
            f"{as_read:.2f} as coordinates on the scale 0-1000): fine-tune on this family's convention first"
        )
    outside = [i for i, grounding in enumerate(grades.groundings) if grounding.failure == "out_of_range"]
    if len(outside) * 2 >= len(texts):
        return f"{len(outside)} answers leave the scale of 0-1000, such as {_quote(texts[outside[0]])}"
    return None


def _unreadable(grades: Grades, texts: Sequence[str]) -> str | None:
    bad = [i for i, grounding in enumerate(grades.groundings) if grounding.failure is not None]
    if len(bad) * 2 < len(texts):
        return None
    why = grades.groundings[bad[0]].failure
    return (
        f"{len(bad)} hold no box that can be read ({why}), such as {_quote(texts[bad[0]])}: fine-tune the model first"
    )


def _quote(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= 200 else f"{flat[:100]} … {flat[-98:]}")
