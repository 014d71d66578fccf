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

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError

Moment = int | float

# The ramp leaves the last part of a run to training at the final sparsity, where most of the accuracy comes back.
DEFAULT_END = 0.75
DEFAULT_EVERY = 0.02


class Schedule:
    """A ramp from one amount to another: the base of every schedule.

    Args:
        begin: First update; int optimizer step or float share of the run. Defaults to `0.0`.
        end: Last update, where the final amount is reached. Defaults to `0.75`.
        every: Steps between updates; int, or float share of the run. Defaults to `0.02`.

    Raises:
        PruningError: A moment is negative, a share lies outside [0, 1], or `begin` comes after `end`.
    """

    def __init__(self, begin: Moment = 0.0, end: Moment = DEFAULT_END, every: Moment = DEFAULT_EVERY):
        self.begin = _moment(self, "begin", begin)
        self.end = _moment(self, "end", end)
        self.every = _moment(self, "every", every)
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

    def bind(self, total_steps: int) -> "BoundSchedule":
        """Fixes the schedule to a run of `total_steps` optimizer steps.

        Raises:
            PruningError: The run is too short for `begin` or `end` to be reached.
        """
        if total_steps < 1:
            raise PruningError(f"{self._name}: a run of {total_steps} steps trains nothing; give it at least one step.")
        begin, end = (_step(moment, total_steps) for moment in (self.begin, self.end))
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

    def get_config(self) -> dict[str, Any]:
        """The arguments that build the schedule again."""
        return {"begin": self.begin, "end": self.end, "every": self.every}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Schedule":
        """The schedule that `get_config` described."""
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash((type(self), repr(self.get_config())))

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{self._name}({arguments})"


class BoundSchedule:
    """A schedule fixed to a run: `begin`, `end` and `every` are optimizer steps."""

    def __init__(self, schedule: Schedule, begin: int, end: int, every: int, total_steps: int):
        self.schedule, self.begin, self.end, self.every, self.total_steps = schedule, begin, end, every, total_steps
        self._steps = sorted(set(schedule.moments(self)))
        self._fires = frozenset(self._steps)

    @property
    def final(self) -> float:
        """The amount at the schedule's last step."""
        return self(self.end)

    def __call__(self, step: int) -> float:
        """The amount at a step; 0 before the schedule begins."""
        return 0.0 if step < self.begin else float(self.schedule.amount_at_step(step, self))

    def fires(self, step: int) -> bool:
        """Whether masks are decided before the training step of this number."""
        return step in self._fires

    def steps(self) -> list[int]:
        """Every step at which masks are decided."""
        return list(self._steps)

    def last_fired(self, step: int) -> int | None:
        """The newest deciding step at or before `step`, or None before the first."""
        return max((fired for fired in self._steps if fired <= step), default=None)


@keras.saving.register_keras_serializable(package="tfprune")
class Constant(Schedule):
    """One amount from `begin` on.

    Args:
        value: The amount.
        begin, end, every: See `Schedule`.

    >>> Constant(0.5, begin=10, end=20)(15)
    0.5
    """

    def __init__(self, value: float, begin: Moment = 0.0, end: Moment = DEFAULT_END, every: Moment = DEFAULT_EVERY):
        super().__init__(begin, end, every)
        self.value = float(value)

    def amount_at(self, progress: float) -> float:
        return self.value

    def get_config(self) -> dict[str, Any]:
        return {"value": self.value, **super().get_config()}


class Ramp(Schedule):
    """A schedule from `initial` to `final`; a subclass gives the curve."""

    def __init__(
        self,
        initial: float,
        final: float,
        begin: Moment = 0.0,
        end: Moment = DEFAULT_END,
        every: Moment = DEFAULT_EVERY,
    ):
        super().__init__(begin, end, every)
        self.initial, self._final = float(initial), float(final)

    @property
    def final(self) -> float:
        return self._final

    def curve(self, progress: float) -> float:
        """The share of the way from `initial` to `final`, for a share of the time; 0 at 0 and 1 at 1."""
        raise NotImplementedError

    def amount_at(self, progress: float) -> float:
        if progress >= 1.0:
            return self.final  # exactly: no rounding of the sum below
        return self.initial + (self.final - self.initial) * self.curve(progress)

    def get_config(self) -> dict[str, Any]:
        return {"initial": self.initial, "final": self.final, **super().get_config()}


