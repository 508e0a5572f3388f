from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable

import pytest

from .environments import ROOT, uv

collect_ignore = ["verl_side.py"]  # which runs in verl's environment
HERE = (
    "torch",
    "torchvision",
    "triton",
    "tensorboard",
    "wandb",
    "pyarrow",
    "pandas",
    "numpy",
    "datasets",
    "peft",
    "accelerate",
)
"""What verl asks for and this environment has already, or verl does without here."""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Python of an environment with verl, on the torch of this one."""
    if sys.version_info >= (3, 13):
        pytest.skip("verl 0.9.1 needs a Python before 3.13")
    folder = tmp_path_factory.mktemp("verl")
    (folder / "left_out.txt").write_text("".join(f"{name}; python_version < '3'\n" for name in HERE))
    uv("venv", "--quiet", "--python", sys.executable, folder / "env")
    wanted = ("verl>=0.9.1", "TransferQueue>=0.1.10", "qwen-vl-utils", "cachetools")
    place = ("--no-config", "--python", folder / "env", "--overrides", folder / "left_out.txt")
    uv("pip", "install", "--quiet", *place, *wanted)
    (site,) = (folder / "env").glob("lib/python3*/site-packages")
    (site / "of_the_tests.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "COV"))}
    bare |= {"PYTHONPATH": str(ROOT / "src"), "RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1"}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [folder / "env" / "bin" / "python", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=bare)

    return run
