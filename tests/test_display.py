"""Text for people: nothing in it steers a terminal."""

from __future__ import annotations

import pytest

from egm.display import printable, size_text

MARK = "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n b\tc", "a b c"),
        ("a\x1b[31m\n b\u202ec\ud800", f"a{MARK}[31m b{MARK}c{MARK}"),
        ("\x1b]0;x\x07 \u202edlo \u009b", f"{MARK}]0;x{MARK} {MARK}dlo {MARK}"),
        ("👩‍👧 قلم é", "👩‍👧 قلم é"),
    ],
)
def test_printable_is_one_line_that_steers_nothing(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        (11_477_824, "11.5M"),
        (999, "999"),
        (999_499_999, "999M"),
        (999_500_000, "1B"),
        (8_767_123_696, "8.77B"),
        (235_670_022_896, "236B"),
    ],
)
def test_parameter_counts_have_three_digits(parameters: int, text: str) -> None:
    assert size_text(parameters) == text
