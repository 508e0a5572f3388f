"""The wheel alone: the light core in an empty environment, and what it does there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from egm.datasets.synthetic import SynthRef
from egm.extras import EXTRAS

from ..cli.test_missing_extras import COMMANDS, files
from .environments import ROOT, uv

pytestmark = pytest.mark.integration

MOST_PACKAGES = 42
MOST_BYTES = 200e6


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("wheel")
    uv("build", "--wheel", "--quiet", "--out-dir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    uv("venv", "--quiet", "--python", sys.executable, folder / "env")
    uv("pip", "install", "--quiet", "--python", folder / "env", wheel)
    return folder / "env"


def run(environment: Path, folder: Path, *arguments: object, command: str = "egm") -> subprocess.CompletedProcess[str]:
    """Run a command of the environment in a folder, with nothing of this one."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "COV"))}
    program = environment / ("Scripts" if sys.platform == "win32" else "bin") / command
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=folder, env=bare
    )


def test_it_is_small(environment: Path, tmp_path: Path) -> None:
    installed = json.loads(uv("pip", "list", "--quiet", "--format", "json", "--python", environment))
    size = sum(file.stat().st_size for file in environment.rglob("*") if file.is_file() and not file.is_symlink())
    assert len(installed) <= MOST_PACKAGES
    assert size <= MOST_BYTES
    code = f"import importlib.util as i; print([name for name in {[*EXTRAS, 'scipy']} if i.find_spec(name)])"
    assert run(environment, tmp_path, "-c", code, command="python").stdout == "[]\n"


def test_the_demo_runs(environment: Path, tmp_path: Path) -> None:
    ended = run(environment, tmp_path, "demo")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "of 3 right" in ended.stdout
    assert (tmp_path / "egm-out" / "demo-0.png").exists()


def test_it_evaluates_reports_and_scores(environment: Path, tmp_path: Path) -> None:
    ended = run(environment, tmp_path, "eval", "synthref/val", "--scenes", 1, "--out", "run")
    assert (ended.returncode, ended.stderr) == (0, "next: egm report run --gallery run/gallery.html\n")
    records = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()][1:]
    assert len(records) == len(list(SynthRef("val", scenes=1)))
    ended = run(environment, tmp_path, "report", "run", "--format", "csv", "--gallery", "gallery.html")
    assert (ended.returncode, ended.stderr) == (0, "next: open gallery.html in a browser\n")
    assert ended.stdout.startswith("section,model,synthref/val,")
    assert "egm-tiny" in ended.stdout
    assert (tmp_path / "gallery.html").exists()
    rows = ({"id": record["id"], "text": record["text"]} for record in records)
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    right = sum(record["iou"] >= 0.5 for record in records) / len(records)
    for predictions in (["run"], ["answers.jsonl", "--codec", "qwen3_vl"]):
        ended = run(environment, tmp_path, "score", *predictions, "--data", "synthref/val", "--allow-partial")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert f"{100 * right:.2f}" in ended.stdout


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_missing_extra_is_one_line(environment: Path, tmp_path: Path, command: tuple[object, ...]) -> None:
    files(tmp_path)
    ended = run(environment, tmp_path, *command)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert ended.stderr.startswith("error: ")
    assert 'not installed: uv pip install ".[' in ended.stderr
