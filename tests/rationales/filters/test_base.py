"""Filters from recipes: what may stand in one, who is asked, and who takes notice of what was kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from egm.errors import DataError, RecipeError
from egm.rationales.candidate import Candidate
from egm.rationales.filters import (
    Filter,
    build_filters,
    default_recipe,
    filter_names,
    filter_reasons,
    keep,
    register_filter,
    run_filters,
)
from egm.types import Sample

Say = Callable[..., Candidate]


def test_every_filter_is_asked_and_the_order_is_the_recipes(say: Say) -> None:
    filters = build_filters({"length": {"least": 5}, "failure": None, "leak": {}})
    verdicts = run_filters(filters, say("I cannot see it."))
    assert [verdict.filter for verdict in verdicts] == ["length", "failure", "leak"]
    assert [verdict.keeps for verdict in verdicts] == [False, False, True]
    assert verdicts[0].why == "4 words, fewer than 5"


@pytest.mark.parametrize("style", ["official", "candidates", "amodal", "a style of one's own"])
def test_each_style_has_filters(style: str) -> None:
    assert {each.name for each in build_filters(default_recipe(style))} <= set(filter_names())
    assert set(filter_reasons()) == set(filter_names())


def test_coordinates_are_a_leak_where_no_boxes_are_told(say: Say) -> None:
    text = "The only dog is at (62,62,219,250). So it is (62,62,219,250)."
    for style, leaks in (("official", True), ("candidates", False)):
        [leak] = build_filters({"leak": default_recipe(style)["leak"]})
        assert (leak.check(say(text)) is not None) == leaks


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"leek": {}}, r"unknown filter 'leek': did you mean 'leak'\? known: contradiction, "),
        ({"length": {"mots": 9}}, r"filter 'length' has no option 'mots': did you mean 'most'\?"),
        ({"failure": {"mots": 9}}, "filter 'failure' has no option 'mots': it takes none"),
        ({"length": 9}, r"filter 'length' takes a mapping of options, such as \{\}, not 9"),
        ({"length": {"least": "few"}}, "filter option length.least: input should be a valid integer"),
        ({"length": {"least": 9, "most": 3}}, "filter option length: least is 9 and most 3: give two numbers"),
        ({"contradiction": {"margin": 0.7}}, "margin is 0.7: give a share"),
        ({"language": {"expected": "dee"}}, r"no language 'dee' can be told: did you mean 'de'\?"),
    ],
)
def test_a_recipe_is_checked(recipe: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        build_filters(recipe)


@register_filter
@dataclass
class Seen(Filter):
    name: ClassVar[str] = "test_seen"
    reason: ClassVar[str] = "it was there before"
    texts: list[str] = field(init=False, default_factory=list)

    def check(self, candidate: Candidate) -> str | None:
        return "seen" if candidate.text in self.texts else None

    def remember(self, candidate: Candidate) -> None:
        self.texts.append(candidate.text)


def test_what_was_kept_is_remembered_and_nothing_else(say: Say) -> None:
    filters = build_filters({"test_seen": {}, "length": {"least": 2}})
    for text, kept in (("short", False), ("short", False), ("long enough", True), ("long enough", False)):
        candidate = say(text)
        assert keep(filters, candidate, run_filters(filters, candidate)) == kept


def test_a_name_is_taken_once() -> None:
    register_filter(Seen)
    with pytest.raises(RecipeError, match="there is a filter 'test_seen' already, Seen: give yours another name"):

        @register_filter
        class Other(Seen):
            pass

    with pytest.raises(RecipeError, match="'Nameless' needs a name and a reason"):

        @register_filter
        class Nameless(Filter):
            pass


def test_a_candidate_has_a_box_and_a_size(say: Say) -> None:
    with pytest.raises(DataError, match="sample 1 has no box"):
        Candidate(Sample("1", "a.png", "the dog", size=(9, 9)), "It is.", "official")
    assert say("It is.").numbers == (63, 63, 219, 250)
