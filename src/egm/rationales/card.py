"""The data card of a run: what was asked of whom, what was kept and why the rest was not, and what it cost."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from egm.failures import COMPLEX_AT, PhraseFacts, phrase_facts
from egm.rationales.blind import NAME, REASON
from egm.rationales.filters import filter_reasons
from egm.rationales.run import RationaleRun
from egm.rationales.tally import cost_text
from egm.terminal import printable


def data_card(run: RationaleRun, files: Mapping[str, str], pictures: str) -> str:
    """Write the card as Markdown.

    Args:
        run: The run.
        files: SHA-256 of each file that was written, by its name.
        pictures: Folder that the rows' pictures are relative to; nothing where none is known.
    """
    identity, about = run.header["identity"], run.header["about"]
    data, phrases = identity["data"], [phrase_facts(each.sample.phrase) for _, each in run.kept]
    parts = [
        f"# Rationales for {_code(data['name'])}",
        f"Reasoning that leads from a phrase to its box, written by {_code(identity['teacher']['model'])} in the style "
        f"{_code(identity['style']['name'])}, with `egm rationales` {identity['egm']}.",
        *_shard(identity),
        "## Counts",
        _table(("", "samples"), _counts(run)),
        "Tries that each filter spoke against; several may speak against one.",
        _table(("filter", "drops what", "tries"), _filters(run)),
        "## What was kept",
        _table(("", "mean", "least", "median", "most"), _lengths(run, phrases)),
        _complexity(phrases),
        "## Cost",
        _cost(run),
        "## How it was made",
        "Teacher:",
        _json(identity["teacher"]),
        "Blind check: " + ("none." if identity["blind"] is None else ""),
        *([] if identity["blind"] is None else [_json(identity["blind"])]),
        f"Filters, at most {identity['tries']} tries a sample:",
        _json(identity["filters"]),
        f"Convention of questions and targets: {_code(identity['codec']['name'])}.",
        *_prompt(about["style"]),
        "## Files",
        f"Pictures are named relative to {_code(pictures)}." if pictures else "Pictures are named as in the dataset.",
        _table(("file", "SHA-256"), [(_code(name), _code(digest)) for name, digest in files.items()]),
        _table(("", ""), _hashes(identity)),
        "Versions: " + ", ".join(f"{name} {version}" for name, version in about["versions"].items()) + ".",
        "Started " + about["started"] + " by",
        _fenced(" ".join(about["command"])),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _shard(identity: Mapping[str, Any]) -> list[str]:
    if (shard := identity.get("shard")) is None:
        return []
    whole = f"shard {shard['number']}/{shard['count']} of the pictures, of {shard['of']['n']:,} samples in all"
    return [
        f"This is {whole}. What is kept here was compared with nothing that other shards kept; `egm rationales merge` "
        "does that."
    ]


def _counts(run: RationaleRun) -> list[tuple[str, str]]:
    tally = run.tally
    left = tally.total - tally.done
    rows = [
        ("kept", tally.kept),
        ("dropped after all tries", tally.dropped - tally.unasked),
        ("dropped without being asked, as their pictures are evaluated on", tally.unasked),
        ("without an answer, to be asked again", tally.failed),
        ("not asked" if run.stopped is None else f"not asked, as {printable(run.stopped)}", left),
        ("all", tally.total),
    ]
    return [(name, f"{count:,}") for name, count in rows if count or name in ("kept", "all")]


def _filters(run: RationaleRun) -> list[tuple[str, str, str]]:
    reasons = filter_reasons() | {NAME: REASON}
    names = list(run.header["identity"]["filters"]) + ([NAME] if run.header["identity"]["blind"] is not None else [])
    found = [(name, reasons.get(name, ""), f"{run.tally.by_filter[name]:,}") for name in names]
    return [*found, ("all tries", "", f"{run.tally.tries:,}")]


def _lengths(run: RationaleRun, phrases: Sequence[PhraseFacts]) -> list[tuple[str, ...]]:
    if not run.kept:
        return []
    words = [len(each.text.split()) for _, each in run.kept]
    return [
        ("words of a rationale", *_spread(words)),
        ("words of its phrase", *_spread([phrase.words for phrase in phrases])),
    ]


def _spread(values: Sequence[int]) -> tuple[str, ...]:
    ordered = sorted(values)
    middle = ordered[len(ordered) // 2]
    return (f"{sum(values) / len(values):.1f}", *(str(value) for value in (ordered[0], middle, ordered[-1])))


def _complexity(phrases: Sequence[PhraseFacts]) -> str:
    if not phrases:
        return ""
    levels = Counter(phrase.count for phrase in phrases)
    listed = ", ".join(f"{level}: {count:,}" for level, count in sorted(levels.items()))
    complex_ones = sum(count for level, count in levels.items() if level >= COMPLEX_AT)
    return (
        f"{100 * complex_ones / len(phrases):.1f} % of the phrases are complex, with {COMPLEX_AT} or more relations, "
        f"ordinals, superlatives and negations together ({listed})."
    )


def _cost(run: RationaleRun) -> str:
    spending = run.tally.spending
    if not spending.tokens:
        return f"{spending.calls:,} calls, which took no tokens."
    text = (
        f"{spending.calls:,} calls: {cost_text(spending)} ({spending.prompt:,} read, {spending.completion:,} written)."
    )
    if spending.lost:
        text += f" {spending.lost:,} of the tokens brought no answer."
    if spending.uncounted:
        text += (
            f" The server did not count {spending.uncounted:,} of them: the most that they may have taken is counted."
        )
    return text


def _prompt(style: Mapping[str, Any] | None) -> list[str]:
    if style is None:
        return []
    if style["asks"] == "grounding":
        return [f"{style['about']} The teacher was asked the family's own question."]
    return [style["about"] + " The teacher was asked:", _fenced(style["prompt"])]


def _hashes(identity: Mapping[str, Any]) -> list[tuple[str, str]]:
    hashes = {"data, in its order": identity["data"]["digest"], "data, in any order": identity["data"]["questions"]}
    return [(name, _code(value)) for name, value in (hashes | {"style": identity["style"]["digest"]}).items() if value]


def _json(value: Any) -> str:
    return _fenced(json.dumps(value, indent=2, ensure_ascii=False))


def _fenced(text: str) -> str:
    lines = "\n".join(line[: len(line) - len(line.lstrip())] + printable(line) for line in text.strip().splitlines())
    fence = "`" * max(3, _longest_ticks(lines) + 1)
    return f"{fence}\n{lines}\n{fence}"


def _code(text: str) -> str:
    plain = printable(str(text))
    fence = "`" * (_longest_ticks(plain) + 1)
    return f"{fence}{plain}{fence}"


def _longest_ticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    ruler = ["---:" if cell[:1].isdigit() else "---" for cell in rows[-1]]
    cells = ([cell.replace("|", "\\|") for cell in row] for row in chain([head, ruler], rows))
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
