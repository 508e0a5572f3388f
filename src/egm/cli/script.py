"""Answers from a file: what `egm eval --script` runs without a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from egm.backends.scripted import spoken
from egm.errors import DataError

if TYPE_CHECKING:
    from egm.backends.base import GenerationSettings, Request
    from egm.types import Completion


class LineBackend:
    """Answers sample number `n` with line number `n`, from the start again after the last; keeps no requests.

    Of `v` votes on a sample, each has a line of its own, the first of them number `n * v`.

    Because a line belongs to a sample and not to a moment, an interrupted run goes on with the right ones.

    Args:
        lines: The texts.
        model: Name to go by.
    """

    budgets = True

    def __init__(self, lines: Iterable[str], *, model: str = "scripted") -> None:
        self.model, self._lines = model, list(lines)

    @classmethod
    def read(cls, path: Path, *, model: str = "scripted") -> LineBackend:
        r"""Read a file of one text a line, in which `\n` stands for a line feed.

        Raises:
            DataError: If it cannot be read or is empty.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"script {str(path)!r} cannot be read ({error}): give a text file, a line a sample"
            ) from None
        if not text:
            raise DataError(f"script {str(path)!r} is empty: give a text a line")
        return cls((line.replace("\\n", "\n") for line in text.splitlines()), model=model)

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        """Answer; words count as tokens, and no time passes."""
        numbers = (request.draw * settings.votes + request.vote for request in requests)
        lines = (self._lines[number % len(self._lines)] for number in numbers)
        return [spoken(line, request, settings) for request, line in zip(requests, lines, strict=True)]

    def count_tokens(self, text: str) -> int:
        """Count words."""
        return len(text.split())
