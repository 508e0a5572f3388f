"""A headless Chromium, and `egm web` as a process that notes every address it connects to."""

from __future__ import annotations

import importlib
import io
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from .environments import ROOT, uv

PLAYWRIGHT = "playwright>=1.50"
WAIT = 60_000.0  # milliseconds after which a test has failed, however slow the machine
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_AUDITED = """
import sys
from pathlib import Path

def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = arguments[1] if event == "socket.connect" else arguments[0]
        with Path(sys.argv[1]).open("a") as file:
            file.write(f"{address[0] if isinstance(address, tuple) else address}\\n")

sys.addaudithook(note)
from egm.cli import main
sys.argv = ["egm", *sys.argv[2:]]
main()
"""


def load_playwright(folder: Path) -> Any:
    """Import Playwright, from this environment or else from one that uv makes; skip where it cannot be had."""
    try:
        return importlib.import_module("playwright.sync_api")
    except ModuleNotFoundError:
        uv("pip", "install", "--quiet", "--python", sys.executable, "--target", folder, PLAYWRIGHT)
        sys.path.append(str(folder))
        return importlib.import_module("playwright.sync_api")


def chromium() -> str:
    """The system's Chromium; skip where there is none."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    return found


@dataclass
class Site:
    """A page that is served by a process of its own.

    Attributes:
        url: Where it is.
        process: What serves it.
        temporary: Folder that its temporary folders are made in.
        addresses: File that it notes addresses in.
    """

    url: str
    process: subprocess.Popen[str]
    temporary: Path
    addresses: Path
    errors: list[str] = field(default_factory=list)

    def elsewhere(self) -> set[str]:
        """What the process connected to or looked up beside this machine."""
        noted = self.addresses.read_text().split("\n") if self.addresses.exists() else []
        return set(noted) - {"", "127.0.0.1", "localhost", "::1", "None"}


@contextmanager
def site(folder: Path, *arguments: object, key: str = "") -> Iterator[Site]:
    """Serve the page, and end it."""
    temporary, addresses = folder / "tmp", folder / "addresses"
    temporary.mkdir(parents=True)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path]),
        "TMPDIR": str(temporary),
    }
    environment |= {"EGM_SERVER_KEY": key, "OMP_NUM_THREADS": "1", "no_proxy": "*"}
    command = [sys.executable, "-c", _AUDITED, str(addresses), "web", "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder
    )
    assert process.stdout is not None
    assert process.stderr is not None
    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.extend(process.stderr or ()))
    reader.start()
    try:
        line = process.stdout.readline()
        assert line.startswith("http://"), errors
        yield Site(line.split()[0], process, temporary, addresses, errors)
    finally:
        process.terminate()
        process.wait(60)
        reader.join(60)


def pixel(page: Any, locator: Any, x: float, y: float) -> tuple[int, int, int]:
    """The colour that is drawn at a point of an SVG picture, in its own coordinates."""
    script = """(svg, [x, y]) => {
        const at = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());
        const frame = svg.getBoundingClientRect();
        return [at.x - frame.x, at.y - frame.y];
    }"""
    locator.scroll_into_view_if_needed()
    left, top = locator.evaluate(script, [x, y])
    shown = Image.open(io.BytesIO(locator.screenshot())).convert("RGB")
    red, green, blue = shown.getpixel((int(left), int(top)))  # type: ignore[misc]
    return red, green, blue


def is_near(colour: tuple[int, int, int], wanted: str, within: int = 40) -> bool:
    """Whether a colour is the one that "#rrggbb" names, but for smoothing."""
    parts = (int(wanted[place : place + 2], 16) for place in (1, 3, 5))
    return all(abs(a - b) <= within for a, b in zip(colour, parts, strict=True))
