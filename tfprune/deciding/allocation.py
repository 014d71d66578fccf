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
from tfprune.deciding.scores import Bracketed, Scores, as_scores
from tfprune.deciding.selection import in_order, smallest
from tfprune.errors import PruningError, answer_of, listing, nearest

Units = Mapping[str, np.ndarray | Scores]
Counts = dict[str, int]

# Units of each weight that LAMP looks at to see about where the cuts lie.
LAMP_SAMPLE = 1 << 16
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
    return {key: int(np.count_nonzero(mark)) for key, mark in _global_marks(units, share).items()}


def _global_marks(units: Units, share: float) -> dict[str, np.ndarray]:
    """The units that have the lowest scores, True where chosen."""
    total = sum(scores.size for scores in units.values())
    return dict(zip(units, smallest(list(units.values()), round(share * total))))


def lamp(units: Units, share: float) -> Counts:
    """The lowest layer-adaptive scores of all weights together: the square over the sum of all squares not below it.

    A weight's largest unit scores 1, the most there is, so no weight is emptied while others have more than one unit.
    Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning", 2021 (https://arxiv.org/abs/2010.07611).

    >>> lamp({"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0])}, 0.25)
    {'a': 1, 'b': 0}
    """
    return {key: int(np.count_nonzero(mark)) for key, mark in _lamp_marks(units, share).items()}


def _lamp_marks(units: Units, share: float) -> dict[str, np.ndarray]:
    """The units that have the lowest layer-adaptive scores, True where chosen."""
    scores = [as_scores(each) for each in units.values()]
    total = sum(each.size for each in scores)
    count = round(share * total)
    if count in (0, total) or len(scores) == 1:  # within a weight the order is that of the scores
        return dict(zip(units, smallest(scores, count)))
    marks = _lamp_cut(scores, count, _lamp_brackets(scores, count))
    if marks is None:  # the sample misled
        idle = _lamp_idle(scores, count)
        if idle is not None:
            return choose_counts(units, dict(zip(units, idle)))
        marks = _lamp_cut(scores, count, [EVERYTHING] * len(scores))
    return dict(zip(units, marks or []))


def _lamp_cut(scores: Sequence[Scores], count: int, brackets: Sequence[tuple[float, float]]) -> list[np.ndarray] | None:
    """The lowest units of each weight, by ordering only those in its bracket; None where a cut lies outside."""
    splits = [each.split(*bracket, with_squares=True) for each, bracket in zip(scores, brackets)]
    counts = _lamp_counts(splits, count, brackets)
    return None if counts is None else [split.smallest(number) for split, number in zip(splits, counts)]


def _lamp_idle(scores: Sequence[Scores], count: int) -> list[int] | None:
    """The counts where units that weigh nothing suffice, those pruned already first; None where they do not."""
    idle = [each.count(np.less_equal, 0.0) for each in scores]
    if count > sum(idle):
        return None
    pruned = [each.count(np.equal, -np.inf) for each in scores]
    first = in_order(pruned, count)
    rest = in_order([i - p for i, p in zip(idle, pruned)], count - sum(first))
    return [some + more for some, more in zip(first, rest)]


def _lamp_brackets(scores: Sequence[Scores], count: int) -> list[tuple[float, float]]:
    """For each weight two scores between which its cut lies in all likelihood, from a sorted sample of each."""
    samples = [np.sort(each.sample(max(1, each.size // LAMP_SAMPLE))) for each in scores]
    shares = [each.size / max(1, sample.size) for each, sample in zip(scores, samples)]
    adapted = [_lamp_scores(sample) / share for sample, share in zip(samples, shares)]
    low, high = 0.0, max((float(each[-1]) for each in adapted if each.size), default=0.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = sum(share * int(np.searchsorted(each, middle, "right")) for share, each in zip(shares, adapted))
        low, high = (low, middle) if below >= count else (middle, high)
    brackets = []
    for sample, each in zip(samples, adapted):
        place = int(np.searchsorted(each, high))
        margin = round(3 * np.sqrt(sample.size))  # six standard errors of a rank in the sample
        least = float(sample[place - margin]) if place >= margin else 0.0
        most = float(sample[place + margin]) if place + margin < sample.size else np.inf
        brackets.append((max(0.0, least), most))
    return brackets


def _lamp_counts(splits: Sequence[Bracketed], count: int, brackets: Sequence[tuple[float, float]]) -> list[int] | None:
    """How many units each weight loses, by ordering only those in its bracket; None where a cut lies outside."""
    adapted = [_lamp_scores(np.sort(split.inside), split.squares) for split in splits]
    rank = count - sum(split.not_above for split in splits)
    if not 0 < rank <= sum(each.size for each in adapted):
        return None
    threshold = np.partition(np.concatenate(adapted), rank - 1)[rank - 1]
    for each, (low, high) in zip(adapted, brackets):
        is_low = low == 0.0 or (each.size and each[0] <= threshold)
        is_high = high == np.inf or (each.size and each[-1] >= threshold)
        if not (is_low and is_high):
            return None
    counts = [split.not_above + int(np.searchsorted(each, threshold)) for split, each in zip(splits, adapted)]
    tied = [int(np.count_nonzero(each == threshold)) for each in adapted]
    extra = in_order(tied, count - sum(counts))
    return [known + more for known, more in zip(counts, extra)]


def _lamp_scores(ordered: np.ndarray, beyond: float = 0.0) -> np.ndarray:
    """Layer-adaptive scores of units in rising order, with the sum of squares of those further up."""
    squares = np.square(np.maximum(ordered, 0.0), dtype=np.float64)
    not_below = beyond + np.cumsum(squares[::-1])[::-1]
    adapted = np.divide(squares, not_below, out=np.zeros(squares.shape), where=not_below > 0)
    # Rounding of the sums may break the order by a last digit; searchsorted needs it whole.
    return np.maximum.accumulate(adapted, out=adapted)


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

# Allocations that find the units themselves on the way to their counts.
MARKS: dict[str, Callable[[Units, float], dict[str, np.ndarray]]] = {"global": _global_marks, "lamp": _lamp_marks}

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
    if isinstance(allocation, str) and allocation in MARKS:  # the counts would only be chosen a second time
        return MARKS[allocation](units, share)
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
    arrays = {key: _shown(as_scores(scores)) for key, scores in units.items()}
    shares = answer_of(f"The allocation {name}", function, arrays, share)
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


def _shown(scores: Scores) -> np.ndarray:
    """Scores as a function of the user's sees them: of units that are gone, zeros say so as well as minus infinity."""
    if scores.kept is None:
        return scores.array()
    plain = scores.present().array()
    return scores.array() if np.any(plain[~scores.kept]) else plain
