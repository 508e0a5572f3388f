"""One question, one or several sampled answers: asked for in rounds, and made into one.

Asking and waiting are apart: a generator says what to ask next and is sent the replies, so that an engine in this
process can take the rounds of many questions as one batch, and a server can answer each question at its own pace.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from egm.backends.base import GenerationSettings, Request
from egm.backends.remote import Rounds
from egm.boxes import pairwise_iou
from egm.consensus import AGREEMENT_IOU, Answer, Consensus, poll
from egm.types import Completion, Grounding, LabelledBox, sum_if_all

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class GroundedCompletion:
    """A grounding, and the reply that it was read from.

    Attributes:
        grounding: The box, or why there is none; with the picture.
        completion: The reply, with what it cost. Of several votes, the text is that of the chosen one; tokens are
            summed, and the seconds run from sending the first to the last token of the last.
        votes: All that were sampled, in their order, each with its own cost; empty where only one was asked for.
        certainties: How sure the model was of its direct answer, by measure (`egm.thinking.MEASURES`); None where none
            was asked for.
        direct: The direct answer that was asked for first and not taken, with its own cost, if any.
    """

    grounding: Grounding
    completion: Completion
    votes: tuple[GroundedCompletion, ...] = ()
    certainties: Mapping[str, float] | None = None
    direct: GroundedCompletion | None = None


def vote(
    request: Request, settings: GenerationSettings, read: Callable[[Completion], GroundedCompletion]
) -> Rounds[GroundedCompletion]:
    """Sample answers to one question until they agree or there are enough (self-consistency; see `egm.consensus`).

    Args:
        request: The question.
        settings: How many votes, and when to stop.
        read: Reads one reply.
    """
    ballot = poll(settings.votes, settings.stop_confidence)
    answers: list[GroundedCompletion] = []
    more, first = next(ballot), time.perf_counter()
    while True:
        sent = time.perf_counter()
        replies = yield [replace(request, vote=len(answers) + number) for number in range(more)]
        if not answers:
            waited = min(reply.queue_seconds for reply in replies)
        latest = [read(reply) for reply in replies]
        answers += latest
        try:
            more = ballot.send([_answer_of(answer.grounding) for answer in latest])
        except StopIteration as end:
            consensus: Consensus = end.value
            break
    if settings.votes == 1:
        return answers[0]
    seconds = sent - first + max(reply.queue_seconds + reply.seconds for reply in replies) - waited
    return _merge(answers, consensus, seconds=seconds, queue_seconds=waited)


def run_rounds(rounds: Sequence[Rounds[R]], generate: Callable[[list[Request]], list[Completion]]) -> list[R]:
    """Take several questions through their rounds, all that are open in one batch.

    Args:
        rounds: One generator a question.
        generate: Answers a batch.

    Returns:
        What each came to, in the same order.
    """
    results: dict[int, R] = {}
    waiting = {number: next(each) for number, each in enumerate(rounds)}
    while waiting:
        batch = [request for requests in waiting.values() for request in requests]
        replies = generate(batch)
        if len(replies) != len(batch):
            raise ValueError(f"the backend gave {len(replies)} replies to {len(batch)} requests")
        left, still = iter(replies), {}
        for number, requests in waiting.items():
            part = list(islice(left, len(requests)))
            try:
                still[number] = rounds[number].send(part)
            except StopIteration as end:
                results[number] = end.value
        waiting = still
    return [results[number] for number in range(len(rounds))]


def _answer_of(grounding: Grounding) -> Answer:
    if grounding.failure is not None:
        return grounding.failure
    return grounding.box if grounding.expect == "one" and grounding.box is not None else grounding.answered


def _with_confidences(boxes: tuple[LabelledBox, ...], answers: Sequence[GroundedCompletion]) -> tuple[LabelledBox, ...]:
    """The boxes, each with the share of the votes that give it."""
    if not boxes:
        return boxes
    corners = [each.box.corners for each in boxes]
    counts = [0] * len(boxes)
    for answer in answers:
        given = [box.corners for box in answer.grounding.answered]
        near = pairwise_iou(corners, given).max(axis=1, initial=0.0) >= AGREEMENT_IOU
        counts = [count + int(found) for count, found in zip(counts, near, strict=True)]
    return tuple(replace(each, confidence=count / len(answers)) for each, count in zip(boxes, counts, strict=True))


def _merge(
    answers: Sequence[GroundedCompletion], consensus: Consensus, *, seconds: float, queue_seconds: float
) -> GroundedCompletion:
    chosen = answers[consensus.chosen]
    replies = [answer.completion for answer in answers]
    firsts = [reply.first_token_seconds for reply in replies if reply.first_token_seconds is not None]
    completion = replace(
        chosen.completion,
        prompt_tokens=sum_if_all([reply.prompt_tokens for reply in replies]),
        completion_tokens=sum_if_all([reply.completion_tokens for reply in replies]),
        reasoning_tokens=sum_if_all([reply.reasoning_tokens for reply in replies]),
        seconds=seconds,
        first_token_seconds=min(firsts) if firsts else None,
        queue_seconds=queue_seconds,
    )
    boxes = chosen.grounding.boxes
    grounding = replace(
        chosen.grounding,
        boxes=boxes if chosen.grounding.expect == "one" else _with_confidences(boxes, answers),
        tokens=completion.completion_tokens,
        prompt_tokens=completion.prompt_tokens,
        seconds=seconds,
        votes=len(answers),
        confidence=consensus.agreement,
    )
    return GroundedCompletion(grounding, completion, tuple(answers))
