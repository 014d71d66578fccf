"""What a method is, and what it is once it is tied to a model.

A method is a plain, serialisable description: an amount, a criterion, and what else decides. `bind(model)` ties it to
the weights of a model; the bound method decides masks for a given amount, always on the host, exactly, and without
changing the model.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import keras
import numpy as np

from tfprune.deciding import criteria, patterns, schedules
from tfprune.deciding.amounts import is_number
from tfprune.deciding.configured import Configured
from tfprune.deciding.criterion import Context
from tfprune.deciding.pieces import pieces
from tfprune.deciding.schedules import Schedule
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

    def forget(self) -> None:
        """Lets go of memory that is kept from one decision to the next."""


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
    def scores_interact(self) -> bool:
        """Whether the score of one unit has a say in the choice of others, beyond their order."""
        return False

    def choose(
        self, weights: list[PrunableWeight], units: Mapping[str, np.ndarray], amount: float
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

    def __init__(self, method: "Method", weights: list[PrunableWeight]):
        super().__init__(method, weights)
        # New memory for as many scores as there are weights would cost more than to work them out.
        self._scores: Masks = {}

    def forget(self) -> None:
        self._scores.clear()

    def values(self, weight: PrunableWeight) -> np.ndarray:
        """What the criterion looks at, for reading only."""
        return snapshot(weight.variable)

    def decide(self, amount: float, kept: Mapping[str, np.ndarray] | None = None) -> Masks:
        self.method.check_amount(amount)
        pattern, criterion = self.method.pattern, self.method.criterion
        entries, units = {}, {}
        for weight in self.weights:
            context = Context(weight.key, self.extras.get(weight.key, {}))
            scores = criteria.score(criterion, self.values(weight), context, self._scores.get(weight.key))
            self._scores[weight.key] = entries[weight.key] = scores
            units[weight.key] = pattern.unit_scores(scores, criterion, weight.input_axis)
        earlier = {weight: kept[weight.key] for weight in self.weights if kept and not kept[weight.key].all()}
        if not earlier:
            return self._masks(units, entries, amount)
        # What is gone is zero and mostly goes first by that alone. To try so is several times faster than to write
        # minus infinity over it, which then makes the same choice; it is left for zeros that are kept.
        if not pattern.ranks_entries and not (self.method.scores_interact and self._any_left(units, earlier)):
            masks = self._masks(units, entries, amount)
            if not _any(np.greater, ((masks[weight.key], mask) for weight, mask in earlier.items())):
                return masks
        for weight, mask in earlier.items():
            units[weight.key] = np.where(self._gone(weight, mask), -np.inf, units[weight.key])
            entries[weight.key] = np.where(mask, entries[weight.key], -np.inf)
        return self._masks(units, entries, amount)

    def _gone(self, weight: PrunableWeight, kept: np.ndarray) -> np.ndarray:
        """The units that an earlier mask has removed."""
        return self.method.pattern.pruned_units(kept, weight.input_axis)

    def _any_left(self, units: Masks, earlier: Mapping[PrunableWeight, np.ndarray]) -> bool:
        """Whether a unit that is gone has a score other than zero."""
        return _any(np.logical_and, ((self._gone(weight, mask), units[weight.key]) for weight, mask in earlier.items()))

    def _masks(self, units: Masks, entries: Masks, amount: float) -> Masks:
        chosen = self.method.choose(self.weights, units, amount)
        return {
            weight.key: self.method.pattern.mask(chosen[weight.key], entries[weight.key], weight.input_axis)
            for weight in self.weights
        }


def by_name(layers: Any) -> Any:
    """`layers` in its lasting form: None, names, a mapping of names, or a predicate."""
    names = selectors(layers)
    if isinstance(layers, Mapping):
        for name, amount in layers.items():
            if not is_number(amount):
                raise PruningError(f"layers: {amount!r} for {name!r} is no amount; write a number, such as 0.8.")
    return dict(zip(names, layers.values())) if isinstance(layers, Mapping) and isinstance(names, list) else names


def _any(compare: np.ufunc, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> bool:
    """Whether an entry of any of the arrays compares so with that of the other of its pair."""
    return any(compare(*parts).any() for pair in pairs for parts in pieces(*pair))
