"""egm-tiny cut down to its first blocks, for what needs a model and neither its answers nor its depth."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from egm.training.recipe import ModelSection
from egm.training.shared.model import open_model

_FOLDER = tempfile.TemporaryDirectory(prefix="shallow-")


@functools.cache
def shallow_model() -> Path:
    """Give a checkpoint of two of its six blocks and two of its six layers; written once in a process."""
    model, processor = open_model(ModelSection(name="egm-tiny"), seed=0)
    cut_down(model)
    folder = Path(_FOLDER.name)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def cut_down(model: Any, *, depth: int = 2) -> None:
    """Leave the model its first blocks and layers; each block's output is added to one layer."""
    tower, language = model.model.visual, model.model.language_model
    tower.blocks, language.layers = tower.blocks[:depth], language.layers[:depth]
    tower.config.depth = language.config.num_hidden_layers = depth
    tower.config.deepstack_visual_indexes = tower.deepstack_visual_indexes = list(range(depth))
