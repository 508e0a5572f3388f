"""The parts of `latency.py`: what is asked, what is timed, and the floor of each."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from decode_timing import DEVICE, copy_bandwidth, replayed
from latency_drafts import drafts
from PIL import Image

from egm.backends.base import GenerationSettings, Request
from egm.backends.transformers import TransformersBackend
from egm.codecs import get_codec
from egm.models import build_model, build_processor, enable_fast_path
from egm.models.costs import Cost, CostModel, cost_model
from egm.models.decode import prompt_batch
from egm.models.decode.decoder import BatchDecoder
from egm.models.decode.prefill import PromptReader
from egm.models.decode.prompt_batch import make_prompts
from egm.models.decode.sampling import Sampler
from egm.models.presets import get_preset
from egm.models.tiny.vocabulary import token_id

Row = dict[str, Any]

WAYS = {
    "bf16": "all that is on by default",
    "fp8": "as it, with the layers' weights in fp8",
    "no-kernels": "steps and prompts by the library's layers, as graphs",
    "no-prefill-graphs": "pictures and prompts read without graphs",
    "host-pixels": "pictures processed on the host",
    "no-graphs": "no graphs at all, and no kernels",
}


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is asked: on a GPU as a table wants it, on a CPU so that it runs."""

    side: tuple[int, int]
    tokens: int
    cut: int  # tokens of an answer that ends behind its box
    batches: tuple[int, ...]
    growing: tuple[int, ...]  # numbers of tokens
    megapixels: tuple[float, ...]
    phrases: tuple[int, int]  # of a picture, and pictures
    together: int
    rounds: int


FULL = Scale(
    (640, 480), 101, 42, (1, 2, 4, 8, 16, 32, 64), (1, 26, 51, 101, 201), (0.1, 0.3, 1.0, 2.0, 4.0), (7, 16), 64, 5
)
QUICK = Scale((64, 64), 5, 3, (1, 2), (1, 4), (0.005, 0.01), (2, 2), 2, 1)


