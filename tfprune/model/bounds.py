"""How much worse metrics may become: absolute or relative, one bound for all or one for each output."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfprune.errors import PruningError, listing, nearest
from tfprune.model.metrics import DIFFERENCE, Metric

SLACK = 1e-9  # of rounding


class Bound(NamedTuple):
    """How much worse a metric may become: in its own unit, or as a share of the unpruned model's value."""

    amount: float
    relative: bool = False

    def allowed(self, dense: float) -> float:
        """The bound in the unit of the metric."""
        return self.amount * abs(dense) if self.relative else self.amount

    def text(self, metric: Metric) -> str:
        """The bound in words."""
        if self.relative:
            return f"{self.amount:.4g} times the unpruned value" if self.amount >= 1 else f"{100 * self.amount:.4g} %"
        return f"{100 * self.amount:.4g} points" if metric.is_share else f"{self.amount:.4g}"


class Bounds:
    """The bounds of all metrics, against the unpruned model's values.

    Args:
        given: A number, a text such as `"5%"`, or a dict of these by output.
        metrics: What is judged.
        dense: The unpruned model's values.

    Raises:
        PruningError: A bound is none, or is for an output that nothing judges.
    """

    def __init__(self, given: Any, metrics: Sequence[Metric], dense: Sequence[float]):
        self.metrics, self.dense = tuple(metrics), tuple(dense)
        if isinstance(given, Mapping):
            known = [metric.output for metric in metrics]
            unknown = [str(name) for name in given if name not in known]
            if unknown:
                judged = listing(known) if any(known) else "only the model as a whole"
                raise PruningError(
                    f"max_drop names the output {listing(unknown)}, which nothing judges; judged is {judged}. "
                    f"{nearest(unknown[0], known)}"
                )
            missing = [name for name in known if name not in given]
            if missing:
                raise PruningError(f"max_drop says nothing of the output {listing(missing)}; give each a bound.")
            each = [bound_of(given[metric.output]) for metric in metrics]
        else:
            each = [bound_of(given)] * len(self.metrics)
        # A difference is a share of the values already.
        each = [b._replace(relative=b.relative and m.name.split()[-1] != DIFFERENCE) for b, m in zip(each, metrics)]
        for metric, bound in zip(metrics, each):
            if metric.is_share and not bound.relative and not bound.amount < 1.0:
                raise PruningError(f"max_drop={given!r} is no share of accuracy in [0, 1); write 0.01 for one point.")
        self.each = tuple(each)

    @property
    def allowed(self) -> list[float]:
        """How much worse each metric may become, in its unit."""
        return [bound.allowed(dense) for bound, dense in zip(self.each, self.dense)]

    def worse(self, values: Sequence[float]) -> list[float]:
        """How much worse each metric became, in its unit."""
        return [metric.worse(*pair) for metric, *pair in zip(self.metrics, values, self.dense)]

    def hold(self, values: Sequence[float]) -> bool:
        """Whether all values are within their bounds."""
        return all(worse <= allowed + SLACK for worse, allowed in zip(self.worse(values), self.allowed))

    def merit(self, values: Sequence[float]) -> float:
        """How good values are as one number, larger for better: of one metric its own value.

        Of several it is what the metric nearest to its bound, or furthest beyond, has left of it, as a share.
        """
        if not np.isfinite(values).all():
            return -np.inf
        if len(self.metrics) == 1:
            return values[0] if self.metrics[0].mode == "max" else -values[0]
        scales = [max(allowed, 1e-3 * abs(dense), SLACK) for allowed, dense in zip(self.allowed, self.dense)]
        return -max(worse / scale for worse, scale in zip(self.worse(values), scales))

    def lax(self) -> list[str]:
        """Sentences about bounds that allow an error to become larger than it is by more than itself."""
        return [
            f"The bound of {metric.name} lets an error of {dense:.4g} grow by {allowed:.4g}; max_drop='10%' bounds it "
            "relatively."
            for metric, dense, allowed in zip(self.metrics, self.dense, self.allowed)
            if metric.mode == "min" and dense > 0 and allowed > dense
        ]


def bound_of(given: Any) -> Bound:
    """A bound from a number, or from a text such as `"5%"`.

    Raises:
        PruningError: It is neither.

    >>> bound_of("5%")
    Bound(amount=0.05, relative=True)
    """
    if isinstance(given, str) and given.strip().endswith("%"):
        try:
            number = float(given.strip()[:-1]) / 100
        except ValueError:
            number = -1.0
        if 0.0 <= number < float("inf"):
            return Bound(number, relative=True)
    number = isinstance(given, (int, float)) and not isinstance(given, bool)
    if not number or not 0.0 <= given < float("inf"):
        raise PruningError(
            f"max_drop={given!r} is no bound: give 0.01, in the metric's own unit (of accuracy: one point), or '5%' "
            "of the unpruned model's value, or a dict of these by output."
        )
    return Bound(float(given))
