"""Whether several servers serve one model, by what they say of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import NamedTuple

from egm.errors import ModelError
from egm.terminal import printable


class Agreed(NamedTuple):
    """What servers say of the model that they serve.

    Attributes:
        name: The name that it is asked for by.
        listed: Whether they list that name; `transformers serve` answers to names that it does not list.
        root: Last part of where they have it from, where one says that.
    """

    name: str
    listed: bool
    root: str | None


def agree_on_model(served: Mapping[str, Mapping[str, str | None]], model: str | None) -> Agreed:
    """Refuse servers that serve different models.

    Args:
        served: By URL what `egm.backends.openai.connection.list_models` returned.
        model: The model to be asked for; None takes the only one.

    Raises:
        ModelError: If they differ, or there are several models, or none, and none is named.
    """
    first = next(iter(served))
    for url, names in served.items():
        same = names.keys() == served[first].keys() if model is None else (model in names) == (model in served[first])
        # Names that no server lists say nothing, unless the servers list others.
        if not same or (model is not None and model not in names and names.keys() != served[first].keys()):
            raise ModelError(
                f"the servers serve different models, {_listing(first, served[first])}, {_listing(url, names)}: give "
                "servers of one model, or name one that all of them serve (--model)"
            )
    names = served[first]
    if model is None and not names:
        raise ModelError(f"{first} lists no model: name the one to ask for (--model)")
    if model is None and len(names) > 1:
        raise ModelError(f"{_listing(first, names)}, and so do the others: name one (--model)")
    name = next(iter(names)) if model is None else model
    roots = {root: url for url, known in served.items() if (root := _root(known.get(name))) is not None}
    if len(roots) > 1:
        (one, here), (other, there) = list(roots.items())[:2]
        raise ModelError(
            f"the servers serve different models as {printable(name)!r}: {here} has it from {printable(one)!r}, "
            f"{there} from {printable(other)!r}: give servers of one model"
        )
    return Agreed(name, name in names, next(iter(roots), None))


def is_as_agreed(served: Mapping[str, str | None], agreed: Agreed) -> bool:
    """Tell whether a server that comes back still serves the model that was agreed on."""
    if agreed.listed and agreed.name not in served:
        return False
    root = _root(served.get(agreed.name))
    return root is None or agreed.root is None or root == agreed.root


def _root(place: str | None) -> str | None:
    return PurePath(place).name or None if place else None


def _listing(url: str, names: Mapping[str, str | None]) -> str:
    shown = printable(", ".join(names))[:200] or "none"
    return f"{url} {shown}"
