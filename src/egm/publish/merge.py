"""LoRA adapters folded into the weights that they were trained on."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from egm.backends.checkpoint import find_checkpoint
from egm.backends.library_noise import quiet
from egm.errors import ModelError
from egm.extras import CHECKPOINTS, need
from egm.publish.model_folder import check_dtype, load_float32, new_folder, save_model

_log = logging.getLogger(__name__)
ADAPTER = "adapter_config.json"


def merge_adapter(adapter: Path, out: Path, *, base: str | None = None, dtype: str = "bfloat16") -> Path:
    """Fold an adapter into its model and save the whole.

    The sums are made in float32 on the CPU, which takes 4 bytes of memory a parameter, and rounded once, at the end.

    Args:
        adapter: Folder that peft saved, with `adapter_config.json` and `adapter_model.safetensors`.
        out: Folder to write: new or empty.
        base: The model that it was trained on, as `Grounder.load` takes it; by default the one that it names itself.
        dtype: Type of the saved weights: "bfloat16", "float16" or "float32".

    Returns:
        `out`.

    Raises:
        ModelError: If the adapter is not one, is pickled or does not fit the model, or `out` holds something.
    """
    check_dtype(dtype)
    with new_folder(out) as folder:
        model, processor = load_merged(adapter, base=base)
        save_model(model, processor, folder, dtype=dtype)
    return out


def load_merged(adapter: Path, *, base: str | None = None) -> tuple[Any, Any]:
    """Load a model in float32 with an adapter folded in, and its processor; see `merge_adapter`."""
    named = check_adapter(adapter)
    need("folding in an adapter", *CHECKPOINTS, "peft")
    if base is None and named is None:
        raise ModelError(f"adapter {str(adapter)!r} does not name its model: give --base")
    checkpoint = find_checkpoint(base or named or "")
    if base is not None and named not in (None, base):
        _log.warning("adapter %s names %s as its model, and is folded into %s", adapter, named, base)
    model, processor = load_float32(checkpoint)
    import torch
    from peft import PeftModel

    try:
        # peft warns of keys that are missing and goes on with random ones, so they are compared here.
        with quiet():
            model = PeftModel.from_pretrained(model, str(adapter), is_trainable=False)
        _refuse_other_keys(model, adapter)
        with torch.no_grad():
            return model.merge_and_unload(safe_merge=True), processor
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, ModelError):
            raise
        reason = " ".join(str(error).split())[:160]
        raise ModelError(
            f"adapter {str(adapter)!r} does not fit {checkpoint.name!r} ({reason}): give the model that it was trained "
            "on as --base"
        ) from error


def check_adapter(adapter: Path) -> str | None:
    """Check an adapter's files, and return the model that it names.

    Raises:
        ModelError: If it is no LoRA adapter, or its weights are not safetensors.
    """
    try:
        config = json.loads((adapter / ADAPTER).read_bytes())
        kind, named = config.get("peft_type"), config.get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        raise ModelError(
            f"{str(adapter)!r} holds no {ADAPTER} that can be read: give a folder that peft saved"
        ) from None
    if kind != "LORA":
        raise ModelError(f"adapter {str(adapter)!r} is of type {kind!r}: only LORA can be folded into weights")
    if not (adapter / "adapter_model.safetensors").is_file():
        raise ModelError(
            f"adapter {str(adapter)!r} holds no adapter_model.safetensors, and pickled weights are not loaded: save it "
            "with peft's save_pretrained"
        )
    return named if isinstance(named, str) and named else None


def _refuse_other_keys(model: Any, adapter: Path) -> None:
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
        saved = set(file.keys())
    if other := saved ^ set(get_peft_model_state_dict(model)):
        raise ModelError(
            f"adapter {str(adapter)!r} and its model differ in {len(other)} weights, such as {min(other)}: give the "
            "model that it was trained on as --base"
        )
