"""What a filter is: it reads one candidate, and says why it is to be dropped, or nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

from egm.errors import RecipeError, nearest
from egm.plugins import import_plugins
from egm.rationales.candidate import Candidate

_Class = TypeVar("_Class", bound=type["Filter"])
_FILTERS: dict[str, type[Filter]] = {}


@dataclass(frozen=True, slots=True)
class FilterVerdict:
    """What one filter says of one candidate.

    Attributes:
        filter: Its name.
        why: Why the candidate is to be dropped, with the words that gave it away; None where the filter keeps it.
    """

    filter: str
    why: str | None = None

    @property
    def keeps(self) -> bool:
        """Whether the filter has nothing against the candidate."""
        return self.why is None


class Filter(ABC):
    """A reason to drop rationales. A subclass is a dataclass whose fields are its options, known by `register_filter`.

    Attributes:
        name: What recipes, journals and reports call it.
        reason: What is wrong with what it drops, in one line.
    """

    name: ClassVar[str]
    reason: ClassVar[str]

    @abstractmethod
    def check(self, candidate: Candidate) -> str | None:
        """Say why a candidate is to be dropped, with the words that give it away; None keeps it.

        It takes time linear in the text and never raises, whatever a teacher wrote.
        """

    def remember(self, candidate: Candidate) -> None:  # noqa: B027 - most remember nothing
        """Take notice of a candidate that was kept: called for each, also for those that a resumed run finds kept."""


def register_filter(filter_class: _Class) -> _Class:
    """Make a filter known to recipes by its `name`; a class decorator. A class defined again takes its own place.

    Raises:
        RecipeError: If the class has no name or no reason, or another one has that name.
    """
    name = getattr(filter_class, "name", "")
    if not name or not getattr(filter_class, "reason", ""):
        raise RecipeError(f"filter class {filter_class.__name__!r} needs a name and a reason, each a line of text")
    known = _FILTERS.get(name)
    if known is not None and (known.__module__, known.__qualname__) != (
        filter_class.__module__,
        filter_class.__qualname__,
    ):
        raise RecipeError(f"there is a filter {name!r} already, {known.__qualname__}: give yours another name")
    _FILTERS[name] = filter_class
    return filter_class


def filter_names() -> tuple[str, ...]:
    """Names that recipes may use, sorted; those of installed plug-ins (`egm.plugins`) are among them."""
    import_plugins()
    return tuple(sorted(_FILTERS))


def filter_reasons() -> dict[str, str]:
    """The reason of each filter, by name."""
    return {name: _FILTERS[name].reason for name in filter_names()}


def build_filters(recipe: Mapping[str, Any]) -> tuple[Filter, ...]:
    """Make filters from a recipe.

    Args:
        recipe: Options by the filter's name, such as `{"leak": {}, "length": {"least": 5, "most": 120}}`; None stands
            for no options. They come back in this order.

    Raises:
        RecipeError: If a name or an option is unknown, or a value is not of its option's type.

    Example:
        >>> from egm.rationales.filters import build_filters
        >>> [each.name for each in build_filters({"leak": {}, "length": {"least": 8}})]
        ['leak', 'length']
    """
    return tuple(_build(name, {} if options is None else options) for name, options in recipe.items())


def run_filters(filters: Iterable[Filter], candidate: Candidate) -> list[FilterVerdict]:
    """Ask every filter, also after one has spoken against the candidate: reports count all that is wrong.

    Example:
        >>> from egm.boxes import Box
        >>> from egm.rationales.filters import build_filters
        >>> from egm.types import Sample
        >>> sample = Sample("1", "a.jpg", "the dog", box=Box(40, 30, 140, 120), size=(640, 480))
        >>> candidate = Candidate(sample, "It sleeps.", "official")
        >>> [verdict.why for verdict in run_filters(build_filters({"leak": {}, "length": {}}), candidate)]
        [None, '2 words, fewer than 5']
    """
    return [FilterVerdict(each.name, each.check(candidate)) for each in filters]


def keep(filters: Sequence[Filter], candidate: Candidate, verdicts: Iterable[FilterVerdict]) -> bool:
    """Tell whether no verdict is against a candidate; if so, the filters take notice of it."""
    if not all(verdict.keeps for verdict in verdicts):
        return False
    for each in filters:
        each.remember(candidate)
    return True


def _build(name: str, options: Any) -> Filter:
    from pydantic import TypeAdapter, ValidationError

    if name not in _FILTERS:
        import_plugins()
    if name not in _FILTERS:
        raise RecipeError(f"unknown filter {name!r}: {nearest(str(name), filter_names())}")
    if not isinstance(options, Mapping):
        raise RecipeError(f"filter {name!r} takes a mapping of options, such as {{}}, not {options!r}")
    plain: Any = _FILTERS[name]
    known = tuple(field.name for field in fields(plain) if field.init)
    for option in options:
        if option not in known:
            hint = nearest(str(option), known) if known else "it takes none"
            raise RecipeError(f"filter {name!r} has no option {option!r}: {hint}")
    try:
        built: Filter = TypeAdapter(plain).validate_python(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (name, *first["loc"]))
        what = first["msg"].removeprefix("Value error, ")
        raise RecipeError(f"filter option {where}: {what[:1].lower()}{what[1:]}") from None
    return built
