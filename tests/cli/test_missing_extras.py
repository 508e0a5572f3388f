"""A command that needs an extra says so in one line; tests/integration/test_wheel.py asks where none is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from egm.backends.checkpoint import find_checkpoint
from egm.extras import EXTRAS

from .conftest import Egm

RECIPES = Path(__file__).parents[2] / "recipes"
MODEL = ("--model", "no-such/model")
COMMANDS = {
    "ground": ("ground", "shapes.png", "the star", *MODEL),
    "ground on a device": ("ground", "shapes.png", "the star", "--device", "cpu", "--dtype", "bfloat16"),
    "eval": ("eval", "synthref/val", "--scenes", 1, "--out", "run", *MODEL),
    "bench": ("bench", "latency", *MODEL),
    "web": ("web",),
    "sft": ("sft", RECIPES / "egm-tiny.yaml"),
    "grpo": ("grpo", RECIPES / "egm-tiny-grpo.yaml"),
    "reproduce": ("reproduce", RECIPES / "reproduce-toy.yaml"),
    "rationales": ("rationales", "synthref/train", "--teacher", "synthref", "--limit", 1, "--out", "run"),
    "check": ("data", "check", "rows.parquet"),
    "convert": ("data", "convert", "rows.jsonl", "out.parquet"),
    "merge": ("models", "merge", "adapter", "--out", "merged"),
    "average": ("models", "average", "no-such/model", "no-such/other", "--out", "average"),
    "mcp": ("mcp", "adapter"),
    "export": ("models", "export", find_checkpoint("egm-tiny").path, "--out", "exported"),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_command_that_needs_an_extra_names_it(
    egm: Egm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: tuple[object, ...]
) -> None:
    for package in EXTRAS:
        monkeypatch.setitem(sys.modules, package, None)
    files(tmp_path)
    outcome = egm(*command)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert 'not installed: uv pip install ".[' in outcome.err


def files(folder: Path) -> None:
    """What the commands are about, as far as they look before they need more."""
    Image.new("RGB", (336, 336)).save(folder / "shapes.png")
    (folder / "rows.parquet").touch()
    row = '{"image": "shapes.png", "sent": "the star", "bbox": [1, 2, 30, 40], "height": 336, "width": 336}\n'
    (folder / "rows.jsonl").write_text(row)
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "base_model_name_or_path": "egm-tiny"}'
    )
    (folder / "adapter" / "adapter_model.safetensors").touch()


def test_a_report_without_figures_has_its_tables(egm: Egm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "script.txt").write_text('Here.</think> [{"bbox_2d": [0, 0, 1000, 1000]}]')
    assert egm("eval", "synthref/val", "--scenes", 1, "--script", "script.txt", "--out", "run").code == 0
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "matplotlib", None)
        outcome = egm("report", "run", "--out", "out")
    how = 'uv pip install ".[report]" in a clone, else pip install "egm-grounding[report]"'
    line = f"error: drawing figures needs matplotlib, which is not installed: {how}\n"
    assert (outcome.code, outcome.err) == (2, line)
    assert outcome.out == egm("report", "run").out
    assert {"report.md", "report.tex", "accuracy.csv"} <= {path.name for path in (tmp_path / "out").iterdir()}
