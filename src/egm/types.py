"""The values that flow through EGM: Sample, Completion, Grounding, Score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, get_args

from egm.boxes import Box

if TYPE_CHECKING:  # neither numpy nor Pillow, so that codecs load in a moment
    from PIL.Image import Image

    from egm.images import ImageSource as ImageSource

Message: TypeAlias = dict[str, Any]
"""One chat message in the transformers form: `{"role": ..., "content": [{"type": "image"}, {"type": "text", ...}]}`."""

Expect: TypeAlias = Literal["one", "any", "all"]
"""How many boxes are asked for: the one that there is, the one that there may be, or all that there are, if any."""
EXPECTS: Final[tuple[Expect, ...]] = get_args(Expect)

Think: TypeAlias = Literal["always", "auto", "never"]
"""Whether to think before answering: as the model was trained to, where a gate says that it pays, or not at all."""
THINK: Final[tuple[Think, ...]] = get_args(Think)

HIT_IOU: Final = 0.5
"""The IoU from which on a box counts as right: Acc@0.5."""


STOP_STRING: Final = "stop_string"
"""The finish reason of a text that was ended where its answer was known, and only its tail left to write."""
_CUT_OFF: Final = frozenset(
    [
        "length",
        "max_completion_tokens",
        "max_length",
        "max_new_tokens",
        "max_output_tokens",
        "max_tokens",
        "model_length",
        "token_limit",
    ]
)
_ENDED: Final = frozenset(["end_turn", "eos", "eos_token", "stop", "stop_sequence"])


def usual_finish_reason(reason: Any) -> Any:
    """Call a finish reason "stop" or "length", where it is that under another server's name."""
    if not isinstance(reason, str):  # an engine's mistake, which a journal refuses
        return reason
    plain = reason.strip().lower().removeprefix("finish_reason_")
    return "length" if plain in _CUT_OFF else "stop" if plain in _ENDED else reason


class Failure(StrEnum):
    """Why a text holds no box that answers."""

    NO_BOX = "no_box"
    """The answer holds nothing that looks like a box."""
    TRUNCATED = "truncated"
    """The text ends inside the reasoning or inside a box."""
    REPEATED = "repeated"
    """The same as `truncated`, where the engine stopped a text that repeated itself."""
    MALFORMED = "malformed"
    """Something stands where a box should, but it is not four numbers."""
    REFUSED = "refused"
    """The answer declines; or it says that there is no such thing, where one box is expected."""
    OUT_OF_RANGE = "out_of_range"
    """Four numbers, but outside the declared convention."""
    DEGENERATE = "degenerate"
    """Four numbers, but they enclose no area."""


FAILURE_WORDS: Final[Mapping[Failure, str]] = {
    Failure.NO_BOX: "the answer holds no box",
    Failure.TRUNCATED: "the answer was cut off",
    Failure.REPEATED: "the model repeated itself, and was stopped",
    Failure.MALFORMED: "the answer's box is not four numbers",
    Failure.REFUSED: "the model says that there is no such thing",
    Failure.OUT_OF_RANGE: "the answer's box lies outside the scale",
    Failure.DEGENERATE: "the answer's box has no area",
}
"""Failures as people are told of them."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One question: an image and a phrase, with the truth where it is known.

    Attributes:
        id: Unique within its dataset.
        image: The picture, or where it is.
        phrase: What to find.
        box: The true box in pixels, if known, where there is exactly one. An amodal box may leave the frame.
        size: Width and height of the upright image in pixels, if known.
        amodal: Whether the box of the whole object is asked for, hidden parts too.
        rationale: Reasoning that leads to the box, if known.
        meta: Anything else worth keeping, JSON-ready, such as `kind` and `complexity`.
        expect: How many boxes are asked for.
        boxes: The true boxes, where there is not exactly one: none if nothing matches; `box` is then None.
    """

    id: str
    image: ImageSource
    phrase: str
    box: Box | None = None
    size: tuple[int, int] | None = None
    amodal: bool = False
    rationale: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    expect: Expect = "one"
    boxes: tuple[Box, ...] | None = None

    def __post_init__(self) -> None:
        """Hold the invariant, so that the truth is said once."""
        if self.boxes is not None and (self.box is not None or len(self.boxes) == 1):
            raise ValueError("a Sample holds one true box as box, and none or several as boxes")

    @property
    def truths(self) -> tuple[Box, ...] | None:
        """The true boxes, however many there are; None where they are not known."""
        return self.boxes if self.box is None else (self.box,)


