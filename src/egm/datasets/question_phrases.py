"""Phrases out of the questions that they were put into, for rows that hold only the question."""

from __future__ import annotations

import re

from egm.errors import DataError

# Each with the phrase as its only group. The first that fits the whole question counts.
_WORDINGS = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r".*<ref>(.+?)</ref>.*",
        r"Locate (.+), (?:output|report) (?:its|the) bbox coordinates (?:using|in) JSON format\.?",
        r"(?:Locate|Outline the position of|Detect) (.+) in (?:this|the) image,? and output (?:its|the|all the) "
        r"(?:bbox )?coordinates (?:using|in) JSON format\.?",
        r"(?:Locate|Outline the position of) (.+) and output (?:its|the|all the) (?:bbox )?coordinates "
        r"(?:using|in) JSON format\.?",
        r"Locate (?:every instance|the object) that (?:belongs to the following categor(?:y|ies):|matches) "
        r"[\"'](.+)[\"']\. (?:Report|Output) (?:its|the)? ?bbox coordinates (?:using|in) JSON format.*",
        r'Locate every object that matches the description "(.+)" in the image\..*',
        r".*<\|object_ref_start\|>(.+?)<\|object_ref_end\|>.*",
        r"Please provide the (?:amodal )?bounding box coordinates? of the region this sentence describes: (.+?)\.?",
    )
)
_AMODAL = re.compile(r"\bamodal(ly)?\b")


def phrase_of(question: str) -> tuple[str, bool]:
    r"""Find the phrase that a question asks for, and whether it asks for the whole object.

    The wordings are those of EGM's, Qwen's and InternVL's training and evaluation files.

    Returns:
        The phrase, and whether the wording around it is amodal.

    Raises:
        DataError: If the wording is none of the known ones.

    Example:
        >>> phrase_of("<image>\nLocate the red cup amodally, output its bbox coordinates using JSON format")
        ('the red cup', True)
    """
    bare = question.replace("<image>", "").strip()
    for wording in _WORDINGS:
        found = wording.fullmatch(bare)
        if found and found[1].strip():
            phrase = found[1].strip()
            if wording is _WORDINGS[1] and phrase.endswith(" amodally"):
                return phrase.removesuffix(" amodally"), True
            return phrase, bool(_AMODAL.search(bare[: found.start(1)]))
    raise DataError(f"question {bare[:80]!r} has none of the known wordings around its phrase")
