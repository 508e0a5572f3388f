"""Engines with one defect each, over egm-tiny in NumPy; none shares a line with what the doctor recognises them by."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from egm.backends import GenerationSettings, Request
from egm.backends.base import Backend
from egm.backends.checkpoint import find_checkpoint
from egm.backends.numpy.backend import NumpyBackend
from egm.types import Completion


def good() -> NumpyBackend:
    return NumpyBackend(find_checkpoint("egm-tiny"))


class Fake(Backend):
    """Answers as another backend does, but for what is done to the requests and to the replies."""

    batches = False

    def __init__(
        self,
        *,
        before: Callable[[Request], Request] = lambda request: request,
        after: Callable[[Completion], Completion] = lambda reply: reply,
        engine: NumpyBackend | None = None,
    ) -> None:
        self.engine, self.before, self.after = engine or good(), before, after
        self.model = self.engine.model

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        return [self.after(reply) for reply in self.engine.generate([self.before(one) for one in requests], settings)]


def align_corners() -> Backend:
    """The table of positions is stretched between the centres of its cells, as SGLang's CUDA graphs do."""
    import torch

    engine = good()
    table = torch.from_numpy(np.array(engine._tower.weights["pos_embed.weight"]))
    side = math.isqrt(len(table))
    square = table.reshape(1, side, side, -1).permute(0, 3, 1, 2)

    def positions(grid: tuple[int, int]) -> Any:
        wide = torch.nn.functional.interpolate(square, size=grid, mode="bilinear", align_corners=False)
        return wide[0].permute(1, 2, 0).reshape(grid[0] * grid[1], -1).numpy()

    engine._tower._positions = positions  # type: ignore[method-assign]
    return engine


def positions_flat() -> Backend:
    """A kernel that reads `[3, T]` positions as one row of T, and so those of time for height and width too."""
    engine = good()
    turn = engine._decoder._rotation

    def rotation(positions: Any) -> Any:
        return turn(np.broadcast_to(np.ascontiguousarray(positions).reshape(-1)[: positions.shape[1]], positions.shape))

    engine._decoder._rotation = rotation  # type: ignore[method-assign]
    return engine


def positions_counted() -> Backend:
    """Tokens are counted through, as in a model of text alone."""
    engine = good()
    turn, behind = engine._decoder._rotation, {"prompt": 0}

    def rotation(positions: Any) -> Any:
        if positions[0, 0] == 0:  # a prompt; its picture takes fewer places than tokens
            at = np.arange(positions.shape[1])
            behind["prompt"] = int(at[-1] - positions.max())
        else:
            at = positions[0] + behind["prompt"]
        return turn(np.stack([at, at, at]))

    engine._decoder._rotation = rotation  # type: ignore[method-assign]
    return engine


def quantised_head(levels: int = 7) -> Backend:
    """Each row of the output embeddings holds few values."""
    engine = good()
    step = np.abs(engine._decoder.head).max(axis=1, keepdims=True) / (levels // 2)
    engine._decoder.head = (np.round(engine._decoder.head / step) * step).astype(np.float32)
    return engine


def _shown(resize: Callable[[int, int], tuple[int, int]]) -> Callable[[Request], Request]:
    def before(request: Request) -> Request:
        return replace(request, images=[image.resize(resize(*image.size)) for image in request.images])

    return before


def double_resize() -> Backend:
    """The previous family's utility makes the sides multiples of 28, and the processor then multiples of 32."""
    return Fake(before=_shown(lambda width, height: (round(width / 28) * 28, round(height / 28) * 28)))


def patch_14() -> Backend:
    """A visual token for each 28 x 28 pixels, where the model was made for 32 x 32."""
    engine = good()
    limits = engine._pixels["size"]

    def tokens(width: int, height: int) -> tuple[int, int]:
        area = width * height
        scale = min(1.0, math.sqrt(limits["longest_edge"] / area)) * max(1.0, math.sqrt(limits["shortest_edge"] / area))
        return max(1, round(width * scale / 28)) * 32, max(1, round(height * scale / 28)) * 32

    engine._pixels = {**engine._pixels, "size": {"shortest_edge": 1, "longest_edge": 10**9}}
    return Fake(before=_shown(tokens), engine=engine)


def dropped_newline() -> Backend:
    """The template's last line break is lost, so that the prompt is a token short."""
    engine = good()
    render = engine.prompt
    engine.prompt = lambda messages, **options: render(messages, **options).removesuffix("\n")  # type: ignore[method-assign]
    return engine


def rounded(kind: str) -> Backend:
    """All matrices in 8 bits, each channel with a scale of its own: as good an engine as its numbers allow."""
    import torch

    engine = good()

    def rough(weight: Any) -> Any:
        if weight.ndim < 2:
            return weight
        values = torch.from_numpy(np.array(weight, dtype=np.float32))
        largest = values.flatten(1).abs().amax(1).clamp_min(1e-12)
        scale = (largest / (448.0 if kind == "fp8" else 127.0)).reshape(-1, *[1] * (values.ndim - 1))
        if kind == "fp8":
            return ((values / scale).to(torch.float8_e4m3fn).float() * scale).numpy()
        return ((values / scale).round() * scale).numpy()

    tower, decoder = engine._tower, engine._decoder
    tower.weights = {name: rough(weight) for name, weight in tower.weights.items() if "pos_embed" not in name} | {
        "pos_embed.weight": tower.weights["pos_embed.weight"]
    }
    tower.embed = rough(tower.embed)
    decoder._layers = [
        ({name: rough(weight) for name, weight in own.items()}, rough(qkv), rough(gate_up))
        for own, qkv, gate_up in decoder._layers
    ]
    decoder.head = rough(decoder.head)
    return engine
