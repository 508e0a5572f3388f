"""A tiny model with random weights, made so lively that its text depends on the picture and the phrase."""

from __future__ import annotations

from pathlib import Path


def save_tiny(folder: Path) -> Path:
    import torch

    from egm.models import build_model, build_processor

    model = build_model("tiny-s")
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim >= 2:
                weight.mul_(4)
    model.save_pretrained(folder)
    build_processor().save_pretrained(folder)
    return folder
