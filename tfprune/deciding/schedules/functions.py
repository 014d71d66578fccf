"""Schedules that are not described by numbers: plain functions of the step, and schedules of other libraries."""

from collections.abc import Callable, Iterator
from typing import Any

from tfprune.deciding.schedules.ramps import Constant, Polynomial
from tfprune.deciding.schedules.schedule import DEFAULT_EVERY, BoundSchedule, Moment, Schedule
from tfprune.errors import PruningError, answer_of, number


class OpenEnded(Schedule):
    """A schedule whose amounts are not known before it is asked at a step of a run."""

    ends = False

    @property
    def final(self) -> float:
        raise PruningError(
            f"{self._name} does not say where it ends outside of `fit`; for one-shot use write the number."
        )

    @property
    def extremes(self) -> tuple[float, float]:
        return 0.0, 0.0  # unknown until it is asked; the method checks every amount again when it is used


class ScheduleFunction(OpenEnded):
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
        self.function = function
        super().__init__(begin, end, every)

    @property
    def _name(self) -> str:
        return f"The schedule {getattr(self.function, '__name__', self.function)!s}"

    @property
    def final(self) -> float:
        raise PruningError(
            f"{self._name} is a function of the step and has no final amount outside of `fit`; "
            "for one-shot use write the number."
        )

    def amount_at_step(self, step: int, bound: BoundSchedule) -> float:
        given = answer_of(f"{self._name} at step {step}", self.function, step)
        return number(f"{self._name} at step {step}: amount", given, least=0)


class Tfmot(OpenEnded):
    """A `PruningSchedule` of tensorflow-model-optimization of an unknown class, asked step by step; `get` makes it.

    Such an object answers `schedule(step)` with a pair: whether to prune there, and the sparsity. It does not say
    when it ends, so the run is asked whole when it begins. Where its amount still grows after the last step at which
    it prunes, the last step of the run prunes too, so that this growth is not lost.
    """

    def __init__(self, schedule: Callable[[int], tuple[Any, Any]]):
        self.schedule = schedule
        super().__init__(0, 1.0, 1)

    @property
    def _name(self) -> str:
        return type(self.schedule).__name__

    def moments(self, bound: BoundSchedule) -> Iterator[int]:
        fired = [step for step in range(bound.total_steps) if bool(self.schedule(step)[0])]
        if not fired:
            raise PruningError(
                f"{self._name} never prunes in a run of {bound.total_steps} steps; "
                "write a tfprune schedule in shares of the run, such as Polynomial(0.0, 0.8)."
            )
        yield from fired
        last = bound.total_steps - 1
        if self.amount_at_step(last, bound) > self.amount_at_step(fired[-1], bound):
            yield last

    def amount_at_step(self, step: int, bound: BoundSchedule) -> float:
        return number(f"{self._name} at step {step}: amount", self.schedule(step)[1], least=0)

    def get_config(self) -> dict[str, Any]:
        raise PruningError(
            f"{self._name} is a class of the user's built on tensorflow-model-optimization and "
            "cannot be saved with a model; write the same ramp as a tfprune schedule."
        )

    def _stated(self) -> dict[str, Any]:
        return self.arguments()

    def __repr__(self) -> str:
        return f"Tfmot({self._name})"


def is_tfmot(schedule: Any) -> bool:
    """Whether a schedule is one of tensorflow-model-optimization."""
    # By name and not by isinstance: importing tfmot would switch tf.keras to Keras 2 for the whole process.
    return any(cls.__name__ == "PruningSchedule" for cls in type(schedule).__mro__)


def from_tfmot(schedule: Any) -> Schedule:
    """The same schedule in our own words where its class is known, else asked step by step."""
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
