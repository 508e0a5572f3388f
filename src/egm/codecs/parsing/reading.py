"""Reading a model's text: the rules that every codec shares.

1. *Reasoning* is what stands before the last `</think>`, and from a `<think>` on that never closes. Nothing in it is
   read. Where the template has opened `<think>` already and the text holds no `</think>`, all of it is reasoning:
   `truncated` if the token limit cut it off, else `no_box`; but a text that is one strict JSON answer, and not cut off,
   is no reasoning: the model, or the server, has left that out. An `<answer>…</answer>` wrapper is read through (the
   last, if there are several); other turns, tool calls, thoughts in tags of their own, comments, and lists that are
   struck out or that "not" stands before are not answer.
2. *Strict first*: the family's own form, exactly. Then the lenient repairs of `Repair`: lists after a box key in broken
   JSON, other forms whose numbers mean the same, numbers in plain brackets (`Forms`). The first of these that finds
   anything decides. A form that is none of these is another family's, whose numbers mean something else: it is
   `malformed`, and so is what stands in brackets beside it.
   Where ASCII finds no box, full-width and typographic punctuation is read as ASCII's; digits never are.
   *Never answers*: outside the family's own form, the phrase's own numbers; in plain brackets, what stands in a quote
   among words where something else stands outside, and what follows words that say there is no such thing.
3. *Which one answers*: the first valid box of the answer. The others are listed in `Grounding.boxes`.
4. *What is no box*: not exactly four numbers (a point has two, a 3-D box nine), or one that is not finite, is
   `malformed`. A coordinate beyond the scale is `out_of_range`. Then `x2 <= x1` or `y2 <= y1` is `degenerate`: corners
   are never swapped. If no box is valid, the first one's reason is given.
5. *Range*: on 0-1000, a modal box lies within it, with no tolerance. In pixels it begins inside the image and may pass
   the right and the bottom edge by a quarter of that side: models that speak pixels do so in earnest (in a real log of
   500 answers 13 boxes pass an edge by 28 pixels or more, up to 22 % of the side, and 7 of them are right at IoU 0.5).
   An amodal box may leave the frame by a whole frame on each side. Nothing is clipped.
6. *No guessing*: numbers mean what the codec's convention says. `[0.28, 0.5, 0.52, 0.7]` is not read as shares of the
   image on 0-1000, nor as a speck in its corner: four numbers of which none is above 1 are `out_of_range` on a scale of
   whole units, unless all are whole.
7. *No box is an answer*: null, an empty list, "none", four zeros or four times -1 where a box should be, an empty list
   at the head whatever follows, and words that say there is no such thing, or decline, are `refused`.
8. *Without anything box-like*: a list, object or box left open at the end is `truncated`; else `truncated` if the token
   limit cut the text off, or `no_box`.
9. *Repeated*: a text that was stopped as it repeated itself is read as one that the token limit cut off, so a box that
   is complete counts. Where there is none, `truncated` is called `repeated`.
10. *Ended before its tail* (`stop_string`, see `Codec.tail_stops`): what such an answer leaves open is closed before it
   is read, where that makes strict JSON of it. That is no repair, for the model did not write it so.
11. *None and many*: where not exactly one box is expected, the answers of rule 7 that say that nothing matches are no
   failures; those that decline stay `refused`. Where all boxes are asked for, the valid ones are read, up to the first
   `MAX_BOXES`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from egm.boxes import Box
from egm.codecs.parsing.decoys import answer_of, quoted_words, without_echo
from egm.codecs.parsing.entries import Entry, Repair
from egm.codecs.parsing.forms import Forms
from egm.codecs.parsing.loose import read_brackets, read_corners
from egm.codecs.parsing.refusals import begins_empty, declines_before, denies, refuses
from egm.codecs.parsing.strict import close_tail, is_strict, read_json, says_nothing
from egm.errors import BoxError
from egm.types import STOP_STRING, Expect, Failure, Grounding, LabelledBox, usual_finish_reason

# What stands for ASCII where a model writes Chinese, or a typesetter's text: never digits.
_PUNCTUATION = str.maketrans(
    "，：；（）［］｛｝【】“”„‟＂‘’\u00a0\u2002\u2003\u2005\u2009\u202f\u3000\ufeff", ',:;()[]{}[]"""""\'\'        '
)
_PUNCTUATED = re.compile(f"[{''.join(map(chr, _PUNCTUATION))}]")
MAX_BOXES: Final = 1000
"""Most boxes of an answer, where all are asked for."""
_NOWHERE = ((0.0,) * 4, (-1.0,) * 4)
"""What models write that must give four numbers and find nothing."""
_NUMERAL = re.compile(r"-?[0-9]++(?:\.[0-9]++)?+")
_FIRST_LIST = re.compile(r"[\[(]\s{0,8}+[-+.0-9]")


