"""How important each entry of a weight is, by the weight alone, and every criterion by its name: larger is kept.

Every criterion is a function `(weight, context) -> entries`: an array of the weight's shape whose entries add up over
a block or a channel. `total` turns such a sum into the score of the whole (the root of a sum of squares, say), so one
criterion serves single entries, blocks and channels alike.
"""

import zlib
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from tfprune.deciding import salience
from tfprune.deciding.configured import from_identifier
from tfprune.deciding.criterion import Context, Criterion, CriterionFunction
from tfprune.deciding.pieces import PIECE, pieces
from tfprune.deciding.scores import Scores
from tfprune.errors import PruningError, listing, nearest


class Magnitude(Criterion):
    """The absolute value; over blocks and channels the L1 norm.

    Han et al., "Learning both weights and connections", 2015 (https://arxiv.org/abs/1506.02626);
    for channels Li et al., "Pruning filters for efficient ConvNets", 2017 (https://arxiv.org/abs/1608.08710).

    >>> Magnitude()(np.array([-2.0, 0.5]), Context())
    array([2. , 0.5])
    """

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        return np.abs(weight)


class L2(Criterion):
    """The L2 norm: for single entries the same order as the magnitude, for blocks and channels the Euclidean length.

    >>> criterion = L2()
    >>> float(criterion.total(criterion(np.array([3.0, -4.0]), Context()).sum()))
    5.0
    """

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        return np.square(weight)

    def total(self, summed: np.ndarray) -> np.ndarray:
        return np.sqrt(summed)


class Random(Criterion):
    """Chance, the honest baseline: the same seed and weight name give the same scores at every update.

    Args:
        seed: Any int. Defaults to `0`.
    """

    def __init__(self, seed: int = 0):
        self.seed = seed

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        # The name goes in by a checksum, since Python's own hash of text differs from process to process.
        generator = np.random.default_rng([self.seed, zlib.crc32(context.key.encode())])
        return generator.random(weight.shape, dtype=np.float32)


class GeometricMedian(Magnitude):
    """For channels: the sum of distances to all other channels of the weight, so the most replaceable one goes first.

    Single entries and blocks have no such distance and are scored by magnitude.
    He et al., "Filter pruning via geometric median", 2019 (https://arxiv.org/abs/1811.00250).

    >>> filters = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    >>> GeometricMedian().channels(filters, np.abs(filters)).round(3).tolist()
    [6.0, 9.243, 5.243]
    """

    def channels(self, weights: np.ndarray, entries: np.ndarray) -> np.ndarray:
        flat = weights.astype(np.float64)
        squares = np.square(flat).sum(axis=1)
        # |a - b|^2 = |a|^2 + |b|^2 - 2ab needs no array of all differences; rounding may fall just below zero.
        distances = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2.0 * flat @ flat.T, 0.0))
        return distances.sum(axis=1)


class BatchNormScale(Magnitude):
    """For channels: the absolute scale (gamma) of the batch norm after them; groups without one are left whole.

    Liu et al., "Learning efficient convolutional networks through network slimming", 2017
    (https://arxiv.org/abs/1708.06519).
    """

    reads = "gamma"


class NormalizedMagnitude(Criterion):
    """The absolute value over the largest of the weight, so that layers compare on one scale.

    >>> NormalizedMagnitude()(np.array([-2.0, 4.0]), Context())
    array([0.5, 1. ])
    """

    def __call__(self, weight: np.ndarray, context: Context) -> np.ndarray:
        size = np.abs(weight)
        largest = size.max(initial=0.0)
        return size / largest if largest > 0 else size


NAMES: dict[str, type[Criterion]] = {
    "magnitude": Magnitude,
    "l1": Magnitude,
    "l2": L2,
    "random": Random,
    "geometric_median": GeometricMedian,
    "batch_norm": BatchNormScale,
    "normalized_magnitude": NormalizedMagnitude,
    "gradient_norm": salience.GradientNorm,
    "taylor": salience.Taylor,
    "sensitivity": salience.Taylor,
    "normalized_sensitivity": salience.NormalizedSensitivity,
    "fisher": salience.Fisher,
    "multi_task": salience.MultiTask,
    "hessian": salience.Hessian,
    "snip": salience.Snip,
    "grasp": salience.Grasp,
    "synflow": salience.SynapticFlow,
    "wanda": salience.Wanda,
    "activation": salience.Activation,
    "movement": salience.Movement,
}


