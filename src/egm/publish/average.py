"""The average of models that were trained apart from one start."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from egm.backends.checkpoint import find_checkpoint
from egm.errors import ModelError
from egm.progress import track
from egm.publish.model_folder import check_dtype, load_float32, new_folder, save_model


def average_models(
    models: Sequence[str], out: Path, *, base: str | None = None, share: float = 1.0, dtype: str = "bfloat16"
) -> Path:
    """Average the weights of models, or go a share of the way to their average from the model that they began as.

    What runs with other questions learnt in common stays in their average, and what chance did to each shrinks with
    their number: model soups (arXiv 2203.05482), for policies WARP (arXiv 2406.16768). Going only a share of the way
    keeps more of what the start knew (arXiv 2109.01903). Sums are made in float32 on the CPU, which takes 8 bytes of
    memory a parameter, and rounded once, at the end.

    Args:
        models: Two or more models, or one with a base, as `Grounder.load` takes them; the first gives the processor.
        out: Folder to write: new or empty.
        base: Where they began. Needed where `share` is not 1.
        share: How far to go from the base: 0 is the base, 1 the average, above 1 beyond it.
        dtype: Type of the saved weights: "bfloat16", "float16" or "float32".

    Returns:
        `out`.

    Raises:
        ModelError: If a model cannot be loaded or has other weights than the first, there is nothing to average, or
            `out` holds something.
    """
    check_dtype(dtype)
    if not math.isfinite(share):
        raise ModelError(f"--share {share:g} is no share of a way: 0 is the base, 1 the average")
    if base is None and share != 1:
        raise ModelError(f"--share {share:g} is a share of the way from a --base: give that model too")
    if len(models) < 2 and share == 1:
        raise ModelError("an average needs two models, or one with the --base that it began as and a --share")
    with new_folder(out) as folder:
        first, processor = load_float32(find_checkpoint(models[0]))
        total = _parameters(first)
        for name in track(models[1:], "adding models"):
            other = _weights(name, like=total, processor=processor, first=models[0])
            for key, value in other.items():
                total[key] += value
        start = None if base is None else _weights(base, like=total, processor=processor, first=models[0])
        for key, value in total.items():
            value /= len(models)
            if start is not None:
                value.copy_(start[key] + share * (value - start[key]))
        save_model(first, processor, folder, dtype=dtype)
    return out


def _weights(name: str, *, like: Mapping[str, Any], processor: Any, first: str) -> dict[str, Any]:
    model, own = load_float32(find_checkpoint(name))
    weights = _parameters(model)
    other = [key for key in like.keys() | weights.keys() if key not in weights or key not in like]
    other += [key for key in weights.keys() & like.keys() if weights[key].shape != like[key].shape]
    if other:
        raise ModelError(f"{name} and {first} differ in shape, as in {sorted(other)[0]}: average models of one kind")
    if own.tokenizer.get_vocab() != processor.tokenizer.get_vocab():
        raise ModelError(f"{name} and {first} have other tokens for the same numbers: average models of one tokenizer")
    return weights


def _parameters(model: Any) -> dict[str, Any]:
    """All weights by name, each once: a tied head is the embeddings."""
    return {name: parameter.data for name, parameter in model.named_parameters()}
