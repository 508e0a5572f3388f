from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from egm.server.stops import StopStrings

LETTERS = st.text("ab", max_size=12)


@settings(max_examples=200)
@given(LETTERS, st.lists(st.text("ab", min_size=1, max_size=3), max_size=3), st.integers(1, 5))
def test_the_text_ends_before_the_first_stop_however_it_comes(text: str, stops: list[str], step: int) -> None:
    subject, shown = StopStrings(stops), ""
    for start in range(0, len(text), step):
        shown += subject.add(text[start : start + step])
        assert text.startswith(shown)
    shown += subject.rest()
    # The first to be whole in what has come ends it: one that is found in the same piece may begin earlier.
    ends = [text.find(stop) for stop in stops if stop in text]
    assert subject.found == bool(ends)
    if not ends:
        assert shown == text
    else:
        assert not any(stop in shown for stop in stops)
        assert any(text.startswith(shown + stop) for stop in stops)
