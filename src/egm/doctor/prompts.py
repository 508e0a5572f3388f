"""What the lengths of prompts say: another template, pictures of another size, patches of another side, no picture."""

from __future__ import annotations

from collections.abc import Sequence

from egm.codecs.resize import smart_resize
from egm.doctor.compare import AnswerComparison
from egm.doctor.recording import Recording, VisualTokens

_EARLIER_SIDE = 28  # pixels of a visual token in the families before Qwen3-VL
_EARLIER_LIMITS = (4 * 28 * 28, 16384 * 28 * 28)  # qwen-vl-utils' own
_ABOUT = 0.15  # how far from 28 x 28 pixels a token the prompts may be: engines round and bound in their own ways


def prompt_defect(comparisons: Sequence[AnswerComparison], recording: Recording) -> tuple[str, str] | None:
    """Name what the lengths of an engine's prompts tell.

    Returns:
        A defect's name and what was seen; None where lengths are right, or not counted.
    """
    counted = [one for one in comparisons if one.prompt_tokens is not None]
    more = {one.picture: one.prompt_tokens for one in counted if one.prompt_tokens is not None}
    if not any(more.values()):
        return None
    visual = _visual_tokens(recording)
    if visual and all(abs(more[name] + visual[name]) <= 1 for name in more if name in visual):
        return "no_picture", "prompts have as many tokens as without a picture"
    values = set(more.values())
    if len(values) == 1:
        (value,) = values
        seen = f"every prompt has {abs(value)} {'token' if abs(value) == 1 else 'tokens'} {_which(value)}"
        return {-1: "template_newline", 1: "double_bos"}.get(value, "other_template"), seen
    odd = sum(value != 0 for value in more.values())
    seen = f"{odd} of {len(more)} prompts have another number of tokens"
    if recording.vision is not None and visual:
        sizes = {one.picture: one.size for one in counted}
        twice = {name: _twice(size, recording.vision) - visual[name] for name, size in sizes.items()}
        if twice == more:
            return "double_resize", f"{seen}, just those that resizing twice gives"
        ratio = sum(more[name] + visual[name] for name in more) / sum(visual[name] for name in more)
        expected = (recording.vision.token / _EARLIER_SIDE) ** 2
        if abs(ratio / expected - 1) < _ABOUT and sum(value > 0 for value in more.values()) > 0.8 * len(more):
            return "patch_14", f"{seen}: {ratio:.2f} times as many for pictures"
    return "other_resize", seen


def _which(value: int) -> str:
    return "too few" if value < 0 else "too many"


def _visual_tokens(recording: Recording) -> dict[str, int]:
    """How many tokens of each prompt stand for the picture; nothing where the reference does not say."""
    vision = recording.vision
    if vision is None:
        return {}
    return {
        answer.picture: answer.seen_size[0] * answer.seen_size[1] // vision.token**2
        for answer in recording.answers
        if answer.seen_size is not None
    }


def _twice(size: tuple[int, int], vision: VisualTokens) -> int:
    low, high = _EARLIER_LIMITS
    first = smart_resize(size, factor=_EARLIER_SIDE, min_pixels=low, max_pixels=high, least=_EARLIER_SIDE)
    width, height = smart_resize(first, factor=vision.token, min_pixels=vision.min_pixels, max_pixels=vision.max_pixels)
    return width * height // vision.token**2
