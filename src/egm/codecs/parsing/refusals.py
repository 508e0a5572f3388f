"""Words that say there is no such thing, or decline: English and Chinese as models write them, a word of some others.

They decide only what a missing box is called, and whether numbers in plain brackets that follow them are an answer.
"""

from __future__ import annotations

import re

_NEGATION = r"(?:no|not|none|nothing|never)"
_SEEN = r"(?:contain|exist|show|depict|include|appear|match|present|visible|found|detect)"
_FIND = r"(?:see|find|locate|identify|detect|spot)"
_GIVE = r"(?:determine|provide|answer|help)"
_DOUBT = r"""(?:
    be\s++(?:(?:\w+ly|too|very|100\s?%)\s++){0,2}(?:sure|certain|exact|precise|confident|positive|accurate)\b
  | (?:say|tell|know)\s++(?:(?:this|it)\s++)?+(?:for\s++(?:sure|certain)|with\s++(?:\w++\s++)?certainty|exactly)\b
  | guarantee\b | help\s++but\b | rule\s++out\b
)"""
"""What is said of a box that is given all the same."""
_ABSENT = rf"""\b(?:
        there\s++(?:is|are|was|were|seems?\s++to\s++be|appears?\s++to\s++be)\s++{_NEGATION}\b
      | there['’]s\s++{_NEGATION}\b
      | there\s++(?:isn|aren|wasn|weren)['’]t\b
      | no\s++such\b | none\b | nothing\s++(?:match|fit|correspond|like|here|there|of\s++the\s++(?:kind|sort))
      | not\s++(?:present|visible|found|detected|shown|depicted|there\b|here\b)
      | not\s++in\s++(?:the|this)\s++(?:image|picture|photo|scene)\b
      | (?:does|do|did|is|are|can|could|was|were)(?:\s++not|n['’]t)\s++(?:be\s++)?+(?:{_SEEN}|{_FIND})
      | (?:cannot | can['’]t | can\s++not | unable\s++to | not\s++able\s++to)\s++(?:be\s++)?+(?:{_SEEN}|{_FIND})
      | {_NEGATION}\s++(?:object|region|thing)s?+\s++(?:match|fit|correspond)
      | no\s++(?:[\w'’-]++\s++){{1,6}}?(?:
            (?:found|here|there|present|visible|detected|exists?|shown|seen|match(?:es|ing)?)\b
          | in\s++(?:the|this)\s++(?:image|picture|photo|scene)\b
        )
      | no\s++in\s++(?:the|this)\s++(?:image|picture|photo|scene)\b
      | no\s++(?:match(?:es|ing)?|results?|detections?)\b
      | no\s++(?:hay|se\s++(?:encuentra|ve|encontr[óo]))\b | ninguna?\b | aucune?\b | il\s++n['’]y\s++a\s++pas\b
      | kein(?:e|en|er)?\s | nicht\s++(?:zu\s++sehen|gefunden|vorhanden|sichtbar)\b
    )
      | 没有|没找到|没看到|不存在|找不到|看不到|看不见|不包含|不包括|不可见|不在图
      | 未(?:找到|检测|发现|看到|见|出现|包含|识别) | 并无|并未|查无|无此|无目标|无匹配|沒有
      | (?:无法|無法|未能)(?:找到|看到|定位|检测|发现|识别)
      | 見つかりま?せん|見当たりません|ありません|存在しません | 없습니다|찾을\s?수\s?없"""
"""That there is no such thing."""
_DECLINES = rf"""\b(?:
        not\s++able\b(?!\s++to\s++{_DOUBT})
      | not\s++(?:possible|applicable)
      | (?:does|do|did|is|are|can|could|was|were)(?:\s++not|n['’]t)\s++(?:be\s++)?+{_GIVE}
      | (?:cannot | can['’]t | can\s++not | unable\s++to)\b(?!\s++{_DOUBT})
      | sorry\b(?!\s++(?:for|about)\s++(?:the|my|any)\s++(?:confusion|delay|mistake|error|wait|inconvenience))
    )
      | 无法|抱歉|未能|無法"""
"""That no answer is given."""
_NONE_WORDS = re.compile(_ABSENT, re.IGNORECASE | re.VERBOSE)
_WORDS = re.compile(f"{_ABSENT} | {_DECLINES}", re.IGNORECASE | re.VERBOSE)
# A whole answer of a word or two.
_ALONE = re.compile(r"\W*+(?:n/?a|none|null|nil|nothing|no|无|無|没有|なし|없음)\W*+", re.IGNORECASE)
_SHORT = re.compile(r"\W*+no\s[^\d\[({<]{1,60}+", re.IGNORECASE)
_EMPTY = re.compile(r"(?<![\w\])])\[\s*+\]")
_EMPTY_HEAD = re.compile(r"\s*+(?:```(?:json)?+\s*+)?+\[\s*+\](?!\s*+[\[({])")


def refuses(answer: str) -> bool:
    """Tell whether an answer without a box says that there is none."""
    return _denies(answer, _WORDS)


def denies(answer: str) -> bool:
    """Tell whether an answer without a box says that there is no such thing, and does not only decline."""
    return _denies(answer, _NONE_WORDS)


def _denies(answer: str, words: re.Pattern[str]) -> bool:
    bare = answer.strip()
    if _ALONE.fullmatch(bare) or _SHORT.fullmatch(bare):
        return True
    return words.search(answer) is not None or _EMPTY.search(answer) is not None


def begins_empty(answer: str) -> bool:
    """Tell whether an answer begins with an empty list: what follows is a comment on it."""
    return _EMPTY_HEAD.match(answer) is not None


def declines_before(answer: str, end: int, phrase: str) -> bool:
    """Tell whether an answer declines before `end`, in other words than the phrase's own."""
    before = answer[:end].lower()
    asked = phrase.strip().lower()
    return _WORDS.search(before.replace(asked, "") if asked else before) is not None
