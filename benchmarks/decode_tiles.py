"""Parts of `decode_floor.py`: kernels held against plain torch, and the quickest tile for each projection."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

import torch
from decode_timing import (
    DEVICE,
    PROMPT,
    ROTATED,
    attempt,
    difference,
    kernels,
    new_tokens,
    projections,
    timed,
    weight_of,
)

from egm.models.decode.kernels import configurations as table
from egm.models.decode.kernels.operations import JoinedWeight, Operations, RMSNorm
from egm.models.decode.kernels.plain import PlainOperations
from egm.models.presets import get_preset

V_TILES = (
    (4, 4096, 4),
    (8, 4096, 8),
    (2, 4096, 4),
    (4, 4096, 8),
    (8, 2048, 4),
    (16, 1024, 4),
    (2, 4096, 2),
    (1, 4096, 2),
    (1, 16384, 4),  # of long inputs, whole rows at once
    (2, 16384, 8),
    (4, 16384, 16),
)
V_TILES_FP8 = (*V_TILES[:5], *V_TILES[-3:], (8, 4096, 4), (4, 8192, 8), (16, 2048, 4))
M_TILES = (
    (32, 128, 4, 4),
    (64, 128, 4, 4),
    (64, 64, 6, 4),
    (128, 64, 4, 4),
    (64, 256, 3, 4),
    (128, 128, 3, 8),
    (32, 256, 4, 4),
)
SECONDS = 200  # for tuning; what has been timed by then is kept
A_TILES = ((64, 2, 4), (32, 2, 4), (128, 2, 4), (64, 3, 4), (32, 3, 2), (64, 2, 2))


def check(options: Any) -> None:
    plain, wrong = PlainOperations(), []

    def hold(name: str, most: float, pair: Callable[[], tuple[torch.Tensor, torch.Tensor]]) -> None:
        if (result := attempt(name, pair)) is None:
            wrong.append(name)
            return
        off = difference(*result)
        if not off <= most:
            wrong.append(f"{name} ({off:.1e})")

    for pdl in (False, True):
        ours = kernels(pdl=pdl)
        for name, (outputs, inputs, gated) in projections(options.size).items():
            for fp8 in (False, True):
                weight = weight_of(outputs, inputs, fp8)
                for rows in (1, 3, 8, 64) if pdl else (1, 8):
                    x = torch.randn(rows, inputs, device=DEVICE, dtype=torch.bfloat16)
                    norm = RMSNorm(torch.rand(inputs, device=DEVICE, dtype=torch.bfloat16) + 0.5, 1e-6)
                    extra: dict[str, Any] = {"norm": norm, "gated": gated}
                    if not gated:
                        extra["residual"] = torch.randn(rows, outputs, device=DEVICE, dtype=torch.bfloat16)
                    truth = in_double(plain, x, weight, extra)
                    label = f"{name} rows={rows} fp8={fp8} pdl={pdl}"
                    hold(label, 1.5e-2, lambda x=x, w=weight, e=extra, t=truth, o=ours: (o.linear(x, w, **e), t))
                    if rows > table.VECTOR_ROWS[False] and not fp8:
                        tile = table.MatrixTile(64, 64, 4, 4)
                        some = {key: value for key, value in extra.items() if key != "norm"}
                        truth = in_double(plain, x, weight, some)
                        hold(
                            f"{label} as a matrix",
                            1.5e-2,
                            lambda x=x, w=weight, e=some, t=truth, o=ours, c=tile: (o.multiply_matrix(x, w, c, **e), t),
                        )
        for rows in (1, 3, 8, 64, 300):
            new, keys, values = new_tokens(options.size, rows, 1024)
            theirs = [keys.clone(), values.clone()]
            truth = plain.attend(new, *theirs, 128**-0.5)
            keys[:, :, PROMPT + 51 :] = torch.nan  # what is not in use is not read
            hold(
                f"attend rows={rows} pdl={pdl}",
                1e-2,
                lambda n=new, k=keys, v=values, t=truth, o=ours: (o.attend(n, k, v, 128**-0.5), t),
            )
            used = slice(0, PROMPT + 51)
            hold(f"cache rows={rows} pdl={pdl}", 5e-3, lambda k=keys, t=theirs, u=used: (k[:, :, u], t[0][:, :, u]))
            logits = torch.randn(rows, get_preset(options.size).text.vocabulary, device=DEVICE).bfloat16()
            banned = torch.zeros(logits.shape[1], dtype=torch.bool, device=DEVICE).index_fill_(
                0, logits[0].argmax()[None], True
            )
            want = plain.likeliest(logits, banned)
            for place, what in enumerate(("tokens", "logprobs")):
                hold(
                    f"likeliest {what} rows={rows} pdl={pdl}",
                    1e-5,
                    lambda x=logits, b=banned, t=want, p=place, o=ours: (o.likeliest(x, b)[p], t[p]),
                )
    print(f"check: {'all as plain torch' if not wrong else 'WRONG: ' + '; '.join(wrong)}")


def in_double(plain: Operations, x: torch.Tensor, weight: JoinedWeight, extra: dict[str, Any]) -> torch.Tensor:
    """Project in float64."""
    scale = 1.0 if weight.scale is None else weight.scale.double()[:, None]
    extra = {name: value.double() if isinstance(value, torch.Tensor) else value for name, value in extra.items()}
    if "norm" in extra:
        extra["norm"] = RMSNorm(extra["norm"].gain.double(), extra["norm"].eps)
    return plain.linear(x.double(), JoinedWeight(weight.values.double() * scale), **extra)


def candidates(size: str, batches: Sequence[int]) -> Iterator[tuple[str, int, int, bool, bool, int, tuple[int, ...]]]:
    """Name, outputs, inputs, gated, fp8, rows and tile of all that is tried."""
    text = get_preset(size).text
    shapes = projections(size) | {"head": (text.vocabulary, text.hidden, False)}
    for fp8 in (False, True):
        for name, (outputs, inputs, gated) in shapes.items():
            if fp8 and name == "head":  # it stays bf16
                continue
            for o, i, w in V_TILES_FP8 if fp8 else V_TILES:
                if i < 2 * inputs and (not gated or o > 1):
                    for bypass in (True, False) if (o, i, w) in V_TILES[:2] else (True,):
                        yield name, outputs, inputs, gated, fp8, 1, (o // 2 if gated else o, i, w, bypass)
            for rows in {table.matrix_rows(rows): rows for rows in batches if rows > table.VECTOR_ROWS[fp8]}.values():
                for tile in M_TILES:
                    yield name, outputs, inputs, gated, fp8, rows, tile


def compile_one(case: tuple[Any, ...]) -> str | None:
    """Compile a candidate, so that it lies in Triton's cache on disk; return why it cannot be."""
    name, outputs, inputs, gated, fp8, rows, tile = case
    try:
        weight = JoinedWeight(torch.zeros(outputs, inputs, device=DEVICE, dtype=torch.bfloat16))
        if fp8:
            weight = JoinedWeight(weight.values.to(torch.float8_e4m3fn), torch.ones(outputs, device=DEVICE))
        launch(kernels(), torch.ones(rows, inputs, device=DEVICE, dtype=torch.bfloat16), weight, name, gated, tile)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip()[-150:]}"
    return None


