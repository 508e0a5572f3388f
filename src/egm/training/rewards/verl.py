"""The reward for verl, under the same section of a recipe and with the same meaning as for TRL.

```console
$ python -m verl.trainer.main_ppo ... \
    reward.custom_reward_function.path=pkg://egm.training.verl \
    reward.custom_reward_function.name=compute_score \
    '+reward.custom_reward_function.reward_kwargs.reward={terms: [{kind: mix}]}'
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from egm.boxes import Box
from egm.codecs import DEFAULT_CODEC, get_codec
from egm.datasets.check import is_outside
from egm.datasets.fields import flag, pixels, scaled_1000, short, xyxy
from egm.datasets.formats.egm_rl import OFFICIAL, refuse_other_truth
from egm.errors import DataError, RecipeError
from egm.extras import need
from egm.training.recipe import explain
from egm.training.rewards.reward import Reward, RewardSection


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str | Sequence[float],
    extra_info: Mapping[str, Any] | None = None,
    *,
    reward: Mapping[str, Any] | None = None,
    codec: str | None = None,
    tokenizer: str | None = None,
    **kwargs: Any,  # noqa: ARG001 - what else verl passes
) -> dict[str, float]:
    r"""Return the reward of one completion, as verl's reward managers call it.

    Args:
        data_source: `grounding` is what the official EGM files say, and that `ground_truth` is on the 0-1000 scale.
        solution_str: The completion.
        ground_truth: The true box in pixels, `x1, y1, x2, y2`, as numbers or as JSON.
        extra_info: `width` and `height` of the upright image; `sent`, the phrase, an echo of which is no answer;
            `amodal`, `seen_size` and `codec` where they matter;
            `bbox`, the true box in pixels, which goes before a `ground_truth` on the 0-1000 scale.
        reward: The section `reward` of a recipe; `mix` if not given.
        codec: Name of the model family's codec; by default that of `extra_info`, or else `qwen3_vl`, which also reads
            answers of Instruct models that are JSON alone.
        tokenizer: Folder or hub name of the tokenizer, which the overlong penalty counts with.
        **kwargs: What else verl passes, not looked at.

    Returns:
        `score`, the reward; `acc`, 1 if IoU >= 0.5; `iou`.

    Raises:
        DataError: If the truth is no box, lies outside the image or is said twice in two ways, the size is missing, or
            the overlong penalty has no tokenizer.
        RecipeError: If the section is wrong.

    Example:
        >>> text = 'At the left.\n</think>\n\n[{"bbox_2d": [0, 0, 500, 1000]}]'
        >>> compute_score("mine", text, [0, 0, 64, 100], {"width": 100, "height": 100})
        {'score': 0.890625, 'acc': 1.0, 'iou': 0.78125}
    """
    extra = _plain(extra_info or {})
    if not isinstance(extra, dict):
        raise DataError(f"extra_info must be an object, not {short(extra)}")
    name = codec or extra.get("codec") or DEFAULT_CODEC
    if not isinstance(name, str):
        raise DataError(f"codec {short(name)} is not the name of one")
    function = _reward(json.dumps(_plain(reward or {}), sort_keys=True), name)
    size = pixels(extra)
    if size is None:
        raise DataError("extra_info lacks width and height: boxes are scored in pixels of the original image")
    truth, amodal = _truth(data_source, ground_truth, extra, size), flag(extra, "amodal")
    if is_outside(truth, size, amodal=amodal):
        corners = ", ".join(f"{value:g}" for value in truth)
        raise DataError(f"the true box {corners} lies outside an image of {size[0]} x {size[1]}: is it in pixels?")
    if not isinstance(solution_str, str):
        raise DataError(f"solution_str {short(solution_str)} is not the text of a completion")
    text = function.codec.restore_tags(solution_str)  # verl decodes without special tokens, which tags are
    phrase = extra.get("sent")
    if not isinstance(phrase, str | None):
        raise DataError(f"extra_info.sent {short(phrase)} is not the words that were asked")
    tokens = None
    if function.section.overlong is not None:
        if tokenizer is None:
            raise DataError("reward.overlong counts tokens: name a tokenizer in reward_kwargs")
        tokens = [_count(tokenizer, text)]
    grades = function.grade(
        [text],
        truths=[truth],
        sizes=[size],
        amodal=[amodal],
        seen_sizes=[_seen_size(extra)],
        tokens=tokens,
        phrases=[phrase or ""],
    )
    return {"score": float(grades.totals[0]), "acc": grades.accuracy(), "iou": grades.scores[0].iou}


def _seen_size(extra: dict[str, Any]) -> tuple[int, int] | None:
    """Return the size as the model saw it, where the row says it."""
    seen = extra.get("seen_size")
    if seen is None:
        return None
    if not isinstance(seen, list) or len(seen) != 2 or None in seen:
        raise DataError(f"extra_info.seen_size {short(seen)} is not a width and a height in pixels")
    return pixels({"width": seen[0], "height": seen[1]})


def _truth(source: str, ground_truth: Any, extra: dict[str, Any], size: tuple[int, int]) -> Box:
    """Return the true box in pixels, by the scale that its source says it is on."""
    on_1000 = source == OFFICIAL
    if extra.get("bbox") is not None:
        box, scale = xyxy(extra["bbox"], "extra_info.bbox"), "0-1000" if on_1000 else "pixels"
        refuse_other_truth(box, _plain(ground_truth), size, scales=(scale,))
        if on_1000:
            return box
    try:
        numbers = json.loads(ground_truth) if isinstance(ground_truth, str) else _plain(ground_truth)
    except (ValueError, RecursionError):
        numbers = ground_truth
    return scaled_1000(numbers, size, "ground_truth") if on_1000 else xyxy(numbers, "ground_truth")


@lru_cache(maxsize=8)
def _reward(section: str, codec: str) -> Reward:
    try:
        return Reward(RewardSection.model_validate_json(section), get_codec(codec))
    except ValidationError as error:
        raise RecipeError(f"reward: {explain(error, RewardSection)}") from None


def _count(tokenizer: str, text: str) -> int:
    """Count tokens, with the end-of-turn token that verl takes off."""
    return len(_tokenizer(tokenizer)(text, add_special_tokens=False)["input_ids"]) + 1


@lru_cache(maxsize=2)
def _tokenizer(name: str) -> Any:
    need("counting tokens", "transformers")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(name, trust_remote_code=False)


def _plain(value: Any) -> Any:
    """Turn OmegaConf's containers, and NumPy's arrays and numbers, into JSON's."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
