"""EGM: an image and a phrase in, a box out, from small vision-language models that think before they point.

```
import egm

grounder = egm.Grounder.load("egm-tiny")
grounder.ground("shapes.png", "the red circle left of the star").box
```

Names are loaded on first use: `import egm` loads neither torch nor transformers, nor numpy nor Pillow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from egm._version import __version__

if TYPE_CHECKING:
    from egm.backends import Backend, GenerationSettings, Request
    from egm.boxes import Box, giou, iou
    from egm.codecs import Codec, get_codec
    from egm.errors import (
        BackendError,
        BoxError,
        DataError,
        EgmError,
        ImageError,
        ModelError,
        PhraseError,
        RecipeError,
    )
    from egm.grounder import Grounder
    from egm.images import load_image
    from egm.scoring import score
    from egm.types import Completion, Failure, Grounding, LabelledBox, Sample, Score

__all__ = [
    "Backend",
    "BackendError",
    "Box",
    "BoxError",
    "Codec",
    "Completion",
    "DataError",
    "EgmError",
    "Failure",
    "GenerationSettings",
    "Grounder",
    "Grounding",
    "ImageError",
    "LabelledBox",
    "ModelError",
    "PhraseError",
    "RecipeError",
    "Request",
    "Sample",
    "Score",
    "__version__",
    "get_codec",
    "giou",
    "iou",
    "load_image",
    "score",
]

_ROOMS = {
    "backends": ("Backend", "GenerationSettings", "Request"),
    "boxes": ("Box", "giou", "iou"),
    "codecs": ("Codec", "get_codec"),
    "errors": (
        "BackendError",
        "BoxError",
        "DataError",
        "EgmError",
        "ImageError",
        "ModelError",
        "PhraseError",
        "RecipeError",
    ),
    "grounder": ("Grounder",),
    "images": ("load_image",),
    "scoring": ("score",),
    "types": ("Completion", "Failure", "Grounding", "LabelledBox", "Sample", "Score"),
}
_HOME = {name: f"{__name__}.{room}" for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
