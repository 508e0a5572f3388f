from __future__ import annotations

import pytest
import torch


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train on the CPU in float32, whatever the machine has: for what is compared with a model on the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
