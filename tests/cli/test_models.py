"""`egm models`."""

import subprocess
import sys

import pytest

from egm.cli.models import models
from egm.models import PRESETS


def test_it_lists_every_size(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    models()
    shown = capsys.readouterr().out
    for preset in PRESETS.values():
        assert preset.name in shown
        assert all(hub_id in shown for hub_id in preset.hub_ids)
    for name in ("egm-tiny      egm-tiny ", "nvidia/EGM-8B-SFT", "8.8B"):
        assert name in shown
    assert "11.5M" in shown
    assert "256K" in shown


def test_it_needs_no_torch() -> None:
    code = "import sys; from egm.cli.models import models; models(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
