"""Checkpoints through transformers: what they are computed on and in, and every way in which one does not load."""

from __future__ import annotations

from functools import partial
from typing import Any

from egm.backends.chat_template import check_templates
from egm.backends.checkpoint import Checkpoint
from egm.backends.pairing import check_pair
from egm.backends.tokens import stop_tokens
from egm.errors import ModelError, first_line
from egm.types import Message

DTYPES = ("auto", "float32", "bfloat16", "float16", "fp8")


def choose_device(name: str) -> Any:
    """Return the torch device of a name: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".

    Raises:
        ModelError: If it is not here.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"there is no device {name!r}: use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ModelError(f"device {name!r} is not supported: use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"device {name!r} is not here ({torch.cuda.device_count()} GPUs found): use auto or cpu")
    return device


def choose_dtype(name: str, device: Any) -> Any:
    """Return the torch type of the weights by one of `DTYPES`, on a device.

    Raises:
        ModelError: If it is none of these, or not for that device.
    """
    import torch

    if name not in DTYPES:
        raise ModelError(f"there is no dtype {name!r}: use {', '.join(DTYPES)}")
    if name == "fp8":
        if device.type == "cpu":
            raise ModelError("dtype fp8 is for a GPU: use auto or float32 on the CPU")
        return torch.bfloat16
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return getattr(torch, name)


def open_checkpoint(checkpoint: Checkpoint, device: Any, dtype: Any) -> tuple[Any, Any]:
    """Load model and processor, in evaluation mode.

    Raises:
        ModelError: If one of them does not load whole, or they do not belong together.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    name, folder = checkpoint.name, str(checkpoint.path)
    if checkpoint.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise ModelError(
            f"{name!r} is a {checkpoint.model_type!r} model, which this version of transformers does not know as one "
            "that answers about images: give a vision-language model, or upgrade transformers"
        )
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise ModelError(f"config.json of {name!r} does not load ({first_line(error)}): download it again") from error
    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # whatever a damaged or missing file makes of itself
        reason = first_line(error)
        raise ModelError(f"the processor of {name!r} does not load ({reason}): copy all its files") from error
    if not hasattr(processor, "image_processor"):  # where there is none, AutoProcessor returns a bare tokenizer
        raise ModelError(f"{name!r} has no image processor, so it cannot see: give a vision-language model")
    check_pair(processor, config, name)
    tokens = getattr(processor.tokenizer, "special_tokens_map", {})
    check_templates(processor.chat_template, tokens, partial(render_turns, processor, begin=True), name)
    try:
        model, info = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=dtype,
            device_map=device,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that it is known which: the library's error names none
        )
    except Exception as error:
        raise ModelError(f"the weights of {name!r} do not load ({first_line(error)}): download it again") from error
    if mismatched := sorted(info["mismatched_keys"]):
        key, there, wanted = mismatched[0]
        raise ModelError(
            f"{len(mismatched)} of the weights of {name!r} are of other sizes than its config.json says, such as {key} "
            f"({'x'.join(map(str, there))}, not {'x'.join(map(str, wanted))}): copy both from one place"
        )
    if missing := sorted(info["missing_keys"]):
        # transformers fills them with random numbers and only warns.
        raise ModelError(f"{name!r} lacks {len(missing)} of its weights, such as {missing[0]}: download it again")
    _check_finite(model, name)
    text = model.config.get_text_config()
    if getattr(text, "output_router_logits", False):  # as trainers leave it; `generate` breaks on it in batches
        text.output_router_logits = False
    return model.eval(), processor


def stop_at(model: Any, processor: Any, end: str) -> None:
    """Add the token that ends an answer to those that the model stops at, where neither file names it."""
    token = processor.tokenizer.convert_tokens_to_ids(end)
    stops = stop_tokens(model.generation_config.eos_token_id, processor.tokenizer.eos_token_id)
    if token not in stops:
        model.generation_config.eos_token_id = [*stops, token]


def _check_finite(model: Any, name: str) -> None:
    """Refuse weights that are not numbers, by the beginning of each: all of them would take as long as loading them."""
    for key, weight in model.named_parameters():
        if weight.is_floating_point() and not bool(weight.detach().flatten()[:1024].float().isfinite().all()):
            raise ModelError(
                f"{name!r} holds weights that are not finite numbers (NaN or infinite), such as {key}: its training "
                "went astray, or its file is damaged, so take another checkpoint"
            )


def render_turns(processor: Any, messages: list[Message], begin: bool) -> str:
    """Render chat turns by a processor's template; `begin` also begins the assistant's."""
    text: str = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=begin)
    return text
