"""What a codec is, for people: what its numbers mean, and an example of what its family writes."""

from __future__ import annotations

from typing import Any

from egm.boxes import Box
from egm.codecs.base import Codec

_PHRASE, _SIZE = "the cup", (640, 480)


def describe_codec(codec: Codec) -> dict[str, Any]:
    """Say what a codec is, JSON-ready; the example says that the cup is at 64, 96, 192, 192 of 640 x 480 pixels."""
    scale = codec.scale(_SIZE, None)
    last = scale.span[0] - 1 if scale.bins else scale.span[0]
    unit = "pixels as the model saw them" if codec.speaks_pixels else f"0-{last}"
    return {
        "name": codec.name,
        "numbers": f"{unit}, {'y' if scale.y_first else 'x'} first",
        "none": codec.none,
        "proven": codec.proven,
        "prompts": {style: codec.messages(_PHRASE, prompt=style)[0]["content"][1]["text"] for style in codec.prompts},
        "example": codec.target(_PHRASE, Box(64, 96, 192, 192), size=_SIZE).removeprefix("</think>").strip(),
        "model_types": list(codec.model_types),
        "module": type(codec).__module__,
    }
