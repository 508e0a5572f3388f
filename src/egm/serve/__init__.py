"""Engines served for grounding: started with the flags that it wants, checked, and ended with all their processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from egm.lazy import lazy_names

if TYPE_CHECKING:
    from egm.serve.plan import Plan, plan_server
    from egm.serve.start import RunningServer, serve
    from egm.serve.table import AIMS, VersionDefect, VersionVerdict, engine_names, verdict, version_defects

__all__ = [
    "AIMS",
    "Plan",
    "RunningServer",
    "VersionDefect",
    "VersionVerdict",
    "engine_names",
    "plan_server",
    "serve",
    "verdict",
    "version_defects",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "plan": ("Plan", "plan_server"),
        "start": ("RunningServer", "serve"),
        "table": ("AIMS", "VersionDefect", "VersionVerdict", "engine_names", "version_defects", "verdict"),
    },
)
