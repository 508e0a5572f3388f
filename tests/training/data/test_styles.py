"""Which way a sample is asked: even, and one choice independent of the other."""

from __future__ import annotations

from collections import Counter

from egm.training.data.styles import choose_prompt, first_style, share_of


def test_choices_are_even_and_independent() -> None:
    names = [f"synthref1/train/0/{number}/{k}" for number in range(1000) for k in range(2)]
    counts = Counter((choose_prompt(("a", "b"), name), share_of(name, "direct") < 0.5) for name in names)
    assert len(counts) == 4
    assert all(430 < count < 570 for count in counts.values())  # 500 each, give or take three deviations


def test_one_style_is_asked_as_it_is() -> None:
    assert choose_prompt(None, "x") is None
    assert choose_prompt("qwen3", "x") == "qwen3"
    assert choose_prompt(("qwen3",), "x") == "qwen3"


def test_held_out_samples_are_asked_in_the_first() -> None:
    assert [first_style(each) for each in (None, "qwen3", ("grounding", "qwen3"))] == [None, "qwen3", "grounding"]
