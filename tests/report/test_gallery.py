"""The gallery: what data may hold stays text, the page loads nothing, and its filters tell the truth."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from egm.datasets import open_dataset
from egm.datasets.synthetic import SynthRef
from egm.errors import DataError, EgmError
from egm.journal import Header, Record
from egm.report.gallery import draw_evenly, gallery, items_of, kind_of, texts_of
from egm.report.runs import Run

from .conftest import MakeRecord

HOSTILE = """</h2><script>alert(1)</script><img src=x onerror=alert(2)>"' onmouseover='alert(3)' {{ 7 * 7 }}"""
OFF = (10.0, 10.0, 20.0, 20.0)
MakeRun = Callable[..., Run]


class Page(HTMLParser):
    """Every element with its attributes, and the text inside each kind of element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, Mapping[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.elements[-1][0] if self.elements else "", []).append(data)

    def all(self, tag: str) -> list[Mapping[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (160, 120), "white").save(folder / "a.jpg")
    return folder


@pytest.fixture
def run() -> MakeRun:
    def make(records: Sequence[Record], name: str = "model", images: str = "", *, prefilled: bool = True) -> Run:
        codec = {"name": "qwen3_vl", "thinking_prefilled": prefilled}
        asked = Counter(record.split for record in records)
        header = Header(name, codec, {}, {}, {split: {"n": n} for split, n in asked.items()}, images=images)
        return Run(name, header, records, asked)

    return make


@pytest.fixture
def records(record: MakeRecord) -> list[Record]:
    size = (160, 120)
    return [
        record("1", split="x/val", phrase="cup", text="It is white.</think> [1]", size=size),
        record("2", split="x/val", phrase="second cup from the left", box=OFF, text="Two of them.", size=size),
        record("3", split="y/val", phrase="left cup", box=None, failure="truncated", size=size),
    ]


def test_data_stays_text(record: MakeRecord, run: MakeRun, pictures: Path, records: list[Record]) -> None:
    evil = record("</article>" + HOSTILE, split=f'"><b>{HOSTILE}', phrase=HOSTILE, text=f"{HOSTILE}</think>{HOSTILE}")
    failed = record("4", split="x/val", box=None, failure="error", error=f"{HOSTILE}\x1b[31m\ud800", text="\udc80\x00")
    tame, wild = (
        Page(gallery([run(records[:2])], images=pictures)),
        gallery([run([evil, failed], HOSTILE)], images=pictures),
    )
    wild.encode("utf-8")
    page = Page(wild)
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert not [attributes for attributes in page.all("img") if not str(attributes["src"]).startswith("data:image/")]
    kinds = {name for name, _ in page.elements}
    assert kinds - {"p"} <= {name for name, _ in tame.elements}
    assert HOSTILE in "".join(page.texts["h2"])  # as it was written, template marks included
    assert "\x1b" not in wild
    assert "\x00" not in wild


def test_the_page_loads_nothing(run: MakeRun, pictures: Path, records: list[Record]) -> None:
    text = gallery([run(records)], images=pictures)
    assert not re.search(
        r"https?:|//|@import|url\(",
        re.sub(r"data:image/webp;base64,[A-Za-z0-9+/=]+", "", text).replace(policy_of(text), ""),
    ), "a resource from elsewhere"
    policy = dict(part.split(" ", 1) for part in policy_of(text).split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["img-src"] == "data:"
    for kind in ("script", "style"):
        [content] = re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[f"{kind}-src"] == f"'sha256-{digest}'"
    assert not [attributes for _, attributes in Page(text).elements if "style" in attributes]  # the policy forbids them


def policy_of(text: str) -> str:
    [policy] = [a["content"] for a in Page(text).all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    return policy


def test_filters_match_the_cards(run: MakeRun, pictures: Path, records: list[Record]) -> None:
    page = Page(gallery([run(records, "a"), run(records[:1], "b")], images=pictures))
    cards = [
        tuple(card[f"data-{name}"] for name in ("run", "split", "outcome", "phrase")) for card in page.all("article")
    ]
    assert cards == [
        ("0", "x/val", "hit", "simple"),
        ("0", "x/val", "part", "complex"),
        ("0", "y/val", "no_box", "simple"),
        ("1", "x/val", "hit", "simple"),
    ]
    assert {a["value"] for a in page.all("input") if a.get("name") == "outcome"} == {"hit", "part", "no_box"}
    options = {a["value"] for a in page.all("option")}
    assert options == {"", "simple", "complex", "x/val", "y/val", "0", "1"}
    assert {a["name"] for a in page.all("select")} == {"phrase", "split", "run"}


def test_reasoning_is_parted_as_the_codec_says(run: MakeRun, records: list[Record]) -> None:
    assert texts_of(records[0], run(records)) == ("It is white.", "[1]")
    assert texts_of(records[1], run(records)) == ("Two of them.", "")
    assert texts_of(records[1], run(records, prefilled=False)) == ("", "Two of them.")


def test_a_long_text_is_cut_and_says_so(record: MakeRecord, run: MakeRun) -> None:
    long = record("1", text="word " * 10_000)
    reasoning, _ = texts_of(long, run([long]))
    assert len(reasoning) < 6100
    assert reasoning.endswith("(43,999 more characters)")


def test_the_cap_is_shared_evenly(record: MakeRecord, run: MakeRun) -> None:
    many = [record(str(n), split="x/val") for n in range(500)]
    many += [record(f"m{n}", split="x/val", box=OFF) for n in range(40)]
    many += [record(f"y{n}", split="y/val", box=None) for n in range(3)]
    items = items_of(0, run(many))
    for most in (1, 2, 7, 60, 543, 1000):
        drawn = draw_evenly(items, most, kind_of)
        assert len(drawn) == min(most, 543)
        assert len({item.record.id for item in drawn}) == len(drawn)
    counts = Counter(item.outcome for item in draw_evenly(items, 61, kind_of))
    assert counts == {"no_box": 3, "part": 29, "hit": 29}
    hits = [int(item.record.id) for item in draw_evenly(items, 61, kind_of) if item.outcome == "hit"]
    assert hits == sorted(hits)
    assert hits[-1] > 450  # from all over the split


def test_no_more_pictures_than_asked_for(run: MakeRun, pictures: Path, records: list[Record]) -> None:
    text = gallery([run(records)], images=pictures, items=2)
    assert len(Page(text).all("article")) == 2
    assert "2 of 3 answers" in text


def test_synthref_is_drawn_again(record: MakeRecord, run: MakeRun) -> None:
    sample = SynthRef("val", seed=3).samples(2)[0]
    assert sample.box is not None
    made = record(
        sample.id, f"synthref/val:{sample.id}", split="synthref/val", truth=tuple(sample.box), size=sample.size
    )
    [image] = Page(gallery([run([made])])).all("img")
    shown = Image.open(io.BytesIO(base64.b64decode(str(image["src"]).partition(",")[2])))
    width, height = sample.size or (0, 0)
    scale = -(-448 // max(width, height))
    assert shown.width >= width * scale
    original = sample.image
    assert isinstance(original, Image.Image)
    corner = shown.convert("RGB").getpixel((width * scale // 2, 1))
    assert corner == pytest.approx(original.getpixel((width // 2, 0)), abs=12)
    with pytest.raises(DataError, match="SynthRef 9"):
        gallery([run([record("1", f"synthref/val:{sample.id.replace('synthref1', 'synthref9')}")])])


def test_synthref_is_drawn_again_where_a_whole_split_was_asked(record: MakeRecord, run: MakeRun) -> None:
    """Such a run draws pictures as it comes to them, and names them after their scenes."""
    sample = open_dataset("synthref/val").annotations()[0]
    assert sample.box is not None
    made = record(sample.id, str(sample.image), split="synthref/val", truth=tuple(sample.box), size=sample.size)
    assert len(Page(gallery([run([made])])).all("img")) == 1


@pytest.mark.parametrize(
    ("image", "folder", "message"),
    [
        ("a.jpg", False, r"'/data/coco' with --images"),
        ("b.jpg", True, r"b\.jpg.*--images"),
        ("../a.jpg", True, r"outside.*--images"),
        ("x/val:17", True, r"without --gallery"),
        ("a.jpg", True, r"160 x 120.*320 x 240.*--images"),
    ],
)
def test_pictures_that_are_not_there(
    record: MakeRecord, run: MakeRun, pictures: Path, image: str, folder: bool, message: str
) -> None:
    asked = record("17", image, split="x/val", size=(320, 240))
    with pytest.raises(EgmError, match=message) as caught:
        gallery([run([asked], images="/data/coco")], images=pictures if folder else None)
    assert "\n" not in str(caught.value)