@keras.saving.register_keras_serializable(package="tfprune")
class Linear(Ramp):
    """A straight line from `initial` to `final`.

    >>> Linear(0.0, 0.8, begin=0, end=100)(25)
    0.2
    """

    def curve(self, progress: float) -> float:
        return progress


@keras.saving.register_keras_serializable(package="tfprune")
class Polynomial(Ramp):
    """Fast at first, ever slower towards `final`: `final + (initial - final) * (1 - progress) ** power`.

    Zhu and Gupta, "To prune, or not to prune", 2017 (https://arxiv.org/abs/1710.01878), with power 3.

    >>> round(Polynomial(0.0, 0.8, begin=0, end=100)(50), 6)
    0.7
    """

    def __init__(
        self,
        initial: float,
        final: float,
        power: float = 3,
        begin: Moment = 0.0,
        end: Moment = DEFAULT_END,
        every: Moment = DEFAULT_EVERY,
    ):
        super().__init__(initial, final, begin, end, every)
        if not power > 0:
            raise PruningError(f"Polynomial: power={power} gives no ramp; write a power above 0, such as 3.")
        self.power = power

    def curve(self, progress: float) -> float:
        return 1.0 - (1.0 - progress) ** self.power

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "power": self.power}


@keras.saving.register_keras_serializable(package="tfprune")
class Cosine(Ramp):
    """Slow, fast, slow: half a cosine wave from `initial` to `final`.

    >>> round(Cosine(0.0, 0.8, begin=0, end=100)(50), 6)
    0.4
    """

    def curve(self, progress: float) -> float:
        return (1.0 - math.cos(math.pi * progress)) / 2.0


@keras.saving.register_keras_serializable(package="tfprune")
class Exponential(Ramp):
    """Removes the same share of what is left in equal times, as iterative pruning by a fixed rate does.

    The density falls geometrically: `1 - (1 - initial) * ((1 - final) / (1 - initial)) ** progress`.

    Raises:
        PruningError: `initial` or `final` is no sparsity in [0, 1).

    >>> round(Exponential(0.0, 0.75, begin=0, end=100)(50), 6)
    0.5
    """

    def __init__(
        self,
        initial: float,
        final: float,
        begin: Moment = 0.0,
        end: Moment = DEFAULT_END,
        every: Moment = DEFAULT_EVERY,
    ):
        super().__init__(initial, final, begin, end, every)
        for name, value in (("initial", initial), ("final", final)):
            if not 0.0 <= value < 1.0:
                raise PruningError(
                    f"Exponential: {name}={value} is no sparsity in [0, 1); write Linear for thresholds."
                )

    def amount_at(self, progress: float) -> float:
        if progress >= 1.0:
            return self.final
        return 1.0 - (1.0 - self.initial) * ((1.0 - self.final) / (1.0 - self.initial)) ** progress


@keras.saving.register_keras_serializable(package="tfprune")
class OneShot(Constant):
    """The whole amount at once.

    Args:
        value: The amount.
        at: When; int step or float share of the run. Defaults to `0.0`.
        begin: Another word for `at`.
        end: Until when the masks are decided anew, every `every`. Defaults to `at`: once.
        every: See `Schedule`.

    >>> OneShot(0.5, at=100).bind(1000).steps()
    [100]
    """

    def __init__(
        self,
        value: float,
        at: Moment | None = None,
        begin: Moment | None = None,
        end: Moment | None = None,
        every: Moment = DEFAULT_EVERY,
    ):
        if at is not None and begin is not None and at != begin:
            raise PruningError(f"OneShot: at={at} and begin={begin} both say when; give one of them.")
        at = at if at is not None else begin if begin is not None else 0.0
        super().__init__(value, at, at if end is None else end, every)
        self.at = at

    def get_config(self) -> dict[str, Any]:
        return {"value": self.value, "at": self.at, "end": self.end, "every": self.every}