def launch(ours: Any, x: torch.Tensor, weight: JoinedWeight, name: str, gated: bool, tile: Sequence[int]) -> Any:
    """Project as a step does: norm, residual and gate included."""
    extra: dict[str, Any] = {"gated": gated, "residual": None}
    if name in ("out", "down"):
        extra["residual"] = x.new_ones((x.shape[0], len(weight.values)))
    if x.shape[0] > table.VECTOR_ROWS[weight.scale is not None]:
        return ours.multiply_matrix(x, weight, table.MatrixTile(*tile), **extra)
    norm = None if extra["residual"] is not None else RMSNorm(torch.ones_like(x[0]), 1e-6)
    return ours.multiply_vectors(x, weight, table.VectorTile(*tile), norm=norm, **extra)


def tune(options: Any) -> None:
    cases = list(candidates(options.size, options.batches))
    start, failures = time.perf_counter(), {}
    try:
        with ProcessPoolExecutor(12, mp_context=get_context("spawn")) as pool:
            failures = {case: why for case, why in zip(cases, pool.map(compile_one, cases), strict=True) if why}
    except BrokenProcessPool as error:
        print(f"compiling ahead broke off: {error}")
    for case, why in failures.items():
        print(f"FAILED {case}: {why}")
    print(f"{len(cases)} tiles compiled in {time.perf_counter() - start:.0f} s", flush=True)
    ours, times = kernels(), dict[tuple[Any, ...], dict[Any, float]]()
    weights: tuple[Any, list[JoinedWeight]] = (None, [])
    for case in cases:
        name, outputs, inputs, gated, fp8, rows, tile = case
        if case in failures:
            continue
        if time.perf_counter() - start > SECONDS:
            print(f"from {case} on nothing was timed: {SECONDS} s are over")
            break
        if weights[0] != (key := (name, fp8)):
            weights = (key, [])
            size = outputs * inputs * (1 if fp8 else 2)
            weights = (key, [weight_of(outputs, inputs, fp8) for _ in range(max(2, ROTATED // size))])
        x = torch.randn(rows, inputs, device=DEVICE, dtype=torch.bfloat16)
        found = times.setdefault(
            (name, outputs, inputs, gated, fp8, table.matrix_rows(rows) if rows > table.VECTOR_ROWS[fp8] else 1), {}
        )
        if rows > table.VECTOR_ROWS[False] and not fp8 and None not in found:
            calls = [
                lambda w=w, x=x, g=gated: ours.gate(x @ w.values.t()) if g else x @ w.values.t() for w in weights[1]
            ]
            found[None] = attempt(f"library {case[:6]}", lambda c=calls: timed(c)) or 1.0
        calls = [lambda w=w, x=x, n=name, g=gated, t=tile: launch(ours, x, w, n, g, t) for w in weights[1]]
        found[tile] = attempt(f"{case}", lambda c=calls: timed(c)) or 1.0
    attention = attempt("attention", lambda: tune_attention(options))
    lines, every, vectors, matrices = [], [], [], []
    for (name, outputs, inputs, _, fp8, rows), found in times.items():
        best = min(found, key=found.__getitem__)
        speed = outputs * inputs * (1 if fp8 else 2) / found[best] / 1e12
        key = f"({outputs}, {inputs}, {fp8}" + (")" if rows == 1 else f", {rows})")
        kind = "VectorTile" if rows == 1 else "MatrixTile"
        value = "None" if best is None else f"{kind}{best}"
        lines.append(f"    {key}: {value},  # {name}: {found[best] * 1e6:.1f} us, {speed:.2f} TB/s")
        every += [
            f"{key} {tile}: {spent * 1e6:.1f} us" for tile, spent in sorted(found.items(), key=lambda pair: pair[1])
        ]
        (vectors if rows == 1 else matrices).append((outputs, inputs, fp8, *(() if rows == 1 else (rows,)), best))
    lines.append(f"ATTENTION = {attention}")
    (options.out / "every_tile.txt").write_text("\n".join(every))
    (options.out / "tiles.json").write_text(
        json.dumps({"vectors": vectors, "matrices": matrices, "attention": attention})
    )
    (options.out / "lines.txt").write_text("\n".join(lines))


def tune_attention(options: Any) -> tuple[int, ...]:
    """Return the tile that is quickest at the first batch."""
    ours, rows, found = kernels(), options.batches[0], {}
    new, *cache = new_tokens(options.size, rows, 512)
    for tile in A_TILES:
        table.ATTENTION = table.AttentionTile(*tile)  # type: ignore[misc]
        found[tile] = (
            attempt(f"attention {tile}", lambda: timed([lambda: ours.attend(new, *cache, 128**-0.5)] * 20)) or 1.0
        )
    print("attention, us:", {tile: round(seconds * 1e6, 1) for tile, seconds in found.items()})
    return min(found, key=found.__getitem__)
