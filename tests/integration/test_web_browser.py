"""`egm web` in a browser: typed into, clicked, and looked at."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from egm.boxes import Box
from egm.draw import NumberedBoxes, draw_numbered
from egm.web.answers import COLOURS

from ..server.serving import served
from ..web.conftest import Typing, box_text
from .browser import WAIT, Site, chromium, is_near, load_playwright, pixel, site
from .environments import ROOT

pytestmark = pytest.mark.integration
KEY = "a-key-for-the-page"
CUP = Box(0, 0, 192, 112)  # of the example picture, which is 384 x 224
GIVE = """([event, bytes, name]) => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
    const told = event === "drop" ? new DragEvent(event, { dataTransfer: data, bubbles: true })
        : new ClipboardEvent(event, { clipboardData: data, bubbles: true });
    document.querySelector(".egm-upload").dispatchEvent(told);
}"""
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def typing() -> Iterator[tuple[Typing, str]]:
    """A model that writes as it is let, behind our own server."""
    backend = Typing(
        {
            "the cup": [box_text(0, 0, 500, 500)],
            "the jug": [box_text(500, 500, 900, 900)],
            "odd": [box_text(1, 1, 9, 9).replace("there", "<img src=x onerror=\"document.title='run'\"> ${1+1}")],
        },
        batches=False,
    )
    with served(backend) as (place, _):
        yield backend, f"http://{place}"
        backend.let()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of egm-tiny over the same scenes."""
    folder = tmp_path_factory.mktemp("runs")
    for name, more in (("greedy", ()), ("sampled", ("--sample", "--seed", "1"))):
        command = [sys.executable, "-m", "egm.cli", "eval", "synthref/test-complex", "--scenes", "5", *more]
        subprocess.run([*command, "--out", str(folder / name)], check=True, cwd=ROOT, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    program, playwright = chromium(), load_playwright(tmp_path_factory.mktemp("playwright"))
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=program)
        yield found
        found.close()


@pytest.fixture(scope="module")
def page_at(
    browser: Any, typing: tuple[Typing, str], runs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Site, Open]]:
    """The page's process, and what opens it at a width, with all that it asks for noted."""
    with site(tmp_path_factory.mktemp("site"), "egm-tiny", "--server", typing[1], "--run", runs) as found:
        opened: list[Any] = []

        def open_(width: int = 1280, **options: Any) -> Any:
            page = browser.new_page(viewport={"width": width, "height": 900}, **options)
            page.set_default_timeout(WAIT)
            page.asked = []
            page.wrong = []
            page.on("request", lambda request: page.asked.append(request.url))
            page.on("pageerror", lambda error: page.wrong.append(str(error)))
            page.goto(found.url)
            page.locator("#egm-picture-1 svg").wait_for()
            opened.append(page)
            return page

        yield found, open_
        for page in opened:
            strangers = [url for url in page.asked if not url.startswith((found.url, "data:", "blob:"))]
            assert strangers == []
            assert page.wrong == []
        assert found.elsewhere() == set()