class Rig:
    """A model with random weights on this machine's GPU, and the bandwidth and speed that floors are made of."""

    def __init__(self, size: str) -> None:
        self.scale = FULL if DEVICE == "cuda" else QUICK
        self.dtype = "bfloat16" if DEVICE == "cuda" else "float32"
        self.bandwidth, self.speed = copy_bandwidth(), _multiplication_speed()
        self.model = enable_fast_path(build_model(size, dtype=self.dtype, device=DEVICE)).requires_grad_(False)
        self.processor = build_processor()
        if not get_preset(
            size
        ).is_tiny:  # its own tokenizer needs a download: egm-tiny's stands in, with as many tokens
            self.processor.image_processor.size = {"shortest_edge": 256 * 256, "longest_edge": 4096 * 4096}
            config = self.model.config
            config.image_token_id, config.video_token_id = token_id("<|image_pad|>"), token_id("<|video_pad|>")
            config.vision_start_token_id = token_id("<|vision_start|>")
            config.vision_end_token_id = token_id("<|vision_end|>")
        costs = cost_model(size, width=2 if DEVICE == "cuda" else 4)
        assert costs is not None
        self.costs: CostModel = costs
        self._count, self._codec = 0, get_codec("qwen3_vl")
        self._way, self._backend = "", None

    def backend(self, way: str) -> TransformersBackend:
        """The model answering in one of the ways; the last one's caches and graphs are let go."""
        if self._backend is not None and self._way == way:
            return self._backend
        self._backend = None
        gc.collect()
        if DEVICE == "cuda":
            torch.cuda.empty_cache()
        backend = TransformersBackend(self.model, self.processor, name="random", fp8=way == "fp8", fast_prompts=True)
        stops = backend._stops()
        options: dict[str, Any] = {"dtype": None, "max_rows": None, "stop_repeats": True, "fp8": way == "fp8"}
        options |= {"graphs": way != "no-graphs", "kernels": False if way in ("no-kernels", "no-graphs") else None}
        options |= {"keep_prefixes": True, "fast_prompts": True}
        decoder = BatchDecoder(self.model, stops=stops, pad=stops[0], banned=[], **options)
        if way == "no-prefill-graphs":
            decoder.reader = PromptReader(decoder.device, stops[0], graphs=False, prefix_bytes=2**32)
        backend.__dict__["_decoder"] = decoder
        prompt_batch.is_known = _unknown if way == "host-pixels" else _KNOWN
        self._way, self._backend = way, backend
        return backend

    def forget(self) -> None:
        """Let go of caches and graphs, such as those of a call that failed."""
        self._way, self._backend = "", None
        prompt_batch.is_known = _KNOWN

    def costs_of(self, way: str) -> CostModel:
        return replace(self.costs, layer_width=1) if way == "fp8" else self.costs

    def picture(self, side: tuple[int, int] | None = None) -> Image.Image:
        """A picture that nobody has seen."""
        self._count += 1
        width, height = side or self.scale.side
        draw = np.random.default_rng(self._count)
        return Image.fromarray(draw.integers(0, 255, (height, width, 3), dtype=np.uint8))

    def request(self, image: Image.Image, number: int = 0) -> Request:
        return Request(self._codec.messages(f"the small red cup, number {number}, beside the kettle"), [image])

    def requests(self, count: int, side: tuple[int, int] | None = None) -> list[Request]:
        return [self.request(self.picture(side), number) for number in range(count)]

    def answer(self, way: str, requests: Sequence[Request], tokens: int) -> tuple[float, list[Any]]:
        """Seconds until all is answered, and the answers."""
        backend = self.backend(way)
        wait()
        start = time.perf_counter()
        replies = backend.generate(requests, GenerationSettings(max_new_tokens=tokens))
        return time.perf_counter() - start, replies

    def median(self, way: str, make: Callable[[], Sequence[Request]], tokens: int, rounds: int) -> tuple[float, Any]:
        """Median seconds of several rounds, behind three in which graphs are recorded; and the last answers."""
        for short in (1, 1, tokens):
            self.answer(way, make(), short)
        seconds = []
        for _ in range(rounds):
            taken, replies = self.answer(way, make(), tokens)
            seconds.append(taken)
        return statistics.median(seconds), replies

    def seconds_of(self, cost: Cost) -> float:
        """The floor of a cost: bytes at the copy's bandwidth, or operations at a large product's speed."""
        return max(cost.bytes / self.bandwidth, cost.operations / self.speed)

    def reading_floor(self, prompt: int, count: int = 1, side: tuple[int, int] | None = None) -> float:
        """The floor of reading so many prompts, each about a picture of its own."""
        look = self.costs.look(side or self.scale.side, at_once=count)
        read = self.costs.pass_over(prompt, prompt, scored=1, at_once=count)
        return sum(self.seconds_of(Cost(count * each.operations, count * each.bytes)) for each in (look, read))

    def step_floor(self, way: str, context: float, count: int = 1) -> float:
        """The floor of a step of so many rows: weights once, and the cache of each."""
        return count * self.costs_of(way).pass_over(1, context, scored=1, at_once=count).bytes / self.bandwidth


_KNOWN = prompt_batch.is_known


def _unknown(process: Any) -> bool:  # noqa: ARG001 - as `is_known` is called
    """Leave pictures to the processor."""
    return False


def wait() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def _multiplication_speed() -> float:
    """Operations a second of a large product."""
    side, dtype = (8192, torch.bfloat16) if DEVICE == "cuda" else (256, torch.float32)
    a, b = (torch.randn(side, side, device=DEVICE, dtype=dtype) for _ in range(2))
    return 2 * side**3 / replayed(lambda: a @ b, 10)


def _peak() -> float | None:
    return torch.cuda.max_memory_allocated() / 1e9 if DEVICE == "cuda" else None


def _reset_peak() -> None:
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()


