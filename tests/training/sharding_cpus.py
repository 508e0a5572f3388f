"""`egm` where FSDP shards over CPUs: accelerate does so over GPUs alone, and torch over any device.

torchrun --standalone --nproc-per-node 1 sharding_cpus.py sft RECIPE --out RUN
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from egm.cli import app

_begin, _wait = PartialState.__init__, torch.distributed.barrier


def _begin_as_gpus(self: Any, *args: Any, **kwargs: Any) -> None:
    """Begin as always, and call processes on CPUs what accelerate shards."""
    _begin(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def _wait_on_cpus(*args: Any, **kwargs: Any) -> None:
    """Wait without naming a device, of which gloo knows none."""
    _wait()


if __name__ == "__main__":
    PartialState.__init__ = _begin_as_gpus
    torch.distributed.barrier = _wait_on_cpus
    app()
