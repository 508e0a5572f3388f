"""Rollouts on disk and the page of them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from egm.boxes import Box
from egm.codecs import get_codec
from egm.draw import BOX_COLOUR, TRUTH_COLOUR
from egm.training.grpo.rollouts import RolloutWriter, read_rollouts, write_page
from egm.training.rewards.reward import IoU, Reward, RewardSection
from egm.types import Sample

CODEC = get_codec("qwen3_vl")
SIZE = (200, 150)
TRUTH, NEAR, FAR = Box(100, 60, 160, 120), Box(100, 60, 160, 105), Box(20, 30, 50, 60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two rollouts of one group, a hit and a miss."""
    sample = Sample("the-sample", Image.new("RGB", SIZE, "white"), "it", TRUTH, SIZE)
    texts = [CODEC.target("it", box, size=SIZE, rationale="There.") for box in (NEAR, FAR)]
    grades = Reward(RewardSection(terms=[IoU()]), CODEC).grade(texts, truths=[TRUTH] * 2, sizes=[SIZE] * 2)
    RolloutWriter(tmp_path / "rollouts", keep=1, process=0).write(3, [sample], [SIZE], texts, grades, [0.7, -0.7])
    return tmp_path / "rollouts"


def test_boxes_are_kept(folder: Path) -> None:
    hit, miss = read_rollouts(folder)
    assert hit["text"] == CODEC.target("it", NEAR, size=SIZE, rationale="There.")
    assert hit["box"] == pytest.approx(list(NEAR), abs=1)  # whole numbers of thousandths
    assert hit["iou"] == pytest.approx(0.75, abs=0.05)
    assert (hit["reward"], hit["parts"], hit["advantage"]) == (hit["iou"], {"iou": hit["iou"]}, 0.7)
    assert (miss["iou"], miss["advantage"], miss["failure"]) == (0.0, -0.7, None)


class Page(HTMLParser):
    """Every element with its attributes, and the text inside each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.elements[-1][0] if self.elements else "", []).append(data)


def extent(picture: Image.Image, colour: tuple[int, int, int]) -> tuple[int, ...]:
    """The box around all pixels of about a colour: the page's pictures are compressed."""
    ys, xs = np.nonzero(np.abs(np.asarray(picture, dtype=int) - colour).max(axis=2) < 50)
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def test_a_card_shows_the_group_with_its_boxes_in_the_gallerys_colours(folder: Path, tmp_path: Path) -> None:
    text = write_page(folder, tmp_path / "page.html").read_text()
    assert "<p>1 of 1 groups." in text
    page = Page(text)
    assert page.texts["h2"][0] == "it"
    assert text.count("the-sample") == 1  # a picture that was made has no other name
    outcomes = re.findall(r'<b class="(\w+)">IoU (.*?)</b>\n<b>reward (.*?)</b>', text)
    assert [outcome for outcome, *_ in outcomes] == ["hit", "miss"]
    assert outcomes[1] == ("miss", "0.00", "0.000")
    assert re.findall(r"<b>advantage (.*?)</b>", text) == ["+0.70", "-0.70"]
    assert "There." in "".join(page.texts["div"])
    [image] = [attributes for tag, attributes in page.elements if tag == "img"]
    shown = Image.open(io.BytesIO(base64.b64decode(str(image["src"]).partition(",")[2]))).convert("RGB")
    scale = 3  # until the longer side has 448 pixels
    picture = shown.crop((0, 0, scale * SIZE[0], scale * SIZE[1]))  # without the key beneath
    together = (FAR.x1, FAR.y1, NEAR.x2, NEAR.y2)
    assert extent(picture, BOX_COLOUR) == pytest.approx([scale * corner for corner in together], abs=12)
    assert extent(picture, TRUTH_COLOUR) == pytest.approx([scale * corner for corner in TRUTH], abs=12)


