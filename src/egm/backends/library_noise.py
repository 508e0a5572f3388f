"""Keeping the terminal clean: transformers prints bars, advice and warnings that no user of EGM can act on."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers and the Python warnings of what it calls, and restore both afterwards."""
    from transformers.utils import logging as library

    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()


@contextmanager
def without_false_alarms(*, tied: Collection[str]) -> Iterator[None]:
    """Silence three warnings of a training that tell of nothing wrong, and no other.

    TRL and PEFT ask transformers for a property by the name that it had before; a model's configuration takes the
    padding token of its tokenizer; and a checkpoint that goes on is said to miss weights which it holds under the name
    of those that they are tied to.

    Args:
        tied: Names of the weights that are tied to others.
    """

    def tells(record: logging.LogRecord) -> bool:
        said = record.getMessage()
        missing = re.findall(r"'([^']*)'", said) if said.startswith("There were missing keys") else []
        false = said.startswith("The tokenizer has new PAD/BOS/EOS tokens") or (missing and set(missing) <= set(tied))
        return not false

    loggers = [logging.getLogger(f"transformers.{module}") for module in ("trainer", "trainer_utils")]
    for logger in loggers:
        logger.addFilter(tells)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(tells)
