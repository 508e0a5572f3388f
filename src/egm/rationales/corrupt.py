"""Corruption of rationales: defects planted at stated rates, so that filters can be measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from egm.types import Sample

DEFECTS: Final = ("failure", "leak", "contradiction", "language", "length", "repetition", "near_duplicate")
"""What can be planted, each called as the filter that should find it."""


@dataclass(frozen=True, slots=True)
class Planted:
    """What was done to a rationale.

    Attributes:
        text: The rationale as it now is.
        defect: One of `DEFECTS`; None where it was left alone.
        kind: Which sort of the defect, such as "side" of a contradiction.
    """

    text: str
    defect: str | None = None
    kind: str | None = None


class Corruption:
    """Plants defects, the same from the same seed.

    Args:
        rates: Share of rationales that get each defect, at most 1 in sum, such as `{"leak": 0.1}`.
        seed: Where the chance comes from.
        wordings: "development" or "held_out".

    Raises:
        RecipeError: If a defect is unknown, or the rates are none.
    """

    def __init__(self, rates: Mapping[str, float], *, seed: int = 0, wordings: str = "development") -> None:
        self.rates, self.seed, self.wordings = dict(rates), seed, wordings

    def plant(self, sample: Sample, text: str, attempt: int = 0) -> Planted:  # noqa: ARG002
        """Plant at most one defect in a rationale."""
        return Planted(text)

    def to_dict(self) -> dict[str, Any]:
        """What tells this corruption from another, JSON-ready."""
        return {"rates": self.rates, "seed": self.seed, "wordings": self.wordings}
