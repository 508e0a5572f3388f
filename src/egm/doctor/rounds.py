"""Asking an engine: each picture alone, then some again, sixteen at once, not streamed, as files, and none at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from egm.backends.base import Backend, EngineInfo, GenerationSettings, Request
from egm.backends.openai.backend import OpenAIBackend
from egm.backends.openai.messages import RemoteRequest
from egm.codecs import Codec
from egm.doctor.pictures import CONTROLS, Picture
from egm.doctor.recorder import CONTROL_TOKENS, control_question, question
from egm.errors import BackendError
from egm.types import Completion

if TYPE_CHECKING:
    from PIL.Image import Image

SHORT: Final = 96
"""Most tokens of an answer that is held against the engine's own: a beginning tells."""
TOGETHER: Final = 16
"""How many questions are asked at once."""
_WARM, _WHOLE = 4, 2
Round: TypeAlias = Literal["alone", "warm", "together", "controls", "files", "whole"]
ROUNDS: Final[tuple[Round, ...]] = ("alone", "warm", "together", "controls", "files", "whole")
"""What is asked: each picture alone, some of them again, sixteen questions at once, questions without a picture, files
that are not upright RGB, and replies that are not streamed. The last two are for servers."""
_LARGE = 1_000_000  # pixels: asked once, as encoding them takes longer than the answer


@dataclass(frozen=True)
class Observation:
    """What an engine answered.

    Attributes:
        model: What it calls the model.
        engine: What it says of itself.
        alone: By picture, the answers to all pictures, asked one at a time.
        warm: The beginnings of answers to some that it had answered already.
        together: Beginnings of answers to sixteen questions at once, each with its picture's name; no cache knows the
            pictures, as one pixel is another.
        whole: Beginnings of answers that were not streamed.
        files: Beginnings of answers about files that are not upright RGB, sent as they are.
        controls: By phrase, the answers without a picture.
        fields: How many characters of text stood in each field of the reply's message; empty where there is no server.
        failed: What was not answered, and why.
    """

    model: str
    engine: EngineInfo
    alone: Mapping[str, Completion]
    warm: Mapping[str, Completion] = field(default_factory=dict)
    together: Sequence[tuple[str, Completion]] = ()
    whole: Mapping[str, Completion] = field(default_factory=dict)
    files: Mapping[str, Completion] = field(default_factory=dict)
    controls: Mapping[str, Completion] = field(default_factory=dict)
    fields: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


def observe(
    engine: Backend,
    codec: Codec,
    pictures: Sequence[Picture],
    settings: GenerationSettings,
    *,
    whole: Backend | None = None,
    rounds: Sequence[Round] = ROUNDS,
    progress: Callable[[], None] = lambda: None,
) -> Observation:
    """Ask an engine all that the verdict needs.

    Args:
        engine: What is asked; one behind a server should allow `TOGETHER` requests at once.
        codec: How it is asked.
        pictures: The pictures, in their order: of twins, the second is to be asked after the first.
        settings: How the reference was asked.
        whole: The same engine, asked for whole replies where the first streams.
        rounds: What to ask; the first round is always asked.
        progress: Called after each answer.

    Raises:
        BackendError: If it does not answer the first question.
    """
    short = replace(settings, max_new_tokens=min(SHORT, settings.max_new_tokens))
    failed: dict[str, str] = {}

    def ask(
        backend: Backend, requests: Sequence[tuple[str, Request]], how: GenerationSettings, what: str
    ) -> dict[str, Completion]:
        found = {}
        for name, request in requests:
            try:
                (found[name],) = backend.generate([request], how)
            except BackendError as error:
                if what == "alone" and not found:
                    raise
                failed[f"{name}, {what}"] = str(error)
            progress()
        return found

    def asked(some: Sequence[Picture]) -> list[tuple[str, Request]]:
        return [(one.name, Request(question(codec, one), [one.image])) for one in some]

    alone = ask(engine, asked(pictures), settings, "alone")
    small = [picture for picture in pictures if picture.image.width * picture.image.height < _LARGE]
    warm = ask(engine, asked(small[-_WARM:]), short, "asked again") if "warm" in rounds else {}
    many = [small[number % len(small)] for number in range(TOGETHER)] if small and "together" in rounds else []
    together: list[tuple[str, Completion]] = []
    try:
        unseen = [replace(one, image=_with_another_pixel(one.image)) for one in many]
        replies = engine.generate([request for _, request in asked(unseen)], short)
        together = [(one.name, reply) for one, reply in zip(many, replies, strict=True)]
    except BackendError as error:
        failed[f"{TOGETHER} at once"] = str(error)
    for _ in many:
        progress()
    phrases = [(one, Request(control_question(codec, one))) for one in CONTROLS if "controls" in rounds]
    controls = ask(
        engine,
        phrases,
        replace(settings, max_new_tokens=min(CONTROL_TOKENS, settings.max_new_tokens)),
        "without a picture",
    )
    files, unstreamed, fields = {}, {}, {}
    if isinstance(engine, OpenAIBackend) and "files" in rounds:
        sent = [
            (one.name, RemoteRequest(question(codec, one), [one.image], files=(one.file,)))
            for one in pictures
            if one.file is not None
        ]
        files = ask(engine, sent, short, "as a file")
    if isinstance(engine, OpenAIBackend) and small and "whole" in rounds:
        try:
            fields = engine.text_fields(asked(small[:1])[0][1], settings)
        except BackendError as error:
            failed["not streamed"] = str(error)
    if whole is not None and "whole" in rounds:
        unstreamed = ask(whole, asked(small[:_WHOLE]), short, "not streamed")
    return Observation(
        model=engine.model,
        engine=engine.describe(),
        alone=alone,
        warm=warm,
        together=together,
        whole=unstreamed,
        files=files,
        controls=controls,
        fields=fields,
        failed=failed,
    )


def _with_another_pixel(image: Image) -> Image:
    """Change a picture by the least there is, so that no cache has it and the tower sees it among others."""
    changed = image.copy()
    pixels: Any = changed.load()
    red, green, blue = pixels[0, 0]
    pixels[0, 0] = red ^ 1, green, blue
    return changed


def count_questions(pictures: Sequence[Picture], *, server: bool) -> int:
    """Return how often `observe` calls `progress`, about."""
    files = sum(picture.file is not None for picture in pictures)
    return len(pictures) + _WARM + TOGETHER + len(CONTROLS) + (files + _WHOLE if server else 0)
