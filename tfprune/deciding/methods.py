"""Methods that zero weights: an amount, a criterion, a pattern and an allocation put together, for `fit` or `prune`."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfprune.deciding import allocation as allocations
from tfprune.deciding import patterns
from tfprune.deciding.amounts import is_number, is_share
from tfprune.deciding.configured import from_identifier
from tfprune.deciding.method import BoundMethod, Method, WeightMethod, by_name
from tfprune.deciding.schedules import Schedule
from tfprune.deciding.scores import Scores
from tfprune.errors import PruningError, nearest
from tfprune.model.prunable import PrunableWeight, prunable_weights
from tfprune.model.selectors import amount_for
from tfprune.model.tree import snapshot


class Threshold(WeightMethod):
    """Removes what scores no more than a threshold; what is kept scores above it.

    Args:
        amount: The threshold in the criterion's unit (for magnitude, |weight|), at least 0; number or schedule.
        criterion: Defaults to `"magnitude"`.
        pattern: `"element"` (default) or a block, whose mean entry is compared.
        layers: Which layers. Defaults to None: all.
        unit: `"absolute"` (default), or `"std"`: multiples of the standard deviation of each weight's entries
            (zeros included) at the time of deciding.

    Raises:
        PruningError: A negative threshold, or an N:M pattern (which has no threshold).

    >>> Threshold(0.05).final
    0.05
    """

    def __init__(
        self,
        amount: Any,
        criterion: Any = "magnitude",
        pattern: Any = "element",
        layers: Any = None,
        unit: str = "absolute",
    ):
        super().__init__(amount, criterion, pattern, layers)
        if unit not in ("absolute", "std"):
            raise PruningError(f"Threshold: unit={unit!r} is not known; write 'absolute' or 'std'.")
        if self.pattern.full < 1.0:
            raise PruningError(f"{self.pattern!r} keeps a fixed number and has no threshold; write Percentile instead.")
        self.unit = unit
        self.check_amounts()

    @property
    def is_by_weight(self) -> bool:
        return True

    def check_amount(self, amount: float) -> None:
        if not 0.0 <= amount < np.inf:
            raise PruningError(f"Threshold: {amount} is no threshold; give a number of at least 0 in score units.")

    def choose(
        self, weights: list[PrunableWeight], units: Mapping[str, Scores], amount: float
    ) -> dict[str, np.ndarray]:
        chosen = {}
        for weight in weights:
            own = amount_for(weight, self.amounts_by_layer or {})
            threshold = amount if own is None else own * self.progress(amount)
            if self.unit == "std":
                threshold = threshold * float(np.std(snapshot(weight.variable)))
            chosen[weight.key] = units[weight.key].marked(np.less_equal, threshold)
        return chosen


class Percentile(WeightMethod):
    """Removes an exact share of the weights, the least important first.

    Args:
        amount: Sparsity in [0, 1); number or schedule. For an N:M pattern it may be left out or must end at the
            pattern's own `1 - keep / group`.
        criterion: Defaults to `"magnitude"`. One that reads data (`"taylor"`, `"fisher"`, `"wanda"`, ...) works in
            `prune`, `"movement"` in `fit`.
        pattern: `"element"` (default), `"4x1"` (blocks), `"2:4"` (keep 2 of every 4 inputs), or an object.
        allocation: How the overall share is divided: `"lamp"` (default), `"uniform"`, `"global"`, `"erk"`,
            `"hierarchical"` (from the last weight towards the first); a mapping of layer name to its final sparsity
            (layers not named take the overall amount); or a function `(scores by weight, share) -> share by weight`.
            An N:M pattern takes the same share everywhere.
        layers: Which layers. Defaults to None: all. A mapping `{layer: amount}` prunes those alone, each to its own
            final amount.

    Raises:
        PruningError: A sparsity outside [0, 1), or one that the N:M pattern does not have.

    >>> Percentile(0.9).final
    0.9
    """

    def __init__(
        self,
        amount: Any = None,
        criterion: Any = "magnitude",
        pattern: Any = "element",
        allocation: Any = "lamp",
        layers: Any = None,
    ):
        pattern = patterns.get(pattern)
        if amount is None:
            if pattern.full == 1.0:
                raise PruningError("Percentile: no amount given; write Percentile(0.8) for 80 % zeros.")
            amount = pattern.full
        super().__init__(amount, criterion, pattern, layers)
        allocation = allocations.check(allocation)
        self.allocation = by_name(allocation) if isinstance(allocation, Mapping) else allocation
        self.check_amounts()
        if (
            pattern.full < 1.0
            and self.schedule.ends
            and (isinstance(layers, Mapping) or not np.isclose(self.final, pattern.full))
        ):
            raise PruningError(
                f"{pattern!r} always ends at sparsity {pattern.full:.6g}, not at {self.final:.6g} or at amounts by "
                f"layer; write Percentile({pattern.full:.6g}, pattern={pattern!r}), or leave the amount out."
            )

    def check_amount(self, amount: float) -> None:
        if not is_share(amount):
            raise PruningError(f"Percentile: {amount} is no sparsity in [0, 1); write 0.8 for 80 % zeros.")

    @property
    def by_share(self) -> bool:
        return True

    @property
    def is_by_weight(self) -> bool:
        return self.pattern.full < 1.0 or self.amounts_by_layer is not None or self.allocation == "uniform"

    def bind(self, model: keras.Model) -> BoundMethod:
        bound = super().bind(model)
        if isinstance(self.allocation, Mapping):
            prunable_weights(model, list(self.allocation))  # raises where a name matches nothing
        return bound

    def choose(
        self, weights: list[PrunableWeight], units: Mapping[str, Scores], amount: float
    ) -> dict[str, np.ndarray]:
        share = amount / self.pattern.full
        if self.pattern.full < 1.0:
            # Such an amount is often written with few digits (0.6667 for 1:3); near enough means all of it.
            share = 1.0 if share > 1.0 or np.isclose(share, 1.0) else share
            return allocations.choose("uniform", units, share)
        if self.amounts_by_layer is not None:
            counts = {}
            for weight in weights:
                own = amount_for(weight, self.amounts_by_layer)
                part = share if own is None else own * self.progress(amount)
                counts[weight.key] = round(part * units[weight.key].size)
            return allocations.choose_counts(units, counts)
        return allocations.choose(self.allocation, units, share)


NAMES: dict[str, type[Method]] = {"threshold": Threshold, "percentile": Percentile}


def get(identifier: Any) -> Method:
    """A method from itself, its config, or a number, which is `Percentile` of it.

    Raises:
        PruningError: Anything else.
    """
    if is_number(identifier) or isinstance(identifier, Schedule):
        return Percentile(identifier)
    if isinstance(identifier, str):
        known = nearest(identifier.lower(), NAMES)
        raise PruningError(f"A method needs its amount, not the name {identifier!r} alone: Percentile(0.8). {known}")
    found = from_identifier(Method, identifier)
    if found is None:
        raise PruningError(
            f"{identifier!r} is no method; give Percentile(0.8), Threshold(0.05), Structured(0.5), or a sparsity."
        )
    return found
