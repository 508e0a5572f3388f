"""The package itself: light to import, honest about what is absent."""

import subprocess
import sys
from pathlib import Path

import pytest

import egm.models
import egm.models.tiny.embedded
from egm.errors import ModelError


def test_importing_it_is_light() -> None:
    code = "import sys, egm.models as m; m.get_preset('8B'); assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there() -> None:
    assert sorted(egm.models.__all__) == egm.models.__all__
    assert set(egm.models.__all__) <= set(dir(egm.models))
    for name in egm.models.__all__:
        assert getattr(egm.models, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = egm.models.nothing


def test_the_embedded_model_is_there_or_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(egm.models.tiny.embedded, "__file__", str(tmp_path / "embedded.py"))
    with pytest.raises(ModelError, match="install a release of egm"):
        egm.models.embedded_path()
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").touch()
    (folder / "model.safetensors").touch()
    assert egm.models.embedded_path() == folder
