"""What only a process of its own shows: what is imported, and how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Egm

HEAVY = ("torch", "transformers", "numpy", "PIL", "rich.progress")


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("eval", "--help")], ids=" ".join)
def test_help_and_version_are_light(arguments: tuple[str, ...]) -> None:
    code = f"""
import sys
from egm.cli import main
try:
    main()
except SystemExit as end:
    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
    raise
"""
    ended = run(code, *arguments)
    assert (ended.returncode, ended.stderr) == (0, "[]\n")
    assert ended.stdout


def test_help_of_every_command(egm: Egm) -> None:
    for command in (["ground"], ["demo"], ["data"], ["data", "synthetic"], ["sft"], ["models"]):
        outcome = egm(*command, "--help")
        assert (outcome.code, outcome.err) == (0, "")
        assert "Usage" in outcome.out


def test_interruption_is_quiet(tmp_path: Path) -> None:
    code = "from egm.cli import main; main()"
    command = [sys.executable, "-c", code, "data", "synthetic", "--split", "train", "--scenes", "999999"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list(tmp_path.rglob("*.png")):
            pass
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "")
    assert not list(tmp_path.rglob("*.jsonl"))
    assert not list(tmp_path.rglob("*.tmp"))
