"""One overall share -> how many units each weight loses.

Every allocation is a function `(units, share) -> counts`: `units` maps the key of a weight to the scores of its units
(what its pattern removes together), `share` in [0, 1) is the part of all units to remove, and `counts` maps each key
to a number of units. The counts of all but `uniform` add up to `round(share * all units)`; `uniform` takes
`round(share * units)` of each weight.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.deciding.amounts import is_number, is_share
from tfprune.deciding.configured import is_config
from tfprune.deciding.pieces import pieces
from tfprune.deciding.selection import between, count_where, kth_smallest, smallest
from tfprune.errors import PruningError, answer_of, listing, nearest

Units = Mapping[str, np.ndarray]
Counts = dict[str, int]

# Units of each weight that LAMP looks at to see about where the cuts lie.
LAMP_SAMPLE = 1 << 14
EVERYTHING = (0.0, np.inf)
# The share of its units that a weight gives at most in a hierarchical allocation, as long as that is enough.
HIERARCHICAL_LIMIT = 0.95


def uniform(units: Units, share: float) -> Counts:
    """The same share of every weight.

    >>> uniform({"a": np.arange(4.0), "b": np.arange(10.0)}, 0.5)
    {'a': 2, 'b': 5}
    """
    return {key: round(share * scores.size) for key, scores in units.items()}


def global_(units: Units, share: float) -> Counts:
    """The lowest scores of all weights together, wherever they are.

    >>> global_({"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0])}, 0.5)
    {'a': 2, 'b': 0}
    """
    total = sum(scores.size for scores in units.values())
    chosen = smallest(list(units.values()), round(share * total))
    return {key: int(np.count_nonzero(mark)) for key, mark in zip(units, chosen)}


def lamp(units: Units, share: float) -> Counts:
    """The lowest layer-adaptive scores of all weights together: the square over the sum of all squares not below it.

    A weight's largest unit scores 1, the most there is, so no weight is emptied while others have more than one unit.
    Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning", 2021 (https://arxiv.org/abs/2010.07611).

    >>> lamp({"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0])}, 0.25)
    {'a': 1, 'b': 0}
    """
    arrays = [scores.reshape(-1) for scores in units.values()]
    total = sum(scores.size for scores in arrays)
    count = round(share * total)
    if count in (0, total):
        return {key: scores.size if count else 0 for key, scores in units.items()}
    if len(arrays) == 1:  # within a weight the order is that of the scores
        return dict.fromkeys(units, count)
    counts = _lamp_counts(arrays, count, _lamp_brackets(arrays, count)) or _lamp_idle(arrays, count)
    if counts is None:  # the sample misled
        counts = _lamp_counts(arrays, count, [EVERYTHING] * len(arrays))
    return dict(zip(units, counts or []))


def _lamp_idle(arrays: Sequence[np.ndarray], count: int) -> list[int] | None:
    """The counts where units that weigh nothing suffice, those pruned already first; None where they do not."""
    idle = [count_where(np.less_equal, [scores], 0.0) for scores in arrays]
    if count > sum(idle):
        return None
    pruned = [count_where(np.equal, [scores], -np.inf) for scores in arrays]
    first = _in_order(pruned, count)
    rest = _in_order([i - p for i, p in zip(idle, pruned)], count - sum(first))
    return [some + more for some, more in zip(first, rest)]


def _lamp_brackets(arrays: Sequence[np.ndarray], count: int) -> list[tuple[float, float]]:
    """For each weight two scores between which its cut lies in all likelihood, from a sorted sample of each."""
    samples = [np.sort(scores[:: max(1, scores.size // LAMP_SAMPLE)]) for scores in arrays]
    shares = [scores.size / max(1, sample.size) for scores, sample in zip(arrays, samples)]
    adapted = [_lamp_scores(sample) / share for sample, share in zip(samples, shares)]
    merged = np.concatenate(adapted)
    order = np.argsort(merged)
    reached = np.cumsum(np.repeat(shares, [sample.size for sample in samples])[order])
    threshold = merged[order[min(int(np.searchsorted(reached, count)), order.size - 1)]]
    brackets = []
    for sample, scores in zip(samples, adapted):
        place = int(np.searchsorted(scores, threshold))
        margin = round(4 * np.sqrt(sample.size))  # eight standard errors of a rank in the sample
        low = float(sample[place - margin]) if place >= margin else 0.0
        high = float(sample[place + margin]) if place + margin < sample.size else np.inf
        brackets.append((max(0.0, low), high))
    return brackets


def _lamp_counts(arrays: Sequence[np.ndarray], count: int, brackets: Sequence[tuple[float, float]]) -> list[int] | None:
    """How many units each weight loses, by ordering only those in its bracket; None where a cut lies outside."""
    counts, adapted = [], []
    for scores, (low, high) in zip(arrays, brackets):
        not_above, inside = between([scores], low, high)
        counts.append(not_above)
        adapted.append(_lamp_scores(np.sort(inside), _sum_of_squares_from(scores, high)))
    rank = count - sum(counts)
    if not 0 < rank <= sum(scores.size for scores in adapted):
        return None
    threshold = kth_smallest(adapted, rank)
    for scores, (low, high) in zip(adapted, brackets):
        is_low = low == 0.0 or (scores.size and scores[0] <= threshold)
        is_high = high == np.inf or (scores.size and scores[-1] >= threshold)
        if not (is_low and is_high):
            return None
    counts = [known + int(np.searchsorted(scores, threshold)) for known, scores in zip(counts, adapted)]
    tied = [int(np.count_nonzero(scores == threshold)) for scores in adapted]
    extra = _in_order(tied, count - sum(counts))
    return [known + more for known, more in zip(counts, extra)]


def _lamp_scores(ordered: np.ndarray, beyond: float = 0.0) -> np.ndarray:
    """Layer-adaptive scores of units in rising order, with the sum of squares of those further up."""
    squares = np.square(np.maximum(ordered, 0.0), dtype=np.float64)
    not_below = beyond + np.cumsum(squares[::-1])[::-1]
    adapted = np.divide(squares, not_below, out=np.zeros(squares.shape), where=not_below > 0)
    # Rounding of the sums may break the order by a last digit; searchsorted needs it whole.
    return np.maximum.accumulate(adapted)


def _sum_of_squares_from(scores: np.ndarray, low: float) -> float:
    if low == np.inf:
        return 0.0
    above = (np.compress(piece >= low, piece) for (piece,) in pieces(scores))
    return sum(float(np.square(piece, dtype=np.float64).sum()) for piece in above)


def _in_order(available: Sequence[int], count: int) -> list[int]:
    """Takes `count` from the first, then from the second, and so on."""
    before = np.cumsum([0, *available[:-1]])
    return [int(min(has, max(0, count - start))) for has, start in zip(available, before)]


def erdos_renyi_kernel(units: Units, share: float) -> Counts:
    """Densities in proportion to the sum of a weight's dimensions over their product: small weights stay denser.

    Evci et al., "Rigging the lottery", 2020 (https://arxiv.org/abs/1911.11134). Weights that would have to be more
    than dense are left dense and the others take their share.

    >>> erdos_renyi_kernel({"a": np.zeros((2, 2)), "b": np.zeros((10, 10))}, 0.5)
    {'a': 0, 'b': 52}
    """
    total = sum(scores.size for scores in units.values())
    count = round(share * total)
    raw = {key: sum(scores.shape) / scores.size for key, scores in units.items()}
    dense: set[str] = set()
    while True:
        rest = {key: scores.size for key, scores in units.items() if key not in dense}
        keep = total - count - sum(units[key].size for key in dense)
        scale = keep / sum(raw[key] * size for key, size in rest.items()) if rest else 0.0
        over = [key for key in rest if scale * raw[key] > 1.0]
        if not over:
            break
        dense.update(over)
    wanted = {key: 0.0 if key in dense else scores.size * (1.0 - scale * raw[key]) for key, scores in units.items()}
    return _whole_numbers(wanted, count)


def hierarchical(units: Units, share: float) -> Counts:
    """From the last weight towards the first: each gives 95 % of its units before the one before it gives any.

    Where that is not enough for the share, each gives as large a part as the share is.

    >>> hierarchical({"first": np.zeros(100), "last": np.zeros(100)}, 0.5)
    {'first': 5, 'last': 95}
    """
    total = sum(scores.size for scores in units.values())
    missing = round(share * total)
    limit = max(HIERARCHICAL_LIMIT, share)
    most = _whole_numbers(
        {key: limit * scores.size for key, scores in units.items()}, max(missing, round(limit * total))
    )
    counts: Counts = {}
    for key in reversed(list(units)):
        counts[key] = min(most[key], missing)
        missing -= counts[key]
    return {key: counts[key] for key in units}


def _whole_numbers(wanted: Mapping[str, float], count: int) -> Counts:
    """Rounds down, then gives what is missing to the largest remainders, so that the sum is `count`."""
    counts = {key: int(value) for key, value in wanted.items()}
    missing = count - sum(counts.values())
    by_remainder = sorted(wanted, key=lambda key: counts[key] - wanted[key])
    for key in by_remainder[:missing]:
        counts[key] += 1
    return counts


NAMES: dict[str, Callable[[Units, float], Counts]] = {
    "uniform": uniform,
    "global": global_,
    "lamp": lamp,
    "erk": erdos_renyi_kernel,
    "hierarchical": hierarchical,
}

Allocation = str | Mapping[str, float] | Callable[[Units, float], Mapping[str, float]]


def check(allocation: Any) -> Allocation:
    """The allocation as given, once it is known to be one.

    Raises:
        PruningError: An unknown name, an amount outside [0, 1), or something else.
    """
    if isinstance(allocation, str):
        if allocation not in NAMES:
            raise PruningError(f"There is no allocation {allocation!r}. {nearest(allocation, NAMES)}")
        return allocation
    if isinstance(allocation, Mapping):
        if is_config(allocation):
            return check(keras.saving.deserialize_keras_object(dict(allocation)))
        for layer, amount in allocation.items():
            if not is_share(amount):
                raise PruningError(f"allocation: {amount!r} for {layer!r} is no sparsity in [0, 1); write 0.8, say.")
        return allocation
    if callable(allocation):
        return allocation
    raise PruningError(
        f"{allocation!r} is no allocation; give one of {listing(NAMES)}, a mapping of layer name to sparsity, or a "
        "function of the scores and the overall share."
    )


def choose(allocation: Allocation, units: Units, share: float) -> dict[str, np.ndarray]:
    """Marks the units to remove, True where chosen, by an allocation's name or the user's function."""
    if allocation == "global":  # the counts would only be chosen a second time
        total = sum(scores.size for scores in units.values())
        return dict(zip(units, smallest(list(units.values()), round(share * total))))
    if isinstance(allocation, str):
        counts = NAMES[allocation](units, share)
    elif callable(allocation):
        counts = of_function(allocation, units, share)
    else:
        raise PruningError("A mapping gives amounts by layer name; the method resolves it before units are chosen.")
    return choose_counts(units, counts)


def choose_counts(units: Units, counts: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Marks the lowest units of each weight, as many as `counts` says."""
    return {key: smallest([scores], counts[key])[0] for key, scores in units.items()}


def of_function(function: Callable[[Units, float], Mapping[str, float]], units: Units, share: float) -> Counts:
    """The counts from a function of the user's, which gives a share for each weight.

    Raises:
        PruningError: It left out a weight, or gave a share outside [0, 1].
    """
    name = getattr(function, "__name__", str(function))
    shares = answer_of(f"The allocation {name}", function, units, share)
    if not isinstance(shares, Mapping):
        raise PruningError(f"The allocation {name} gave {shares!r}; give a mapping of every key to its share.")
    missing = [key for key in units if key not in shares]
    if missing:
        raise PruningError(f"The allocation {name} gave no share for {listing(missing)}; give one for every key.")
    for key in units:
        value = shares[key]
        if not is_number(value) or not 0.0 <= value <= 1.0:
            raise PruningError(f"The allocation {name} gave {value!r} for '{key}'; give a share in [0, 1].")
    return {key: round(shares[key] * scores.size) for key, scores in units.items()}
