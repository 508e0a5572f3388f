"""Votes, budgets and log-probabilities of the engines in this process."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from egm.backends import GenerationSettings, Request
from egm.backends.checkpoint import find_checkpoint
from egm.backends.numpy.backend import NumpyBackend, _PartialAnswer
from egm.backends.transformers import TransformersBackend
from egm.models.families import image_tokens
from egm.types import Completion

GREEDY = GenerationSettings(max_new_tokens=24)
SAMPLED = GenerationSettings(max_new_tokens=16, temperature=0.9, votes=5)
FORCED = "\n</think>\n\n[12"


@pytest.fixture(scope="module", params=["numpy", "transformers"])
def engine(request: pytest.FixtureRequest, tiny_folder: Path) -> NumpyBackend | TransformersBackend:
    if request.param == "numpy":
        return NumpyBackend(find_checkpoint(tiny_folder))
    return TransformersBackend.load(tiny_folder, device="cpu")


def votes(request: Request) -> list[Request]:
    return [replace(request, vote=vote) for vote in range(5)]


def test_votes_are_draws_of_their_own(engine: NumpyBackend | TransformersBackend, requests_: list[Request]) -> None:
    asked = [*votes(requests_[0]), *votes(requests_[1])]
    together = engine.generate(asked, SAMPLED)
    assert len({reply.text for reply in together[:5]}) == 5
    assert [reply.text for reply in engine.generate(asked, SAMPLED)] == [reply.text for reply in together]
    alone = [engine.generate([request], SAMPLED)[0] for request in asked]
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert [reply.completion_tokens for reply in together] == [reply.completion_tokens for reply in alone]
    assert [reply.logprob for reply in together] == pytest.approx([reply.logprob for reply in alone], rel=1e-3)
    plain = engine.generate(requests_[:1], replace(SAMPLED, votes=1))[0]
    assert plain.text == together[0].text


def test_a_budget_is_kept_to_the_token(engine: NumpyBackend | TransformersBackend, requests_: list[Request]) -> None:
    free = engine.generate(requests_, GREEDY)
    cuts: list[str] = []

    def cut(text: str) -> str:
        cuts.append(text)
        return FORCED

    bound = replace(GREEDY, thinking_budget=5)
    replies = engine.generate([replace(request, cut=cut) for request in requests_], bound)
    assert cuts == [reply.text for reply in engine.generate(requests_, replace(GREEDY, max_new_tokens=5))]
    for reply, before, plain in zip(replies, cuts, free, strict=True):
        assert plain.text.startswith(before)
        assert reply.text.startswith(before + FORCED)
        assert reply.completion_tokens == 24
    drawn = replace(bound, temperature=0.9)
    sampled = engine.generate([replace(request, cut=cut) for request in requests_], drawn)
    unbound = engine.generate(requests_, replace(drawn, thinking_budget=None, max_new_tokens=5))
    for reply, plain in zip(sampled, unbound, strict=True):  # what is drawn does not depend on there being a budget
        assert reply.text.startswith(plain.text + FORCED)
    ended = engine.generate([replace(request, cut=lambda _: "") for request in requests_], bound)
    assert [reply.text for reply in ended] == [reply.text for reply in free]


def test_a_begun_answer_is_gone_on_with(engine: NumpyBackend | TransformersBackend, requests_: list[Request]) -> None:
    """What is begun is read behind all of the prompt, is no part of the completion, and its log-probabilities are
    those of one reading of the whole."""
    begun = "</think>\n\n[12"
    asked = [replace(request, prefill=begun, token_logprobs=True) for request in requests_]
    plain, replies = engine.generate(requests_, GREEDY), engine.generate(asked, GREEDY)
    alone = [reply for request in asked for reply in engine.generate([request], GREEDY)]
    assert [reply.text for reply in replies] == [reply.text for reply in alone]
    assert all(not reply.token_logprobs for reply in plain)
    for request, without, reply in zip(requests_, plain, replies, strict=True):
        assert reply.prompt_tokens == without.prompt_tokens + len(engine._encode(begun))
        assert len(reply.token_logprobs) == reply.completion_tokens
        ends, chosen = zip(*reply.token_logprobs, strict=True)
        assert sum(chosen) / len(chosen) == pytest.approx(reply.logprob, abs=1e-5)
        first = engine.token_scores(request, begun)[-1]  # of the likeliest token behind what is begun
        assert chosen[0] == pytest.approx(first.logprob, abs=5e-3)  # placeholders are barred
        assert ends[-1] >= len(reply.text.rstrip("\N{REPLACEMENT CHARACTER}"))  # half a letter ends nothing
    thought = engine.generate([replace(asked[0], prefill=""), asked[0]], GREEDY)  # nothing is shared between these
    assert [reply.text for reply in thought] == [plain[0].text, replies[0].text]


def test_what_was_closed_is_not_closed_again(
    engine: NumpyBackend | TransformersBackend, requests_: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that always wants to close its reasoning may do so until that was done in its place."""
    [close] = engine._encode("</think>")
    if isinstance(engine, NumpyBackend):
        choose = _PartialAnswer._choose

        def eager(self: _PartialAnswer, scores: Any) -> int:
            scores = scores.copy()
            scores[close] += 1e4
            return choose(self, scores)

        monkeypatch.setattr(_PartialAnswer, "_choose", eager)
    else:
        monkeypatch.setattr(engine.module.lm_head, "bias", torch.nn.Parameter(torch.zeros(768)), raising=False)
        engine.module.lm_head.bias.data[close] = 1e4
    for settings in (replace(GREEDY, thinking_budget=5), replace(GREEDY, thinking_budget=5, temperature=0.9)):
        [reply] = engine.generate([replace(requests_[0], cut=lambda _: FORCED)], settings)
        assert reply.text.startswith("</think>" * 5 + FORCED)
        assert reply.text.count("</think>") == 6


