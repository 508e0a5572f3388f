"""The model that comes with the package, at the command line and in Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from egm.backends import GenerationSettings
from egm.backends.checkpoint import EMBEDDED_MAX_NEW_TOKENS
from egm.backends.numpy.backend import NumpyBackend
from egm.boxes import iou
from egm.cli import options
from egm.cli.demo import questions
from egm.cli.embedded import dataset_notice
from egm.datasets import Dataset, open_dataset
from egm.datasets.synthetic import SynthRef
from egm.evaluate.suites import choose_pictures
from egm.grounder import Grounder
from egm.types import Grounding, Sample

from .conftest import Egm


@pytest.fixture
def scene(egm: Egm, tmp_path: Path) -> Path:
    egm("data", "synthetic", "--scenes", 1, "--out", tmp_path)
    return tmp_path / "images" / "val-0-000000.png"


def test_ground_in_its_world(egm: Egm, scene: Path) -> None:
    samples = [sample for sample in SynthRef("val").samples(0) if not sample.amodal]
    outcome = egm("ground", scene, *[sample.phrase for sample in samples], "--json", "--draw", "out.png")
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert outcome.err == ""  # the picture is marked, and the words are its own: no notice
    assert [row["phrase"] for row in rows] == [sample.phrase for sample in samples]
    assert outcome.code == (0 if all(row["box"] for row in rows) else 1)
    assert all(row["reasoning"] for row in rows)
    assert {(row["votes"], row["confidence"]) for row in rows} == {(1, None)}
    assert Path("out.png").stat().st_size > 0


def test_votes_tell_how_many_of_them_agree(egm: Egm, scene: Path) -> None:
    phrase = SynthRef("val").samples(0)[0].phrase

    def row(*options: object) -> dict[str, Any]:
        asked = egm("ground", scene, phrase, "--json", "--sample", "--votes", 2, *options)
        return dict(json.loads(asked.out))

    whole, cut = row(), row("--max-tokens", 4)
    assert whole["box"]
    assert (whole["votes"], whole["confidence"]) == (2, 1.0)
    assert (cut["box"], cut["votes"], cut["confidence"]) == (None, 2, 0.0)


def test_a_split_of_its_world_is_no_reason_to_warn_and_others_are() -> None:
    own = open_dataset("synthref/train", first=12)
    assert dataset_notice([own, choose_pictures({"synthref/train": own}, 2)["synthref/train"]]) is None
    other = Dataset("photos", [Sample("1", "photo.jpg", "the red circle")], kind="coco")
    assert "not marked as such" in (dataset_notice([own, other]) or "")


def test_ground_outside_its_world_says_so(egm: Egm, tmp_path: Path) -> None:
    Image.effect_noise((640, 480), 60).convert("RGB").save(tmp_path / "photo.png")
    outcome = egm("ground", "photo.png", "the fluffy dog", "--json")
    assert outcome.code in (0, 1)
    assert len(outcome.out.splitlines()) == 1
    assert outcome.err.startswith("note: egm-tiny is a toy")
    assert outcome.err.count("\n") == 1
    assert 0 < json.loads(outcome.out)["tokens"] <= EMBEDDED_MAX_NEW_TOKENS


def test_an_evaluation_outside_its_world_says_so(egm: Egm, scene: Path, tmp_path: Path) -> None:
    picture = Image.new("RGB", (64, 64), "teal")
    picture.save(tmp_path / "photo.png")
    row = {"id": "1", "sent": "the red circle", "bbox": [0, 0, 5, 5], "height": 64, "width": 64, "image": "photo.png"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    command = ("--max-tokens", 1, "--json", "--images", tmp_path, "--out")
    outcome = egm("eval", "rows.jsonl", *command, "foreign")
    assert outcome.err.count("note: egm-tiny is a toy") == 1
    assert "egm-tiny is a toy" not in egm("eval", tmp_path / "val.jsonl", *command, "own").err


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        ({}, EMBEDDED_MAX_NEW_TOKENS),
        ({"sample": True}, EMBEDDED_MAX_NEW_TOKENS),
        ({"max_tokens": 4096}, 4096),
        ({"thinking_budget": 1000}, 4096),
        ({"model": "folder"}, 4096),
        ({"model": "folder", "sample": True}, 8192),
        ({"server": "http://127.0.0.1:1"}, 4096),
    ],
    ids=str,
)
def test_its_limit_fits_its_answers_where_none_is_given(given: dict[str, Any], limit: int) -> None:
    seen: list[GenerationSettings] = []

    @options.with_settings
    def command(model: str | None, server: str | None, *, settings: Any) -> None:
        seen.append(settings)

    usual = {"model": None, "server": None, "sample": False, "seed": 0, "max_tokens": None, "votes": 1}
    command(**usual | {"stop_confidence": None, "think": "always", "thinking_budget": None} | given)
    assert seen[0].max_new_tokens == limit


def test_its_limit_in_python() -> None:
    assert Grounder.load().settings.max_new_tokens == EMBEDDED_MAX_NEW_TOKENS
    given = GenerationSettings(temperature=0.5)
    assert Grounder.load(settings=given).settings == given


@pytest.fixture(scope="module")
def brief() -> Grounder:
    """The embedded model, whose answers are cut short."""
    return Grounder.load("egm-tiny", settings=GenerationSettings(max_new_tokens=4))


@pytest.mark.parametrize(
    "phrase",
    ["🍎👩‍👧", "الدائرة الحمراء", "</think> <|im_end|><|image_pad|>", "a" * 1000, "🍎" * 300, "the red\ncircle"],
)
def test_odd_phrases_are_answered(brief: Grounder, phrase: str) -> None:
    result = brief.ground(SynthRef("val").samples(0)[0].image, phrase)
    assert (result.box is None) != (result.failure is None)


@pytest.mark.parametrize("size", [(1000, 50), (8, 8), (8, 1600), (2000, 1500)])
def test_odd_sizes_are_answered(brief: Grounder, size: tuple[int, int]) -> None:
    assert brief.ground(Image.new("RGB", size, "teal"), "the red circle").size == size


@pytest.fixture(scope="module")
def answered() -> list[tuple[Sample, Grounding]]:
    """What it says of the first questions of its world."""
    samples = list(SynthRef("val", scenes=3))[:10]
    with Grounder.load() as grounder:
        assert isinstance(grounder.backend, NumpyBackend)
        return list(zip(samples, grounder.ground_many(samples, progress=False), strict=True))


def test_both_backends_answer_alike(answered: list[tuple[Sample, Grounding]]) -> None:
    import torch

    torch.set_num_threads(1)
    first = answered[:3]
    theirs = Grounder.load("egm-tiny", fast=False, device="cpu").ground_many([s for s, _ in first], progress=False)
    assert [ours.text for _, ours in first] == [result.text for result in theirs]


def test_it_finds_what_chance_does_not(answered: list[tuple[Sample, Grounding]]) -> None:
    assert all(result.failure is None for _, result in answered)
    hits = sum(
        result.box is not None and iou(result.box, sample.box) >= 0.5  # type: ignore[arg-type]
        for sample, result in answered
    )
    assert hits >= len(answered) * 0.75  # an object of the scene taken by chance hits about one time in six


def test_the_wording_of_the_card_finds_the_same_boxes(answered: list[tuple[Sample, Grounding]]) -> None:
    """It was trained on both wordings of the question, Qwen's and that of EGM's model card."""
    with Grounder.load(prompt="grounding", cut_tail=True) as grounder:
        reworded = grounder.ground_many([sample for sample, _ in answered[:8]], progress=False)
    alike = [
        ours.box is not None and other.box is not None and iou(ours.box, other.box) >= 0.9
        for (_, ours), other in zip(answered[:8], reworded, strict=True)
    ]
    assert sum(alike) >= 7


def test_it_says_that_nothing_matches_where_nothing_does() -> None:
    samples = [sample for sample in SynthRef("test-none", scenes=6) if sample.box is None and not sample.boxes][:8]
    assert (len(samples), {sample.expect for sample in samples}) == (8, {"any"})
    with Grounder.load() as grounder:
        refused = sum(result.is_none for result in grounder.ground_many(samples, progress=False))
    assert refused >= 7  # the earlier weights, which were never asked so, refused none


def test_a_cold_process_needs_neither_torch_nor_transformers(scene: Path) -> None:
    code = """
