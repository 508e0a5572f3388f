"""What of a model verl's configuration needs, from its JSON files and its chat template alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from egm.backends.checkpoint import Checkpoint, find_checkpoint
from egm.codecs import Codec
from egm.codecs.registry import codec_for
from egm.codecs.resize import smart_resize
from egm.datasets.synthetic import SPLITS
from egm.errors import DataError, ModelError, RecipeError
from egm.extras import need
from egm.training.data.sources import refuse_frozen, sources_of
from egm.training.grpo.recipe import GRPORecipe
from egm.training.shared.model import check_trained_family
from egm.training.verl.configure import Policy, prompt_limit
from egm.types import Message, Sample

_MARK = "MARKOFAQUESTION"


class AskedModel:
    """The model that is asked: its codec, and how many tokens a question takes.

    Args:
        recipe: The recipe that names it.

    Attributes:
        codec: Its convention.
        policy: What the configuration needs of it.
        source: Name or path of what it is asked about.

    Raises:
        ModelError: If there is no such model, it is of another family than Qwen3-VL, or its processor is not known.
        RecipeError: If several styles or sources are named, or questions that verl's rows cannot hold.
        DataError: If a frozen split of SynthRef would be trained on.
    """

    codec: Codec
    policy: Policy
    source: str

    def __init__(self, recipe: GRPORecipe) -> None:
        need("egm verl", "transformers")
        from transformers import AutoTokenizer

        checkpoint = find_checkpoint(recipe.model.name)
        check_trained_family(checkpoint, ("egm verl",))
        self._tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.path, trust_remote_code=False)
        self.codec = codec_for(checkpoint.model_type, self._render)
        if not (recipe.data.prompt is None or isinstance(recipe.data.prompt, str)):
            raise RecipeError("data.prompt names several styles, and egm verl asks in one: give that one")
        self.source = _source(recipe)
        self._style = recipe.data.prompt
        self.codec.messages("anything", prompt=self._style)
        patch, merge, pixels = _processor(checkpoint)
        context = checkpoint.config.get("text_config", checkpoint.config).get("max_position_embeddings")
        if not isinstance(context, int):
            raise ModelError(f"config.json of {checkpoint.name!r} does not say max_position_embeddings: copy it again")
        self.policy = Policy(checkpoint.path.resolve(), self.codec.name, context, patch, merge, pixels)
        self._limit = prompt_limit(recipe, self.policy)
        before, _, after = self._render([{"role": "user", "content": [{"type": "image"}, _text(_MARK)]}]).partition(
            _MARK
        )
        # One token stands for a picture in the template, and as many as it has in the prompt.
        self._around = self._count(before) + self._count(after) - 1

    def check_length(self, sample: Sample, size: tuple[int, int]) -> None:
        """Refuse a sample whose prompt is longer than the recipe makes room for.

        Args:
            sample: The sample.
            size: Width and height of its picture in pixels.

        Raises:
            DataError: If it is.
        """
        policy = self.policy
        least, most = policy.pixels
        side = policy.patch * policy.merge
        width, height = smart_resize(size, factor=side, min_pixels=least, max_pixels=most)
        words = self.codec.messages(sample.phrase, amodal=sample.amodal, prompt=self._style)[0]["content"][1]["text"]
        tokens = self._around + self._count(words) + (width // side) * (height // side)
        if tokens > self._limit:
            raise DataError(
                f"the prompt of sample {sample.id} takes {tokens} tokens, and there is room for {self._limit} (the "
                "least of rollout.max_prompt and what max_new_tokens leaves of the model's positions): raise it, or "
                "shrink the picture"
            )

    def _render(self, messages: list[Message]) -> str:
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _count(self, text: str) -> int:
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def _source(recipe: GRPORecipe) -> str:
    """Return the one source that is asked about, after a look at what names alone tell of it and of `eval.data`."""
    sources = sources_of(recipe.data.train)
    if len(sources) > 1:
        raise RecipeError("data.train names several sources, and egm verl writes one: give that one")
    [source] = sources
    refuse_frozen(sources)
    if source.expect not in (None, "one"):
        raise RecipeError(
            f"data.train.0.expect is {source.expect}, and a row of egm verl's asks for one box: leave expect out, or "
            "use egm grpo"
        )
    named = {"data.train": source.place} | ({} if recipe.eval is None else {"eval.data": recipe.eval.data})
    for key, place in named.items():
        family, _, split = place.partition("/")
        if family == "synthref" and split in SPLITS and SPLITS[split].many is not None and not Path(place).exists():
            raise RecipeError(
                f"{key} {place} has questions that nothing matches, or several boxes, and a row of egm verl's holds "
                "one box: take another split, or use egm grpo"
            )
    return source.place


def _text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def _processor(checkpoint: Checkpoint) -> tuple[int, int, tuple[int, int]]:
    """Read the side of a patch, how many are merged, and the bounds of a picture."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        content = _read(checkpoint.path / name)
        images = content.get("image_processor", content)
        size = images.get("size") or {}
        least = size.get("shortest_edge", images.get("min_pixels"))
        most = size.get("longest_edge", images.get("max_pixels"))
        if isinstance(least, int) and isinstance(most, int) and isinstance(images.get("patch_size"), int):
            return images["patch_size"], images.get("merge_size", 2), (least, most)
    raise ModelError(
        f"{checkpoint.name!r} does not say its patch size and the sizes of pictures in processor_config.json: copy all "
        "its files"
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
