"""Writing a page: the template that escapes what comes out of data, the policy, and pictures with boxes.

Phrases, names and a model's text come out of data. The templates escape all of them, and `base.html.j2` forbids a page
everything by a content security policy but pictures that lie in it and the style and the script whose digests it names.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from egm.boxes import Box
from egm.draw import draw_boxes, fitted
from egm.terminal import printable

if TYPE_CHECKING:
    from jinja2 import Environment
    from PIL.Image import Image

_MOST_TEXT: Final = 6000  # characters; a model that repeats itself writes tens of thousands
_LONG_SIDE: Final = 640
_QUALITY: Final = 80


def render(template: str, *, styles: Sequence[str] = ("page.css",), script: str | None = None, **content: Any) -> str:
    """Write a page.

    Args:
        template: Name of a file of this package, which extends `base.html.j2`.
        styles: Names of the files that its one style is made of.
        script: Name of the file of its one script, if it has one.
        **content: What the template shows.
    """
    from markupsafe import Markup

    # These files are parts of this package, so they are no more escaped than the template itself.
    here = Path(__file__).parent
    style = Markup("".join((here / name).read_text("utf-8") for name in styles))  # noqa: S704
    code = None if script is None else Markup((here / script).read_text("utf-8"))  # noqa: S704
    digests = {"style": _digest(style), "script": None if code is None else _digest(code)}
    return template_environment().get_template(template).render(style=style, script=code, digests=digests, **content)


def template_environment(*folders: Path) -> Environment:
    """Where templates are, beside those of this package; all values in them are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader([*folders, Path(__file__).parent])
    found = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    found.filters |= {"printable": printable, "readable": readable}
    return found


def readable(text: str) -> str:
    """Return a model's text, line by line printable, and not without end."""
    text = text.strip()
    lines = "\n".join(map(printable, text[:_MOST_TEXT].splitlines()))
    return lines if len(text) <= _MOST_TEXT else f"{lines}… ({len(text) - _MOST_TEXT:,} more characters)"


def overlay_url(
    picture: Image, *, boxes: Sequence[Sequence[float]] = (), truths: Sequence[Sequence[float]] = ()
) -> str:
    """Draw boxes on a picture, and return it as a `data:` URL.

    Args:
        picture: Upright picture; a large one is shown smaller.
        boxes: The model's, each as `x1, y1, x2, y2` in pixels of `picture`.
        truths: The true ones, likewise.
    """
    picture, scale = fitted(picture, _LONG_SIDE)

    def scaled(corners: Sequence[float]) -> Box:
        return Box(*(scale * corner for corner in corners))

    drawn = draw_boxes(picture, box=[*map(scaled, boxes)], truth=[*map(scaled, truths)])
    stream = io.BytesIO()
    drawn.save(stream, "WEBP", quality=_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def _digest(text: str) -> str:
    """Of a style or script, as a content security policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
