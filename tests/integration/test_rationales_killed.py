"""A run of rationales with a real server as its teacher, killed five times."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..rationales.test_killed import kill_and_compare

pytestmark = pytest.mark.integration


def test_killed_five_times_at_random_it_brings_the_same_data_and_asks_nothing_twice(tmp_path: Path) -> None:
    kill_and_compare(tmp_path, samples=16, times=5)
