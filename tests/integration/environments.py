"""Environments of other people's software, made by uv; what cannot be had is skipped, with the reason."""

from __future__ import annotations

import shutil
import subprocess
import sys
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