def rewritten(folder: Path, **changes: Any) -> None:
    path = folder / "step-000003.p0.jsonl"
    rows = [json.loads(line) | changes for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_page_loads_nothing_and_data_stays_text(folder: Path, tmp_path: Path) -> None:
    tame = Page(write_page(folder, tmp_path / "tame.html").read_text())
    hostile = "</article><script>alert(1)</script>\"'& {{ 7 * 7 }}\x1b\ud800"
    parts = {hostile: 1.0}
    rewritten(folder, phrase=hostile, text=hostile, id=hostile, image=f"{hostile}.jpg", failure=hostile, parts=parts)
    text = write_page(folder, tmp_path / "page.html").read_text()
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.elements}
    assert {tag for tag, _ in page.elements} == {tag for tag, _ in tame.elements}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    shown = hostile.replace("\x1b", "�").replace("\ud800", "�")
    assert "".join(page.texts["h2"]).startswith(shown)
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 1 + 2 + 2 * 3  # of both: parts, failure and text
    [policy] = [a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    [style] = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'" in str(policy)
    assert "script-src" not in str(policy)
    assert not re.search(r"https?:|//|@import|url\(", re.sub(r"base64,[A-Za-z0-9+/=]+|sha256-\S+", "", text))


def test_a_damaged_picture_leaves_the_texts(folder: Path, tmp_path: Path) -> None:
    [picture] = (folder / "pictures").iterdir()
    picture.write_bytes(b"\xff\xd8")
    page = Page(write_page(folder, tmp_path / "page.html").read_text())
    assert "img" not in {tag for tag, _ in page.elements}
    assert "There." in "".join(page.texts["div"])


def test_the_small_picture_of_a_long_one_can_be_read_again(tmp_path: Path) -> None:
    size = (1600, 20)
    sample = Sample("long", Image.new("RGB", size, "white"), "it", Box(100, 2, 300, 18), size)
    texts = ["</think> what?"]
    grades = Reward(RewardSection(), CODEC).grade(texts, truths=[Box(100, 2, 300, 18)], sizes=[size])
    RolloutWriter(tmp_path / "rollouts", keep=1, process=0).write(1, [sample], [size], texts, grades, [0.0])
    assert "<img" in write_page(tmp_path / "rollouts", tmp_path / "page.html").read_text()


def test_none_and_many_are_kept_and_shown(tmp_path: Path) -> None:
    shown = Image.new("RGB", SIZE, "white")
    samples = [
        Sample("both", shown, "they", size=SIZE, expect="all", boxes=(TRUTH, FAR)),
        Sample("nothing", shown, "none", size=SIZE, expect="any", boxes=()),
    ]
    answers = [[TRUTH, FAR], [FAR], [], [NEAR]]
    texts = [CODEC.target("it", boxes, size=SIZE) for boxes in answers]
    truths, expects = [samples[0].boxes or ()] * 2 + [()] * 2, ["all", "all", "any", "any"]
    reward = Reward(RewardSection(terms=[IoU()]), CODEC)
    grades = reward.grade(texts, truths=truths, sizes=[SIZE] * 4, expects=expects)  # type: ignore[arg-type]
    folder = tmp_path / "rollouts"
    RolloutWriter(folder, keep=2, process=0).write(3, samples, [SIZE] * 2, texts, grades, [1.0, -1.0] * 2)
    both, half, nothing, alarm = read_rollouts(folder)
    assert [each["reward"] for each in (both, half, nothing, alarm)] == pytest.approx([1, 0.5, 1, 0], abs=0.02)
    assert both["expect"] == "all"
    assert (both["truth"], both["truths"]) == ([], [list(TRUTH), list(FAR)])
    assert [len(each.get("boxes", ())) for each in (both, half, nothing, alarm)] == [2, 1, 0, 0]
    assert (nothing["truths"], nothing["box"], nothing["failure"]) == ([], None, None)
    page = Page(write_page(folder, tmp_path / "page.html").read_text())
    pictures = [dict(attributes)["src"] for name, attributes in page.elements if name == "img"]
    decoded = [Image.open(io.BytesIO(base64.b64decode(str(src).partition(",")[2]))).convert("RGB") for src in pictures]
    assert len(decoded) == 2
    assert (np.abs(np.asarray(decoded[0], dtype=int) - TRUTH_COLOUR).max(axis=2) < 50).any()
    assert not (np.abs(np.asarray(decoded[1], dtype=int) - TRUTH_COLOUR).max(axis=2) < 50).any()
