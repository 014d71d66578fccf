"""The exact choice of the smallest scores, over one array or many, with one rule for ties.

Every mask of tfprune is decided here: exactly `count` entries are chosen, ties going to the earlier array and then to
the lowest flat index. Scores of minus infinity (entries already pruned) therefore go first.
"""

from collections.abc import Sequence

import numpy as np

from tfprune.deciding.pieces import pieces

# Sizes of the sample that brackets the wanted rank: from one per cent of the entries to a third of that, which have to
# be looked at once more.
SAMPLE, LARGEST_SAMPLE = 1 << 15, 1 << 18

Value = float | np.floating
Parts = Sequence[tuple[np.ndarray, ...]]  # pieces of scores with the pieces of their marks


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
    # In C order whatever the order of the scores: their marks are written through flat views.
    chosen = [np.empty(array.shape, bool) for array in scores]
    parts = [part for array, mark in zip(scores, chosen) for part in pieces(array, mark)]
    if total <= 4 * SAMPLE or not _mark_by_bracket(parts, count, *_bracket(scores, count)):
        _mark_up_to(parts, count, kth_smallest(scores, count))
    return chosen


def _mark_by_bracket(parts: Parts, count: int, low: Value, high: Value) -> bool:
    """Marks the `count` smallest in one pass; False where the largest of them is not in the bracket."""
    inside = []
    for piece, mark in parts:
        np.less_equal(piece, low, out=mark)
        places = np.flatnonzero((piece < high) > mark)
        inside.append((mark, places, piece[places]))
    scores = np.concatenate([scores for _, _, scores in inside])
    rank = count - sum(int(np.count_nonzero(mark)) for _, mark in parts)
    if rank == 0:
        return True
    if not 0 < rank <= scores.size:
        return False
    threshold = np.partition(scores, rank - 1)[rank - 1]
    ties = rank - int(np.count_nonzero(scores < threshold))
    for mark, places, scores in inside:
        tied = places[scores == threshold][:ties]
        ties -= tied.size
        mark[places[scores < threshold]] = True
        mark[tied] = True
    return True


def _mark_up_to(parts: Parts, count: int, threshold: Value) -> None:
    """Marks the `count` smallest, the largest of which is known."""
    ties = count
    for piece, mark in parts:
        np.less(piece, threshold, out=mark)
        ties -= int(np.count_nonzero(mark))
    for piece, mark in parts:
        if ties == 0:
            break
        tied = np.flatnonzero(piece == threshold)[:ties]
        ties -= tied.size
        mark[tied] = True


def kth_smallest(scores: Sequence[np.ndarray], rank: int) -> np.floating:
    """The `rank`-th smallest entry (from 1) over all the arrays.

    A sample brackets the answer, one pass counts and collects what lies in the bracket, and only that is
    partitioned: exact like a full sort, and several times faster than partitioning everything. When the sample
    misleads, everything is partitioned.
    """
    if sum(array.size for array in scores) > 4 * SAMPLE:
        low, high = _bracket(scores, rank)
        not_above, inside = between(scores, low, high)
        if not_above < rank <= not_above + inside.size:
            position = rank - not_above - 1
            return np.partition(inside, position)[position]
        for shared in (low, high):  # a value of many entries, such as the zeros of a pruned weight
            if count_where(np.less, scores, shared) < rank <= count_where(np.less_equal, scores, shared):
                return shared
    return np.partition(np.concatenate([array.reshape(-1) for array in scores]), rank - 1)[rank - 1]


def _bracket(scores: Sequence[np.ndarray], rank: int) -> tuple[np.floating, np.floating]:
    """Two values between which the `rank`-th smallest lies in all likelihood, from a sample."""
    total = sum(array.size for array in scores)
    stride = max(1, total // min(max(SAMPLE, total // 64), LARGEST_SAMPLE))
    sample = np.concatenate([array.reshape(-1)[::stride] for array in scores])
    place = rank / total * sample.size
    margin = 4 * np.sqrt(sample.size) / 2  # four standard errors of a rank in the sample
    low, high = max(0, int(place - margin)), min(sample.size - 1, int(place + margin))
    sample.partition((low, high))
    return sample[low], sample[high]


def between(scores: Sequence[np.ndarray], low: Value, high: Value) -> tuple[int, np.ndarray]:
    """How many entries of the arrays are not above `low`, and the entries between `low` and `high`, both left out."""
    not_above, inside = 0, []
    for array in scores:
        for (piece,) in pieces(array):
            under = piece <= low
            not_above += int(np.count_nonzero(under))
            inside.append(piece[np.flatnonzero((piece < high) > under)])
    return not_above, np.concatenate(inside)


def count_where(compare: np.ufunc, scores: Sequence[np.ndarray], value: Value) -> int:
    """How many entries of the arrays compare so with a value."""
    return sum(int(np.count_nonzero(compare(piece, value))) for array in scores for (piece,) in pieces(array))
