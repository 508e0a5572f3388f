"""A backend that gives each sample its own text, whatever else is asked and in whatever order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from egm.backends.base import Backend, GenerationSettings, Request
from egm.backends.scripted import completion_of
from egm.backends.stopping import before_stop
from egm.errors import BackendError
from egm.types import Completion


class ReplayBackend(Backend):
    """Answers each sample with its own text; keeps no requests, and no time passes.

    Because a text belongs to a sample and not to a moment, an interrupted run goes on with the right ones.
    `egm.evaluate.replay` makes one of a file.

    Args:
        answers: By a sample's seed index, what each vote on it says, from the start again after the last: a
            text, a whole reply, or the engine's failure.
        model: Name to go by.

    Example:
        >>> backend = ReplayBackend({7: ["</think> [1, 2, 3, 4]"]})
        >>> backend.generate([Request([], seed_index=7)], GenerationSettings())[0].text
        '</think> [1, 2, 3, 4]'
    """

    thinking_budgets = True

    def __init__(
        self, answers: Mapping[int, Sequence[str | Completion | BackendError]], *, model: str = "scripted"
    ) -> None:
        self.model, self._answers = model, answers

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        """Replay; see `Backend.generate`. Words count as tokens, and budgets bind texts as in `completion_of`.

        A whole reply ends before a stop string too; how many of its tokens that leaves, nobody knows.

        Raises:
            BackendError: If there is no answer to a sample, or a failure was recorded.
        """
        return [self._reply(request, settings) for request in requests]

    def _reply(self, request: Request, settings: GenerationSettings) -> Completion:
        votes = self._answers.get(request.seed_index)
        if not votes:
            raise BackendError("the script has no answer to this sample")
        answer = votes[request.vote % len(votes)]
        if isinstance(answer, BackendError):
            raise answer
        if isinstance(answer, Completion):
            return before_stop(answer, request, settings)
        reply = completion_of(answer, request, settings)
        return replace(reply, reasoning_tokens=len(reply.text.rpartition("</think>")[0].split()))
