"""The journal of an evaluation: a header line, then one line a sample, from which every report is rebuilt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from egm.errors import DataError


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
        finish_reason: "stop" or "length"; None after an error.
        prompt_tokens: Tokens read, image tokens included.
        reasoning_tokens: Tokens before the last `</think>`, where known.
        completion_tokens: Tokens generated, reasoning included.
        seconds: From sending to the last token.
        first_token_seconds: From sending to the first token, where streamed.
        queue_seconds: How long it waited for its turn before it was sent.
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
    prompt_tokens: int = 0
    reasoning_tokens: int | None = None
    completion_tokens: int = 0
    seconds: float = 0.0
    first_token_seconds: float | None = None
    queue_seconds: float = 0.0
    cold: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the line."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Record:
        """Make a record from the JSON object of a line.

        Raises:
            DataError: If a key is missing or unknown.
        """
        try:
            values = dict(row)
            values["truth"] = tuple(values["truth"])
            for name in ("box", "size"):
                values[name] = None if values.get(name) is None else tuple(values[name])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise DataError(f"not a line of a journal ({error}): it may come from another version") from None
