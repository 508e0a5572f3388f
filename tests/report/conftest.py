from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from egm.boxes import Box, iou
from egm.journal import Record

MakeRecord = Callable[..., Record]


@pytest.fixture
def record() -> MakeRecord:
    """Make a record whose IoU is that of its box."""

    def make(id_: str, image: str = "a.jpg", **values: Any) -> Record:
        truth = values.setdefault("truth", (0.0, 0.0, 100.0, 100.0))
        box = values.setdefault("box", truth)
        values.setdefault("phrase", "cup")
        values.setdefault("iou", 0.0 if box is None else iou(Box(*box), Box(*truth)))
        if box is None:
            values.setdefault("failure", "no_box")
        return Record(id=id_, image=image, **values)

    return make
