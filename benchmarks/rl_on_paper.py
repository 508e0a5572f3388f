"""EGM-8B's reinforcement as published, worked out on paper from rates measured elsewhere: needs no GPU.

    python benchmarks/rl_on_paper.py

Prints the tables of docs/scaling.md. Every number that is put in stands in `KNOWN` with its kind and its source; all
others are computed from these by the functions below. What is measured was measured on one GPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from egm.models.costs import cost_model


@dataclass(frozen=True, slots=True)
class Known:
    """A number that is put in.

    Attributes:
        value: The number.
        what: What it is, with its unit.
        kind: measured (here), published, or assumed.
        source: By what command on what and when, or where.
    """

    value: float
    what: str
    kind: str
    source: str


_CODE = "github.com/zgq1879/EGM, d8ca4cc, verl/scripts/grounding_qwen.sh"
_SERVING = "benchmarks/serving.py, vLLM 0.26.0, one H200, 29 November 2026"
_MLPERF = "MLPerf Inference v4.1, systems/H200-SXM-141GBx8_TRT_MaxQ.json"

KNOWN = {
    "prompts": Known(256, "questions a step", "published", _CODE),
    "group": Known(16, "completions a question", "published", _CODE),
    "limit": Known(2048, "tokens of a completion at most", "published", _CODE),
    "pass": Known(25_600, "tokens of a pass of the trainer on one GPU", "published", _CODE),
    "epochs": Known(3, "times through the data", "published", _CODE),
    "rows": Known(
        120_624, "questions: RefCOCO's; which were used is not published", "assumed", "recipes/egm-8b-grpo.yaml"
    ),
    "answer": Known(101, "tokens of a completion on average", "published", "arXiv 2601.13633"),
    "question": Known(329, "tokens of a question, 300 of them a picture of 640 x 480", "measured", _SERVING),
    "alone": Known(0.592, "seconds of an answer of 101 tokens, one at a time", "measured", _SERVING),
    "first": Known(0.078, "seconds to its first token", "measured", _SERVING),
    "at 8": Known(9.7, "answers a second, 8 at once", "measured", _SERVING),
    "at 64": Known(33.2, "answers a second, 64 at once", "measured", _SERVING),
    "kernel 64": Known(
        6.02, "ms a token, 64 at once, in process", "measured", "benchmarks/decode_floor.py, one H200, 30 November 2026"
    ),
    "copy": Known(
        4.25e12, "bytes a second of a copy", "measured", "benchmarks/decode_floor.py, one H200, 30 November 2026"
    ),
    "peak": Known(989e12, "operations a second, dense bfloat16", "published", "NVIDIA's data sheet of H100 and H200"),
    "trained": Known(
        12.19,
        "samples a second, 8B but for its vision tower, forward, forward again, backward, step",
        "measured",
        "benchmarks/sft_8b.py --batch 8, one H100 80GB, 25 November 2026",
    ),
    "rewarded": Known(
        45_000, "completions a second, read and rewarded", "measured", "benchmarks/rewards.py, one core of an AMD EPYC"
    ),
    "weights": Known(8_767_123_696, "weights, vision tower included", "measured", "egm.models.build_model('8B')"),
    "nvlink": Known(
        450e9,
        "bytes a second in one direction between GPUs of a machine",
        "published",
        f"{_MLPERF}: 900 GB/s both ways",
    ),
    "card": Known(
        50e9, "bytes a second of a network card, of which each GPU has one", "published", f"{_MLPERF}: 400 Gb/s"
    ),
}

GPUS = (8, 16, 32, 64, 128, 256, 512)
MACHINE = 8  # GPUs
LONGEST = (512, 2048)  # tokens of the longest completion of a step
PASSES = 4  # of a sample in the measured training: forward, forward again, and backward, which takes two


def k(name: str) -> float:
    """Return a number that is put in."""
    return KNOWN[name].value


def completions() -> float:
    """Completions of a step."""
    return k("prompts") * k("group")


def steps() -> int:
    """Steps of the whole run; what is left over at the end of an epoch is dropped."""
    return int(k("epochs")) * int(k("rows") // k("prompts"))


def wave(at_once: float) -> float:
    """Seconds in which a GPU answers so many questions at once.

    They lie on lines between what was measured; beyond 64 the last rate holds.
    """
    points = [(1.0, k("alone")), (8.0, 8 / k("at 8")), (64.0, 64 / k("at 64"))]
    if at_once >= points[-1][0]:
        return at_once / k("at 64")
    for (left, low), (right, high) in pairwise(points):
        if at_once <= right:
            return low + (high - low) * (at_once - left) / (right - left)
    raise AssertionError


def floor(at_once: float) -> float:
    """Seconds a token of so many at once, in the middle of an answer.

    It is the longer of two: bytes over the rate of a copy, operations over the peak.
    """
    model = cost_model("8B")
    assert model is not None
    step = model.pass_over(1, k("question") + k("answer") / 2, scored=1, at_once=math.ceil(at_once))
    return max(at_once * step.bytes / k("copy"), at_once * step.operations / k("peak"))


def look_and_read() -> float:
    """Seconds at the peak of a picture's vision tower and of its question's tokens."""
    model = cost_model("8B")
    assert model is not None
    question = int(k("question"))
    cost = model.look((640, 480)) + model.pass_over(question, question, scored=1)
    return cost.operations / k("peak")


def token_alone() -> float:
    """Seconds a token of an answer that has the GPU for itself."""
    return (k("alone") - k("first")) / (k("answer") - 1)


def tail(longest: int) -> float:
    """Seconds for which a step waits for its longest completion, when all others have ended."""
    return (longest - k("answer")) * token_alone()


def link(gpus: int) -> float:
    """Bytes a second at which a GPU gets what is spread over all: over NVLink, or over the cards that a machine has."""
    return k("nvlink") if gpus <= MACHINE else min(k("nvlink"), MACHINE * k("card"))


def gather(gpus: int) -> float:
    """Seconds to bring all weights, in bfloat16, to each GPU."""
    return 2 * k("weights") * (1 - 1 / gpus) / link(gpus)


def passes(gpus: int) -> int:
    """Passes of a step on a GPU."""
    return math.ceil(completions() / gpus * (k("question") + k("answer")) / k("pass"))


def log_probabilities(gpus: int) -> float:
    """Seconds of one model's forward pass over all completions."""
    return max(completions() / gpus / (PASSES * k("trained")), passes(gpus) * gather(gpus))


