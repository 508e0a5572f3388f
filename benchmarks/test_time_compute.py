"""What more tokens at test time buy: votes, votes that stop early, and thinking budgets, on SynthRef.

uv run python benchmarks/test_time_compute.py egm-tiny --split test-complex --scenes 100 --out runs/test_time_compute

One greedy run, one run of the most votes, and one greedy run a budget. Fewer votes are the first of the many, and early
stops are replayed on them by the rule that a model is asked by, so that all rows stand on the same samples. Prints
accuracy against tokens (those of all votes together) and how well agreement tells right answers from wrong ones, and
writes `results.json`, `tokens.png` and `reliability.png`. Intervals are of 95 %, by picture.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from egm import reliability, stats
from egm.backends import CARD_SETTINGS, GenerationSettings
from egm.boxes import Box
from egm.consensus import Consensus, consensus, poll
from egm.datasets.synthetic import SynthRef
from egm.errors import EgmError
from egm.files import write_bytes, write_text
from egm.grounder import GroundedCompletion, Grounder
from egm.scoring import score
from egm.types import Failure, Sample


@dataclass(frozen=True)
class Point:
    """One way of answering: `scores` by name are what might tell right answers from wrong ones."""

    name: str
    right: np.ndarray
    tokens: np.ndarray
    scores: dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="egm-tiny")
    parser.add_argument("--server", help="ask MODEL on an OpenAI-compatible server that tells log-probabilities")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--split", default="test-complex")
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--votes", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--stop", type=float, nargs="+", default=[0.8, 0.95, 1.0])
    parser.add_argument("--budgets", type=int, nargs="+", default=[8, 16, 32, 64, 96, 128, 192, 256])
    parser.add_argument("--temperature", type=float, default=CARD_SETTINGS.temperature)
    parser.add_argument("--top-p", type=float, default=CARD_SETTINGS.top_p)
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/test_time_compute"))
    options = parser.parse_args()

    samples = list(SynthRef(options.split, scenes=options.scenes))
    clusters = stats.codes([id(sample.image) for sample in samples])
    greedy = GenerationSettings(max_new_tokens=options.max_tokens)
    sampled = replace(greedy, temperature=options.temperature, top_p=options.top_p, seed=options.seed)
    grounder = load(options)
    print(
        f"{grounder.backend.model}, {options.split}: {len(samples)} phrases, {clusters.max() + 1} pictures", flush=True
    )

    plain = run(grounder, samples, greedy)
    points = [point("greedy", samples, plain)]
    ballots = run(grounder, samples, replace(sampled, votes=max(options.votes)))
    points += [voted(f"votes {n}", samples, [of(ballot, n) for ballot in ballots]) for n in options.votes]
    points += [voted(f"stop at {c:g}", samples, [stopped(ballot, c) for ballot in ballots]) for c in options.stop]
    for k in options.budgets:
        answers = run(grounder, samples, replace(greedy, thinking_budget=k))
        points += [point(f"budget {k}", samples, answers)]

    rows = [row(item, clusters, points[0]) for item in points]
    print(f"\n{'':14}{'Acc@0.5':>24}{'minus greedy':>26}{'tokens':>10}")
    for item in rows:
        print(f"{item['name']:14}{span(item['accuracy']):>24}{span(item['gain']):>26}{item['tokens']:10.0f}")
    telling = [entry for item in points for entry in tells(item, clusters)]
    print(f"\n{'':14}{'score':16}{'AUROC for being right':>28}{'ECE':>8}")
    for item in telling:
        error = "-" if item["ece"] is None else f"{item['ece']:.3f}"
        print(f"{item['name']:14}{item['score']:16}{span(item['auroc'], 1, 3):>28}{error:>8}")
    options.out.mkdir(parents=True, exist_ok=True)
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    write_text(options.out / "results.json", json.dumps({"options": asked, "rows": rows, "tells": telling}, indent=2))
    draw(options.out, rows, next(item for item in points if item.name == f"votes {max(options.votes)}"))


def load(options: argparse.Namespace) -> Grounder:
    if options.server:
        return Grounder.connect(options.server, options.model, concurrency=options.batch_size or 64, logprobs=True)
    return Grounder.load(options.model, device=options.device, batch_size=options.batch_size)


def run(grounder: Grounder, samples: Sequence[Sample], settings: GenerationSettings) -> list[GroundedCompletion]:
    grounder.settings = settings
    answers = []
    for answer in grounder.answer_each(enumerate(samples)):
        if isinstance(answer, EgmError):
            raise answer
        answers.append(answer)
    return answers


def box(vote: GroundedCompletion) -> Box | Failure:
    found = vote.grounding.box or vote.grounding.failure
    assert found is not None
    return found


def votes_of(ballot: GroundedCompletion) -> Sequence[GroundedCompletion]:
    """All votes of an answer; one that was not voted on is its own."""
    return ballot.votes or (ballot,)


def of(ballot: GroundedCompletion, count: int) -> tuple[Sequence[GroundedCompletion], Consensus]:
    votes = votes_of(ballot)[:count]
    return votes, consensus([box(vote) for vote in votes])


def stopped(ballot: GroundedCompletion, level: float) -> tuple[Sequence[GroundedCompletion], Consensus]:
    counting = poll(len(votes_of(ballot)), level)
    more, taken = next(counting), 0
    while True:
        latest = votes_of(ballot)[taken : taken + more]
        taken += more
        try:
            more = counting.send([box(vote) for vote in latest])
        except StopIteration as end:
            return votes_of(ballot)[:taken], end.value


def point(name: str, samples: Sequence[Sample], answers: Sequence[GroundedCompletion]) -> Point:
    right = np.array([score(a.grounding, s.box).hit() for a, s in zip(answers, samples, strict=True)], dtype=float)
    tokens = np.array([a.completion.completion_tokens for a in answers], dtype=float)
    return Point(name, right, tokens, logprobs(answers))


def voted(
    name: str, samples: Sequence[Sample], results: Sequence[tuple[Sequence[GroundedCompletion], Consensus]]
) -> Point:
    chosen = [votes[found.chosen] for votes, found in results]
    plain = point(name, samples, chosen)
    tokens = np.array([sum(vote.completion.completion_tokens for vote in votes) for votes, _ in results], dtype=float)
    scores = dict(plain.scores)
    if any(found.votes > 1 for _, found in results):
        scores["agreement"] = np.array([found.agreement for _, found in results])
    return Point(name, plain.right, tokens, scores)


def logprobs(answers: Sequence[GroundedCompletion]) -> dict[str, np.ndarray]:
    named = {
        "logprob": [answer.completion.logprob for answer in answers],
        "answer logprob": [answer.completion.answer_logprob for answer in answers],
    }
    return {name: np.array(values) for name, values in named.items() if None not in values}


def row(item: Point, clusters: Any, base: Point) -> dict[str, Any]:
    gain = stats.paired_difference(base.right, item.right, clusters).analytic
    accuracy = stats.cluster_mean(item.right, clusters)
    return {
        "name": item.name,
        "accuracy": asdict(accuracy),
        "gain": asdict(gain),
        "tokens": float(item.tokens.mean()),
    }


def tells(item: Point, clusters: Any) -> list[dict[str, Any]]:
    if item.right.all() or not item.right.any():
        return []
    return [
        {
            "name": item.name,
            "score": name,
            "auroc": asdict(stats.auroc(values, item.right, clusters)),
            "ece": reliability.calibration_error(
                values if name == "agreement" else np.exp(np.minimum(values, 0.0)), item.right
            ),
        }
        for name, values in item.scores.items()
    ]


def span(estimate: dict[str, Any], scale: float = 100, digits: int = 1) -> str:
    value, low, high = (estimate[name] * scale for name in ("value", "low", "high"))
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def line(rows: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the rows of a kind as a line takes them: by tokens, of which a greater budget may well use fewer."""
    return sorted((entry for entry in rows if entry["name"].startswith(kind)), key=lambda entry: entry["tokens"])


