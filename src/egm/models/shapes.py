"""What a model size is: the shapes of its language model and of its vision tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Text:
    """Shape of the language model.

    Attributes:
        hidden: Width of the residual stream.
        layers: Decoder layers.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Width of one head.
        intermediate: Inner width of a dense MLP.
        vocabulary: Rows of the embedding.
        theta: Base of the rotary frequencies.
        mrope: How many of a head's `head_dim / 2` frequencies turn with time, height and width; none where positions
            are counted along the text alone.
        experts: Experts in a layer; 0 for a dense model.
        active_experts: Experts that a token visits.
        expert_intermediate: Inner width of one expert.
        kind: The language model's own architecture, as its configuration names it.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    head_dim: int = 128
    vocabulary: int = 151_936
    theta: float = 5_000_000.0
    mrope: tuple[int, ...] = (24, 20, 20)
    experts: int = 0
    active_experts: int = 0
    expert_intermediate: int = 0
    kind: Literal["qwen2", "qwen3", "qwen3_moe"] = "qwen3"


@dataclass(frozen=True, slots=True)
class Vision:
    """Shape of Qwen3-VL's vision tower: patches of 16 pixels, merged 2 x 2 into one visual token of 32 pixels.

    Attributes:
        hidden: Width of the residual stream.
        depth: Blocks.
        heads: Attention heads.
        intermediate: Inner width of an MLP.
        deepstack: Blocks whose output is also added to the first decoder layers.
        positions: Rows of the learnt position grid, a square.
    """

    hidden: int
    depth: int
    heads: int
    intermediate: int
    deepstack: tuple[int, ...]
    positions: int = 48 * 48


@dataclass(frozen=True, slots=True)
class InternViT:
    """Shape of InternVL's vision tower: a tile at a time, its patches unshuffled 2 x 2 into one visual token.

    Attributes:
        hidden: Width of the residual stream.
        depth: Blocks.
        heads: Attention heads.
        intermediate: Inner width of an MLP.
        tile: Side of a tile in pixels.
        patch: Side of a patch in pixels.
        large: Whether it is built as the tower of 6 billion is: RMS norms, also of queries and keys, and no biases.
    """

    hidden: int
    depth: int
    heads: int
    intermediate: int
    tile: int = 448
    patch: int = 14
    large: bool = False

    @property
    def tokens(self) -> int:
        """Visual tokens of a tile."""
        return (self.tile // self.patch // 2) ** 2


@dataclass(frozen=True, slots=True)
class Preset:
    """A model size.

    Attributes:
        name: What `get_preset` knows it by.
        family: "egm-tiny", "qwen3-vl", "qwen3-vl-moe" or "internvl".
        parameters: Parameters in all, tied ones counted once.
        context: Longest sequence in tokens.
        text: Shape of the language model.
        vision: Shape of the vision tower.
        tied: Whether input and output embeddings are one.
        hub_ids: Published checkpoints of this size, the one EGM starts from first.
    """

    name: str
    family: str
    parameters: int
    context: int
    text: Text
    vision: Vision | InternViT
    tied: bool
    hub_ids: tuple[str, ...] = ()

    @property
    def is_tiny(self) -> bool:
        """Whether this is one of EGM's own small sizes, with the small vocabulary."""
        return not self.hub_ids