def update(gpus: int) -> float:
    """Seconds of the update: each pass gathers the weights twice and scatters gradients in float32, meanwhile."""
    return max(completions() / gpus / k("trained"), passes(gpus) * 4 * gather(gpus))


def parts(gpus: int, longest: int) -> dict[str, float]:
    """Seconds of each part of a step."""
    return {
        "rollouts": wave(completions() / gpus),
        "waiting for the longest completion": tail(longest),
        "reward": completions() / k("rewarded"),
        "log-probabilities of the actor": log_probabilities(gpus),
        "log-probabilities of the reference": log_probabilities(gpus),
        "update": update(gpus),
        "weights to the engines": gather(gpus),
    }


@dataclass(frozen=True, slots=True)
class Apart:
    """A step whose rollouts go on while is trained.

    Attributes:
        drawing: GPUs of the engines.
        seconds: Of a step.
    """

    drawing: int
    seconds: float

    @property
    def under_way(self) -> float:
        """Completions that are being written at any time."""
        return 64 * self.drawing

    def versions(self, longest: int) -> float:
        """How many steps are taken while the longest completion is written, among 64."""
        return longest * wave(64) / k("answer") / self.seconds


def apart(gpus: int) -> Apart:
    """Share GPUs between engines and trainer so that a step is shortest; weights go out over one card a machine."""
    sent = 2 * k("weights") / (k("nvlink") if gpus <= MACHINE else k("card"))

    def seconds(drawing: int) -> float:
        trained = 2 * log_probabilities(gpus - drawing) + update(gpus - drawing)
        return max(completions() / (drawing * k("at 64")), trained) + sent

    return min((Apart(drawing, seconds(drawing)) for drawing in range(1, gpus)), key=lambda found: found.seconds)


