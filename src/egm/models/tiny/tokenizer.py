"""The small tokenizer: byte-level BPE over the synthetic world's language, with Qwen's special tokens.

It cuts text as Qwen's does (every digit alone, a word with the space before it), so `Qwen2Tokenizer` loads it. Any text
can be encoded, and decodes back to its NFC form. The trained files are shipped in `tokenizer_files/`;
`tools/build_tokenizer.py` of the repository rebuilds them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from egm.errors import ModelError
from egm.extras import need
from egm.models.tiny.vocabulary import INTERNVL_TOKENS, SPECIAL_TOKENS, TEXT_TOKENS, TINY_VOCAB_SIZE, token_id

TOKENIZER_FILES: Final = Path(__file__).with_name("tokenizer_files")
"""The trained tokenizer that is shipped with the package, and the chat templates beside it."""

_QWEN_NAMES: Final = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
_INTERNVL_NAMES: Final = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}


def train_tokenizer(texts: Iterable[str], vocab_size: int = TINY_VOCAB_SIZE) -> Any:
    """Train a tokenizer; the same texts give the same vocabulary on every machine.

    Args:
        texts: What to learn merges from. Special tokens in them are kept apart.
        vocab_size: The most entries to have: `SPECIAL_TOKENS`, the 256 bytes, then merges while the texts give any.

    Returns:
        A `Qwen2Tokenizer`. Special tokens have the ids of their places in `SPECIAL_TOKENS`.

    Raises:
        ModelError: If `vocab_size` has no room for the special tokens and the bytes.
    """
    need("training a tokenizer", "transformers")
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    least = len(SPECIAL_TOKENS) + 256
    if vocab_size < least:
        raise ModelError(f"a vocabulary of {vocab_size} has no room for {least} special tokens and bytes")
    pipeline = Qwen2Tokenizer().backend_tokenizer  # the library's own cutting of text, not a copy of it
    learner = Tokenizer(models.BPE())
    learner.normalizer, learner.pre_tokenizer = pipeline.normalizer, pipeline.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    learner.train_from_iterator(_without_special_tokens(texts), trainer)
    learnt = json.loads(learner.to_str())["model"]
    return _as_qwen(learnt, SPECIAL_TOKENS, _QWEN_NAMES)


def internvl_tokenizer() -> Any:
    """Make the tokenizer of InternVL's tiny sizes: the shipped one with InternVL's tokens behind its entries.

    Returns:
        A `Qwen2Tokenizer` that has the names an `InternVLProcessor` asks for.
    """
    need("building a processor", "transformers")
    shipped = json.loads((TOKENIZER_FILES / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    shipped["vocab"] |= {token: token_id(token) for token in INTERNVL_TOKENS}
    return _as_qwen(shipped, SPECIAL_TOKENS + INTERNVL_TOKENS, _INTERNVL_NAMES)


def _without_special_tokens(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        pieces = [text]
        for token in SPECIAL_TOKENS:
            pieces = [part for piece in pieces for part in piece.split(token)]
        yield from filter(None, pieces)


def _as_qwen(model: Mapping[str, Any], special: Sequence[str], names: Mapping[str, str]) -> Any:
    from tokenizers import AddedToken
    from transformers import Qwen2Tokenizer

    return Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        eos_token="<|im_end|>",  # noqa: S106 - not that kind of token
        pad_token="<|endoftext|>",  # noqa: S106
        unk_token=None,
        added_tokens_decoder={
            token_id(token): AddedToken(token, special=token not in TEXT_TOKENS, normalized=False) for token in special
        },
        extra_special_tokens=dict(names),
        model_max_length=4096,
    )
