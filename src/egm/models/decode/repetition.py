"""When a generation repeats itself: the criterion that every engine in this process stops a row by. Torch-free."""

from __future__ import annotations

from typing import Final

REPEATED: Final = 256
"""So many tokens at the end of a row repeat."""
LONGEST_BLOCK: Final = 64
"""The block that they repeat has at most so many tokens, so that it stands there at least four times."""
LOOK_EVERY: Final = 8
"""So many steps after which the host waits for a GPU, to see which rows have ended."""


def ends_repeated(ids: list[int]) -> bool:
    """Tell whether a row repeats itself: its last 256 tokens are one block of at most 64, over and over.

    So each of them, but for the first block, is the token that stands as many before it as the block is long. An
    inventory, or a list of boxes, differs in its numbers from one entry to the next, and never comes near.

    Example:
        >>> ends_repeated([1, 2, 3] * 90), ends_repeated([1, 2, 3] * 90 + [4]), ends_repeated([7] * 255)
        (True, False, False)
    """
    tail = ids[-REPEATED:]
    return len(tail) == REPEATED and any(
        tail[-1] == tail[-1 - block] and tail[block:] == tail[:-block] for block in range(1, LONGEST_BLOCK + 1)
    )
