"""Drafts: what followed before is proposed, and never more than a text held."""

from __future__ import annotations

import pytest

from egm.models.decode.drafts import LONGEST_DRAFT, SHORTEST_DRAFT, NGramDrafts


def test_the_longest_match_decides_and_then_the_latest() -> None:
    drafts = NGramDrafts([[1, 2, 3, 7], [5, 2, 3, 8], [2, 9]])
    drafts.take([1, 2, 3])
    assert drafts.propose(1) == [7]  # of 2, 3 alone the later would say 8
    drafts.take([4, 2])
    assert drafts.propose(1) == [3]  # what was written last of all
    drafts.take([6])
    assert drafts.propose(5) == []


def test_a_draft_ends_where_a_text_does() -> None:
    drafts = NGramDrafts([[1, 2, 3], [4, 5]])
    drafts.take([1])
    assert drafts.propose(9) == [2, 3]
    assert drafts.propose(1) == [2]


def test_a_pattern_goes_on_in_the_draft() -> None:
    drafts = NGramDrafts()
    drafts.take([1, 2, 1, 2, 1])
    assert drafts.propose(4) == [2, 1, 2, 1]


def test_its_length_follows_what_was_right() -> None:
    drafts = NGramDrafts([list(range(100))])
    drafts.take([0])
    assert len(drafts.propose(99)) == SHORTEST_DRAFT
    drafts.learn(SHORTEST_DRAFT, SHORTEST_DRAFT)
    assert len(drafts.propose(99)) == LONGEST_DRAFT
    drafts.learn(LONGEST_DRAFT, SHORTEST_DRAFT)
    assert len(drafts.propose(99)) == LONGEST_DRAFT
    drafts.learn(LONGEST_DRAFT, SHORTEST_DRAFT - 1)
    assert len(drafts.propose(99)) == SHORTEST_DRAFT
    drafts.learn(0, 0)  # none was made, so nothing is learnt
    assert len(drafts.propose(99)) == SHORTEST_DRAFT
    drafts.learn(3, 3)  # there was room for no more
    assert len(drafts.propose(99)) == LONGEST_DRAFT


@pytest.mark.parametrize("room", [0, 3])
def test_room_bounds_it(room: int) -> None:
    drafts = NGramDrafts([list(range(50))])
    drafts.take([0])
    assert len(drafts.propose(room)) == room
