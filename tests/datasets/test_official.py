"""The official style: only what decides, also of phrases that fit nothing or several."""

from __future__ import annotations

import re

import pytest

from egm.datasets.synthetic import SynthRef, Traced
from egm.datasets.synthetic.official import name_all, place
from egm.datasets.synthetic.programs import Selection
from egm.rationales.synthref import explain_sample


@pytest.fixture(scope="module")
def questions() -> list[Traced]:
    source = SynthRef("train-any", rationale="official")
    return [traced for index in range(60) for traced in source.traced(index)]


def test_all_that_match_are_named_and_none_is_said_where_none_does(questions: list[Traced]) -> None:
    seen = set()
    for traced in questions:
        said, trace = traced.sample.rationale or "", traced.trace
        assert not re.search(r"\d+,\d+", said)  # no coordinates
        assert said.endswith(".")
        if not isinstance(trace, Selection):
            continue
        found = [traced.scene.objects[i] for i in trace.found]
        assert all(f"the {name_all(item)} {place(traced.scene, item)}" in said for item in found)
        assert bool(found) is not ("so there is none" in said or said.startswith("There is no "))
        if len(found) > 1:
            assert " and the " in said
        seen.add((min(len(found), 2), len(trace.program.steps) > 0))
    assert seen >= {(0, False), (0, True), (1, True), (2, False), (2, True)}


def test_training_and_the_offline_teacher_say_the_same() -> None:
    for sample in SynthRef("train", rationale="official", scenes=5):
        assert sample.rationale == explain_sample(sample, "official")
