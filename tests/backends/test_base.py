from __future__ import annotations

import pytest

from egm.backends import CARD_SETTINGS, GenerationSettings, Request, ScriptedBackend
from egm.codecs import get_codec
from egm.errors import BackendError, EgmError
from egm.types import Completion

SETTINGS = GenerationSettings()


def ask(phrase: str) -> Request:
    return Request(get_codec("qwen3_vl").messages(phrase))


def test_settings_are_greedy_unless_told_otherwise() -> None:
    assert SETTINGS.greedy
    assert not CARD_SETTINGS.greedy
    assert (CARD_SETTINGS.temperature, CARD_SETTINGS.top_p, CARD_SETTINGS.max_new_tokens) == (0.6, 0.95, 8192)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("seed", -1),
        ("seed", 2**63),
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(EgmError, match=f"{name} .* out of range: give"):
        GenerationSettings(**{name: value})


def test_whole_numbers_are_numbers() -> None:
    assert isinstance(GenerationSettings(temperature=1, top_p=1).temperature, float)


def test_script_in_order() -> None:
    backend = ScriptedBackend(
        ["one", Completion("two words", "length", 3, 2, 0.5), Completion("three", seen_size=(28, 56))]
    )
    replies = backend.generate([ask("a"), ask("b")], SETTINGS) + backend.generate([ask("c")], SETTINGS)
    assert replies == [
        Completion("one", completion_tokens=1),
        Completion("two words", "length", 3, 2, 0.5),
        Completion("three", seen_size=(28, 56)),
    ]
    assert len(backend.requests) == 3
    with pytest.raises(BackendError, match="has ended"):
        backend.generate([ask("d")], SETTINGS)


def test_script_by_phrase_takes_the_longest_that_occurs() -> None:
    backend = ScriptedBackend({"the cup": "short", "the cup on the left": "long"}, model="me")
    texts = [reply.text for reply in backend.generate([ask("the cup on the left"), ask("the cup")], SETTINGS)]
    assert texts == ["long", "short"]
    with pytest.raises(BackendError, match="'me' has no answer to"):
        backend.generate([ask("the dog")], SETTINGS)


def test_script_reads_plain_text_messages() -> None:
    backend = ScriptedBackend({"cup": "found"})
    assert backend.generate([Request([{"role": "user", "content": "the cup"}])], SETTINGS)[0].text == "found"
