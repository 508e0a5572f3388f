"""What a journal holds: the record of a sample, and the header that says what a run is about; each value checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, TypeAlias

from egm.datasets.benchmarks import measure_of
from egm.errors import DataError
from egm.record_rules import BOX_RULE, HEADER_RULES, check_record, check_values, refuse_number, show
from egm.record_rules import ERROR as ERROR
from egm.types import HIT_IOU, Expect, Grounding, Sample

_FORMAT: Final = 1
_LATER: Final = re.compile(r"engine\.(tensors|configuration|server)|datasets\..*\.questions", re.DOTALL)
"""What journals from before lack, and cannot differ in."""
_BEFORE: Final[Mapping[str, Any]] = {"settings.stop": [], "settings.think": "always"}
"""What was so in journals from before that do not say it."""


Corners: TypeAlias = tuple[float, float, float, float]
"""A box in pixels, `x1, y1, x2, y2`."""
_LEFT_OUT: Final[Mapping[str, Any]] = {
    "expect": "one",
    **dict.fromkeys(("truths", "boxes", "confidences", "thought", "certainties", "direct_tokens")),
}
"""What a line leaves out where it is so."""


@dataclass(frozen=True, slots=True)
class Record:
    """One sample as it was asked and answered; a line of a journal.

    Attributes:
        id: The sample's id.
        image: Which picture, as a stable text (a path relative to the image root, or the id of a made one): samples of
            one image share it, and intervals are clustered by it.
        phrase: What was asked.
        truth: The true box in pixels, `x1, y1, x2, y2`; None where there is not exactly one.
        size: Width and height of the upright image in pixels, if known.
        amodal: Whether the whole object was asked for.
        split: Name of the dataset's split, such as `refcoco/val`.
        text: All that the model wrote.
        box: The box that answers in pixels, or None; of several the first.
        failure: Why there is no answer (see `egm.types.Failure`), "error" if the engine failed, or None.
        error: What the engine said, where it failed.
        iou: IoU with the truth, see `egm.types.Score`; 0 without a box, unless nothing matches and that is the answer.
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
        expect: How many boxes were asked for.
        truths: The true boxes where there is not exactly one, else None: none if nothing matches.
        boxes: All boxes of the answer, where all were asked for.
        confidences: Of each box that answers (`answered`), where known.
        thought: Whether the model thought, where that was decided for it, also against what was decided; else None.
        certainties: How sure it was of its direct answer, by measure (`egm.thinking.MEASURES`), if one was asked for.
        direct_tokens: Tokens of a direct answer that was not taken; `completion_tokens` count them too.
    """

    id: str
    image: str
    phrase: str
    truth: Corners | None
    size: tuple[int, int] | None = None
    amodal: bool = False
    split: str = ""
    text: str = ""
    box: Corners | None = None
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
    expect: Expect = "one"
    truths: tuple[Corners, ...] | None = None
    boxes: tuple[Corners, ...] | None = None
    confidences: tuple[float, ...] | None = None
    thought: bool | None = None
    certainties: Mapping[str, float] | None = None
    direct_tokens: int | None = None

    def __post_init__(self) -> None:
        """Count the answer's tokens."""
        thought, written = self.reasoning_tokens, self.completion_tokens
        left = None if thought is None or written is None else written - thought
        object.__setattr__(self, "answer_tokens", None if left is None or left < 0 else left)  # servers miscount

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the line."""
        row = {name: getattr(self, name) for name in self.__slots__}  # `asdict` copies everything, which takes longer
        for name, usual in _LEFT_OUT.items():  # as journals of one box have always been
            if row[name] == usual:
                del row[name]
        return row

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Record:
        """Make a record from the JSON object of a line.

        Raises:
            DataError: If a key is missing or unknown, or a value is none that `egm eval` writes.
        """
        values = dict(row)
        values.pop("answer_tokens", None)  # follows from the others, and older journals have none
        check_record(values)
        for name in ("truth", "box", "size", "confidences"):
            if values.get(name) is not None:
                values[name] = tuple(values[name])
        for name in ("truths", "boxes"):
            if values.get(name) is not None:
                values[name] = tuple(map(tuple, values[name]))
        try:
            record = cls(**values)
        except TypeError as error:
            raise DataError(f"not a line of a journal ({error}): it may come from another version") from None
        record._check_numbers()
        return record

    def check(self) -> None:
        """Refuse values that could not be read back.

        Raises:
            DataError: If there is one.
        """
        check_record(self.to_dict())
        self._check_numbers()

    def _check_numbers(self) -> None:
        """Refuse numbers of boxes that contradict each other."""
        many = (self.truths, self.boxes, self.confidences)
        if self.truth is not None and self.expect == "one" and many == (None, None, None):
            return
        if self.truth is None and self.truths is None:
            check_values({"truth": None}, {"truth": BOX_RULE})
        if (self.truth is None) == (self.truths is None) or len(self.truths or ()) == 1:
            raise DataError("it says its true boxes twice: one is its truth, none or several are its truths")
        refuse_number(self.expect, len(self.true_boxes))
        if self.boxes is not None and (
            self.expect != "all" or self.boxes[:1] != (() if self.box is None else (self.box,))
        ):
            raise DataError("its boxes are not those of an answer that begins with its box")
        if self.confidences is not None and len(self.confidences) != len(self.answered):
            raise DataError(f"it has {len(self.confidences)} confidences of {len(self.answered)} boxes")

    @property
    def true_boxes(self) -> tuple[Corners, ...]:
        """The true boxes, however many there are."""
        return (self.truths or ()) if self.truth is None else (self.truth,)

    @property
    def answered(self) -> tuple[Corners, ...]:
        """The boxes that count, see `egm.types.Grounding.answered`."""
        if self.boxes is not None:
            return self.boxes
        return () if self.box is None else (self.box,)

    @property
    def is_none(self) -> bool:
        """Whether the answer is that nothing matches."""
        return self.expect != "one" and self.box is None and self.failure is None

    @property
    def key(self) -> tuple[str, str]:
        """What no other sample of the run shares: split and id."""
        return self.split, self.id

    def hit(self) -> bool:
        """Tell whether the answer counts as right, by what counts in its split (`egm.datasets.benchmarks`)."""
        return self.centre_hit() if measure_of(self.split) == "centre" else self.iou_hit()

    def iou_hit(self) -> bool:
        """Tell whether the boxes are right, as `egm.types.Score.hit` does."""
        return self.iou >= HIT_IOU and (self.box is not None or self.is_none)

    def centre_hit(self) -> bool:
        """Tell whether the centre of the box lies in the true one, edges included; of none or many as `iou_hit`."""
        if self.box is None or self.truth is None:
            return self.iou_hit()
        (x1, y1, x2, y2), (left, top, right, bottom) = self.box, self.truth
        return left <= (x1 + x2) / 2 <= right and top <= (y1 + y2) / 2 <= bottom


def question_facts(sample: Sample) -> dict[str, Any]:
    """What a record says of a sample whose truth is known: its id, phrase, true boxes, and how it is asked."""
    return {
        "id": sample.id,
        "phrase": sample.phrase,
        "truth": None if sample.box is None else sample.box.corners,
        "amodal": sample.amodal,
        "expect": sample.expect,
        "truths": None if sample.boxes is None else tuple(box.corners for box in sample.boxes),
    }


def answer_facts(grounding: Grounding) -> dict[str, Any]:
    """What a record says of the boxes of an answer."""
    answered = grounding.answered
    sure = [each.confidence for each in grounding.boxes[: len(answered)]]
    known = [share for share in sure if share is not None]
    return {
        "box": None if grounding.box is None else grounding.box.corners,
        "boxes": tuple(box.corners for box in answered) if grounding.expect == "all" and answered else None,
        "confidences": tuple(known) if answered and len(known) == len(answered) else None,
    }


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
        versions: Versions of Python and of the packages that matter, and the `hardware` of a model in this process.
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
        check_values(values, HEADER_RULES)
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
        f"{name} is {show(mine.get(name))}, was {show(theirs.get(name))}"
        for name in sorted(mine.keys() | theirs.keys())
        if mine.get(name) != theirs.get(name)
        and not (name not in theirs and may_lack is not None and may_lack.fullmatch(name))
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
