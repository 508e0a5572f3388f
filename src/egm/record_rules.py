"""What each value of a journal's lines must be: a rule a key, applied where a line is read and where it is written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from egm.errors import DataError
from egm.types import EXPECTS, Expect, Failure

ERROR: Final = "error"
"""`Record.failure` where the engine, the picture or the phrase gave an error in place of an answer."""


class Rule(NamedTuple):
    """What a value of a line must be, tested and said; of some types every value is, which saves most of the time."""

    holds: Callable[[Any], bool]
    says: str
    always: frozenset[type] = frozenset()


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any, low: float, high: float) -> bool:
    # By comparison, which takes integers of any length, and which NaN never passes.
    if type(value) is float:  # as nearly all are
        return low <= value <= high
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_count(value: Any, low: int = 0) -> bool:
    if type(value) is int:
        return low <= value <= _MOST
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= _MOST


def _is_box(value: Any) -> bool:
    if not (isinstance(value, list | tuple) and len(value) == 4):
        return False
    x1, y1, x2, y2 = value
    if not type(x1) is type(y1) is type(x2) is type(y2) is float and not all(
        _is_number(number, -_FINITE, _FINITE) for number in value
    ):
        return False
    return bool(-_FINITE <= x1 < x2 <= _FINITE and -_FINITE <= y1 < y2 <= _FINITE)


def _are_boxes(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_box, value))


def _is_size(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and _is_count(value[0], 1) and _is_count(value[1], 1)


def _is_object(value: Any) -> bool:
    """Whether it is a JSON object of a depth that all else can walk through."""
    if type(value) is dict and _PLAIN.issuperset(map(type, value.values())):  # as nearly all are
        return True
    level = [value]
    for _ in range(_DEPTH):
        if not level:
            break
        level = [
            part
            for each in level
            if isinstance(each, dict | list | tuple)
            for part in (each.values() if isinstance(each, dict) else each)
        ]
    return isinstance(value, dict) and not level


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_number(number, -_FINITE, _FINITE) for number in value.values())


def _are_datasets(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(facts, dict)
        and _is_count(facts.get("n"))
        and all(_is_text(facts.get(name, "")) for name in ("digest", "questions"))
        and _is_choice(facts.get("choice"))
        for facts in value.values()
    )


def _is_shard(value: Any) -> bool:
    known = isinstance(value, dict) and value.keys() == {"number", "count", "of"}
    return known and _is_count(value["count"], 1) and _is_count(value["number"], 1) and _are_datasets(value["of"])


def _is_choice(value: Any) -> bool:
    counts = isinstance(value, dict) and value.keys() == {"pictures", "whole", "seed"} and value.values()
    return value is None or (bool(counts) and all(map(_is_count, counts or ())))


def _or_null(rule: Rule) -> Rule:
    return Rule(rule.holds, f"{rule.says}, or null", rule.always | {type(None)})


_MOST: Final = 10**15
_FINITE: Final = sys.float_info.max
_DEPTH: Final = 40
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
_EXPECTS: Final = frozenset(EXPECTS)
_FAILURES: Final = (*map(str, Failure), ERROR)
_TEXT = Rule(_is_text, "text", frozenset({str}))
_BOOLEAN = Rule(lambda value: isinstance(value, bool), "true or false", frozenset({bool}))
_SHARE = Rule(lambda value: _is_number(value, 0, 1), "a number from 0 to 1")
_SECONDS = Rule(lambda value: _is_number(value, 0, _MOST), "a number of seconds, at least 0")
_TOKENS = _or_null(Rule(_is_count, "a whole number of at least 0"))
_ONE_OR_MORE = Rule(lambda value: _is_count(value, 1), "a whole number of at least 1")
BOX_RULE = Rule(_is_box, "four finite numbers x1, y1, x2, y2 with x2 > x1 and y2 > y1")
_BOXES = _or_null(Rule(_are_boxes, "a list of boxes, each four finite numbers x1, y1, x2, y2"))
_LOGPROB = _or_null(Rule(lambda value: _is_number(value, -_FINITE, _FINITE), "a finite number"))
_OBJECT = Rule(_is_object, f"an object of at most {_DEPTH} levels")
RECORD_RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(("id", "image", "phrase", "split", "text"), _TEXT),
    "truth": _or_null(BOX_RULE),
    **dict.fromkeys(("truths", "boxes"), _BOXES),
    "expect": Rule(lambda value: isinstance(value, str) and value in _EXPECTS, f"one of {', '.join(EXPECTS)}"),
    "confidences": _or_null(
        Rule(
            lambda value: isinstance(value, list | tuple) and all(_is_number(share, 0, 1) for share in value),
            "a list of numbers from 0 to 1",
        )
    ),
    "size": _or_null(Rule(_is_size, "width and height in whole pixels")),
    "amodal": _BOOLEAN,
    "box": _or_null(BOX_RULE),
    "failure": _or_null(Rule(lambda value: value in _FAILURES, f"one of {', '.join(_FAILURES)}")),
    "error": _or_null(_TEXT),
    "iou": _SHARE,
    "finish_reason": _or_null(_TEXT),
    **dict.fromkeys(("prompt_tokens", "reasoning_tokens", "completion_tokens", "direct_tokens"), _TOKENS),
    "seconds": _SECONDS,
    "first_token_seconds": _or_null(_SECONDS),
    "queue_seconds": _SECONDS,
    "votes": _ONE_OR_MORE,
    "confidence": _or_null(_SHARE),
    **dict.fromkeys(("logprob", "answer_logprob"), _LOGPROB),
    "thought": _or_null(_BOOLEAN),
    "certainties": _or_null(Rule(_are_numbers, "an object of finite numbers")),
    "cold": _BOOLEAN,
    "meta": _OBJECT,
}
HEADER_RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(("model", "images", "started"), _TEXT),
    "codec": Rule(lambda value: _is_object(value) and _is_text(value.get("name")), "an object with a name"),
    **dict.fromkeys(("settings", "engine"), _OBJECT),
    **dict.fromkeys(("prompt", "versions"), Rule(_are_texts, "an object of texts")),
    "datasets": Rule(_are_datasets, "an object with n, a whole number, for each split"),
    "concurrency": _ONE_OR_MORE,
    "shard": _or_null(Rule(_is_shard, "an object of number, count and, with n for each split, of")),
    "command": Rule(lambda value: isinstance(value, list) and all(map(_is_text, value)), "a list of texts"),
}


def check_values(values: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Refuse a value that is not what its rule says; keys without a rule are left to what takes the values."""
    for name, value in values.items():
        rule = rules.get(name)
        if rule is not None and type(value) not in rule.always and not rule.holds(value):
            raise DataError(f"its {name} is {show(value)}, not {rule.says}")


