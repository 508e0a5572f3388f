"""Corruption: as much as was asked for, the same from the same seed, and found by the filter of its name."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

from egm.errors import RecipeError
from egm.rationales.candidate import Candidate
from egm.rationales.corrupt import DEFECTS, WORDINGS, Corruption, read_wordings
from egm.rationales.filters import build_filters, default_recipe, keep, run_filters
from egm.rationales.synthref import explained_samples
from egm.types import Sample


@pytest.fixture(scope="module")
def rows() -> list[tuple[Sample, str]]:
    return list(explained_samples("train", scenes=60))


def test_the_same_seed_plants_the_same_and_another_attempt_draws_anew(rows: list[tuple[Sample, str]]) -> None:
    first, second = Corruption.evenly(0.5, seed=3), Corruption.evenly(0.5, seed=3)
    planted = [first.plant(sample, text) for sample, text in rows]
    assert [second.plant(sample, text) for sample, text in reversed(rows)] == planted[::-1]
    assert [first.plant(sample, text, attempt=1) for sample, text in rows] != planted
    for (_, text), each in zip(rows, planted, strict=True):
        assert (each.text == text) == (each.defect is None) == (each.kind is None)


def test_rates_are_kept(rows: list[tuple[Sample, str]]) -> None:
    planted = Counter(Corruption({"leak": 0.4, "length": 0.1}).plant(sample, text).defect for sample, text in rows)
    for defect, rate in (("leak", 0.4), ("length", 0.1), (None, 0.5)):
        expected, spread = rate * len(rows), 4 * math.sqrt(len(rows) * rate * (1 - rate))
        assert abs(planted[defect] - expected) < spread


@pytest.mark.parametrize("style", ["official", "candidates"])
@pytest.mark.parametrize("wordings", WORDINGS)
def test_what_is_planted_is_found_and_what_is_clean_is_kept(style: str, wordings: str) -> None:
    """The benchmark measures more rows; here nearly all have to be right."""
    filters = build_filters(default_recipe(style))
    corruption = Corruption.evenly(0.7, wordings=wordings)
    found: Counter[str] = Counter()
    canned: set[str | None] = set()
    total = 0
    for sample, text in explained_samples("train", style=style, scenes=40):
        planted = corruption.plant(sample, text)
        candidate = Candidate(sample, planted.text.strip(), style)
        verdicts = run_filters(filters, candidate)
        if keep(filters, candidate, verdicts) and planted.defect == "near_duplicate" and planted.kind not in canned:
            canned.add(planted.kind)  # the first of its kind is no duplicate
            continue
        total += 1
        against = {verdict.filter for verdict in verdicts if not verdict.keeps}
        found["right"] += planted.defect in against if planted.defect else not against
    assert found["right"] >= 0.95 * total


def test_the_two_files_share_no_wording_and_have_the_same_kinds() -> None:
    one, other = (read_wordings(name) for name in WORDINGS)
    assert {defect: set(kinds) for defect, kinds in one.items()} == {
        defect: set(kinds) for defect, kinds in other.items()
    }
    for defect, kinds in one.items():
        for kind, texts in kinds.items():
            assert not set(texts) & set(other[defect][kind])


@pytest.mark.parametrize(
    ("rates", "options", "said"),
    [
        ({"leek": 0.1}, {}, r"there is no defect 'leek' to plant: did you mean 'leak'\?"),
        ({"leak": 1.5}, {}, "the rate of leak is 1.5: give a share between 0 and 1"),
        ({"leak": math.nan}, {}, "the rate of leak is nan"),
        ({"leak": 0.6, "length": 0.6}, {}, "the rates of all defects make 1.2"),
        ({"leak": 0.1}, {"wordings": "heldout"}, r"no wordings 'heldout': did you mean 'held_out'\?"),
    ],
)
def test_rates_and_wordings_are_checked(rates: dict[str, float], options: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Corruption(rates, **options)


def test_a_corruption_says_what_it_is() -> None:
    said = Corruption.evenly(0.7, seed=4).to_dict()
    assert said == {"rates": dict.fromkeys(DEFECTS, pytest.approx(0.1)), "seed": 4, "wordings": "development"}
