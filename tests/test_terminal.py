from __future__ import annotations

from egm.terminal import printable


def test_text_cannot_steer_the_terminal() -> None:
    assert printable("a\n b\tc") == "a b c"
    assert printable("\x1b]0;x\x07 \u202edlo \u009b") == "�]0;x� �dlo �"
    assert printable("👩‍👧 قلم é") == "👩‍👧 قلم é"
