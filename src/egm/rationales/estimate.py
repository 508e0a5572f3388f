"""Before anything is paid for: one whole request as it would be sent, and what the run would take."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from egm.backends.openai.messages import body
from egm.datasets.dataset import Dataset
from egm.evaluate.plan import plan_samples
from egm.evaluate.shards import Shard
from egm.questions import ImageCache, load_question
from egm.rationales.prices import Spending
from egm.rationales.styles import TeacherStyle
from egm.rationales.teachers import LoadedSample, ModelTeacher, most_tokens, with_size

LOOKED_AT: Final = 20
"""Samples whose requests an estimate is made from."""
TOKENS_A_WORD: Final = 4 / 3
"""Tokens of an English word, about."""
_DATA_URL = re.compile(r"data:(image/\w+);base64,([A-Za-z0-9+/=]*)")


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """What a run would take.

    Attributes:
        request: One whole request as JSON, its picture by size.
        lines: What it would take, in sentences.
    """

    request: str
    lines: Sequence[str]


def estimate_run(
    dataset: Dataset,
    teacher: ModelTeacher,
    style: TeacherStyle,
    spending: Spending,
    *,
    tries: int,
    blind: str | None,
    shard: Shard | None = None,
) -> RunEstimate:
    """Write one request, and estimate what all of them take; nothing is sent.

    Args:
        dataset: What would be explained.
        teacher: Who would explain.
        style: How it would be asked.
        spending: Budget and prices.
        tries: Most tries a sample.
        blind: The model of the blind check, if there is one.
        shard: Estimate this shard alone.
    """
    planned, _ = plan_samples({dataset.name: dataset})
    planned = planned if shard is None else list(shard.take(planned).values())
    cache, read, written = ImageCache(), [], 0
    first: dict[str, Any] | None = None
    for item in islice(planned, LOOKED_AT):
        question = load_question(item.seed_index, item.load(), cache)
        loaded = LoadedSample(with_size(item.sample, question.image), item.seed_index, question.image, question.source)
        request, _ = teacher.request(loaded)
        tokens = most_tokens(request, teacher.settings)
        read.append(tokens[0])
        written = tokens[1]
        if first is None:
            first = body(request, teacher.settings, model=teacher.name)
            shown = f"{question.image.width} x {question.image.height} px"
    total, prompt = len(planned), round(sum(read) / len(read))
    answer = min(written, round(sum(style.words) / 2 * TOKENS_A_WORD))
    lines = [
        f"{total:,} samples: {total:,} calls to {teacher.name}, up to {total * tries:,} where all of {tries} tries are "
        f"dropped; about {prompt:,} tokens read a call, and {answer:,} written (at most {written:,})",
        _cost("without a second try", spending, teacher.name, total, prompt, answer),
        _cost("at most", spending, teacher.name, total * tries, prompt, written),
    ]
    if blind is not None:
        lines.append(f"the blind check is one more call, to {blind}, for each answer that passes the filters")
    if spending.budget is not None:
        lines.append(f"the run ends before it would take more than {spending.budget}")
    return RunEstimate(_without_pictures(json.dumps(first, indent=2, ensure_ascii=False), shown), lines)


def _cost(when: str, spending: Spending, model: str, calls: int, prompt: int, completion: int) -> str:
    tokens = calls * (prompt + completion)
    if spending.prices is None:
        return f"{when}: {tokens:,} tokens"
    money = spending.price(model, calls * prompt, calls * completion)
    return f"{when}: {tokens:,} tokens, {money:,.2f} {spending.prices.currency}"


def _without_pictures(text: str, size: str) -> str:
    """Show pictures by their type, their size in pixels and in bytes."""

    def shown(found: re.Match[str]) -> str:
        count = len(found[2]) * 3 // 4 - found[2].count("=")
        return f"({found[1]}, {size}, {count:,} bytes)"

    return _DATA_URL.sub(shown, text)
