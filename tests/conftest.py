from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

from . import warm

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


def pytest_configure(config: pytest.Config) -> None:
    """Keep the bytecode of what is imported, also where none may be left beside the sources.

    Two processes and all that they start would compile torch, transformers and TRL anew, each for longer than it takes
    to import them.
    """
    if sys.dont_write_bytecode and sys.pycache_prefix is None and config.pluginmanager.has_plugin("cacheprovider"):
        assert config.cache is not None
        folder = str(config.cache.mkdir("bytecode"))
        shutil.rmtree(folder + tempfile.gettempdir(), ignore_errors=True)  # of environments that tests made
        sys.dont_write_bytecode, sys.pycache_prefix = False, folder
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # -B sets none


def pytest_collection_finish() -> None:
    """Leave what was imported out of garbage collections from here on: it stays, and is a million objects.

    The library's trainer collects after every `train()`, which took longer than the steps of a tiny model.
    """
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let go of it at the end, when extension modules count what of theirs is left."""
    gc.unfreeze()


_HEAVY = (
    *("trl:SFTTrainer", "trl:GRPOTrainer", "transformers.models.qwen3_vl.modeling_qwen3_vl"),
    *("torch.distributed.launcher.api", "egm.cli"),
)


@pytest.fixture(scope="session")
def template() -> Iterator[warm.Template | None]:
    """A process that has imported what training takes; None where none can be forked, or where a GPU is in use."""
    import torch

    if not warm.supported() or torch.cuda.is_available():
        yield None
        return
    template = warm.Template(_HEAVY)
    yield template
    template.close()


@pytest.fixture(scope="module")
def warm_start(template: warm.Template | None) -> Iterator[dict[str, str]]:
    """Let the processes of the interpreter that a module starts be forked, if their environment holds what this gives.

    Not for what a fresh process is to show: what is imported, and how launchers are launched.
    """
    if template is None:
        yield {}
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", warm.Popen)
        patch.setattr(warm.Popen, "template", template)
        yield warm.ENVIRONMENT


_LONG = (
    *("openai/test_serve", "cli/test_embedded", "cli/test_eval", "sft/test_families", "real/test_real_sft"),
    *("grpo/test_gradient", "real/test_real_kills", "real/test_real_refcoco", "numpy/test_backend", "grpo/"),
    *("sft/", "reproduce/", "tests/test_benchmarks", "training/test_benchmark", "models/decode"),
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
