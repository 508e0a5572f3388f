"""Optimisers: Muon for the inner matrices together with AdamW for the rest, and AdamW for bfloat16 weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_PIECE = 2**26


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
        """Take one Muon step of every matrix."""
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


class CompositeOptimizer(torch.optim.Optimizer):
    """A composite of several optimisers, each with parameters of its own, that step as one.

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


def muon(model: torch.nn.Module, *, learning_rate: float, weight_decay: float, beta2: float) -> CompositeOptimizer:
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
    return CompositeOptimizer(
        [
            Muon(matrices, lr=learning_rate, weight_decay=weight_decay),
            torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, beta2), weight_decay=0.0, fused=fused),
        ]
    )


class RoundedAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter, 2019) on bfloat16 weights, computed in float32 and rounded stochastically.

    A bfloat16 number has 8 bits: rounded to the nearest, a step smaller than a 512th of a weight is lost each time, and
    at fine-tuning's learning rates nearly every step is. Rounded up or down by chance in proportion, steps add up to
    what they should on average, without a float32 copy of the weights. Moments are kept in the type of the weights and
    are rounded the same way. Large weights are stepped piece by piece, so that little float32 memory is needed at once.

    Args:
        params: Parameters, or groups of them with their own `weight_decay`.
        lr: Learning rate.
        betas: Decay of the first and second moment.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled weight decay.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one AdamW step of every parameter, rounded stochastically."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                    state.update(zeros, step=torch.zeros(()))
                state["step"] += 1
                tensors = (parameter, parameter.grad.contiguous(), state["exp_avg"], state["exp_avg_sq"])
                local = (tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors)
                for pieces in zip(*(tensor.view(-1).split(_PIECE) for tensor in local), strict=True):
                    _step_piece(*pieces, number=float(state["step"]), group=group)
        return loss


def _step_piece(
    weight: torch.Tensor,
    gradient: torch.Tensor,
    mean: torch.Tensor,
    square: torch.Tensor,
    *,
    number: float,
    group: dict[str, Any],
) -> None:
    beta1, beta2 = group["betas"]
    gradient = gradient.float()
    first = mean.float().lerp_(gradient, 1 - beta1)
    second = square.float().mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    root = (second / (1 - beta2**number)).sqrt_().add_(group["eps"])
    new = weight.float().mul_(1 - group["lr"] * group["weight_decay"])
    new.addcdiv_(first, root, value=-group["lr"] / (1 - beta1**number))
    for stored, value in ((mean, first), (square, second), (weight, new)):
        stored.copy_(stochastic(value) if stored.dtype == torch.bfloat16 else value)


def stochastic(values: torch.Tensor) -> torch.Tensor:
    """Round to bfloat16, up or down by chance, so that the mean is the value.

    Args:
        values: float32; finite ones.
    """
    bits = values.view(torch.int32)
    noise = torch.randint_like(bits, 1 << 16)
    return ((bits + noise) & -(1 << 16)).view(torch.float32).bfloat16()
