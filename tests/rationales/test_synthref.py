"""The offline teacher: what it says is true of the scene, in the style that was asked for."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import resources

import pytest
from tokenizers import Tokenizer

from egm.datasets.synthetic import SynthRef
from egm.errors import DataError
from egm.rationales.candidate import Candidate
from egm.rationales.filters import build_filters, default_recipe, run_filters
from egm.rationales.synthref import STYLES, explain_sample, explained_samples
from egm.types import Sample

BOX = re.compile(r"\((-?\d+),(-?\d+),(-?\d+),(-?\d+)\)")


@pytest.fixture(scope="module")
def rows() -> dict[str, list[tuple[Sample, str]]]:
    return {style: list(explained_samples("train", style=style, scenes=20)) for style in STYLES}


def test_official_is_one_or_two_sentences_of_40_to_60_tokens_without_a_box(
    rows: dict[str, list[tuple[Sample, str]]],
) -> None:
    vocabulary = resources.files("egm.models") / "tiny" / "tokenizer_files" / "tokenizer.json"
    tokenizer = Tokenizer.from_str(vocabulary.read_text(encoding="utf-8"))
    counts = [len(tokenizer.encode(text).ids) for _, text in rows["official"]]
    assert 40 <= sum(counts) / len(counts) <= 60
    assert all(text.count(".") in (1, 2) and text.endswith(".") for _, text in rows["official"])
    assert not any(BOX.search(text) for _, text in rows["official"])


@pytest.mark.parametrize("style", ["candidates", "amodal"])
def test_the_last_box_is_the_true_one(rows: dict[str, list[tuple[Sample, str]]], style: str) -> None:
    for sample, text in rows[style]:
        assert sample.box is not None
        assert sample.size is not None
        assert tuple(map(int, BOX.findall(text)[-1])) == sample.box.to_1000(sample.size)


def test_amodal_says_what_hides_and_how_far_it_goes_on() -> None:
    for sample, text in explained_samples("test-amodal", style="amodal", scenes=10):
        seen, whole = (tuple(map(int, numbers)) for numbers in BOX.findall(text))
        assert ("is in front of it" in text.lower()) or ("the frame cuts it" in text.lower())
        for edge, before, after in zip(("left", "top", "right", "bottom"), seen, whole, strict=True):
            said = re.search(rf"(\d+) to the {edge}\b", text)
            assert (int(said[1]) if said else 0) == abs(before - after), sample.id


@pytest.mark.parametrize("style", ["official", "candidates", "amodal"])
def test_nothing_that_it_says_is_dropped(rows: dict[str, list[tuple[Sample, str]]], style: str) -> None:
    recipe = {name: options for name, options in default_recipe(style).items() if name != "near_duplicate"}
    filters = build_filters(recipe)
    for sample, text in rows[style]:
        assert [
            verdict.why for verdict in run_filters(filters, Candidate(sample, text, style)) if not verdict.keeps
        ] == []


def test_a_sample_is_explained_by_its_id_and_another_attempt_in_other_words(
    rows: dict[str, list[tuple[Sample, str]]],
) -> None:
    for style in STYLES:
        sample, text = rows[style][5]
        assert explain_sample(replace(sample, image="elsewhere.png"), style) == text
    sample = rows["official"][5][0]
    assert len({explain_sample(sample, "official", attempt) for attempt in range(6)}) > 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("COCO_1", "is none of SynthRef 1: the offline teacher explains no other data"),
        ("synthref9/train/0/1/1", "is none of SynthRef 1"),
        ("synthref1/train/0/x/1", "has no number of a SynthRef scene"),
        ("synthref1/train/0/1/9", "asks for 'it', which SynthRef's does not: explain SynthRef as drawn"),
    ],
)
def test_other_data_is_refused(name: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        explain_sample(replace(SynthRef("train").samples(1)[0], id=name, phrase="it"))


def test_another_style_is_refused() -> None:
    with pytest.raises(DataError, match=r"no style 'oficial': did you mean 'official'\?"):
        next(explained_samples(style="oficial"))
