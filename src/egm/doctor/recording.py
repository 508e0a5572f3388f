"""What a checkpoint answers to the built-in pictures in this process: the reference, live or from a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from egm.backends.base import TokenScore
from egm.backends.checkpoint import EMBEDDED
from egm.datasets.inputs import JsonError, load_json, read_whole
from egm.doctor.pictures import PICTURES_VERSION, Picture
from egm.errors import EgmError
from egm.files import write_text

FORMAT: Final = 1
"""Version of the file's format."""


@dataclass(frozen=True, slots=True)
class VisualTokens:
    """How a checkpoint's processor cuts pictures up.

    Attributes:
        token: Side of the square that one visual token covers, in pixels.
        min_pixels: Fewest pixels of a picture after resizing.
        max_pixels: Most.
    """

    token: int
    min_pixels: int
    max_pixels: int


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """What the reference answered about a picture.

    Attributes:
        picture: The picture's name.
        digest: Of its pixels and phrase.
        text: The whole text, reasoning included.
        finish_reason: As in `Completion`.
        prompt_tokens: Tokens of the prompt, visual ones included.
        completion_tokens: Tokens generated.
        seen_size: Width and height after the processor's resize.
        box: The box that the text gives, in pixels, for whoever reads the file.
        logprob: Mean log-probability of the tokens generated.
        ends: For each token, how many characters of the text are read with it; last, one more than there are.
        logprobs: Log-probabilities of the tokens; last, that of the end.
        leads: By how much each token led over the second likeliest, in nats; last, the end.
    """

    picture: str
    digest: str
    text: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    seen_size: tuple[int, int] | None
    box: tuple[float, float, float, float] | None
    logprob: float | None
    ends: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    leads: tuple[float, ...] = ()

    def lead_at(self, place: int) -> float | None:
        """Return how sure the reference was of what stands at a character of its text, in nats; None if not known."""
        return next((lead for end, lead in zip(self.ends, self.leads, strict=True) if end > place), None)

    def beginning(self, tokens: int) -> RecordedAnswer:
        """Return the answer as it were if it had been cut off after so many tokens."""
        if tokens >= (self.completion_tokens or 0) or tokens > len(self.ends):
            return self
        kept = self.logprobs[:tokens]
        return replace(
            self,
            text=self.text[: self.ends[tokens - 1]],
            finish_reason="length",
            completion_tokens=tokens,
            box=None,
            logprob=sum(kept) / tokens,
            ends=self.ends[:tokens],
            logprobs=kept,
            leads=self.leads[:tokens],
        )


@dataclass(frozen=True, slots=True)
class Parting:
    """Where a text parts from the reference's because of a defect.

    Attributes:
        place: The first character that differs.
        text: How it goes on there, some characters long.
        lead: How sure the checkpoint with the defect is of that, in nats.
    """

    place: int
    text: str
    lead: float


@dataclass(frozen=True, slots=True)
class Recording:
    """What a checkpoint answers: the reference that an engine is held against.

    Attributes:
        model: Its name.
        weights: Digest of its tensors (`egm.backends.checkpoint.tensors_digest`).
        codec: Name of the codec that asks and reads it.
        max_new_tokens: Most tokens of an answer.
        versions: Versions of what answered.
        engine: What answered.
        vision: How pictures are cut up; None where the processor does not say.
        answers: One a picture, in their order.
        controls: By phrase, the answers to `CONTROLS`, which show no picture.
        simulated: By the name of a defect, where the checkpoint's texts part from those above if it has it, by picture.
    """

    model: str
    weights: str
    codec: str
    max_new_tokens: int
    versions: Mapping[str, str]
    engine: str
    vision: VisualTokens | None
    answers: tuple[RecordedAnswer, ...]
    controls: tuple[RecordedAnswer, ...] = ()
    simulated: Mapping[str, Mapping[str, Parting]] = field(default_factory=dict)

    def beginning(self, tokens: int) -> Recording:
        """Return the recording as it were if answers had been cut off after so many tokens."""
        if tokens >= self.max_new_tokens:
            return self
        answers = tuple(answer.beginning(tokens) for answer in self.answers)
        lengths = {answer.picture: len(answer.text) for answer in answers}
        simulated = {
            name: {picture: one for picture, one in partings.items() if one.place < lengths[picture]}
            for name, partings in self.simulated.items()
        }
        controls = tuple(answer.beginning(tokens) for answer in self.controls)
        return replace(self, max_new_tokens=tokens, answers=answers, controls=controls, simulated=simulated)

    def answer_to(self, picture: Picture) -> RecordedAnswer:
        """Return the answer about a picture.

        Raises:
            EgmError: If there is none, or it was about another picture.
        """
        found = next((answer for answer in self.answers if answer.picture == picture.name), None)
        if found is None or found.digest != picture.digest:
            what = "lacks" if found is None else "was made with another"
            raise EgmError(
                f"the recording of {self.model} {what} picture {picture.name!r}: make it again with "
                "`egm doctor --record MODEL --out FILE`"
            )
        return found


def write_recording(recording: Recording, path: Path) -> None:
    """Write a recording as JSON, in full or not at all."""
    value = {"egm_doctor": FORMAT, "pictures": PICTURES_VERSION, **asdict(recording)}
    answers = ",\n".join(json.dumps(answer) for answer in value.pop("answers"))
    simulated = ",\n".join(f"{json.dumps(name)}: {json.dumps(held)}" for name, held in value.pop("simulated").items())
    head = json.dumps(value)[:-1]
    write_text(path, f'{head}, "answers": [\n{answers}\n], "simulated": {{\n{simulated}\n}}}}\n')


def read_recording(path: str | os.PathLike[str]) -> Recording:
    """Read a recording.

    Raises:
        EgmError: If it is none, is of another version, or was made with other pictures.
    """
    from pydantic import TypeAdapter, ValidationError

    again = "make it again with `egm doctor --record MODEL --out FILE`"
    try:
        value = load_json(read_whole(Path(path)))
    except JsonError as error:
        raise EgmError(f"{path} {error}: it is no recording; {again}") from None
    if not isinstance(value, dict) or "egm_doctor" not in value:
        raise EgmError(f"{path} is no recording of egm doctor: {again}")
    if value["egm_doctor"] != FORMAT:
        raise EgmError(f"{path} is a recording in format {value['egm_doctor']!r}, and this EGM reads {FORMAT}: {again}")
    if value.get("pictures") != PICTURES_VERSION:
        raise EgmError(f"{path} was made with other pictures ({value.get('pictures')!r}): {again}")
    fields = {name: held for name, held in value.items() if name not in ("egm_doctor", "pictures")}
    try:
        recording = TypeAdapter(Recording).validate_json(json.dumps(fields), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise EgmError(f"{path} is a damaged recording: {where or 'it'}: {first['msg']}; {again}") from None
    for answer in recording.answers:
        if not len(answer.ends) == len(answer.leads) == len(answer.logprobs):
            raise EgmError(f"{path} is a damaged recording: tokens of {answer.picture!r} are missing; {again}")
    return recording


def shipped_recording() -> Recording:
    """Return the recording of egm-tiny that comes with the package."""
    return read_recording(Path(__file__).with_name(f"{EMBEDDED}.json"))


def scores_as_recorded(scores: list[TokenScore] | None) -> dict[str, Any]:
    """Round token scores to what a recording keeps of them."""
    return {
        "ends": tuple(score.end for score in scores or ()),
        "logprobs": tuple(round(score.logprob, 3) for score in scores or ()),
        "leads": tuple(round(score.lead, 2) for score in scores or ()),
    }
