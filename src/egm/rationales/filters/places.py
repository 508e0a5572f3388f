"""Places in the picture that a piece of text says, held against a box."""

from __future__ import annotations

import re
from typing import Final

from egm.rationales.candidate import Candidate
from egm.rationales.filters.conclusion import Said
from egm.rationales.filters.words import excerpt

_IMAGE: Final = r"(?:image|picture|photo(?:graph)?|scene|frame|view|shot|screen|canvas)"
_SIDE: Final = r"(?:left|right|top|bottom|upper|lower|middle|cent(?:er|re)|central)"
_PART: Final = (
    r"(?:side|edge|corner|part|half|third|portion|area|border|section|end|region|quadrant|margin|quarter|most|hand|rim)"
)
_OWN: Final = (
    r"(?:arm|leg|foot|feet|eye|ear|shoulder|wing|wrist|knee|shoe|lane|turn|front|rear|back|sleeve|cheek|hip|paw|horn|tusk"
    r"|shelf|row|bunk|rack|step|floor|drawer|button|of\b(?!\s+(?:the\s+|this\s+)?IMAGE|\s+them\s+all)"
    r"|hand\b(?!\s+(?:side|corner|edge|part)))"
).replace("IMAGE", _IMAGE)
_PLACE: Final = re.compile(
    rf"""\b(?:on|at|in|to(?=\s+the\s+(?:\w+\s+)?(?:left|right))|near|along|by|close\s+to|against|occup(?:y|ies)|within)\s+(?:the|its|this)\s+
    (?:(?:very|far|extreme|immediate|outer)\s+)*(?P<sides>{_SIDE}(?:[\s-]+(?:and\s+|hand\s+|most\s+)?{_SIDE}\b)?)(?:most)?\b
    (?!\s+(?:\w+\s+)?{_OWN})(?:[\s-]*{_PART}\b)*
    (?P<of>\s+(?:of|in)\s+(?:the\s+|this\s+|our\s+)?(?P<whole>[\w'-]+))?""",
    re.IGNORECASE | re.VERBOSE,
)
_MOST: Final = re.compile(
    rf"\b(?P<sides>left|right|top|bottom|upper|lower|high|low|out)-?(?:er)?-?(?:most|est)\b(?P<of>(?:\s+\w+)?\s+(?:in|of)\s+"
    rf"(?:the\s+|this\s+)?(?P<whole>{_IMAGE}|them\s+all|all))?",
    re.IGNORECASE,
)
_WHOLE: Final = re.compile(rf"{_IMAGE}|all|them(?:\s+all)?", re.IGNORECASE)
_WORDS: Final = {
    "left": "left",
    "right": "right",
    "top": "top",
    "upper": "top",
    "high": "top",
    "bottom": "bottom",
    "lower": "bottom",
    "low": "bottom",
    "middle": "middle",
    "center": "middle",
    "centre": "middle",
    "central": "middle",
}
_NAMES: Final = {
    "left": re.compile(r"\b(?:left|lft|leftmost)", re.IGNORECASE),
    "right": re.compile(r"\b(?:right|rt|rightmost)", re.IGNORECASE),
    "top": re.compile(r"\b(?:top|upper|highest)", re.IGNORECASE),
    "bottom": re.compile(r"\b(?:bottom|bottm|btm|lower|lowest)", re.IGNORECASE),
    "middle": re.compile(r"\b(?:middle|mid|cent)", re.IGNORECASE),
}
_OPPOSITE: Final = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
_NAMED_TOO = 0.15  # more of a side by which a side that the phrase names too has to be missed


def wrong_place(said: Said, candidate: Candidate, margin: float) -> str | None:
    """Say which place in the picture the box is not at.

    Where nothing marks a sentence as the conclusion or a side as one of the picture, and the text names the opposite
    side too, it may be telling several of a kind apart, and counts for nothing.

    Args:
        said: What is said of the object.
        candidate: With the true box, and the phrase.
        margin: Share of the picture's side by which the centre of the box may lie beyond the middle.
    """
    for pattern in (_PLACE, _MOST):
        for found in pattern.finditer(said.piece):
            whole = found["whole"]
            if found["of"] is not None and not _WHOLE.fullmatch(whole):
                continue  # the left side of something else
            sides = [_WORDS[word] for word in re.findall(r"[a-z]+", found["sides"].lower()) if word in _WORDS]
            for side in sides:
                if not said.concluded and whole is None and _NAMES[_OPPOSITE.get(side, side)].search(candidate.text):
                    continue
                if _misses(side, sides, candidate, margin, of_picture=whole is not None):
                    return f"the box is not there: {excerpt(said.piece, found)!r}"
    return None


def _misses(side: str, sides: list[str], candidate: Candidate, margin: float, *, of_picture: bool) -> bool:
    if _NAMES[side].search(candidate.sample.phrase):
        if not of_picture:
            return False
        margin += _NAMED_TOO
    box, (width, height) = candidate.box, candidate.size
    across, down = (box.x1 + box.x2) / (2 * width), (box.y1 + box.y2) / (2 * height)
    if side == "middle":
        return of_picture and len(sides) == 1 and (box.x2 < width / 3 or box.x1 > width * 2 / 3)
    middle = across if side in ("left", "right") else down
    return middle > 0.5 + margin if side in ("left", "top") else middle < 0.5 - margin
