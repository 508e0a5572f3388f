"""Counts of a server that cannot be are unknown, and no other is."""

from __future__ import annotations

from typing import Any

import pytest

from egm.backends.openai.usage import read_usage
from egm.records import Record

TEXT = "It is on the left.</think>[100, 200, 300, 400]"

KEPT: dict[str, tuple[dict[str, Any], tuple[int | None, int | None, int | None]]] = {
    "all": (
        {"prompt_tokens": 7, "completion_tokens": 30, "total_tokens": 37, "reasoning_tokens": 20},
        (7, 30, 20),
    ),
    "no total": ({"prompt_tokens": 7, "completion_tokens": 30}, (7, 30, None)),
    "all of it thought": ({"completion_tokens": 30, "reasoning_tokens": 30}, (None, 30, 30)),
    "more than is shown, within the limit": ({"completion_tokens": 1000, "reasoning_tokens": 990}, (None, 1000, 990)),
    "more than the limit, a little": ({"completion_tokens": 60}, (None, 60, None)),
    "one token": ({"prompt_tokens": 7, "completion_tokens": 1}, (7, 1, None)),
    "details": ({"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 5}}, (None, 9, 5)),
    "zeros": ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (None, None, None)),
}


@pytest.mark.parametrize(("fields", "usage"), KEPT.values(), ids=KEPT)
def test_what_may_be_is_kept(fields: dict[str, Any], usage: tuple[int | None, ...]) -> None:
    assert read_usage(fields, text=TEXT, max_tokens=1000) == usage


WRONG: dict[str, tuple[dict[str, Any], str, int | None]] = {
    "more thought than written": ({"completion_tokens": 30, "reasoning_tokens": 500}, TEXT, 7),
    "the same in details": (
        {"completion_tokens": 30, "completion_tokens_details": {"reasoning_tokens": 500}},
        TEXT,
        7,
    ),
    "far over the limit": ({"completion_tokens": 1_000_000}, TEXT, 7),
    "one token for a long text": ({"completion_tokens": 1}, TEXT * 9, 7),
    "a text of no token": ({"completion_tokens": 0}, TEXT * 9, 7),
    "another total": ({"completion_tokens": 30, "total_tokens": 99}, TEXT, None),
    "less in total than in part": ({"completion_tokens": 30, "total_tokens": 30}, TEXT, None),
    "no number": ({"completion_tokens": "30"}, TEXT, 7),
    "a negative number": ({"completion_tokens": -1}, TEXT, 7),
}


@pytest.mark.parametrize(("fields", "text", "prompt"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_unknown(fields: dict[str, Any], text: str, prompt: int | None) -> None:
    usage = read_usage({"prompt_tokens": 7, **fields}, text=text, max_tokens=1000)
    assert usage == (prompt, None, None)


def test_an_older_journal_shows_no_negative_answer() -> None:
    facts: dict[str, Any] = dict.fromkeys(Record.__slots__)
    facts = {name: value for name, value in facts.items() if name != "answer_tokens"}
    assert Record(**{**facts, "reasoning_tokens": 500, "completion_tokens": 30}).answer_tokens is None
