"""Each known defect is told from the others and named; engines that round raise no alarm."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from egm.backends import GenerationSettings, Request
from egm.backends.base import Backend
from egm.doctor import Diagnosis, EngineVerdict, examine_backend, known_defects
from egm.doctor.pictures import RECIPES
from egm.types import Completion

from . import fakes
from .replayed import Replayed

EXTREME = ["1:3", "5:1", "1:5", "4:1", "1:4", "tiny"]
USUAL = ["224", "twin-4", "tall", "odd-1"]


def of(engine: Backend, pictures: Sequence[str] | None = None) -> Diagnosis:
    return examine_backend(engine, pictures=pictures).diagnosis


def names(diagnosis: Diagnosis) -> list[str]:
    return [finding.name for finding in diagnosis.findings]


# ---- engines that compute


def alone(engine: Backend, pictures: Sequence[str], tokens: int = 60) -> Diagnosis:
    rounds = ("alone", "controls")
    return examine_backend(engine, pictures=pictures, rounds=rounds, max_new_tokens=tokens).diagnosis


def test_the_same_model_in_the_same_numbers_is_right() -> None:
    diagnosis = alone(fakes.good(), USUAL)
    assert (diagnosis.verdict, diagnosis.findings) == (EngineVerdict.RIGHT, ())
    assert all(one.same and one.prompt_tokens == 0 for one in diagnosis.comparisons)
    assert all(one.logprob == pytest.approx(0, abs=1e-4) for one in diagnosis.comparisons)


def test_weights_rounded_to_8_bits_are_right() -> None:
    diagnosis = alone(fakes.rounded("fp8"), ["1:5", "4:1", "tiny", "tall"])
    assert (diagnosis.verdict, diagnosis.findings) == (EngineVerdict.RIGHT, ())
    assert diagnosis.reason.startswith("rounding: ")
    assert any(not one.same for one in diagnosis.comparisons)


@pytest.mark.parametrize(
    ("fake", "pictures", "name"),
    [
        (fakes.align_corners, [*EXTREME], "align_corners"),
        (fakes.positions_flat, USUAL, "positions"),
        (fakes.positions_counted, USUAL, "positions"),
        (fakes.double_resize, ["224", "5:1", "1:4", "tall"], "double_resize"),
        (fakes.patch_14, USUAL, "patch_14"),
        (fakes.dropped_newline, USUAL, "template_newline"),
    ],
)
def test_a_defect_of_the_computation_is_named(fake: Any, pictures: list[str], name: str) -> None:
    diagnosis = alone(fake(), pictures)
    assert (diagnosis.verdict, names(diagnosis)[:1]) == (EngineVerdict.WRONG, [name]), diagnosis


def test_a_quantised_output_head_is_named() -> None:
    diagnosis = alone(fakes.quantised_head(3), ["twin-2", "333", "mega-2"], tokens=110)  # these part late
    assert (diagnosis.verdict, names(diagnosis)[:1]) == (EngineVerdict.WRONG, ["quantised"]), diagnosis


def test_extreme_shapes_show_what_usual_ones_do_not() -> None:
    diagnosis = alone(fakes.align_corners(), USUAL)
    assert diagnosis.verdict is EngineVerdict.RIGHT


# ---- engines that answer as egm-tiny did, but for one thing


def test_the_recording_itself_is_right() -> None:
    engine = Replayed()
    diagnosis = of(engine)
    assert (diagnosis.verdict, diagnosis.findings, diagnosis.notes[1:]) == (EngineVerdict.RIGHT, (), ())
    assert engine.asked[: len(RECIPES)] == list(RECIPES)
    assert len(diagnosis.comparisons) == 24


def coordinates(change: Any) -> Any:
    def after(reply: Completion) -> Completion:
        def box(found: re.Match[str]) -> str:
            numbers = change([int(number) for number in found[1].split(", ")])
            return f'"bbox_2d": [{", ".join(map(str, numbers))}]'

        return replace(reply, text=re.sub(r'"bbox_2d": \[([\d, ]+)\]', box, reply.text))

    return after


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda box: [box[1], box[0], box[3], box[2]], "y_before_x"),
        (lambda box: [1000 - box[2], box[1], 1000 - box[0], box[3]], "mirrored"),
        (lambda box: [number * 320 // 1000 for number in box], "other_scale"),
        (lambda box: [number + 90 for number in box], "displaced"),
        (lambda box: [number + 12 for number in box], "displaced"),
        (lambda box: [500 + round((number - 500) * 0.97) for number in box], "displaced"),
    ],
)
def test_boxes_that_are_moved_alike(change: Any, name: str) -> None:
    diagnosis = of(Replayed(change=coordinates(change)))
    assert (diagnosis.verdict, names(diagnosis)[:1]) == (EngineVerdict.WRONG, [name]), diagnosis.findings


def test_how_far_boxes_are_displaced_is_said() -> None:
    diagnosis = of(Replayed(change=coordinates(lambda box: [box[0] + 12, box[1], box[2] + 12, box[3]])))
    assert "shift in x +12.0 ± 0.0 thousandths of the frame" in diagnosis.findings[0].seen
    assert "in y" not in diagnosis.findings[0].seen


def test_boxes_that_scatter_are_not_displaced() -> None:
    numbers = iter([1, -2, 2, -1, 0, 2, -2, 1] * 100)
    diagnosis = of(Replayed(change=coordinates(lambda box: [number + next(numbers) for number in box])))
    assert "displaced" not in names(diagnosis)


class Stale(Replayed):
    """The prefix cache goes by tokens alone, and those of two pictures of one size are the same placeholders."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[str, str] = {}

    def name_of(self, request: Request) -> str:
        name = super().name_of(request)
        sizes = [image.size for image in request.images]
        return self.cache.setdefault(f"{request.messages} {sizes}", name) if sizes else name


