from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from egm.backends import GenerationSettings, ScriptedBackend
from egm.backends.openai.backend import OpenAIBackend
from egm.boxes import Box
from egm.codecs import get_codec
from egm.errors import BackendError, EgmError, ImageError, PhraseError
from egm.grounder import MAX_PHRASE, Grounder
from egm.types import Completion, Failure, Grounding, Sample

from .backends.faulty_server import FaultyServer, say

ANSWER = 'It is there.\n</think>\n\n```json\n[{"bbox_2d": [100, 200, 300, 400], "label": "x"}]\n```'


def box(x1: int) -> str:
    return f'</think> [{{"bbox_2d": [{x1}, 0, 1000, 1000]}}]'


def grounder(*script: str | Completion, **options: object) -> Grounder:
    return Grounder(ScriptedBackend(script), get_codec("qwen3_vl"), **options)  # type: ignore[arg-type]


def by_phrase(script: dict[str, str], **options: object) -> Grounder:
    return Grounder(ScriptedBackend(script), get_codec("qwen3_vl"), **options)  # type: ignore[arg-type]


def picture(width: int = 40, height: int = 20) -> Image.Image:
    return Image.new("RGB", (width, height), "teal")


def requests(of: Grounder) -> list[tuple[str, tuple[int, int], int]]:
    assert isinstance(of.backend, ScriptedBackend)
    return [(r.messages[0]["content"][1]["text"], r.images[0].size, r.seed_index) for r in of.backend.requests]


def test_ground() -> None:
    subject = grounder(Completion(ANSWER, "stop", 50, 12, 0.25))
    result = subject.ground(picture(), "  the cup ")
    assert result.box == Box(4, 4, 12, 8)
    assert (result.failure, result.reasoning, result.phrase) == (None, "It is there.", "the cup")
    assert (result.tokens, result.seconds, result.size) == (12, 0.25, (40, 20))
    assert result.prompt_tokens == 50
    assert result.draw().size[0] >= 40
    assert result.to_dict()["box"] == [4.0, 4.0, 12.0, 8.0]
    assert requests(subject) == [("Locate the cup, output its bbox coordinates using JSON format.", (40, 20), 0)]


def test_the_length_limit_reaches_the_codec() -> None:
    assert grounder(Completion("I think", "length")).ground(picture(), "x").failure == Failure.TRUNCATED
    assert grounder(Completion("I think", "stop")).ground(picture(), "x").failure == Failure.NO_BOX


def test_amodal_asks_and_reads_amodally() -> None:
    outside = '</think> [{"bbox_2d": [-100, 0, 500, 1100]}]'
    subject = grounder(outside, outside)
    assert subject.ground(picture(), "the cup", amodal=True).box == Box(-4, 0, 20, 22)
    assert subject.ground(picture(), "the cup").failure == Failure.OUT_OF_RANGE
    assert "amodally" in requests(subject)[0][0]


def test_the_size_that_the_model_saw_reaches_the_codec() -> None:
    backend = ScriptedBackend([Completion('[{"bbox_2d": [28, 28, 56, 56]}]', seen_size=(56, 56))])
    result = Grounder(backend, get_codec("qwen2_5_vl")).ground(picture(100, 100), "x")
    assert result.box == Box(50, 50, 100, 100)


def test_prompt_styles() -> None:
    subject = grounder(ANSWER, prompt="grounding")
    subject.ground(picture(), "the cup")
    assert requests(subject)[0][0].startswith("Please provide the bounding box coordinate")
    with pytest.raises(EgmError, match="unknown prompt style 'qwen4'"):
        grounder(prompt="qwen4")


def test_what_is_loaded_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(40, 20).save(tmp_path / "a.jpg", exif=exif)
    assert grounder(ANSWER).ground(tmp_path / "a.jpg", "x").size == (20, 40)
    assert grounder(ANSWER).ground((tmp_path / "a.jpg").read_bytes(), "x").size == (20, 40)


