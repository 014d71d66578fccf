"""Training with regrowth: what was removed can come back, and the share of zeros stays exact all the way."""

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfprune.deciding import schedules
from tfprune.deciding.amounts import is_number, is_share
from tfprune.deciding.criteria import Random
from tfprune.deciding.method import BoundMethod, BoundWeightMethod, Masks
from tfprune.deciding.methods import Percentile
from tfprune.deciding.schedules import DEFAULT_END, DEFAULT_EVERY, Constant, Moment
from tfprune.deciding.selection import smallest
from tfprune.errors import PruningError, number
from tfprune.model.copying import scope_of
from tfprune.model.prunable import PrunableWeight, prunable_weights
from tfprune.model.tree import snapshot
from tfprune.training import masks
from tfprune.training.callbacks import PruningCallback, refuse_wrapped
from tfprune.training.gradients import GradientRecord, latest
from tfprune.training.mask_callback import MaskCallback
from tfprune.training.masks import MaskConstraint, constraint_of
from tfprune.training.step import retrace


class LivingConstraint(MaskConstraint):
    """Holds zeros like a mask, and lets the weights under it live on: they go on moving with their gradients.

    The weight itself is what the forward pass sees, with its zeros. A step moves a masked entry from zero by what the
    optimizer makes of its gradient; that is added to the value that lives on, and the entry is zero again.

    Args:
        held: The constraint in whose place it comes.
        living: A float Keras variable of the weight's shape, for the values that live on.
    """

    def __init__(self, held: MaskConstraint, living: keras.Variable):
        super().__init__(held.mask, held.inner, held.decided)
        self.living = living

    def __call__(self, weight: Any) -> Any:
        ops = keras.ops
        step = ops.cast(ops.convert_to_tensor(weight), self.living.dtype)
        self.living.assign(ops.where(self.mask, step, self.living + step))
        return super().__call__(weight)

    def dense(self, weight: keras.Variable) -> Any:
        ops = keras.ops
        values = ops.where(self.mask, ops.cast(ops.convert_to_tensor(weight), self.living.dtype), self.living)
        self.living.assign(values)
        return ops.cast(values, weight.dtype)


class BoundSurgery(BoundWeightMethod):
    """A method that decides by the values that live on, and leans towards what is decided already."""

    def __init__(self, method: Percentile, weights: list[PrunableWeight], margin: float):
        super().__init__(method, weights)
        self.margin = margin

    def values(self, weight: PrunableWeight) -> np.ndarray:
        held = constraint_of(weight.variable)
        if not isinstance(held, LivingConstraint):
            return snapshot(weight.variable)
        kept = snapshot(held.mask)
        living = np.where(kept, snapshot(weight.variable), snapshot(held.living))
        # With a cut at c, kept entries go below c / (1 + margin), removed ones come back above c / (1 - margin).
        return living * np.where(kept, np.float32(1.0 + self.margin), np.float32(1.0 - self.margin))

    def decide(self, amount: float, kept: Mapping[str, np.ndarray] | None = None) -> Masks:
        return super().decide(amount)  # what is gone need not stay gone


class DynamicSurgery(PruningCallback):
    """Prunes while `fit` trains, and splices back what turns out to matter: dynamic network surgery.

    Removed weights are zero in the forward pass and live on behind it: their gradients go on moving them. At every
    update a kept entry goes when it falls below a lower threshold, a removed one comes back when it rises above a
    higher one, and between them everything stays as it is. Both thresholds follow from the amount, so that the share of
    zeros is exact at every update.

    Args:
        amount: Sparsity in [0, 1); number or schedule, as in `Percentile`.
        margin: How far the thresholds lie to either side of the cut, in [0, 1): kept entries go below cut / (1 +
            margin), removed ones come back above cut / (1 - margin). Defaults to `0.1`.
        criterion, pattern, allocation, layers: Those of `Percentile`.

    Raises:
        PruningError: A margin out of range, or what `Percentile` and `PruningCallback` raise.

    The values that live on are not part of the model: a run that is resumed begins with zeros for them.
    Guo et al., "Dynamic network surgery for efficient DNNs", 2016 (https://arxiv.org/abs/1608.04493).

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])
    >>> model.compile("sgd", "mse")
    >>> callback = DynamicSurgery(0.5)
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 5)), epochs=4, verbose=0, callbacks=[callback])
    >>> history.history["sparsity"][-1]
    0.5
    """

    def __init__(
        self,
        amount: Any,
        margin: float = 0.1,
        criterion: Any = "magnitude",
        pattern: Any = "element",
        allocation: Any = "lamp",
        layers: Any = None,
    ):
        if not is_share(margin):
            raise PruningError(f"DynamicSurgery: margin={margin!r} is not in [0, 1); write margin=0.1.")
        super().__init__(Percentile(amount, criterion, pattern, allocation, layers))
        self.margin = float(margin)

    def bound_methods(self) -> list[BoundMethod]:
        (bound,) = super().bound_methods()
        return [BoundSurgery(self.method, bound.weights, self.margin)]  # type: ignore[arg-type]

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        for weight in self._weights():
            held = constraint_of(weight.variable)
            if held is not None:
                with scope_of(self.model):
                    living = keras.Variable(snapshot(weight.variable), dtype="float32", trainable=False)
                weight.variable.constraint = LivingConstraint(held, living)
        retrace(self.model)


