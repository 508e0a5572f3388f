"""Grounding as tools of the Model Context Protocol: `ground`, `count` and `check`, about pictures of one folder.

Source: modelcontextprotocol.io, by its Python SDK (mcp 2).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field

from egm._version import __version__
from egm.errors import BackendError, EgmError
from egm.extras import need
from egm.images import load_image
from egm.types import Expect, Grounding

if TYPE_CHECKING:
    from egm.grounder import Grounder

_INSTRUCTIONS = (
    "Finds what a phrase describes in a picture. Boxes are [x1, y1, x2, y2] in pixels of the upright picture, origin "
    "at the top left. An answer without a box says why in `failure`; that is no proof that nothing is there."
)
Picture = Annotated[str, Field(description="File of the picture, relative to the folder that is served")]
Asked = Annotated[str, Field(description="What to look for, such as 'the red cup left of the plate'")]
Corners = tuple[float, float, float, float]


class GroundedBox(BaseModel):
    """The box that answers, in pixels x1, y1, x2, y2, or why there is none; and the picture's width and height."""

    box: Corners | None
    failure: str | None
    size: tuple[int, int]


class Counted(BaseModel):
    """How many things match, with their boxes in pixels x1, y1, x2, y2; no count where the answer failed."""

    count: int | None
    boxes: list[Corners]
    failure: str | None
    size: tuple[int, int]


class Checked(BaseModel):
    """Whether a thing matches, with its box in pixels x1, y1, x2, y2; neither yes nor no where the answer failed."""

    present: bool | None
    box: Corners | None
    failure: str | None
    size: tuple[int, int]


def build_mcp_server(grounder: Grounder, images: Path) -> Any:
    """Make a server of the three tools.

    Args:
        grounder: What answers, one question after the other.
        images: Folder of the pictures; no path or link that a client names leads out of it, and nothing is fetched.

    Returns:
        An `mcp.server.MCPServer`; `run("stdio")` serves it on standard input and output.

    Raises:
        MissingExtraError: If mcp is not installed.
        EgmError: If there is no such folder.
    """
    need("an MCP server", "mcp")
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.types import ToolAnnotations

    if not images.is_dir():
        raise EgmError(f"there is no folder {str(images)!r} of pictures to serve: check its name")
    root, asking = images.resolve(), threading.Lock()  # tools run in threads, and a model is made for one

    @contextmanager
    def told() -> Iterator[None]:
        """Tell the client what it can mend, and not where the folder lies, which is nothing to it."""
        try:
            yield
        except EgmError as error:
            said = str(error).replace(str(root), "the folder of pictures")
            failed = "the model did not answer: " if isinstance(error, BackendError) else ""
            raise ToolError(failed + said) from None

    def ask(image: str, phrase: str, expect: Expect) -> Grounding:
        with told():
            picture = load_image(image, root=root)
            with asking:
                return grounder.ground(picture, phrase, expect=expect)

    server = MCPServer("egm", version=__version__, instructions=_INSTRUCTIONS, log_level="WARNING")
    looks = ToolAnnotations(read_only_hint=True, destructive_hint=False, open_world_hint=False)

    def ground(image: Picture, phrase: Asked) -> GroundedBox:
        """Find the one thing that a phrase describes in a picture, and return its box."""
        found = ask(image, phrase, "one")
        return GroundedBox(box=_corners(found), failure=found.failure, size=_size(found))

    def count(image: Picture, phrase: Asked) -> Counted:
        """Count all things that a phrase describes in a picture, and return their boxes."""
        found = ask(image, phrase, "all")
        boxes = [box.corners for box in found.answered]
        number = None if found.failure is not None else len(boxes)
        return Counted(count=number, boxes=boxes, failure=found.failure, size=_size(found))

    def check(image: Picture, phrase: Asked) -> Checked:
        """Tell whether anything that a phrase describes is in a picture, and where."""
        found = ask(image, phrase, "any")
        present = None if found.failure is not None else not found.is_none
        return Checked(present=present, box=_corners(found), failure=found.failure, size=_size(found))

    for tool in (ground, count, check):
        server.add_tool(tool, annotations=looks)
    return server


def _corners(found: Grounding) -> Corners | None:
    return None if found.box is None else found.box.corners


def _size(found: Grounding) -> tuple[int, int]:
    assert found.size is not None
    return found.size
