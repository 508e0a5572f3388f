from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from egm.cli import main
from egm.datasets import EVALUATION

from ..backends.tiny import save_tiny


@dataclass(frozen=True)
class Outcome:
    """What a command came to; of standard error `err` lacks the last line where that says what comes next."""

    code: int
    out: str
    err: str
    next: str = ""


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
        lines, step = err.splitlines(keepends=True), ""
        if lines and lines[-1].startswith("next: "):
            step = lines.pop().removeprefix("next: ").rstrip("\n")
        return Outcome(end.value.code if isinstance(end.value.code, int) else 0, out, "".join(lines), step)

    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # so that what a command sets ends with the test
    monkeypatch.chdir(tmp_path)
    return run


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real model with random weights."""
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def small_refcoco(tmp_path: Path) -> None:
    """Four pictures; every split asks one question about the first of them, two about the second, and so on."""
    (tmp_path / "data").mkdir()
    (tmp_path / "pictures").mkdir()
    names = [f"COCO_train2014_{number:012}" for number in range(4)]
    for name in names:
        Image.new("RGB", (10, 10)).save(tmp_path / "pictures" / f"{name}.jpg")
    rows = [
        {"img_id": f"{name}_{k}", "sents": f"cup {k}", "bbox": [0, 0, 5, 5], "height": 10, "width": 10}
        for number, name in enumerate(names)
        for k in range(number + 1)
    ]
    for split in EVALUATION:
        (tmp_path / "data" / f"{split.replace('/', '_')}.json").write_text(json.dumps(rows))
    (tmp_path / "right.txt").write_text('</think> [{"bbox_2d": [0, 0, 500, 500], "label": "it"}]')
