"""Milliseconds a token of decoding with Qwen3-VL's shapes and random weights, against the floor, on one NVIDIA GPU.

    python benchmarks/decode_floor.py --out runs/decode_floor
    python benchmarks/decode_floor.py --out runs/decode_floor --parts step   # with the tiles found before, if there are

The floor is the language model's weights over the bandwidth of a copy, which is measured first. Parts are processes of
their own, so that one that fails, or breaks the GPU's state, ends nothing else; what fails is named:

- `check` holds each kernel against plain torch, in float64 where that is the truth;
- `tune` times tiles for each projection, and `lines.txt` has the quickest, for `kernels/configurations.py`;
- `step` times whole steps as CUDA graphs (`stock` is the library's layers), and each operation of a layer;
- `tiny` answers SynthRef greedily with egm-tiny's real weights each way, and counts texts that are equal to stock's.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from decode_tiles import check, tune
from decode_timing import (
    DEVICE,
    PROMPT,
    ROTATED,
    TOKENS,
    attempt,
    copy_bandwidth,
    difference,
    kernels,
    load_tiles,
    new_tokens,
    projections,
    timed,
    weight_of,
)

from egm.models.decode.kernels.operations import RMSNorm
from egm.models.decode.kernels.plain import PlainOperations
from egm.models.presets import get_preset

PARTS = {"check": 160, "tune": 240, "step": 300, "tiny": 150}  # each with the seconds that it may take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="8b")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=580, help="most of all parts; the last ones are cut")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--inside", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.inside:
        {"check": check, "tune": tune, "step": step, "tiny": tiny}[options.inside](options)
        return
    begun = time.perf_counter()
    for part in options.parts:
        start = time.perf_counter()
        most = min(PARTS[part], options.seconds - (start - begun))
        if most < 10:
            print(f"[{part}: no time is left]")
            continue
        command = [sys.executable, __file__, "--size", options.size, "--out", str(options.out), "--inside", part]
        command += ["--batches", *map(str, options.batches)]
        with subprocess.Popen(command, start_new_session=True) as process:
            try:
                code: Any = process.wait(timeout=most)
            except subprocess.TimeoutExpired:
                code = f"no end in {most:.0f} s"
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that compile
        print(
            f"[{part}: {'done' if code == 0 else f'FAILED ({code})'}, {time.perf_counter() - start:.0f} s]", flush=True
        )
    for name in ("lines.txt", "operations.txt", "tiny.txt", "table.txt"):
        if (options.out / name).exists():
            print(f"\n{(options.out / name).read_text()}")


def step(options: Any) -> None:
    from egm.models import build_model, enable_fast_path
    from egm.models.decode.fused import FusedModel

    load_tiles(options.out)
    bandwidth = copy_bandwidth()
    torch.cuda.empty_cache()
    text = get_preset(options.size).text
    layers = text.layers * sum(outputs * inputs for outputs, inputs, _ in projections(options.size).values())
    floors = {
        fp8: (layers * (1 if fp8 else 2) + text.hidden * text.vocabulary * 2) / bandwidth * 1e3 for fp8 in (False, True)
    }
    where = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"
    print(f"{where}, copy {bandwidth / 1e12:.2f} TB/s, torch {torch.__version__}", flush=True)
    attempt("operations", lambda: show_operations(options, bandwidth))
    torch.cuda.empty_cache()
    model = enable_fast_path(build_model(options.size, dtype="bfloat16", device=DEVICE))
    ways: list[tuple[str, bool, Callable[[], Any]]] = [("stock", False, lambda: None)]
    ways += [("kernels bf16, no PDL", False, lambda: FusedModel(model, kernels()))]
    ways += [("kernels bf16", False, lambda: FusedModel(model, kernels(pdl=True)))]
    ways += [("kernels fp8", True, lambda: FusedModel(model, kernels(pdl=True), fp8=True))]
    rows = ["| batch | way | ms a token | floor ms | x floor | logits off stock's |", "|---|---|---|---|---|---|"]
    stock: dict[int, torch.Tensor] = {}
    for name, fp8, make in ways:
        fused = attempt(f"{name}", make)
        for batch in options.batches:
            if fused is None and name != "stock":
                continue
            result = attempt(f"{name} batch {batch}", lambda f=fused, b=batch: time_steps(model, f, b))
            if result is None:
                continue
            milliseconds, logits = result
            stock.setdefault(batch, logits)
            off = "" if name == "stock" else f"{difference(logits, stock[batch]):.1e}"
            rows.append(
                f"| {batch} | {name} | {milliseconds:.2f} | {floors[fp8]:.2f} | "
                f"{milliseconds / floors[fp8]:.2f} | {off} |"
            )
            (options.out / "table.txt").write_text("\n".join(rows) + "\n")
        del fused
        torch.cuda.empty_cache()


def time_steps(model: Any, fused: Any, batch: int) -> tuple[float, torch.Tensor]:
    """Milliseconds a token, and the logits of a first one."""
    from egm.models.decode.cache import StaticKVCache, grouped_attention
    from egm.models.decode.prefill import ReadPrompts
    from egm.models.decode.sampling import Sampler
    from egm.models.decode.state import DecodeState, TokenClock
    from egm.models.find_core import core_of

    text, cache = model.config.text_config, StaticKVCache()
    generator, prompt = torch.Generator(DEVICE).manual_seed(batch), -(-PROMPT // 64) * 64
    shape = (1, text.num_key_value_heads, prompt, text.head_dim)
    for _ in range(text.num_hidden_layers):
        for tensors in (cache.keys, cache.values):
            tensors.append(torch.randn(shape, generator=generator, device=DEVICE).bfloat16())
    length, none = torch.tensor([PROMPT], device=DEVICE), torch.tensor([0], device=DEVICE)
    scores = torch.randn((1, text.vocab_size), generator=generator, device=DEVICE)
    options: dict[str, Any] = {"core": core_of(model), "head": model.get_output_embeddings(), "sampler": Sampler(0.0)}
    options |= {"stops": (), "banned": torch.tensor([], dtype=torch.long, device=DEVICE), "pad": 0, "fused": fused}
    state = DecodeState(batch, 1024, logprobs=True, stop_repeats=True, graphs=DEVICE == "cuda", **options)
    clock = TokenClock()
    with torch.no_grad(), grouped_attention(model):
        state.begin(ReadPrompts(cache, scores, length, length, none, none, prompt), [0] * batch, None)
        state.cache.used = 512
        logits = compute_once(state).float().clone()
        for written in range(1, TOKENS):  # records, and grows as an answer does
            state.step(written, clock)
        state.begin(ReadPrompts(again(state), scores, length, length, none, none, prompt), [0] * batch, None)
        _wait()
        start = time.perf_counter()
        for written in range(1, TOKENS):
            state.step(written, clock)
        _wait()
    return (time.perf_counter() - start) / (TOKENS - 1) * 1e3, logits


def _wait() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def again(state: Any) -> Any:
    """The first row's cache of a state, as a prompt's."""
    from egm.models.decode.cache import StaticKVCache

    cache = StaticKVCache()
    cache.keys = [keys[:1, :, : state.prompt].clone() for keys in state.cache.keys]
    cache.values = [values[:1, :, : state.prompt].clone() for values in state.cache.values]
    return cache


def compute_once(state: Any) -> torch.Tensor:
    """Logits of the tokens that a state holds; the next step writes the same column again."""
    state._mask.index_fill_(3, state._cursor, 0.0)
    if state._fused is None:
        mask = state._mask[..., : state.cache.used]
        return state._scores(state._tokens[:, None], state._positions[:, None], mask)[:, -1]
    return state._fused.step(state._tokens, state._positions, state.cache, state._cursor, state._first)


def show_operations(options: Any, bandwidth: float) -> None:
    """Times of one layer's operations and of the output layer, each with the bytes a second of its weights."""
    text, lines = (
        get_preset(options.size).text,
        ["| rows | operation | weights | us | us with PDL | TB/s | of copy | library us |", "|" + "---|" * 8],
    )
    shapes = projections(options.size) | {"head": (text.vocabulary, text.hidden, False)}
    for rows in options.batches:
        for name, (outputs, inputs, gated) in shapes.items():
            for fp8 in (False, True)[: 1 if name == "head" else 2]:
                size = outputs * inputs * (1 if fp8 else 2)
                weights = [weight_of(outputs, inputs, fp8) for _ in range(max(2, ROTATED // size))]
                x = torch.randn(rows, inputs, device=DEVICE, dtype=torch.bfloat16)
                norm = RMSNorm(torch.ones(inputs, device=DEVICE, dtype=torch.bfloat16), 1e-6)
                extra: dict[str, Any] = {"gated": gated, "norm": norm if name in ("qkv", "gate_up", "head") else None}
                if name in ("out", "down"):
                    extra["residual"] = torch.randn(rows, outputs, device=DEVICE, dtype=torch.bfloat16)
                seconds = [
                    attempt(
                        f"{name} {rows} {fp8} pdl={pdl}",
                        lambda p=pdl, x=x, e=extra, ws=weights: timed(
                            [lambda w=w: kernels(pdl=p).linear(x, w, **e) for w in ws]
                        ),
                    )
                    for pdl in (False, True)
                ]
                library = (
                    None
                    if fp8
                    else attempt(
                        f"library {name}", lambda x=x, ws=weights: timed([lambda w=w: x @ w.values.t() for w in ws])
                    )
                )
                lines.append(row_of(rows, name, "fp8" if fp8 else "bf16", seconds, size, bandwidth, library))
        new, *cache = new_tokens(options.size, rows, 512)
        logits = torch.randn(rows, text.vocabulary, device=DEVICE, dtype=torch.bfloat16)
        banned = torch.zeros(text.vocabulary, device=DEVICE, dtype=torch.bool)
        for name, size, call in (
            (
                "attend",
                4 * rows * text.kv_heads * (PROMPT + 20) * text.head_dim,
                lambda o, n=new, c=cache: o.attend(n, *c, 128**-0.5),
            ),
            ("likeliest", logits.numel() * 2, lambda o, x=logits, b=banned: o.likeliest(x, b)),
        ):
            seconds = [
                attempt(f"{name} pdl={pdl}", lambda p=pdl, c=call: timed([lambda: c(kernels(pdl=p))] * 20))
                for pdl in (False, True)
            ]
            lines.append(row_of(rows, name, "", seconds, size, bandwidth, None))
        (options.out / "operations.txt").write_text("\n".join(lines))


def row_of(
    rows: int, name: str, kind: str, seconds: Sequence[float | None], size: int, bandwidth: float, library: float | None
) -> str:
    plain, pdl = (None if value is None else value * 1e6 for value in seconds)
    best = min((value for value in seconds if value), default=float("inf"))
    cells = [rows, name, kind, *("failed" if v is None else f"{v:.1f}" for v in (plain, pdl))]
    cells += [
        f"{size / best / 1e12:.2f}",
        f"{size / best / bandwidth:.0%}",
        "" if library is None else f"{library * 1e6:.1f}",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def tiny(options: Any) -> None:
    from egm.backends.transformers import TransformersBackend
    from egm.codecs import get_codec
    from egm.datasets.synthetic import SynthRef
    from egm.models.decode.decoder import BatchDecoder
    from egm.models.decode.prompt_batch import make_prompts
    from egm.models.decode.sampling import Sampler

    codec, samples, lines = (
        get_codec("qwen3_vl"),
        [s for n in range(16 if DEVICE == "cuda" else 1) for s in SynthRef("val").samples(n)[:4]],
        [],
    )
    for dtype in ("float32", "bfloat16"):
        backend = TransformersBackend.load("egm-tiny", device=DEVICE, dtype=dtype)
        texts = [backend.prompt(codec.messages(sample.phrase)) for sample in samples]
        prompts = make_prompts(backend.processor, texts, list(range(len(texts))), [sample.image for sample in samples])
        config = backend.module.generation_config
        common: dict[str, Any] = {"dtype": None, "stops": config.eos_token_id, "pad": config.eos_token_id[0]}
        common |= {"banned": config.suppress_tokens, "graphs": True, "stop_repeats": True}

        def write(
            rows: int, common: Any = common, backend: Any = backend, prompts: Any = prompts, **how: Any
        ) -> list[list[int]]:
            decoder = BatchDecoder(backend.module, max_rows=rows, **common, **how)
            count = len(samples) if rows > 1 else min(len(samples), 12)  # one by one takes long
            return decoder.generate(prompts, list(range(count)), 300, Sampler(0.0)).ids

        stock = write(64)
        for name, rows, how in (
            ("plain torch, fused steps", 64, {"operations": PlainOperations()}),
            ("kernels, batch 64", 64, {"operations": "kernels"}),
            ("kernels, batch 1", 1, {"operations": "kernels"}),
            ("stock, batch 1", 1, {}),
            ("kernels fp8, batch 64", 64, {"operations": "kernels", "fp8": True}),
        ):
            if how.get("operations") == "kernels":
                if DEVICE == "cpu":
                    continue
                how = how | {"operations": kernels(pdl=True)}
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                ids = attempt(f"{dtype} {name}", lambda r=rows, h=how, w=write: w(r, **h))
            if ids is not None:
                equal = sum(a == b for a, b in zip(ids, stock, strict=False))
                said = [str(warning.message)[:200] for warning in caught] or ""
                lines.append(f"egm-tiny {dtype}, {name}: {equal} of {len(ids)} texts are stock's at batch 64 {said}")
            (options.out / "tiny.txt").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
