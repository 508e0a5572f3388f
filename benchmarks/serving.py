"""Latency and throughput of a model size behind engines, as they come and as `egm serve --aim` starts them.

    python benchmarks/serving.py --engine sglang --results runs/serving.jsonl
    python benchmarks/serving.py --engine vllm --started default --started "latency fp8 --max-num-seqs 8"
    python benchmarks/serving.py --table runs/serving.jsonl

The model has the size's architecture and dummy weights: the configuration is the published one, and the tokenizer is
egm-tiny's, filled up to the size of the vocabulary, so that every token has a text. Each request shows a new picture of
640 x 480 and generates exactly as many tokens as it is told to. All servers of a command start together, each with its
share of the GPU's memory, and are measured one after the other while the others wait. The floor is the time of reading
the weights of the language model once a token, at the copy bandwidth that is measured first, in this command. `cut` is
an answer whose generation ends after the fourth coordinate: as many tokens less as the rest of it takes. Speculation is
off, since text without sense is not guessed.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from busy import Busy
from PIL import Image

from egm.boxes import Box
from egm.codecs import get_codec
from egm.environment import gpu_name
from egm.models.presets import PRESETS, build_config, get_preset
from egm.models.tiny.processor import build_processor
from egm.models.tiny.vocabulary import token_id
from egm.serve import RunningServer, serve

_SIZES = tuple(name for name, size in PRESETS.items() if size.family != "internvl")  # Qwen3-VL's processor is written
SIDES = (640, 480)
LONG = 101  # tokens of an answer of EGM-8B, reasoning included, as its paper has it
PHRASE = "the tall red cup"
PHRASES = [f"the cup number {number}" for number in range(7)]
SHARES = {  # of one GPU's memory for each of several servers, and counts of what the cache had
    "sglang": ["--mem-fraction-static", "0.95", "--max-total-tokens", "40000", "--enable-cache-report"],
    "vllm": [
        *("--gpu-memory-utilization", "0.3", "--kv-cache-memory-bytes", "6000000000"),
        "--enable-prompt-tokens-details",
    ],
}


def make_model(folder: Path, size: str) -> None:
    """Write all that a server needs of a model but its weights."""
    preset = get_preset(size)
    processor = build_processor()
    processor.image_processor.size = {"shortest_edge": 256 * 256, "longest_edge": 4096 * 4096}  # Qwen3-VL's own
    processor.save_pretrained(str(folder))
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary |= {f"Ġw{number}": number for number in range(len(vocabulary), preset.text.vocabulary)}
    file.write_text(json.dumps(tokenizer), encoding="utf-8")
    config = build_config(preset)
    for name in ("image", "video", "vision_start", "vision_end"):
        token = f"<|{name}_pad|>" if name in ("image", "video") else f"<|{name}|>"
        setattr(config, f"{name}_token_id", token_id(token))
    config.text_config.eos_token_id = token_id("<|im_end|>")
    config.text_config.bos_token_id = token_id("<|endoftext|>")
    config.architectures = [f"Qwen3VL{'Moe' if preset.text.experts else ''}ForConditionalGeneration"]
    config.dtype = "bfloat16"
    if preset.text.experts:
        config.text_config.norm_topk_prob = True  # the published files have it, transformers' class no longer
    config.save_pretrained(str(folder))


def cut_length() -> int:
    """Tokens of an answer that ends after the fourth coordinate, where the whole has `LONG`."""
    codec, tokenizer = get_codec("qwen3_vl"), build_processor().tokenizer
    text = codec.target(PHRASE, Box(64, 48, 320, 240), size=SIDES)
    tail = text[text.index('"label"') :]
    return LONG - len(tokenizer(tail, add_special_tokens=False)["input_ids"])


def floor_ms(size: str, quantization: str | None, bandwidth: float) -> float:
    """Milliseconds that a token takes at least: the language model's weights, read once."""
    text = get_preset(size).text
    attention = text.hidden * text.head_dim * (2 * text.heads + 2 * text.kv_heads)
    layers = text.layers * (attention + 3 * text.hidden * text.intermediate)
    head = text.hidden * text.vocabulary
    return (layers * (1 if quantization == "fp8" else 2) + head * 2) / bandwidth * 1e3  # the output layer stays bf16


def copy_bandwidth() -> float:
    """Bytes a second that a copy on the GPU reads and writes; in a process of its own, which frees the memory."""
    code = """
import torch, time
a = torch.empty(2**32, dtype=torch.uint8, device="cuda"); b = torch.empty_like(a)
for _ in range(3): b.copy_(a)
torch.cuda.synchronize(); start = time.perf_counter()
for _ in range(20): b.copy_(a)
torch.cuda.synchronize(); print(20 * 2 * a.numel() / (time.perf_counter() - start))
"""
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


