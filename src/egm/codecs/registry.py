"""The one table of codecs: by name, and by the checkpoints that each serves."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from egm.codecs.base import Codec
from egm.errors import EgmError, ModelError, nearest
from egm.plugins import import_plugins

if TYPE_CHECKING:
    from egm.types import Message

DEFAULT_CODEC: Final = "qwen3_vl"
"""What is taken where nobody says which, as of a server: that of EGM's own models."""

_Class = TypeVar("_Class", bound=type[Codec])

_CODECS: dict[str, type[Codec]] = {}
_PROBE: list[Message] = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}]


def register_codec(codec: _Class) -> _Class:
    """Make a codec known by its `name`, and as the one for checkpoints of its `model_types`; a class decorator.

    Two codecs may serve one model type if they differ in `thinking_prefilled`: then the checkpoint's chat template
    decides. A class that is defined again, as in a notebook, takes the place of its earlier self.

    Raises:
        ModelError: If the class has no name, or another one has that name or serves such checkpoints already.

    Example:
        >>> from egm.codecs import Codec, register_codec
        >>> @register_codec
        ... class Nameless(Codec):
        ...     pass
        Traceback (most recent call last):
        ...
        egm.errors.ModelError: codec class 'Nameless' has no name: give it one, such as name = 'acme_vl'
    """
    name = getattr(codec, "name", "")
    if not name:
        raise ModelError(f"codec class {codec.__name__!r} has no name: give it one, such as name = 'acme_vl'")
    others = [known for known in _CODECS.values() if _where(known) != _where(codec)]
    for known in others:
        if known.name == name:
            raise ModelError(f"there is a codec {name!r} already, {known.__qualname__}: give yours another name")
        shared = sorted(set(known.model_types) & set(codec.model_types))
        if shared and known.thinking_prefilled == codec.thinking_prefilled:
            raise ModelError(
                f"codec {known.name!r} serves {shared[0]!r} models already: leave that out of {name!r}'s model_types, "
                f"and ask for it by name (codec={name!r})"
            )
    for known in [known for known in _CODECS.values() if known not in others]:
        del _CODECS[known.name]
    _CODECS[name] = codec
    return codec


def codec_names() -> tuple[str, ...]:
    """Names that `get_codec` knows, sorted; those of installed plug-ins (`egm.plugins`) are among them.

    Example:
        >>> "qwen3_vl" in codec_names()
        True
    """
    import_plugins()
    return tuple(sorted(_CODECS))


def get_codec(name: str, **options: Any) -> Codec:
    """Make the codec of a model family.

    Args:
        name: One of `codec_names()`.
        **options: What the family's codec takes, such as `min_pixels` and `max_pixels` of `qwen2_5_vl`.

    Raises:
        ModelError: If the name or an option is unknown.

    Example:
        >>> get_codec("qwen3_vl_instruct").name
        'qwen3_vl_instruct'
    """
    codec = _named(name)
    if codec is None:
        raise ModelError(f"unknown codec {name!r}: {nearest(name, codec_names())}")
    known = tuple(inspect.signature(codec).parameters)
    for option in options:
        if option not in known:
            hint = nearest(option, known) if known else "it takes none"
            raise ModelError(f"codec {name!r} has no option {option!r}: {hint}")
    return codec(**options)


def codec_without_thinking(name: str) -> str | None:
    """Name the codec for those models of a family that do not think first, where this one is for those that do.

    Returns:
        Its name; None where `name` is not for models that think first, or is unknown, or there is no other.
    """
    codec = _named(name)
    if codec is None or not codec.thinking_prefilled:
        return None
    served = set(codec.model_types)
    others = (other for other in _CODECS.values() if not other.thinking_prefilled and served & set(other.model_types))
    return next((other.name for other in others), None)


def says_none(name: str) -> bool:
    """Tell whether a family has an answer of its own for "nothing matches"; of an unknown one that is taken for so."""
    codec = _named(name)
    return codec is None or codec.none is not None


def check_family(model_type: str, name: str) -> None:
    """Refuse a model whose family no codec knows.

    Raises:
        ModelError: If that is so; the message says how the family is added, and what works without.
    """
    if not _serving(model_type):
        raise ModelError(
            f"{name!r} is a {model_type!r} model, which no codec here knows how to ask: add its family "
            f"(docs/families.md says how); or, if it answers as one of {', '.join(codec_names())} does, name that one: "
            "--codec NAME, which works with --server URL too"
        )


def check_tail(codec: Codec) -> None:
    """Refuse to cut the tail of a family that has none.

    Raises:
        EgmError: If that is so.
    """
    if not codec.tail_stops:
        raise EgmError(f"codec {codec.name!r} has answers that end with their box: leave cut_tail (--cut-tail) out")


def codec_for(model_type: str, prompt: Callable[[list[Message]], str]) -> Codec:
    """Return the codec of a checkpoint.

    Args:
        model_type: What its configuration says.
        prompt: Renders chat turns with the checkpoint's own template, up to where the answer begins. The templates of
            Thinking models end in `<think>`, those of Instruct models do not; it is asked only where that decides.

    Raises:
        ModelError: If no codec knows the family.
    """
    check_family(model_type, model_type)
    serving = _serving(model_type)
    if len(serving) > 1:
        prefilled = prompt(_PROBE).rstrip().endswith("<think>")
        serving = [codec for codec in serving if codec.thinking_prefilled == prefilled]
    return serving[0]()


def usual_codec(model_type: str | None) -> str:
    """Name the codec of a family where its chat template is not here to be asked; `DEFAULT_CODEC` if it has none."""
    names = [codec.name for codec in _serving(model_type or "")]
    return names[0] if names and DEFAULT_CODEC not in names else DEFAULT_CODEC


def _named(name: str) -> type[Codec] | None:
    if name not in _CODECS:
        import_plugins()
    return _CODECS.get(name)


def _serving(model_type: str) -> list[type[Codec]]:
    known = {served for codec in _CODECS.values() for served in codec.model_types}
    if model_type not in known:
        import_plugins()
    return [codec for codec in _CODECS.values() if model_type in codec.model_types]


def _where(codec: type[Codec]) -> tuple[str, str]:
    """What a class keeps when it is defined again."""
    return codec.__module__, codec.__qualname__
