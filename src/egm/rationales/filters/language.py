"""Rationales in another language than the phrase's: told by letters, and by the small words of a language."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, Final

from egm.errors import RecipeError, nearest
from egm.rationales.candidate import Candidate
from egm.rationales.filters.base import Filter, register_filter
from egm.rationales.filters.words import excerpt

_SCRIPTS: Final = {
    "Latin": "A-Za-z\u00c0-\u024f\u1e00-\u1eff",
    "Chinese or Japanese": "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff66-\uff9f",
    "Korean": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af",
    "Cyrillic": "\u0400-\u052f",
    "Greek": "\u0370-\u03ff\u1f00-\u1fff",
    "Arabic": "\u0600-\u06ff\u0750-\u077f",
    "Hebrew": "\u0590-\u05ff",
    "Devanagari": "\u0900-\u097f",
    "Bengali": "\u0980-\u09ff",
    "Tamil": "\u0b80-\u0bff",
    "Thai": "\u0e00-\u0e7f",
}
_LETTERS: Final = {name: re.compile(f"[{letters}]") for name, letters in _SCRIPTS.items()}
_OTHER_LETTER: Final = re.compile(f"(?![{''.join(_SCRIPTS.values())}])[^\\W\\d_]")
_QUOTED: Final = re.compile(r"\"[^\"]{1,60}\"|“[^”]{1,60}”|「[^」]{1,60}」|'[^'\s]{1,30}'")
_LATIN_WORD: Final = re.compile(f"[{_SCRIPTS['Latin']}]+")
_CLAUSE: Final = re.compile(r"[^.,;:!?\n()]+")

# The commonest function words of each language, without those that are words of English too.
_SMALL_WORDS: Final = {
    "en": "the of and is are in on at to it its that which this these those with from by for not one only others other"
    " there has have was were as an be so than into near between also what where who",
    "es": "el los las un una unos del al y es está están por para con que su sus se más como pero este esta esto en de"
    " la lo hay donde entre junto solo también porque cual sobre muy son ese esa así la",
    "fr": "le les des du un une et est sont dans sur avec pour par que qui ce cette ces se sa ses son plus mais pas ne"
    " il elle au aux à de la où entre donc parce seule seul c l d qu comme celle celui très",
    "de": "der das dem den des ein eine einen einem einer eines und ist sind im auf mit für von zu zur zum sich nicht"
    " es sie er wie aber auch bei aus neben nur oder dass diese dieser dieses am die nahe hat steht liegt denn",
    "it": "il lo gli un una di del della dei delle e è sono con per che si più ma non questo questa nel nella al alla"
    " dal dalla da su la le l tra fra vicino quella quello anche come i",
    "pt": "o os as um uma do da dos das e é são com para por que se mais mas não este esta isso no na nos nas ao à pelo"
    " pela de em perto entre fica está seu sua também é a",
    "nl": "de het een en is zijn van met voor door op aan naar bij uit niet maar ook dat die deze dit zich als er"
    " tussen naast dicht staat ligt in dus om hij zij",
    "pl": "i w na z do się jest są to nie że jak oraz który która które po od przez przy ale tylko tak jego jej dla"
    " obok jako też pod nad między",
    "tr": "ve bir bu da de için ile olan en çok gibi daha ama o şu ne kadar sonra yakın üzerinde yanında olarak değil",
    "sv": "och är en ett det som i på av med för till den inte om men vid från också bara eller mellan",
    "ro": "și este sunt un o în la cu de pe care din nu ce mai dar lui al ale pentru sau",
    "id": "yang di dan ini itu dengan untuk pada adalah dari ke tidak ada dalam oleh atau juga karena",
    "vi": "là của và có một các trong cho không với được này đó ở trên những người màu",
}
_LANGUAGES: Final = tuple(_SMALL_WORDS)
_OF_WORD: Final[dict[str, list[str]]] = {}
for _name, _small in _SMALL_WORDS.items():
    for _word in sorted(set(_small.split())):
        _OF_WORD.setdefault(_word, []).append(_name)
_FEWEST_LETTERS = 4  # of another script: a name on a sign has as many in quotation marks, which do not count
_FEWEST_WORDS = 3  # of another language in one clause, or the two of it that are half of a short text


@register_filter
@dataclass(frozen=True)
class Language(Filter):
    """Drops what is not in the phrase's language, in whole or in one clause.

    The phrase's script is read from its letters. Of the languages in Latin letters, English is expected unless the
    phrase has small words of another one; no model is asked.

    Attributes:
        expected: The language of all phrases, such as "de", for data whose phrases are too short to tell it.
    """

    name: ClassVar[str] = "language"
    reason: ClassVar[str] = "it is not in the phrase's language"
    expected: str | None = None

    def __post_init__(self) -> None:
        if self.expected is not None and self.expected not in _LANGUAGES:
            raise RecipeError(f"no language {self.expected!r} can be told: {nearest(self.expected, _LANGUAGES)}")

    def check(self, candidate: Candidate) -> str | None:
        """Compare scripts, then small words; see `Filter.check`."""
        phrase, text = candidate.sample.phrase, _QUOTED.sub(" ", candidate.text)
        scripts = _scripts(phrase)
        script = scripts.most_common(1)[0][0] if scripts else "Latin"
        written = _scripts(text)
        for name, count in written.most_common():
            if name != script and count >= _FEWEST_LETTERS and not (name == "Latin" and count < written[script]):
                return f"{count} letters are {name}, the phrase is {script}"
        if script != "Latin":
            return None
        expected = self.expected or _language(phrase) or "en"
        for clause in (text, *_CLAUSE.findall(text)):
            found = _language(clause, against=expected)
            if found is not None and found != expected:
                return f"a clause is {found!r}, the phrase {expected!r}: {excerpt(clause)!r}"
        return None


def _scripts(text: str) -> Counter[str]:
    if text.isascii():
        return Counter({"Latin": sum(map(len, _LATIN_WORD.findall(text)))} if _LATIN_WORD.search(text) else {})
    counts = {name: len(letters.findall(text)) for name, letters in _LETTERS.items()}
    counts["another script"] = len(_OTHER_LETTER.findall(text))
    return Counter({name: count for name, count in counts.items() if count})


def _language(text: str, against: str = "en") -> str | None:
    """Name the language that most small words are of, where they are clearly more than those of `against`."""
    said = _LATIN_WORD.findall(text.lower())
    told = [word for word in said if word in _OF_WORD]
    if not told:
        return None
    hits = Counter(name for word in told for name in _OF_WORD[word])
    different = Counter(name for word in set(told) for name in _OF_WORD[word])
    best = max(different, key=lambda name: (different[name], name == against))
    if best == against:
        return best
    enough = different[best] >= _FEWEST_WORDS or (different[best] == _FEWEST_WORDS - 1 and 2 * hits[best] >= len(said))
    return best if enough and hits[best] > hits[against] else None
