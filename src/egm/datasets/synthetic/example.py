"""A picture to try: one scene of SynthRef that comes with the package, as `shapes.png`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

EXAMPLE_SCENE: Final = 66
"""Which scene of `SynthRef("val")` it is."""


def example_picture() -> Path:
    """Return the path of `shapes.png`, a picture of SynthRef, in this installation.

    Example:
        >>> example_picture().name
        'shapes.png'
    """
    return Path(__file__).with_name("shapes.png")