def check_record(values: Mapping[str, Any]) -> None:
    """Refuse a value of a record that is not what its rule says; as `check_values` does, in half of its time."""
    names = _to_test(tuple(values), tuple(map(type, values.values())))
    if not all(RECORD_RULES[name].holds(values[name]) for name in names):
        check_values(values, RECORD_RULES)


@lru_cache(64)
def _to_test(names: tuple[str, ...], types: tuple[type, ...]) -> tuple[str, ...]:
    """Which values of a record must be tested; lines of a journal mostly have the same keys with the same types."""
    rules = ((name, kind, RECORD_RULES.get(name)) for name, kind in zip(names, types, strict=True))
    return tuple(name for name, kind, rule in rules if rule is not None and kind not in rule.always)


def refuse_number(expect: Expect, true: int) -> None:
    """Refuse a question that its own truth cannot answer.

    Args:
        expect: How many boxes are asked for.
        true: How many there are.

    Raises:
        DataError: If none is there and one is expected, or several are and not all are asked for.
    """
    if (not true and expect == "one") or (true > 1 and expect != "all"):
        has, ask = ("several true boxes", "all") if true else ("no true box, as nothing matches", "any or all")
        raise DataError(f"it has {has}, and expects {expect}: ask it with expect={ask}")


def show(value: Any) -> str:
    """Show a value in a message: one line, whatever it is."""
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError):  # an integer of too many digits, or lists in lists without end
        return f"a {type(value).__name__} that is too large to show"
    return text if len(text) <= 80 else f"{text[:79]}…"
