"""A backend that replays given texts, so that everything around a model runs without one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from egm.backends.base import Backend, GenerationSettings, Request
from egm.backends.stopping import before_stop
from egm.errors import BackendError
from egm.types import Completion


class ScriptedBackend(Backend):
    """Replays texts, in order or by what is asked.

    Args:
        script: Texts in the order of the requests, of which each vote is one; or a mapping from a phrase to the text
            that answers it, where the longest phrase that occurs in a request counts. A `Completion` in place of a text
            is replayed as it is, up to a stop string.
        model: Name to go by.

    Example:
        >>> backend = ScriptedBackend(["</think> [1, 2, 3, 4]"])
        >>> backend.generate([Request(messages=[])], GenerationSettings())[0].text
        '</think> [1, 2, 3, 4]'
    """

    thinking_budgets = True

    def __init__(
        self, script: Iterable[str | Completion] | Mapping[str, str | Completion], *, model: str = "scripted"
    ) -> None:
        self.model = model
        self.requests: list[Request] = []
        """Every request so far."""
        self._by_phrase: dict[str, str | Completion] | None = dict(script) if isinstance(script, Mapping) else None
        self._queue: Iterator[str | Completion] = iter(()) if isinstance(script, Mapping) else iter(script)

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        """Replay; see `Backend.generate`. Words count as tokens, and no time passes; budgets: see `completion_of`.

        Raises:
            BackendError: If the script has ended, or knows no phrase of a request.
        """
        self.requests += requests
        replies = ((request, self._next(request)) for request in requests)
        return [
            before_stop(line, request, settings)
            if isinstance(line, Completion)
            else completion_of(line, request, settings)
            for request, line in replies
        ]

    def _next(self, request: Request) -> str | Completion:
        if self._by_phrase is None:
            line = next(self._queue, None)
            if line is None:
                raise BackendError(f"the script of {self.model!r} has ended: give it a text for each request")
            return line
        prompt = _text(request)
        phrases = [phrase for phrase in self._by_phrase if phrase in prompt]
        if not phrases:
            raise BackendError(f"the script of {self.model!r} has no answer to {prompt[:200]!r}: add its phrase")
        return self._by_phrase[max(phrases, key=len)]


def _text(request: Request) -> str:
    parts = (
        [message["content"]] if isinstance(message["content"], str) else [p.get("text", "") for p in message["content"]]
        for message in request.messages
    )
    return "\n".join(text for texts in parts for text in texts)


def completion_of(text: str, request: Request, settings: GenerationSettings) -> Completion:
    r"""Make a text a reply whose tokens are its words.

    Where the settings bound the reasoning and the text's is longer, the rest of it gives way to what `Request.cut`
    writes, and the text goes on from where its own answer says the same: its mind is made up before it is cut. It ends
    before a stop string as an engine's does.

    Example:
        >>> request = Request([], cut=lambda text: "" if "</think>" in text else " </think> [")
        >>> completion_of("a b c d e </think> So: [1, 2]", request, GenerationSettings(thinking_budget=2)).text
        'a b </think> [1, 2]'
    """
    if settings.thinking_budget is not None and request.cut is not None:
        ends = [word.end() for word in re.finditer(r"\S+", text)][: settings.thinking_budget]
        thought = text[: ends[-1]] if len(ends) == settings.thinking_budget else text
        if len(thought) < len(text) and (forced := request.cut(thought)):
            answer = text.rpartition("</think>")[2]
            shared = next((forced[at:] for at in range(len(forced)) if forced[at:] in answer), "")
            text = thought + forced + (answer.partition(shared)[2] if shared else answer)
    reply = before_stop(Completion(text), request, settings)
    return replace(reply, completion_tokens=len(reply.text.split()))