def test_a_stale_prefix_cache() -> None:
    diagnosis = of(Stale())
    assert (diagnosis.verdict, names(diagnosis)) == (EngineVerdict.WRONG, ["stale_prefix"])
    assert "twin-2, twin-4 answered as what was asked before" in diagnosis.findings[0].seen


def answer_alone(reply: Completion) -> Completion:
    return replace(reply, text=reply.text.rpartition("</think>")[2].lstrip("\n"))


def test_reasoning_that_is_lost() -> None:
    diagnosis = of(Replayed(change=answer_alone))
    assert (diagnosis.verdict, names(diagnosis)) == (EngineVerdict.WRONG, ["reasoning_lost"])
    assert all(one.same and one.agrees for one in diagnosis.comparisons)


@pytest.mark.parametrize(
    ("more", "name"), [(-1, "template_newline"), (1, "double_bos"), (4, "other_template"), (-4, "other_template")]
)
def test_prompts_of_another_length_and_other_answers(more: int, name: str) -> None:
    def other(reply: Completion) -> Completion:
        assert reply.prompt_tokens is not None
        return replace(reply, prompt_tokens=reply.prompt_tokens + more, text=reply.text.replace("solid", "plain"))

    assert names(of(Replayed(change=other)))[:1] == [name]


def test_prompts_that_are_only_counted_otherwise_are_right() -> None:
    diagnosis = of(Replayed(change=lambda reply: replace(reply, prompt_tokens=(reply.prompt_tokens or 0) + 5)))
    assert diagnosis.verdict is EngineVerdict.RIGHT
    assert any("counts otherwise" in note for note in diagnosis.notes)


def test_an_engine_that_counts_nothing_is_right() -> None:
    silent = lambda reply: replace(reply, prompt_tokens=None, completion_tokens=None, logprob=None)  # noqa: E731
    diagnosis = of(Replayed(change=silent))
    assert diagnosis.verdict is EngineVerdict.RIGHT
    assert any("does not count" in note for note in diagnosis.notes)


