"""The small vocabulary's fixed part: the special tokens of Qwen and InternVL by name, and where they stand.

Qwen's come first, then the 256 bytes, then the merges, so that their ids do not move when the tokenizer is trained
anew. InternVL's come last, as they do in its own vocabulary.
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

TINY_TOKENS: Final = 665
"""Entries of the shipped tokenizer."""

INTERNVL_TOKENS: Final = (
    "<img>",
    "</img>",
    "<IMG_CONTEXT>",
    "<quad>",
    "</quad>",
    "<ref>",
    "</ref>",
    "<box>",
    "</box>",
    "<video>",
)
"""What InternVL adds to Qwen's tokens, in its order and all of them special; they stand behind the shipped entries."""


def token_id(token: str) -> int:
    """Return the id of a special token in the small vocabulary.

    Raises:
        ModelError: If it is not one of `SPECIAL_TOKENS`, nor of `INTERNVL_TOKENS`.
    """
    if token in SPECIAL_TOKENS:
        return SPECIAL_TOKENS.index(token)
    if token in INTERNVL_TOKENS:
        return TINY_TOKENS + INTERNVL_TOKENS.index(token)
    raise ModelError(f"{token!r} is not one of the special tokens {', '.join(SPECIAL_TOKENS + INTERNVL_TOKENS)}")