class Reply(NamedTuple):
    """What came of one request: seconds to the end and to the first token, prompt tokens, and those from a cache."""

    seconds: float
    first: float
    prompt: int
    cached: int


class Client:
    """Asks one server, and keeps the seconds to the first token and to the last one."""

    def __init__(self, server: RunningServer, seed: int) -> None:
        import openai

        url = f"{server.url}/v1"
        self.api = openai.AsyncOpenAI(base_url=url, api_key="none", timeout=600, max_retries=0)
        self.model, self.pixels = server.model, np.random.default_rng(seed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.api.close()

    def picture(self) -> str:
        """A picture that no cache knows, as a data URL."""
        blotches = self.pixels.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(blotches).resize(SIDES, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=95)
        return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()

    def _question(self, picture: str, tokens: int, phrase: str) -> dict[str, Any]:
        [message] = get_codec("qwen3_vl").messages(phrase)
        content = [{"type": "image_url", "image_url": {"url": picture}}, message["content"][1]]
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": tokens,
            "extra_body": {"ignore_eos": True},
        }

    async def stream(self, picture: str, tokens: int, phrase: str = PHRASE) -> Reply:
        """Ask one question, streamed."""
        start, first, usage = time.perf_counter(), None, None
        question = self._question(picture, tokens, phrase)
        async for chunk in await self.api.chat.completions.create(
            **question, stream=True, stream_options={"include_usage": True}
        ):
            if first is None and chunk.choices:
                first = time.perf_counter() - start
            usage = chunk.usage or usage
        assert first is not None
        return self._reply(usage, tokens, time.perf_counter() - start, first)

    async def whole(self, picture: str, tokens: int, phrase: str = PHRASE) -> Reply:
        """Ask one question, not streamed: one client's parsing of streams would hold many requests up."""
        start = time.perf_counter()
        answer = await self.api.chat.completions.create(**self._question(picture, tokens, phrase))
        seconds = time.perf_counter() - start
        return self._reply(answer.usage, tokens, seconds, seconds)

    def _reply(self, usage: Any, tokens: int, seconds: float, first: float) -> Reply:
        if usage is None or usage.completion_tokens != tokens:
            raise SystemExit(f"{self.model}: {tokens} tokens were asked for, and the server counts {usage}")
        details = usage.prompt_tokens_details
        return Reply(seconds, first, usage.prompt_tokens, (details.cached_tokens or 0) if details else 0)

    async def rate(
        self, questions: Sequence[tuple[str, str]], tokens: int, most: int
    ) -> tuple[float, float, list[Reply]]:
        """Ask (picture, phrase) pairs, so many at once.

        Returns:
            Requests a second, the share of prompt tokens that a cache had, and the replies.
        """
        slots = asyncio.Semaphore(most)

        async def one(picture: str, phrase: str) -> Reply:
            async with slots:
                return await self.whole(picture, tokens, phrase)

        start = time.perf_counter()
        replies = await asyncio.gather(*(one(*question) for question in questions))
        seconds = time.perf_counter() - start
        cached = sum(reply.cached for reply in replies) / sum(reply.prompt for reply in replies)
        return len(questions) / seconds, cached, replies

    def questions(self, pictures: int) -> list[tuple[str, str]]:
        """Every phrase about each of so many new pictures, picture by picture."""
        return [(picture, phrase) for picture in [self.picture() for _ in range(pictures)] for phrase in PHRASES]


async def measure(server: RunningServer, seed: int, pictures: int) -> dict[str, Any]:
    """Everything that is measured of one server."""
    row: dict[str, Any] = {}
    busy = Busy(str(server.url.rsplit(":", 1)[1]))  # the port stands in the command line
    async with Client(server, seed) as client:
        for _ in range(3):
            await client.stream(client.picture(), 20)
        for name, tokens in (("long", LONG), ("cut", cut_length()), ("first", 1)):
            replies = [await client.stream(client.picture(), tokens) for _ in range(10)]
            row[name] = {"tokens": tokens, "ms": 1e3 * statistics.mean(reply.seconds for reply in replies)}
            row[name]["spread"] = 1e3 * statistics.stdev(reply.seconds for reply in replies)
            row[name]["first_ms"] = 1e3 * statistics.median(reply.first for reply in replies)
            row["prompt_tokens"] = replies[0].prompt
        for most in (8, 64):
            for _ in range(3):  # the first round brings graphs and caches of that many up
                asked = [(client.picture(), PHRASE) for _ in range(max(4 * most, 32))]
                watch = asyncio.create_task(busy.watch())
                row[f"at_once_{most}"], _, _ = await client.rate(asked, LONG, most)
                watch.cancel()
            row["busy"] = busy.text()
        for order in ("image", "random"):
            for _ in range(2):
                asked = asked_in(client.questions(16), 16)
                if order == "random":
                    random.Random(0).shuffle(asked)
                row[f"{order}_order"], row[f"{order}_cached"], _ = await client.rate(asked, LONG, 64)
        if pictures:
            _, found, replies = await client.rate(asked_in(client.questions(pictures), 64), 8, 16)
            kept = max(reply.cached / reply.prompt for reply in replies)  # engines keep whole blocks of tokens
            row["hits"] = {"pictures": pictures, "found": found, "possible": (1 - 1 / len(PHRASES)) * kept}
    return row


