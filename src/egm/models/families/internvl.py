"""InternVL: a picture as tiles of one size and a thumbnail, each a fixed number of tokens; positions one by one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Final

from egm.models.families.base import Family, Grid, register_family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL.Image import Image

_TILED: Final = {"crop_to_patches": True}
"""What its processor asks of the image processor, whose own default is one tile."""
_MARKS: Final = ("<ref>", "</ref>", "<box>", "</box>")
"""What its questions and answers set phrases and boxes in."""
_END: Final = "<|im_end|>"


@register_family
class InternVLFamily(Family):
    """InternVL 3 and its kin, as `InternVLForConditionalGeneration` has them; a grid is `(tiles,)`."""

    name: ClassVar[str] = "InternVL"
    model_types: ClassVar[tuple[str, ...]] = ("internvl",)
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vision_tower": ("vision_tower.",),
        "projector": ("multi_modal_projector.",),
        "language_model": ("language_model.", "lm_head."),
        "embeddings": ("language_model.embed_tokens.",),
    }

    def mismatch(self, processor: Any, config: Any) -> str | None:
        """Hold tiles, their tokens and the marks around them against the model's; see `Family.mismatch`."""
        counted = getattr(processor, "image_seq_length", None)
        if counted is None:
            return f"a {type(processor).__name__} cuts no tiles, and the model takes them"
        size, vision = processor.image_processor.size, config.vision_config
        cut, taken = [size.get("height"), size.get("width")], list(vision.image_size)
        if cut != taken:
            cut_by, taken_by = (" x ".join(map(str, sides)) for sides in (cut, taken))
            return f"the processor cuts tiles of {cut_by} pixels, the model takes {taken_by}"
        patches = zip(taken, vision.patch_size, strict=False)
        wanted = math.prod(int(side // patch * config.downsample_ratio) for side, patch in patches)
        if counted != wanted:
            return f"the processor writes {counted} tokens for a tile, the model makes {wanted}"
        vocabulary = processor.tokenizer.get_vocab()
        if missing := [mark for mark in _MARKS if mark not in vocabulary]:
            return f"the tokenizer has no {missing[0]}, and the model's questions and answers are written with it"
        return None

    def end(self, processor: Any) -> str:
        """Return what its chat template ends turns with, which not every size's tokenizer calls its end."""
        return _END if _END in processor.tokenizer.get_added_vocab() else Family.end(self, processor)

    def grid(self, processor: Any, size: tuple[int, int]) -> Grid:
        """Count tiles, the thumbnail with them; see `Family.grid`."""
        width, height = size
        return (int(processor.image_processor.get_number_of_image_patches(height, width, dict(_TILED))),)

    def placeholders(self, processor: Any, grid: Grid) -> str:
        """Write the tokens of all tiles between those that begin and end a picture; see `Family.placeholders`."""
        tiles = processor.image_token * (processor.image_seq_length * grid[0])
        return f"{processor.start_image_token}{tiles}{processor.end_image_token}"

    def raw_pixels(self, processor: Any, image: Image, **options: Any) -> Any:
        """Return the tiles; see `Family.raw_pixels`."""
        return Family.raw_pixels(self, processor, image, **_TILED, **options)
