"""Which weights are trained, and what of the forward pass is kept for the way back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from egm.backends.checkpoint import EMBEDDED
from egm.backends.library_noise import without_false_alarms
from egm.errors import ModelError, RecipeError
from egm.extras import need
from egm.models.families import Family, trained_family
from egm.training.recipe import LoraSection, ModelSection

_NAMED = 4


def choose_parts(model: Any, section: ModelSection, *, seed: int = 0) -> Any:
    """Freeze what a recipe freezes, or put a LoRA adapter around the model.

    Args:
        model: A model of one of `egm.models.families`.
        section: The recipe's `model:`.
        seed: Seed of an adapter's weights.

    Returns:
        The model, or the `PeftModel` around it.

    Raises:
        ModelError: If the model is of none of these families, or has no such part.
        RecipeError: If a module that should get an adapter is not there.
    """
    family = trained_family(model.config)
    for part in section.freeze:
        parameters = [p for name, p in model.named_parameters() if family.has(name, part)]
        if not parameters:
            raise ModelError(f"{type(model).__name__} has no {part}: leave it out of model.freeze")
        for parameter in parameters:
            parameter.requires_grad_(False)
    if section.lora is None:
        return model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _adapt(model, section.lora, section.name, family)


def _adapt(model: Any, section: LoraSection, base: str, family: Family) -> Any:
    need("model.lora", "peft")
    from peft import LoraConfig, get_peft_model

    whole = _projectors(model, family) if "projector" in section.full else []
    targets = _linear_layers(model, section.modules, whole)
    config = LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=targets,  # PEFT takes the end of a name for any layer of that name, a convolution too
        modules_to_save=whole or None,
        task_type="CAUSAL_LM",
    )
    with without_false_alarms(tied=()):
        adapted = get_peft_model(model, config)
    # A name on the hub holds elsewhere too; what lies here is named by its folder, and is then not looked for there.
    is_local = base == EMBEDDED or Path(base).expanduser().exists()
    adapted.active_peft_config.base_model_name_or_path = str(Path(model.name_or_path).resolve()) if is_local else base
    return adapted


def _linear_layers(model: Any, names: Sequence[str], whole: Sequence[str]) -> list[str]:
    """Return the full names of the linear layers that a recipe names by their last part, or by more of it.

    Args:
        model: The model.
        names: Such as `q_proj`, `attn.proj` or a full name.
        whole: Ends of the names of modules that are trained whole, whose layers get no adapter.

    Raises:
        RecipeError: If a name is that of no linear layer that could get one.
    """
    trained_whole = [name for name, _ in model.named_modules() if any(f".{name}".endswith(f".{end}") for end in whole)]
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and name != "lm_head"
        and not any(name.startswith(f"{module}.") for module in trained_whole)
    ]
    found = {name: [layer for layer in linear if f".{layer}".endswith(f".{name}")] for name in names}
    missing = [name for name, layers in found.items() if not layers]
    if missing or not names:
        raise RecipeError(
            f"model.lora.modules: no linear layer is called {', '.join(map(repr, missing)) or 'nothing'}; "
            f"there are {', '.join(sorted({name.rpartition('.')[2] for name in linear}))}"
        )
    return sorted({layer for layers in found.values() for layer in layers})


def _projectors(model: Any, family: Family) -> list[str]:
    """Return the names of the modules that are the projector, each module of a list by its own."""
    names = []
    for prefix in family.parts["projector"]:
        name = prefix.removesuffix(".")
        module = model.model.get_submodule(name)
        listed = isinstance(module, torch.nn.ModuleList)
        names += [f"{name}.{number}" for number in range(len(module))] if listed else [name]
    return names


def recompute_layers(model: Any, share: float) -> None:
    """Let the first layers of each trained tower compute their activations again on the way back.

    Unlike the library's own switch it leaves a frozen vision tower out: there is no way back through it, and the hook
    that asks the inputs for gradients would make one.

    Args:
        model: The model, or a `PeftModel` around it.
        share: Share of the layers, from 0 to 1.
    """
    if not share:
        return
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    model.disable_input_require_grads()
    towers = [module for module in model.modules() if _is_tower(module)]
    chosen = {id(layer) for tower in towers if _learns(tower) for layer in tower[: round(share * len(tower))]}
    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = id(module) in chosen


def check_gradients(model: torch.nn.Module) -> None:
    """Refuse weights that are trained and got no gradient, once the first step's passes are done.

    What never learns would be saved and published all the same, and several processes would wait for its gradient.
    Experts that no token chose are no such weights: they are slices of one weight, and their gradient is 0.

    Raises:
        ModelError: If there are some; the first are named.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad and p.numel()]
    bare = [name for name, parameter in trained if parameter.grad is None]
    if bare:
        more = f" and {len(bare) - _NAMED} more" if len(bare) > _NAMED else ""
        raise ModelError(
            f"of {len(trained)} trained weights {len(bare)} got no gradient in the first step, so they would never "
            f"learn: {', '.join(bare[:_NAMED])}{more}; freeze them with model.freeze, or leave them out of model.lora"
        )


def _is_tower(module: torch.nn.Module) -> bool:
    """Tell whether a module is a list of layers that can compute their activations again."""
    return isinstance(module, torch.nn.ModuleList) and all(hasattr(layer, "gradient_checkpointing") for layer in module)


def _learns(module: torch.nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def count(parameters: Iterable[torch.nn.Parameter], *, trained: bool) -> int:
    """Count the numbers in parameters: all of them, or those that are trained."""
    return sum(p.numel() for p in parameters if p.requires_grad or not trained)
