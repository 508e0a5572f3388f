"""`egm doctor --record`: a checkpoint's answers in this process, and where known defects would change them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from egm.backends.base import Backend, GenerationSettings, Request
from egm.backends.checkpoint import EMBEDDED, EMBEDDED_MAX_NEW_TOKENS, Checkpoint, find_checkpoint, tensors_digest
from egm.codecs import Codec, get_codec
from egm.doctor.compare import first_difference
from egm.doctor.pictures import CONTROLS, Picture, built_in_pictures
from egm.doctor.recording import Parting, RecordedAnswer, Recording, VisualTokens, scores_as_recorded
from egm.environment import package_versions
from egm.extras import CHECKPOINTS, need
from egm.progress import track
from egm.types import Completion, Message

if TYPE_CHECKING:
    from egm.backends.transformers import TransformersBackend

MAX_NEW_TOKENS: Final = 384
"""Most tokens of an answer of any other model than egm-tiny: what stands after them is not compared."""
CONTROL_TOKENS: Final = 96
"""Most tokens of an answer that is asked for without a picture."""
_PIECE = 16  # characters of a parting
_AT_ONCE = 8  # pictures that are answered together while a defect is simulated


def record(
    model: str | os.PathLike[str] = EMBEDDED,
    *,
    codec: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    pictures: Sequence[str] | None = None,
    max_new_tokens: int | None = None,
    simulate: bool = True,
) -> Recording:
    """Record what a checkpoint answers to the built-in pictures in this process.

    Args:
        model: egm-tiny, a folder, or a hub name.
        codec: How it is asked and read; None takes what its configuration calls for.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "auto", "float32", "bfloat16" or "float16".
        pictures: Names of built-in pictures; None takes all.
        max_new_tokens: Most tokens of an answer; None is 640 for egm-tiny, whose answers all end by then, and 384 else.
        simulate: Whether to record too where known defects would change the texts, which takes several times as long,
            and torch.

    Raises:
        EgmError: As `Grounder.load` raises.
    """
    from egm.grounder import Grounder

    drawn = built_in_pictures(pictures)
    checkpoint = find_checkpoint(model)
    if simulate:
        need("recording where known defects would change the answers", *CHECKPOINTS)
    tokens = max_new_tokens or (EMBEDDED_MAX_NEW_TOKENS if checkpoint.name == EMBEDDED else MAX_NEW_TOKENS)
    settings = GenerationSettings(max_new_tokens=tokens)
    with Grounder.load(model, codec=codec, device=device, dtype=dtype, settings=settings, batch_size=1) as grounder:
        recording = record_backend(grounder.backend, checkpoint, grounder.codec, drawn, settings)
    if not simulate:
        return recording
    return with_simulations(recording, checkpoint, drawn, device=device, dtype=dtype)


def record_backend(
    backend: Backend, checkpoint: Checkpoint, codec: Codec, pictures: Sequence[Picture], settings: GenerationSettings
) -> Recording:
    """Record what a backend in this process answers; see `record`."""
    info = backend.describe()
    versions = package_versions(*info.packages) | dict(info.versions)
    return Recording(
        model=checkpoint.name,
        weights=tensors_digest(checkpoint.path),
        codec=codec.name,
        max_new_tokens=settings.max_new_tokens,
        versions=versions | ({"hardware": info.hardware} if info.hardware else {}),
        engine=info.name,
        vision=vision_of(checkpoint),
        answers=tuple(_answers(backend, codec, pictures, settings)),
        controls=tuple(_control(backend, codec, phrase) for phrase in CONTROLS),
    )


def question(codec: Codec, picture: Picture) -> list[Message]:
    """Ask what is asked about a picture."""
    return codec.messages(picture.phrase)


def control_question(codec: Codec, phrase: str) -> list[Message]:
    """Ask about a phrase without a picture."""
    return [
        {**message, "content": [part for part in message["content"] if part.get("type") != "image"]}
        for message in codec.messages(phrase)
    ]


def _answers(
    backend: Backend, codec: Codec, pictures: Sequence[Picture], settings: GenerationSettings
) -> Iterator[RecordedAnswer]:
    for picture in track(pictures, "recording answers"):
        request = Request(question(codec, picture), [picture.image])
        (reply,) = backend.generate([request], settings)
        grounding = codec.parse(
            reply.text, size=picture.image.size, finish_reason=reply.finish_reason, seen_size=reply.seen_size
        )
        box = None if grounding.box is None else grounding.box.corners
        yield _recorded(backend, request, reply, picture=picture.name, digest=picture.digest, box=box)


def _control(backend: Backend, codec: Codec, phrase: str) -> RecordedAnswer:
    request = Request(control_question(codec, phrase))
    (reply,) = backend.generate([request], GenerationSettings(max_new_tokens=CONTROL_TOKENS))
    return _recorded(backend, request, reply, picture=phrase, digest="", box=None)


def _recorded(backend: Backend, request: Request, reply: Completion, **names: Any) -> RecordedAnswer:
    return RecordedAnswer(
        **names,
        text=reply.text,
        finish_reason=reply.finish_reason,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        seen_size=reply.seen_size,
        logprob=None if reply.logprob is None else round(reply.logprob, 5),
        **scores_as_recorded(backend.token_scores(request, reply.text)),
    )


def vision_of(checkpoint: Checkpoint) -> VisualTokens | None:
    """Read how a checkpoint's processor cuts pictures up; None where it is no Qwen-VL's."""
    import json

    for name in ("preprocessor_config.json", "processor_config.json"):
        if not (checkpoint.path / name).is_file():
            continue
        content = json.loads((checkpoint.path / name).read_bytes())
        found = content.get("image_processor", content)
        try:
            size = found["size"]
            side = int(found["patch_size"]) * int(found["merge_size"])
            return VisualTokens(side, int(size["shortest_edge"]), int(size["longest_edge"]))
        except (KeyError, TypeError, ValueError):
            continue
    return None


def with_simulations(
    recording: Recording, checkpoint: Checkpoint, pictures: Sequence[Picture], *, device: str, dtype: str
) -> Recording:
    """Add where known defects would change the texts of a recording; see `egm.doctor.simulate`.

    Raises:
        EgmError: As `TransformersBackend.load` raises.
    """
    from dataclasses import replace

    from egm.backends.transformers import TransformersBackend
    from egm.doctor.simulate import simulations_of

    found: dict[str, Mapping[str, Parting]] = {}
    with ExitStack() as stack:
        backend = stack.enter_context(TransformersBackend.load(checkpoint, device=device, dtype=dtype, fast=False))
        for name, simulation in simulations_of(backend.module).items():
            with simulation(backend.module):
                found[name] = _partings(backend, recording, pictures, f"simulating {name}")
    return replace(recording, simulated=found)


def _partings(
    backend: TransformersBackend, recording: Recording, pictures: Sequence[Picture], task: str
) -> dict[str, Parting]:
    codec, settings = get_codec(recording.codec), GenerationSettings(max_new_tokens=recording.max_new_tokens)
    found: dict[str, Parting] = {}
    for start in track(range(0, len(pictures), _AT_ONCE), task):
        batch = pictures[start : start + _AT_ONCE]
        requests = [Request(question(codec, picture), [picture.image]) for picture in batch]
        for picture, request, reply in zip(batch, requests, backend.generate(requests, settings), strict=True):
            place = first_difference(recording.answer_to(picture).text, reply.text)
            if place is not None:
                scores = backend.token_scores(request, reply.text[: place + _PIECE])
                lead = next((score.lead for score in scores if score.end > place), 0.0)
                found[picture.name] = Parting(place, reply.text[place : place + _PIECE], round(lead, 2))
    return found
