"""InternVL: a picture as tiles of one size and a thumbnail, each a fixed number of tokens; positions one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from egm.errors import ModelError
from egm.models.families.base import Family, Grid, register_family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL.Image import Image

_TILED: Final = {"crop_to_patches": True}
"""What its processor asks of the image processor, whose own default is one tile."""
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

    def check_processor(self, processor: Any) -> None:
        """Refuse a processor that does not tile; see `Family.check_processor`."""
        for name in ("image_seq_length", "start_image_token", "end_image_token"):
            if not hasattr(processor, name):
                raise ModelError(f"{type(processor).__name__} has no {name}: an InternVL model needs its own processor")

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