class BoundRigging(BoundMethod):
    """Drops the smallest kept entries of each weight and grows as many where the gradient is largest."""

    method: Percentile

    def __init__(self, method: Percentile, weights: list[PrunableWeight], fraction: float):
        super().__init__(method, weights)
        self.fraction = fraction
        self.record: GradientRecord | None = None

    def decide(self, amount: float, kept: Mapping[str, np.ndarray] | None = None) -> Masks:
        first = BoundWeightMethod(self.method, self.weights).decide(amount, kept)
        if kept is None:
            return first
        begun = {key: topped_up(kept[key], mask) for key, mask in first.items()}
        if masks.zeros(begun) != masks.zeros(kept):
            return begun
        if self.record is None or not self.record.seen:
            return dict(kept)
        # The share that moves falls to zero along half a cosine.
        share = 0.5 * self.fraction * (1.0 + math.cos(math.pi * self.progress))
        return {
            weight.key: rewired(snapshot(weight.variable), self.record.array(weight.key), kept[weight.key], share)
            for weight in self.weights
        }


def topped_up(kept: np.ndarray, first: np.ndarray) -> np.ndarray:
    """A first mask that takes nothing from one of an earlier run, to which it adds what that one has too little.

    An entry that was grown and has not moved from zero looks removed to a run that goes on from saved weights.

    >>> topped_up(np.array([1, 0, 0, 0], bool), np.array([0, 0, 1, 1], bool)).astype(int)
    array([1, 0, 1, 0])
    """
    missing = np.count_nonzero(first) - np.count_nonzero(kept)
    if missing < 0:
        return first
    added = np.flatnonzero(first & ~kept)[:missing]
    result = kept.copy()
    result.flat[added] = True
    return result


def rewired(weight: np.ndarray, gradient: np.ndarray, kept: np.ndarray, share: float) -> np.ndarray:
    """A mask of as many entries, some of which have moved from small weights to large gradients.

    >>> weight, gradient = np.array([3.0, 1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0, -2.0])
    >>> rewired(weight, gradient, np.array([1, 1, 0, 0], bool), 0.5).astype(int)
    array([1, 0, 0, 1])
    """
    count = round(share * np.count_nonzero(kept))
    stay = kept & ~smallest([np.where(kept, np.abs(weight), np.inf)], count)[0]
    return stay | smallest([np.where(stay, np.inf, -np.abs(gradient))], count)[0]


class RigL(MaskCallback):
    """Trains a network that is sparse from the first step on, moving its connections to where the loss wants them.

    It begins with random masks. At every update the smallest kept entries of each weight are dropped, and as many are
    grown, from zero, where the gradient of the last batch is largest. Each weight keeps its number of zeros.

    Args:
        sparsity: Share of zeros in [0, 1), from beginning to end.
        fraction: Share of the kept entries that moves at the first update; it falls to 0 along half a cosine.
            Defaults to `0.3`.
        initial: Criterion of the first masks. Defaults to None: chance, with seed 0; `Random(seed)` for another, or
            `"magnitude"` for a network that is trained already.
        allocation: See `Percentile`. Defaults to `"erk"`.
        layers: Which layers. Defaults to None: all.
        begin, end, every: First and last update and the distance between them; see `Schedule`.

    Raises:
        PruningError: A fraction or sparsity out of range; when `fit` begins, what `PruningCallback` raises.

    Evci et al., "Rigging the lottery: making all tickets winners", 2020 (https://arxiv.org/abs/1911.11134).

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 5)), epochs=4, verbose=0, callbacks=[RigL(0.5)])
    >>> history.history["sparsity"]
    [0.5, 0.5, 0.5, 0.5]
    """

    def __init__(
        self,
        sparsity: float,
        fraction: float = 0.3,
        initial: Any = None,
        allocation: Any = "erk",
        layers: Any = None,
        begin: Moment = 0.0,
        end: Moment = DEFAULT_END,
        every: Moment = DEFAULT_EVERY,
    ):
        super().__init__()
        if not is_number(fraction) or not 0.0 <= fraction <= 1.0:
            raise PruningError(f"RigL: fraction={fraction!r} is not in [0, 1]; write fraction=0.3.")
        if isinstance(sparsity, schedules.Schedule) or callable(sparsity):
            raise PruningError("RigL keeps one sparsity from beginning to end; give a number, such as 0.9.")
        self.fraction = float(fraction)
        sparsity = number("RigL: sparsity", sparsity, write="0.9")
        amount = Constant(sparsity, begin=begin, end=end, every=every)
        criterion = Random() if initial is None else initial
        self.method = Percentile(amount, criterion=criterion, allocation=allocation, layers=layers)

    def bound_methods(self) -> list[BoundMethod]:
        refuse_wrapped(self.pruned)
        weights = prunable_weights(self.pruned, self.method.layers)
        return [BoundRigging(self.method, weights, self.fraction)]

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        for run in self._runs:
            if isinstance(run.bound, BoundRigging):
                run.bound.record = self._follow(run.bound.weights, "gradient", latest)
