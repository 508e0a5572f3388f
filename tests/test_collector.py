from __future__ import annotations

import gc

import pytest

from egm.collector import paused_collector


@paused_collector()
def fail() -> None:
    assert not gc.isenabled()
    with paused_collector():
        pass
    assert not gc.isenabled()
    raise ValueError("inside")


def test_it_is_as_it_was_afterwards() -> None:
    with pytest.raises(ValueError, match="inside"):
        fail()
    assert gc.isenabled()
