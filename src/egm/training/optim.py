"""Optimisers: Muon for the inner matrices together with AdamW for the rest, which learns faster from scratch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Momentum, then a step along the nearest orthogonal matrix (Jordan et al., 2024).

    Steps are scaled to the root mean square of AdamW's (Liu et al., 2025, arXiv 2502.16982, section 2.2), so that one
    learning rate serves both. It computes what `torch.optim.Muon` does with `adjust_lr_fn="match_rms_adamw"`, but takes
    all matrices of one shape together: a small model has a hundred, and one by one they keep the GPU waiting.

    Args:
        params: Matrices.
        lr: Learning rate.
        weight_decay: Decoupled weight decay.
        momentum: Decay of the running mean of gradients; steps look ahead, as Nesterov's do.
    """

    def __init__(
        self, params: Iterable[torch.Tensor], *, lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step once."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            shapes: dict[torch.Size, list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes[parameter.shape].append((parameter, parameter.grad))
            for shape, pairs in shapes.items():
                parameters, gradients = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
                for parameter in parameters:
                    if not self.state[parameter]:
                        self.state[parameter]["momentum"] = torch.zeros_like(parameter)
                means = [self.state[parameter]["momentum"] for parameter in parameters]
                torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
                ahead = torch._foreach_lerp(gradients, means, group["momentum"])
                steps = orthogonal(torch.stack(ahead)).to(parameters[0].dtype)
                scale = 0.2 * max(shape) ** 0.5
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(parameters, list(steps.unbind()), alpha=-group["lr"] * scale)
        return loss


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Bring the singular values of matrices near one, by five Newton-Schulz steps in bfloat16.

    Args:
        matrices: Shape (K, rows, columns).

    Returns:
        The same shape, bfloat16.
    """
    a, b, c = _QUINTIC
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Together(torch.optim.Optimizer):
    """Several optimisers, each with parameters of its own, that step as one.

    Args:
        parts: The optimisers.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)
        super().__init__([group for part in parts for group in part.param_groups], defaults={})
        self._share_groups()

    def _share_groups(self) -> None:
        """Hold the parts' own groups, so that a schedule that sets a rate here sets it there."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every part; the closure, if given, runs once and first."""
        loss = closure() if closure is not None else None
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the parts, in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the states of the parts, in order."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()


def muon(model: torch.nn.Module, *, learning_rate: float, weight_decay: float, beta2: float) -> Together:
    """Make Muon for the inner matrices, and AdamW for embeddings, norms, biases and convolutions.

    Args:
        model: The model; parameters without gradients are left out.
        learning_rate: Peak rate of both.
        weight_decay: Decay of the matrices; the rest does not decay.
        beta2: AdamW's second moment decay.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    matrices = [p for name, p in trained.items() if p.ndim == 2 and "embed" not in name and "lm_head" not in name]
    inside = {id(p) for p in matrices}
    rest = [p for p in trained.values() if id(p) not in inside]
    fused = all(p.is_cuda for p in rest)
    return Together(
        [
            Muon(matrices, lr=learning_rate, weight_decay=weight_decay),
            torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, beta2), weight_decay=0.0, fused=fused),
        ]
    )
