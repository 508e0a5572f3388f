"""Real data beside the project: a user's clone does not have it, and skips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Find a file of real data by its path below the data folder, or skip."""

    def find(path: str) -> Path:
        found = SHARED_DATA / path
        if not found.exists():
            pytest.skip(f"real data is not beside this checkout: {found}")
        return found

    return find