class Blind(Replayed):
    """Sees one picture, whichever is shown."""

    def answer(self, request: Request, settings: GenerationSettings) -> Completion:
        shown = super().answer(request, settings)
        if not request.images:
            return shown
        seen = replace(request, images=[self.pictures[0].image], messages=_ask(self.pictures[0].phrase))
        image_tokens = {one.picture: one for one in self.recording.answers}[self.asked[-1]]
        assert image_tokens.seen_size is not None
        visual = image_tokens.seen_size[0] * image_tokens.seen_size[1] // 1024
        return replace(super().answer(seen, settings), prompt_tokens=(shown.prompt_tokens or 0) - visual)


def _ask(phrase: str) -> Any:
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": phrase}]}]


def test_pictures_that_do_not_reach_the_model() -> None:
    assert names(of(Blind()))[:1] == ["no_picture"]


class Mixed(Replayed):
    """Gives the questions of a batch each other's answers."""

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        replies = super().generate(requests, settings)
        return [*replies[1:], replies[0]]


def test_answers_that_are_mixed_up_in_a_batch() -> None:
    diagnosis = of(Mixed())
    assert (diagnosis.verdict, names(diagnosis)) == (EngineVerdict.WRONG, ["together_differs"])


class Graphs(Replayed):
    """Keeps graphs of the vision tower by the number of patches: pictures of a batch that have as many get one's."""

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        replies = super().generate(requests, settings)
        patches = [request.images[0].width * request.images[0].height if request.images else 0 for request in requests]
        return [replies[patches.index(count)] for count in patches]


def test_pictures_of_a_batch_that_get_each_others_embeddings() -> None:
    (found,) = of(Graphs()).findings
    assert (found.name, found.seen.endswith("answers are others: twin-2, twin-4")) == ("together_differs", True)


class Garbled(Replayed):
    """Sees two sizes of pictures otherwise."""

    def answer(self, request: Request, settings: GenerationSettings) -> Completion:
        reply = super().answer(request, settings)
        return replace(reply, text="?" + reply.text) if self.asked[-1] in ("333", "tiny") else reply


def test_some_pictures_that_are_seen_otherwise() -> None:
    (found,) = of(Garbled()).findings
    assert found.name == "some_pictures"
    assert found.seen.endswith("and most not at all: 333 (333 x 250), tiny (48 x 64)")


class Stretched(Replayed):
    """Answers as with align_corners=False, and in a batch one picture otherwise again."""

    def answer(self, request: Request, settings: GenerationSettings) -> Completion:
        reply = super().answer(request, settings)
        other = self.recording.simulated["align_corners"].get(self.asked[-1])
        return reply if other is None else replace(reply, text=reply.text[: other.place] + other.text)

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        replies = super().generate(requests, settings)
        names = [self.name_of(request) for request in requests]
        if len(replies) > 1:
            replies[names.index("333")] = replace(replies[names.index("333")], text="{")
        return replies


def test_a_defect_that_was_simulated_is_named_beside_answers_that_change() -> None:
    assert names(of(Stretched())) == ["align_corners", "together_differs"]


class Forgetful(Replayed):
    """Answers otherwise from a warm cache."""

    def answer(self, request: Request, settings: GenerationSettings) -> Completion:
        reply = super().answer(request, settings)
        again = request.images and len(self.asked) > len(RECIPES) and self.asked.count(self.asked[-1]) == 2
        return replace(reply, text=reply.text[:3] + "0" + reply.text[4:]) if again else reply


def test_answers_that_change_once_they_are_cached() -> None:
    assert "warm_differs" in names(of(Forgetful()))


def test_too_few_answers_are_no_verdict() -> None:
    diagnosis = of(Replayed(), ["224", "tall"])
    assert (diagnosis.verdict, diagnosis.reason) == (EngineVerdict.CANNOT_TELL, "2 of 2 pictures were answered")


def test_the_page_has_the_table_of_defects() -> None:
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
    for defect in known_defects().values():
        sources = ", ".join(defect.sources) or "–"
        assert f"| `{defect.name}` | {defect.symptom} | {defect.advice} | {sources} |" in page