@pytest.mark.parametrize(
    ("phrase", "says"),
    [
        ("", "the phrase is empty: say what to find"),
        (" \n\t ", "the phrase is empty"),
        ("\x00\x1b", "the phrase is empty"),
        ("a" * 10_000, "has 10,000 characters, over the limit of 1,000"),
        (None, "must be text, not NoneType"),
        (b"cup", "must be text, not bytes"),
    ],
)
def test_phrases_that_cannot_be_asked(phrase: str, says: str) -> None:
    subject = grounder(ANSWER)
    with pytest.raises(PhraseError, match=says) as caught:
        subject.ground(picture(), phrase)
    assert "\n" not in str(caught.value)
    assert requests(subject) == []


@pytest.mark.parametrize("phrase", ["a" * MAX_PHRASE, "🍎" * 50, "الكوب الأحمر", "the sign <|im_end|> <|image_pad|>"])
def test_phrases_that_can(phrase: str) -> None:
    subject = grounder(ANSWER)
    assert subject.ground(picture(), phrase).phrase == phrase
    assert "<|" not in requests(subject)[0][0]


def test_a_bad_image_is_refused_before_the_model_runs() -> None:
    subject = grounder(ANSWER)
    with pytest.raises(ImageError, match=r"there is no file 'nope\.png'"):
        subject.ground("nope.png", "x")
    assert requests(subject) == []


# ---- many


def test_many_come_back_in_order_though_asked_by_size() -> None:
    script = {f"thing {i};": box(i * 10) for i in range(7)}
    subject = by_phrase(script, batch_size=3)
    sizes = [(90, 90), (10, 10), (50, 50), (40, 40), (80, 80), (20, 20), (60, 60)]
    results = subject.ground_many([(picture(*size), f"thing {i};") for i, size in enumerate(sizes)], progress=False)
    assert [result.box and round(result.box.x1 * 100 / result.box.x2) for result in results] == list(range(7))
    assert [result.size for result in results] == sizes
    asked = requests(subject)
    assert [size for _, size, _ in asked] == sorted(sizes)
    assert {draw: f"thing {draw};" in text for text, _, draw in asked} == dict.fromkeys(range(7), True)


def test_many_take_samples_and_pairs() -> None:
    subject = grounder(ANSWER, ANSWER)
    sample = Sample(id="a", image=picture(), phrase="the cup", amodal=True)
    assert len(subject.ground_many([sample, (picture(), "the mug")])) == 2
    assert ["amodally" in text for text, _, _ in requests(subject)] == [True, False]
    assert subject.ground_many([]) == []


