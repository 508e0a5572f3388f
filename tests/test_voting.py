from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from PIL import Image

from egm.backends import Backend, GenerationSettings, Request, ScriptedBackend
from egm.boxes import Box
from egm.codecs import get_codec
from egm.errors import EgmError
from egm.grounder import Grounder
from egm.types import Completion, Failure

VOTES = GenerationSettings(temperature=0.6, votes=4)
PICTURE = Image.new("RGB", (100, 100))


def box(x2: int) -> str:
    return f'Thought.\n</think> [{{"bbox_2d": [0, 0, {x2}, 1000]}}]'


def grounder(*script: str | Completion, settings: GenerationSettings = VOTES, batch_size: int = 8) -> Grounder:
    return Grounder(ScriptedBackend(script), get_codec("qwen3_vl"), settings=settings, batch_size=batch_size)


def asked(of: Grounder) -> list[tuple[int, int]]:
    assert isinstance(of.backend, ScriptedBackend)
    return [(request.seed_index, request.vote) for request in of.backend.requests]


def test_the_box_that_most_agree_on() -> None:
    subject = grounder(box(100), box(900), "</think> none", box(1000))
    result = subject.ground(PICTURE, "x")
    assert result.box in (Box(0, 0, 90, 100), Box(0, 0, 100, 100))
    assert (result.votes, result.confidence) == (4, 0.5)
    assert asked(subject) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert result.to_dict()["confidence"] == 0.5


def test_what_votes_cost_together() -> None:
    replies = [
        Completion(box(900), "stop", 10, tokens, seconds, reasoning_tokens=2, queue_seconds=1.0, logprob=-tokens)
        for tokens, seconds in ((5, 1.0), (6, 3.0), (7, 2.0), (8, 2.5))
    ]
    answer = next(grounder(*replies).answer_each([(0, (PICTURE, "x"))]))
    assert not isinstance(answer, EgmError)
    completion = answer.completion
    assert (answer.grounding.tokens, answer.grounding.logprob) == (26, -5)
    assert answer.grounding.seconds == completion.seconds == pytest.approx(3.0)
    assert (completion.prompt_tokens, completion.completion_tokens, completion.reasoning_tokens) == (40, 26, 8)
    assert answer.grounding.prompt_tokens == 40
    assert completion.queue_seconds == 1.0
    assert [vote.completion for vote in answer.votes] == replies


def test_the_wait_of_a_vote_is_that_of_the_answer_sent_first() -> None:
    """From there to the last token of the last is its time, whatever the others still waited for."""
    replies = [Completion(box(900), "stop", 1, 1, 1.0, queue_seconds=wait) for wait in (2.0, 0.5, 3.0, 1.0)]
    answer = next(grounder(*replies).answer_each([(0, (PICTURE, "x"))]))
    assert not isinstance(answer, EgmError)
    assert answer.completion.queue_seconds == 0.5
    assert answer.completion.seconds == pytest.approx(3.5, abs=1e-3)


def test_no_box_has_no_confidence() -> None:
    result = grounder("</think> none", "</think>", "</think>", "</think>").ground(PICTURE, "x")
    assert (result.failure, result.confidence, result.votes) == (Failure.NO_BOX, 0.0, 4)


def test_one_answer_is_taken_as_it_is() -> None:
    settings = replace(VOTES, votes=1)
    result = grounder(box(900), settings=settings).ground(PICTURE, "x")
    assert (result.votes, result.confidence) == (1, None)


def test_questions_stop_apart_and_their_rounds_run_together() -> None:
    """The first agrees at once; the second needs a second round."""
    settings = replace(VOTES, votes=8, stop_confidence=0.9)
    subject = grounder(*[box(900)] * 3, box(100), *[box(900)] * 6, settings=settings, batch_size=16)
    first, second = subject.ground_many([(PICTURE, "x"), (PICTURE, "y")], progress=False)
    assert (first.votes, first.confidence) == (3, 1.0)
    assert (second.votes, second.confidence) == (6, 5 / 6)  # 2:1, then the three that could settle it
    assert asked(subject)[:6] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_the_batch_changes_nothing(batch_size: int) -> None:
    class ByVote(ScriptedBackend):
        def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
            self.requests += requests
            return [Completion(box(900 if (own.seed_index + own.vote) % 3 else 100)) for own in requests]

    settings = replace(VOTES, votes=8, stop_confidence=0.9)
    subject = Grounder(ByVote([]), get_codec("qwen3_vl"), settings=settings, batch_size=batch_size)
    results = subject.ground_many([(PICTURE, f"thing {i}") for i in range(6)], progress=False)
    # All go 2:1, 4:2; then draws 0 and 3 go 4:3, 5:3, and the others 5:2, with one left.
    assert [(result.votes, result.confidence) for result in results] == [(8, 5 / 8), (7, 5 / 7), (7, 5 / 7)] * 2
    assert sorted(asked(subject)) == sorted(
        (draw, vote) for draw, result in enumerate(results) for vote in range(result.votes)
    )


def test_a_budget_cuts_the_reasoning_and_begins_the_answer() -> None:
    settings = GenerationSettings(thinking_budget=3)
    long = 'a b c d e\n</think>\n\n[{"bbox_2d": [0, 0, 500, 1000]}]'
    result = grounder(long, settings=settings).ground(PICTURE, "x")
    assert result.reasoning == "a b c"
    assert result.box == Box(0, 0, 50, 100)
    assert result.text == 'a b c\n</think>\n\n```json\n[\n\t{"bbox_2d": [0, 0, 500, 1000]}]'
    short = 'a b\n</think> [{"bbox_2d": [0, 0, 500, 1000]}]'
    assert grounder(short, settings=settings).ground(PICTURE, "x").text == short


def test_a_backend_that_cannot_go_on_is_refused() -> None:
    class Plain(Backend):
        model = "plain"

        def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
            return []

    with pytest.raises(EgmError, match="Plain cannot go on with an answer that is begun for it"):
        Grounder(Plain(), get_codec("qwen3_vl"), settings=GenerationSettings(thinking_budget=3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"votes": 0, "temperature": 1}, "votes 0 is out of range: give at least 1"),
        ({"votes": 2.5, "temperature": 1}, "votes must be a whole number, not 2.5"),
        ({"votes": 4}, "4 votes at temperature 0 are one answer 4 times: sample"),
        ({"thinking_budget": 0}, "thinking_budget 0 is out of range: give at least 1"),
        ({"thinking_budget": 50, "max_new_tokens": 50}, "leaves no room for the answer within max_new_tokens 50"),
        (
            {"votes": 4, "temperature": 1, "stop_confidence": 0.4},
            r"stop_confidence 0\.4 is out of range: give 0\.5 to 1",
        ),
        ({"stop_confidence": 0.9}, "stop_confidence stops a vote, and 1 answer is none: give votes"),
    ],
)
def test_settings_that_do_not_fit(options: dict[str, float], message: str) -> None:
    with pytest.raises(EgmError, match=message):
        GenerationSettings(**options)  # type: ignore[arg-type]
