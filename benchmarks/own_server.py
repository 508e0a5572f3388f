"""`python -m egm.server` against its own backend in process, and under a storm.

    uv run python benchmarks/own_server.py                                  # all of SynthRef: hours on a CPU
    uv run python benchmarks/own_server.py --scenes 2 --storm 500           # the first two scenes of each split
    uv run python benchmarks/own_server.py --device cuda --dtype bfloat16 --batch-size 32 --concurrency 64

Parity: the first scenes of each split are asked greedily, in process and of the server, half of them streamed; every
text, finish reason and count that differs is counted, and with it the boxes and hits. What is asked together is not the
same on both sides, which changes nothing in float32 with NumPy; in bfloat16 near-ties fall otherwise.

Storm: many clients at once ask, stream, go in the middle of a stream or before an answer, drip a body or a head, send
what is bad or too large; sound requests must be answered as in process, all else by the status that belongs to it.
Prints memory at the beginning, half way and at the end. Last the server is told to end with all clients at work. Exit
code 1 where a request was lost, an answer was wrong, or the end was not clean; in float32 also where a text differs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from egm.backends import GenerationSettings
from egm.boxes import iou
from egm.datasets.synthetic import SynthRef
from egm.grounder import GroundedCompletion, Grounder
from egm.types import HIT_IOU, Sample

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.server.serving import ask, data_url, send_head

SPLITS = ("val", "test-simple", "test-complex", "test-amodal")
NAME = "egm/served"
STORM_TOKENS = 16
BODY_LIMIT = 32 * 2**20


@contextmanager
def server(options: argparse.Namespace, *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the server as a process; yields it and host:port."""
    command = [sys.executable, "-m", "egm.server", options.model, "--port", "0", "--served-model-name", NAME]
    command += ["--device", options.device, "--dtype", options.dtype, "--batch-size", str(options.batch_size)]
    child = subprocess.Popen([*command, *more], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stderr is not None
    place = None
    for line in child.stderr:
        if found := re.search(r"serving .* at http://(\S+)/v1", line):
            place = found[1]
            break
        print(line, end="", file=sys.stderr)
    if place is None:
        sys.exit("the server did not start")
    # What it logs is read, or it would wait for somebody to.
    threading.Thread(target=lambda log: [None for _ in log], args=(child.stderr,), daemon=True).start()
    try:
        yield child, place
    finally:
        child.terminate()
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            child.kill()


def parity(options: argparse.Namespace, here: Grounder) -> int:
    """Ask both about each split; returns how many texts differ."""
    print(f"{'split':<14}{'samples':>8}{'texts':>7}{'ends':>6}{'tokens':>8}{'boxes':>7}{'hits here':>11}{'there':>7}")
    total = Counter[str]()
    with server(options) as (_, place):
        url, settings = f"http://{place}", here.settings
        for split in options.splits:
            data = SynthRef(split, scenes=options.scenes)
            assert data.scenes is not None
            samples = [sample for scene in range(data.scenes) for sample in data.samples(scene)]
            mine = answers(here, samples)
            halves = [samples[0::2], samples[1::2]]
            theirs: list[Any] = [None] * len(samples)
            for place_of, half in enumerate(halves):
                connect = {"concurrency": options.concurrency, "stream": place_of == 0, "stall_seconds": 600.0}
                with Grounder.connect(url, NAME, codec=here.codec, settings=settings, **connect) as there:
                    theirs[place_of::2] = answers(there, half)
            found = compare(samples, mine, theirs)
            total += found
            print(row(split, found))
    print(row("all", total))
    return total["texts"]


def answers(grounder: Grounder, samples: Sequence[Sample]) -> list[GroundedCompletion]:
    found = list(grounder.answer_each(enumerate(samples)))
    for answer in found:
        if not isinstance(answer, GroundedCompletion):
            raise answer
    return found  # type: ignore[return-value]


def compare(
    samples: Sequence[Sample], mine: Sequence[GroundedCompletion], theirs: Sequence[GroundedCompletion]
) -> Counter[str]:
    found = Counter(samples=len(samples))
    for sample, one, other in zip(samples, mine, theirs, strict=True):
        ends = (one.completion.finish_reason == "stop", other.completion.finish_reason == "stop")
        counts = [(own.completion.prompt_tokens, own.completion.completion_tokens) for own in (one, other)]
        found["texts"] += one.completion.text != other.completion.text
        found["ends"] += ends[0] != ends[1]
        found["tokens"] += counts[0] != counts[1]
        found["boxes"] += one.grounding.box != other.grounding.box
        for name, own in (("here", one), ("there", other)):
            box = own.grounding.box
            assert sample.box is not None
            found[name] += box is not None and iou(box, sample.box) >= HIT_IOU
    return found


def row(name: str, found: Counter[str]) -> str:
    cells = [found[key] for key in ("samples", "texts", "ends", "tokens", "boxes", "here", "there")]
    return name.ljust(14) + "".join(
        f"{cell:>{width}}" for cell, width in zip(cells, (8, 7, 6, 8, 7, 11, 7), strict=True)
    )


def rss(child: subprocess.Popen[str]) -> float:
    """Megabytes of a process that lie in memory."""
    status = Path(f"/proc/{child.pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else float("nan")


class Storm:
    """Clients of every sort.

    Args:
        place: host:port of the server.
        questions: Bodies of sound requests, each with the text that belongs to it.
    """

    def __init__(self, place: str, questions: Sequence[tuple[dict[str, Any], str]]) -> None:
        self.place, self.questions = place, questions
        self.kinds = {
            "whole": self.whole,
            "streamed": self.streamed,
            "cancelled": self.cancelled,
            "gone": self.gone,
            "dripping": self.dripping,
            "half a head": self.half_a_head,
            "bad field": lambda _: self.refused({"n": 3}, 422),
            "bad picture": lambda _: self.refused(picture("data:image/png;base64,AAAA"), 422),
            "address": lambda _: self.refused(picture("http://127.0.0.1:9/a.png"), 422),
            "no JSON": lambda _: self.status(b"{", 400),
            "too large": self.too_large,
            "other model": lambda _: self.refused({"model": "other"}, 404),
            "too long": lambda _: self.refused({"messages": [{"role": "user", "content": "a " * 5000}]}, 400),
        }
        self.weights = {"whole": 8, "streamed": 8, "cancelled": 4, "gone": 3}
        self.busy = Counter[str]()

    def run(self, number: int, seed: int) -> tuple[str, str]:
        """Do what the number says; gives the kind, and what came of it: "as it should" or what was wrong."""
        rng = random.Random(f"{seed}/{number}")
        kind = rng.choices([*self.kinds], [self.weights.get(kind, 1) for kind in self.kinds])[0]
        for _ in range(2000):
            try:
                outcome = self.kinds[kind](rng)
            except (OSError, ValueError) as error:
                return kind, f"lost ({type(error).__name__}: {error})"
            if outcome != "busy":
                return kind, outcome
            self.busy[kind] += 1
            time.sleep(0.05)
        return kind, "lost (always busy)"

    def whole(self, rng: random.Random) -> str:
        body, text = rng.choice(self.questions)
        status, _, answer = ask(self.place, "/v1/chat/completions", body)
        if status in (429, 503):
            return "busy"
        said = answer["choices"][0]["message"]["content"] if status == 200 else None
        return "as it should" if said == text else f"wrong ({status})"

    def streamed(self, rng: random.Random) -> str:
        body, text = rng.choice(self.questions)
        content = self.read({**body, "stream": True}, until=b"data: [DONE]")
        if re.match(rb"HTTP/1.1 (429|503)", content):
            return "busy"
        pieces = re.findall(rb"^data: (\{.*\})\r?$", content, re.MULTILINE)
        choices = [choice for piece in pieces for choice in json.loads(piece)["choices"]]
        said = "".join(choice["delta"].get("content", "") for choice in choices)
        return "as it should" if said == text else f"wrong ({content[:60]!r})"

    def cancelled(self, rng: random.Random) -> str:
        body, _ = rng.choice(self.questions)
        content = self.read({**body, "stream": True, "max_tokens": 2000}, until=b'"content": "')
        return "busy" if re.match(rb"HTTP/1.1 (429|503)", content) else "as it should"

    def gone(self, rng: random.Random) -> str:
        body, _ = rng.choice(self.questions)
        self.read({**body, "max_tokens": 2000}, until=b"")
        return "as it should"

    def dripping(self, rng: random.Random) -> str:
        connection = send_head(self.place, "POST /v1/chat/completions HTTP/1.1", length=100_000)
        with connection:
            for _ in range(rng.randrange(1, 6)):
                connection.sendall(b"{")
                time.sleep(0.05)
        return "as it should"

    def half_a_head(self, rng: random.Random) -> str:
        with send_head(self.place, "GET /health HTTP/1.1\r\nX: " + "y" * rng.randrange(1000), length=0) as connection:
            connection.sendall(b"POST /v1")
        return "as it should"

    def too_large(self, _: random.Random) -> str:
        with send_head(self.place, "POST /v1/chat/completions HTTP/1.1", length=BODY_LIMIT + 1) as connection:
            return "as it should" if b" 413 " in connection.recv(65536)[:20] else "wrong"

    def refused(self, change: dict[str, Any], expected: int) -> str:
        return self.status({**self.questions[0][0], **change}, expected)

    def status(self, body: Any, expected: int) -> str:
        status, _, answer = ask(self.place, "/v1/chat/completions", body)
        if status in (429, 503):
            return "busy"
        sound = status == expected and answer["error"]["code"] == expected
        return "as it should" if sound else f"wrong ({status} in place of {expected})"

    def read(self, body: dict[str, Any], *, until: bytes) -> bytes:
        """Send a request and read until something has come, or the other side has closed."""
        data, content = json.dumps(body).encode(), b""
        with send_head(self.place, "POST /v1/chat/completions HTTP/1.1", length=len(data)) as connection:
            connection.sendall(data)
            while until not in content and not re.match(rb"HTTP/1.1 [45]", content):
                piece = connection.recv(65536)
                if not piece:
                    break
                content += piece
        return content


def picture(url: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


def questions(here: Grounder) -> list[tuple[dict[str, Any], str]]:
    """Some questions of SynthRef, with what is answered in process."""
    settings, found = GenerationSettings(max_new_tokens=STORM_TOKENS), []
    for scene in range(6):
        sample = SynthRef("val").samples(scene)[0]
        messages = here.codec.messages(sample.phrase)
        [reply] = here.backend.generate([here.backend.make_request(messages, sample.image)], settings)  # type: ignore[arg-type]
        parts = [
            {"type": "image_url", "image_url": {"url": data_url(sample.image)}}  # type: ignore[arg-type]
            if part["type"] == "image"
            else part
            for part in messages[-1]["content"]
        ]
        turns = [*messages[:-1], {"role": "user", "content": parts}]
        body = {"model": NAME, "messages": turns, "temperature": 0, "max_tokens": STORM_TOKENS}
        found.append((body, reply.text))
    return found


def storm(options: argparse.Namespace, here: Grounder) -> int:
    """Let it storm; returns how many requests were lost or wrong, and one more for an end that was not clean."""
    outcomes: dict[str, Counter[str]] = {}
    with server(options, "--queue", str(options.queue), "--grace", "20") as (child, place):
        weather = Storm(place, questions(here))
        for body, _ in weather.questions:
            ask(place, "/v1/chat/completions", body)
        memory = [rss(child)]
        start = time.perf_counter()
        with ThreadPoolExecutor(options.concurrency) as pool:
            for part in (range(options.storm // 2), range(options.storm // 2, options.storm)):
                for kind, outcome in pool.map(weather.run, part, itertools.repeat(options.seed)):
                    outcomes.setdefault(kind, Counter())[outcome] += 1
                memory.append(rss(child))
            seconds = time.perf_counter() - start
            for kind, counts in sorted(outcomes.items()):
                busy = f"; told to come again {weather.busy[kind]} times" if weather.busy[kind] else ""
                print(f"{kind:<14}", ", ".join(f"{name} {count}" for name, count in counts.most_common()) + busy)
            print(f"{options.storm} requests of {options.concurrency} clients in {seconds:.0f} s")
            print("memory in MB before, half way, after:", *(f"{value:.0f}" for value in memory))
            health = ask(place, "/health")[0]
            body = {**weather.questions[0][0], "max_tokens": 200}
            last = [pool.submit(weather.read, {**body, "stream": True}, until=b"[DONE]") for _ in range(8)]
            while not any(future.running() for future in last) or _connections(child) < 2:
                time.sleep(0.05)
            child.send_signal(signal.SIGTERM)
            ends = Counter(_end(future.result()) for future in last)
        code = child.wait(60)
    print(f"told to end under load: exit code {code}; streams: {dict(ends)}")
    wrong = sum(count for counts in outcomes.values() for name, count in counts.items() if name != "as it should")
    return wrong + (code != 0) + (health != 200) + ends["cut off"]


def _connections(child: subprocess.Popen[str]) -> int:
    return sum(str(link.readlink()).startswith("socket:") for link in Path(f"/proc/{child.pid}/fd").iterdir())


def _end(content: bytes) -> str:
    if b"[DONE]" in content:
        return "finished"
    return "told 503" if b'"code": 503' in content or b"503" in content[:20] else "cut off" if content else "not begun"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="egm-tiny", help="egm-tiny or a model folder")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--concurrency", type=int, default=16, help="clients at once")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS)
    parser.add_argument("--scenes", type=int, help="only the first scenes of each split, about four samples each")
    parser.add_argument("--max-tokens", type=int, default=640)
    parser.add_argument("--storm", type=int, default=2000, metavar="N", help="requests of the storm; 0 leaves it out")
    parser.add_argument("--queue", type=int, default=16, help="most that wait in the storm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--storm-only", action="store_true", help="leave parity out")
    options = parser.parse_args()
    settings = GenerationSettings(max_new_tokens=options.max_tokens)
    place = {"device": options.device, "dtype": options.dtype, "batch_size": options.batch_size}
    with Grounder.load(options.model, settings=settings, **place) as here:
        print(f"{options.model} through {type(here.backend).__name__}, {options.device}, {options.dtype}")
        other = 0 if options.storm_only else parity(options, here)
        wrong = storm(options, here) if options.storm else 0
    print(f"{other} texts differ; {wrong} requests lost or wrong")
    return 1 if wrong or (other and options.dtype in ("auto", "float32")) else 0


if __name__ == "__main__":
    sys.exit(main())
