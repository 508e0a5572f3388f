"""The bound by simulation: it holds as often as it says, and would not if questions were taken for independent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from egm.calibrate import Calibration, PairedAnswers, fit_gate
from egm.calibrate.bound import certified, p_values, picture_sums
from egm.errors import DataError, EgmError

LEVEL = 0.05
EACH = 10  # questions about a picture, which share their luck


def pictures_at_the_bound(seed: int, pictures: int, runs: int, allowed: float = 0.1) -> np.ndarray:
    """Loss of a question beyond what is allowed, shape (pictures, runs), where it is exactly allowed on average."""
    return (np.random.default_rng(seed).random((pictures, runs)) < allowed) - allowed


def test_a_threshold_at_the_bound_is_rejected_no_oftener_than_it_says() -> None:
    loss = pictures_at_the_bound(0, 200, 1000)
    for before in (np.full((100, 1000), -0.1), np.full((1, 1000), 0.9), pictures_at_the_bound(1, 40, 1000) - 0.05):
        p = p_values(EACH * loss, EACH * before, EACH * 0.9)
        assert (p <= LEVEL).mean() <= LEVEL + 0.01
    assert (p_values(EACH * loss, EACH * np.full((100, 1000), -0.1), EACH * 0.9) <= LEVEL).mean() > 0.01  # nor never


def test_questions_of_one_picture_taken_for_independent_would_break_the_bound() -> None:
    loss, before = pictures_at_the_bound(0, 200, 1000), np.full((1000, 1000), -0.1)
    p = p_values(np.repeat(loss, EACH, axis=0), before, 0.9)
    assert (p <= LEVEL).mean() > 10 * LEVEL


def answers(seed: int, pictures: int, *, spoilt: float = 0.2, each: int = EACH) -> PairedAnswers:
    """Thinking is always right; of some pictures every direct answer is wrong, however sure it is."""
    random = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(pictures), each)
    direct = 1.0 - (random.random(pictures) < spoilt)[numbers]
    ones = np.ones(len(numbers))
    return PairedAnswers(numbers, direct, ones, 20 * ones, 200 * ones, {"mean": random.random(len(numbers))})


def lost(found: Calibration, spoilt: float = 0.2) -> float:
    """The true loss of what was chosen: certainties are uniform, and say nothing of what is right."""
    return 0.0 if found.chosen is None else spoilt * (1 - found.chosen.threshold)


def test_whole_calibrations_keep_the_bound_and_gain_by_it() -> None:
    found = [
        fit_gate(answers(seed, 250), points=10, coverages=[step / 25 for step in range(1, 26)]) for seed in range(60)
    ]
    losses = [lost(each) for each in found]
    assert sum(loss > 0.1 for loss in losses) <= 0.05 * len(losses)
    assert np.mean(losses) > 0.05
    assert all(each.chosen is None or each.chosen.certified for each in found)


def test_the_same_questions_taken_for_independent_break_it() -> None:
    broken, coverages = 0, [step / 25 for step in range(1, 26, 2)]
    for seed in range(20):
        pairs = answers(seed, 100, spoilt=0.4, each=60)
        apart = replace(pairs, pictures=np.arange(len(pairs.pictures)))
        broken += lost(fit_gate(apart, points=20, coverages=coverages), spoilt=0.4) > 0.2
    assert broken > 2 * 0.05 * 20


def test_sums_by_picture_do_not_depend_on_the_order_of_rows() -> None:
    values, pictures = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([7, 2, 7])
    assert picture_sums(values, pictures).tolist() == [[3.0, 4.0], [6.0, 8.0]]


def test_certified_are_those_before_the_first_that_fails() -> None:
    assert [certified(np.array(p), 0.05) for p in ([0.01, 0.05, 0.2, 0.001], [0.5], [0.0, 0.0])] == [2, 0, 2]


def informed(seed: int, pictures: int, each: int = 4) -> PairedAnswers:
    """Direct answers that are the better the surer; "mean" tells that, "least" nearly nothing, and some not at all."""
    random = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(pictures), each)
    sure = random.random(len(numbers))
    known = random.random(len(numbers)) < 0.9
    certainties = {"mean": np.where(known, np.log(sure), -np.inf), "least": np.log(random.random(len(numbers)))}
    direct = (random.random(len(numbers)) < 0.4 + 0.6 * np.minimum(1, 2 * sure)).astype(float) * known
    thinking, ones = (random.random(len(numbers)) < 0.98).astype(float), np.ones(len(numbers))
    return PairedAnswers(numbers, direct, thinking, 20 * ones, 200 * ones, certainties)


def test_the_telling_measure_is_found_and_saves_tokens() -> None:
    pairs = informed(0, 2500)
    found = fit_gate(pairs)
    assert (found.measure, found.most, found.pictures + 500) == ("mean", 4, pytest.approx(2500, abs=80))
    assert found.chosen is not None
    assert found.chosen.loss.value < 0.005
    assert found.chosen.tokens == pytest.approx(20 + 200 * (1 - found.chosen.taken))
    assert found.saved == pytest.approx(1 - found.chosen.tokens / 200)
    assert found.saved > 0.2
    assert 0.3 < found.chosen.taken < 0.8
    assert found.curve[-1].taken < 0.95  # what is not known is never taken
    bold = fit_gate(pairs, points=5)
    assert bold.saved > found.saved
    assert fit_gate(pairs, confidence=0.999).saved < found.saved
    assert fit_gate(pairs) == found


def test_by_the_phrase_only_one_answer_is_paid_for() -> None:
    pairs = informed(1, 1500)
    taken = np.zeros(len(pairs.pictures))
    taken[:3] = 1
    assert pairs.tokens("phrase", taken)[:4].tolist() == [20, 20, 20, 200]
    assert pairs.tokens("mean", taken)[:4].tolist() == [20, 20, 20, 220]


def test_where_direct_answers_are_hopeless_the_gate_always_thinks() -> None:
    pairs = informed(2, 1500)
    found = fit_gate(replace(pairs, direct=np.zeros(len(pairs.pictures))))
    assert (found.chosen, found.saved) == (None, 0.0)


def test_too_few_pictures_and_bad_numbers_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"^300 pictures are too few to certify a loss of 0.5 points .* ask about \d+ at"
    ):
        fit_gate(informed(0, 300))
    with pytest.raises(EgmError, match="out of range"):
        fit_gate(informed(0, 300), points=0)
    pairs = informed(0, 1500)
    with pytest.raises(DataError, match="log-probabilities"):
        fit_gate(replace(pairs, certainties={}))
