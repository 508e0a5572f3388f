from __future__ import annotations

from collections.abc import Callable

import pytest

from egm.boxes import Box
from egm.rationales.candidate import Candidate
from egm.types import Sample


@pytest.fixture(scope="session")
def say() -> Callable[..., Candidate]:
    """Make a candidate of a text; its box is at the top left of a picture of 640 x 480, unless another is given."""

    def candidate(
        text: str, phrase: str = "the dog", box: Box | None = None, style: str = "official", name: str = "1"
    ) -> Candidate:
        sample = Sample(name, "a.png", phrase, box=box or Box(40, 30, 140, 120), size=(640, 480))
        return Candidate(sample, text, style)

    return candidate
