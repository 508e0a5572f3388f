from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from .environments import HERE, apart

collect_ignore = ["doors_side.py", "verl_side.py"]  # which run in the environments of others


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Python of an environment with verl, on the torch of this one."""
    if sys.version_info >= (3, 13):
        pytest.skip("verl 0.9.1 needs a Python before 3.13")
    wanted = ("verl>=0.9.1", "TransferQueue>=0.1.10", "qwen-vl-utils", "cachetools")
    left_out = (*HERE, "tensorboard", "wandb")
    return apart(tmp_path_factory.mktemp("verl"), *wanted, left_out=left_out, RAY_USAGE_STATS_ENABLED="0")