@dataclass(frozen=True, slots=True)
class Completion:
    """What a backend returns: text, and what it cost.

    Attributes:
        text: Everything generated, reasoning included, without the prompt.
        finish_reason: "stop", "length" if the token limit cut it off, "repeated" if it was stopped as it repeated
            itself, or "stop_string" if it ends before a stop string (`GenerationSettings.stop`).
        prompt_tokens: Tokens read, image tokens included; None where the engine does not count them.
        completion_tokens: Tokens generated; None where the engine does not count them.
        seconds: Wall-clock time from sending to the last token.
        seen_size: Width and height in pixels of the picture after the processor's resize, if known.
        first_token_seconds: From sending to the first token, where streamed.
        queue_seconds: How long the request waited, failed tries included, before the answered one was sent.
        reasoning_tokens: Tokens before the last `</think>`, where the engine counts them.
        logprob: Mean natural log-probability that the model gave the tokens it chose, reasoning and stop token
            included, before temperature, top-p and top-k; where the engine tells.
        answer_logprob: The same of the tokens after the last `</think>` alone, or of all where there is none.
        stop_reason: The stop string that it ends before, if it does and that is known.
        lost_tokens: Tokens read and generated in failed tries before the answered one, as far as the engine counted
            them.
        token_logprobs: Of each token how many characters of the text are read with it, and its log-probability, where
            that was asked for (`Request.token_logprobs`).
    """

    text: str
    finish_reason: str = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float = 0.0
    seen_size: tuple[int, int] | None = None
    first_token_seconds: float | None = None
    queue_seconds: float = 0.0
    reasoning_tokens: int | None = None
    logprob: float | None = None
    answer_logprob: float | None = None
    stop_reason: str | None = None
    lost_tokens: tuple[int, int] = (0, 0)
    token_logprobs: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """A box that the text gives.

    Attributes:
        box: In pixels.
        label: The label beside it, if any.
        confidence: Where any number of boxes is asked for: the share of the votes that give it too, or, of one answer,
            the mean probability of a token of its coordinates (geometric), or of the whole answer's where these cannot
            be told apart; None where the engine tells none.
    """

    box: Box
    label: str | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Grounding:
    """A phrase grounded: the box, or the reason why there is none.

    With `expect` "any" or "all", that nothing matches is an answer too: `is_none`, with neither box nor failure.

    Attributes:
        box: The box that answers, in pixels of the upright original image, or None; of several the first.
        failure: Why there is no answer; None where there is one.
        reasoning: What stood before the last `</think>`.
        text: The whole text of the model.
        boxes: Every valid box in the answer, in order, with its label.
        repairs: Names of the lenient repairs that reading the text took, if any.
        phrase: What was asked.
        size: Width and height of the upright image in pixels.
        tokens: Tokens generated, those of all votes together; None where the engine does not count them.
        prompt_tokens: Tokens read, in the same way.
        seconds: Wall-clock time to the last token, of the last vote.
        votes: How many answers were sampled.
        confidence: Share of the votes that agree with the box (`egm.consensus`), 0 where there is none; None where only
            one answer was asked for.
        logprob: Mean log-probability of the text's tokens, where the engine tells; see `Completion`.
        answer_logprob: The same of what stands after the reasoning.
        tail_cut: Whether the text was ended behind the box on purpose (`cut_tail`): what it lacks is no fault of the
            model's.
        thought: Whether it thought, where that was decided for it (`GenerationSettings.think`), also against what was
            decided: one vote that did is enough; else None.
        certainty: How sure the model was of its direct answer, as the gate measures it; None without a gate.
        expect: How many boxes were asked for.
        image: The upright RGB picture, for `draw`.
    """

    box: Box | None
    failure: Failure | None
    reasoning: str = ""
    text: str = ""
    boxes: tuple[LabelledBox, ...] = ()
    repairs: tuple[str, ...] = ()
    phrase: str = ""
    size: tuple[int, int] | None = None
    tokens: int | None = None
    prompt_tokens: int | None = None
    seconds: float = 0.0
    votes: int = 1
    confidence: float | None = None
    logprob: float | None = None
    answer_logprob: float | None = None
    tail_cut: bool = False
    thought: bool | None = None
    certainty: float | None = None
    expect: Expect = "one"
    image: Image | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Hold the invariant, so that no failure can leave the denominator."""
        if (self.box is None) == (self.failure is None) and not (self.box is None and self.expect != "one"):
            raise ValueError("a Grounding holds either a box or the failure that explains why there is none")

    @property
    def is_none(self) -> bool:
        """Whether the answer is that nothing matches."""
        return self.box is None and self.failure is None

    @property
    def answered(self) -> tuple[Box, ...]:
        """The boxes that count: all of the answer where all were asked for, else the first."""
        if self.expect == "all":
            return tuple(item.box for item in self.boxes)
        return () if self.box is None else (self.box,)

    def draw(self, *, truth: Box | Sequence[Box] | None = None) -> Image:
        """Return a copy of the picture with the box drawn on it, or the caption saying that there is none.

        Args:
            truth: The true box, or several, drawn beside the answer if given.

        Raises:
            ImageError: If this grounding holds no picture.
        """
        from egm.draw import draw_boxes
        from egm.errors import ImageError

        if self.image is None:
            raise ImageError("this Grounding holds no picture: draw on one that Grounder.ground returned")
        caption = self.phrase
        if self.failure is not None:
            why = "" if self.failure is Failure.NO_BOX else f", {str(self.failure).replace('_', ' ')}"
            caption = f"{caption} (no box{why})"
        elif self.is_none:
            caption = f"{caption} (nothing matches)"
        return draw_boxes(self.image, box=self.answered, truth=truth, caption=caption)

    def to_supervision(self) -> Any:
        """Return the boxes that count as a `supervision.Detections`, which is empty where there are none.

        `xyxy` is in pixels of the upright image, as here; `data["class_name"]` is the phrase, `data["label"]` the
        model's own word for each box. `confidence` is that of each box, or of the answer, where it is known.

        Raises:
            MissingExtraError: If supervision is not installed.
        """
        from egm.detections import to_detections

        answered = self.answered
        shown = self.boxes if len(self.boxes) >= len(answered) else tuple(map(LabelledBox, answered))
        sure = [self.confidence if item.confidence is None else item.confidence for item in shown]
        count = len(answered)
        labels = [item.label for item in shown]
        return to_detections(answered, phrase=self.phrase, labels=labels[:count], confidences=sure[:count])

    @classmethod
    def from_supervision(
        cls, detections: Any, phrase: str, *, expect: Expect = "one", size: tuple[int, int] | None = None
    ) -> Self:
        """Make a grounding of a `supervision.Detections`, such as another detector's answer, to score it.

        Args:
            detections: Boxes `x1, y1, x2, y2` in pixels of the upright image; where one is asked for, the first counts.
            phrase: What they answer.
            expect: How many boxes were asked for. Without any box, the answer is that nothing matches where that is
                expected, and otherwise the failure `no_box`.
            size: Width and height of the upright image in pixels.

        Raises:
            BoxError: If a row is no box, or its confidence no share from 0 to 1.
        """
        from egm.detections import from_detections

        boxes = tuple(LabelledBox(*item) for item in from_detections(detections))
        return cls(
            box=boxes[0].box if boxes else None,
            failure=Failure.NO_BOX if not boxes and expect == "one" else None,
            boxes=boxes,
            phrase=phrase,
            size=size,
            expect=expect,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form, without the picture."""
        several = self.expect != "one"
        return {
            "phrase": self.phrase,
            **({"expect": self.expect} if several else {}),
            "box": None if self.box is None else [round(value, 2) for value in self.box],
            "failure": None if self.failure is None else str(self.failure),
            "boxes": [
                {
                    "box": [round(value, 2) for value in item.box],
                    "label": item.label,
                    **({"confidence": _rounded(item.confidence)} if several else {}),
                }
                for item in self.boxes
            ],
            "reasoning": self.reasoning,
            "text": self.text,
            "repairs": list(self.repairs),
            "size": None if self.size is None else list(self.size),
            "tokens": self.tokens,
            "prompt_tokens": self.prompt_tokens,
            "seconds": round(self.seconds, 4),
            "votes": self.votes,
            "confidence": _rounded(self.confidence),
            "logprob": self.logprob,
            "answer_logprob": self.answer_logprob,
            "tail_cut": self.tail_cut,
            **({} if self.thought is None else {"thought": self.thought, "certainty": self.certainty}),
        }


