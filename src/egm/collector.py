"""Python's collector of garbage, paused while many plain values are made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collector() -> Iterator[None]:
    """Collect nothing for a while; in a `with` statement, or as a decorator.

    For what makes tens of thousands of values that hold one another in no circle: the collector would go through all
    that is there again and again, for a quarter of the time, and find nothing.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
