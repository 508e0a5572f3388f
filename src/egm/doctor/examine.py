"""Is an engine right? Its answers to the built-in pictures, beside those of the same checkpoint in this process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from egm.backends.base import Backend, GenerationSettings, Request
from egm.backends.checkpoint import EMBEDDED, check_folder, find_checkpoint, tensors_digest
from egm.backends.openai.backend import OpenAIBackend
from egm.backends.retry import RetryPolicy
from egm.codecs import get_codec
from egm.doctor.diagnose import Diagnosis, EngineVerdict, diagnose
from egm.doctor.pictures import built_in_pictures
from egm.doctor.recorder import record, with_simulations
from egm.doctor.recording import Recording, read_recording, shipped_recording
from egm.doctor.rounds import ROUNDS, TOGETHER, Observation, Round, count_questions, observe
from egm.errors import BackendError, EgmError, ModelError
from egm.progress import progress_task

_RECORD = "record one with `egm doctor --record MODEL --out FILE` and give it as --reference FILE"
_UNNAMED = frozenset(["unknown", "vision", "quantised"])


@dataclass(frozen=True, slots=True)
class Examination:
    """What came of examining an engine.

    Attributes:
        diagnosis: The verdict, and what it rests on.
        observation: What the engine answered.
        recording: What the reference answered.
    """

    diagnosis: Diagnosis
    observation: Observation
    recording: Recording

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        engine = self.observation.engine
        return {
            "model": self.observation.model,
            "engine": {"name": engine.name, "version": engine.release},
            "reference": {
                "model": self.recording.model,
                "weights": self.recording.weights,
                "engine": self.recording.engine,
                "versions": dict(self.recording.versions),
            },
            **self.diagnosis.to_dict(),
        }


def examine_server(
    url: str,
    model: str | None = None,
    *,
    reference: str | os.PathLike[str] | Recording | None = None,
    codec: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    pictures: Sequence[str] | None = None,
    rounds: Sequence[Round] = ROUNDS,
    max_new_tokens: int | None = None,
    retry: RetryPolicy | None = None,
    api_key: str | None = None,
) -> Examination:
    """Examine the engine behind an OpenAI-compatible server.

    Args:
        url: Where it is.
        model: The name it serves the model by; None takes the only one.
        reference: A recording, its file, or the checkpoint to ask in this process, by name or folder; None takes the
            recording of egm-tiny that comes with the package, where that is what is served.
        codec: How the model is asked and read; None takes what the reference was asked by.
        device: Where a checkpoint in this process runs.
        dtype: What it computes in.
        pictures: Names of built-in pictures; None takes all.
        rounds: What to ask.
        max_new_tokens: Most tokens of an answer; fewer than were recorded compare beginnings, without boxes.
        retry: How failed requests are sent again; None is twice.
        api_key: The server's key; None takes OPENAI_API_KEY from the environment, if set.

    Raises:
        EgmError: If there is no reference, or it is of other weights, other pictures or another format.
        BackendError: If the server does not answer the first question.
    """
    drawn = built_in_pictures(pictures)
    with ExitStack() as stack:
        open_engine = partial(
            OpenAIBackend,
            url,
            api_key=api_key,
            concurrency=TOGETHER,
            stall_seconds=300.0,
            retry=retry or RetryPolicy(retries=2),
        )
        engine = stack.enter_context(open_engine(model))
        recording = find_reference(reference, served=engine.model, codec=codec, device=device, dtype=dtype)
        recording = recording if max_new_tokens is None else recording.beginning(max_new_tokens)
        for picture in drawn:
            recording.answer_to(picture)  # or the engine would be asked in vain
        settings = GenerationSettings(max_new_tokens=recording.max_new_tokens)
        if _tells_logprobs(url, engine.model, api_key):
            engine.close()
            engine = stack.enter_context(open_engine(engine.model, logprobs=True))
        whole = stack.enter_context(open_engine(engine.model, stream=False))
        reader = get_codec(recording.codec)
        with progress_task("asking", count_questions(drawn, server=True)) as task:
            seen = observe(engine, reader, drawn, settings, whole=whole, rounds=rounds, progress=task.advance)
    diagnosis = diagnose(seen, recording, drawn, reader)
    unnamed = diagnosis.findings and diagnosis.findings[0].name in _UNNAMED
    live = None if isinstance(reference, Recording) or (reference and Path(reference).is_file()) else reference
    if unnamed and live is not None and not recording.simulated:
        recording = with_simulations(recording, find_checkpoint(live), drawn, device=device, dtype=dtype)
        diagnosis = diagnose(seen, recording, drawn, reader)
    return Examination(diagnosis, seen, recording)


def examine_backend(
    engine: Backend,
    recording: Recording | None = None,
    *,
    pictures: Sequence[str] | None = None,
    rounds: Sequence[Round] = ROUNDS,
    max_new_tokens: int | None = None,
) -> Examination:
    """Examine an engine that is a `Backend` of this process.

    Args:
        engine: What is asked.
        recording: What it is held against; None takes that of egm-tiny.
        pictures: Names of built-in pictures; None takes all.
        rounds: What to ask.
        max_new_tokens: Most tokens of an answer; fewer than were recorded compare beginnings, without boxes.

    Raises:
        EgmError: If the recording lacks one of the pictures, or the engine does not answer the first question.
    """
    drawn, recording = built_in_pictures(pictures), recording or shipped_recording()
    recording = recording if max_new_tokens is None else recording.beginning(max_new_tokens)
    codec = get_codec(recording.codec)
    seen = observe(engine, codec, drawn, GenerationSettings(max_new_tokens=recording.max_new_tokens), rounds=rounds)
    return Examination(diagnose(seen, recording, drawn, codec), seen, recording)


def find_reference(
    reference: str | os.PathLike[str] | Recording | None,
    *,
    served: str,
    codec: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Recording:
    """Find what an engine is held against.

    Args:
        reference: See `examine_server`.
        served: What the engine calls its model: where that is egm-tiny or a folder here, its weights must be the
            reference's.
        codec: The codec that the reference must have been asked by, if that matters.
        device: Where a checkpoint in this process runs.
        dtype: What it computes in.

    Raises:
        EgmError: If there is none, or it does not fit.
    """
    weights = _weights_of(served)
    if reference is None:
        recording = shipped_recording()
        if weights != recording.weights:
            raise EgmError(
                f"there is no recording of {served!r} here: give the same checkpoint as --reference MODEL, or {_RECORD}"
            )
    elif isinstance(reference, Recording):
        recording = reference
    elif Path(reference).is_file():
        recording = read_recording(reference)
    elif os.fspath(reference) == EMBEDDED:
        recording = shipped_recording()
    else:
        recording = record(reference, codec=codec, device=device, dtype=dtype, simulate=False)
    if weights is not None and weights != recording.weights:
        raise EgmError(
            f"the reference is of other weights ({recording.model}, {recording.weights}) than {served!r} ({weights}): "
            f"give that checkpoint as --reference, or {_RECORD}"
        )
    if codec is not None and codec != recording.codec:
        raise EgmError(
            f"the reference was asked by codec {recording.codec!r}, not {codec!r}: leave --codec out, or record anew"
        )
    return recording


def _weights_of(served: str) -> str | None:
    """The digest of what is served, where its name says which files here that is."""
    try:
        if served == EMBEDDED:
            return tensors_digest(find_checkpoint(served).path)
        if Path(served).is_dir():
            return tensors_digest(check_folder(Path(served), served).path)
    except (ModelError, OSError, ValueError):
        return None
    return None


def _tells_logprobs(url: str, model: str, key: str | None) -> bool:
    """Ask for log-probabilities once: some servers refuse."""
    request = Request([{"role": "user", "content": [{"type": "text", "text": "the red circle"}]}])
    with OpenAIBackend(url, model, api_key=key, logprobs=True, retry=RetryPolicy(retries=0)) as backend:
        try:
            (reply,) = backend.generate([request], GenerationSettings(max_new_tokens=2))
        except BackendError:
            return False
    return reply.logprob is not None


__all__ = ["EngineVerdict", "Examination", "examine_backend", "examine_server", "find_reference"]