def table(head: str, rows: Iterable[str]) -> str:
    """Write a table whose cells are parted by ` | `."""
    lines = [f"| {line} |".replace("  ", " ") for line in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head.split(" | ")), *lines[1:]])


def known_table() -> str:
    """Make the table of what is put in."""

    def row(one: Known) -> str:
        value = f"{one.value:.4g}" if one.value > 1e9 else f"{one.value:,g}"
        return f"{value} | {one.what} | {one.kind} | {one.source}"

    return table("number | what | kind | source", map(row, KNOWN.values()))


def decoding_table() -> str:
    """Make the table of what a GPU writes in a second."""

    def row(at_once: int) -> str:
        rate, each = f"{at_once / wave(at_once):.1f}", f"{1000 * wave(at_once) / k('answer'):.1f}"
        measured = f"{rate} | {each}" if at_once <= 64 else " | "
        ours = f"{k('kernel 64'):.2f}" if at_once == 64 else ""
        whole = k("answer") * floor(at_once) + at_once / k("group") * look_and_read()
        return f"{at_once} | {measured} | {ours} | {1000 * floor(at_once):.2f} | {at_once / whole:.3g}"

    head = "at once | vLLM, answers/s | vLLM, ms a token | kernels in process, ms | floor, ms | answers/s at the floor"
    return table(head, map(row, (1, 8, 64, 512)))


def step_table() -> str:
    """Make the table of a step's parts on 8 GPUs, and of the run."""
    found = parts(MACHINE, LONGEST[-1])
    total = sum(found.values())
    rows = [f"{name} | {seconds:.2f} | {seconds / total:.1%}" for name, seconds in found.items()]
    rows += [f"a step | {total:.1f} | ", f"{steps():,} steps | {steps() * total / 3600:.1f} hours | "]
    return table("part | seconds on 8 GPUs | share", rows)


def scaling_table() -> str:
    """Make the table of a step on more and more GPUs."""
    eight = MACHINE * sum(parts(MACHINE, LONGEST[-1]).values())

    def row(gpus: int) -> str:
        short, total = (sum(parts(gpus, longest).values()) for longest in LONGEST)
        rollouts, longest, _, *log_probabilities, update, weights = parts(gpus, LONGEST[-1]).values()
        shown = " | ".join(f"{seconds:.1f}" for seconds in (rollouts, longest, sum(log_probabilities), update))
        hours, kept = steps() * total / 3600, eight / (total * gpus)
        whole = f"{weights:.2f} | {total:.1f} | {hours:.1f} | {kept:.0%} | {short:.1f}"
        return f"{gpus} | {completions() / gpus:.0f} | {shown} | {whole}"

    head = "GPUs | completions a GPU | rollouts | longest | log-probabilities | update | weights | a step | hours"
    return table(f"{head} | rate a GPU | a step, longest {LONGEST[0]}", map(row, GPUS))


def apart_table() -> str:
    """Make the table of rollouts beside training."""

    def row(gpus: int) -> str:
        split, together = apart(gpus), sum(parts(gpus, LONGEST[-1]).values())
        faster, spanned = together / split.seconds, split.versions(LONGEST[-1])
        shared = f"{gpus} | {split.drawing} | {gpus - split.drawing}"
        return f"{shared} | {split.seconds:.1f} | {faster:.1f} | {split.under_way:,.0f} | {spanned:.1f}"

    head = "GPUs | for rollouts | for training | a step | times as fast | completions under way"
    return table(f"{head} | versions that {LONGEST[-1]:,} tokens span", map(row, GPUS))


def tables() -> list[str]:
    """Make the tables of the page."""
    return [known_table(), decoding_table(), step_table(), scaling_table(), apart_table()]


if __name__ == "__main__":
    print("\n\n".join(tables()))
