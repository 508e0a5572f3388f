"""What docs/direct_or_thinking.md says of real answers is what its script prints of them."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_documents_figures_are_the_scripts(
    real_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = ROOT / "benchmarks" / "thinking_lengths.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(real_data("model_outputs")), str(real_data("refcoco"))])
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    said = (ROOT / "docs" / "direct_or_thinking.md").read_text(encoding="utf-8")
    groups = re.findall(r"^\| [\w ]*\| ([\w -]+) \| (\d+) \| ([\d.]+ \([\d.]+-[\d.]+\)) \|$", said, re.MULTILINE)
    assert len(groups) == 13
    for group, count, figure in groups:
        assert re.search(rf"{group} +{count} +{re.escape(figure)}", printed), group
    differences = re.findall(r"([+-][\d.]+) (\([+-][\d.]+ to [+-][\d.]+\)), p ([\d.]+)", said)
    assert len(differences) == 6
    for points, interval, p in differences:
        assert re.search(rf"{re.escape(f'{points} points {interval}')}.* p {p}", printed), points
    assert re.search(r"contradicts the answered box +1 ", printed)
    assert re.search(r"contradicts the true box +2 +50\.0", printed)
