"""Render a chat template where it can do no harm: run as a process of its own, with little time and little memory.

A template is a program. The sandbox of jinja2 keeps it from the machine, but not from loops within loops, nor from
texts of gigabytes. This file is run by its path and imports nothing of EGM, so that it starts at once.
"""

from __future__ import annotations

import json
import sys
from typing import Any

TOO_MUCH = 3
"""Exit code where memory or text are over their bounds; a template that fails in another way fails anywhere."""


def render_apart() -> None:
    """Read a template, its variables and its limits as JSON, render it, and exit with 0, or with `TOO_MUCH`."""
    asked = json.loads(sys.stdin.buffer.read())
    _limit(asked["seconds"], asked["bytes"])
    try:
        text = environment().from_string(asked["template"]).render(**asked["variables"])
    except MemoryError:
        sys.exit(TOO_MUCH)
    except Exception:  # whatever a template raises is told by whoever renders it for use
        sys.exit(0)
    sys.exit(TOO_MUCH if len(text) > asked["characters"] else 0)


def _limit(seconds: int, most_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows; the caller's own clock is left
        return
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
    except (ValueError, OSError):  # macOS knows it, and refuses it
        return


def environment() -> Any:
    """An environment in which a template does what it does in that of transformers."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 - as jinja2 has it

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, **options)
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": lambda _: ""}
    return environment


if __name__ == "__main__":
    render_apart()
