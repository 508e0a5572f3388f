"""A backend that replays given texts, so that everything around a model runs without one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from egm.backends.base import GenerationSettings, Request
from egm.errors import BackendError
from egm.types import Completion


class ScriptedBackend:
    """Replays texts, in order or by what is asked.

    Args:
        script: Texts in the order of the requests; or a mapping from a phrase to the text that answers it, where the
            longest phrase that occurs in a request counts. A `Completion` in place of a text is replayed as it is.
        model: Name to go by.

    Example:
        >>> backend = ScriptedBackend(["</think> [1, 2, 3, 4]"])
        >>> backend.generate([Request(messages=[])], GenerationSettings())[0].text
        '</think> [1, 2, 3, 4]'
    """

    def __init__(
        self, script: Iterable[str | Completion] | Mapping[str, str | Completion], *, model: str = "scripted"
    ) -> None:
        self.model = model
        self.requests: list[Request] = []
        """Every request so far."""
        self._by_phrase: dict[str, str | Completion] | None = dict(script) if isinstance(script, Mapping) else None
        self._queue: Iterator[str | Completion] = iter(()) if isinstance(script, Mapping) else iter(script)

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:  # noqa: ARG002
        """Replay; see `Backend.generate`. Words count as tokens, and no time passes.

        Raises:
            BackendError: If the script has ended, or knows no phrase of a request.
        """
        self.requests += requests
        return [_reply(self._next(request)) for request in requests]

    def _next(self, request: Request) -> str | Completion:
        if self._by_phrase is None:
            line = next(self._queue, None)
            if line is None:
                raise BackendError(f"the script of {self.model!r} has ended: give it a text for each request")
            return line
        asked = _text(request)
        known = [phrase for phrase in self._by_phrase if phrase in asked]
        if not known:
            raise BackendError(f"the script of {self.model!r} has no answer to {asked[:200]!r}: add its phrase")
        return self._by_phrase[max(known, key=len)]


def _text(request: Request) -> str:
    parts = (
        [message["content"]] if isinstance(message["content"], str) else [p.get("text", "") for p in message["content"]]
        for message in request.messages
    )
    return "\n".join(text for texts in parts for text in texts)


def _reply(line: str | Completion) -> Completion:
    return Completion(line, completion_tokens=len(line.split())) if isinstance(line, str) else line
