"""What a search is told, checked, as one value: it goes whole to workers, and into the header of the journal."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tfprune.errors import PruningError
from tfprune.model.metrics import Metric
from tfprune.search import objectives as goals


@dataclass(frozen=True)
class Settings:
    """All that a search is told but for model and data; see `genetic_search`.

    Attributes:
        strategy: Name of the search.
        objectives: Names or functions as given; `Objective`s from then on.
        steering: What else decides which candidates the strategy asks for, by name.

    Raises:
        PruningError: One of them is wrong.
    """

    strategy: str
    objectives: Any
    genome: str = "channels"
    weights: Mapping[str, float] | None = None
    budget: Mapping[str, float] | None = None
    seed: int = 0
    workers: int = 1
    criterion: Any = None
    layers: Any = None
    pattern: Any = "element"
    fine_tune: int | None = None
    evaluations: int | None = None
    seconds: float | None = None
    steering: Mapping[str, Any] = field(default_factory=dict)
    metric: Any = None
    mode: Any = None
    max_drop: Any = None

    def __post_init__(self) -> None:
        check_count("seed", self.seed, 0)
        check_count("workers", self.workers, 1)
        if self.evaluations is not None:
            check_count("evaluations", self.evaluations, 1)
        if self.seconds is not None:
            number = isinstance(self.seconds, (int, float)) and not isinstance(self.seconds, bool)
            if not number or not self.seconds > 0:
                raise PruningError(f"seconds={self.seconds!r}: give a number above 0, such as 600 for ten minutes.")
        named = (self.metric, self.mode) != (None, None)
        if named and isinstance(self.objectives, (tuple, list)):
            object.__setattr__(self, "objectives", ["metric" if e == "accuracy" else e for e in self.objectives])
        if named and self.objectives == "accuracy":
            object.__setattr__(self, "objectives", "metric")
        object.__setattr__(self, "objectives", goals.get(self.objectives, self.weights))
        names = {objective.name for objective in self.objectives}
        if named and not names & {"metric", "metrics"}:
            raise PruningError('metric= says what the objective "metric" is; write objectives=("metric", "macs").')
        if "metrics" in names and (self.max_drop is not None or "metric" in names):
            raise PruningError(
                'With "metrics" every metric is an objective by itself; leave out max_drop= and the objective "metric".'
            )
        object.__setattr__(self, "budget", goals.check_budget(self.budget))

    @property
    def measured(self) -> set[str]:
        """The objectives known by name, and the costs of the budget."""
        return {each.name for each in self.objectives if each.function is None} | set(self.budget or ())

    @property
    def judged(self) -> goals.MetricAsked:
        """What the objectives `"metric"` and `"metrics"` stand for."""
        return goals.MetricAsked(self.metric, self.mode, self.max_drop)

    def settled(self, metrics: Sequence[Metric]) -> "Settings":
        """The same once it is known what the metrics are, and which way each is better."""
        # What several make together is a merit, larger for better.
        larger = len(metrics) > 1 or metrics[0].mode == "max"

        def told(objective: goals.Objective) -> list[goals.Objective]:
            if objective.name == "metrics" and len(metrics) > 1:
                known = replace(objective, judged=self.judged)
                return [replace(known, name=each.name, larger=each.mode == "max") for each in metrics]
            if objective.name in ("metric", "metrics"):
                return [replace(objective, name="metric", larger=larger, judged=self.judged)]
            return [objective]

        objectives = tuple(each for objective in self.objectives for each in told(objective))
        return replace(self, objectives=objectives, metric=None, mode=None, weights=None)

    @property
    def description(self) -> str:
        """What is searched, in a few words."""
        removed = "weights" if self.genome == "weights" else "channels"
        return f"search {removed}" + (f" to {max(self.budget.values()):.0%}" if self.budget else "")

    def header(self) -> dict[str, Any]:
        """What figures depend on, or the way that the search takes, as plain values for the journal.

        Layers are not among them, as a journal notes what the genome makes of them. A function goes by its name.
        """
        judged = [each.judged for each in self.objectives if each.judged is not None]
        return {
            "seed": self.seed,
            "objectives": [[each.name, each.sign, each.weight] for each in self.objectives],
            "budget": self.budget,
            "genome": self.genome,
            "criterion": _words(self.criterion),
            **dict.fromkeys(["metric"] if judged else [], _words(judged)),
            "pattern": _words(self.pattern),
            "settings": {"strategy": self.strategy, **self.steering},
        }


def check_count(name: str, value: Any, least: int) -> int:
    """A whole number of at least `least`.

    Raises:
        PruningError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise PruningError(f"{name}={value!r}: give a whole number of {least} or more.")
    return value


def _words(value: Any) -> str:
    """A setting in words that are the same in the next process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