def first_token(rig: Rig, way: str) -> Iterator[Row]:
    """One request until its first token, whole, and in stages that are waited for one by one."""
    _reset_peak()
    whole, (reply,) = rig.median(way, lambda: rig.requests(1), 1, 4 * rig.scale.rounds)
    floor = rig.reading_floor(reply.prompt_tokens)
    yield {"case": f"whole, {reply.prompt_tokens} prompt tokens", "ms": 1e3 * whole, "floor": floor, "gb": _peak()}
    picture, numbers = rig.picture(), itertools.count()
    again, _ = rig.median(way, lambda: [rig.request(picture, next(numbers))], 1, 4 * rig.scale.rounds)
    own = reply.prompt_tokens - rig.costs.patches(rig.scale.side) // 4
    least = rig.seconds_of(rig.costs.pass_over(own, reply.prompt_tokens, scored=1))
    yield {"case": "whole, another phrase of a picture", "ms": 1e3 * again, "floor": least}
    stages: dict[str, list[float]] = {}
    for _ in range(4 * rig.scale.rounds):
        for name, seconds in _stages(rig, way).items():
            stages.setdefault(name, []).append(seconds)
    found = {name: statistics.median(each) for name, each in stages.items()}
    look = rig.seconds_of(rig.costs.look(rig.scale.side))
    for name, seconds in found.items():
        floors = {"tower": look, "prefill": floor - look}
        yield {"case": name, "ms": 1e3 * seconds, "floor": floors.get(name)}
    told = sum(found.values()) - found["(the processor on the host)"]
    yield {"case": "sampling and the rest", "ms": 1e3 * max(0.0, whole - told)}
    reader = rig.backend(way)._decoder.reader
    for name, calls, least in (("tower", reader.towers, look), ("prefill", reader.readings, floor - look)):
        recordings = [each for key, each in calls._recordings.items() if name == "tower" or key[2] is None]
        for recording in recordings[-1:]:  # of a whole prompt, not of one behind a picture that is known
            yield {"case": f"{name}, its graph alone", "ms": 1e3 * replayed(recording.graph.replay, 10), "floor": least}


def _stages(rig: Rig, way: str) -> dict[str, float]:
    from egm.models.decode.cache import grouped_attention
    from egm.models.find_core import core_of

    backend, request, found = rig.backend(way), rig.requests(1)[0], {}
    decoder, device = backend._decoder, rig.model.device
    on_gpu = device.type == "cuda" and way != "host-pixels"

    def timed(name: str, call: Callable[[], Any]) -> Any:
        wait()
        start = time.perf_counter()
        result = call()
        wait()
        found[name] = time.perf_counter() - start
        return result

    with torch.inference_mode(), grouped_attention(rig.model):
        text = timed("prompt's text", lambda: backend._prompt_of(request))
        images, beside = list(request.images), {"device": device if on_gpu else None, "dtype": rig.model.dtype}
        prompts = timed("picture and tokens", lambda: make_prompts(rig.processor, [text], [0], images, **beside))
        timed("(the processor on the host)", lambda: rig.processor.image_processor(images=images, return_tensors="pt"))
        pixels = timed("transfer", lambda: prompts.pixels.to(device, rig.model.dtype))
        timed("tower", lambda: decoder.reader._look(core_of(rig.model), pixels, prompts.grids))
        fused = decoder._fused_reading()
        timed("prefill", lambda: decoder.reader.read(rig.model, prompts, None, fused))
    found["prefill"] -= found["tower"]
    if on_gpu:
        del found["transfer"]  # of the picture, and done with what it is made of
    return found


def decode(rig: Rig, way: str) -> Iterator[Row]:
    """Milliseconds a token: so many tokens less the first, of prompts that are there."""
    scale = rig.scale
    for rows in [rows for rows in (1, 8, 64) if rows <= max(scale.batches)]:
        _reset_peak()
        backend, requests = rig.backend(way), rig.requests(rows)
        texts = [backend._prompt_of(request) for request in requests]
        images = [request.images[0] for request in requests]
        device = rig.model.device if DEVICE == "cuda" else None
        with torch.inference_mode():
            prompts = make_prompts(rig.processor, texts, list(range(rows)), images, device=device)
            seconds: dict[int, list[float]] = {1: [], scale.tokens: []}
            for _ in range(2 + scale.rounds):
                for tokens, taken in seconds.items():
                    wait()
                    start = time.perf_counter()
                    ids = backend._decoder.generate(
                        prompts, range(rows), tokens, Sampler(0.0), logprobs=True, until=()
                    ).ids
                    taken.append(time.perf_counter() - start)
        first, whole = (statistics.median(taken[2:]) for taken in seconds.values())
        steps = max(1, max(map(len, ids)) - 1)
        floor = rig.step_floor(way, len(prompts.ids[0]) + steps / 2, rows)
        yield {"case": f"{rows} at once", "ms": 1e3 * (whole - first) / steps, "floor": floor, "gb": _peak()}


def request(rig: Rig, way: str) -> Iterator[Row]:
    """One request, from the call to its last token."""
    for tokens in (rig.scale.tokens, rig.scale.cut):
        _reset_peak()
        seconds, (reply,) = rig.median(way, lambda: rig.requests(1), tokens, rig.scale.rounds)
        yield {"case": f"{reply.completion_tokens} tokens", "ms": 1e3 * seconds} | _whole(rig, way, [reply], 1)


