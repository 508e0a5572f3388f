"""EGM: an image and a phrase in, a box out, from small vision-language models that think before they point.

```
import egm

grounder = egm.Grounder.load("egm-tiny")
grounder.ground(egm.example_picture(), "the cross farthest from the square").box
```

Names are loaded on first use: `import egm` loads neither torch nor transformers, nor numpy nor Pillow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from egm._version import __version__
from egm.lazy import lazy_names

if TYPE_CHECKING:
    from egm.backends import Backend, GenerationSettings, Request
    from egm.boxes import Box, giou, iou
    from egm.codecs import Codec, get_codec, register_codec
    from egm.datasets.synthetic.example import example_picture
    from egm.errors import (
        BackendError,
        BoxError,
        DataError,
        EgmError,
        ImageError,
        MissingExtraError,
        ModelError,
        PhraseError,
        RecipeError,
        RequestError,
    )
    from egm.grounder import Grounder
    from egm.images import load_image
    from egm.scoring import score
    from egm.set_scores import SetScore, score_set
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
    "MissingExtraError",
    "ModelError",
    "PhraseError",
    "RecipeError",
    "Request",
    "RequestError",
    "Sample",
    "Score",
    "SetScore",
    "__version__",
    "example_picture",
    "get_codec",
    "giou",
    "iou",
    "load_image",
    "register_codec",
    "score",
    "score_set",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "backends": ("Backend", "GenerationSettings", "Request"),
        "boxes": ("Box", "giou", "iou"),
        "codecs": ("Codec", "get_codec", "register_codec"),
        "datasets.synthetic.example": ("example_picture",),
        "errors": (
            "BackendError",
            "BoxError",
            "DataError",
            "EgmError",
            "ImageError",
            "MissingExtraError",
            "ModelError",
            "PhraseError",
            "RecipeError",
            "RequestError",
        ),
        "grounder": ("Grounder",),
        "images": ("load_image",),
        "scoring": ("score",),
        "set_scores": ("SetScore", "score_set"),
        "types": ("Completion", "Failure", "Grounding", "LabelledBox", "Sample", "Score"),
    },
)
