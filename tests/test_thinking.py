"""Direct answers, and the gate that decides whether a model thinks after all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from egm.backends import Backend, GenerationSettings, Request, ScriptedBackend
from egm.boxes import Box
from egm.codecs import get_codec
from egm.errors import DataError, EgmError
from egm.evaluate import evaluate
from egm.grounder import Grounder
from egm.journal import read_journal
from egm.report.runs import load_runs
from egm.thinking import Gate, certainties_of, gate_subject, read_gate
from egm.types import Completion, Sample

from .backends.faulty_server import FaultyServer, Play, fail, say

BEGUN = '</think>\n\n```json\n[\n\t{"bbox_2d": ['
PICTURE = Image.new("RGB", (100, 100), "teal")
CODEC = get_codec("qwen3_vl")
SURE = {"easy": -0.1, "hard": -2.0}


class Mixed(Backend):
    """Answers at once where it is asked to, more or less surely, and otherwise after four tokens of thought."""

    model = "mixed"
    thinking_budgets = True

    def __init__(self, *, tells: bool = True) -> None:
        self.calls: list[list[bool]] = []  # of each request of each call, whether it was begun
        self.tells = tells

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        self.calls.append([bool(request.prefill) for request in requests])
        return [self.answer(request) for request in requests]

    def answer(self, request: Request) -> Completion:
        asked = request.messages[0]["content"][-1]["text"]
        if not request.prefill:
            return Completion("so it is\n</think>\n\n" + "[[0, 0, 500, 1000]]", "stop", 10, 9, 2.0, reasoning_tokens=4)
        assert request.prefill == BEGUN
        if "broken" in asked:
            return Completion("oh", "stop", 14, 1, 1.0, token_logprobs=((2, -0.01),))
        sure = next(value for word, value in SURE.items() if word in asked)
        text = '0, 0, 250, 1000], "label": "x"}]\n```'
        told = ((1, sure), (2, 0.0), (4, 0.0), (6, 0.0), (9, 0.0), (10, -9.0), (15, 0.0), (len(text), -9.0))
        return Completion(
            text, "stop", 14, 8, 1.0, token_logprobs=told if self.tells and request.token_logprobs else ()
        )


def fitted(measure: str = "least", threshold: float | None = -1.0, **others: Any) -> Gate:
    settings = replace(GenerationSettings(), think="auto")
    return Gate(measure, threshold, **{**gate_subject("mixed", CODEC, None, settings), **others})


def auto(backend: Backend, gate: Any, **options: Any) -> Grounder:
    return Grounder(backend, CODEC, settings=GenerationSettings(think="auto"), gate=gate, **options)


QUESTIONS = [(PICTURE, "the easy one"), (PICTURE, "the hard one"), (PICTURE, "the broken one")]


def test_a_direct_answer_is_begun_in_the_models_place() -> None:
    grounder = Grounder(Mixed(), CODEC, settings=GenerationSettings(think="never"))
    easy, _, broken = grounder.ground_many(QUESTIONS)
    assert (easy.box, easy.thought, easy.tokens, easy.reasoning) == (Box(0, 0, 25, 100), False, 8, "")
    assert easy.text.startswith(BEGUN + "0, 0, 250")
    assert (broken.thought, broken.failure is None) == (False, False)
    assert grounder.backend.calls == [[True, True, True]]
    assert "thought" not in Grounder(Mixed(), CODEC).ground(PICTURE, "the easy one").to_dict()


def test_the_unsure_think_after_all_and_both_answers_count() -> None:
    grounder = auto(Mixed(), fitted())
    easy, hard, broken = list(grounder.answer_each(enumerate(QUESTIONS)))
    assert (easy.grounding.box, easy.grounding.thought, easy.grounding.certainty) == (Box(0, 0, 25, 100), False, -0.1)
    assert (hard.grounding.box, hard.grounding.thought, hard.grounding.certainty) == (Box(0, 0, 50, 100), True, -2.0)
    assert (broken.grounding.box, broken.grounding.certainty) == (Box(0, 0, 50, 100), None)
    assert grounder.backend.calls == [[True, True, True], [False, False]]  # in batches, those left over in one
    cost = hard.completion
    assert (cost.prompt_tokens, cost.completion_tokens, cost.reasoning_tokens, cost.seconds) == (24, 17, 4, 3.0)
    assert (easy.completion.completion_tokens, easy.direct) == (8, None)
    assert hard.direct.completion.completion_tokens == 8
    assert (hard.grounding.tokens, hard.grounding.to_dict()["thought"]) == (17, True)
    assert hard.grounding.prompt_tokens == 24


def test_only_the_tokens_of_the_four_numbers_count() -> None:
    told = ((1, -0.5), (2, -9.0), (4, -0.1), (5, -9.0), (7, 0.0), (8, -9.0), (10, -0.2), (11, -9.0), (20, -9.0))
    reply = Completion('1, 2, 3, 4], "label": "7"}', token_logprobs=told)
    assert certainties_of(reply, "one", "the cup") == {"phrase": 0.0, "mean": pytest.approx(-0.2), "least": -0.5}
    assert certainties_of(reply, "all", "the cup")["least"] == -9.0
    assert certainties_of(replace(reply, token_logprobs=()), "one", "left of the cup") == {"phrase": -1.0}


def test_by_the_phrase_nothing_is_asked_twice() -> None:
    grounder = auto(Mixed(tells=False), fitted("phrase", -1.0))
    asked = [(PICTURE, "the easy cup"), (PICTURE, "the second easy cup left of the tallest")]
    plain, complex_ = grounder.ground_many(asked)
    assert [(each.thought, each.certainty, each.tokens) for each in (plain, complex_)] == [(False, 0, 8), (True, -3, 9)]
    assert sorted(grounder.backend.calls[0]) == [False, True]


def test_where_thinking_always_pays_nothing_is_asked_directly() -> None:
    grounder = auto(Mixed(), fitted(threshold=None))
    assert [each.thought for each in grounder.ground_many(QUESTIONS)] == [True] * 3
    assert grounder.backend.calls == [[False] * 3]


def test_a_model_that_thinks_all_the_same_is_not_sure() -> None:
    told = tuple((end, 0.0) for end in range(1, 31))
    twice = Completion("1, no\n</think>\n\n[[0, 0, 9, 9]]", token_logprobs=told)
    backend = ScriptedBackend([twice, "</think> [[0, 0, 500, 500]]"], model="mixed")
    assert auto(backend, fitted()).ground(PICTURE, "it").thought is True


def test_who_thinks_all_the_same_is_recorded_as_having_thought(tmp_path: Path) -> None:
    plain, twice = '0, 0, 500, 1000], "label": "x"}]', "1, no\n</think>\n\n[[0, 0, 500, 1000]]"
    never = GenerationSettings(think="never")
    samples = [Sample(name, PICTURE, name, Box(0, 0, 50, 100)) for name in ("plain", "twice")]
    grounder = Grounder(ScriptedBackend({"plain": plain, "twice": twice}), CODEC, settings=never)
    result = evaluate(samples, grounder, tmp_path, progress=False)
    assert [(record.thought, record.iou) for record in result.records] == [(False, 1.0), (True, 1.0)]
    assert result.summary()["all"]["thinking"]["thought"] == 0.5
    label = ScriptedBackend(['0, 0, 500, 1000], "label": "</think>"}\n]\n```'])
    assert Grounder(label, CODEC, settings=never).ground(PICTURE, "x").thought is False
    voting = replace(never, votes=3, temperature=1.0)
    for texts, thought in (((plain, plain, twice), True), ((plain,) * 3, False)):
        assert Grounder(ScriptedBackend(texts), CODEC, settings=voting).ground(PICTURE, "x").thought is thought
    by_phrase = auto(ScriptedBackend([twice], model="mixed"), fitted("phrase", -1.0)).ground(PICTURE, "x")
    assert (by_phrase.thought, by_phrase.box) == (True, Box(0, 0, 50, 100))


def test_the_boxes_of_a_direct_answer_are_as_sure_as_their_own_tokens() -> None:
    """What is begun in the model's place moves the tokens' ends, and no confidence."""
    parts = (('[{"bbox_2d": [', -3.0), ("0, 0, 250, 1000", -0.1), ('], "label": "x"}, {"bbox_2d": [', -3.0))
    parts += (("500, 0, 750, 1000", -0.7), ('], "label": "y"}]', -3.0))
    ends = accumulate(len(text) for text, _ in parts)
    told = tuple((end, value) for end, (_, value) in zip(ends, parts, strict=True))
    reply = Completion("".join(text for text, _ in parts), answer_logprob=-1.0, token_logprobs=told)
    backend = ScriptedBackend([reply])
    boxes = (
        Grounder(backend, CODEC, settings=GenerationSettings(think="never")).ground(PICTURE, "x", expect="all").boxes
    )
    assert CODEC.direct_prefill("x", expect="all")
    assert [each.confidence for each in boxes] == [pytest.approx(math.exp(mean)) for mean in (-0.1, -0.7)]


def test_an_engine_that_tells_nothing_is_refused_in_one_line() -> None:
    with pytest.raises(EgmError, match=r"^thinking only where it pays .* log-probabilities .* think=always or never$"):
        auto(Mixed(tells=False), fitted()).ground(PICTURE, "the easy one")


@pytest.mark.parametrize(
    ("others", "named"),
    [
        ({"model": "other"}, 'model is "mixed", was "other"'),
        ({"codec": {"name": "qwen3_vl_instruct"}}, "codec.name"),
        ({"prompt": {"style": "grounding", "modal": "x"}}, "prompt.style"),
        ({"settings": {**asdict(GenerationSettings()), "temperature": 0.6, "seed": 3}}, r"settings.temperature is 0.0"),
    ],
)
def test_a_gate_is_for_what_it_was_fitted_on(others: dict[str, Any], named: str) -> None:
    with pytest.raises(EgmError, match=named) as caught:
        auto(Mixed(), fitted(**others))
    assert "seed" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gate_decides_for_as_many_boxes_as_it_was_fitted_on() -> None:
    settings = GenerationSettings(think="auto")
    subject = gate_subject("mixed", CODEC, None, settings)
    gate = Gate("mean", -1.0, **subject)
    with Grounder(Mixed(), CODEC, settings=settings, gate=gate) as grounder:
        with pytest.raises(EgmError, match="fitted on questions that expect one, not all: calibrate on such questions"):
            grounder.ground(PICTURE, "easy", expect="all")
        [refused] = grounder.ground_each([Sample("a", PICTURE, "easy", expect="any")])
        assert "expect one, not any" in str(refused)
    of_all = replace(gate, facts={"expects": ["all"]})
    with Grounder(Mixed(), CODEC, settings=settings, gate=of_all) as grounder:
        [refused] = grounder.ground_each([(PICTURE, "easy")])
        assert "expect all, not one" in str(refused)


def test_of_known_weights_the_name_does_not_count(tmp_path: Path) -> None:
    settings = GenerationSettings(max_new_tokens=640, think="auto")
    gate = replace(fitted(), **gate_subject("elsewhere", CODEC, None, settings), tensors="0" * 16)
    with pytest.raises(EgmError, match=r"fitted on other weights \(elsewhere\) than those of egm-tiny"):
        Grounder.load("egm-tiny", settings=settings, gate=gate)
    from egm.backends.checkpoint import find_checkpoint, tensors_digest

    own = replace(gate, tensors=tensors_digest(find_checkpoint("egm-tiny").path))
    (tmp_path / "gate.json").write_text(own.to_json())
    with Grounder.load("egm-tiny", settings=settings, gate=tmp_path) as grounder:
        assert grounder.gate == replace(own, model="egm-tiny")


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(EgmError, match=r"think=auto needs a gate"):
        auto(Mixed(), None)
    with pytest.raises(EgmError, match=r"think=always asks no gate"):
        Grounder(Mixed(), CODEC, gate=fitted())
    with pytest.raises(EgmError, match="unknown think 'sometimes'"):
        GenerationSettings(think="sometimes")  # type: ignore[arg-type]
    with pytest.raises(EgmError, match="thinking_budget bounds reasoning"):
        GenerationSettings(think="never", thinking_budget=3)
    with pytest.raises(EgmError, match="one direct answer first"):
        GenerationSettings(think="auto", votes=3, temperature=1)
    never = GenerationSettings(think="never")
    with pytest.raises(EgmError, match="has no way to answer without thinking where any"):
        Grounder(Mixed(), get_codec("qwen3_vl_instruct"), settings=never).ground(PICTURE, "x", expect="any")

    class Plain(Mixed):
        thinking_budgets = False

    with pytest.raises(EgmError, match=r"Plain cannot go on with an answer.*think=never needs: leave think out"):
        Grounder(Plain(), CODEC, settings=never)


def test_a_gate_is_read_as_it_was_written(tmp_path: Path) -> None:
    gate = replace(fitted("mean", -0.25), facts={"bound": {"points": 0.5}})
    (tmp_path / "gate.json").write_text(gate.to_json())
    assert read_gate(tmp_path) == read_gate(tmp_path / "gate.json") == gate
    assert auto(Mixed(), tmp_path / "gate.json").gate == gate
    row = json.loads(gate.to_json())
    for spoilt in (
        {"gate": 2},
        {"measure": "mood"},
        {"threshold": "low"},
        {"threshold": True},
        {"codec": 3},
        {"model": 1},
        {"measure": ["mean"]},
        {"threshold": 10**400},
        {"threshold": float("nan")},
        {"tensors": 3},
        {"tensors": ...},
    ):
        kept = {key: value for key, value in {**row, **spoilt}.items() if value is not ...}
        (tmp_path / "gate.json").write_text(json.dumps(kept))
        with pytest.raises(
            DataError, match=r"is no gate that this version reads: give a file that egm calibrate wrote"
        ):
            read_gate(tmp_path)
    for text in ("", "[]", "{", "[" * 100_000):
        (tmp_path / "gate.json").write_text(text)
        with pytest.raises(DataError, match="egm calibrate"):
            read_gate(tmp_path)
    twice = gate.to_json().replace('"threshold"', '"threshold": -99, "threshold"', 1)
    (tmp_path / "gate.json").write_text(twice)
    with pytest.raises(DataError, match=r"cannot be read \(it says 'threshold' twice"):
        read_gate(tmp_path)
    with pytest.raises(DataError, match=r"cannot be read \(No such file"):
        read_gate(tmp_path / "nowhere.json")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="is not a regular file"):
        read_gate(tmp_path / "pipe")


def test_a_journal_says_what_was_decided(tmp_path: Path) -> None:
    samples = [Sample(f"s{n}", PICTURE, phrase, Box(0, 0, 25, 100)) for n, (_, phrase) in enumerate(QUESTIONS)]
    gate = replace(fitted(), facts={"bound": {"points": 0.5}})
    result = evaluate(samples, auto(Mixed(), gate), tmp_path / "auto", progress=False)
    easy, hard, broken = result.records
    assert (easy.thought, easy.certainties, easy.direct_tokens) == (
        False,
        {"phrase": 0, "mean": pytest.approx(-0.025), "least": -0.1},
        None,
    )
    assert (hard.thought, hard.certainties["least"], hard.direct_tokens, hard.completion_tokens) == (True, -2.0, 8, 17)
    assert (broken.thought, broken.certainties) == (True, {"phrase": 0.0})
    assert (result.header.settings["think"], result.header.engine["gate"]["bound"]) == ("auto", {"points": 0.5})
    thinking = result.summary()["all"]["thinking"]
    assert thinking == {"n": 3, "thought": pytest.approx(2 / 3), "direct_tokens": pytest.approx(9 / 3)}
    with pytest.raises(DataError, match=r"engine\.gate\.threshold is -3\.0, was -1\.0"):
        evaluate(samples, auto(Mixed(), replace(gate, threshold=-3.0)), tmp_path / "auto", progress=False)
    plain = evaluate(samples, Grounder(Mixed(), CODEC), tmp_path / "always", progress=False)
    assert not {"thought", "certainties", "direct_tokens"} & plain.records[0].to_dict().keys()
    assert "thinking" not in plain.summary()["all"]
    lines = (tmp_path / "auto" / "journal.jsonl").read_text().splitlines()
    broken_line = json.dumps({**json.loads(lines[1]), "certainties": {"least": "much"}})
    (tmp_path / "auto" / "journal.jsonl").write_text("\n".join([lines[0], broken_line, *lines[2:]]) + "\n")
    with pytest.raises(DataError, match="certainties"):
        read_journal(tmp_path / "auto" / "journal.jsonl")
    assert load_runs([tmp_path / "always"])[0].records


def spoken(*tokens: tuple[str, float | None]) -> Play:
    content = [{"token": token, "logprob": value} for token, value in tokens]
    message = {"role": "assistant", "content": "".join(token for token, _ in tokens)}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": {"content": content}}
    body = {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": len(tokens)}}
    return Play(raw=json.dumps(body).encode(), streams=False)


SURELY = spoken(("0", -0.1), (", ", 0.0), ("0, ", 0.0), ("25", -0.2), ("0, ", 0.0), ("1000", -0.1), ("]}]", -7.0))
HARDLY = spoken(("0, 0, 250, ", -5.0), ("1000", 0.0), ("]}]", 0.0))
THOUGHT = say("so.\n</think>\n\n[[0, 0, 500, 1000]]")


def remote(server: FaultyServer, gate: Gate | None, **options: Any) -> Grounder:
    think = "never" if gate is None else "auto"
    own = None if gate is None else replace(gate, model="tiny")
    return Grounder.connect(server.url, settings=GenerationSettings(think=think), gate=own, **options)


def test_a_server_is_asked_for_a_begun_answer_and_its_log_probabilities() -> None:
    with FaultyServer({"easy": [SURELY], "hard": [HARDLY, THOUGHT]}) as server:
        with remote(server, fitted(), concurrency=1) as grounder:
            easy, hard = grounder.ground_many([(PICTURE, "the easy one"), (PICTURE, "the hard one")])
        sent = {query["messages"][-1]["content"] if len(query["messages"]) == 2 else None for query in server.asked}
        direct = [query for query in server.asked if len(query["messages"]) == 2]
        assert all((query["logprobs"], query["continue_final_message"]) == (True, True) for query in direct)
        assert [query.get("logprobs") for query in server.asked if len(query["messages"]) == 1] == [None]
    assert sent == {BEGUN, None}
    assert (easy.box, easy.thought, easy.certainty, easy.tokens) == (Box(0, 0, 25, 100), False, -0.2, 7)
    assert (hard.box, hard.thought, hard.certainty, hard.tokens) == (Box(0, 0, 50, 100), True, -5.0, 6)


def test_a_server_that_tells_no_log_probabilities_is_refused_in_one_line() -> None:
    silent = say("0, 0, 250, 1000]}]")
    for play in (silent, spoken(("0, 0, 250, 1000]}]", None)), say(refuses="logprobs")):
        refused = pytest.raises(EgmError, match=r"^thinking only where it pays .* or take think=always or never$")
        with FaultyServer({"": [play]}) as server, remote(server, fitted()) as grounder, refused:
            grounder.ground(PICTURE, "the easy one")
    with FaultyServer({"": [silent]}) as server:  # a direct answer alone needs none, and none are asked for
        with remote(server, None) as grounder:
            assert grounder.ground(PICTURE, "x").box == Box(0, 0, 25, 100)
        assert "logprobs" not in server.asked[0]


def test_where_no_answer_is_begun_the_error_is_the_questions() -> None:
    with FaultyServer({"": [fail(422, "continue_final_message: unknown")]}) as server, remote(server, None) as grounder:
        (error,) = grounder.ground_each([(PICTURE, "x")])
    assert "continue_final_message" in str(error)