@keras.saving.register_keras_serializable(package="tfprune")
class Piecewise(Schedule):
    """Named amounts at named moments, each held until the next.

    Args:
        amounts: Moment -> amount; all moments ints (steps) or all floats (shares of the run).
        begin, end: First and last update. Default to the first and the last moment.
        every: Steps between further updates in between. Defaults to None: only at the moments.

    >>> Piecewise({0: 0.3, 100: 0.6, 200: 0.8})(150)
    0.6
    """

    def __init__(
        self,
        amounts: Mapping[Moment, float],
        begin: Moment | None = None,
        end: Moment | None = None,
        every: Moment | None = None,
    ):
        # In JSON every key is text; a config that was saved comes back with such keys.
        pairs = {_number(key) if isinstance(key, str) else key: float(value) for key, value in dict(amounts).items()}
        if not pairs:
            raise PruningError("Piecewise: no amounts given; write Piecewise({0.0: 0.5, 0.5: 0.8}).")
        if len({isinstance(key, int) for key in pairs}) > 1:
            raise PruningError(
                f"Piecewise: the moments {list(pairs)} mix steps (ints) and shares of the run (floats); use one kind."
            )
        self.amounts = dict(sorted((_moment(self, "moment", key), value) for key, value in pairs.items()))
        self.refine = every
        super().__init__(
            min(self.amounts) if begin is None else begin,
            max(self.amounts) if end is None else end,
            DEFAULT_EVERY if every is None else every,
        )

    @property
    def final(self) -> float:
        return self.amounts[max(self.amounts)]

    @property
    def extremes(self) -> tuple[float, float]:
        return min(self.amounts.values()), max(self.amounts.values())

    def moments(self, bound: "BoundSchedule") -> Iterator[int]:
        steps = [_step(moment, bound.total_steps) for moment in self.amounts]
        if steps[-1] > bound.end:
            raise PruningError(
                f"Piecewise ends at step {bound.end}, before its last moment at step {steps[-1]}, so its final amount "
                f"{self.final} would never be reached. Leave end= out, or take that moment out."
            )
        yield from (step for step in steps if bound.begin <= step)
        yield bound.begin
        yield bound.end
        if self.refine is not None:
            yield from range(bound.begin, bound.end, bound.every)

    def amount_at_step(self, step: int, bound: "BoundSchedule") -> float:
        reached = [amount for at, amount in self.amounts.items() if _step(at, bound.total_steps) <= step]
        return reached[-1] if reached else 0.0

    def get_config(self) -> dict[str, Any]:
        amounts = {str(moment): value for moment, value in self.amounts.items()}
        return {"amounts": amounts, "begin": self.begin, "end": self.end, "every": self.refine}


@keras.saving.register_keras_serializable(package="tfprune", name="ScheduleFunction")
class Function(Schedule):
    """A plain function `step -> amount` of the user's as a schedule; `get` makes it.

    Args:
        function: Takes the optimizer step (int), gives the amount. To be saved with a model it must be registered
            with `keras.saving.register_keras_serializable`.
        begin, end, every: See `Schedule`; the end defaults to the last step of the run.
    """

    def __init__(
        self,
        function: Callable[[int], float],
        begin: Moment = 0.0,
        end: Moment = 1.0,
        every: Moment = DEFAULT_EVERY,
    ):
        super().__init__(begin, end, every)
        self.function = function

    @property
    def _name(self) -> str:
        return f"The schedule {getattr(self.function, '__name__', self.function)!s}"

    @property
    def final(self) -> float:
        raise PruningError(
            f"{self._name} is a function of the step and has no final amount outside of `fit`; "
            "for one-shot use write the number."
        )

    @property
    def extremes(self) -> tuple[float, float]:
        return 0.0, 0.0  # unknown until it is called; the method checks every amount again when it is used

    def amount_at_step(self, step: int, bound: "BoundSchedule") -> float:
        return float(self.function(step))

    def get_config(self) -> dict[str, Any]:
        function = keras.saving.serialize_keras_object(self.function)
        return {"function": function, **super().get_config()}

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", self.function)
        return f"Function({name}, begin={self.begin}, end={self.end}, every={self.every})"

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Function":
        function = keras.saving.deserialize_keras_object(config["function"])
        return cls(**{**config, "function": function})


