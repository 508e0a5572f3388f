"""Drafts in `latency.py`: recorded texts replayed through random weights.

Random weights write nothing that a draft foresees. So every pass is computed, and then what it picked is replaced, on
the device and within CUDA graphs, by the token that a recorded text has there: drafts are right as often as in such
texts, and times are those of the passes. The texts are targets of SynthRef, short reasoning and a box.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from decode_timing import DEVICE

from egm.backends.base import Request
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.models.decode.state import DecodeState
from egm.types import Sample

if TYPE_CHECKING:
    from latency_parts import Rig, Row
    from PIL.Image import Image

_CODEC = get_codec("qwen3_vl")
_MEAN, _OFF = 101, 14  # tokens of a text: EGM-8B's mean as published, and how far from it one may be
_TEXTS = 8
_ROOM = 512  # tokens that an answer may have


def recorded(tokenizer: Any, count: int) -> list[tuple[Sample, str, list[int]]]:
    """Questions with the texts that answer them and their tokens: of a scene the one nearest to the mean length."""
    source, found = SynthRef("val", rationale="official"), []
    for scene in range(source.scenes or 0):
        targets = [
            (each, _CODEC.target(each.phrase, each.box, size=each.size, rationale=each.rationale))
            for each in source.samples(scene)
        ]
        told = [(sample, text, [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]) for sample, text in targets]
        best = min(told, key=lambda each: abs(len(each[2]) - _MEAN))
        found += [best] if abs(len(best[2]) - _MEAN) <= _OFF else []
        if len(found) == count:
            break
    return found


@contextmanager
def replay(decoder: Any, script: torch.Tensor) -> Iterator[None]:
    """Let answers be written as a script says, which begins with as many places as their prompt has tokens."""
    draw = DecodeState._draw

    def replayed(state: DecodeState, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        logprobs = draw(state, scores)[1]
        places = state._cursor - state._first  # of the token to write; behind a draft, of the newest that is there
        if len(scores) > 1:
            places = places + torch.arange(1, len(scores) + 1, device=places.device)
        return script.index_select(0, places), logprobs

    decoder.release_graphs()
    DecodeState._draw = replayed  # type: ignore[method-assign]
    try:
        yield
    finally:
        DecodeState._draw = draw  # type: ignore[method-assign]
        decoder.drafts = False
        decoder.release_graphs()


def drafts(rig: Rig, way: str) -> Iterator[Row]:
    """One answer at a time without drafts and with them: whole, and a pass behind its first token."""
    backend = rig.backend(way)
    decoder, texts = backend._decoder, recorded(backend.processor.tokenizer, min(_TEXTS, rig.scale.together))
    count, tokens = len(texts), sum(len(ids) for *_, ids in texts)
    unmeasured, rounds = 2 if DEVICE == "cuda" else 0, max(1, rig.scale.rounds // 2)  # graphs are recorded in the first
    script = torch.zeros(4 * _ROOM, dtype=torch.long, device=rig.model.device)
    with replay(decoder, script):
        for drafted in (False, True):
            decoder.drafts, taken = drafted, []
            for _ in range(unmeasured + rounds):
                before, whole, behind = replace(decoder.draft_counts), 0.0, 0.0
                for sample, text, ids in texts:
                    (first,) = rig.answer(way, [_request(sample, rig.picture())], 1)[1]
                    script[first.prompt_tokens : first.prompt_tokens + len(ids)] = torch.tensor(ids)
                    seconds, (reply,) = rig.answer(way, [_request(sample, rig.picture())], _ROOM)
                    if (reply.text, reply.completion_tokens) != (text, len(ids)):
                        raise RuntimeError(f"{sample.id} came out other than recorded: {reply.text[:80]!r}")
                    whole, behind = whole + seconds, behind + reply.seconds - first.seconds
                taken.append((whole, behind))
            whole, behind = (statistics.median(each) for each in zip(*taken[unmeasured:], strict=True))
            made, passes, name, saved = decoder.draft_counts, tokens - count, "no drafts", ""
            if drafted:
                passes, name = made.passes - before.passes, "drafts"
                right = (made.accepted - before.accepted) / max(1, made.drafted - before.drafted)
                saved = f", {1 - passes / (tokens - count):.0%} of passes saved, {right:.0%} of drafted tokens right"
            step = rig.step_floor(way, first.prompt_tokens + tokens / count / 2)
            floor = rig.reading_floor(first.prompt_tokens) + passes / count * step
            case = f"{name}, an answer of {tokens / count:.0f} tokens{saved}"
            yield {"case": case, "ms": 1e3 * whole / count, "floor": floor}
            case = f"{name}, a pass of {(tokens - count) / passes:.2f} tokens"
            yield {"case": case, "ms": 1e3 * behind / passes, "floor": step}


def _request(sample: Sample, picture: Image) -> Request:
    """Ask as a grounder does, about a picture of the table's size."""
    frame = _CODEC.frame(sample.phrase, size=picture.size)
    return Request(_CODEC.messages(sample.phrase, amodal=sample.amodal), [picture], drafts=(frame,))