def get(identifier: Any) -> Criterion:
    """A criterion from its name, config, a function or itself.

    Raises:
        PruningError: An unknown name, or something else.

    >>> get("l2")
    L2()
    """
    if isinstance(identifier, type) and issubclass(identifier, Criterion):
        return identifier()
    if isinstance(identifier, str) and identifier not in NAMES:
        raise PruningError(f"There is no criterion {identifier!r}. {nearest(identifier, NAMES)}")
    found = from_identifier(Criterion, identifier, NAMES, CriterionFunction)
    if found is None:
        raise PruningError(
            f"{identifier!r} is no criterion; give one of {listing(NAMES)}, or a function of the weight."
        )
    return found


# Criteria that score each entry by itself and carry every NaN and infinity of a weight into its scores.
ENTRYWISE: dict[type[Criterion], np.ufunc] = {Magnitude: np.abs, L2: np.square}


def is_entrywise(criterion: Criterion) -> bool:
    """Whether the score of an entry depends on its value alone, so that none need be kept."""
    return type(criterion) in ENTRYWISE


class EntrywiseScores(Scores):
    """The scores of the entries of a weight, worked out wherever they are read, and checked to be finite."""

    def __init__(self, criterion: Criterion, weight: np.ndarray, context: Context, kept: np.ndarray | None = None):
        super().__init__(weight, kept)
        self._criterion, self._context = criterion, context
        self._ufunc = ENTRYWISE[type(criterion)]
        self._is_checked = False

    def check(self) -> None:
        if not self._is_checked:
            for _ in self._pieces():
                pass

    def _pieces(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        yield from super()._pieces()
        self._is_checked = True

    def _of(self, values: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        with np.errstate(over="ignore"):  # reported below
            entries = self._ufunc(values, out=out)
        if entries.size and not np.isfinite(entries.max()):  # carries any NaN with it
            _refuse(self._criterion, self.values, self._ufunc(self.values), self._context)
        return self._criterion.total(entries)


def scores(criterion: Criterion, weight: np.ndarray, context: Context, kept: np.ndarray | None = None) -> Scores:
    """The scores of the entries of a weight, each by itself; those that are not kept go first.

    Raises:
        PruningError: As `score` does; where a criterion looks at each entry alone, as soon as they are read or checked.
    """
    if is_entrywise(criterion):
        return EntrywiseScores(criterion, weight, context, kept)
    return Scores(criterion.total(score(criterion, weight, context)), kept)


def score(criterion: Criterion, weight: np.ndarray, context: Context) -> np.ndarray:
    """The additive entries of a weight, checked to be finite.

    Args:
        criterion: Gives the scores.
        weight: The values of the weight.
        context: What else the criterion may look at.

    Raises:
        PruningError: The weight or its scores hold NaN or infinity.
    """
    with np.errstate(over="ignore"):  # reported below
        entries = criterion(weight, context)
    if not (_is_finite(weight) and _is_finite(entries)):
        _refuse(criterion, weight, entries, context)
    return entries


def _refuse(criterion: Criterion, weight: np.ndarray, entries: np.ndarray, context: Context) -> NoReturn:
    bad = int(np.count_nonzero(~np.isfinite(weight)))
    if bad:
        raise PruningError(
            f"The weight '{context.key}' has {bad} NaN or infinite entries, so its importance under {criterion!r} "
            "is not defined. Lower the learning rate or restore a checkpoint from before they appeared."
        )
    bad = int(np.count_nonzero(~np.isfinite(entries)))
    raise PruningError(
        f"{criterion!r} gave {bad} NaN or infinite scores for '{context.key}', whose entries are finite "
        f"(up to {np.abs(weight).max():.3g}); a score must be a finite number."
    )


def _is_finite(array: np.ndarray) -> bool:
    # The largest and smallest entry carry any NaN or infinity with them: cheaper than a mask.
    return all(np.isfinite(piece.max()) and np.isfinite(piece.min()) for (piece,) in pieces(array))


def channel_scores(criterion: Criterion, weight: np.ndarray, context: Context, member: Any) -> np.ndarray:
    """The additive score of every channel of one weight."""
    if not is_entrywise(criterion):
        entries = score(criterion, weight, context)
        return criterion.channels(
            by_channel(weight, member, member.positions), by_channel(entries, member, member.positions)
        )
    scores(criterion, weight, context).check()
    # At least two channels at a time: NumPy adds up the entries of a single one in another order.
    count = max(1, min(len(member.positions) // 2, weight.size // PIECE))
    parts = (by_channel(weight, member, positions) for positions in np.array_split(member.positions, count))
    return np.concatenate([criterion.channels(part, criterion(part, context)) for part in parts])


def by_channel(array: np.ndarray, member: Any, positions: np.ndarray) -> np.ndarray:
    """The entries of a weight at some positions of a member's axis: `[channels, entries per channel]`."""
    rows = array.reshape(member.variable.shape)  # a table of rows where a layer uses the weight by itself
    moved = np.moveaxis(rows, member.axis, 0)[positions]
    return moved.reshape(len(positions), -1)
