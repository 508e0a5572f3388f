"""The model that a stage trains: opened or built, its codec, and saved at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from egm.backends.checkpoint import Checkpoint
from egm.codecs import Codec
from egm.errors import ModelError
from egm.grounder import codec_for
from egm.models.families import GUIDE, Family, family_names, family_of, trained_family
from egm.training.recipe import ModelSection
from egm.training.shared.driver import written_whole


def open_model(section: ModelSection, *, seed: int, uses: Sequence[str] = ()) -> tuple[Any, Any]:
    """Build a model from scratch, or load it, with its processor.

    Args:
        section: The recipe's `model:`.
        seed: Seed of the weights.
        uses: What it is to be trained with, of what a family may refuse (`Family.refusals`).

    Raises:
        ModelError: If there is no such model, its family is not trained, or not in that way, or it does not load.
    """
    from egm.models import build_model, build_processor, get_tiny_preset

    if section.from_scratch:
        size = get_tiny_preset(section.name).name
        return build_model(size, seed=seed, dtype=section.dtype), build_processor(size)
    from egm.backends.checkpoint import find_checkpoint

    checkpoint = find_checkpoint(section.name)
    check_trained_family(checkpoint, uses)  # by its configuration, before anything of it is loaded
    from egm.backends.transformers import TransformersBackend

    backend = TransformersBackend.load(checkpoint, device="cpu", dtype=section.dtype, fast=False)
    return backend.module, backend.processor


def check_trained_family(checkpoint: Checkpoint, uses: Sequence[str]) -> Family:
    """Refuse a model of a family that is not trained, or not so; return its family.

    Args:
        checkpoint: The model.
        uses: What is to be done with it, see `Family.refusals`.

    Raises:
        ModelError: If it is of one.
    """
    model_type, name = checkpoint.model_type, checkpoint.name
    family = family_of(model_type)
    if family is None:
        known = ", ".join(family_names())
        raise ModelError(
            f"{name!r} is a model of the family {model_type!r}, and training knows {known} only: set model.name to one "
            f"of those, or add the family ({GUIDE})"
        )
    for use in uses:
        if (reason := family.refusals.get(use)) is not None:
            raise ModelError(f"{name!r} is a {model_type!r} model, which {use} does not take: {reason}")
    return family


def has_fast_path(config: Any) -> bool:
    """Tell whether EGM's fast path is for models of this configuration."""
    return trained_family(config).fast_path


def make_codec(config: Any, processor: Any) -> Codec:
    """Return the codec of what is trained, as `Grounder.load` will choose it."""
    render = partial(processor.apply_chat_template, tokenize=False, add_generation_prompt=True)
    return codec_for(config.model_type, render)


def checkpointing_name(config: Any) -> str:
    """Return what this version of transformers calls the recomputing of activations."""
    names = {field.name for field in fields(config)}
    return "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"


@contextmanager
def router_logits_kept_off(model: Any) -> Iterator[None]:
    """Undo what TRL's trainers write into the configuration of a mixture of experts as they are made.

    They ask for router logits at each call anyway. In the configuration these would also be asked for where the model
    answers, now and from its folder, and `generate` breaks on them in batches.
    """
    text = model.config.get_text_config()
    before = getattr(text, "output_router_logits", None)
    yield
    if before is not None:
        text.output_router_logits = before


def save_trained(trainer: Any, processor: Any, folder: Path) -> None:
    """Save in bfloat16, the precision that a model is served in; an adapter as it was trained. Every process calls it.

    Args:
        trainer: A transformers `Trainer`.
        processor: The model's processor.
        folder: Where to.

    Raises:
        EgmError: If it cannot be written; nothing is left of it.
    """
    from egm.models.fast.enable import disable_fast_path
    from egm.publish.model_folder import save_weights

    model = trainer.accelerator.unwrap_model(trainer.model)
    state = None
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:  # every process gives its share
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return
    disable_fast_path(model)
    with written_whole(trainer, folder):
        if hasattr(model, "peft_config"):
            # and not what KL is taken from
            model.save_pretrained(folder, state_dict=state, selected_adapters=["default"])
        else:
            if state is not None and model.config.tie_word_embeddings:
                state.pop("lm_head.weight", None)
            save_weights(model, folder, dtype="bfloat16", state=state)
        processor.save_pretrained(folder)