@dataclass(frozen=True, slots=True)
class Score:
    """A prediction against the truth.

    Attributes:
        iou: Intersection over union; 0 where there was no box. Of any number of boxes it is the greatest IoU at which
            all answered and all true ones pair off (`egm.assignment.bottleneck_iou`): 0 if they are not as many, and 1
            where nothing matches and that is the answer.
        failure: Why there was no answer, if there was none.
    """

    iou: float
    failure: Failure | None = None

    def hit(self, threshold: float = HIT_IOU, *, strict: bool = False) -> bool:
        """Tell whether the box counts as right: `iou >= threshold`, or `iou > threshold` if strict."""
        return self.iou > threshold if strict else self.iou >= threshold


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


def mean_if_any(values: Sequence[float]) -> float | None:
    """Return the mean; of no values there is none."""
    return float(sum(values) / len(values)) if len(values) else None


def sum_if_all(counts: Sequence[int | None]) -> int | None:
    """Add counts up; of what is not counted everywhere there is no sum."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def cost_of_both(first: Completion, second: Completion) -> dict[str, Any]:
    """Return what two requests for one answer cost together, as fields of a `Completion`."""
    return {
        "prompt_tokens": sum_if_all([first.prompt_tokens, second.prompt_tokens]),
        "completion_tokens": sum_if_all([first.completion_tokens, second.completion_tokens]),
        "reasoning_tokens": None,  # which of them, no server was in a place to count
        "seconds": first.seconds + second.seconds,
        "first_token_seconds": first.first_token_seconds,
        "queue_seconds": first.queue_seconds,
        "lost_tokens": tuple(map(sum, zip(first.lost_tokens, second.lost_tokens, strict=True))),
    }
