"""The small vocabulary's fixed part: Qwen's special tokens by name, and where they stand.

Special tokens come first, then the 256 bytes, then the merges, so that ids of special tokens do not move when the
tokenizer is trained anew.
"""

from __future__ import annotations

from typing import Final

from egm.errors import ModelError

SPECIAL_TOKENS: Final = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)
"""Qwen3-VL's added tokens, in Qwen's order."""

TEXT_TOKENS: Final = frozenset(SPECIAL_TOKENS[SPECIAL_TOKENS.index("<tool_call>") :])
"""The added tokens that Qwen does not call special: decoding with `skip_special_tokens` keeps them."""

TINY_VOCAB_SIZE: Final = 768
"""Rows of a tiny model's embedding; the tokenizer may use fewer."""


def token_id(token: str) -> int:
    """Return the id of a special token in the small vocabulary.

    Raises:
        ModelError: If it is not one of `SPECIAL_TOKENS`.
    """
    try:
        return SPECIAL_TOKENS.index(token)
    except ValueError:
        raise ModelError(f"{token!r} is not one of the special tokens {', '.join(SPECIAL_TOKENS)}") from None
