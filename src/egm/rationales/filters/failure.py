"""Texts that explain nothing: errors stored as answers, refusals, calls of tools, boxes without words, nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Final

from egm.rationales.candidate import Candidate
from egm.rationales.filters.base import Filter, register_filter
from egm.rationales.filters.words import excerpt, flat, mentions

_NOTHING: Final = re.compile(
    r"[\W_]*(?:(?:no|empty|blank)\s+(?:output|response|answer|content|rationale|reasoning|explanation|reply|text"
    r"|comment)"
    r"|n\W{0,2}a|none|null|nil|undefined|empty|nothing|nan|void|todo|tbd|unknown)?[\W_]*",
    re.IGNORECASE,
)
_TOOL: Final = re.compile(
    r"""</?(?:tool|function)[\w:-]* | <\W{0,2}tool_call | <invoke\b | \[/?TOOL\w*\] | \bfunctions?\.\w+\s*[(:]
    | \bAction(?:\s+Input)?\s*: | ```
    | "(?:name|function|tool|tool_name|tool_calls|arguments|parameters|bbox_2d|bbox|label)"\s*:""",
    re.VERBOSE,
)
_ERROR: Final = re.compile(
    r"""\A\W*(?:\w+\s+){0,2}?(?:analysis|request|generation|processing|call|inference|response)\s+(?:has\s+)?failed\b
    | \A\W*(?:fatal\s+)?(?:error|exception|warning)\b\s*[\]:] | \A\W*failed\s+to\b | \A\W*(?:http\W*)?[45]\d\d\s+[A-Z]
    | \A\W*traceback\b | \A\s*<(?:!doctype|html)\b | \A\W*http\s+\d{3}\b
    | \b(?:error|status)\s+code\b\W*\d | \b(?:[A-Z]\w*)?(?:Error|Exception)\s*:
    | \b(?:rate\s+limit|quota|too\s+many\s+requests|retries\s+exceeded|out\s+of\s+memory|timed\s+out|time-?out\b)
    | \b(?:internal\s+server|bad\s+gateway|service\s+unavailable|gateway\s+time|upstream\s+connect|connection\s+(?:error
      |refused|reset|termination|aborted))
    | \bserver\s+(?:had|encountered|returned|is)\s+(?:an?\s+)?(?:error|overloaded|busy) | "error"\s*:
    | \ban?\s+(?:\w+\s+)?error\s+(?:has\s+)?occurred\b | \bsomething\s+went\s+wrong\b
    | \b(?:please\s+)?try\s+(?:it\s+)?again(?:\s+later|\s+in\b) | \bcontent[\s_](?:policy|filter|management)
    | \b(?:could|can|did)\s+not\s+(?:process|load|read|open|decode|analy[sz]e)\s+(?:the|this|your|an?)\s+(?:image
          |picture
      |photo|input|request) | \binvalid\s+(?:image|request|input|api)""",
    re.IGNORECASE | re.VERBOSE,
)
_WORK: Final = (
    r"(?:see|view|access|open|load|help|assist|comply|answer|identify|analy[sz]e|describe|process|provide|explain)"
)
_REFUSAL: Final = re.compile(
    rf"""\bI(?:\s+am|['’]m)\s+(?:(?:so|very|really|afraid|truly)\s+){{0,2}}(?:sorry|unable|not\s+able|not\s+sure
          |afraid)\b
    | \A\W*(?:(?:I|we)\s+(?:am\s+|are\s+)?)?sorry\b | \b(?:my|our)\s+apologies\b | \bapologi[sz]e\b
    | \b(?:I|we)\s+(?:simply\s+|really\s+|just\s+|still\s+)?(?:can(?:no|\s+no|['’])t|could(?:\s+no|n['’])t|won['’]t
      |will\s+not)\s+(?:\w+\s+){{0,2}}?(?:{_WORK}|be\s+able|determine|tell|comment|discuss|do\s+(?:that|this|so))
    | \b(?:I|we)\s+(?:must|have\s+to|will|would\s+rather|need\s+to|would)\s+(?:\w+\s+)?(?:decline|refuse|refrain|pass)\b
    | \b(?:I|we)\s+(?:can|could|am\s+able\s+to|may)\s+only\s+(?:{_WORK}|read|work|respond|handle|understand|discuss)
    | \b(?:I|we)\s+(?:do\s+not|don['’]t|did\s+not|didn['’]t|have\s+not|haven['’]t|have|lack)\s+(?:\w+\s+){{0,2}}?(?:have
      |see|received?|get|got|lack|no|enough|access|the\s+ability)\s+(?:\w+\s+){{0,3}}?(?:access|ability|image|picture
          |photo
      |information|context|way|attach\w+|visual|capab\w+|means)
    | \b(?:I|we)\s+have\s+no\s+(?:way|means|access|ability|image|picture|idea)
    | \bas\s+an?\s+(?:\w+[\s-]){{0,3}}?(?:AI|assistant|language\s+model|chatbot)\b
    | \b(?:please|kindly)\s+(?:\w+\s+)?(?:provide|upload|share|attach|send|re-?send|re-?upload|supply|give\s+me)\b
    | \b(?:could|can|would|will)\s+you\s+(?:please\s+|kindly\s+)?(?:clarify|upload|provide|share|send|specify|tell|give
      |describe|confirm|attach|explain)
    | \b(?:not\s+possible|impossible|not\s+allowed|not\s+permitted|beyond\s+my)\b(?:\s+for\s+me|\s+\w*\s*(?:capab
          |abilit))
    | \bnot\s+possible\s+(?:for\s+me\s+)?to\s+{_WORK}
    | \b(?:image|picture|photo)\s+(?:did(?:\s+not|n['’]t)|failed\s+to|could\s+not|cannot|was\s+not|is\s+not|has\s+not
      )\s+(?:be\s+|been\s+)?(?:load|upload|attach|provid|open|display|render|viewed|receiv)
    | \bno\s+(?:image|picture|photo)\s+(?:\w+\s+){{0,2}}?(?:attached|provided|uploaded|received|given|available)""",
    re.IGNORECASE | re.VERBOSE,
)
_FAILURES: Final = (
    ("a call or code", _TOOL, ("<", "[", "function", "action", "`", '"')),
    (
        "an error",
        _ERROR,
        (
            "fail",
            "error",
            "exception",
            "warning",
            "http",
            "4",
            "5",
            "traceback",
            "<",
            "code",
            "limit",
            "quota",
            "too many",
            "retries",
            "memory",
            "time",
            "server",
            "gateway",
            "service",
            "connect",
            "wrong",
            "again",
            "content",
            "not",
            "invalid",
        ),
    ),
    (
        "a refusal",
        _REFUSAL,
        (
            "i ",
            "i'",
            "i’",
            "we ",
            "sorry",
            "apolog",
            "as a",
            "please",
            "kindly",
            "you",
            "possible",
            "not allowed",
            "not permitted",
            "beyond",
            "image",
            "picture",
            "photo",
        ),
    ),
)
"""What is looked for, with strings of which one stands in all that the pattern finds."""
# Controls but tab and line ends, halves of surrogate pairs, and what stands for a character that was lost.
_NO_TEXT: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")
_LETTER: Final = re.compile(r"[^\W\d_]")


@register_filter
@dataclass(frozen=True)
class TeacherFailure(Filter):
    """Drops what is no rationale at all, in place of one that is bad."""

    name: ClassVar[str] = "failure"
    reason: ClassVar[str] = "the teacher failed, refused, called a tool or said nothing"

    def check(self, candidate: Candidate) -> str | None:
        """Look for what stands in place of a rationale; see `Filter.check`."""
        text = flat(candidate.text)
        completion = candidate.completion
        if completion is not None and completion.finish_reason in ("length", "repeated"):
            why = "at its token limit" if completion.finish_reason == "length" else "as it repeated itself"
            return f"the teacher was cut off {why}"
        if _NOTHING.fullmatch(text[:200]) and len(text) <= 200:
            return f"nothing is said: {excerpt(text)!r}"
        if not _LETTER.search(text):
            return f"there are no words: {excerpt(text)!r}"
        if (odd := _NO_TEXT.search(candidate.text)) is not None:
            return f"no character of a text: {odd[0]!a}"
        lowered = text.lower()
        for what, pattern, stems in _FAILURES:
            if mentions(lowered, stems) and (found := pattern.search(text)) is not None:
                return f"{what}: {excerpt(text, found)!r}"
        return None
