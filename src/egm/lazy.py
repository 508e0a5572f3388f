"""Packages whose names are loaded on first use (PEP 562), so that importing the package imports none of its modules."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make `__getattr__` and `__dir__` of a package from a table of its names.

    Args:
        package: Full name of the package.
        modules: For each of its modules, dotted from the package on, the names that it is asked for.

    Raises:
        MissingExtraError: By `__getattr__`, if the module needs a package of an extra that is not installed.
    """
    homes = {name: f"{package}.{module}" for module, names in modules.items() for name in names}

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        from egm.extras import explained

        with explained(f"{package}.{name}"):
            value = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)  # from now on it is found without this
        return value

    return load, lambda: sorted({*vars(sys.modules[package]), *homes})
