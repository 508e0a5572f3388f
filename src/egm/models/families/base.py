"""What a family is to training and decoding: one class a family, over this one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from egm.errors import ModelError
from egm.plugins import import_plugins

if TYPE_CHECKING:
    from PIL.Image import Image

GUIDE: Final = "docs/families.md"
"""The page that says how a family is added."""

NO_COMPILING: Final = "its layers were never compiled here"
NO_FLATTENING: Final = "the library's own vision tower and layers would read all sequences as one"
NO_VERL: Final = "verl's side of it was run with Qwen3-VL alone; train it with egm sft or egm grpo"

Grid: TypeAlias = tuple[int, ...]
"""How a picture is cut; the product of the numbers is how many rows of `Family.see`'s array are its own."""


class Family(ABC):
    """What training and decoding know of the models of a family; one is a subclass that `register_family` knows.

    A subclass says what its models are called and made of (`name`, `model_types`, `parts`), how a picture is cut
    (`grid`), and which tokens stand for it in a prompt (`placeholders`). All else has a default, which is right for
    models that take pictures as tiles, `pixel_values` of shape (tiles, 3, height, width), and count positions one by
    one.

    Attributes:
        name: What people call it.
        model_types: What `config.json` calls its architectures.
        parts: The parts that a recipe can freeze, each by how the names of its parameters begin, below whatever the
            model is wrapped in: `vision_tower`, `projector`, `language_model`, and `embeddings`, which are in the
            language model.
        fast_path: Whether `enable_fast_path` mends its models, and `BatchDecoder` writes their rollouts. Others go
            through the library's own forward and `generate`: slower, and right.
        batch_decoding: Those of `model_types` that `BatchDecoder` answers evaluation's questions with.
        single_digits: Whether its tokenizer writes each digit of a number as a token of its own.
        refusals: What its models are not trained with, a command or a key of a recipe, and why.
    """

    name: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    parts: ClassVar[Mapping[str, tuple[str, ...]]]
    fast_path: ClassVar[bool] = False
    batch_decoding: ClassVar[tuple[str, ...]] = ()
    single_digits: ClassVar[bool] = False
    refusals: ClassVar[Mapping[str, str]] = {
        "egm verl": NO_VERL,
        "run.flatten": NO_FLATTENING,
        "run.compile": NO_COMPILING,
    }

    def has(self, parameter: str, part: str) -> bool:
        """Tell whether a parameter of this name belongs to a part."""
        return any(f".{prefix}" in f".{parameter}" for prefix in self.parts[part])

    def mismatch(self, processor: Any, config: Any) -> str | None:  # noqa: ARG002
        """Say why a processor is not that of a model of this configuration; None if nothing shows that."""
        return None

    @abstractmethod
    def grid(self, processor: Any, size: tuple[int, int]) -> Grid:
        """Say how the processor cuts a picture of this width and height in pixels, without looking at it."""

    @abstractmethod
    def placeholders(self, processor: Any, grid: Grid) -> str:
        """Write what stands for a picture in a prompt, where the chat template writes one `image_token`."""

    def seen_size(self, processor: Any, grid: Grid) -> tuple[int, int] | None:  # noqa: ARG002
        """Return width and height of a picture as the model sees it; None where it is cut, and seen in pieces."""
        return None

    def see(self, processor: Any, image: Image) -> NDArray[np.uint8]:
        """Resize and cut a picture as the processor does, and leave it in whole numbers, an eighth of its bytes.

        Returns:
            Shape (rows, ...), as many rows as the picture's `grid` multiplies to.
        """
        pixels = self.raw_pixels(processor, image)
        # Resizing is done on uint8, so the values are whole numbers already.
        return np.ascontiguousarray(np.asarray(pixels).astype(np.uint8))

    def raw_pixels(self, processor: Any, image: Image, **options: Any) -> Any:
        """Return the processor's `pixel_values` of a picture before they are scaled and normalised."""
        plain = {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
        return processor.image_processor(images=[image], **plain, **options)["pixel_values"]

    def pixel_values(self, processor: Any, pixels: Any) -> Any:
        """Make the processor's `pixel_values` of `see`'s arrays, on whatever device they are.

        Args:
            processor: The processor.
            pixels: A tensor of uint8, shape (tiles, 3, height, width).

        Returns:
            float32, of the same shape.
        """
        images = processor.image_processor
        values = pixels.float()  # a copy
        # By numbers of the host, a channel at a time: a tensor of them would have to be sent to the device.
        for channel, (centre, width) in enumerate(zip(images.image_mean, images.image_std, strict=True)):
            values[:, channel].sub_(centre * 255).div_(width * 255)
        return values

    def positions(self, ids: Any, grids: Sequence[Grid], mask: Any, config: Any) -> Any:  # noqa: ARG002
        """Return the position ids of a batch padded on the right, by default one after the other.

        Args:
            ids: Tokens, shape (B, T).
            grids: The grid of each row's picture.
            mask: True on tokens, False on padding, shape (B, T).
            config: The model's configuration.

        Returns:
            Integers, shape (B, T), or (axes, B, T); 0 on padding.
        """
        import torch

        return torch.arange(ids.shape[1]) * mask

    def fields(self, grids: Sequence[Grid], *, fast: bool = False) -> dict[str, Any]:  # noqa: ARG002
        """Return what the model's forward takes of pictures beside `pixel_values`.

        Args:
            grids: The pictures', in the order of the rows.
            fast: Whether the fast path is on.
        """
        return {}

    def token_fields(self, ids: Any, config: Any) -> dict[str, Any]:  # noqa: ARG002
        """Return what the library's `generate` takes of tokens beside themselves and the mask, each of shape (B, T)."""
        return {}

    def end(self, processor: Any) -> str:
        """Return the token that ends an answer, as text: what is taught behind a target, and stops decoding.

        Raises:
            ModelError: If the tokenizer names none.
        """
        if processor.tokenizer.eos_token is None:
            raise ModelError("the tokenizer names no eos_token, so no answer would end: copy all of its files")
        return str(processor.tokenizer.eos_token)


_FAMILIES: dict[str, Family] = {}
"""By `model_type`."""


def register_family(kind: type[Family]) -> type[Family]:
    """Make a family known to training and decoding: a class decorator.

    Raises:
        ModelError: If another family has one of its `model_types`.
    """
    for model_type in kind.model_types:
        if (taken := _FAMILIES.get(model_type)) is not None:
            raise ModelError(
                f"{model_type!r} models are of the family {taken.name} already: leave it out of {kind.name}"
            )
    family = kind()
    _FAMILIES.update(dict.fromkeys(kind.model_types, family))
    return kind


def family_names() -> tuple[str, ...]:
    """Return what people call the families whose models are trained; to ask a model, its codec is enough."""
    import_plugins()
    return tuple(sorted({family.name for family in _FAMILIES.values()}))


def family_of(model_type: str) -> Family | None:
    """Return the family of an architecture, as `config.json` names it; None if it is not known here.

    Example:
        >>> from egm.models.families import family_of
        >>> family_of("internvl").name
        'InternVL'
    """
    if model_type not in _FAMILIES:
        import_plugins()
    return _FAMILIES.get(model_type)


def trained_family(config: Any) -> Family:
    """Return the family of a model's configuration.

    Raises:
        ModelError: If it is not known.
    """
    family = family_of(config.model_type)
    if family is None:
        raise ModelError(f"what {config.model_type!r} models are made of is not known: add their family ({GUIDE})")
    return family


def image_tokens(config: Any) -> list[int]:
    """Return the tokens that stand for pictures and videos: one in an answer would be taken for a picture.

    Args:
        config: A model's configuration, or `config.json` as a mapping; not every family's names them.
    """
    names = ("image_token_id", "video_token_id")
    mapped = isinstance(config, Mapping)
    ids = [config.get(name) if mapped else getattr(config, name, None) for name in names]
    return sorted({int(token) for token in ids if token is not None})
