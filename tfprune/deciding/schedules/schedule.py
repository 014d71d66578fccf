"""What every schedule is, what it is once it is tied to a run of so many steps, and the moments of a run."""

import math
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfprune.deciding.configured import Configured
from tfprune.errors import PruningError

Moment = int | float

# The ramp leaves the last part of a run to training at the final sparsity, where most of the accuracy comes back.
DEFAULT_END = 0.75
DEFAULT_EVERY = 0.02


class Schedule(Configured):
    """A ramp from one amount to another: the base of every schedule.

    Args:
        begin: First update; int optimizer step or float share of the run. Defaults to `0.0`.
        end: Last update, where the final amount is reached. Defaults to `0.75`.
        every: Steps between updates; int, or float share of the run. Defaults to `0.02`.

    Raises:
        PruningError: A moment is negative, a share lies outside [0, 1], or `begin` comes after `end`.
    """

    # Whether the last amount is known without a run.
    ends = True

    def __init__(self, begin: Moment = 0.0, end: Moment = DEFAULT_END, every: Moment = DEFAULT_EVERY):
        self.begin = moment_of(self._name, "begin", begin)
        self.end = moment_of(self._name, "end", end)
        self.every = moment_of(self._name, "every", every)
        if isinstance(self.every, int) and self.every < 1:
            raise PruningError(f"{self._name}: every={every} is no distance; write every=1 to update at each step.")
        if type(self.begin) is type(self.end) and self.begin > self.end:
            raise PruningError(f"{self._name}: begin={begin} comes after end={end}; swap them.")

    @property
    def _name(self) -> str:
        return type(self).__name__

    def amount_at(self, progress: float) -> float:
        """The amount at a share of the way from `begin` (0.0) to `end` (1.0)."""
        raise NotImplementedError

    @property
    def final(self) -> float:
        """The amount when the schedule is through."""
        return self.amount_at(1.0)

    @property
    def extremes(self) -> tuple[float, float]:
        """The smallest and largest amount that the schedule gives, for early checks."""
        amounts = (self.amount_at(0.0), self.amount_at(1.0))
        return min(amounts), max(amounts)

    @property
    def is_in_steps(self) -> bool:
        """Whether its first and last update are known without the length of a run."""
        return isinstance(self.end, int) and (isinstance(self.begin, int) or self.begin == 0)

    def bind(self, total_steps: int) -> "BoundSchedule":
        """Fixes the schedule to a run of `total_steps` optimizer steps.

        Raises:
            PruningError: The run is too short for `begin` or `end` to be reached.
        """
        if total_steps < 1:
            raise PruningError(f"{self._name}: a run of {total_steps} steps trains nothing; give it at least one step.")
        begin, end = (step_of(moment, total_steps) for moment in (self.begin, self.end))
        if begin > end:
            raise PruningError(
                f"{self._name} begins at step {begin} and ends at step {end} of this run of {total_steps} steps, so "
                f"its final amount would never be reached. State both as steps, or both as shares of the run."
            )
        if end > total_steps - 1:
            raise PruningError(
                f"{self._name} runs from step {begin} to step {end}, but this run has steps 0 to {total_steps - 1}, "
                f"so its final amount would never be reached. Write shares of the run, such as begin=0.0, "
                f"end={DEFAULT_END}, or train for {end + 1} steps."
            )
        every = self.every if isinstance(self.every, int) else max(1, round(self.every * total_steps))
        return BoundSchedule(self, begin, end, every, total_steps)

    def moments(self, bound: "BoundSchedule") -> Iterator[int]:
        """The steps at which a bound schedule fires, in order."""
        yield from range(bound.begin, bound.end, bound.every)
        yield bound.end

    def amount_at_step(self, step: int, bound: "BoundSchedule") -> float:
        """The amount at a step, at or after `begin`, of a run that the schedule is bound to."""
        if bound.end == bound.begin:
            return self.final
        return self.amount_at(min(1.0, (step - bound.begin) / (bound.end - bound.begin)))

    def __call__(self, step: int) -> float:
        """The amount at an optimizer step; needs `begin` and `end` as ints, or use `bind(total_steps)`."""
        if not (isinstance(self.begin, int) and isinstance(self.end, int)):
            raise PruningError(
                f"{self._name}(begin={self.begin}, end={self.end}) is stated in shares of a run; "
                f"write schedule.bind(total_steps)(step) with the number of steps."
            )
        return self.bind(self.end + 1)(step)


class BoundSchedule:
    """A schedule fixed to a run: `begin`, `end` and `every` are optimizer steps."""

    def __init__(self, schedule: Schedule, begin: int, end: int, every: int, total_steps: int):
        self.schedule, self.begin, self.end, self.every, self.total_steps = schedule, begin, end, every, total_steps
        self._steps = sorted(set(schedule.moments(self)))

    @property
    def final(self) -> float:
        """The amount at the schedule's last step."""
        return self(self.end)

    def __call__(self, step: int) -> float:
        """The amount at a step; 0 before the schedule begins."""
        return 0.0 if step < self.begin else float(self.schedule.amount_at_step(step, self))

    def fires(self, step: int) -> bool:
        """Whether masks are decided before the training step of this number."""
        return self.last_fired(step) == step

    def steps(self) -> list[int]:
        """Every step at which masks are decided."""
        return list(self._steps)

    def last_fired(self, step: int) -> int | None:
        """The newest deciding step at or before `step`, or None before the first."""
        place = bisect_right(self._steps, step)  # asked at every step of a run
        return self._steps[place - 1] if place else None


def moment_of(owner: str, name: str, value: Any) -> Moment:
    """A moment of a run, once it is known to be one; `owner` and `name` say in messages whose it is."""
    if isinstance(value, (np.integer, np.floating)):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PruningError(
            f"{owner}: {name}={value!r} is no moment; give an int (step) or a float in [0, 1] (share of the run)."
        )
    if isinstance(value, int) and value < 0:
        raise PruningError(f"{owner}: {name}={value} is negative; steps count from 0.")
    if isinstance(value, float) and not 0.0 <= value <= 1.0:
        example = round(value) if 1.0 < value < math.inf else 100
        raise PruningError(
            f"{owner}: {name}={value} is no share of a run in [0, 1]; write {name}={example} for a step."
        )
    return value


def step_of(moment: Moment, total_steps: int) -> int:
    """The optimizer step of a moment in a run of so many steps."""
    return moment if isinstance(moment, int) else round(moment * (total_steps - 1))
