"""Methods: an amount, a criterion, a pattern and an allocation put together; what a user hands to `fit` or `prune`.

A method is a plain, serialisable description. `bind(model)` ties it to the weights of a model; the bound method
decides masks for a given amount, always on the host, exactly, and without changing the model.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from tfprune.deciding import allocation as allocations
from tfprune.deciding import criteria, patterns, schedules
from tfprune.deciding.criteria import Context
from tfprune.deciding.pieces import pieces
from tfprune.deciding.schedules import Schedule
from tfprune.errors import PruningError, listing, nearest
from tfprune.model.prunable import PrunableWeight, amount_for, prunable_weights, selectors
from tfprune.model.tree import check_model, snapshot

Masks = dict[str, np.ndarray]


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

    @property
    def scored(self) -> list[PrunableWeight]:
        """The weights that the criterion scores."""
        return self.weights

    def forget(self) -> None:
        """Lets go of memory that is kept from one decision to the next."""


class Method:
    """Base of every method.

    Args:
        amount: A number: the default gradual ramp to it in `fit`, exactly it in one-shot use. Or a schedule, a
            function `step -> amount`, or a tfmot schedule.
        criterion: Name, object, config, or function of the weight.
        layers: Which layers; see `tfprune.model.prunable.selectors`. A mapping gives each its own amount.
    """

    def __init__(self, amount: Any, criterion: Any, layers: Any):
        self.amount = _amount(amount)
        self.criterion = criteria.get(criterion)
        self.layers = _named(layers)

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

    def get_config(self) -> dict[str, Any]:
        """The arguments that build the method again."""
        serialize = keras.saving.serialize_keras_object
        amount = self.amount if isinstance(self.amount, float) else serialize(self.amount)
        layers = serialize(self.layers) if callable(self.layers) else self.layers
        return {
            "amount": amount,
            "criterion": serialize(self.criterion),
            "layers": layers,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Method":
        """The method that `get_config` described."""
        return cls(**{name: _deserialized(value) for name, value in config.items()})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Method) and type(self) is type(other) and self._arguments() == other._arguments()

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._arguments().items())})"

    def _arguments(self) -> dict[str, Any]:
        """The arguments as objects: what cannot be serialised can still be shown and compared."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}


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
        return BoundWeightMethod(self, weights)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pattern": keras.saving.serialize_keras_object(self.pattern)}


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


@keras.saving.register_keras_serializable(package="tfprune")
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
        _check_progress(self)
        for value in _stated_amounts(self):
            self.check_amount(value)

    def check_amount(self, amount: float) -> None:
        if not 0.0 <= amount < np.inf:
            raise PruningError(f"Threshold: {amount} is no threshold; give a number of at least 0 in score units.")

    def choose(
        self, weights: list[PrunableWeight], units: Mapping[str, np.ndarray], amount: float
    ) -> dict[str, np.ndarray]:
        progress = _progress(self, amount)
        chosen = {}
        for weight in weights:
            own = amount_for(weight, self.layers) if isinstance(self.layers, Mapping) else None
            threshold = amount if own is None else own * progress
            if self.unit == "std":
                threshold = threshold * float(np.std(snapshot(weight.variable)))
            chosen[weight.key] = units[weight.key] <= threshold
        return chosen

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "unit": self.unit}


@keras.saving.register_keras_serializable(package="tfprune")
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
        self.allocation = _named(allocation) if isinstance(allocation, Mapping) else allocation
        _check_progress(self)
        for value in _stated_amounts(self):
            self.check_amount(value)
        ends = not isinstance(self.schedule, (schedules.Function, schedules.Tfmot))
        if pattern.full < 1.0 and ends and (isinstance(layers, Mapping) or not np.isclose(self.final, pattern.full)):
            raise PruningError(
                f"{pattern!r} always ends at sparsity {pattern.full:.6g}, not at {self.final:.6g} or at amounts by "
                f"layer; write Percentile({pattern.full:.6g}, pattern={pattern!r}), or leave the amount out."
            )

    def check_amount(self, amount: float) -> None:
        if not 0.0 <= amount < 1.0:
            raise PruningError(f"Percentile: {amount} is no sparsity in [0, 1); write 0.8 for 80 % zeros.")

    @property
    def scores_interact(self) -> bool:
        return self.allocation == "lamp" or callable(self.allocation)

    def bind(self, model: keras.Model) -> BoundMethod:
        bound = super().bind(model)
        if isinstance(self.allocation, Mapping):
            prunable_weights(model, list(self.allocation))  # raises where a name matches nothing
        return bound

    def choose(
        self, weights: list[PrunableWeight], units: Mapping[str, np.ndarray], amount: float
    ) -> dict[str, np.ndarray]:
        share = amount / self.pattern.full
        if self.pattern.full < 1.0:
            # Such an amount is often written with few digits (0.6667 for 1:3); near enough means all of it.
            share = 1.0 if share > 1.0 or np.isclose(share, 1.0) else share
            return allocations.choose("uniform", units, share)
        amounts = self.layers if isinstance(self.layers, Mapping) else self.allocation
        if isinstance(amounts, Mapping):
            progress = _progress(self, amount)
            counts = {}
            for weight in weights:
                own = amount_for(weight, amounts)
                counts[weight.key] = round((share if own is None else own * progress) * units[weight.key].size)
            return allocations.choose_counts(units, counts)
        return allocations.choose(self.allocation, units, share)

    def get_config(self) -> dict[str, Any]:
        allocation = self.allocation
        if callable(allocation):
            allocation = keras.saving.serialize_keras_object(allocation)
        return {**super().get_config(), "allocation": allocation}


