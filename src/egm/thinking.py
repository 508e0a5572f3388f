"""Thinking only where it pays: a direct answer, how sure it is, and the gate that decides whether to think after all.

`egm.calibrate` fits a gate, and says what it guarantees. A gate is for one model, codec, prompt style and settings.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from egm.backends.base import GenerationSettings, Request, behind, no_logprobs
from egm.backends.remote import Rounds
from egm.codecs import Codec
from egm.errors import DataError, EgmError
from egm.failures import phrase_facts
from egm.records import list_differences
from egm.types import Completion, Expect, cost_of_both
from egm.voting import GroundedCompletion, vote

GATE_NAME: Final = "gate.json"
MEASURES: Final[Mapping[str, str]] = {
    "mean": "mean log-probability of the tokens that hold the box's numbers",
    "least": "least log-probability among the tokens that hold the box's numbers",
    "phrase": "relation words, ordinals, superlatives and negations of the phrase, counted below zero",
}
"""What a gate may go by: how sure a model is of its direct answer, or, without any answer, how plain the phrase is."""

_FORMAT: Final = 1
_MOST_BYTES: Final = 2**22  # of a gate's file; one takes some kilobytes
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
_LEFT_OUT: Final = frozenset({"think", "seed"})  # of the settings: a gate holds for any seed


@dataclass(frozen=True, slots=True)
class Gate:
    """Decides whether a model thinks about a question.

    Attributes:
        measure: One of `MEASURES`.
        threshold: The least certainty at which the direct answer is taken; None where thinking always pays.
        model: What it was fitted on: the name.
        tensors: Digest of its weights, where they were in the process; see `gate_for`.
        codec: As in a journal's header.
        prompt: Prompt style, and an example of its wording.
        settings: How text was generated.
        facts: What else the file says: the bound, what is expected of it, the curve, data, versions.
    """

    measure: str
    threshold: float | None
    model: str
    codec: Mapping[str, Any]
    prompt: Mapping[str, str]
    settings: Mapping[str, Any]
    tensors: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reads_answer(self) -> bool:
        """Whether it goes by the direct answer, which then has to be asked for; else by the phrase alone."""
        return self.measure != "phrase"

    def takes_direct(self, certainties: Mapping[str, float]) -> bool:
        """Tell whether a direct answer of these certainties is taken; one that is not known is not sure."""
        certainty = certainties.get(self.measure)
        return self.threshold is not None and certainty is not None and certainty >= self.threshold

    def check(self, subject: Mapping[str, Any]) -> None:
        """Refuse to decide for what it was not fitted on.

        Args:
            subject: What `gate_subject` returns.

        Raises:
            EgmError: With the name of what is another: model, codec, prompt style or a setting.
        """
        mine = {"model": self.model, "codec": self.codec, "prompt": self.prompt, "settings": _counted(self.settings)}
        if differences := list_differences(subject, mine):
            raise EgmError(
                f"the gate was fitted on something else: {'; '.join(differences)}: calibrate anew (egm calibrate), or "
                "ask what it was fitted on"
            )

    def check_expect(self, expect: str) -> None:
        """Refuse questions that expect another number of boxes: what is certified says nothing of them.

        Raises:
            EgmError: If it was fitted on others.
        """
        fitted = self.facts.get("expects", ["one"])
        if expect not in fitted:
            known = " or ".join(map(str, fitted))
            raise EgmError(
                f"the gate was fitted on questions that expect {known}, not {expect}: calibrate on such questions, or "
                "take think=always"
            )

    def to_json(self) -> str:
        """Write the file's text."""
        row = {"gate": _FORMAT, **{name: value for name, value in asdict(self).items() if name != "facts"}}
        return json.dumps({**row, **self.facts}, indent=2, allow_nan=False) + "\n"


GateSource: TypeAlias = Gate | str | os.PathLike[str] | None
"""A gate, or where its file is."""


def gate_for(gate: GateSource, name: str, folder: Path) -> Gate | None:
    """Return a gate for a checkpoint: under which name it goes does not count where the weights are known.

    Args:
        gate: The gate, or its file.
        name: The checkpoint's name here.
        folder: Where it lies.

    Raises:
        EgmError: If it was fitted on other weights.
    """
    from egm.backends.checkpoint import tensors_digest

    opened = _opened(gate)
    if opened is None or opened.tensors is None:
        return opened
    if opened.tensors != tensors_digest(folder):
        raise EgmError(f"the gate was fitted on other weights ({opened.model}) than those of {name}: calibrate anew")
    return replace(opened, model=name)


def _opened(gate: GateSource) -> Gate | None:
    return gate if gate is None or isinstance(gate, Gate) else read_gate(gate)