def test_logprobs_are_the_models_own(
    tiny_folder: Path, requests_: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against one forward pass over prompt and answer; forced tokens are nobody's choice."""
    subject = TransformersBackend.load(tiny_folder, device="cpu", fast=False)
    other = NumpyBackend(find_checkpoint(tiny_folder))
    settings = replace(SAMPLED, thinking_budget=4, votes=1)
    request = replace(requests_[0], cut=lambda _: FORCED)
    outputs: list[torch.Tensor] = []
    write = subject.module.generate
    monkeypatch.setattr(subject.module, "generate", lambda *a, **b: outputs.append(write(*a, **b)) or outputs[-1])
    reply = subject.generate([request], settings)[0]
    inputs = subject._inputs([request])
    answer = outputs[0][:, inputs["input_ids"].shape[1] :]
    assert answer.shape[1] == reply.completion_tokens
    whole = dict(inputs)
    for name, fill in (("input_ids", answer), ("attention_mask", torch.ones_like(answer))):
        whole[name] = torch.cat([inputs[name], fill], dim=1)
    if "mm_token_type_ids" in inputs:
        whole["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(answer)], dim=1)
    with torch.inference_mode():
        scores = subject.module(**whole).logits[0, inputs["input_ids"].shape[1] - 1 : -1].float().clone()
        scores[:, image_tokens(subject.module.config)] = -math.inf
    each = scores.log_softmax(dim=-1).gather(1, answer[0][:, None])[:, 0].tolist()
    end = 4 + subject.count_tokens(FORCED)
    own = each[:4] + each[end:]
    assert reply.logprob == pytest.approx(sum(own) / len(own), abs=1e-4)
    assert reply.answer_logprob == pytest.approx(sum(each[end:]) / len(each[end:]), abs=1e-4)
    ours, theirs = (engine.generate([requests_[1]], GREEDY)[0] for engine in (subject, other))
    assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-4)


def test_a_picture_is_read_once_for_all_votes(
    tiny_folder: Path, requests_: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = NumpyBackend(find_checkpoint(tiny_folder))
    seen: list[object] = []
    tower = engine._tower
    monkeypatch.setattr(engine, "_tower", lambda *arguments: seen.append(arguments) or tower(*arguments))
    replies: list[Completion] = engine.generate([*votes(requests_[0]), *votes(requests_[1])], SAMPLED)
    assert (len(replies), len(seen)) == (10, 2)
