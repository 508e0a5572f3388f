"""How families write a box: keys of JSON, tags, location tokens. Each form is data, and reads and writes itself.

Every pattern here is possessive or bounded, and every stretch of text is looked at a fixed number of times.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from egm.codecs.parsing.entries import Entry, Repair, read_numbers
from egm.codecs.parsing.loose import read_brackets, read_corners
from egm.codecs.parsing.strict import BOX_KEYS, coordinates, load_list, names_none, read_json

_USUAL_IN_TAGS = frozenset([Repair.BARE_LIST, Repair.NESTED_LIST])  # tags name what is in them, so no repair is noted
_MARK = re.compile(
    r"<box>|<\|box_start\|>|<\|det\|>|<\|begin_of_box\|>|<bbox>|<loc[0-9]|<loc_[0-9]|<patch_index_[0-9]|<points?\s"
)
COORDINATE = re.compile(r"<([0-9]{1,6})>")
_ROW = re.compile(r"(?:<[0-9]{1,6}>){2,}+")
_HALF_PAIR = re.compile(r"[\s+-]*+[0-9][\s0-9.,+-]*+\Z")
PATCH = re.compile(r"<patch_index_([0-9]{1,6})>")
_PATCHES = 32  # a side of Kosmos-2's grid
Numbers = tuple[float, float, float, float]


class Form(ABC):
    """How a box is written.

    Attributes:
        marks: What begins its boxes: a family to whom it is strange reads nothing in such an answer.
        bounded: Whether it writes tokens, of which there are none for what lies beyond the frame.
    """

    __slots__ = ()

    marks: tuple[str, ...]

    @property
    def bounded(self) -> bool:
        """See the class."""
        return False

    @abstractmethod
    def opening(self, label: str) -> str:
        """Write how an answer begins, up to the first coordinate."""

    @abstractmethod
    def write(self, label: str, numbers: Numbers) -> str:
        """Write a whole answer; it begins with `opening`."""

    def write_all(self, label: str, boxes: Sequence[Numbers]) -> str | None:  # noqa: ARG002
        """Write a whole answer of any number of boxes; None where the form has none of so many, as here."""
        return None

    @abstractmethod
    def find(self, answer: str) -> list[Entry]:
        """Find what stands in an answer where boxes of this form should, in order."""

    def is_cut(self, answer: str) -> bool:  # noqa: ARG002
        """Tell whether an answer ends inside a box of this form."""
        return False


@dataclass(frozen=True, slots=True)
class Keyed(Form):
    r"""JSON: a list of numbers after a key, or an object of four keys.

    Attributes:
        keys: What a box is called, the family's own word first; the others count as a repair.
        corners: In place of a list, the keys of an object that is the box, in the order of its numbers.
        head: How an answer begins, up to the first object.
        tail: How it ends.
        labelled: Whether a label follows.
        between: What parts several objects; None where an answer holds one, and no list.

    Example:
        >>> Keyed(("box_2d",)).find('[{"box_2d": [1, 2, 3, 4], "label": "cup"}]')[0].numbers
        (1.0, 2.0, 3.0, 4.0)
    """

    keys: tuple[str, ...] = BOX_KEYS
    corners: tuple[str, ...] = ()
    head: str = "```json\n[\n\t"
    tail: str = "\n]\n```"
    labelled: bool = True
    between: str | None = None
    marks: tuple[str, ...] = ()

    def opening(self, label: str) -> str:  # noqa: ARG002 - the label comes after the box
        """Write how an answer begins; see `Form.opening`."""
        return self.head + (f'{{"{self.corners[0]}": ' if self.corners else f'{{"{self.keys[0]}": [')

    def write(self, label: str, numbers: Numbers) -> str:
        """Write a whole answer; see `Form.write`. The label is escaped, so that any gives valid JSON."""
        return f"{self.head}{self._object(label, numbers)}{self.tail}"

    def write_all(self, label: str, boxes: Sequence[Numbers]) -> str | None:
        """Write a list of objects, an empty one too; see `Form.write_all`."""
        if self.between is None:
            return None
        if not boxes:
            return self.head.rstrip() + self.tail.lstrip()
        return f"{self.head}{self.between.join(self._object(label, numbers) for numbers in boxes)}{self.tail}"

    def _object(self, label: str, numbers: Numbers) -> str:
        if self.corners:
            box = json.dumps(dict(zip(self.corners, numbers, strict=True)))[1:-1]
        else:
            box = f'"{self.keys[0]}": {list(numbers)}'
        named = f', "label": {json.dumps(label, ensure_ascii=False)}' if self.labelled else ""
        return f"{{{box}{named}}}"

    def find(self, answer: str) -> list[Entry]:
        """Find boxes in strict JSON, or after the key in what is none; see `Form.find`."""
        if (strict := read_json(answer, self.keys, self.corners)) is not None:
            return strict
        return read_corners(answer, self.corners) if self.corners else read_brackets(answer, keys=self.keys)[0]


@dataclass(frozen=True, slots=True)
class Tagged(Form):
    """Numbers between tags, with the label in tags before them.

    Attributes:
        box: Tags around the numbers.
        label: Tags around the label; None where an answer has none.
        numbers: How four numbers are written in there.
        tokens: The location token that each number is, or each corner, if they are tokens.
        between: What parts several boxes of tokens.
        holds_json: Whether JSON may stand between the tags too.
        several: How several boxes are written: in one pair of tags, or each in its own; None if none are known to be.
    """

    box: tuple[str, str]
    label: tuple[str, str] | None = None
    numbers: str = "[[{}, {}, {}, {}]]"
    tokens: re.Pattern[str] | None = None
    between: str = ","
    holds_json: bool = False
    several: Literal["together", "each"] | None = None
    marks: tuple[str, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        """The opening tag marks the form."""
        object.__setattr__(self, "marks", (self.box[0],))

    def opening(self, label: str) -> str:
        """Write how an answer begins; see `Form.opening`."""
        named = "" if self.label is None else f"{self.label[0]}{label}{self.label[1]}"
        return f"{named}{self.box[0]}{self.numbers.partition('{')[0]}"

    def write(self, label: str, numbers: Numbers) -> str:
        """Write a whole answer; see `Form.write`."""
        return f"{self._before(label)}{self._written(numbers)}{self.box[1]}"

    def write_all(self, label: str, boxes: Sequence[Numbers]) -> str | None:
        """Write several boxes under one label; see `Form.write_all`."""
        if self.several is None or not boxes:
            return None
        written = [self._written(numbers) for numbers in boxes]
        if self.several == "each":
            inside = (self.box[1] + self.box[0]).join(written)
        elif self.tokens is not None:
            inside = self.between.join(written)
        else:  # lists, and one list around them
            inside = f"[{', '.join(each[1:-1] for each in written)}]"
        return f"{self._before(label)}{inside}{self.box[1]}"

    def _before(self, label: str) -> str:
        return self.opening(label).removesuffix(self.numbers.partition("{")[0])

    def _written(self, numbers: Numbers) -> str:
        return self.numbers.format(*(numbers if self.tokens is not PATCH else _patches(numbers)))

    def find(self, answer: str) -> list[Entry]:
        """Find what stands between the tags; see `Form.find`."""
        if self.box[0] in answer:
            return list(self._find(answer))
        return _stripped(answer) if self.tokens is COORDINATE and not _MARK.search(answer) else []

    def is_cut(self, answer: str) -> bool:
        """Tell whether the last box is open; see `Form.is_cut`."""
        return answer.count(self.box[0]) > answer.count(self.box[1])

    @property
    def bounded(self) -> bool:
        """True of tokens; see `Form`."""
        return self.tokens is not None

    def _find(self, answer: str) -> Iterator[Entry]:
        opener, closer = self.box
        ref_opener, ref_closer = self.label or ("", "")
        position, last = 0, answer.rfind(opener)
        label: str | None = None
        ref_end = -1  # where the first label that ends after `position` does; looked for once, not once a box
        while (opened := answer.find(opener, position)) >= 0:
            # A box's tag inside a label is a word of it.
            named = answer.find(ref_opener, position, opened) if ref_opener else -1
            if 0 <= ref_end < named or (ref_end < 0 <= named):
                closed_ref = answer.find(ref_closer, named)
                ref_end = closed_ref if closed_ref >= 0 else len(answer)
            if 0 <= named < opened < ref_end <= last:
                opened = answer.find(opener, ref_end)
            before = answer[position:opened].rstrip()
            named = before.rfind(ref_opener) if ref_opener else -1
            if named >= 0 and before.endswith(ref_closer):
                label = before[named + len(ref_opener) : -len(ref_closer)].strip()
            elif before or not position:  # boxes in a row have one label
                label = None
            closed = answer.find(closer, opened)
            content = answer[opened + len(opener) : closed if closed >= 0 else len(answer)]
            # A box that is opened anew before it closes was broken off: the last one counts.
            content = content[content.rfind(opener) + len(opener) :] if opener in content else content
            for entry in self._content(content, closed=closed >= 0):
                yield Entry(entry.numbers, entry.label or label, entry.repairs - self._usual, entry.absent)
            if closed < 0:
                return
            position = closed + len(closer)

    @property
    def _usual(self) -> frozenset[Repair]:
        """What is no repair, as the form itself is so."""
        own = [Repair.CORNER_PAIRS] if "),(" in self.numbers else [Repair.SPACES] if "} {" in self.numbers else []
        return _USUAL_IN_TAGS.union(own)

    def _content(self, content: str, *, closed: bool) -> list[Entry]:
        if closed and names_none(content):
            return [Entry(None, absent=True)]
        if self.holds_json and "{" in content and (strict := read_json(content)) is not None:
            return strict
        if self.tokens is not None:
            return _runs(content, self.tokens, self.between, closed=closed)
        bare = content.strip()
        if self.holds_json and bare[:1] == "<" and bare[-1:] == ">":  # GLM's brackets vary
            return [read_numbers(bare[1:-1])]
        if value := load_list(content) if "[" in content else None:
            return coordinates(value)
        _, lists = read_brackets(content)
        return lists if lists or not closed else [read_numbers(content)]


@dataclass(frozen=True, slots=True)
class Tokens(Form):
    """Four location tokens in a row, with the label as plain text before or behind them.

    Attributes:
        token: How a number is written, such as `<loc_{}>`.
        label_first: Whether the label comes first.
        between: What parts several boxes: each has the label behind it, or one label stands before them all.
        digits: To how many digits a number is filled up with zeros.

    Example:
        >>> Tokens("<loc_{}>", label_first=True).find("car<loc_52><loc_334><loc_932><loc_774>")[0].label
        'car'
    """

    token: str
    label_first: bool
    between: str = ""
    digits: int = 1
    marks: tuple[str, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        """The token marks the form."""
        object.__setattr__(self, "marks", (self.token.partition("{")[0],))

    @property
    def bounded(self) -> bool:
        """True; see `Form`."""
        return True

    def opening(self, label: str) -> str:
        """Write how an answer begins; see `Form.opening`."""
        return (label if self.label_first else "") + self.marks[0]

    def write(self, label: str, numbers: Numbers) -> str:
        """Write a whole answer; see `Form.write`."""
        return f"{label}{self._written(numbers)}" if self.label_first else f"{self._written(numbers)} {label}"

    def write_all(self, label: str, boxes: Sequence[Numbers]) -> str | None:
        """Write several boxes; see `Form.write_all`."""
        if self.label_first:
            return label + self.between.join(map(self._written, boxes)) if boxes else None
        return self.between.join(self.write(label, numbers) for numbers in boxes) or None

    def _written(self, numbers: Numbers) -> str:
        return "".join(self.token.format(str(number).zfill(self.digits)) for number in numbers)

    def find(self, answer: str) -> list[Entry]:
        """Find runs of tokens, of which each four are a box; see `Form.find`."""
        start, end = self.token.split("{}")
        runs = list(re.finditer(rf"(?:{re.escape(start)}[0-9]{{1,6}}{re.escape(end)})++", answer))
        found: list[Entry] = []
        for number, run in enumerate(runs):
            numbers = [float(value) for value in re.findall(r"[0-9]++", run.group())]
            if self.label_first:
                label = answer[runs[number - 1].end() if number else 0 : run.start()].strip()
            else:
                following = number + 1 < len(runs)
                label = answer[run.end() : runs[number + 1].start() if following else len(answer)].strip()
                label = label.removesuffix(";").rstrip() if following or label == ";" else label
            if len(numbers) % 4:
                if run.end() < len(answer.rstrip()) or len(numbers) > 4:
                    found.append(Entry(tuple(numbers)))
                continue
            found += [Entry(tuple(numbers[i : i + 4]), label or None) for i in range(0, len(numbers), 4)]
        return found

    def is_cut(self, answer: str) -> bool:
        """Tell whether the last run is not whole, or its last token; see `Form.is_cut`."""
        return re.search(rf"{re.escape(self.marks[0])}[0-9]{{0,6}}>?+\Z", answer.rstrip()) is not None


JSON_LIST = Keyed(between=",\n\t")
"""A list of objects with `bbox_2d`, in a fence."""
BOX_TAGS = Tagged(("<box>", "</box>"), ("<ref>", "</ref>"), several="together")
"""`<ref>cup</ref><box>[[1, 2, 3, 4]]</box>`."""
BOX_START_TAGS = Tagged(
    ("<|box_start|>", "<|box_end|>"), ("<|object_ref_start|>", "<|object_ref_end|>"), "({},{}),({},{})"
)
"""`<|object_ref_start|>cup<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>`."""


@dataclass(frozen=True, slots=True)
class Forms:
    """What a family reads.

    Attributes:
        own: Its own form.
        others: Forms of other families whose numbers mean the same; reading them is a repair.
        lists: Whether numbers in plain brackets are read too.
    """

    own: Form
    others: tuple[Form, ...] = ()
    lists: bool = True

    @property
    def keyed(self) -> Keyed | None:
        """The form of JSON that is read, if one is."""
        return next((form for form in (self.own, *self.others) if isinstance(form, Keyed)), None)

    def holds_foreign(self, answer: str) -> bool:
        """Tell whether an answer holds the mark of a form that is not read."""
        known = tuple(mark for form in (self.own, *self.others) for mark in form.marks)
        return any(not match.group().startswith(known) if known else True for match in _MARK.finditer(answer))

    def ends_inside_box(self, answer: str) -> bool:
        """Tell whether an answer opens a list, an object or a box that it never closes."""
        if any(answer.count(opener) > answer.count(closer) for opener, closer in ("[]", "{}")):
            return True
        if any(form.is_cut(answer) for form in (self.own, *self.others)):
            return True
        opened = answer.rfind("(")
        return opened >= 0 and _HALF_PAIR.match(answer, opened + 1) is not None


def _runs(content: str, token: re.Pattern[str], between: str, *, closed: bool) -> list[Entry]:
    """Read tokens between tags: each part is one box."""
    found = []
    parts = content.split(between)
    for number, part in enumerate(parts):
        numbers = [float(value) for value in token.findall(part)]
        words = token.sub("", part).strip()
        if token is PATCH and len(numbers) == 2:
            numbers = _corners(int(numbers[0]), int(numbers[1]))
        if not closed and number == len(parts) - 1 and len(numbers) != 4:
            break
        found.append(Entry(None if words else tuple(numbers) or None))
    return found


def _stripped(answer: str) -> list[Entry]:
    """Read tokens whose tags a decoder has stripped: a row of them is a box, the words before it are its label."""
    found: list[Entry] = []
    end, label = 0, None
    for row in _ROW.finditer(answer):
        words = answer[end : row.start()].strip(" ,\n")
        end, label = row.end(), words or label
        numbers = tuple(float(number) for number in COORDINATE.findall(row.group()))
        found.append(Entry(numbers, label, frozenset([Repair.BARE_LIST])))
    return found


def _corners(first: int, last: int) -> list[float]:
    """Turn two patches into a box in patches: their middles, or their outer edges where they share a row or column."""
    (y1, x1), (y2, x2) = divmod(first, _PATCHES), divmod(last, _PATCHES)
    inset = 0.0 if x1 == x2 or y1 == y2 else 0.5
    return [x1 + inset, y1 + inset, x2 + 1 - inset, y2 + 1 - inset]


def _patches(numbers: Numbers) -> tuple[str, str]:
    """Name the patches of a box's corners; the inverse of `_corners`, up to half a patch."""
    x1, y1, x2, y2 = (int(number) for number in numbers)
    return f"{y1 * _PATCHES + x1:04d}", f"{(y2 - 1) * _PATCHES + x2 - 1:04d}"