def together(rig: Rig, way: str) -> Iterator[Row]:
    """Many at once, each about its own picture."""
    _reset_peak()
    count, make = rig.scale.together, lambda: rig.requests(rig.scale.together)
    seconds, replies = rig.median(way, make, rig.scale.tokens, max(1, rig.scale.rounds // 2))
    yield {"case": f"{count} at once", "ms": 1e3 * seconds, "rate": count / seconds} | _whole(rig, way, replies, count)


def phrases(rig: Rig, way: str) -> Iterator[Row]:
    """Several phrases of several pictures, in one call, and in calls of at most 64."""
    each, pictures = rig.scale.phrases
    for at_once in (pictures, max(1, min(pictures, 64 // each))):

        def make(count: int = at_once) -> list[Request]:
            return [rig.request(image, n) for image in [rig.picture() for _ in range(count)] for n in range(each)]

        _reset_peak()
        seconds, replies = rig.median(way, make, rig.scale.tokens, max(1, rig.scale.rounds // 2))
        row = {"case": f"{each} phrases x {at_once} pictures in a call", "ms": 1e3 * seconds}
        yield row | {"rate": each * at_once / seconds} | _whole(rig, way, replies, each * at_once, at_once)


def _whole(rig: Rig, way: str, replies: Sequence[Any], count: int, pictures: int | None = None) -> Row:
    """The floor of a whole call, and the memory that it took at most.

    With fewer pictures than answers, what is read of a picture is read once.
    """
    prompt, written = replies[0].prompt_tokens, max(reply.completion_tokens for reply in replies)
    shown = pictures or count
    look = rig.costs.look(rig.scale.side, at_once=shown)
    read = rig.costs.pass_over(prompt, prompt, scored=1, at_once=shown)
    own = prompt - rig.costs.patches(rig.scale.side) // 4
    more = rig.costs.pass_over(own, prompt, scored=1, at_once=max(1, count - shown))
    parts = [(shown, look), (shown, read), (count - shown, more)]
    floor = sum(rig.seconds_of(Cost(number * each.operations, number * each.bytes)) for number, each in parts)
    return {"floor": floor + (written - 1) * rig.step_floor(way, prompt + written / 2, count), "gb": _peak()}


def sizes(rig: Rig, way: str) -> Iterator[Row]:
    """The first token by the size of the picture."""
    for megapixels in rig.scale.megapixels:
        width = (megapixels * 1e6 * 4 / 3) ** 0.5
        side = (max(32, round(width / 32) * 32), max(32, round(width * 3 / 4 / 32) * 32))
        _reset_peak()
        seconds, (reply,) = rig.median(way, lambda s=side: rig.requests(1, s), 1, rig.scale.rounds)
        floor = rig.reading_floor(reply.prompt_tokens, 1, side)
        case = f"{megapixels:g} MP, {reply.prompt_tokens} prompt tokens"
        yield {"case": case, "ms": 1e3 * seconds, "floor": floor, "gb": _peak()}


def tokens(rig: Rig, way: str) -> Iterator[Row]:
    """One request by the number of tokens."""
    for count in rig.scale.growing:
        seconds, (reply,) = rig.median(way, lambda: rig.requests(1), count, max(1, rig.scale.rounds // 2))
        yield {"case": f"{reply.completion_tokens} tokens", "ms": 1e3 * seconds} | _whole(rig, way, [reply], 1)


def batches(rig: Rig, way: str) -> Iterator[Row]:
    """Requests a second by how many are asked at once."""
    for count in rig.scale.batches:
        _reset_peak()
        rounds = max(1, rig.scale.rounds // 2)
        seconds, replies = rig.median(way, lambda c=count: rig.requests(c), rig.scale.tokens, rounds)
        row = {"case": f"{count} at once", "ms": 1e3 * seconds, "rate": count / seconds}
        yield row | _whole(rig, way, replies, count)


PARTS: dict[str, Callable[[Rig, str], Iterator[Row]]] = {
    "first-token": first_token,
    "decode": decode,
    "request": request,
    "together": together,
    "phrases": phrases,
    "sizes": sizes,
    "tokens": tokens,
    "batches": batches,
    "drafts": drafts,
}