@dataclass(frozen=True, slots=True)
class Scale:
    """How coordinates are meant.

    Attributes:
        span: The numbers at the right and the bottom edge of the image.
        margin: How far a modal box may pass those edges, as a share of the span.
        y_first: Whether `y1, x1, y2, x2` is the order.
        bins: Whether numbers count bins, of which the last is one short of the span.
        middle: Whether a bin stands for its middle, and not for its edge at the left or the top.
        digits: Decimals that a target is written with.
    """

    span: tuple[int, int] = (1000, 1000)
    margin: float = 0.0
    y_first: bool = False
    bins: bool = False
    middle: bool = False
    digits: int = 0

    def ordered(self, numbers: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """Put `x1, y1, x2, y2` into the order in which they are written, or back."""
        a, b, c, d = numbers
        return (b, a, d, c) if self.y_first else numbers

    def to_pixels(self, numbers: Sequence[float] | None, size: tuple[int, int], *, amodal: bool) -> Box | Failure:
        """Turn four numbers into a box in pixels of an image of `size`, or say why they are none."""
        if numbers is None or len(numbers) != 4:
            return Failure.MALFORMED
        low, high = (-1.0, 2.0) if amodal else (0.0, 1.0 + self.margin)
        x1, y1, x2, y2 = self.ordered((numbers[0], numbers[1], numbers[2], numbers[3]))
        across, down = self.span
        if self.digits == 0 and min(self.span) > 1 and max(numbers) <= 1 and _is_share(numbers):
            return Failure.OUT_OF_RANGE
        if self.bins and (max(x1, x2) > across - 1 or max(y1, y2) > down - 1):
            return Failure.OUT_OF_RANGE
        if not (low * across <= min(x1, x2) and max(x1, x2) <= high * across):
            return Failure.OUT_OF_RANGE
        if not (low * down <= min(y1, y2) and max(y1, y2) <= high * down):
            return Failure.OUT_OF_RANGE
        if not (x2 > x1 and y2 > y1):
            return Failure.DEGENERATE
        if self.middle:
            x1, y1, x2, y2 = x1 + 0.5, y1 + 0.5, x2 + 0.5, y2 + 0.5
        width, height = size
        try:
            return Box(x1 * width / across, y1 * height / down, x2 * width / across, y2 * height / down)
        except (BoxError, OverflowError):  # sides so short that they round to nothing; sizes beyond any picture
            return Failure.DEGENERATE


def split_reasoning(text: str, *, thinking_prefilled: bool) -> tuple[str, str | None]:
    """Split a text into reasoning and answer; the answer is None where the reasoning never ends.

    Args:
        text: Everything generated.
        thinking_prefilled: Whether the chat template has opened `<think>` already.
    """
    if is_strict(text):  # one answer and nothing else: what closes reasoning in it is part of a label
        return "", text
    closed, first = text.rfind("</think>"), text.find("</think>")
    if first < closed and is_strict(text[first + len("</think>") :]):
        closed = first
    if closed < 0 and thinking_prefilled:
        return _thought(text), None
    thought, answer = (text[:closed], text[closed + len("</think>") :]) if closed >= 0 else ("", text)
    if is_strict(answer):  # then a control word in it is part of a label
        return _thought(thought), answer
    answer, reopened, unclosed = answer.partition("<think>")
    if reopened and not answer.strip():
        return _thought(text), None
    return _thought(thought + unclosed), answer


def read(
    text: str,
    *,
    scale: Scale,
    forms: Forms,
    thinking_prefilled: bool = False,
    size: tuple[int, int],
    finish_reason: str,
    amodal: bool,
    phrase: str,
    expect: Expect = "one",
) -> Grounding:
    """Read a text by the rules of this module.

    Args:
        text: Everything generated.
        scale: What the numbers mean.
        forms: What the family writes, and what else it is read in.
        thinking_prefilled: Whether the chat template has opened `<think>` already.
        size: Width and height of the upright original image in pixels.
        finish_reason: "length" if the token limit cut the text off, "repeated" if it was stopped as it repeated itself,
            "stop_string" if it was ended before its tail.
        amodal: Whether the box may leave the frame.
        phrase: What was asked, to be carried along.
        expect: How many boxes were asked for.
    """
    cut_off = usual_finish_reason(finish_reason) in ("length", "repeated")
    tail_cut = finish_reason == STOP_STRING
    reasoning, answer = split_reasoning(text.removeprefix("\ufeff"), thinking_prefilled=thinking_prefilled)
    if cut_off and thinking_prefilled and not reasoning and "</think>" not in text:
        answer = None  # what was cut off while thinking was allowed is thinking, however it looks
        reasoning = _thought(text)
    box: Box | None = None
    failure: Failure | None = None
    boxes: list[LabelledBox] = []
    repairs: set[Repair] = set()
    if answer is None:
        failure = Failure.TRUNCATED if cut_off else Failure.NO_BOX
    else:
        answer = (close_tail(answer) if tail_cut else None) or answer
        answer = answer if is_strict(answer) else answer_of(answer)
        found = place_entries(answer, forms, scale, size=size, amodal=amodal, phrase=phrase)
        for entry, placed in found:
            if isinstance(placed, Box):
                if len(boxes) == MAX_BOXES and expect == "all":
                    repairs.add(Repair.TOO_MANY)
                    break
                boxes.append(LabelledBox(placed, entry.label))
                repairs |= entry.repairs
            else:
                failure = failure or placed
        box, failure = (boxes[0].box, None) if boxes else (None, failure or _why_none(answer, forms, cut_off=cut_off))
        if failure is Failure.REFUSED and expect != "one":
            in_words = not found and not begins_empty(answer) and not says_nothing(answer)
            if all(_is_absent(entry) for entry, _ in found) and (not in_words or denies(answer)):
                failure, repairs = None, {Repair.IN_WORDS} if in_words else set()
    if failure is Failure.TRUNCATED and finish_reason == "repeated":
        failure = Failure.REPEATED
    return Grounding(
        box=box,
        failure=failure,
        reasoning=reasoning,
        text=text,
        boxes=tuple(boxes),
        repairs=tuple(str(repair) for repair in Repair if repair in repairs),
        phrase=phrase,
        size=size,
        tail_cut=tail_cut,
        expect=expect,
    )


def place_entries(
    answer: str, forms: Forms, scale: Scale, *, size: tuple[int, int], amodal: bool = False, phrase: str = ""
) -> list[tuple[Entry, Box | Failure]]:
    """Read all boxes of an answer in order, and say of each that is none why; "no such thing" is `refused`.

    Args:
        answer: What a model answered, reasoning and wrappers taken off.
        forms: What the family writes, and what else it is read in.
        scale: What the numbers mean.
        size: Width and height of the upright original image in pixels.
        amodal: Whether boxes may leave the frame.
        phrase: What was asked, whose own numbers are no answer.
    """
    return [
        (
            entry,
            Failure.REFUSED if _is_absent(entry) else scale.to_pixels(entry.numbers, size, amodal=amodal),
        )
        for entry in find_entries(answer, forms, phrase=phrase)
    ]


def box_places(text: str, boxes: Sequence[Box], scale: Scale, size: tuple[int, int]) -> list[tuple[int, int]] | None:
    """Say from where to where in a text the numbers of each box stand; see `Codec.box_places`.

    Only four numbers in a row that mean this very box are its place, so that no label's or list's are taken for it.
    """
    numbers = list(_NUMERAL.finditer(text, text.rfind("</think>") + 1))
    places: list[tuple[int, int]] = []
    at = 0
    for box in boxes:
        while at + 4 <= len(numbers):
            four = numbers[at : at + 4]
            if scale.to_pixels([float(number.group()) for number in four], size, amodal=True) == box:
                break
            at += 1
        else:
            return None
        places.append((four[0].start(), four[-1].end()))
        at += 4
    return places


def find_entries(answer: str, forms: Forms, *, phrase: str = "") -> list[Entry]:
    """Find what stands where boxes should, in order: the family's own form first, then the repairs in their order.

    Args:
        answer: What a model answered, reasoning and wrappers taken off.
        forms: What the family writes, and what else it is read in.
        phrase: What was asked, whose own numbers are no answer.
    """
    entries, is_own = _find(answer, forms, phrase)
    if is_own or not _PUNCTUATED.search(answer):
        return entries
    other, is_own = _find(answer.translate(_PUNCTUATION), forms, phrase)
    if is_own or (_any_numbers(other) and not _any_numbers(entries)):
        return [entry.repaired(Repair.PUNCTUATION) for entry in other]
    return entries


def _find(answer: str, forms: Forms, phrase: str) -> tuple[list[Entry], bool]:
    """Find entries, and tell whether they have a key or tags and four numbers, so that no other reading is better."""
    keyed_form = forms.keyed
    is_keyed = forms.own is keyed_form
    if not is_keyed and (entries := forms.own.find(answer)):
        return entries, _any_numbers(entries)
    keys, corners = (keyed_form.keys, keyed_form.corners) if keyed_form else ((), ())
    strict = read_json(answer, keys, corners)
    if strict is not None:
        # A list without a key is what tags leave when a decoder strips them.
        strict = [_without_key(entry, lists=forms.lists) for entry in strict]
        return strict if is_keyed else [_foreign(entry) for entry in strict], True
    if begins_empty(answer):
        return [], True
    echo = {entry.numbers for entries in read_brackets(phrase) for entry in entries if entry.numbers}
    # Without a box key in the text no bracket can have one: then tags come before brackets, which are read only once.
    has_key = any(key in answer for key in keys)
    keyed, bare = read_brackets(answer, keys=keys) if has_key else ([], None)
    keyed = keyed or (read_corners(answer, corners) if corners else [])
    if keyed := without_echo(keyed, echo):
        return keyed, _any_numbers(keyed)
    for form in forms.others:
        if form is not keyed_form and (entries := form.find(answer)):
            return [entry.repaired(Repair.OTHER_FORM) for entry in entries], _any_numbers(entries)
    if forms.holds_foreign(answer):
        return [Entry(None)], False
    first = _FIRST_LIST.search(answer)
    if first is not None and declines_before(answer, first.start(), phrase):
        return [], False
    bare = without_echo(read_brackets(answer, keys=keys)[1] if bare is None else bare, echo)
    if words := quoted_words(answer):
        outside = without_echo(read_brackets(answer, words=words, keys=keys)[1], echo)
        bare = outside if _any_numbers(outside) else bare
    return [_without_key(entry, lists=forms.lists) for entry in bare], False


def _without_key(entry: Entry, *, lists: bool) -> Entry:
    """What numbers in plain brackets are to a family that never writes them so: no box, whatever they say."""
    return entry if lists or Repair.BARE_LIST not in entry.repairs else Entry(None)


def _foreign(entry: Entry) -> Entry:
    return entry if Repair.BARE_LIST in entry.repairs else entry.repaired(Repair.OTHER_FORM)


def _is_share(numbers: Sequence[float]) -> bool:
    return any(number != int(number) for number in numbers)


def _is_absent(entry: Entry) -> bool:
    return entry.absent or entry.numbers in _NOWHERE


def _any_numbers(entries: Sequence[Entry]) -> bool:
    return any(len(entry.numbers or ()) == 4 for entry in entries)


def _thought(text: str) -> str:
    return text.strip().removeprefix("<think>").strip()


def _why_none(answer: str, forms: Forms, *, cut_off: bool) -> Failure:
    if begins_empty(answer) or says_nothing(answer):
        return Failure.REFUSED
    if forms.ends_inside_box(answer):
        return Failure.TRUNCATED
    if refuses(answer):
        return Failure.REFUSED
    return Failure.TRUNCATED if cut_off else Failure.NO_BOX
