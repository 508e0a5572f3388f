"""Which codec a checkpoint calls for."""

from __future__ import annotations

from collections.abc import Callable

from egm.codecs import Codec, get_codec
from egm.errors import ModelError
from egm.types import Message

_CODECS = {"qwen3_vl": "qwen3_vl", "qwen3_vl_moe": "qwen3_vl", "qwen2_5_vl": "qwen2_5_vl", "internvl": "internvl"}
_PROBE: list[Message] = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}]


def check_family(model_type: str, name: str) -> None:
    """Refuse a model whose family no codec knows.

    Raises:
        ModelError: If that is so.
    """
    if model_type not in _CODECS:
        raise ModelError(
            f"{name!r} is a {model_type!r} model, which no codec here knows how to ask: "
            f"give one of {', '.join(_CODECS)}"
        )


def codec_for(model_type: str, prompt: Callable[[list[Message]], str]) -> Codec:
    """Return the codec of a checkpoint.

    Args:
        model_type: What its configuration says.
        prompt: Renders chat turns with the checkpoint's own template, up to where the answer begins. The templates of
            Thinking models end in `<think>`, those of Instruct models do not.
    """
    family = _CODECS[model_type]
    if family != "qwen3_vl":
        return get_codec(family)
    return get_codec(family, thinking_prefilled=prompt(_PROBE).rstrip().endswith("<think>"))