import sys
from egm.cli import main
try:
    main()
finally:
    print([name for name in ("torch", "transformers", "torchvision") if name in sys.modules], file=sys.stderr)
"""
    command = [sys.executable, "-c", code, "ground", str(scene), "the red circle"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode in (0, 1)
    assert ended.stderr == "[]\n"


def test_demo(egm: Egm, tmp_path: Path) -> None:
    outcome = egm("demo", "--seed", 3, "--out", "somewhere")
    assert (outcome.code, outcome.err) == (0, "")
    number = questions(3)[0]
    assert f"Scene {number} of SynthRef val" in outcome.out
    assert outcome.out.count("thinks") == outcome.out.count("points") == 3
    assert "of 3 right" in outcome.out
    with Image.open(tmp_path / "somewhere" / "demo-3.png") as drawn:
        assert drawn.width > 3 * 448


def test_without_weights_it_says_so_in_one_line(egm: Egm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("egm.models.tiny.embedded.__file__", str(tmp_path / "embedded.py"))
    outcome = egm("demo")
    assert (outcome.code, outcome.out) == (2, "")
    assert "install a release of egm" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("seed", [0, 1, 250, 499, 500, 12_345])
def test_the_demos_questions_rise(seed: int) -> None:
    number, samples = questions(seed)
    complexities = [sample.meta["complexity"] for sample in samples]
    assert len(complexities) == 3
    assert complexities == sorted(set(complexities))
    assert not any(sample.amodal for sample in samples)
    assert 0 <= number < 500
