"""What calls cost: a price list that users fill in, and a budget in tokens or money that a run may spend."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, StringConstraints

from egm.errors import EgmError, RecipeError, nearest
from egm.rationales.styles import checked, read_strictly
from egm.training.recipe import Section

PER: Final = 1_000_000
"""Tokens that a price is for."""
# No commas: "1,5usd" is one and a half to some of those who write it, and fifteen to a reader that drops them.
_LIMIT = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-z]+)\s*")


class ModelPrice(Section):
    """What a million tokens of one model cost."""

    input: float = Field(ge=0, le=1e6)
    """Tokens read, those of the picture included."""
    output: float = Field(ge=0, le=1e6)
    """Tokens written, reasoning included."""


class PriceList(Section):
    """What models cost, in one currency: `models` by the names that servers know them by."""

    currency: Annotated[str, StringConstraints(pattern=r"^[a-z]{3}$")]
    """Three small letters, such as usd."""
    models: dict[str, ModelPrice] = Field(min_length=1)
    """The price of each."""

    def price_of(self, model: str) -> ModelPrice:
        """Return a model's price.

        Raises:
            RecipeError: If it is not in the list.
        """
        if model not in self.models:
            raise RecipeError(
                f"the price list has no {model!r}: {nearest(model, tuple(self.models))}: add it, with 0 for a model of "
                "your own"
            )
        return self.models[model]


def load_prices(path: Path) -> PriceList:
    """Read a price list.

    Args:
        path: YAML with `currency` and `models`, of each `input` and `output`.

    Raises:
        RecipeError: If it cannot be read, or a key or value is wrong: it is named, with the nearest right one.
    """
    return checked(PriceList, read_strictly(path, "prices"), f"prices {path}")


@dataclass(frozen=True, slots=True)
class Budget:
    """What a run may spend, all its calls together, those of an interrupted part included.

    Attributes:
        limit: How much.
        currency: Of which money; None where it is tokens.
    """

    limit: float
    currency: str | None = None

    def __str__(self) -> str:
        return f"{self.limit:,.0f} tokens" if self.currency is None else f"{self.limit:g} {self.currency}"


def read_budget(text: str, prices: PriceList | None) -> Budget:
    """Read a budget such as `200000tokens` or `5usd`.

    Raises:
        EgmError: If it is none, is nothing, or is money that no price list is in.

    Example:
        >>> str(read_budget("200_000 tokens", None))
        '200,000 tokens'
    """
    found = _LIMIT.fullmatch(text)
    if found is None:
        comma = "write it without a comma, and " if "," in text else ""
        units = "give tokens, such as 200000tokens, or money, such as 5usd or 1.5usd"
        raise EgmError(f"--budget {text!r} is no budget: {comma}{units}")
    limit, unit = float(found[1].replace("_", "")), found[2].lower()
    if limit <= 0:
        raise EgmError(f"--budget {text!r} pays for nothing: give more than 0, or --dry-run to see what a call takes")
    if unit in ("token", "tokens"):
        return Budget(limit)
    if prices is None:
        raise EgmError(f"--budget {text!r} is money, and nothing says what a token costs: give --prices FILE")
    if unit != prices.currency:
        raise EgmError(f"--budget {text!r} is not in {prices.currency}, as the price list is: give it in that")
    return Budget(limit, unit)


@dataclass(slots=True)
class Spending:
    """What calls have taken, counted against a budget.

    Args:
        budget: Of the whole run; None sets no bound.
        prices: What tokens cost; None where nobody says.

    Attributes:
        prompt: Tokens read.
        completion: Tokens written.
        lost: Those of both that brought no answer.
        money: What both cost, in the price list's currency.
        calls: Calls that were answered.
        uncounted: Those of them whose tokens the server did not count; at most what they may have taken is counted.
        reserved: What the calls under way may take at most, in the budget's unit.
        largest: Most tokens that each model read in a call so far.
    """

    budget: Budget | None = None
    prices: PriceList | None = None
    prompt: int = 0
    completion: int = 0
    lost: int = 0
    money: float = 0.0
    calls: int = 0
    uncounted: int = 0
    reserved: float = 0.0
    largest: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(init=False, repr=False, compare=False, default_factory=threading.Lock)

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.prompt + self.completion

    @property
    def spent(self) -> float:
        """What is spent, in the budget's unit; tokens where there is no budget."""
        return self.money if self.budget is not None and self.budget.currency is not None else float(self.tokens)

    def cost(self, model: str, prompt: int, completion: int) -> float:
        """What a call costs, in the budget's unit."""
        if self.budget is None or self.budget.currency is None:
            return float(prompt + completion)
        return self.price(model, prompt, completion)

    def price(self, model: str, prompt: int, completion: int) -> float:
        """What a call costs in money; nothing where there is no price list."""
        if self.prices is None:
            return 0.0
        price = self.prices.price_of(model)
        return (prompt * price.input + completion * price.output) / PER

    def affords(self, cost: float) -> bool:
        """Whether a call that may take so much keeps to the budget, whatever those under way take."""
        return self.budget is None or self.spent + self.reserved + cost <= self.budget.limit

    def reserve(self, cost: float) -> bool:
        """Keep so much free for a call under way, if that keeps to the budget; from any thread."""
        with self._lock:
            if not self.affords(cost):
                return False
            self.reserved += cost
            return True

    def release(self, cost: float) -> None:
        """Keep it free no longer, once what the call took is counted."""
        with self._lock:
            self.reserved -= cost

    def most(self, model: str, estimate: tuple[int, int]) -> tuple[int, int]:
        """Tokens that a call may read and write at most: as estimated, or as many as others have read."""
        return max(estimate[0], self.largest.get(model, 0)), estimate[1]

    def add(self, model: str, prompt: int, completion: int, *, counted: bool = True) -> None:
        """Count a call that was answered."""
        self._take(model, prompt, completion)
        self.calls += 1
        self.uncounted += not counted
        self.largest[model] = max(prompt, self.largest.get(model, 0))

    def lose(self, model: str, prompt: int, completion: int) -> None:
        """Count tokens that brought no answer: who serves a model charges for them all the same."""
        self._take(model, prompt, completion)
        self.lost += prompt + completion

    def _take(self, model: str, prompt: int, completion: int) -> None:
        self.prompt += prompt
        self.completion += completion
        self.money += self.price(model, prompt, completion)
