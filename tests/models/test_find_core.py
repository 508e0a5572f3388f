"""The core of a model, however it is wrapped."""

from __future__ import annotations

import torch

from egm.models import build_model
from egm.models.find_core import core_of, cores_of


def test_the_core_is_found_inside_and_is_found_itself() -> None:
    model = build_model("tiny-s", device="meta")
    for holder in (model, torch.nn.Sequential(model), model.model):
        assert core_of(holder) is model.model
    assert cores_of(torch.nn.ModuleList([model, build_model("tiny-s", device="meta")]))[0] is model.model


def test_another_model_has_none() -> None:
    assert core_of(torch.nn.Linear(2, 2)) is None
    assert cores_of(build_model("tiny-s", device="meta").model.visual) == []
