"""Checkpoints of the newer bases with random weights, tiny, from the library's own configurations."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from egm.models import Preset, build_processor
from egm.models.internvl_sizes import internvl_config
from egm.models.shapes import InternViT, Text
from egm.models.tiny.vocabulary import TINY_VOCAB_SIZE, token_id

MODEL_TYPES = ("qwen3_5", "qwen3_5_moe", "qwen3_vl_moe", "qwen2_5_vl", "internvl")
_FOLDER = tempfile.TemporaryDirectory(prefix="families-")

_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "bos_token_id": token_id("<|endoftext|>"),
    "eos_token_id": token_id("<|im_end|>"),
}
_TOWER: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "num_heads": 2,
    "intermediate_size": 48,
    "out_hidden_size": 32,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
_ROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]}
_EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


def config_of(model_type: str, *, vocabulary: int = TINY_VOCAB_SIZE, tied: bool = False, head: int = 8) -> Any:
    """Make the configuration of a tiny model of an architecture."""
    from transformers import AutoConfig

    if model_type == "internvl":
        language = Text(32, 2, 4, 2, 48, 8, vocabulary, 10_000.0, (), kind="qwen2")
        tower = InternViT(32, 2, 2, 48, tile=160, patch=16)
        return internvl_config(Preset("small", "internvl", 0, 4096, language, tower, tied), tower)
    text, tower, rope = _TEXT | {"vocab_size": vocabulary}, dict(_TOWER), dict(_ROPE)
    if model_type == "qwen2_5_vl":
        tower |= {"patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]}
    else:
        tower |= {"patch_size": 16, "num_position_embeddings": 64}
        rope["mrope_interleaved"] = True
    if model_type.startswith("qwen3_5"):  # a layer of linear attention, and one of attention
        rope["partial_rotary_factor"] = 0.5
        text |= {"head_dim": 16, "layer_types": ["linear_attention", "full_attention"]}
        text |= {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
        text |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
    if model_type.startswith("qwen3_vl"):
        text["head_dim"], rope["mrope_section"] = head, [head // 4, head // 8, head // 8]
        tower["deepstack_visual_indexes"] = [0]
    if model_type.endswith("_moe"):
        text |= _EXPERTS
        text |= {"shared_expert_intermediate_size": 16} if model_type == "qwen3_5_moe" else {"decoder_sparse_step": 1}
    ids = {f"{kind}_token_id": token_id(f"<|{kind}_pad|>") for kind in ("image", "video")}
    ids |= {f"vision_{side}_token_id": token_id(f"<|vision_{side}|>") for side in ("start", "end")}
    text |= {"rope_parameters": rope, "tie_word_embeddings": tied}
    return AutoConfig.for_model(model_type, text_config=text, vision_config=tower, tie_word_embeddings=tied, **ids)


def random_model(
    model_type: str, *, vocabulary: int = TINY_VOCAB_SIZE, tied: bool = False, head: int = 8, seed: int = 0
) -> Any:
    """Make a tiny model with random weights, large enough that answers differ by picture."""
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = config_of(model_type, vocabulary=vocabulary, tied=tied, head=head)
        model = AutoModelForImageTextToText.from_config(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data.mul_(4)
    model.generation_config.eos_token_id = [token_id("<|im_end|>"), token_id("<|endoftext|>")]
    model.generation_config.pad_token_id = token_id("<|endoftext|>")
    return model.eval()


def processor_of(model_type: str) -> Any:
    """Make the processor of an architecture around egm-tiny's tokenizer."""
    if model_type == "internvl":
        return build_processor("internvl-tiny-s")
    own = build_processor()
    if model_type != "qwen2_5_vl":
        return own
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    sizes = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}  # its channels have means of their own
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size={"shortest_edge": 56 * 56, "longest_edge": 280 * 280}, **sizes),
        tokenizer=own.tokenizer,
        video_processor=Qwen2VLVideoProcessor(**sizes),
        chat_template=own.chat_template,
    )


@functools.cache
def random_checkpoint(model_type: str) -> Path:
    """Give a folder of a tiny model of an architecture; written once in a process."""
    folder = Path(_FOLDER.name) / model_type
    random_model(model_type).save_pretrained(folder)
    processor_of(model_type).save_pretrained(folder)
    return folder