@keras.saving.register_keras_serializable(package="tfprune")
class Tfmot(Schedule):
    """A `PruningSchedule` of tensorflow-model-optimization of an unknown class, asked step by step; `get` makes it.

    Such an object answers `schedule(step)` with a pair: whether to prune there, and the sparsity. It does not say
    when it ends, so the run is asked whole when it begins. Where its amount still grows after the last step at which
    it prunes, the last step of the run prunes too, so that this growth is not lost.
    """

    def __init__(self, schedule: Callable[[int], tuple[Any, Any]]):
        super().__init__(0, 1.0, 1)
        self.schedule = schedule

    @property
    def final(self) -> float:
        raise PruningError(
            f"{type(self.schedule).__name__} does not say where it ends outside of `fit`; "
            "for one-shot use write the number."
        )

    @property
    def extremes(self) -> tuple[float, float]:
        return 0.0, 0.0  # unknown until it is asked; the method checks every amount again when it is used

    def moments(self, bound: "BoundSchedule") -> Iterator[int]:
        fired = [step for step in range(bound.total_steps) if bool(self.schedule(step)[0])]
        if not fired:
            raise PruningError(
                f"{type(self.schedule).__name__} never prunes in a run of {bound.total_steps} steps; "
                "write a tfprune schedule in shares of the run, such as Polynomial(0.0, 0.8)."
            )
        yield from fired
        last = bound.total_steps - 1
        if self.amount_at_step(last, bound) > self.amount_at_step(fired[-1], bound):
            yield last

    def amount_at_step(self, step: int, bound: "BoundSchedule") -> float:
        return float(self.schedule(step)[1])

    def get_config(self) -> dict[str, Any]:
        raise PruningError(
            f"{type(self.schedule).__name__} is a class of the user's built on tensorflow-model-optimization and "
            "cannot be saved with a model; write the same ramp as a tfprune schedule."
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tfmot) and self.schedule == other.schedule

    def __hash__(self) -> int:
        return hash((type(self), id(self.schedule)))

    def __repr__(self) -> str:
        return f"Tfmot({type(self.schedule).__name__})"


def get(identifier: Any) -> Schedule:
    """A schedule from a schedule, its config, a number, a function, or a tfmot schedule.

    A number is the default gradual ramp to it. Functions take the step and give the amount.

    Raises:
        PruningError: Anything else.

    >>> get(0.8)
    Polynomial(initial=0.0, final=0.8, begin=0.0, end=0.75, every=0.02, power=3)
    """
    if isinstance(identifier, Schedule):
        return identifier
    if isinstance(identifier, (int, float, np.integer, np.floating)) and not isinstance(identifier, bool):
        return Polynomial(0.0, float(identifier))
    if isinstance(identifier, Mapping) and "class_name" in identifier:
        return keras.saving.deserialize_keras_object(dict(identifier))
    if _is_tfmot(identifier):
        return _from_tfmot(identifier)
    if callable(identifier) and not isinstance(identifier, type):
        return Function(identifier)
    raise PruningError(
        f"{identifier!r} is no schedule; give a number, a schedule such as Polynomial(0.0, 0.8), "
        "its config, or a function of the step."
    )


def _is_tfmot(identifier: Any) -> bool:
    # By name and not by isinstance: importing tfmot would switch tf.keras to Keras 2 for the whole process.
    return any(cls.__name__ == "PruningSchedule" for cls in type(identifier).__mro__)


def _from_tfmot(schedule: Any) -> Schedule:
    config = schedule.get_config().get("config", {}) if hasattr(schedule, "get_config") else {}
    timing: dict[str, Any] = {
        "begin": config.get("begin_step"),
        "end": 1.0 if config.get("end_step", -1) == -1 else config["end_step"],
        "every": config.get("frequency"),
    }
    if type(schedule).__name__ == "ConstantSparsity":
        return Constant(config["target_sparsity"], **timing)
    if type(schedule).__name__ == "PolynomialDecay":
        return Polynomial(config["initial_sparsity"], config["final_sparsity"], config["power"], **timing)
    return Tfmot(schedule)


def _number(text: str) -> Moment:
    return float(text) if any(mark in text for mark in ".e") else int(text)


def _moment(schedule: Schedule, name: str, value: Any) -> Moment:
    if isinstance(value, (np.integer, np.floating)):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PruningError(
            f"{schedule._name}: {name}={value!r} is no moment; "
            "give an int (step) or a float in [0, 1] (share of the run)."
        )
    if isinstance(value, int) and value < 0:
        raise PruningError(f"{schedule._name}: {name}={value} is negative; steps count from 0.")
    if isinstance(value, float) and not 0.0 <= value <= 1.0:
        example = round(value) if 1.0 < value < math.inf else 100
        raise PruningError(
            f"{schedule._name}: {name}={value} is no share of a run in [0, 1]; write {name}={example} for a step."
        )
    return value


def _step(moment: Moment, total_steps: int) -> int:
    return moment if isinstance(moment, int) else round(moment * (total_steps - 1))
