"""Errors that a user can cause, and that a user can mend.

```
EgmError
├── BoxError           numbers that are no box
├── ImageError         a picture that cannot be read, or is not one
├── PhraseError        a phrase that cannot be asked
├── DataError          a dataset, or a row of one
├── ModelError         a model name, folder or checkpoint
├── RecipeError        a recipe file
├── MissingExtraError  an optional package that is not installed
└── BackendError       an engine that did not answer
    └── RequestError   a request that does not fit the model
```

Each message is one line: what was wrong, where, and what to do. The command line prints it without a traceback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class EgmError(Exception):
    """Base of every error that EGM raises on purpose."""


class BoxError(EgmError, ValueError):
    """Numbers that do not make a box, such as a corner order that is inverted."""


class ImageError(EgmError, ValueError):
    """A picture that is missing, damaged, not a picture, or outside the limits."""


class PhraseError(EgmError, ValueError):
    """A phrase that is empty or too long to ask."""


class DataError(EgmError, ValueError):
    """A dataset, or one row of it, that cannot be used."""


class ModelError(EgmError, ValueError):
    """A model name, folder or checkpoint that cannot be used."""


class RecipeError(EgmError, ValueError):
    """A recipe file that cannot be read, or that holds a wrong key or value."""


class MissingExtraError(EgmError, ImportError):
    """A package that an extra of `egm-grounding` installs, and that is not there."""


class BackendError(EgmError, RuntimeError):
    """An engine that failed to answer.

    Attributes:
        lost_tokens: Tokens read and generated in the tries, as far as the engine counted them.
    """

    lost_tokens: tuple[int, int] = (0, 0)


class RequestError(BackendError):
    """A request that no model, or not this one, can answer: the engine is well."""


def nearest(name: str, known: tuple[str, ...]) -> str:
    """Say, for a message, what is known and what was probably meant."""
    meant = closest(name, known)
    return (f"did you mean {meant!r}? " if meant else "") + "known: " + ", ".join(sorted(known))


def closest(name: str, known: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """Return the known name that was probably meant, if any is as like as `cutoff` (from 0 to 1)."""
    import difflib

    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)


def first_line(error: BaseException) -> str:
    """Say in one short line what an error of a library says, or its name."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:159]}…"
