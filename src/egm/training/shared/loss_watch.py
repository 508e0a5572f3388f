"""Watching the loss: a value that is no number ends the run at once, and names the batch."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch

from egm.errors import EgmError

_NAMED = 8


class LossWatch:
    """Looks at each loss as soon as it is known, without the host waiting for a GPU.

    On a GPU the host may be a step ahead, so a bad loss may be seen one step late; `check(wait=True)` sees all.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Sequence[str], torch.Tensor, Any]] = deque()

    def add(self, step: int, samples: Sequence[str], loss: torch.Tensor) -> None:
        """Watch the loss of a batch.

        Args:
            step: Number of the optimiser step, counted from 1.
            samples: Ids of the samples in the batch.
            loss: The loss, a scalar on any device.

        Raises:
            EgmError: If a loss that is known by now is not finite.
        """
        event = None
        if loss.is_cuda:
            loss = torch.empty((), dtype=loss.dtype, pin_memory=True).copy_(loss, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._waiting.append((step, samples, loss, event))
        self.check()

    def check(self, *, wait: bool = False) -> None:
        """Look at the losses that are known, or wait for all.

        Raises:
            EgmError: If one is not finite.
        """
        while self._waiting:
            step, samples, loss, event = self._waiting[0]
            if event is not None and not event.query():
                if not wait:
                    return
                event.synchronize()
            self._waiting.popleft()
            if not math.isfinite(value := float(loss)):
                more = f" and {len(samples) - _NAMED} more" if len(samples) > _NAMED else ""
                raise EgmError(
                    f"the loss is {value} at step {step}, in the batch of samples {', '.join(samples[:_NAMED])}{more}: "
                    "look at these, lower optim.learning_rate or raise optim.warmup_steps, and go on with --resume "
                    "if there is a checkpoint"
                )


def check_weights(parameters: Sequence[torch.nn.Parameter], step: int) -> None:
    """Refuse to keep weights that are no numbers, which a finite loss can lead to when its gradient overflows.

    Raises:
        EgmError: If a trained weight is not finite.
    """
    trained = [p.detach() for p in parameters if p.requires_grad and p.numel()]
    local = [p.to_local() if hasattr(p, "to_local") else p for p in trained]
    if local and not bool(torch.stack([p.isfinite().all() for p in local]).all()):
        raise EgmError(
            f"weights are no numbers after step {step}: lower optim.learning_rate or raise optim.warmup_steps, and go "
            "on with --resume if there is a checkpoint"
        )
