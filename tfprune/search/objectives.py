"""What candidates are judged by: the objectives, which way each is better, and budgets that must be met."""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfprune.errors import PruningError, listed, listing, nearest

# Measured on data; whether large is better. Of "metric" it is asked when the data are read, and in the place of
# "metrics" comes an objective for each of them then.
QUALITIES = {"accuracy": True, "f1": True, "loss": False, "metric": True, "metrics": True}
COSTS = ("parameters", "macs", "bytes", "latency", "memory")  # known from the genes; small is better
NAMES = (*QUALITIES, *COSTS)


@dataclass(frozen=True)
class MetricAsked:
    """What `"metric"` and `"metrics"` stand for: see `genetic_search`."""

    metric: Any = None
    mode: Any = None
    max_drop: Any = None


@dataclass(frozen=True)
class Objective:
    """One figure of a candidate that is to become large or small.

    Attributes:
        name: Its name.
        larger: Whether large is better.
        weight: Its part in the weighted sum, above 0.
        function: The user's own `candidate -> float`; None for those known by name.
        judged: What is measured, where it is a metric.
    """

    name: str
    larger: bool
    weight: float = 1.0
    function: Callable[[Any], float] | None = None
    judged: MetricAsked | None = None

    @property
    def sign(self) -> int:
        """1 where large is better, else -1."""
        return 1 if self.larger else -1


def get(objectives: Any, weights: Mapping[str, float] | None = None) -> tuple[Objective, ...]:
    """Objectives from names and functions.

    Args:
        objectives: A name, a function `candidate -> float`, or a sequence of these.
        weights: Name -> part in the weighted sum. Defaults to 1 each. A negative weight makes a function's value
            better when it is small.

    Raises:
        PruningError: An unknown name, one that comes twice, or a weight for none of them.

    >>> [objective.name for objective in get(("accuracy", "macs"))]
    ['accuracy', 'macs']
    """
    alone = isinstance(objectives, str) or callable(objectives)
    given = [objectives] if alone else listed("objectives", objectives or (), '("accuracy", "macs")')
    if not given:
        raise PruningError('objectives is empty; write objectives=("accuracy", "macs").')
    weights = dict(weights or {})
    found = [_objective(entry, weights) for entry in given]
    names = [objective.name for objective in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise PruningError(f"The objective {twice[0]!r} comes twice; name each once.")
    unknown = [name for name in weights if name not in names]
    if unknown:
        raise PruningError(f"weights names {listing(unknown)}, but the objectives are {listing(names)}.")
    return tuple(found)


def _objective(entry: Any, weights: Mapping[str, float]) -> Objective:
    if isinstance(entry, Objective):
        return entry
    if callable(entry):
        name = getattr(entry, "__name__", type(entry).__name__)
        weight = _weight(name, weights)
        return Objective(name, weight > 0, abs(weight), entry)
    if entry not in NAMES:
        raise PruningError(
            f"There is no objective {entry!r}. {nearest(str(entry), NAMES)} Or give a function candidate -> float."
        )
    weight = _weight(entry, weights)
    if weight < 0:
        raise PruningError(f"weights[{entry!r}]={weight}: which way '{entry}' is better is known; write a number > 0.")
    return Objective(entry, QUALITIES.get(entry, False), weight)


def _weight(name: str, weights: Mapping[str, float]) -> float:
    weight = weights.get(name, 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < abs(weight) < float("inf"):
        raise PruningError(f"weights[{name!r}]={weight!r} is no weight; write a number other than 0, such as 1.0.")
    return float(weight)


def check_budget(budget: Mapping[str, float] | None) -> dict[str, float]:
    """The budget, once it is known to be one.

    Args:
        budget: Name of a cost -> the largest share of the unpruned model's, in (0, 1].

    Raises:
        PruningError: A name that is no cost, or a share out of its range.
    """
    checked = {}
    if budget is not None and not isinstance(budget, Mapping):
        raise PruningError(f"budget={budget!r} is no mapping of costs to shares; write budget={{'macs': 0.5}}.")
    for name, share in (budget or {}).items():
        if name not in COSTS:
            raise PruningError(f"budget names {name!r}, which is no cost. {nearest(str(name), COSTS)}")
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0.0 < share <= 1.0:
            raise PruningError(
                f"budget[{name!r}]={share!r} is no share of the unpruned model's {name} in (0, 1]; write 0.5 for half."
            )
        checked[name] = float(share)
    return checked


class Rank(enum.IntEnum):
    """What kind of candidate it is; any of a later kind is better."""

    FAILED = 0
    BEYOND_BUDGET = 1
    WITHIN_BUDGET = 2


@dataclass(frozen=True, order=True)
class Standing:
    """How good a candidate is: the larger of two is better.

    Attributes:
        rank: What kind of candidate it is.
        value: Among those of a kind: the weighted sum, or how near the budget is.
        merits: The objectives as numbers that are all better when larger; only within the budget.
    """

    rank: Rank
    value: float = 0.0
    merits: tuple[float, ...] = field(default=(), compare=False)


class Judgement:
    """How good figures are: against the unpruned model, and under a budget.

    Args:
        objectives: What counts.
        budget: Name of a cost -> largest share of the unpruned model's.
        dense: The unpruned model's figures.
    """

    def __init__(self, objectives: Sequence[Objective], budget: Mapping[str, float], dense: Mapping[str, float]):
        self.objectives, self.budget, self.dense = tuple(objectives), dict(budget), dict(dense)

    def excess(self, figures: Mapping[str, float]) -> float:
        """By how much the budget is missed, as shares of its limits; 0 where it is met."""
        total = 0.0
        for name, share in self.budget.items():
            limit = share * self.dense[name]
            total += max(0.0, figures[name] / limit - 1.0 - 1e-9) if limit else 0.0
        return total

    def merits(self, figures: Mapping[str, float]) -> tuple[float, ...]:
        """The objectives as numbers that are all better when larger."""
        return tuple(objective.sign * figures[objective.name] for objective in self.objectives)

    def sum(self, figures: Mapping[str, float]) -> float:
        """The weighted sum of the objectives, each as a multiple of the unpruned model's; larger is better."""
        return float(
            sum(
                objective.sign * objective.weight * figures[objective.name] / (abs(self.dense[objective.name]) or 1.0)
                for objective in self.objectives
            )
        )

    def standing(self, figures: Mapping[str, float]) -> Standing:
        """How good figures are; none is for a candidate that failed."""
        if not figures:
            return Standing(Rank.FAILED)
        excess = self.excess(figures)
        if excess:
            return Standing(Rank.BEYOND_BUDGET, -excess)
        return Standing(Rank.WITHIN_BUDGET, self.sum(figures), self.merits(figures))
