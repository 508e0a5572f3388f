"""Several answers to one question: which box they agree on, how strongly, and when enough have been sampled.

*Clusters.* Two boxes agree if their IoU is at least `AGREEMENT_IOU`, the threshold at which a box counts as right. The
largest cluster is the box that most boxes agree with, and those boxes (ties: the greatest sum of IoUs, then the smaller
coordinates). The next one is found in the same way among the rest.

*None and many.* Where not exactly one box is expected, an answer is all of its boxes, and "nothing matches" is one
without any. Two of them agree if all their boxes pair off at that IoU (`egm.assignment.bottleneck_iou`, which then
stands for the IoU of two boxes).

*Consensus.* The medoid of the largest cluster: its member with the greatest sum of IoUs with the members. It is one of
the answers, never an average. Where no answer holds a box, there is no consensus. The order of the answers changes
nothing.

*Agreement.* The size of the largest cluster over the number of answers: those without a box count against it. It is
the plurality vote of self-consistency (Wang et al., 2022, arXiv 2203.11171), for boxes.

*Stopping early.* After `n` of at most `N` answers, `a` of them in the largest cluster and `b` in its strongest rival
(the next cluster, or the answers without a box if those are more), sampling stops where

- the leader cannot be overtaken, `a > b + (N - n)`; or
- it is ahead with enough confidence: under a uniform prior on the share `p` of the leader against that rival,
  `P(p > 1/2 | a, b) >= c`, the Beta criterion of Adaptive-Consistency (Aggarwal et al., 2023, arXiv 2305.11860).

Answers are asked for in rounds, each as small as could bring about a stop, so that no answer is asked for in vain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from math import comb
from typing import Final, TypeAlias

from egm.assignment import bottleneck_iou
from egm.boxes import Box, pairwise_iou
from egm.types import HIT_IOU, Failure

AGREEMENT_IOU: Final = HIT_IOU
"""IoU from which on two boxes count as the same answer."""


@dataclass(frozen=True, slots=True)
class Consensus:
    """What answers agree on.

    Attributes:
        chosen: Number of the answer to take: the first with the medoid's box; without any box, the first with the most
            frequent failure.
        size: Answers in the largest cluster; 0 without any box.
        rival: Answers in the next cluster, or without a box if those are more.
        votes: How many answers there are.
    """

    chosen: int
    size: int
    rival: int
    votes: int

    @property
    def agreement(self) -> float:
        """Share of the answers in the largest cluster."""
        return self.size / self.votes


Answer: TypeAlias = Box | tuple[Box, ...] | Failure
"""The box, or the boxes where not exactly one is expected, or why there is no answer."""


def consensus(answers: Sequence[Answer]) -> Consensus:
    """Majority vote over boxes: find what answers agree on.

    Args:
        answers: The box of each, or its boxes, or why it has none; at least one.

    Example:
        >>> consensus([Box(0, 0, 10, 10), Failure.NO_BOX, Box(0, 0, 10, 9), Box(50, 50, 60, 60), Box(0, 0, 10, 8)])
        Consensus(chosen=2, size=3, rival=1, votes=5)
    """
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    # In the order of their coordinates, so that neither ties nor rounding depend on the order of the answers.
    boxes = sorted(
        (_corners(answer), number) for number, answer in enumerate(answers) if not isinstance(answer, Failure)
    )
    if not boxes:
        frequent = max(sorted(set(failures)), key=Counter(failures).__getitem__)
        return Consensus(answers.index(frequent), 0, len(failures), len(answers))
    ious = _overlaps([box for box, _ in boxes])
    leaders = _largest(ious, range(len(boxes)))
    others = _largest(ious, [place for place in range(len(boxes)) if place not in leaders])
    medoid = max(leaders, key=lambda place: sum(ious[place][member] for member in leaders))
    return Consensus(boxes[medoid][1], len(leaders), max(len(others), len(failures)), len(answers))


def leader_confidence(size: int, rival: int) -> float:
    """Confidence in the leader, `P(p > 1/2)`, after `size` answers for it and `rival` against it.

    The Beta(size + 1, rival + 1) distribution's upper half is the lower tail of a binomial one.

    Example:
        >>> leader_confidence(3, 0), leader_confidence(2, 2)
        (0.9375, 0.5)
    """
    throws = size + rival + 1
    return float(sum(comb(throws, heads) for heads in range(size + 1)) / 2**throws)


def poll(votes: int, stop_confidence: float | None = None) -> Generator[int, Sequence[Answer], Consensus]:
    """Adaptive self-consistency: say how many more answers to sample, until there are enough.

    Args:
        votes: Most answers.
        stop_confidence: `c` in the rule of this module; None takes all the votes at once.

    Yields:
        How many answers to sample next; is sent them, in the order of their numbers.

    Returns:
        What they agree on.
    """
    answers: list[Answer] = []
    agreed = Consensus(0, 0, 0, 0)
    while not answers or not _settled(agreed.size, agreed.rival, len(answers), votes, stop_confidence):
        more = 1
        while not _settled(agreed.size + more, agreed.rival, len(answers) + more, votes, stop_confidence):
            more += 1
        answers += yield more
        agreed = consensus(answers)
    return agreed


def _settled(size: int, rival: int, sampled: int, votes: int, stop_confidence: float | None) -> bool:
    if sampled == votes or stop_confidence is None:
        return sampled == votes
    return size > rival + (votes - sampled) or leader_confidence(size, rival) >= stop_confidence


def _corners(answer: Box | tuple[Box, ...]) -> tuple[tuple[float, ...], ...]:
    return (answer.corners,) if isinstance(answer, Box) else tuple(box.corners for box in answer)


def _overlaps(answers: Sequence[tuple[tuple[float, ...], ...]]) -> list[list[float]]:
    if all(len(boxes) == 1 for boxes in answers):
        single = [boxes[0] for boxes in answers]
        overlaps: list[list[float]] = pairwise_iou(single, single).tolist()
        return overlaps
    return [[bottleneck_iou(pairwise_iou(a, b)) if len(a) == len(b) else 0.0 for b in answers] for a in answers]


def _largest(ious: Sequence[Sequence[float]], places: Sequence[int]) -> list[int]:
    """The largest cluster among boxes, as their places."""

    def near(place: int) -> list[int]:
        return [other for other in places if ious[place][other] >= AGREEMENT_IOU]

    def rank(cluster_of: int) -> tuple[int, float]:
        cluster = near(cluster_of)
        return len(cluster), sum(ious[cluster_of][member] for member in cluster)

    return near(max(places, key=rank)) if places else []