def test_a_picture_that_several_ask_about_is_loaded_once(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    subject = grounder(*[ANSWER] * 3)
    results = list(subject.ground_each([(tmp_path / "a.png", "x"), (str(tmp_path / "a.png"), "y"), (picture(), "z")]))
    assert all(isinstance(result, Grounding) for result in results)
    images = [result.image for result in results if isinstance(result, Grounding)]
    assert images[0] is images[1]
    assert images[0] is not images[2]


@pytest.mark.parametrize("side", [20, 3000])
@pytest.mark.parametrize("remote", [False, True], ids=["here", "server"])
def test_pictures_are_let_go_once_they_are_many(side: int, remote: bool, tmp_path: Path) -> None:
    """Over 25 megapixels the image cache begins anew, and a picture that is asked about again is loaded again."""
    for name in "abcd":
        picture(side, side).save(tmp_path / f"{name}.png", compress_level=1)
    items = [(tmp_path / f"{name}.png", "x") for name in "abcda"]
    with FaultyServer({"": [say(ANSWER)]}) as server:
        subject = Grounder.connect(server.url) if remote else grounder(*[ANSWER] * 5, batch_size=1)
        with subject:
            results = list(subject.ground_each(items))
    images = [result.image for result in results if isinstance(result, Grounding)]
    assert len(images) == 5
    assert (images[0] is images[4]) == (side == 20)


@pytest.mark.parametrize(
    ("bad", "kind", "says"),
    [
        (("nope.png", "x"), ImageError, "item 1: there is no file 'nope.png'"),
        ((picture(), ""), PhraseError, "item 1: the phrase is empty"),
        ((picture(2, 2), "x"), ImageError, "item 1: the given PIL image: 2 x 2 is too small"),
        ("nope.png", EgmError, "item 1: a question must be a Sample or a pair"),
    ],
)
def test_a_bad_item_costs_no_work(bad: object, kind: type[EgmError], says: str) -> None:
    subject = grounder(ANSWER, ANSWER)
    with pytest.raises(kind, match=says):
        subject.ground_many([(picture(), "x"), bad])  # type: ignore[list-item]
    assert requests(subject) == []


def test_each_goes_on_after_bad_items() -> None:
    subject = grounder(*[ANSWER] * 3, batch_size=1)
    items = [
        (picture(), "a"),
        ("nope.png", "b"),
        (picture(), ""),
        (picture(), "c"),
        ("nope.png", "d"),
        (picture(), "e"),
    ]
    results = list(subject.ground_each(items))
    assert [type(result) for result in results] == [
        Grounding,
        ImageError,
        PhraseError,
        Grounding,
        ImageError,
        Grounding,
    ]
    assert [draw for _, _, draw in requests(subject)] == [0, 3, 5]


def test_each_reads_endless_items_only_a_little_ahead() -> None:
    taken = 0

    def endless() -> Iterator[tuple[Image.Image, str]]:
        nonlocal taken
        while True:
            taken += 1
            yield picture(), "x"

    results = grounder(*[ANSWER] * 100, batch_size=2).ground_each(endless())
    next(results)
    assert taken == 8


def test_large_pictures_are_not_hoarded() -> None:
    taken = 0

    def large() -> Iterator[tuple[Image.Image, str]]:
        nonlocal taken
        while True:
            taken += 1
            yield Image.new("RGB", (8000, 5000)), "x"

    next(grounder(*[ANSWER] * 100).ground_each(large()))
    assert taken == 3  # 120 megapixels


def test_what_the_backend_raises_comes_through() -> None:
    with pytest.raises(BackendError, match="has ended"):
        grounder(ANSWER, batch_size=1).ground_many([(picture(), "x")] * 2)


def test_progress_is_silent_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    grounder(ANSWER).ground_many([(picture(), "x")])
    assert capfd.readouterr() == ("", "")


def test_settings_reach_the_backend() -> None:
    class Recorder(ScriptedBackend):
        def generate(self, requests: object, settings: GenerationSettings) -> list[Completion]:
            seen.append(settings)
            return super().generate(requests, settings)  # type: ignore[arg-type]

    seen: list[GenerationSettings] = []
    settings = GenerationSettings(temperature=0.5)
    Grounder(Recorder([ANSWER]), get_codec("qwen3_vl"), settings=settings).ground(picture(), "x")
    Grounder(Recorder([ANSWER]), get_codec("qwen3_vl")).ground(picture(), "x")
    assert seen == [settings, GenerationSettings()]
    with pytest.raises(EgmError, match="batch_size 0 is out of range"):
        grounder(batch_size=0)


# ---- closing


class Closing(ScriptedBackend):
    """Counts how often it is closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


def test_a_backend_that_was_given_is_left_open_unless_it_is_the_grounders_own() -> None:
    for owns, closed in ((False, 0), (True, 1)):
        backend = Closing([ANSWER])
        with Grounder(backend, get_codec("qwen3_vl"), owns_backend=owns) as subject:
            assert subject.ground(picture(), "x").box is not None
            assert backend.closed == 0
        assert backend.closed == closed


def test_it_is_closed_on_an_error_too() -> None:
    backend = Closing([])
    with (
        pytest.raises(BackendError, match="has ended"),
        Grounder(backend, get_codec("qwen3_vl"), owns_backend=True) as subject,
    ):
        subject.ground(picture(), "x")
    assert backend.closed == 1


def test_what_it_opened_is_closed() -> None:
    with FaultyServer({"": [say(ANSWER)]}) as server, Grounder.connect(server.url) as subject:
        assert subject.ground(picture(), "x").box is not None
        subject.close()
        with pytest.raises(BackendError, match="is closed"):
            subject.ground(picture(), "x")
    assert Grounder.load("egm-tiny").owns_backend


def test_what_was_opened_for_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed, close = list[OpenAIBackend](), OpenAIBackend.close
    monkeypatch.setattr(OpenAIBackend, "close", lambda self: closed.append(self) or close(self))  # type: ignore[func-returns-value]
    with FaultyServer({}) as server, pytest.raises(EgmError, match="unknown prompt style"):
        Grounder.connect(server.url, prompt="qwen4")
    assert len(closed) == 1
