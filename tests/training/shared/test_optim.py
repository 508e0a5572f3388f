"""Muon steps as torch's own does, and the two optimisers act as one."""

from __future__ import annotations

import copy

import torch

from egm.training.shared.optim import CompositeOptimizer, Muon, RoundedAdamW, muon, orthogonal, stochastic


def model() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 16), torch.nn.Linear(16, 4))


def step(net: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(32, 8, generator=generator)
    loss = (net(x) - x[:, :4].tanh()).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def test_singular_values_come_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((3, 20, 12), (2, 12, 20)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)).float())
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_it_steps_as_torchs_own() -> None:
    ours, theirs = model(), model()
    matrices = [[p for p in net.parameters() if p.ndim == 2] for net in (ours, theirs)]
    settings = {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.95}
    first = Muon(matrices[0], **settings)
    second = torch.optim.Muon(matrices[1], adjust_lr_fn="match_rms_adamw", nesterov=True, **settings)
    for seed in range(4):
        step(ours, first, seed)
        step(theirs, second, seed)
    for a, b in zip(*matrices, strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0)  # their products run in bfloat16, in another order


def test_it_learns_and_a_schedule_reaches_both_parts() -> None:
    net = model()
    optimizer = muon(net, learning_rate=0.02, weight_decay=0.0, beta2=0.99)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.98**epoch)
    losses = []
    for seed in range(100):
        losses.append(step(net, optimizer, seed))
        schedule.step()
    assert losses[-1] < losses[0] / 4
    assert {group["lr"] for part in optimizer.parts for group in part.param_groups} == {0.02 * 0.98**100}


def test_every_parameter_is_stepped_by_one_part() -> None:
    net = model()
    optimizer = muon(net, learning_rate=0.1, weight_decay=0.0, beta2=0.99)
    held = [id(p) for part in optimizer.parts for group in part.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in net.parameters())


def test_a_restored_state_goes_on_as_if_nothing_had_happened() -> None:
    net = model()
    optimizer = muon(net, learning_rate=0.02, weight_decay=0.1, beta2=0.99)
    for seed in range(3):
        step(net, optimizer, seed)
    other = copy.deepcopy(net)
    restored: CompositeOptimizer = muon(other, learning_rate=1.0, weight_decay=0.0, beta2=0.5)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for seed in range(3, 6):
        assert step(net, optimizer, seed) == step(other, restored, seed)


def test_rounding_by_chance_keeps_the_mean() -> None:
    torch.manual_seed(0)
    value = 1.0 + 1 / 1024  # an eighth of the way to the next bfloat16
    rounded = stochastic(torch.full((100_000,), value))
    assert set(rounded.float().unique().tolist()) == {1.0, 1.0 + 1 / 128}
    assert abs(rounded.double().mean().item() - value) < 1e-4
    exact = torch.tensor([1.5, -2.0, 0.0])
    assert torch.equal(stochastic(exact).float(), exact)


def test_it_steps_float32_weights_as_torchs_adamw() -> None:
    ours, theirs = model(), model()
    settings = {"lr": 0.01, "weight_decay": 0.1, "betas": (0.9, 0.98)}
    first, second = RoundedAdamW(ours.parameters(), **settings), torch.optim.AdamW(theirs.parameters(), **settings)
    for seed in range(5):
        step(ours, first, seed)
        step(theirs, second, seed)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_small_steps_are_not_lost_in_bfloat16() -> None:
    torch.manual_seed(0)
    moved = {}
    for name, kind in (("stochastic", RoundedAdamW), ("nearest", torch.optim.AdamW)):
        weight = torch.nn.Parameter(torch.ones(2000, dtype=torch.bfloat16))
        optimizer = kind([weight], lr=1e-4, weight_decay=0.0)
        for _ in range(50):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        moved[name] = 1 - weight.float().mean().item()
    assert moved["nearest"] == 0
    assert abs(moved["stochastic"] - 50 * 1e-4) < 5e-4
