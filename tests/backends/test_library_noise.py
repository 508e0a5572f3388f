"""What is silenced, and what is not."""

from __future__ import annotations

import logging
import warnings

import pytest

from egm.backends.library_noise import without_false_alarms


class Told(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


MISSING = "There were missing keys in the checkpoint model loaded: {}."


def test_only_false_alarms_are_silenced(recwarn: pytest.WarningsRecorder) -> None:
    logger, told = logging.getLogger("transformers.trainer"), Told()
    logger.addHandler(told)
    try:
        with without_false_alarms(tied={"head": "table"}):
            for keys in (["head"], ["head", "norm"]):
                logger.warning(MISSING.format(keys))
            logger.warning("There were unexpected keys in the checkpoint model loaded: ['head'].")
            for name in ("is_gradient_checkpointing", "something"):
                warnings.warn(f"`{name}` is deprecated and will be removed", FutureWarning, stacklevel=1)
        logger.warning(MISSING.format(["head"]))
    finally:
        logger.removeHandler(told)
    assert [text.split()[2] + text.partition(": ")[2] for text in told.texts] == [
        "missing['head', 'norm'].",
        "unexpected['head'].",
        "missing['head'].",
    ]
    assert [str(warning.message).split()[0] for warning in recwarn] == ["`something`"]
