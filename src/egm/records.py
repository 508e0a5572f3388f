"""What a journal holds: the record of a sample, and the header that says what a run is about; each value checked."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, NamedTuple

from egm.errors import DataError
from egm.types import HIT_IOU, Failure

ERROR: Final = "error"
"""`Record.failure` where the engine, the picture or the phrase gave an error in place of an answer."""
_FORMAT: Final = 1
_LATER: Final = re.compile(r"engine\.(tensors|configuration|server)|datasets\..*\.questions", re.DOTALL)
"""What journals from before lack, and cannot differ in."""
_BEFORE: Final[Mapping[str, Any]] = {"settings.stop": []}
"""What was so in journals from before that do not say it."""


class _Rule(NamedTuple):
    """What a value of a line must be, tested and said; of some types every value is, which saves most of the time."""

    holds: Callable[[Any], bool]
    says: str
    always: frozenset[type] = frozenset()


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any, low: float, high: float) -> bool:
    # By comparison, which takes integers of any length, and which NaN never passes.
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_count(value: Any, low: int = 0) -> bool:
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


def _is_size(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and _is_count(value[0], 1) and _is_count(value[1], 1)


def _is_object(value: Any) -> bool:
    """Whether it is a JSON object of a depth that all else can walk through."""
    if value == {}:
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


def _or_null(rule: _Rule) -> _Rule:
    always = rule.always | {type(None)}
    return _Rule(lambda value: value is None or rule.holds(value), f"{rule.says}, or null", always)


_MOST: Final = 10**15
_FINITE: Final = sys.float_info.max
_DEPTH: Final = 40
_FAILURES: Final = (*map(str, Failure), ERROR)
_TEXT = _Rule(_is_text, "text", frozenset({str}))
_BOOLEAN = _Rule(lambda value: isinstance(value, bool), "true or false", frozenset({bool}))
_SHARE = _Rule(lambda value: _is_number(value, 0, 1), "a number from 0 to 1")
_SECONDS = _Rule(lambda value: _is_number(value, 0, _MOST), "a number of seconds, at least 0")
_TOKENS = _or_null(_Rule(_is_count, "a whole number of at least 0"))
_ONE_OR_MORE = _Rule(lambda value: _is_count(value, 1), "a whole number of at least 1")
_BOX = _Rule(_is_box, "four finite numbers x1, y1, x2, y2 with x2 > x1 and y2 > y1")
_LOGPROB = _or_null(_Rule(lambda value: _is_number(value, -_FINITE, _FINITE), "a finite number"))
_OBJECT = _Rule(_is_object, f"an object of at most {_DEPTH} levels")
_RECORD: Final[Mapping[str, _Rule]] = {
    **dict.fromkeys(("id", "image", "phrase", "split", "text"), _TEXT),
    "truth": _BOX,
    "size": _or_null(_Rule(_is_size, "width and height in whole pixels")),
    "amodal": _BOOLEAN,
    "box": _or_null(_BOX),
    "failure": _or_null(_Rule(lambda value: value in _FAILURES, f"one of {', '.join(_FAILURES)}")),
    "error": _or_null(_TEXT),
    "iou": _SHARE,
    "finish_reason": _or_null(_TEXT),
    **dict.fromkeys(("prompt_tokens", "reasoning_tokens", "completion_tokens"), _TOKENS),
    "seconds": _SECONDS,
    "first_token_seconds": _or_null(_SECONDS),
    "queue_seconds": _SECONDS,
    "votes": _ONE_OR_MORE,
    "confidence": _or_null(_SHARE),
    **dict.fromkeys(("logprob", "answer_logprob"), _LOGPROB),
    "cold": _BOOLEAN,
    "meta": _OBJECT,
}
_HEADER: Final[Mapping[str, _Rule]] = {
    **dict.fromkeys(("model", "images", "started"), _TEXT),
    "codec": _Rule(lambda value: _is_object(value) and _is_text(value.get("name")), "an object with a name"),
    **dict.fromkeys(("settings", "engine"), _OBJECT),
    **dict.fromkeys(("prompt", "versions"), _Rule(_are_texts, "an object of texts")),
    "datasets": _Rule(_are_datasets, "an object with n, a whole number, for each split"),
    "concurrency": _ONE_OR_MORE,
    "shard": _or_null(_Rule(_is_shard, "an object of number, count and, with n for each split, of")),
    "command": _Rule(lambda value: isinstance(value, list) and all(map(_is_text, value)), "a list of texts"),
}


def _check(values: Mapping[str, Any], rules: Mapping[str, _Rule]) -> None:
    """Refuse a value that is not what its rule says; keys without a rule are left to what takes the values."""
    for name, value in values.items():
        rule = rules.get(name)
        if rule is not None and type(value) not in rule.always and not rule.holds(value):
            raise DataError(f"its {name} is {_show(value)}, not {rule.says}")


@dataclass(frozen=True, slots=True)
class Record:
    """One sample as it was asked and answered; a line of a journal.

    Attributes:
        id: The sample's id.
        image: Which picture, as a stable text (a path relative to the image root, or the id of a made one): samples of
            one image share it, and intervals are clustered by it.
        phrase: What was asked.
        truth: The true box in pixels, `x1, y1, x2, y2`.
        size: Width and height of the upright image in pixels, if known.
        amodal: Whether the whole object was asked for.
        split: Name of the dataset's split, such as `refcoco/val`.
        text: All that the model wrote.
        box: The box that answers in pixels, or None.
        failure: Why there is no box (see `egm.types.Failure`), "error" if the engine failed, or None.
        error: What the engine said, where it failed.
        iou: IoU with the truth; 0 without a box.
        finish_reason: "stop", "length", "repeated" or "stop_string"; None after an error.
        prompt_tokens: Tokens read, image tokens included; None where the engine does not count them.
        reasoning_tokens: Tokens before the last `</think>`, where known.
        answer_tokens: Tokens generated beside the reasoning, where that is known; always what the other two leave.
        completion_tokens: Tokens generated, reasoning included, of all votes together; None where not counted.
        seconds: From sending to the last token.
        first_token_seconds: From sending to the first token, where streamed.
        queue_seconds: How long it waited for its turn before it was sent.
        votes: How many answers were sampled.
        confidence: Share of them that agree with the box; None where only one was asked for.
        logprob: Mean log-probability of the text's tokens, where known.
        answer_logprob: The same of what stands after the reasoning.
        cold: Whether it was the first question about its picture in this run.
        meta: The sample's own facts, such as `kind` and `complexity`.
    """

    id: str
    image: str
    phrase: str
    truth: tuple[float, float, float, float]
    size: tuple[int, int] | None = None
    amodal: bool = False
    split: str = ""
    text: str = ""
    box: tuple[float, float, float, float] | None = None
    failure: str | None = None
    error: str | None = None
    iou: float = 0.0
    finish_reason: str | None = "stop"
    prompt_tokens: int | None = None
    reasoning_tokens: int | None = None
    answer_tokens: int | None = field(init=False)
    completion_tokens: int | None = None
    seconds: float = 0.0
    first_token_seconds: float | None = None
    queue_seconds: float = 0.0
    votes: int = 1
    confidence: float | None = None
    logprob: float | None = None
    answer_logprob: float | None = None
    cold: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Count the answer's tokens."""
        thought, written = self.reasoning_tokens, self.completion_tokens
        left = None if thought is None or written is None else written - thought
        object.__setattr__(self, "answer_tokens", None if left is None or left < 0 else left)  # servers miscount

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the line."""
        return {name: getattr(self, name) for name in self.__slots__}  # `asdict` copies everything, which takes longer

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Record:
        """Make a record from the JSON object of a line.

        Raises:
            DataError: If a key is missing or unknown, or a value is none that `egm eval` writes.
        """
        values = dict(row)
        values.pop("answer_tokens", None)  # follows from the others, and older journals have none
        _check(values, _RECORD)
        for name in ("truth", "box", "size"):
            if values.get(name) is not None:
                values[name] = tuple(values[name])
        try:
            return cls(**values)
        except TypeError as error:
            raise DataError(f"not a line of a journal ({error}): it may come from another version") from None

    def check(self) -> None:
        """Refuse values that could not be read back.

        Raises:
            DataError: If there is one.
        """
        _check(self.to_dict(), _RECORD)

    @property
    def key(self) -> tuple[str, str]:
        """What no other sample of the run shares: split and id."""
        return self.split, self.id

    def hit(self) -> bool:
        """Tell whether the box counts as right, as `egm.types.Score.hit` does."""
        return self.iou >= HIT_IOU


@dataclass(frozen=True, slots=True)
class Header:
    """What a journal is about; its first line.

    Attributes:
        model: What answered: a name, a folder or a hub id.
        codec: Name of the codec, and its options.
        prompt: Prompt style, and an example of its wording.
        settings: How text was generated, with the seed.
        datasets: For each split its number of samples `n`, a `digest` of ids, phrases, pictures and boxes in the order
            of the dataset, and of the same in any order (`questions`, see `egm.journal.questions_digest`); and, where
            only some pictures were asked about, the `choice` of these (`egm.datasets.dataset.Choice`).
        concurrency: Most requests that were answered together.
        engine: What else decides the answers or their latency, such as device, dtype or server.
        images: Folder that the records' `image` is relative to; empty if no picture is a file.
        versions: Versions of Python and of the packages that matter.
        command: The command line that started the run.
        started: When that was, in ISO 8601.
        shard: Where the run is one of several shards: its `number`, the `count` of all, and of what (`of`), which is
            the `datasets` of the whole run.
    """

    model: str
    codec: Mapping[str, Any]
    prompt: Mapping[str, str]
    settings: Mapping[str, Any]
    datasets: Mapping[str, Mapping[str, Any]]
    concurrency: int = 1
    engine: Mapping[str, Any] = field(default_factory=dict)
    images: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    started: str = ""
    shard: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the line."""
        row = {"journal": _FORMAT, **asdict(self), "command": list(self.command)}
        return row if self.shard is not None else {name: value for name, value in row.items() if name != "shard"}

    @property
    def share(self) -> str | None:
        """Which shard it is, as "2/8"; None for a whole run."""
        return None if self.shard is None else f"{self.shard['number']}/{self.shard['count']}"

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Header:
        """Make a header from the JSON object of the line.

        Raises:
            DataError: If it is not one, or of another version.
        """
        values = dict(row)
        if values.pop("journal", None) != _FORMAT:
            raise DataError("its first line is not the header of a journal that this version reads")
        if values.get("codec") == {"name": "qwen3_vl", "thinking_prefilled": False}:  # written before it had a name
            values["codec"] = {"name": "qwen3_vl_instruct"}
        _check(values, _HEADER)
        try:
            return cls(**{**values, "command": tuple(values["command"])})
        except (KeyError, TypeError) as error:
            raise DataError(f"its header is not one that this version reads ({error})") from None

    def differences(self, other: Header) -> list[str]:
        """Name what makes another run of this one, as "settings.seed is 1, was 0".

        Versions other than EGM's own, the command, the time and the place of the images may differ.
        """
        if self.share != other.share:  # in which all that follows from it differs too
            return [f"shard is {self.share or 'none'}, was {other.share or 'none'}"]
        mine, theirs = ({**_BEFORE, **_flat(header._identity())} for header in (self, other))
        return list_differences(mine, theirs, may_lack=_LATER)

    def _identity(self) -> dict[str, Any]:
        may_differ = ("images", "versions", "command", "started")
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in may_differ}
        # As JSON gives it back: a tuple among the settings is a list there.
        plain: dict[str, Any] = json.loads(json.dumps({**values, "egm": self.versions.get("egm")}))
        return plain


def list_differences(
    mine: Mapping[str, Any], theirs: Mapping[str, Any], *, may_lack: re.Pattern[str] | None = None
) -> list[str]:
    """Name the values in which two runs differ, as "settings.seed is 1, was 0".

    Args:
        mine: What the run is about, JSON-ready, in objects of any depth.
        theirs: The same of the run that is there.
        may_lack: Names that it may lack, as written before they were known.
    """
    mine, theirs = _flat(mine), _flat(theirs)
    return [
        f"{name} is {_show(mine.get(name))}, was {_show(theirs.get(name))}"
        for name in sorted(mine.keys() | theirs.keys())
        if mine.get(name) != theirs.get(name)
        and not (name not in theirs and may_lack is not None and may_lack.fullmatch(name))
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _show(value: Any) -> str:
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError):  # an integer of too many digits, or lists in lists without end
        return f"a {type(value).__name__} that is too large to show"
    return text if len(text) <= 80 else f"{text[:79]}…"
