"""Let Griffe, which reads docstrings for the site, take a section `Example:` for code, as it takes `Examples:`."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Names the section as Griffe knows it."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Look at the docstring of a module, a class, a function or an attribute."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