NAMES: dict[str, type[Method]] = {"threshold": Threshold, "percentile": Percentile}


def get(identifier: Any) -> Method:
    """A method from itself, its config, or a number, which is `Percentile` of it.

    Raises:
        PruningError: Anything else.
    """
    if isinstance(identifier, Method):
        return identifier
    if isinstance(identifier, (int, float, np.integer, np.floating, Schedule)) and not isinstance(identifier, bool):
        return Percentile(identifier)
    if isinstance(identifier, Mapping) and "class_name" in identifier:
        return keras.saving.deserialize_keras_object(dict(identifier))
    if isinstance(identifier, str):
        known = nearest(identifier.lower(), NAMES)
        raise PruningError(f"A method needs its amount, not the name {identifier!r} alone: Percentile(0.8). {known}")
    raise PruningError(
        f"{identifier!r} is no method; give Percentile(0.8), Threshold(0.05), Structured(0.5), or a sparsity."
    )


def _amount(amount: Any) -> Any:
    """A number as float, everything else as a schedule."""
    if isinstance(amount, (int, float)) and not isinstance(amount, bool):
        return float(amount)
    if isinstance(amount, (np.integer, np.floating)):
        return float(amount)
    return schedules.get(amount)


def _stated_amounts(method: Method) -> list[float]:
    """Every amount that can be known before training, for early checks."""
    stated = [method.amount] if isinstance(method.amount, float) else list(method.schedule.extremes)
    return stated + (list(method.layers.values()) if isinstance(method.layers, Mapping) else [])


def _any(compare: np.ufunc, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> bool:
    """Whether an entry of any of the arrays compares so with that of the other of its pair."""
    return any(compare(*parts).any() for pair in pairs for parts in pieces(*pair))


def _named(layers: Any) -> Any:
    """`layers` in its lasting form: None, names, a mapping of names, or a predicate."""
    names = selectors(layers)
    if isinstance(layers, Mapping):
        for name, amount in layers.items():
            if isinstance(amount, bool) or not isinstance(amount, (int, float, np.integer, np.floating)):
                raise PruningError(f"layers: {amount!r} for {name!r} is no amount; write a number, such as 0.8.")
    return dict(zip(names, layers.values())) if isinstance(layers, Mapping) and isinstance(names, list) else names


def _progress(method: Method, amount: float) -> float:
    """How far the overall amount is on its way, for amounts given by layer."""
    if not isinstance(method.layers, Mapping) and not isinstance(getattr(method, "allocation", None), Mapping):
        return 1.0
    return min(1.0, amount / method.final) if method.final else 1.0


def _check_progress(method: Method) -> None:
    """Amounts by layer grow with the overall one, which therefore has to say where it ends."""
    for name in ("layers", "allocation"):
        amounts = getattr(method, name, None)
        if isinstance(amounts, Mapping) and isinstance(method.amount, (schedules.Function, schedules.Tfmot)):
            raise PruningError(
                f"{name} gives amounts by layer ({listing(amounts)}), but {method.amount!r} does not say where it "
                "ends, so their ramp is not known; write a schedule with a final amount, such as Polynomial(0.0, 0.8)."
            )


def _deserialized(value: Any) -> Any:
    if isinstance(value, Mapping) and "class_name" in value:
        return keras.saving.deserialize_keras_object(dict(value))
    return value
