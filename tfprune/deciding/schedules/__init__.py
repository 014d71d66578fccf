"""How much to prune at each step, and at which steps to decide the masks anew.

Every schedule is a function `step -> amount`. `begin`, `end` and `every` are optimizer steps when they are ints and
shares of the run when they are floats in [0, 1]; `bind(total_steps)` turns the shares into steps. A bound schedule
answers two separate questions: `bound(step)`, the amount, and `bound.fires(step)`, whether masks are decided there.
It always fires at `begin` and at `end`, so the final amount is reached however short the run is. Before `begin`
nothing is pruned.

>>> bound = Linear(0.0, 0.8, begin=0.0, end=1.0, every=0.25).bind(total_steps=101)
>>> [(step, round(bound(step), 2)) for step in bound.steps()]
[(0, 0.0), (25, 0.2), (50, 0.4), (75, 0.6), (100, 0.8)]
"""

from typing import Any

from tfprune.deciding.amounts import is_number
from tfprune.deciding.configured import from_identifier
from tfprune.deciding.schedules.functions import ScheduleFunction, from_tfmot, is_tfmot
from tfprune.deciding.schedules.ramps import (
    ACDC,
    Constant,
    Cosine,
    Exponential,
    Linear,
    OneShot,
    Piecewise,
    Polynomial,
    Ramp,
)
from tfprune.deciding.schedules.schedule import (
    DEFAULT_END,
    DEFAULT_EVERY,
    BoundSchedule,
    Moment,
    Schedule,
)
from tfprune.errors import PruningError

__all__ = [
    "ACDC",
    "DEFAULT_END",
    "DEFAULT_EVERY",
    "BoundSchedule",
    "Constant",
    "Cosine",
    "Exponential",
    "Linear",
    "Moment",
    "OneShot",
    "Piecewise",
    "Polynomial",
    "Ramp",
    "Schedule",
    "ScheduleFunction",
    "get",
]


def get(identifier: Any) -> Schedule:
    """A schedule from a schedule, its config, a number, a function, or a tfmot schedule.

    A number is the default gradual ramp to it. Functions take the step and give the amount.

    Raises:
        PruningError: Anything else.

    >>> get(0.8)
    Polynomial(initial=0.0, final=0.8, begin=0.0, end=0.75, every=0.02, power=3)
    """
    if is_number(identifier):
        return Polynomial(0.0, float(identifier))
    if is_tfmot(identifier):
        return from_tfmot(identifier)
    found = from_identifier(Schedule, identifier, function=ScheduleFunction)
    if found is None:
        raise PruningError(
            f"{identifier!r} is no schedule; give a number, a schedule such as Polynomial(0.0, 0.8), "
            "its config, or a function of the step."
        )
    return found