def choose(page: Any, label: str, option: str) -> None:
    page.get_by_role("combobox", name=label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()


def ask(page: Any, phrases: str) -> None:
    page.get_by_label("Phrases").fill(phrases)
    page.get_by_role("button", name="Ask", exact=True).click()


def text_of(page: Any, part: str, wanted: str | re.Pattern[str]) -> str:
    """Wait for a text in a part of the page, and return the words of what holds it: beside it may stand a clock."""
    found = page.locator(part).get_by_text(wanted).first
    found.wait_for()
    return str(found.inner_text())


def looked_at(page: Any, folder: Path, name: str) -> None:
    page.screenshot(path=folder / f"{name}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


@pytest.mark.parametrize("width", [1280, 400])
def test_a_box_is_drawn_as_it_is_written(
    page_at: tuple[Site, Open], typing: tuple[Typing, str], tmp_path: Path, width: int
) -> None:
    page, backend = page_at[1](width), typing[0]
    server = f"typing at {typing[1]}"
    choose(page, "Model", server)
    picture = page.locator("#egm-picture-1 svg")
    middle, edge = (CUP.width / 2, CUP.height), (CUP.width, CUP.height / 2)
    bare = pixel(page, picture, *middle)
    ask(page, "the cup\nthe jug")
    backend.let(1)
    assert "It is there." in text_of(page, "#egm-answers-1", "It is there.")
    assert page.locator("#egm-picture-1 .box").count() == 0
    backend.let(5)  # up to the line of the box
    page.locator("#egm-picture-1 .box.open").wait_for()
    looked_at(page, tmp_path, f"open-{width}")
    assert page.locator("#egm-status").inner_text() == f"asking {server}"
    backend.let()
    page.locator("#egm-picture-1 .box:not(.open)").nth(1).wait_for()
    text_of(page, "#egm-status", re.compile("2 boxes"))
    looked_at(page, tmp_path, f"whole-{width}")
    assert not is_near(bare, COLOURS[0])
    assert is_near(pixel(page, picture, *middle), COLOURS[0])
    assert is_near(pixel(page, picture, *edge), COLOURS[0])
    assert is_near(pixel(page, picture, 192, 170), COLOURS[1])  # the jug's left side
    assert not is_near(pixel(page, picture, CUP.width / 2, CUP.height / 2), COLOURS[0])
    backend.drain()


@pytest.mark.parametrize("width", [1280, 400])
def test_two_models_stand_side_by_side(
    page_at: tuple[Site, Open], typing: tuple[Typing, str], tmp_path: Path, width: int
) -> None:
    page, backend = page_at[1](width), typing[0]
    choose(page, "Compare with", f"typing at {typing[1]}")
    backend.let()
    phrase = "the cross farthest from the square"
    backend.script[phrase] = backend.script["the cup"]
    ask(page, phrase)
    page.get_by_role("link", name="download JSON").nth(1).wait_for()
    looked_at(page, tmp_path, f"pair-{width}")
    tiny, other = (page.locator(f"#egm-answers-{number}").inner_text() for number in (1, 2))
    assert "195.1, 170.9, 218.9, 195.1" in tiny
    assert "0.0, 0.0, 192.0, 112.0" in other
    assert re.search(r"mean token probability \d+%", tiny)
    for said in (tiny, other):
        assert re.search(r"latency [\d.]+ s", said)
        assert re.search(r"tokens \d+", said)
        assert "votes 1" in said
    places = [page.locator(f"#egm-picture-{number} svg").bounding_box() for number in (1, 2)]
    assert (places[0]["y"] == places[1]["y"]) is (width == 1280)
    backend.drain()


def test_past_answers_come_back_and_are_taken_away(page_at: tuple[Site, Open], tmp_path: Path) -> None:
    page = page_at[1]()
    ask(page, "the cross farthest from the square")
    text_of(page, "#egm-status", re.compile("1 box"))
    page.get_by_role("radio", name="how many?").check()
    text_of(page, "#egm-status", re.compile("synthref"))
    assert page.get_by_role("radio", name="all there are").is_checked()
    ask(page, "every solid square")
    text_of(page, "#egm-past", re.compile("every solid square"))
    page.get_by_role("radio", name="the cross farthest from the square: shapes.png, egm-tiny").check()
    text_of(page, "#egm-status", re.compile("again: the cross"))
    looked_at(page, tmp_path, "past")
    assert page.get_by_label("Phrases").input_value() == "the cross farthest from the square"
    assert page.get_by_role("radio", name="one box").is_checked()
    assert not page.get_by_role("radio", name="how many?").is_checked()  # it is another picture's
    assert is_near(pixel(page, page.locator("#egm-picture-1 svg"), 207, 195.1), COLOURS[0])
    with page.expect_download() as taken:
        page.get_by_role("link", name="download JSON").click()
    row = json.loads(Path(taken.value.path()).read_text())
    assert (row["model"], row["image"], row["box"]) == ("egm-tiny", "shapes.png", [195.07, 170.91, 218.88, 195.1])
    with page.expect_download() as taken:
        page.get_by_role("link", name="download picture").click()
    box = Box(195.072, 170.912, 218.88, 195.104)
    sample = Path(ROOT / "src/egm/datasets/synthetic/shapes.png")
    with Image.open(sample) as plain, Image.open(taken.value.path()) as drawn:
        wanted = draw_numbered(plain, [NumberedBoxes(row["phrase"], (box,), COLOURS[0])])
        assert drawn.convert("RGB").tobytes() == wanted.tobytes()
    assert taken.value.suggested_filename == "shapes-egm-tiny.png"


def test_a_picture_is_uploaded_and_what_is_none_is_refused(page_at: tuple[Site, Open], tmp_path: Path) -> None:
    found, open_ = page_at
    page = open_()
    Image.new("RGB", (300, 200), (20, 120, 40)).save(tmp_path / "green.png")
    (tmp_path / "notes.md").write_text("# notes")
    field = page.get_by_label("Upload a picture")
    field.set_input_files(tmp_path / "notes.md")
    text_of(page, ".said", re.compile("'notes.md' is not a picture"))
    field.set_input_files(tmp_path / "green.png")
    text_of(page, "#egm-status", "green.png, 300 x 200")
    assert is_near(pixel(page, page.locator("#egm-picture-1 svg"), 150, 100), "#147828", within=8)
    for number, event in enumerate(("drop", "paste")):
        page.evaluate(GIVE, [event, list((tmp_path / "green.png").read_bytes()), f"given-{number}.png"])
        text_of(page, "#egm-status", f"given-{number}.png, 300 x 200")
    ask(page, "the green square")
    page.get_by_role("link", name="download JSON").wait_for()
    assert "do not trust its boxes" in page.locator("#egm-answers-1").inner_text()
    looked_at(page, tmp_path, "upload")
    assert [path for path in found.temporary.rglob("*") if path.is_file()] == []  # in memory alone


def test_votes_stop_and_words_of_errors(page_at: tuple[Site, Open], typing: tuple[Typing, str], tmp_path: Path) -> None:
    page, backend = page_at[1](), typing[0]
    ask(page, " ")
    text_of(page, "#egm-status", re.compile("the phrase is empty"))
    page.get_by_role("button", name="Votes").click()
    page.get_by_role("spinbutton", name=re.compile("Answers a phrase")).fill("3")
    page.keyboard.press("Tab")
    ask(page, "the red cross")
    text_of(page, "#egm-answers-1", "votes 3")
    looked_at(page, tmp_path, "votes")
    assert re.search(r"votes that agree (33|67|100)%", page.locator("#egm-answers-1").inner_text())
    page.get_by_role("spinbutton", name=re.compile("Answers a phrase")).fill("1")
    page.keyboard.press("Tab")
    choose(page, "Model", f"typing at {typing[1]}")
    ask(page, "odd")
    backend.let(1)
    text_of(page, "#egm-answers-1", re.compile("<img src=x"))
    page.get_by_role("button", name="Stop", exact=True).click()
    text_of(page, "#egm-status", re.compile("stopped"))
    backend.let()
    assert page.title() == "EGM"
    assert page.locator("#egm-answers-1 img").count() == 0
    backend.drain()


def test_a_page_that_is_closed_is_answered_no_more(page_at: tuple[Site, Open], typing: tuple[Typing, str]) -> None:
    page, backend = page_at[1](), typing[0]
    choose(page, "Model", f"typing at {typing[1]}")
    while backend.ended.acquire(blocking=False):
        pass
    ask(page, "the cup")
    backend.let(1)
    text_of(page, "#egm-answers-1", "It is there.")
    page.close()
    assert backend.ended.acquire(timeout=60)


def test_the_keyboard_reaches_everything_in_order(page_at: tuple[Site, Open], tmp_path: Path) -> None:
    page = page_at[1]()
    script = """() => {
        const at = document.activeElement;
        const label = at.getAttribute("aria-label") || at.labels?.[0]?.innerText || at.innerText || "";
        return label.trim().split("\\n")[0];
    }"""
    page.keyboard.press("Tab")
    order = []
    for _ in range(12):
        order.append(page.evaluate(script))
        outline = page.evaluate("getComputedStyle(document.activeElement).outline")
        assert "solid 3px" in outline, order[-1]  # seen
        page.keyboard.press("Tab")
    assert order == [
        "Ask",
        "Journals",
        "example",
        "Upload a picture",
        "Phrases, one a line",
        "one box",
        "Whole objects, hidden parts too (amodal)",
        "Model",
        "Compare with",
        "Votes",
        "Ask",
        "Stop",
    ]
    page.get_by_label("Phrases").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("the cross farthest from the square")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect = page.get_by_role("group", name="Expect")
    assert expect.get_by_role("radio", name="one or none").is_checked()
    page.keyboard.press("ArrowRight")
    assert expect.get_by_role("radio", name="all there are").is_checked()
    page.keyboard.press("ArrowLeft")
    page.get_by_role("button", name="Ask", exact=True).focus()
    page.keyboard.press("Enter")
    text_of(page, "#egm-status", re.compile("egm-tiny: (1 box|no box)"))
    page.get_by_role("tab", name="Ask").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("combobox", name="Run", exact=True).wait_for()


def test_a_screen_reader_is_told_what_is_what(page_at: tuple[Site, Open]) -> None:
    page = page_at[1]()
    for name in ("Sample picture", "Expect"):
        assert page.get_by_role("group", name=name).count() == 1
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.get_by_role("heading", level=1).inner_text().startswith("EGM")
    assert page.locator("#egm-status").get_attribute("aria-live") == "polite"
    assert page.get_by_role("img", name="shapes.png").count() == 1
    ask(page, "the cross farthest from the square")
    page.get_by_role("img", name=re.compile(r"shapes.png with a box of egm-tiny: phrase 1 at 195\.1")).wait_for()
    assert page.get_by_role("region", name="egm-tiny").count() == 1
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("input, textarea, button, [role=combobox]")]
            .filter((each) => each.offsetParent && !each.getAttribute("aria-label") && !each.labels?.length
                && !each.innerText?.trim() && !each.title).map((each) => each.outerHTML.slice(0, 200))"""
    )
    assert unnamed == []


@pytest.mark.parametrize("width", [1280, 400])
def test_journals_are_looked_through(page_at: tuple[Site, Open], runs: Path, tmp_path: Path, width: int) -> None:
    page = page_at[1](width)
    page.get_by_role("tab", name="Journals").click()
    choose(page, "Run", str(runs / "greedy"))
    said = text_of(page, "#egm-journal-status", re.compile("answers pass"))
    total = int(re.match(r"(\d+) of (\d+)", said)[1])  # type: ignore[index]
    assert total > 12
    images = page.locator("#egm-cards article img")
    assert images.count() == 12
    images.last.scroll_into_view_if_needed()
    assert page.evaluate("[...document.querySelectorAll('#egm-cards img')].every((each) => each.naturalWidth > 300)")
    assert all(re.search("the true box", each.get_attribute("alt")) for each in images.all())
    looked_at(page, tmp_path, f"journal-{width}")
    page.get_by_role("button", name="Next page").click()
    text_of(page, "#egm-journal-status", re.compile("page 2 of"))
    text_of(page, "#egm-tables", re.compile("Acc@0.5"))
    page.get_by_role("checkbox", name=re.compile("hit")).uncheck()
    text_of(page, "#egm-journal-status", re.compile(r"page 1 of"))
    assert page.locator("#egm-cards b.hit").count() == 0
    page.get_by_role("checkbox", name=re.compile("hit")).check()
    page.get_by_label("Words in").fill("no such word")
    text_of(page, "#egm-cards", "No answer passes these filters.")
    page.get_by_label("Words in").fill("")
    text_of(page, "#egm-journal-status", re.compile(f"{total} of {total}"))
    choose(page, "Compare with the run", str(runs / "sampled"))
    text_of(page, "#egm-journal-status", re.compile("questions pass"))
    text_of(page, "#egm-tables", re.compile("exact McNemar"))
    choose(page, "Which run is right", "both right")
    text_of(page, "#egm-journal-status", re.compile("questions pass"))
    page.wait_for_function("document.querySelectorAll('#egm-cards b.miss').length === 0")
    assert page.locator("#egm-cards article").count() % 2 == 0
    looked_at(page, tmp_path, f"compared-{width}")


def test_dark_is_dark(page_at: tuple[Site, Open], tmp_path: Path) -> None:
    page = page_at[1](color_scheme="dark")
    ask(page, "the cross farthest from the square")
    page.get_by_role("link", name="download JSON").wait_for()
    looked_at(page, tmp_path, "dark")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", background)[:3])) < 64


def test_with_a_key_the_page_asks_for_it(browser: Any, tmp_path: Path) -> None:
    with site(tmp_path / "site", key=KEY) as found:
        stranger = browser.new_page()
        assert stranger.request.get(found.url).status == 401
        page = browser.new_context(http_credentials={"username": "me", "password": KEY}).new_page()
        page.goto(found.url)
        page.locator("#egm-picture-1 svg").wait_for()
        ask(page, "the cross farthest from the square")
        page.get_by_role("link", name="download JSON").wait_for()
        # An open page holds a connection, and still Ctrl-C ends all of it.
        found.process.send_signal(signal.SIGINT)
        found.process.wait(60)
    assert list(found.temporary.iterdir()) == []
    assert "Traceback" not in "".join(found.errors)
    assert KEY not in "".join(found.errors)
