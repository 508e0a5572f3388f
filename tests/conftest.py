from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

# Two test processes with as many threads as cores each would wait for one another; what they start inherits this.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# No deadline: the first example may pay for an import, and shared machines stall. In CI the same examples every time,
# so that a change is judged by itself; elsewhere new ones, so that somebody finds the rest.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# A shell's background job ignores Ctrl-C, and so would every process that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


_LONG = (
    *("reproduce/test_end_to_end", "sft/test_launch", "training/grpo", "sft/test_run"),
    *("openai/test_serve", "real/test_real_kills", "cli/test_embedded", "training/test_benchmark"),
)
"""Files that take longest, which are begun first, so that no process is left with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((i for i, name in enumerate(_LONG) if name in item.nodeid), len(_LONG)))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