def asked_in(questions: Sequence[tuple[str, str]], block: int) -> list[tuple[str, str]]:
    """Order questions as `egm eval` does: of so many pictures the first question of each, then the others."""
    each = len(PHRASES) * block
    order: list[tuple[str, str]] = []
    for start in range(0, len(questions), each):
        part = questions[start : start + each]
        order += part[:: len(PHRASES)]
        order += [question for number, question in enumerate(part) if number % len(PHRASES)]
    return order


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table, under what they were measured on."""
    heads = ["engine, started", "precision", "ms, whole", "of the floor", "ms, cut", "first token, ms"]
    heads += ["req/s, 8 at once", "64 at once", "7 x 16, image order", "random order", "hits, of possible"]
    lines = []
    for where in sorted({row["where"] for row in rows}):
        lines += [where, "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for row in rows:
            if row["where"] != where:
                continue
            long, hits = row["long"], row.get("hits")
            cells = [
                f"{row['engine']}, {row['started']}",
                row["precision"],
                f"{long['ms']:.0f} ({long['tokens']} tokens)",
                f"{long['ms'] / (long['tokens'] * row['floor_ms']):.2f} x",
                f"{row['cut']['ms']:.0f} ({row['cut']['tokens']})",
                f"{long['first_ms']:.0f} ({row['first']['first_ms']:.0f} if it is all)",
                f"{row['at_once_8']:.1f}",
                f"{row['at_once_64']:.1f}",
                f"{row['image_order']:.1f} ({row['image_cached']:.0%} cached)",
                f"{row['random_order']:.1f} ({row['random_cached']:.0%})",
                f"{hits['found']:.1%} of {hits['possible']:.1%}" if hits else "-",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


@dataclass(frozen=True)
class Start:
    """How a server is started: an aim of `egm serve`, or "default" for the engine's own options, and flags."""

    engine: str
    words: str

    @property
    def quantization(self) -> str | None:
        """fp8, or nothing."""
        return "fp8" if "fp8" in self.words.split() else None

    def server(self, folder: Path, stack: ExitStack) -> RunningServer:
        """Start it, and wait until it answers."""
        aim, *flags = [word for word in self.words.split() if word != "fp8"]
        return stack.enter_context(
            serve(
                str(folder),
                self.engine,
                aim=None if aim == "default" else aim,
                quantization=self.quantization,
                passed_on=["--load-format", "dummy", *SHARES[self.engine], *flags],
            )
        )


def main() -> None:
    """Start the servers, measure them one by one, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=tuple(SHARES), default="sglang")
    parser.add_argument(
        "--started",
        action="append",
        metavar="WORDS",
        help='"default", or an aim of egm serve; "fp8"; further options of the engine; repeatable',
    )
    parser.add_argument("--size", choices=_SIZES, default="8B")
    parser.add_argument(
        "--pictures",
        type=int,
        default=0,
        help="so many in image order, more than the cache holds, behind --aim throughput",
    )
    parser.add_argument("--results", type=Path, help="file that a line for each server is added to")
    parser.add_argument("--table", type=Path, help="only print the table of such a file")
    options = parser.parse_args()
    if options.table is not None:
        print(table([json.loads(line) for line in options.table.read_text(encoding="utf-8").splitlines()]))
        return
    starts = [Start(options.engine, words) for words in options.started or ("default", "latency", "throughput")]
    bandwidth = copy_bandwidth()
    rows = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / options.size
        make_model(folder, options.size)
        with ThreadPoolExecutor(len(starts)) as pool:
            begun = {start: pool.submit(start.server, folder, stack) for start in starts}
        for number, start in enumerate(starts):
            if error := begun[start].exception():
                print(f"{start.engine}, {start.words}: {error}", file=sys.stderr)
                continue
            server = begun[start].result()
            pictures = options.pictures if "throughput" in start.words else 0
            row = asyncio.run(measure(server, number, pictures))
            row |= {
                "engine": server.engine,
                "started": start.words,
                "precision": start.quantization or "bf16",
                "floor_ms": floor_ms(options.size, start.quantization, bandwidth),
                "where": f"{options.size}, {gpu_name()}, {bandwidth / 1e12:.2f} TB/s, "
                f"{server.engine} {server.version}, {row['prompt_tokens']} prompt tokens, {date.today()}",
            }
            rows.append(row)
            if options.results is not None:
                with options.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            print(table([row]), f"64 at once: {row['busy']}", sep="", file=sys.stderr, flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
