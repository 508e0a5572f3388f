"""What a codec is: one model family's convention for being asked, for being taught, and for being read."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from egm.boxes import Box
from egm.codecs import targets
from egm.codecs.parsing import reading
from egm.codecs.parsing.forms import Form, Forms, Keyed, Tagged
from egm.codecs.parsing.reading import Scale
from egm.codecs.parsing.strict import close_tail, read_json
from egm.codecs.prompts import neutralise, user_turn
from egm.errors import BoxError, EgmError, nearest
from egm.types import EXPECTS, STOP_STRING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from egm.types import Expect, Grounding, Message


_LONGEST = 10**9  # pixels of a side
_TWO: Final = ((0, 0, 1, 1), (0, 0, 1, 1))


class Codec:
    """One model family's convention; a family is a subclass that `register_codec` knows.

    Coordinates leave and enter a codec as pixels of the upright original image; the scale a model speaks stays inside.
    A subclass is data: how an answer is written (`form`), what its numbers mean (`units`), how it is asked for
    (`prompts`); asking, training targets and reading follow from these. What is no data overrides `scale`, `opening`
    and `answer`.

    Attributes:
        name: The name that `get_codec` knows.
        model_types: What `config.json` calls the family's checkpoints (`model_type`), if they are known by it.
        prompts: Known prompt styles; the first is the default.
        thinking_prefilled: Whether the chat template opens `<think>` itself, so that a text begins with reasoning.
        form: How an answer is written.
        other_forms: Forms of other families that are read too, as a repair, since their numbers mean the same.
        plain_lists: Whether numbers in plain brackets are read too. They say neither scale nor order, so this is for
            families whose checkpoints are known to write them.
        units: What coordinates mean, where that does not depend on the picture.
        none: What the family writes where there is no such thing; None where it has no word of its own for that.
        proven: Whether real answers of its checkpoints, from public sources, stand in the tests.
        speaks_pixels: Whether coordinates are pixels of the image as the model saw it, not a relative scale.
        tail_stops: Stop strings that stand right behind the box of an answer, where one box is asked for: what comes
            from there on (the label, closing brackets) changes no box. None where the box ends the answer.
    """

    __slots__ = ()

    name: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]] = ()
    prompts: ClassVar[tuple[str, ...]] = ("qwen3", "grounding")
    thinking_prefilled: ClassVar[bool] = False
    form: ClassVar[Form] = Keyed()
    other_forms: ClassVar[tuple[Form, ...]] = ()
    plain_lists: ClassVar[bool] = True
    units: ClassVar[Scale] = Scale()
    none: ClassVar[str | None] = None
    proven: ClassVar[bool] = False
    speaks_pixels: ClassVar[bool] = False
    tail_stops: ClassVar[tuple[str, ...]] = ()

    def opening(self, phrase: str) -> str:
        """Write how an answer begins, up to the first coordinate."""
        return self.form.opening(neutralise(phrase).strip())

    def answer(self, phrase: str, numbers: tuple[float, float, float, float]) -> str:
        """Write a whole answer; it begins with `opening`.

        Args:
            phrase: What was asked.
            numbers: On the family's scale, and in its order.
        """
        return self.form.write(neutralise(phrase).strip(), numbers)

    def answers(self, phrase: str, boxes: Sequence[tuple[float, float, float, float]]) -> str:
        """Write a whole answer of any number of boxes, none included; of one it is `answer`.

        Args:
            phrase: What was asked.
            boxes: Of each box the numbers on the family's scale.

        Raises:
            EgmError: If its form has none of so many.
        """
        if len(boxes) == 1:
            return self.answer(phrase, boxes[0])
        if boxes or self.none is not None:
            written = self.form.write_all(neutralise(phrase).strip(), boxes)
            if written is not None or not boxes:
                return written or str(self.none)
        what = "several boxes" if boxes else "'nothing matches'"
        raise EgmError(f"codec {self.name!r} has no answer for {what}: ask for one box (expect='one')")

    def check_expect(self, expect: Expect) -> None:
        """Refuse to ask for what the family cannot answer.

        Raises:
            EgmError: If there is no such `expect`; it is "any" and the family has no answer for "nothing matches"; or
                it is "all" and the family has none with several boxes.
        """
        if expect not in EXPECTS:
            raise EgmError(f"unknown expect {expect!r}: {nearest(str(expect), EXPECTS)}")
        if expect == "any" and not self.none:
            instead = ", or for all (expect='all'), where its words are read" if self._writes_several() else ""
            raise EgmError(f"codec {self.name!r} has no answer for 'nothing matches': ask for one box{instead}")
        if expect == "all":
            self.answers("anything", _TWO)

    def _writes_several(self) -> bool:
        try:
            return bool(self.answers("anything", _TWO))
        except EgmError:
            return False

    def scale(self, size: tuple[int, int], seen_size: tuple[int, int] | None) -> Scale:  # noqa: ARG002
        """Say what coordinates mean: `units`, unless a family says otherwise.

        Args:
            size: Width and height of the upright original image in pixels.
            seen_size: Width and height of the image as the model saw it, where known.
        """
        return self.units

    def messages(
        self, phrase: str, *, amodal: bool = False, prompt: str | None = None, expect: Expect = "one"
    ) -> list[Message]:
        """Ask for the box of a phrase, or for all boxes that it fits.

        Args:
            phrase: What to find. Control tokens in it become words, see `neutralise`.
            amodal: Ask for the box of the whole object, its hidden part too.
            prompt: One of `prompts`; None takes the first.
            expect: How many boxes are asked for.

        Returns:
            One user turn, `[{"type": "image"}, {"type": "text", "text": ...}]`.

        Raises:
            EgmError: If the family has no such prompt style, or as `check_expect` raises.

        Example:
            >>> from egm.codecs import get_codec
            >>> get_codec("qwen3_vl").messages("the left cup")[0]["content"][1]["text"]
            'Locate the left cup, output its bbox coordinates using JSON format.'
        """
        style = self.prompts[0] if prompt is None else prompt
        if style not in self.prompts:
            raise EgmError(f"unknown prompt style {style!r}: {nearest(style, self.prompts)}")
        if expect != "one":
            self.check_expect(expect)
        tags = self.form.label if isinstance(self.form, Tagged) else None
        return user_turn(phrase, style=style, amodal=amodal, tags=tags, expect=expect, none=self.none)

    def target(
        self,
        phrase: str,
        box: Box | Sequence[Box],
        *,
        size: tuple[int, int],
        rationale: str | None = None,
        seen_size: tuple[int, int] | None = None,
    ) -> str:
        """Write the training target: all that follows the generation prompt, without the end-of-turn token.

        Coordinates round half up. A side that rounds to nothing is written one unit wide, so that `parse` accepts every
        target of a modal box.

        Args:
            phrase: What was asked.
            box: The true box in pixels; or all of them, none where nothing matches. One that leaves the frame leaves
                the scale, which only amodal reading accepts.
            size: Width and height of the image in pixels.
            rationale: Reasoning to put before the answer, if any. A `</think>` inside it becomes a word.
            seen_size: Width and height of the image as the model will see it; only codecs that speak pixels use it.

        Raises:
            BoxError: If the family writes location tokens, and a box leaves the frame, beyond which there are none.
            EgmError: If the family has no answer with so many boxes (`answers`).

        Example:
            >>> from egm.codecs import get_codec
            >>> codec = get_codec("internvl")
            >>> codec.target("the left cup", Box(64, 96, 192, 192), size=(640, 480))
            '<ref>the left cup</ref><box>[[100, 200, 300, 400]]</box>'
        """
        scale = self.scale(size, seen_size)
        boxes = [box] if isinstance(box, Box) else box
        for each in boxes if self.form.bounded else ():
            if not (each.x1 >= 0 and each.y1 >= 0 and each.x2 <= size[0] and each.y2 <= size[1]):
                raise BoxError(
                    f"{tuple(each)} leaves the frame, where codec {self.name!r} has no tokens: take another codec"
                )
        numbers = [scale.ordered(targets.whole_numbers(each, size, scale)) for each in boxes]
        answer = self.answers(phrase, numbers)
        return targets.with_reasoning(answer, rationale, thinking_prefilled=self.thinking_prefilled)

    def frame(self, phrase: str, *, size: tuple[int, int]) -> str:
        """Write an answer around a box that is no one's: what stands about the numbers is what an answer repeats.

        Args:
            phrase: What was asked.
            size: Width and height of the image in pixels.
        """
        return self.target(phrase, Box(size[0] / 4, size[1] / 4, size[0] / 2, size[1] / 2), size=size, seen_size=size)

    def turn(
        self, phrase: str, box: Box | Sequence[Box], *, size: tuple[int, int], rationale: str | None = None
    ) -> str:
        """Write the assistant's whole turn, as other tools' files of conversations hold it.

        It is the training target, and before it what the generation prompt opens. Arguments as of `target`.
        """
        opening = targets.THINK_OPENING if self.thinking_prefilled else ""
        return opening + self.target(phrase, box, size=size, rationale=rationale)

    def answer_prefill(self, text: str, phrase: str, *, expect: Expect = "one") -> str:
        """Write the assistant prefill that ends reasoning which has lasted long enough (a thinking budget).

        Args:
            text: Everything generated so far.
            phrase: What was asked.
            expect: How many boxes were asked for.

        Returns:
            What closes the reasoning and begins the answer, as `target` writes it, up to the first coordinate, where
            one box is expected; nothing if the text holds no reasoning that is still open.
        """
        opening = self.opening(phrase) if expect == "one" else ""  # else it would rule out that nothing matches
        return targets.close_reasoning(text, opening, thinking_prefilled=self.thinking_prefilled)

    def direct_prefill(self, phrase: str, *, expect: Expect = "one") -> str:
        """Write the assistant prefill of an answer without reasoning: what the chat template opens of it is closed.

        Args:
            phrase: What is asked.
            expect: How many boxes are asked for.

        Returns:
            How `target` begins without a rationale; where one box is expected, up to the first coordinate.

        Raises:
            EgmError: If that is nothing, which would leave the model free to think: the template opens no reasoning,
                and more than one answer is possible.
        """
        opening = self.opening(phrase) if expect == "one" else ""  # else it would rule out that nothing matches
        begun = targets.with_reasoning(opening, None, thinking_prefilled=self.thinking_prefilled)
        if not begun:
            raise EgmError(
                f"codec {self.name!r} has no way to answer without thinking where {expect} is expected: take "
                "think=always, or ask for one box (expect='one')"
            )
        return begun

    def restore_tags(self, text: str) -> str:
        """Write back the tags of an answer from which a decoder has stripped them as special tokens.

        Args:
            text: Everything generated, as it was decoded.

        Returns:
            The text as the model wrote it, where no doubt is left; otherwise, and for families without tags, as it is.
        """
        return text

    def ends_before_tail(
        self,
        text: str,
        *,
        size: tuple[int, int],
        amodal: bool = False,
        seen_size: tuple[int, int] | None = None,
        phrase: str = "",
    ) -> bool | None:
        """Tell whether a text that may have ended before one of `tail_stops` holds the box that the whole would give.

        Args:
            text: Everything generated, up to the stop string.
            size: As of `parse`, and so are the others.
            amodal: See there.
            seen_size: See there.
            phrase: See there.

        Returns:
            True if it does, and nothing but the tail is missing. False if it broke off before: inside the reasoning, or
            without a valid box. None if nothing shows that it broke off at all.
        """
        answer = reading.split_reasoning(text, thinking_prefilled=self.thinking_prefilled)[1]
        if answer is None:
            return False
        if close_tail(answer) is None:
            return None if read_json(answer) is not None or not self._forms().ends_inside_box(answer) else False
        options: dict[str, Any] = {"amodal": amodal, "seen_size": seen_size, "phrase": phrase}
        return self.parse(text, size=size, finish_reason=STOP_STRING, **options).box is not None

    def parse(
        self,
        text: str,
        *,
        size: tuple[int, int],
        finish_reason: str = "stop",
        amodal: bool = False,
        seen_size: tuple[int, int] | None = None,
        phrase: str = "",
        expect: Expect = "one",
    ) -> Grounding:
        """Read the box from a model's text, or the reason why there is none; `egm.codecs.parsing` states the rules.

        Never raises, whatever the text; takes time linear in its length.

        Args:
            text: Everything generated.
            size: Width and height of the upright original image in pixels.
            finish_reason: "length" if the token limit cut the text off, "repeated" if repeating itself did,
                "stop_string" if it was ended before its tail.
            amodal: Whether the box may leave the frame by up to one frame on each side.
            seen_size: Width and height of the image as the model saw it; only codecs that speak pixels use it.
            phrase: What was asked, to be carried along.
            expect: How many boxes were asked for.
        """
        seen_size = None if seen_size is None else _possible(seen_size)
        return reading.read(
            text,
            scale=self.scale(_possible(size), seen_size),
            forms=self._forms(),
            thinking_prefilled=self.thinking_prefilled,
            size=size,
            finish_reason=finish_reason,
            amodal=amodal,
            phrase=phrase,
            expect=expect,
        )

    def box_places(
        self, text: str, boxes: Sequence[Box], *, size: tuple[int, int], seen_size: tuple[int, int] | None = None
    ) -> list[tuple[int, int]] | None:
        """Say where in a text the coordinates of its boxes stand.

        Args:
            text: Everything generated.
            boxes: What `parse` has read from it, in its order.
            size: As of `parse`.
            seen_size: See there.

        Returns:
            Start and end of each; None if one of them is not four numbers that follow each other.
        """
        return reading.box_places(text, boxes, self.scale(_possible(size), seen_size and _possible(seen_size)), size)

    def _forms(self) -> Forms:
        return Forms(self.form, self.other_forms, self.plain_lists)

    def to_dict(self) -> dict[str, Any]:
        """Return what tells this codec from others, JSON-ready, as journals keep it: its name and its options."""
        plain: Any = self
        options = {f.name: getattr(plain, f.name) for f in fields(plain)} if is_dataclass(plain) else {}
        return {"name": self.name, **({"thinking_prefilled": True} if self.thinking_prefilled else {}), **options}


def _possible(size: tuple[int, int]) -> tuple[int, int]:
    """A size that arithmetic can be done with: rows can say anything, and no picture has a side beyond these."""
    return max(1, min(size[0], _LONGEST)), max(1, min(size[1], _LONGEST))
