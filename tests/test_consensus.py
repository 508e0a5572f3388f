from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egm.boxes import Box, iou
from egm.consensus import AGREEMENT_IOU, Consensus, consensus, leader_confidence, poll
from egm.types import Failure

corner, side = st.integers(0, 20), st.integers(1, 20)
boxes = st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), corner, corner, side, side)
answers = st.lists(boxes | st.sampled_from(Failure), min_size=1, max_size=12)


def run(votes: int, given_: list[Box | Failure], confidence: float | None) -> tuple[int, Consensus]:
    ballot, taken = poll(votes, confidence), 0
    more = next(ballot)
    while True:
        assert more >= 1
        latest = given_[taken : taken + more]
        taken += more
        try:
            more = ballot.send(latest)
        except StopIteration as end:
            return taken, end.value


@given(answers, st.randoms())
def test_the_order_of_the_answers_changes_nothing(found: list[Box | Failure], random: object) -> None:
    first = consensus(found)
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    second = consensus(shuffled)
    assert (first.size, first.rival, first.votes) == (second.size, second.rival, second.votes)
    if first.size:
        assert found[first.chosen] == shuffled[second.chosen]


@given(answers)
def test_it_is_one_of_the_answers_and_failures_count_against_it(found: list[Box | Failure]) -> None:
    result = consensus(found)
    chosen = found[result.chosen]
    boxes_ = [answer for answer in found if isinstance(answer, Box)]
    assert isinstance(chosen, Box) == bool(boxes_)
    assert found.index(chosen) == result.chosen
    assert result.size <= len(boxes_)
    assert 0 <= result.agreement <= len(boxes_) / len(found)
    worse = consensus([*found, Failure.NO_BOX])
    assert worse.size == result.size
    assert worse.agreement <= result.agreement
    if isinstance(chosen, Box):
        # No cluster is smaller than the neighbourhood of any one box.
        assert result.size == max(sum(iou(a, b) >= AGREEMENT_IOU for b in boxes_) for a in boxes_)


@given(boxes | st.sampled_from(Failure), st.none() | st.floats(0.5, 1))
def test_one_answer_is_itself(answer: Box | Failure, confidence: float | None) -> None:
    has = isinstance(answer, Box)
    assert run(1, [answer], confidence) == (1, Consensus(0, int(has), int(not has), 1))


def test_the_medoid_of_the_largest_cluster() -> None:
    cluster = [Box(0, 0, 10, 8), Box(0, 0, 10, 9), Box(0, 0, 10, 10)]
    far = [Box(50, 50, 60, 60), Box(50, 50, 60, 61)]
    assert consensus([*far, *cluster]) == Consensus(chosen=3, size=3, rival=2, votes=5)
    assert consensus([*far, *cluster[:2], cluster[0]]).size == 3
    assert consensus([Failure.NO_BOX, *cluster, *[Failure.REFUSED] * 4]) == Consensus(2, 3, 5, 8)
    assert consensus([*far, *cluster, Failure.NO_BOX]).rival == 2  # the stronger of the two, not both together


def test_an_iou_of_half_agrees() -> None:
    whole = Box(0, 0, 10, 10)
    assert consensus([whole, Box(0, 0, 10, 5)]).size == 2
    assert consensus([whole, Box(0, 0, 10, 4.9)]).size == 1


def test_without_a_box_the_most_frequent_failure() -> None:
    found = [Failure.NO_BOX, Failure.REFUSED, Failure.REFUSED]
    assert consensus(found) == Consensus(1, 0, 3, 3)
    assert consensus(found).agreement == 0
    for all_kinds in (list(Failure), list(reversed(Failure))):  # of equally frequent ones the first by name
        assert all_kinds[consensus(all_kinds).chosen] == min(Failure)


def test_the_lead_is_the_beta_distribution() -> None:
    from scipy.stats import beta

    for a in range(8):
        for b in range(8):
            assert leader_confidence(a, b) == pytest.approx(beta.sf(0.5, a + 1, b + 1))


def test_when_it_stops() -> None:
    same, other = Box(0, 0, 10, 10), Box(50, 50, 60, 60)
    assert run(16, [same] * 16, None)[0] == 16
    assert run(16, [same] * 16, 0.9)[0] == 3  # 1 - 1/2^4 = 0.9375
    assert run(16, [same] * 16, 0.9375)[0] == 3  # that much is enough
    assert run(16, [same] * 16, 0.95)[0] == 4  # 1 - 1/2^5 = 0.969
    assert run(16, [same] * 16, 1.0)[0] == 9  # 7 are left, and cannot overtake
    assert run(3, [same] * 3, 0.95)[0] == 2  # 1 is left, and cannot overtake 2
    # (3, 1): 0.8125; (4, 1): 0.891; (5, 1): 0.9375; (6, 1): 0.965
    assert run(16, [other, *[same] * 15], 0.95)[0] == 7
    assert run(4, [same, other] * 2, 0.95)[0] == 4
    assert run(16, [Failure.NO_BOX] * 16, 0.6)[0] == 16  # no box leads: nothing is agreed on


@given(st.lists(boxes | st.sampled_from(Failure), min_size=9, max_size=9), st.floats(0.5, 1))
def test_no_answer_is_asked_for_in_vain(found: list[Box | Failure], confidence: float) -> None:
    """One answer fewer would not have been enough, whatever the round."""
    taken, result = run(9, found, confidence)
    assert result == consensus(found[:taken])
    if taken < 9:
        left = 9 - taken
        assert result.size > result.rival + left or leader_confidence(result.size, result.rival) >= confidence
