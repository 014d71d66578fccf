"""The exact choice of the smallest scores, over one array or many, with one rule for ties.

Every mask of tfprune is decided here: exactly `count` entries are chosen, ties going to the earlier array and then to
the lowest flat index. Scores of minus infinity (entries already pruned) therefore go first.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np

from tfprune.pieces import each_piece, pieces

# Enough to bracket the wanted rank within about one per cent of the entries; sorting it takes a millisecond.
SAMPLE = 1 << 15


def smallest(scores: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """Marks the `count` smallest entries over all the arrays together.

    Args:
        scores: Arrays of floats, none of them NaN.
        count: How many to choose, from 0 to the number of all entries.

    Returns:
        For each array a boolean array of its shape, True where chosen.

    >>> smallest([np.array([3.0, 1.0, 1.0]), np.array([1.0, 2.0])], 2)
    [array([False,  True,  True]), array([False, False])]
    """
    total = sum(array.size for array in scores)
    if count <= 0:
        return [np.zeros(array.shape, bool) for array in scores]
    if count >= total:
        return [np.ones(array.shape, bool) for array in scores]
    threshold = kth_smallest(scores, count)
    # In C order whatever the order of the scores: the ties below are written through a flat view.
    chosen = [np.empty(array.shape, bool) for array in scores]
    for array, mark in zip(scores, chosen):
        each_piece(lambda piece, marked: np.less(piece, threshold, out=marked), array.reshape(-1), mark.reshape(-1))
    ties = count - sum(int(np.count_nonzero(mark)) for mark in chosen)
    for array, mark in zip(scores, chosen):
        for piece, marked in pieces(array.reshape(-1), mark.reshape(-1)):
            if ties == 0:
                return chosen
            tied = piece == threshold
            number = int(np.count_nonzero(tied))
            if number > ties:
                tied, number = np.flatnonzero(tied)[:ties], ties
            marked[tied] = True
            ties -= number
    return chosen


def kth_smallest(scores: Sequence[np.ndarray], rank: int) -> np.floating:
    """The `rank`-th smallest entry (from 1) over all the arrays.

    A sorted sample brackets the answer, one pass counts and collects what lies in the bracket, and only that is
    partitioned: exact like a full sort, and several times faster than partitioning everything. When the sample
    misleads, everything is partitioned.
    """
    arrays = [array.reshape(-1) for array in scores if array.size]
    total = sum(array.size for array in arrays)
    if total > 4 * SAMPLE:
        stride = total // SAMPLE
        sample = np.sort(np.concatenate([array[::stride] for array in arrays]))
        place = rank / total * sample.size
        margin = 4 * np.sqrt(sample.size) / 2  # four standard errors of a rank in the sample
        low = sample[max(0, int(place - margin))]
        high = sample[min(sample.size - 1, int(place + margin))]
        not_above, inside = between(arrays, low, high)
        if not_above < rank <= not_above + inside.size:
            position = rank - not_above - 1
            return np.partition(inside, position)[position]
        for shared in (low, high):  # a value of many entries, such as the zeros of a pruned weight
            if count_where(np.less, arrays, shared) < rank <= count_where(np.less_equal, arrays, shared):
                return shared
    return np.partition(np.concatenate(arrays), rank - 1)[rank - 1]


def between(arrays: Sequence[np.ndarray], low: float, high: float) -> tuple[int, np.ndarray]:
    """How many entries of flat arrays are not above `low`, and the entries between `low` and `high`, both left out."""

    def of_piece(piece: np.ndarray) -> tuple[int, np.ndarray]:
        under = piece <= low
        return int(np.count_nonzero(under)), piece[np.flatnonzero((piece < high) > under)]

    counts, inside = zip(*(found for array in arrays for found in each_piece(of_piece, array)))
    return sum(counts), np.concatenate(inside)


def count_where(compare: np.ufunc, arrays: Sequence[np.ndarray], value: float) -> int:
    """How many entries of flat arrays compare so with a value."""
    counts = (each_piece(lambda piece: int(np.count_nonzero(compare(piece, value))), array) for array in arrays)
    return sum(chain.from_iterable(counts))
