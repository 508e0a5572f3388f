"""Environments of other people's software, made by uv; what cannot be had is skipped, with the reason."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OFFLINE = ("Failed to fetch", "error sending request", "dns error", "Could not connect", "network was disabled")


def uv(*arguments: object) -> str:
    """Run uv; skip where there is none, or where what it needs is neither in its cache nor to be had."""
    command = ["uv"] if shutil.which("uv") else [sys.executable, "-m", "uv"]
    ended = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=ROOT)
    if "No module named uv" in ended.stderr:
        pytest.skip("needs uv: pip install uv")
    if ended.returncode and any(sign in ended.stderr for sign in OFFLINE):
        pytest.skip(f"needs a package index: {ended.stderr.strip().splitlines()[-1]}")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


HERE = ("torch", "torchvision", "triton", "pyarrow", "pandas", "numpy", "datasets", "peft", "accelerate")
"""What others ask for and this environment has already."""

Python = Callable[..., "subprocess.CompletedProcess[str]"]


def apart(folder: Path, *wanted: str, left_out: Sequence[str] = HERE, **variables: str) -> Python:
    """Make an environment of its own in a folder, and return what runs its Python there.

    Args:
        folder: Where.
        wanted: What is installed.
        left_out: What is taken from this environment instead.
        variables: What is set for it.
    """
    (folder / "left_out.txt").write_text("".join(f"{name}; python_version < '3'\n" for name in left_out))
    uv("venv", "--quiet", "--python", sys.executable, folder / "env")
    place = ("--no-config", "--python", folder / "env", "--overrides", folder / "left_out.txt")
    uv("pip", "install", "--quiet", *place, *wanted)
    (site,) = (folder / "env").glob("lib/python3*/site-packages")
    (site / "of_the_tests.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "COV"))}
    bare |= {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1", **variables}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [folder / "env" / "bin" / "python", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=bare)

    return run
