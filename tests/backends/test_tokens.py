from __future__ import annotations

import pytest

from egm.backends.tokens import stop_tokens, strip_stop


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), []),
        ((None,), []),
        ((7,), [7]),
        (([9, 7], 7), [7, 9]),
        ((None, 0), [0]),  # a token like any other
        (([], 3), [3]),
    ],
)
def test_stop_tokens_of_all_that_names_some(given: tuple[int | list[int] | None, ...], expected: list[int]) -> None:
    assert stop_tokens(*given) == expected


@pytest.mark.parametrize(
    ("ids", "text", "reason"),
    [
        ([5, 6, 2], [5, 6], "stop"),
        ([5, 6], [5, 6], "length"),
        ([2], [], "stop"),
        ([], [], "length"),
        ([2, 5], [2, 5], "length"),  # one in the middle ends nothing
        ([5, 2, 2], [5, 2], "stop"),
    ],
)
def test_the_stop_token_is_no_text(ids: list[int], text: list[int], reason: str) -> None:
    assert strip_stop(ids, [2, 3]) == (text, reason)
