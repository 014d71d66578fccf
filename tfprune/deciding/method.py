"""What a method is, and what it is once it is tied to a model.

A method is a plain, serialisable description: an amount, a criterion, and what else decides. `bind(model)` ties it to
the weights of a model; the bound method decides masks for a given amount, always on the host, exactly, and without
changing the model.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import keras
import numpy as np

from tfprune.deciding import criteria, patterns, schedules
from tfprune.deciding.amounts import is_number
from tfprune.deciding.configured import Configured
from tfprune.deciding.criterion import Context
from tfprune.deciding.schedules import Schedule
from tfprune.deciding.scores import Scores
from tfprune.deciding.statistics import Statistics, gather
from tfprune.errors import PruningError, listing
from tfprune.model.prunable import PrunableWeight, prunable_weights, warn_of_unnamed
from tfprune.model.selectors import selectors
from tfprune.model.tree import check_model, snapshot

Masks = dict[str, np.ndarray]
Own = TypeVar("Own", bound="Method")


class BoundMethod:
    """A method tied to the weights of one model.

    Attributes:
        weights: Every weight that the masks cover.
        extras: What a pass over data gathered for the criterion, by the key of the weight.
        progress: How far a run of training is on its way from the first to the last decision, from 0 to 1.
    """

    def __init__(self, method: "Method", weights: list[PrunableWeight]):
        self.method = method
        self.weights = weights
        self.extras: Mapping[str, Mapping[str, Any]] = {}
        self.progress = 0.0

    def decide(self, amount: float, kept: Mapping[str, np.ndarray] | None = None) -> Masks:
        """The masks (True = kept) at an amount.

        Args:
            amount: Sparsity in [0, 1), or a threshold, as the method has it.
            kept: Masks decided before; what they removed goes first. Defaults to None.
        """
        raise NotImplementedError

    def inform(self, model: keras.Model, data: Any = None) -> Statistics:
        """Gives the criterion what it needs to know of the data; nothing where it looks at weights alone."""
        found = gather(model, [weight.key for weight in self.scored], self.method.criterion, data)
        self.extras = found.extras
        return found

    @property
    def scored(self) -> list[PrunableWeight]:
        """The weights that the criterion scores."""
        return self.weights

    def leave(self, keys: set[str]) -> None:
        """Leaves weights out of every decision from now on."""
        self.weights = [weight for weight in self.weights if weight.key not in keys]

    def check_measured(self) -> None:
        """Raises PruningError where a decision needs what only `prune` measures; `fit` asks before it begins."""


class Method(Configured):
    """Base of every method.

    Args:
        amount: A number: the default gradual ramp to it in `fit`, exactly it in one-shot use. Or a schedule, a
            function `step -> amount`, or a tfmot schedule.
        criterion: Name, object, config, or function of the weight.
        layers: Which layers; see `tfprune.model.selectors.selectors`. A mapping gives each its own amount.
    """

    # How an overall amount is divided among weights or channel groups, where a method divides it.
    allocation: Any = None

    def __init__(self, amount: Any, criterion: Any, layers: Any):
        self.amount: Any = float(amount) if is_number(amount) else schedules.get(amount)
        self.criterion = criteria.get(criterion)
        self.layers = by_name(layers)

    @property
    def schedule(self) -> Schedule:
        """The amount as a schedule; a bare number ramps up to itself."""
        return schedules.get(self.amount)

    @property
    def final(self) -> float:
        """The amount of one-shot use: the number itself, or where the schedule ends."""
        return self.amount if isinstance(self.amount, float) else self.schedule.final

    def check_amount(self, amount: float) -> None:
        """Raises PruningError where an amount means nothing to the method."""
        raise NotImplementedError

    def bind(self, model: keras.Model) -> BoundMethod:
        """Ties the method to the weights of a model.

        Raises:
            PruningError: The model is not built, or has no weight that the method may prune.
        """
        raise NotImplementedError

    def with_amount(self: Own, amount: Any) -> Own:
        """The same method with another amount; this one stays as it is."""
        return self.with_arguments(amount=amount)

    @property
    def by_share(self) -> bool:
        """Whether the amount is a share, rather than a threshold."""
        return False

    @property
    def amounts_by_layer(self) -> Mapping[str, float] | None:
        """The final amounts of layers that have their own; None where all follow the overall one."""
        return next((amounts for amounts in (self.layers, self.allocation) if isinstance(amounts, Mapping)), None)

    def progress(self, amount: float) -> float:
        """How far the overall amount is on its way, from 0 to 1; amounts by layer follow it."""
        return min(1.0, amount / self.final) if self.final else 1.0

    def check_amounts(self) -> None:
        """Checks every amount that can be known before training.

        Raises:
            PruningError: One means nothing to the method, or amounts by layer follow one whose end is not known.
        """
        stated = [self.amount] if isinstance(self.amount, float) else list(self.schedule.extremes)
        for name, amounts in (("layers", self.layers), ("allocation", self.allocation)):
            if not isinstance(amounts, Mapping):
                continue
            if not self.schedule.ends:
                raise PruningError(
                    f"{name} gives amounts by layer ({listing(amounts)}), but {self.amount!r} does not say where it "
                    "ends, so their ramp is not known; write a schedule with a final amount, such as "
                    "Polynomial(0.0, 0.8)."
                )
            stated += amounts.values()
        for amount in stated:
            self.check_amount(amount)


class WeightMethod(Method):
    """Base of the methods that look at each weight by itself and zero entries of it.

    Args:
        amount, criterion, layers: See `Method`.
        pattern: Where zeros may fall; name, object or config.
    """

    def __init__(self, amount: Any, criterion: Any, pattern: Any, layers: Any):
        super().__init__(amount, criterion, layers)
        self.pattern = patterns.get(pattern)

    @property
    def is_by_weight(self) -> bool:
        """Whether what a weight loses depends on no other weight."""
        return False

    def choose(
        self, weights: list[PrunableWeight], units: Mapping[str, Scores], amount: float
    ) -> dict[str, np.ndarray]:
        """Marks the units (what the pattern removes together) to remove at an amount, True where chosen."""
        raise NotImplementedError

    def bind(self, model: keras.Model) -> "BoundMethod":
        weights = prunable_weights(check_model(model, "prune"), self.layers)
        for weight in weights:
            self.pattern.check(weight.key, weight.shape)
        warn_of_unnamed(model, self.layers)
        return BoundWeightMethod(self, weights)


class BoundWeightMethod(BoundMethod):
    """A method over single weights tied to a model: scores, then chosen units, then masks."""

    method: WeightMethod

    def values(self, weight: PrunableWeight) -> np.ndarray:
        """What the criterion looks at, for reading only."""
        return snapshot(weight.variable)

    def decide(self, amount: float, kept: Mapping[str, np.ndarray] | None = None) -> Masks:
        self.method.check_amount(amount)
        earlier = {key: mask for key, mask in (kept or {}).items() if not mask.all()}
        together = [[weight] for weight in self.weights] if self.method.is_by_weight else [self.weights]
        masks: Masks = {}
        for weights in together:
            masks.update(self._masks(weights, amount, earlier))
        return masks

    def _masks(self, weights: list[PrunableWeight], amount: float, earlier: Mapping[str, np.ndarray]) -> Masks:
        """The masks of some weights, between which the amount is divided."""
        pattern = self.method.pattern
        units, entries = {}, {}
        for weight in weights:
            units[weight.key], entries[weight.key] = self._scored(weight, earlier.get(weight.key))
        chosen = self.method.choose(weights, units, amount)
        for scores in units.values():
            scores.check()
        return {w.key: pattern.mask(chosen.pop(w.key), entries[w.key], w.input_axis) for w in weights}

    def _scored(self, weight: PrunableWeight, kept: np.ndarray | None) -> tuple[Scores, np.ndarray]:
        """The scores of the units of a weight, and what the pattern asks to know of its entries."""
        pattern, criterion = self.method.pattern, self.method.criterion
        values, context = self.values(weight), Context(weight.key, self.extras.get(weight.key, {}))
        shape_alone = np.broadcast_to(values.dtype.type(0), weight.shape)
        if pattern.is_of_entries:
            return criteria.scores(criterion, values, context, kept), shape_alone
        entries = criteria.score(criterion, values, context)
        scores = pattern.unit_scores(entries, criterion, weight.input_axis)
        if kept is None:
            return Scores(scores), entries if pattern.ranks_entries else shape_alone
        gone = pattern.pruned_units(kept, weight.input_axis)
        ranked = np.where(kept, entries, -np.inf) if pattern.ranks_entries else shape_alone
        return Scores(scores, np.logical_not(gone)), ranked


def by_name(layers: Any) -> Any:
    """`layers` in its lasting form: None, names, a mapping of names, or a predicate."""
    names = selectors(layers)
    if isinstance(layers, Mapping):
        for name, amount in layers.items():
            if not is_number(amount):
                raise PruningError(f"layers: {amount!r} for {name!r} is no amount; write a number, such as 0.8.")
    return dict(zip(names, layers.values())) if isinstance(layers, Mapping) and isinstance(names, list) else names
