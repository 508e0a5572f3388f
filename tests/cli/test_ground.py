"""`egm ground` on a real model with random weights: no box in four tokens, so exit code 1."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from egm.cli.embedded import WORDS, notice

from .conftest import Egm, Outcome


@pytest.fixture
def ask(egm: Egm, tiny_folder: Path) -> Callable[..., Outcome]:
    return lambda *arguments: egm("ground", *arguments, "--model", tiny_folder, "--max-tokens", 4)


def picture(path: Path, size: tuple[int, int] = (64, 32)) -> None:
    Image.new("RGB", size, "teal").save(path)


def test_text(ask: Callable[..., Outcome], tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    outcome = ask("a.png", "the cup", "  the mug\x1b[31m", "--show-reasoning")
    assert (outcome.code, outcome.err) == (1, "")
    lines = outcome.out.splitlines()
    assert [lines[0], lines[3]] == ["the cup", "the mug�[31m"]
    assert lines[1].startswith("  reasoning: ")
    assert lines[2].startswith("  no box: the answer was cut off")
    assert lines[2].endswith("4 tokens)")


def test_words_without_quotes_are_told(ask: Callable[..., Outcome], tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    outcome = ask("a.png", "the", "cross", "farthest")
    assert outcome.err == "note: 3 phrases of one word each are asked: put one of several words in quotes\n"
    assert outcome.out.count("no box") == 3
    assert ask("a.png", "the cross", "farthest").err == ask("a.png", "cross").err == ""


def test_json_lines_and_nothing_else(ask: Callable[..., Outcome], tmp_path: Path, tiny_folder: Path) -> None:
    picture(tmp_path / "a.png")
    outcome = ask("a.png", "the cup", "قلم 🍎", "--json", "--amodal")
    assert (outcome.code, outcome.err) == (1, "")
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [row["phrase"] for row in rows] == ["the cup", "قلم 🍎"]
    for row in rows:
        assert (row["image"], row["amodal"], row["model"]) == ("a.png", True, str(tiny_folder))
        assert (row["box"], row["failure"], row["size"], row["tokens"]) == (None, "truncated", [64, 32], 4)
        assert row["prompt_tokens"] > 4


def test_a_folder_goes_on_after_bad_pictures(ask: Callable[..., Outcome], tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    # Odd, but pictures: each is read upright and in RGB.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 32), "teal").save(folder / "a-turned.jpg", exif=exif)
    Image.new("CMYK", (64, 32)).save(folder / "b-cmyk.JPG")
    (folder / "c-broken.png").write_bytes(b"")
    Image.fromarray(np.full((32, 64), 40_000, np.uint16)).save(folder / "d-16-bit.png")
    Image.new("RGBA", (400, 20)).save(folder / "e-wide.webp")
    (folder / "notes.txt").write_text("not asked about")
    (folder / ".hidden.png").write_bytes(b"")
    outcome = ask("pictures", "the cup", "the mug", "--json", "--draw", "drawn")
    assert outcome.code == 2
    assert outcome.err == "error: 'pictures/c-broken.png': empty (0 bytes): copy or download the picture again\n"
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [(Path(row["image"]).name, row["size"], row["phrase"]) for row in rows] == [
        (name, size, phrase)
        for name, size in [
            ("a-turned.jpg", [32, 64]),
            ("b-cmyk.JPG", [64, 32]),
            ("d-16-bit.png", [64, 32]),
            ("e-wide.webp", [400, 20]),
        ]
        for phrase in ("the cup", "the mug")
    ]
    drawn = sorted(path.name for path in (tmp_path / "drawn").iterdir())
    assert drawn == ["a-turned.jpg.png", "b-cmyk.JPG.png", "d-16-bit.png.png", "e-wide.webp.png"]


@pytest.mark.parametrize("name", ["out.png", "new/folder/out.jpg", "OUT.WEBP"])
def test_draw(ask: Callable[..., Outcome], tmp_path: Path, name: str) -> None:
    picture(tmp_path / "a.png")
    assert ask("a.png", "the cup", "the mug", "--draw", name).code == 1
    with Image.open(tmp_path / name) as drawn:
        assert drawn.width > 2 * 448  # two panels
    assert [path.name for path in (tmp_path / name).parent.iterdir() if path.suffix == ".tmp"] == []


def test_sampling_is_by_seed(ask: Callable[..., Outcome], tmp_path: Path) -> None:
    picture(tmp_path / "a.png")

    def text(*options: object) -> str:
        return str(json.loads(ask("a.png", "the cup", "--json", *options).out)["text"])

    assert text("--sample", "--seed", 3) == text("--sample", "--seed", 3)
    assert len({text("--sample", "--seed", seed) for seed in range(4)}) > 1


def test_no_notice_for_other_models(ask: Callable[..., Outcome], tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    assert ask("a.png", "a photograph of a dog").err == ""


# ---- parts


def test_the_notice_knows_every_word_of_the_world() -> None:
    import re

    from egm.datasets.synthetic import SynthRef

    said = {
        word
        for split, scenes in (("train", 300), ("test-simple", 150), ("test-complex", 150))
        for sample in SynthRef(split, scenes=scenes)
        for word in re.findall(r"[\w']+", sample.phrase)
    }
    assert said <= WORDS
    assert len(WORDS - said) < 12  # few that no phrase of these holds


def test_the_notice(tmp_path: Path, egm: Egm) -> None:
    egm("data", "synthetic", "--scenes", 1, "--out", tmp_path)
    marked = str(tmp_path / "images" / "val-0-000000.png")
    picture(tmp_path / "own.png")
    assert notice([marked], ["The red circle, left of the star that isn't blue."]) is None
    assert "'dog', 'fluffy'" in str(notice([marked], ["the fluffy dog"]))
    assert "not marked" not in str(notice([marked], ["the fluffy dog"]))
    assert "not marked" in str(notice([marked, str(tmp_path / "own.png")], ["the red circle"]))
    assert "not marked" in str(notice(["gone.png"], ["the red circle"]))
    many = notice([marked], ["w" * 900 + " zwei drei vier"])
    assert many is not None
    assert "\n" not in many
    assert len(many) < 400
