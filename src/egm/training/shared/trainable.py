"""Which weights are trained, and what of the forward pass is kept for the way back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import torch

from egm.backends.checkpoint import EMBEDDED
from egm.errors import ModelError, RecipeError
from egm.extras import need
from egm.models.find_core import core_of
from egm.training.recipe import LoraSection, ModelSection

PARTS: Final[dict[str, tuple[str, ...]]] = {
    "vision_tower": ("visual.patch_embed.", "visual.pos_embed.", "visual.blocks."),
    "projector": ("visual.merger.", "visual.deepstack_merger_list."),
    "language_model": ("language_model.", "lm_head."),
    "embeddings": ("language_model.embed_tokens.",),
}
"""The names, in a Qwen3-VL model, of the parts that a recipe can freeze; the embeddings are in the language model."""


def choose_parts(model: Any, section: ModelSection, *, seed: int = 0) -> Any:
    """Freeze what a recipe freezes, or put a LoRA adapter around the model.

    Args:
        model: A `Qwen3VLForConditionalGeneration` or its mixture-of-experts kin.
        section: The recipe's `model:`.
        seed: Seed of an adapter's weights.

    Returns:
        The model, or the `PeftModel` around it.

    Raises:
        ModelError: If the model has no such part.
        RecipeError: If a module that should get an adapter is not there.
    """
    for part in section.freeze:
        parameters = [p for name, p in model.named_parameters() if is_part(name, part)]
        if not parameters:
            raise ModelError(f"{type(model).__name__} has no {part}: freeze knows the parts of Qwen3-VL models")
        for parameter in parameters:
            parameter.requires_grad_(False)
    if section.lora is None:
        return model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _adapt(model, section.lora, section.name)


def is_part(name: str, part: str) -> bool:
    """Tell whether a parameter of this name belongs to a part, see `PARTS`."""
    return any(f".{prefix}" in f".{name}" for prefix in PARTS[part])


def _adapt(model: Any, section: LoraSection, base: str) -> Any:
    need("model.lora", "peft")
    from peft import LoraConfig, get_peft_model

    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    ends = {name.rpartition(".")[2] for name in linear} - {"lm_head"}
    missing = [name for name in section.modules if name not in ends]
    if missing or not section.modules:
        raise RecipeError(
            f"model.lora.modules: no linear layer is called {', '.join(missing) or 'nothing'}; "
            f"there are {', '.join(sorted(ends))}"
        )
    config = LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=list(section.modules),
        modules_to_save=_mergers(model) if "projector" in section.full else None,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config)
    # A name on the hub holds elsewhere too; what lies here is named by its folder, and is then not looked for there.
    is_local = base == EMBEDDED or Path(base).expanduser().exists()
    adapted.active_peft_config.base_model_name_or_path = str(Path(model.name_or_path).resolve()) if is_local else base
    return adapted


def _mergers(model: Any) -> list[str]:
    mergers = len(model.model.visual.deepstack_merger_list)
    return ["visual.merger", *(f"deepstack_merger_list.{number}" for number in range(mergers))]


def recompute_layers(model: Any, share: float) -> None:
    """Let the first layers of each trained tower compute their activations again on the way back.

    Unlike the library's own switch it leaves a frozen vision tower out: there is no way back through it, and the hook
    that asks the inputs for gradients would make one.

    Args:
        model: A Qwen3-VL model, or a `PeftModel` around one.
        share: Share of the layers, from 0 to 1.
    """
    if not share:
        return
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    model.disable_input_require_grads()
    core = core_of(model)
    towers = [core.language_model.layers, core.visual.blocks]
    chosen = {id(layer) for tower in towers if _learns(tower) for layer in tower[: round(share * len(tower))]}
    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = id(module) in chosen


def _learns(module: torch.nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def count(parameters: Iterable[torch.nn.Parameter], *, trained: bool) -> int:
    """Count the numbers in parameters: all of them, or those that are trained."""
    return sum(p.numel() for p in parameters if p.requires_grad or not trained)
