from __future__ import annotations

from egm.terminal import printable, without_password


def test_text_cannot_steer_the_terminal() -> None:
    assert printable("a\n b\tc") == "a b c"
    assert printable("\x1b]0;x\x07 \u202edlo \u009b") == "�]0;x� �dlo �"
    assert printable("👩‍👧 قلم é") == "👩‍👧 قلم é"


def test_a_path_is_no_url_with_a_password() -> None:
    assert (
        without_password("egm data check /tmp//a@b/rows.jsonl //host/c:d@e")
        == "egm data check /tmp//a@b/rows.jsonl //host/c:d@e"
    )
    assert without_password("--set rollout.url=http://me:se/cr@t@host:1") == "--set rollout.url=http://host:1"
