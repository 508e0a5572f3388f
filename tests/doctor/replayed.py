"""egm-tiny's own answers, from the recording that comes with the package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from PIL import Image, ImageChops

from egm.backends import GenerationSettings, Request
from egm.backends.base import Backend
from egm.doctor import Recording, built_in_pictures
from egm.doctor.recording import RecordedAnswer, shipped_recording
from egm.types import Completion

Change = Callable[[Completion], Completion]


class Replayed(Backend):
    """Answers as a recording says.

    Attributes:
        asked: The names of the pictures, as they were asked; "" without one.
    """

    batches = False

    def __init__(self, recording: Recording | None = None, change: Change = lambda reply: reply) -> None:
        self.recording, self.change = recording or shipped_recording(), change
        self.model = self.recording.model
        self.pictures = built_in_pictures()
        self.asked: list[str] = []

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        return [self.change(self.answer(request, settings)) for request in requests]

    def answer(self, request: Request, settings: GenerationSettings) -> Completion:
        name = self.name_of(request)
        self.asked.append(name if request.images else "")
        answers = self.recording.answers if request.images else self.recording.controls
        return cut(next(one for one in answers if one.picture == name), settings.max_new_tokens)

    def name_of(self, request: Request) -> str:
        said = str(request.messages)
        if not request.images:
            return next(one.picture for one in self.recording.controls if one.picture in said)
        (image,) = request.images
        known = [one for one in self.pictures if one.phrase in said and one.image.size == image.size]
        return next((one for one in known if same(one.image, image)), known[0] if known else self.pictures[0]).name


def same(image: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures are one, but for the pixel that the doctor changes."""
    return image.size == other.size and max(high for _, high in ImageChops.difference(image, other).getextrema()) <= 1


def cut(answer: RecordedAnswer, tokens: int) -> Completion:
    """The beginning of an answer."""
    whole = Completion(
        answer.text,
        answer.finish_reason,
        answer.prompt_tokens,
        answer.completion_tokens,
        logprob=answer.logprob,
    )
    if tokens >= len(answer.ends) - (answer.finish_reason != "stop"):
        return whole
    text = answer.text[: answer.ends[tokens - 1]]
    return replace(whole, text=text, finish_reason="length", completion_tokens=tokens)
