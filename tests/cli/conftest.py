from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from egm.cli import main

from ..backends.tiny import save_tiny


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Egm = Callable[..., Outcome]


@pytest.fixture
def egm(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Egm:
    """Run the command line in this process and in an empty folder: code, standard output, standard error."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["egm", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capfd.readouterr()
        return Outcome(end.value.code if isinstance(end.value.code, int) else 0, out, err)

    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # so that what a command sets ends with the test
    monkeypatch.chdir(tmp_path)
    return run


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real model with random weights."""
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")