def read_gate(path: str | os.PathLike[str]) -> Gate:
    """Read a gate that `egm calibrate` wrote: the file, or the folder that it lies in.

    Raises:
        DataError: If there is none, or it is none that this version reads.
    """
    from egm.datasets.inputs import JsonError, load_json, open_regular

    file = Path(path)
    file = file / GATE_NAME if file.is_dir() else file
    try:
        with open_regular(file) as stream:
            content = stream.read(_MOST_BYTES + 1)
        row = load_json(content) if len(content) <= _MOST_BYTES else None
    except (OSError, JsonError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else f"it {error}"
        raise DataError(f"gate {str(file)!r} cannot be read ({reason}): give a file that egm calibrate wrote") from None
    if not isinstance(row, dict) or row.pop("gate", None) != _FORMAT or not _fits(row):
        raise DataError(f"{str(file)!r} is no gate that this version reads: give a file that egm calibrate wrote")
    known = ("measure", "threshold", "model", "tensors", "codec", "prompt", "settings")
    return Gate(**{name: row.pop(name) for name in known}, facts=row)


def _fits(row: Mapping[str, Any]) -> bool:
    """Whether each value is of its sort; all have to be said, so that none is lost by an edit."""
    threshold, objects = row.get("threshold", ""), ("codec", "prompt", "settings")
    # An integer of JSON may be too large for a float; a bool is an integer.
    number = type(threshold) in (int, float) and abs(threshold) <= sys.float_info.max
    return (
        row.get("measure") in tuple(MEASURES)
        and (number or threshold is None)
        and isinstance(row.get("model"), str)
        and isinstance(row.get("tensors", 0), str | type(None))
        and all(isinstance(row.get(name), dict) for name in objects)
        and isinstance(row.get("expects", []), list)
    )


def gate_subject(model: str, codec: Codec, prompt: str | None, settings: GenerationSettings) -> dict[str, Any]:
    """Say what a gate has to have been fitted on: model, codec, prompt style with its wording, and settings.

    Raises:
        EgmError: If the codec has no direct answer, and the settings may ask for one.
    """
    if settings.think != "always":
        codec.direct_prefill("anything")
    style = prompt or codec.prompts[0]
    wording = str(codec.messages("PHRASE", prompt=style)[0]["content"][-1]["text"])
    return {
        "model": model,
        "codec": codec.to_dict(),
        "prompt": {"style": style, "modal": wording},
        "settings": _counted(asdict(settings)),
    }


def checked_gate(gate: GateSource, settings: GenerationSettings, subject: Mapping[str, Any]) -> Gate | None:
    """Return a gate, read from its file where that is given, for what it was fitted on; None where none is asked for.

    Args:
        gate: The gate, or its file.
        settings: Whether one is asked for (think "auto").
        subject: What it is to decide for (`gate_subject`).

    Raises:
        EgmError: If it was fitted on something else, is missing, or nothing asks for it.
    """
    if (gate is not None) != (settings.think == "auto"):
        said = "needs a gate, which egm calibrate fits: give its file (--gate)" if gate is None else "asks no gate"
        raise EgmError(f"think={settings.think} {said}{'' if gate is None else ': take think=auto, or leave it out'}")
    opened = _opened(gate)
    if opened is not None:
        opened.check(subject)
    return opened


def _counted(settings: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(settings))  # a tuple is a list there
    return {name: value for name, value in plain.items() if name not in _LEFT_OUT}


def certainties_of(reply: Completion, expect: Expect, phrase: str) -> dict[str, float]:
    """Say how sure a model is of a direct answer, by each of `MEASURES` that can be told.

    Where one box is expected, the tokens that hold any part of its four numbers count, and the rest, such as the label,
    does not; else all tokens do, since how many boxes there are is a part of the answer.

    Args:
        reply: The reply, without its prefill; with `token_logprobs`, where the engine tells.
        expect: How many boxes were asked for.
        phrase: What was asked.

    Example:
        >>> reply = Completion("12, 7", token_logprobs=((1, -0.5), (2, -0.1), (4, -9.0), (5, 0.0)))
        >>> certainties_of(reply, "one", "the second cup")
        {'phrase': -1.0, 'mean': -0.19999999999999998, 'least': -0.5}
    """
    found = {"phrase": plainness(phrase)}
    numbers = [match.span() for match in _NUMBER.finditer(reply.text)][:4]
    starts = [0, *(end for end, _ in reply.token_logprobs)]
    sure = [
        value
        for start, (end, value) in zip(starts, reply.token_logprobs, strict=False)
        if expect != "one" or any(start < last and end > first for first, last in numbers)
    ]
    if sure:
        found |= {"mean": sum(sure) / len(sure), "least": min(sure)}
    return found


def plainness(phrase: str) -> float:
    """The measure "phrase": what makes a phrase complex (`egm.failures`), counted below zero."""
    return float(-phrase_facts(phrase).count)


def _answer_directly(
    request: Request,
    settings: GenerationSettings,
    read: Callable[[Completion], GroundedCompletion],
    phrase: str,
    gate: Gate | None,
) -> Rounds[GroundedCompletion]:
    """Ask for an answer without reasoning, whose beginning is the request's prefill; or for several, as votes.

    Raises:
        EgmError: If a gate goes by how sure the answer is, and the engine does not tell.
    """

    def read_direct(reply: Completion) -> GroundedCompletion:
        if gate is not None and gate.reads_answer and reply.text and not reply.token_logprobs:
            raise EgmError(no_logprobs("the answers come without them"))
        answer = read(behind(request.prefill, reply))
        thought = bool(answer.grounding.reasoning)  # all the same, as a model may that was never taught to answer so
        if not thought:  # servers count what they take for reasoning
            answer = replace(answer, completion=replace(answer.completion, reasoning_tokens=0))
        found = certainties_of(reply, answer.grounding.expect, phrase)
        if thought or answer.grounding.failure is not None:  # neither is a sure answer, whatever the tokens say
            found = {"phrase": found["phrase"]}
        return replace(answer, grounding=replace(answer.grounding, thought=thought), certainties=found)

    answer = yield from vote(request, settings, read_direct)
    if settings.votes == 1:
        return answer
    # Of several votes their agreement says how sure they are, and of one answer its tokens.
    thought = any(each.grounding.thought for each in answer.votes)
    return replace(
        answer, grounding=replace(answer.grounding, thought=thought), certainties={"phrase": plainness(phrase)}
    )


def think_or_not(
    request: Request,
    settings: GenerationSettings,
    read: Callable[[Completion], GroundedCompletion],
    asked: Mapping[str, Any],
    *,
    codec: Codec,
    gate: Gate | None,
    told: bool,
) -> Rounds[GroundedCompletion]:
    """Ask as `GenerationSettings.think` says: with reasoning, directly, or with reasoning where a gate says so.

    Args:
        request: The question.
        settings: Whether to think, how many votes, and when to stop.
        read: Reads a reply.
        asked: Its phrase, and `expect` where that is not one, as `Codec.direct_prefill` takes them.
        codec: How a direct answer begins.
        gate: What decides, with "auto".
        told: Whether log-probabilities cost nothing to ask for; else they are asked for only where they decide.
    """
    if settings.think == "always":
        return vote(request, settings, read)
    tells, phrase = told if gate is None else gate.reads_answer, asked["phrase"]
    begun = codec.direct_prefill(**asked)
    direct = replace(request, prefill=begun, cut=None, token_logprobs=tells or request.token_logprobs)
    answer = _answer_directly(direct, settings, read, phrase, gate)
    return answer if gate is None else _think_if_unsure(gate, answer, vote(request, settings, read), phrase)


def _think_if_unsure(
    gate: Gate, direct: Rounds[GroundedCompletion], thinking: Rounds[GroundedCompletion], phrase: str
) -> Rounds[GroundedCompletion]:
    """Ask directly, and again with reasoning where the gate does not take that; the costs are then those of both.

    A gate that goes by the phrase decides before anything is asked, and costs nothing.
    """
    before = {"phrase": plainness(phrase)}
    first: GroundedCompletion | None = None
    if gate.threshold is not None and (gate.reads_answer or gate.takes_direct(before)):
        first = yield from direct
        certainties = first.certainties or {}
        if gate.takes_direct(certainties):
            return _decided(gate, first, certainties, thought=bool(first.grounding.thought))
    second = yield from thinking
    certainties = before if first is None else first.certainties or {}
    return _decided(gate, second if first is None else _with_costs(first, second), certainties, thought=True)


def _decided(
    gate: Gate, answer: GroundedCompletion, certainties: Mapping[str, float], *, thought: bool
) -> GroundedCompletion:
    grounding = replace(answer.grounding, thought=thought, certainty=certainties.get(gate.measure))
    return replace(answer, grounding=grounding, certainties=certainties)


def _with_costs(first: GroundedCompletion, second: GroundedCompletion) -> GroundedCompletion:
    one, other = first.completion, second.completion
    both = {**cost_of_both(one, other), "reasoning_tokens": other.reasoning_tokens}
    completion = replace(other, **both)
    read, written = completion.prompt_tokens, completion.completion_tokens
    grounding = replace(second.grounding, tokens=written, prompt_tokens=read, seconds=completion.seconds)
    return replace(second, grounding=grounding, completion=completion, direct=first)
