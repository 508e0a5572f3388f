from __future__ import annotations

from collections.abc import Iterator

import pytest

from egm.backends.checkpoint import find_checkpoint
from egm.backends.numpy.backend import NumpyBackend

from .serving import Typist, served


@pytest.fixture
def typist() -> Typist:
    return Typist()


@pytest.fixture
def place(typist: Typist) -> Iterator[str]:
    """A server over the typist."""
    with served(typist) as (place, _):
        yield place


@pytest.fixture(scope="session")
def tiny() -> NumpyBackend:
    return NumpyBackend(find_checkpoint("egm-tiny"))
