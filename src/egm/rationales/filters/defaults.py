"""Which filters a run has where its recipe names none, by the style of its rationales."""

from __future__ import annotations

from typing import Any


def default_recipe(style: str) -> dict[str, dict[str, Any]]:
    """Return the recipe for `build_filters` that fits a style.

    Args:
        style: "official", "candidates", "amodal" or any other name. Where rationales tell boxes by design, as those of
            `candidates` and `amodal` do, coordinates are no leak; other styles are taken to have none.
    """
    tells_boxes = style in ("candidates", "amodal", "inventory")
    return {
        "failure": {},
        "leak": {"coordinates": not tells_boxes},
        "contradiction": {},
        "language": {},
        "length": {"least": 5, "most": 400 if tells_boxes else 120},
        "repetition": {},
        "near_duplicate": {},
    }
