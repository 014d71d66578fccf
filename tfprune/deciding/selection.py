"""The exact choice of the smallest scores, over one array or many, with one rule for ties.

Every mask of tfprune is decided here: exactly `count` entries are chosen, ties going to the earlier array and then to
the lowest flat index. Scores of minus infinity (entries already pruned) therefore go first.
"""

from collections.abc import Sequence

import numpy as np

from tfprune.deciding.scores import Scores, Value, as_scores

# Scores in the sample that brackets the wanted rank; those within the bracket, one or two per cent, are ordered.
SAMPLE = 1 << 17
EVERYTHING = (-np.inf, np.inf)


def smallest(scores: Sequence[np.ndarray | Scores], count: int) -> list[np.ndarray]:
    """Marks the `count` smallest entries over all the arrays together.

    A sample brackets the largest of them, one pass marks what lies below the bracket and collects what lies in it, and
    only that is ordered: exact like a full sort. When the sample misleads, everything is ordered.

    Args:
        scores: Arrays of floats, none of them NaN.
        count: How many to choose, from 0 to the number of all entries.

    Returns:
        For each array a boolean array of its shape, True where chosen.

    >>> smallest([np.array([3.0, 1.0, 1.0]), np.array([1.0, 2.0])], 2)
    [array([False,  True,  True]), array([False, False])]
    """
    read = [as_scores(each) for each in scores]
    if count <= 0:
        return [np.zeros(each.shape, bool) for each in read]
    if count >= sum(each.size for each in read):
        return [np.ones(each.shape, bool) for each in read]
    bracket = _bracket(read, count)
    splits = [each.split(*bracket) for each in read]
    rank = count - sum(split.not_above for split in splits)
    inside = np.concatenate([split.inside for split in splits])
    if rank == 0:
        return [split.marks for split in splits]
    if not 0 < rank <= inside.size:
        return _up_to(read, count, kth_smallest(read, count))
    threshold = np.partition(inside, rank - 1)[rank - 1]
    ties = in_order(
        [int(np.count_nonzero(split.inside == threshold)) for split in splits],
        rank - int(np.count_nonzero(inside < threshold)),
    )
    return [split.up_to(threshold, tied) for split, tied in zip(splits, ties)]


def kth_smallest(scores: Sequence[np.ndarray | Scores], rank: int) -> Value:
    """The `rank`-th smallest entry (from 1) over all the arrays, whatever a sample says of them."""
    read = [as_scores(each) for each in scores]
    for shared in _bracket(read, rank):  # a value of many entries, such as the zeros of a pruned weight
        counts = [sum(each.count(compare, shared) for each in read) for compare in (np.less, np.less_equal)]
        if counts[0] < rank <= counts[1]:
            return shared
    return np.partition(np.concatenate([each.array().reshape(-1) for each in read]), rank - 1)[rank - 1]


def _up_to(scores: Sequence[Scores], count: int, threshold: Value) -> list[np.ndarray]:
    """Marks the `count` smallest, the largest of which is known."""
    ties = in_order(
        [each.count(np.equal, threshold) for each in scores],
        count - sum(each.count(np.less, threshold) for each in scores),
    )
    return [_first_up_to(each, threshold, tied) for each, tied in zip(scores, ties)]


def _first_up_to(scores: Scores, threshold: Value, ties: int) -> np.ndarray:
    """Marks the scores below a threshold, and the first `ties` of those equal to it."""
    marks, start = np.empty(scores.size, bool), 0
    for piece in scores:
        mark = marks[start : start + piece.size]
        np.less(piece, threshold, out=mark)
        equal = np.flatnonzero(piece == threshold)[:ties]
        mark[equal] = True
        ties -= equal.size
        start += piece.size
    return marks.reshape(scores.shape)


def _bracket(scores: Sequence[Scores], rank: int) -> tuple[Value, Value]:
    """Two values between which the `rank`-th smallest lies in all likelihood, from a sample."""
    total = sum(each.size for each in scores)
    if total <= SAMPLE // 4:
        return EVERYTHING
    stride = max(8, total // SAMPLE)
    sample = np.concatenate([each.sample(stride) for each in scores])
    place = rank / total * sample.size
    margin = 4 * np.sqrt(sample.size) / 2  # four standard errors of a rank in the sample
    low, high = max(0, int(place - margin)), min(sample.size - 1, int(place + margin))
    sample.partition((low, high))
    return sample[low], sample[high]


def in_order(available: Sequence[int], count: int) -> list[int]:
    """Takes `count` from the first, then from the second, and so on."""
    before = np.cumsum([0, *available[:-1]])
    return [int(min(has, max(0, count - start))) for has, start in zip(available, before)]
