"""Assignment of answered boxes to true ones, one to one: most pairs at an IoU, then the greatest sum of IoUs.

`assign` is the Hungarian algorithm (Kuhn, 1955; with potentials, after Jonker and Volgenant, 1987) in
`O(r^2 c)` for `r` of the smaller side and `c` of the larger. The light core has no SciPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from egm.boxes import FloatArray


def assign(weights: FloatArray) -> list[tuple[int, int]]:
    """Pair rows with columns, each at most once, so that the sum of weights is the greatest.

    Args:
        weights: Shape (N, M), finite.

    Returns:
        `min(N, M)` pairs of row and column, by row.

    Example:
        >>> import numpy as np
        >>> assign(np.array([[0.9, 0.8], [0.7, 0.1]]))
        [(0, 1), (1, 0)]
    """
    import numpy as np

    if weights.shape[0] > weights.shape[1]:
        return sorted((row, column) for column, row in assign(weights.T))
    rows, columns = weights.shape
    # Row 0 and column 0 stand for "none yet", as in the classic form with potentials u and v.
    cost = np.zeros((rows + 1, columns + 1))
    cost[1:, 1:] = -weights
    u, v = np.zeros(rows + 1), np.zeros(columns + 1)
    row_of = np.zeros(columns + 1, dtype=np.intp)
    for row in range(1, rows + 1):
        row_of[0], column = row, 0
        nearest = np.full(columns + 1, np.inf)
        came_from = np.zeros(columns + 1, dtype=np.intp)
        used = np.zeros(columns + 1, dtype=bool)
        while row_of[column]:
            used[column] = True
            reduced = cost[row_of[column]] - u[row_of[column]] - v
            better = ~used & (reduced < nearest)
            nearest[better], came_from[better] = reduced[better], column
            free = np.where(used, np.inf, nearest)
            free[0] = np.inf
            column = int(free.argmin())
            step = free[column]
            u[row_of[used]] += step
            v[used] -= step
            nearest[~used] -= step
        while column:
            before = int(came_from[column])
            row_of[column] = row_of[before]
            column = before
    return sorted((int(row_of[column]) - 1, column - 1) for column in range(1, columns + 1) if row_of[column])


def match_boxes(ious: FloatArray, threshold: float) -> list[tuple[int, int]]:
    """Pair answered boxes with true ones: most pairs at `threshold`, and of these the greatest sum of IoUs.

    Args:
        ious: Of each answered box with each true one, shape (N, M).
        threshold: The IoU from which on a pair counts.

    Returns:
        The pairs, by answered box.

    Example:
        >>> import numpy as np
        >>> match_boxes(np.array([[0.9, 0.8], [0.7, 0.1]]), 0.5)
        [(0, 1), (1, 0)]
    """
    import numpy as np

    counts = ious >= threshold
    rows, columns = np.flatnonzero(counts.any(axis=1)), np.flatnonzero(counts.any(axis=0))
    if not len(rows):
        return []
    near = ious[np.ix_(rows, columns)]
    fits = near >= threshold
    if fits.sum() == len(rows) == len(columns):  # nothing to choose
        pairs = [(int(row), int(fits[row].argmax())) for row in range(len(rows))]
    else:
        # One more pair outweighs whatever the IoUs of the others are: together they are worth less than it.
        pairs = assign(np.where(fits, 1.0 + near / (2 * min(near.shape)), 0.0))
    return [(int(rows[row]), int(columns[column])) for row, column in pairs if fits[row, column]]


def bottleneck_iou(ious: FloatArray) -> float:
    """The greatest `t` at which all answered boxes and all true ones pair off with IoUs of at least `t`.

    So it is at least `t` exactly where precision and recall at IoU `t` are both 1. Of two boxes it is their IoU.

    Args:
        ious: Of each answered box with each true one, shape (N, M).

    Returns:
        From 0 to 1; 0 if they are not as many, 1 if there are none of either.

    Example:
        >>> import numpy as np
        >>> bottleneck_iou(np.array([[0.9, 0.8], [0.7, 0.1]]))
        0.7
    """
    import numpy as np

    count = ious.shape[0]
    if count != ious.shape[1]:
        return 0.0
    if not count:
        return 1.0
    bound = float(min(ious.max(axis=1).min(), ious.max(axis=0).min()))  # some box has no better one
    levels = np.unique(ious[(ious > 0) & (ious <= bound)])
    low, high = 0, len(levels)  # of how many levels it is known that all pair off
    while low < high:
        # The highest first: mostly every box has its own best one.
        middle = high if high == len(levels) else (low + high + 1) // 2
        if len(match_boxes(ious, float(levels[middle - 1]))) == count:
            low = middle
        else:
            high = middle - 1
    return float(levels[low - 1]) if low else 0.0
