"""Questions on their way to a model: phrases checked, pictures loaded once and kept in an image cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeAlias

from egm.backends.base import Backend, GenerationSettings, Request
from egm.codecs import Codec, neutralise
from egm.datasets.check import is_outside
from egm.errors import EgmError, ImageError, PhraseError
from egm.images import ImageSource, check_picture_size, load_image, picture_key
from egm.types import Completion, Expect, Grounding, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PHRASE = 1000
"""Longest phrase in characters."""

Item: TypeAlias = Sample | tuple[ImageSource, str]
"""What `ground_many` takes: a sample, or a pair of image and phrase."""


def check_phrase(phrase: str) -> str:
    """Return a phrase without white space around it.

    Raises:
        PhraseError: If it is not text, holds nothing to look for, or is longer than `MAX_PHRASE` characters.
    """
    if not isinstance(phrase, str):
        raise PhraseError(f"a phrase must be text, not {type(phrase).__name__}")
    stripped = phrase.strip()
    if len(stripped) > MAX_PHRASE:
        raise PhraseError(
            f"the phrase has {len(stripped):,} characters, over the limit of {MAX_PHRASE:,}: say it shorter"
        )
    if not neutralise(stripped).strip():
        raise PhraseError("the phrase is empty: say what to find, such as 'the red cup on the left'")
    return stripped


@dataclass(frozen=True, slots=True)
class LoadedQuestion:
    """A phrase about a picture, checked and loaded: ready to be asked.

    Attributes:
        index: Its number, which is its seed index too.
        image: The picture.
        phrase: What to find, checked.
        amodal: Whether the whole object is asked for.
        source: What the picture was loaded from.
        expect: How many boxes are asked for.
    """

    index: int
    image: Image
    phrase: str
    amodal: bool
    source: ImageSource
    expect: Expect = "one"

    @property
    def expected(self) -> dict[str, Any]:
        """What a codec is told of `expect`: of one box nothing, so that codecs which know no more stay as they are."""
        return {} if self.expect == "one" else {"expect": self.expect}

    def read(self, reply: Completion, codec: Codec) -> Grounding:
        """Read a reply, with what it cost and the picture, and how sure each box is where that is told."""
        grounding = codec.parse(
            reply.text,
            size=self.image.size,
            finish_reason=reply.finish_reason,
            amodal=self.amodal,
            seen_size=reply.seen_size,
            phrase=self.phrase,
            **self.expected,
        )
        boxes = grounding.boxes
        if self.expect != "one" and reply.answer_logprob is not None:
            places = codec.box_places(
                reply.text, [each.box for each in boxes], size=self.image.size, seen_size=reply.seen_size
            )
            sure = _probabilities(reply, places) or [reply.answer_logprob] * len(boxes)
            boxes = tuple(
                replace(each, confidence=math.exp(min(0.0, mean))) for each, mean in zip(boxes, sure, strict=True)
            )
        return replace(
            grounding,
            boxes=boxes,
            tokens=reply.completion_tokens,
            prompt_tokens=reply.prompt_tokens,
            seconds=reply.seconds,
            logprob=reply.logprob,
            answer_logprob=reply.answer_logprob,
            image=self.image,
        )


def write_request(
    question: LoadedQuestion, backend: Backend, codec: Codec, settings: GenerationSettings, prompt: str | None
) -> Request:
    """Write what a backend is asked about a question.

    Args:
        question: The question.
        backend: Who is asked.
        codec: Its convention.
        settings: How it is to generate: a thinking budget and stop strings need the codec's help.
        prompt: Prompt style of the codec; None takes its own.
    """
    messages = codec.messages(question.phrase, amodal=question.amodal, prompt=prompt, **question.expected)
    bounded = settings.thinking_budget is not None
    cut = partial(codec.answer_prefill, phrase=question.phrase, **question.expected) if bounded else None
    facts: dict[str, Any] = {"size": question.image.size, "amodal": question.amodal, "phrase": question.phrase}
    ends = partial(codec.ends_before_tail, **facts) if settings.stop else None
    asked: dict[str, Any] = {"source": question.source, "seed_index": question.index, "cut": cut, "ends": ends}
    return replace(
        backend.make_request(messages, question.image, **asked),
        drafts=(codec.frame(question.phrase, size=question.image.size),),
        token_logprobs=question.expect != "one" and backend.tells_logprobs,  # for the confidence of each box
    )


def _probabilities(reply: Completion, places: Sequence[tuple[int, int]] | None) -> list[float]:
    """Mean log-probabilities of the tokens that the places of boxes are written with; none where these are not told."""
    starts = [0, *(end for end, _ in reply.token_logprobs)]
    spans = [(start, end, value) for start, (end, value) in zip(starts, reply.token_logprobs, strict=False)]
    told = [[value for start, end, value in spans if end > first and start < last] for first, last in places or ()]
    return [fmean(values) for values in told] if all(told) else []


class ImageCache:
    """Image cache: pictures that several questions in a row are about, loaded once."""

    def __init__(self) -> None:
        self.pixels = 0
        """Pixels held."""
        self._pictures: dict[object, tuple[ImageSource, Image]] = {}

    def load(self, source: ImageSource) -> Image:
        """Load a picture, or take it from before."""
        key = picture_key(source)
        if key not in self._pictures:
            image = load_image(source)
            self.pixels += image.width * image.height
            self._pictures[key] = (source, image)  # the source too, so that its id stays its own
        return self._pictures[key][1]

    def unless_over(self, max_pixels: int) -> ImageCache:
        """Itself for questions to come, or an empty one if it holds more pixels than that."""
        return self if self.pixels <= max_pixels else ImageCache()


def _parts(item: Item | EgmError) -> tuple[ImageSource, str, bool, Expect]:
    if isinstance(item, EgmError):
        raise item
    if isinstance(item, Sample):
        return item.image, check_phrase(item.phrase), item.amodal, item.expect
    if not isinstance(item, tuple) or len(item) != 2:
        raise EgmError(f"a question must be a Sample or a pair of image and phrase, not {type(item).__name__}")
    return item[0], check_phrase(item[1]), False, "one"


def load_question(index: int, item: Item | EgmError, cache: ImageCache) -> LoadedQuestion:
    """Check an item, load its picture, and hold the size that a sample says against the picture's.

    In place of an item that could not be had, the error that says why is raised.

    Raises:
        EgmError: If the item, its phrase or its picture cannot be used, or the picture is not the one that the sample
            is about.
    """
    source, phrase, amodal, expect = _parts(item)
    image = cache.load(source)
    _check_frame(item, image.size)
    return LoadedQuestion(index, image, phrase, amodal, source, expect)


def _check_frame(item: Item | EgmError, size: tuple[int, int]) -> None:
    """Refuse a sample that is about another picture than this one: no answer to it could be scored.

    Raises:
        ImageError: If the row says another size, or the true box does not lie in the picture. Where the row's size is
            right, a box that passes an edge is scored as it is; one beside the picture could never be hit.
    """
    if not isinstance(item, Sample):
        return
    check_picture_size(item.size, size)
    beside = item.amodal or item.size is not None
    if (box := next((box for box in item.truths or () if is_outside(box, size, amodal=beside)), None)) is not None:
        corners = ", ".join(f"{value:g}" for value in box)
        raise ImageError(
            f"the true box {corners} lies outside the picture of {size[0]} x {size[1]}: is it another one, or the box "
            "on another scale?"
        )


def check_all(items: Sequence[Item]) -> None:
    """Check phrases first, which costs nothing, then every picture once.

    Raises:
        EgmError: With the number of the item, counted from 0.
    """
    sizes: dict[object, tuple[int, int]] = {}
    for index, item in enumerate(items):
        try:
            _parts(item)
        except EgmError as error:
            raise item_error(error, index) from error
    for index, item in enumerate(items):
        source = _parts(item)[0]
        key = picture_key(source)
        try:
            if key not in sizes:
                sizes[key] = load_image(source).size
            _check_frame(item, sizes[key])
        except EgmError as error:
            raise item_error(error, index) from error


def item_error(error: EgmError, index: int) -> EgmError:
    """Put the number of its item before an error."""
    return type(error)(f"item {index}: {error}")