def draw(folder: Path, rows: Sequence[dict[str, Any]], item: Point) -> None:
    import io

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    def save(figure: Any, name: str) -> None:
        stream = io.BytesIO()
        figure.savefig(stream, dpi=150, bbox_inches="tight", metadata={"Software": None})
        write_bytes(folder / name, stream.getvalue())
        plt.close(figure)

    figure, axes = plt.subplots(figsize=(6, 4))
    alone = {"color": "black", "markersize": 14, "markerfacecolor": "gold", "zorder": 5}  # one vote lies beneath it
    for kind, marker in (("votes", "o"), ("stop", "s"), ("budget", "^"), ("greedy", "*")):
        own = line(rows, kind)
        values = np.array([[entry["accuracy"][name] for name in ("value", "low", "high")] for entry in own]) * 100
        values = values.reshape(-1, 3)
        reach = np.abs(values[:, 1:] - values[:, :1]).T
        look = alone if kind == "greedy" else {}
        axes.errorbar(
            [entry["tokens"] for entry in own], values[:, 0], reach, fmt=marker + "-", capsize=2, label=kind, **look
        )
    axes.set(xscale="log", xlabel="tokens a phrase, all votes together", ylabel="Acc@0.5 (%)")
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, "tokens.png")

    figure, axes = plt.subplots(figsize=(4.5, 4.5))
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--")
    for name, values in item.scores.items():
        shares = values if name == "agreement" else np.exp(np.minimum(values, 0.0))
        found = reliability.reliability(shares, item.right)
        axes.plot([b.confidence for b in found], [b.accuracy for b in found], alpha=0.5)
        axes.scatter(
            [b.confidence for b in found],
            [b.accuracy for b in found],
            [8 + 300 * b.rows / len(item.right) for b in found],
            label=name if name == "agreement" else f"exp({name})",
        )
    axes.set(xlabel="confidence", ylabel="share right (IoU >= 0.5)", xlim=(0, 1.02), ylim=(0, 1.02), title=item.name)
    axes.grid(alpha=0.3)
    legend = axes.legend(loc="upper left")
    for handle in legend.legend_handles:
        handle.set_sizes([40])
    save(figure, "reliability.png")


if __name__ == "__main__":
    main()
