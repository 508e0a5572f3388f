"""Modules of other installed packages that add codecs, families and filters to EGM.

A package names one in its own metadata, as plug-ins of pytest do:

```toml
[project.entry-points."egm.plugins"]
acme = "acme_egm"
```

The module is imported when a name is asked for that EGM's own do not have, or when all names are listed; without such
a package nothing but metadata is read. It is code of a package that somebody installed, run as importing it would.
"""

from __future__ import annotations

import logging
from threading import RLock
from typing import Final

from egm.errors import first_line
from egm.terminal import printable

GROUP: Final = "egm.plugins"
"""The group of entry points that is looked through."""

_log = logging.getLogger(__name__)
_lock = RLock()  # a second thread waits until all are imported; a plug-in that asks for a name itself does not
_state = {"imported": False}


def import_plugins() -> None:
    """Import what installed packages name under `egm.plugins`, once in a process.

    One that fails is left out with a line on the log, which names it: the others, and EGM, go on.
    """
    with _lock:
        if _state["imported"]:
            return
        _state["imported"] = True
        from importlib.metadata import entry_points

        for entry in entry_points(group=GROUP):
            try:
                entry.load()
            except (Exception, SystemExit) as error:
                owner = "" if entry.dist is None else f" of {entry.dist.name} {entry.dist.version}"
                why = f"{type(error).__name__}: {first_line(error)}"
                _log.warning("%s", printable(f"plug-in {entry.name!r} ({entry.value}){owner} is left out: {why}"))
