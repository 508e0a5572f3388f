"""Leaks: a rationale that tells of the mark on the picture or of the prompt, which the student will never see."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Final

from egm.rationales.candidate import Candidate
from egm.rationales.filters.base import Filter, register_filter
from egm.rationales.filters.words import excerpt, flat, mentions, outside_phrase

_COLOUR: Final = (
    r"(?:red|green|lime|blue|yellow|cyan|magenta|orange|purple|pink|violet|white|black|bright|colou?red|neon|gr[ae]y"
    r"|teal"
    r"|vermilion|turquoise|thick|dashed|dotted|solid|thin)"
)
_MARK: Final = (
    r"(?:box|rectangle|outline|contour|frame|border|mark(?:er|ing)?|annotation|highlight(?:ing)?|overlay|lines?|stroke"
    r"|square|circle|ring|ellipse|polygon)(?:e?s)?"
)
_TIGHT: Final = r"(?:box|rectangle|outline|contour|mark(?:er|ing)?|annotation|highlight(?:ing)?|overlay|stroke)(?:e?s)?"
_MARKED: Final = (
    r"(?:marked|highlighted|outlined|boxed|circled|annotated|delineated|delimited|framed|encircled|enclosed|bounded"
    r"|labell?ed|traced|demarcated|indicated|designated|drawn|bordered|ringed|overlaid|superimposed|underlined)"
)
_SHOWS: Final = (
    r"(?:shows?|indicates?|surrounds?|encloses?|encircles?|bounds?|marks?|covers?|holds?|contains?|delimits?|points?"
    r"|makes?|tells?|confirms?|fits|falls|frames?|captures?|encompasses|outlines?|highlights?|denotes?|identifies|is\s+on"
    r"|lies\s+on|sits\s+on|matches|corresponds|around|is\s+there|is\s+here|reveals?)"
)
_POINTS_OUT: Final = (
    r"(?:shows|indicates|surrounds|encloses|encircles|marks|delimits|outlines|highlights|denotes|identifies|points)"
)
_THING: Final = (
    r"(?:it|this|that|object|one|target|item|person|man|woman|region|area|which|what|phrase|words|answer|us)"
)
_IMAGE: Final = r"(?:image|picture|photo(?:graph)?|scene)"
_GIVEN: Final = r"(?:given|provided|supplied|specified|stated|told|shown|known|mentioned|disclosed|revealed)"
_STATED: Final = r"(?:provided|supplied|specified|stated|disclosed|revealed)"
_ASKED: Final = r"(?:prompt|question|instructions?|input|query|request|task|message|user)"

_TERMS: Final = re.compile(
    r"""(?P<told>
      \b(?:bounding|target|true|gold(?:en)?|gt|ground[\s-]?truth|answer|solution|reference|designated|drawn
          |marked)[\s-]+
        (?:box|bbox|rectangle|annotation|label|frame|outline|region|area|coordinates?)(?:es)?\b
      | \bbbox(?:es|_2d)?\b | \bground[\s-]?truth\b | \bgt\b
      | \bregions?\s+of\s+interest\b | \bannotations?\b | \bannotated\b
      | \bhighlight(?:ed|ing)\b | \bthe\s+highlight\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_DRAWN: Final = re.compile(
    rf"""(?P<told>
      \b(?:the|an?|this|that)\s+(?:\w+\s+){{0,2}}?{_MARKED}[\s-]+(?:\w+\s+)?(?:area|region|object|one|person|man
          |woman|item
        |part|zone|section|target|subject|figure|thing|box|rectangle|square|circle|outline|individual|portion|spot)\b
      | \b{_MARK}\s+(?:(?:that|which)\s+)?(?:(?:is|was|were|are|has\s+been|have\s+been|had\s+been)\s+)?
        (?:drawn|added|overlaid|superimposed|put|placed|painted|marked|sketched)\b
      | \b(?:has|have|had|was|were)\s+(?:been\s+)?(?:\w+ly\s+)?(?:marked|highlighted|outlined|boxed|circled|annotated
        |delineated|delimited|encircled|indicated|singled\s+out)\b
      | \b{_MARKED}\s+(?:off\s+|out\s+)?(?:in|with|by)\s+(?:an?\s+|the\s+)?(?:\w+\s+)?{_COLOUR}\b
      | \b{_COLOUR}[\s-]+{_MARKED}\b
      | \b(?:inside|within|in|by)\s+(?:the|an?|this|that)\s+(?:\w+\s+){{0,1}}?{_COLOUR}\s+(?:\w+\s+)?
        (?:box|rectangle|outline|contour|frame|border|bounding|mark(?:er|ing)?|overlay|annotation|lines)(?:e?s)?\b
      | \b(?:the|an?|this|that)\s+(?:\w+\s+)?{_COLOUR}[\s-]+(?:\w+\s+)?{_MARK}(?:\s+\w+){{0,5}}?\s+{_SHOWS}
        (?:\s+\w+){{0,3}}?\s+{_THING}\b
      | \b(?:the|an?|this|that)\s+(?:\w+\s+)?{_COLOUR}[\s-]+(?:\w+\s+)?{_MARK}\s+(?:\w+ly\s+)?{_POINTS_OUT}\b
      | \b(?:that|which|whom)\s+(?:the|an?)\s+{_COLOUR}[\s-]+(?:\w+\s+)?{_MARK}\s+{_SHOWS}\b
      | \b(?:the|an?)\s+{_COLOUR}\s+(?:bounding|overlay|annotation|contour|stroke|marker|marking|mark)\b(?!\s+on\s+the)
      | \b(?:the|this|that)\s+{_TIGHT}(?:\s+(?:in|on)\s+(?:the|this)\s+{_IMAGE})?\s+(?:\w+ly\s+)?{_SHOWS}\b
      | \b(?:box|rectangle|outline|contour)\s+(?:shown|indicated|visible|seen|present|placed|overlaid)\b
      | \b(?:the|an?)\s+{_TIGHT}\s+(?:(?:around|over|drawn\s+on)\s+(?:it\b|the\s+(?:object|target|one)\b)
        |(?:in|on|over)\s+(?:the|this)\s+{_IMAGE}\b)
      | \b(?:surrounded|bounded|enclosed|encircled|outlined|framed|covered|indicated|shown)\s+by\s+(?:the
          |an?)\s+(?:\w+\s+)?
        {_TIGHT}\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_PROMPT: Final = re.compile(
    rf"""(?P<told>
      \b(?:given\s+(?:bounding\s+)?|{_STATED}\s+(?:(?!(?:its|their|his|her|by|in)\b)\w+\s+)?)(?:coordinates?
          |box(?:es)?|bbox|location|position|answer|region|label|annotation|area)\b
      | \b(?:coordinates?|box(?:es)?|bbox|location|position|answer|region|area|label|target)\s+(?:(?:that|which)\s+)?
        (?:(?:is|was|are|were|has\s+been|have\s+been)\s+)?(?:already\s+)?(?:{_GIVEN})\b
      | \b(?:coordinates?|box(?:es)?|location|position|answer|region)\s+(?:that\s+|which\s+)?(?:you|the\s+user|they)\s+
        (?:have\s+|had\s+)?(?:gave|give|given|provided?|suppl(?:y|ied)|specif(?:y|ied)|mention(?:ed)?|sent|told)\b
      | \b(?:as|like)\s+(?:\w+\s+)?(?:{_GIVEN}|indicated|noted|described)\s+(?:in|by|with)\s+(?:the|your)\s+{_ASKED}\b
      | \b(?:in|by|with|from|of|to)\s+(?:the|your)\s+(?:prompt|instructions?|system\s+message|user)\b
      | \b(?:coordinates?|box|location|position|answer|label)\s+(?:\w+\s+){{0,3}}?(?:in|from|with|of)\s+(?:the|your)\s+
        {_ASKED}\b
      | \b(?:the|your)\s+{_ASKED}\s+(?:\w+\s+)?(?:gives?|provides?|states?|specif(?:ies|y)|says|tells?|supplies
          |already)\b
      | \b(?:correct|right|known|expected|desired|intended|true|actual|final)\s+(?:answer|location|coordinates?|box
          |position|solution)
        \s+(?:\w+\s+){{0,3}}?(?:is|was|has|are|were|confirms?|shows?|given|provided)\b
      | \b(?:the|its?|their|these)\s+coordinates?\b
      | \b(?:image|picture|photo)\s+(?:description|caption)\b
      | \bthe\s+(?:label|answer|solution)\s+(?:key\s+)?(?:tells?|says|shows?|indicates?|confirms?|given|provided)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_MARKS: Final = (
    *("box", "rectangle", "outline", "contour", "frame", "border", "mark", "annotat", "highlight", "overl", "line"),
    *(
        "stroke",
        "circled",
        "delin",
        "delim",
        "enclos",
        "bounded",
        "label",
        "trace",
        "demarc",
        "indicated",
        "designated",
    ),
    *("drawn", "ringed", "superimposed", "singled", "square", "circle", "ring", "ellipse", "polygon"),
)
_TOLD: Final = (
    (
        "the mark",
        _TERMS,
        (
            "box",
            "truth",
            "gt",
            "region",
            "annotat",
            "highlight",
            "target",
            "true",
            "gold",
            "answer",
            "solution",
            "reference",
            "designated",
            "drawn",
            "marked",
        ),
    ),
    ("the mark", _DRAWN, _MARKS),
    (
        "the prompt",
        _PROMPT,
        (
            "coordinate",
            "box",
            "location",
            "position",
            "answer",
            "region",
            "label",
            "area",
            "target",
            "annotat",
            "prompt",
            "instruction",
            "question",
            "input",
            "query",
            "request",
            "task",
            "message",
            "user",
            "solution",
            "description",
            "caption",
        ),
    ),
)
"""What is looked for, with strings of which one stands in all that the pattern finds."""
_NUMBER: Final = r"-?\d{1,5}(?:\.\d{1,4})?"
_FOUR: Final = re.compile(rf"{_NUMBER}(?:\s*[\])]?\s*[,;\s]\s*[\[(]?\s*{_NUMBER}){{3}}(?![\d.])")
_NAMED: Final = re.compile(rf"\b[xy]\s?_?(?:\d|min|max)?\s*[=:]\s*{_NUMBER}", re.IGNORECASE)
_PAIR: Final = re.compile(rf"\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\)")
_WHOLE: Final = re.compile(r"(?<![\d.])\d{1,5}(?![\d]|\.\d)")
_FEWEST_MATCHES = 3


@register_filter
@dataclass(frozen=True)
class Leak(Filter):
    """Drops what tells of the mark, of the prompt, or of coordinates.

    A word of the phrase is no leak: "the green shirt", "the box of pizza" and "the marked page" are what was asked.

    Attributes:
        coordinates: Whether coordinates are a leak too: not in a style that tells the boxes of candidates.
    """

    name: ClassVar[str] = "leak"
    reason: ClassVar[str] = "the mark on the picture, the prompt, or the true coordinates show in it"
    coordinates: bool = True

    def check(self, candidate: Candidate) -> str | None:
        """Look for what only the teacher can have seen; see `Filter.check`."""
        text = flat(candidate.text)
        lowered = text.lower()
        for what, pattern, stems in _TOLD:
            if not mentions(lowered, stems):
                continue
            for found in outside_phrase(text, candidate.sample.phrase, pattern):
                return f"it tells of {what}: {excerpt(text, found)!r}"
        return _told_coordinates(text, candidate) if self.coordinates else None


def _told_coordinates(text: str, candidate: Candidate) -> str | None:
    for pattern in (_FOUR, _NAMED, _PAIR):
        if (found := pattern.search(text)) is not None:
            return f"it tells coordinates: {excerpt(text, found)!r}"
    pixels = tuple(round(value) for value in candidate.box)
    told = {int(number) for number in _WHOLE.findall(text)}
    for numbers in (candidate.numbers, pixels):
        if len(told & set(numbers)) >= min(_FEWEST_MATCHES, len(set(numbers))):
            return f"it tells the coordinates of the box: {sorted(told & set(numbers))}"
    return None
