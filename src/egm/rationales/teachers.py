"""Teachers: who explains a sample, how each is asked, and what of its reply is the rationale."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from egm.backends.base import Backend, GenerationSettings, Request
from egm.codecs import Codec
from egm.codecs.parsing.reading import split_reasoning
from egm.codecs.targets import whole_numbers
from egm.errors import DataError, EgmError
from egm.images import ImageSource
from egm.rationales import synthref
from egm.rationales.corrupt import Corruption
from egm.rationales.lane import Lane, OnLost
from egm.rationales.mark import choose_colour, draw_mark
from egm.rationales.styles import TeacherStyle
from egm.types import Completion, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

TEXT_TOKEN_CHARACTERS = 3
"""Characters of English that a token holds, at the least, where an estimate may not fall short."""
PICTURE_TOKEN_SIDE = 28
"""Side in pixels of what a token of a picture shows: that of Qwen2.5-VL; Qwen3-VL's are 32, so it takes fewer."""


@dataclass(frozen=True, slots=True)
class LoadedSample:
    """A sample that is to be explained, with its picture.

    Attributes:
        sample: What it is; its box and its size are known.
        index: Its seed index, see `egm.backends.base.Request`.
        picture: Upright RGB picture; None where nobody looks at it.
        source: What the picture was loaded from.
    """

    sample: Sample
    index: int
    picture: Image | None = None
    source: ImageSource | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture in pixels."""
        assert self.sample.size is not None
        return self.sample.size


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that is ready to be sent.

    Attributes:
        start: Sends it; what it returns raises BackendError where the engine fails. It is given what to ask before it
            tries again after a try that took tokens for nothing (`egm.rationales.lane.OnLost`).
        most: Most tokens that it may read and write, as far as that can be told beforehand.
        colour: Colour of the mark, if one was drawn.
    """

    start: Callable[[OnLost], Future[Completion]]
    most: tuple[int, int] = (0, 0)
    colour: str | None = None


class Teacher(ABC):
    """Who explains samples; a context manager that closes what it opened.

    Attributes:
        name: What it goes by in prices, journals and cards.
        looks: Whether it is shown pictures; else they are not loaded.
    """

    name: str
    looks: bool = True

    @abstractmethod
    def ask(self, sample: LoadedSample, attempt: int) -> Asked:
        """Make the question about a sample, without sending it.

        Args:
            sample: What to explain.
            attempt: Which of several tries it is, counted from 0; each draws other random numbers.

        Raises:
            EgmError: If it cannot be asked.
        """

    def rationale(self, reply: Completion) -> str:
        """Take the rationale out of a reply: all of it, stripped, unless a teacher says otherwise."""
        return reply.text.strip()

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What tells its answers from those of another teacher, JSON-ready."""

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Give up what is under way."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class ModelTeacher(Teacher):
    """A vision-language model, behind a server or in this process.

    Args:
        backend: What answers; it is left open.
        codec: The family that will be trained: in its convention the box is written.
        style: How to ask.
        settings: How text is generated; its `max_new_tokens` stands for the style's.
        mark: Whether the true box is drawn on the picture that the teacher sees.
        batch: Most requests that a model in this process answers together.
        engine: What else decides its answers, such as device or server, to be kept and compared.
    """

    def __init__(
        self,
        backend: Backend,
        codec: Codec,
        style: TeacherStyle,
        *,
        settings: GenerationSettings | None = None,
        mark: bool = True,
        batch: int = 1,
        engine: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self._codec, self._style = backend.model, codec, style
        self.settings = settings or GenerationSettings(max_new_tokens=style.max_tokens, temperature=0.7)
        if self.settings.votes > 1 or self.settings.thinking_budget is not None:
            raise EgmError("a teacher answers a try once, and thinks as long as it likes: leave votes and budget out")
        self.mark = mark and style.asks == "explanation"
        self._lane = Lane(backend, self.settings, batch=batch)
        self._engine = dict(engine or {})

    def ask(self, sample: LoadedSample, attempt: int) -> Asked:
        """Make the question; see `Teacher.ask`."""
        request, colour = self.request(sample, attempt)
        return Asked(partial(self._lane.submit, request), most_tokens(request, self.settings), colour)

    def request(self, sample: LoadedSample, attempt: int = 0) -> tuple[Request, str | None]:
        """Write the request for a sample; also the colour of the mark, if one is drawn."""
        row, picture = sample.sample, sample.picture
        assert row.box is not None
        assert picture is not None
        colour = choose_colour(picture, row.box) if self.mark else None
        if self._style.asks == "grounding":
            messages = self._codec.messages(row.phrase, amodal=row.amodal)
        else:
            numbers = whole_numbers(row.box, sample.size, self._codec.scale(sample.size, None))
            question = self._style.question(row.phrase, str(list(numbers)), colour=colour, amodal=row.amodal)
            messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        shown, source = (picture, sample.source) if colour is None else (draw_mark(picture, row.box, colour), None)
        request = self._lane.backend.make_request(messages, shown, source=source, seed_index=sample.index)
        return replace(request, vote=attempt), colour

    def rationale(self, reply: Completion) -> str:
        """Take the rationale out of a reply, as the style says; nothing where the reply has none."""
        return rationale_of(reply.text, self._style, self._codec)

    def identity(self) -> dict[str, Any]:
        """Return model, settings, mark and engine."""
        kept = ("max_new_tokens", "temperature", "top_p", "top_k", "seed")
        settings = {name: value for name, value in asdict(self.settings).items() if name in kept}
        return {"model": self.name, "settings": settings, "mark": self.mark, **self._engine}

    def close(self) -> None:
        """Give up what is under way; the backend stays open."""
        self._lane.close()


class SynthRefTeacher(Teacher):
    """The offline teacher: SynthRef's execution traces in words, without a model.

    Args:
        style: Name of one of the styles that it speaks.
        corruption: Plants defects in what it says, to try filters on.

    Attributes:
        told: What it says at the first tries, by the sample's id, as far as that is at hand (`draw_explained`).

    Raises:
        EgmError: If it does not speak that style.
    """

    name = "synthref"
    looks = False

    def __init__(self, style: str, corruption: Corruption | None = None) -> None:
        if style not in synthref.STYLES:
            raise EgmError(f"the offline teacher does not speak {style!r}: choose {', '.join(synthref.STYLES)}")
        self._style, self._corruption = style, corruption
        self.told: dict[str, tuple[str, ...]] = {}

    def ask(self, sample: LoadedSample, attempt: int) -> Asked:
        """Word the trace of a sample; see `Teacher.ask`."""

        def word(_: OnLost) -> Future[Completion]:
            reply: Future[Completion] = Future()
            told = self.told.get(sample.sample.id, ())
            is_known = attempt < len(told)
            text = told[attempt] if is_known else synthref.explain_sample(sample.sample, self._style, attempt)
            if self._corruption is not None:
                text = self._corruption.plant(sample.sample, text, attempt).text
            reply.set_result(Completion(text, prompt_tokens=0, completion_tokens=0))
            return reply

        return Asked(word)

    def identity(self) -> dict[str, Any]:
        """Return its name, and what is planted in its words."""
        return {"model": self.name, "corruption": None if self._corruption is None else self._corruption.to_dict()}


def rationale_of(text: str, style: TeacherStyle | None, codec: Codec) -> str:
    """Take the rationale out of what a teacher wrote, as a style says; all of it where there is no style.

    Nothing comes of a text that lacks what the style takes.
    """
    if style is None:
        return text.strip()
    if style.takes == "reasoning":
        reasoning, answer = split_reasoning(text, thinking_prefilled=codec.thinking_prefilled)
        return "" if answer is None else reasoning.strip()
    return text.rpartition("</think>")[2].strip()


def most_tokens(request: Request, settings: GenerationSettings) -> tuple[int, int]:
    """Say how many tokens a request may read and write at most: by its words and pictures, and by its limit."""
    words = sum(len(str(message["content"])) for message in request.messages)
    side = PICTURE_TOKEN_SIDE
    pictures = sum(-(-picture.width // side) * -(-picture.height // side) for picture in request.images)
    return words // TEXT_TOKEN_CHARACTERS + pictures, settings.max_new_tokens


def with_size(sample: Sample, picture: Image | None) -> Sample:
    """Return a sample with the size of its picture, where its row says none.

    Raises:
        DataError: If neither is known.
    """
    if sample.size is not None:
        return sample
    if picture is None:
        raise DataError(f"sample {sample.id} says no size of its picture: give width and height in its row")
    return replace(sample, size=picture.size)
