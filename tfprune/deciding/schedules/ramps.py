"""The shapes of schedules: constant, linear, polynomial (the cubic ramp), cosine, exponential, at once, in pieces,
in turns."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any

from tfprune.deciding.amounts import is_number, is_share
from tfprune.deciding.schedules.schedule import (
    DEFAULT_END,
    DEFAULT_EVERY,
    BoundSchedule,
    Moment,
    Schedule,
    moment_of,
    step_of,
)
from tfprune.errors import PruningError, number


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
        self.value = number(f"{self._name}: value", value)

    def amount_at(self, progress: float) -> float:
        return self.value


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
        self.check("initial", initial)
        self.check("final", final)
        self.initial = number(f"{self._name}: initial", initial)
        self._final = number(f"{self._name}: final", final)

    @property
    def final(self) -> float:
        return self._final

    def check(self, name: str, value: float) -> None:
        """Raises where the curve cannot begin or end at an amount."""

    def curve(self, progress: float) -> float:
        """The share of the way from `initial` to `final`, for a share of the time; 0 at 0 and 1 at 1."""
        raise NotImplementedError

    def amount_at(self, progress: float) -> float:
        if progress >= 1.0:
            return self.final  # exactly: no rounding of the sum below
        return self.initial + (self.final - self.initial) * self.curve(progress)


class Linear(Ramp):
    """A straight line from `initial` to `final`.

    >>> Linear(0.0, 0.8, begin=0, end=100)(25)
    0.2
    """

    def curve(self, progress: float) -> float:
        return progress


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
        if not is_number(power) or not power > 0:
            raise PruningError(f"Polynomial: power={power!r} gives no ramp; write a power above 0, such as 3.")
        self.power = power

    def arguments(self) -> dict[str, Any]:
        given = super().arguments()
        return {
            **{name: given[name] for name in given if name != "power"},
            "power": self.power,
        }  # reads like the others

    def curve(self, progress: float) -> float:
        return 1.0 - (1.0 - progress) ** self.power


class Cosine(Ramp):
    """Slow, fast, slow: half a cosine wave from `initial` to `final`.

    >>> round(Cosine(0.0, 0.8, begin=0, end=100)(50), 6)
    0.4
    """

    def curve(self, progress: float) -> float:
        return (1.0 - math.cos(math.pi * progress)) / 2.0


class Exponential(Ramp):
    """Removes the same share of what is left in equal times, as iterative pruning by a fixed rate does.

    The density falls geometrically: `1 - (1 - initial) * ((1 - final) / (1 - initial)) ** progress`.

    Raises:
        PruningError: `initial` or `final` is no sparsity in [0, 1).

    >>> round(Exponential(0.0, 0.75, begin=0, end=100)(50), 6)
    0.5
    """

    def check(self, name: str, value: float) -> None:
        if not is_share(value):
            raise PruningError(f"Exponential: {name}={value} is no sparsity in [0, 1); write Linear for thresholds.")

    def amount_at(self, progress: float) -> float:
        if progress >= 1.0:
            return self.final
        return 1.0 - (1.0 - self.initial) * ((1.0 - self.final) / (1.0 - self.initial)) ** progress


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


class AtMoments(Schedule):
    """A schedule whose amount changes at moments of its own; a subclass names them.

    Args:
        begin, end: See `Schedule`.
        every: Steps between further updates in between. Defaults to None: only at the moments.
    """

    def __init__(self, begin: Moment, end: Moment, every: Moment | None):
        super().__init__(begin, end, DEFAULT_EVERY if every is None else every)
        self._refines = every is not None

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "every": self.every if self._refines else None}

    def changes(self, bound: BoundSchedule) -> list[int]:
        """The steps from `begin` to `end` at which a bound schedule's amount may change, both of them included."""
        raise NotImplementedError

    def moments(self, bound: BoundSchedule) -> Iterator[int]:
        yield from self.changes(bound)
        if self._refines:
            yield from range(bound.begin, bound.end, bound.every)


class Piecewise(AtMoments):
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
        if not isinstance(amounts, Mapping):
            raise PruningError(f"Piecewise: {amounts!r} is no mapping; write Piecewise({{0.0: 0.5, 0.5: 0.8}}).")
        pairs = {
            _number(key) if isinstance(key, str) else key: number(f"Piecewise: the amount at {key!r}", value)
            for key, value in amounts.items()
        }
        if not pairs:
            raise PruningError("Piecewise: no amounts given; write Piecewise({0.0: 0.5, 0.5: 0.8}).")
        if len({isinstance(key, int) for key in pairs}) > 1:
            raise PruningError(
                f"Piecewise: the moments {list(pairs)} mix steps (ints) and shares of the run (floats); use one kind."
            )
        self.amounts = dict(sorted((moment_of("Piecewise", "moment", key), value) for key, value in pairs.items()))
        self._moments = list(self.amounts)
        first, last = self._moments[0], self._moments[-1]
        super().__init__(first if begin is None else begin, last if end is None else end, every)

    @property
    def is_in_steps(self) -> bool:
        return super().is_in_steps and isinstance(self._moments[-1], int)

    @property
    def final(self) -> float:
        return self.amounts[self._moments[-1]]

    @property
    def extremes(self) -> tuple[float, float]:
        return min(self.amounts.values()), max(self.amounts.values())

    def changes(self, bound: BoundSchedule) -> list[int]:
        steps = [step_of(moment, bound.total_steps) for moment in self._moments]
        if steps[-1] > bound.end:
            raise PruningError(
                f"Piecewise ends at step {bound.end}, before its last moment at step {steps[-1]}, so its final amount "
                f"{self.final} would never be reached. Leave end= out, or take that moment out."
            )
        return [bound.begin, *(step for step in steps if bound.begin <= step), bound.end]

    def amount_at_step(self, step: int, bound: BoundSchedule) -> float:
        reached = bisect_right(self._moments, step, key=lambda moment: step_of(moment, bound.total_steps))
        return self.amounts[self._moments[reached - 1]] if reached else 0.0


class ACDC(AtMoments):
    """All of the amount and none of it in turns: phases of sparse training, with dense ones between them.

    In a dense phase everything is trained, what was removed too, and the next sparse phase chooses anew among it. From
    `end` on the network stays sparse.

    Peste et al., "AC/DC: Alternating Compressed/DeCompressed Training of Deep Neural Networks", 2021
    (https://arxiv.org/abs/2106.12379).

    Args:
        final: The amount of every sparse phase.
        phases: Sparse phases before the last, each with a dense one as long behind it, at least 1. Defaults to `4`.
        begin: Where the first sparse phase begins; all before it is dense. Defaults to `0.1`.
        end: Where the last sparse phase begins. Defaults to `0.75`.
        every: Steps between further updates in the sparse phases. Defaults to None: only at the turns.

    Raises:
        PruningError: Fewer phases than one, or what `Schedule` raises.

    >>> turns = ACDC(0.8, phases=2, begin=10, end=50)
    >>> [turns(step) for step in (0, 10, 20, 30, 40, 50)]
    [0.0, 0.8, 0.0, 0.8, 0.0, 0.8]
    """

    def __init__(
        self,
        final: float,
        phases: int = 4,
        begin: Moment = 0.1,
        end: Moment = DEFAULT_END,
        every: Moment | None = None,
    ):
        super().__init__(begin, end, every)
        self._final = number(f"{self._name}: final", final)
        if isinstance(phases, bool) or not isinstance(phases, int) or phases < 1:
            raise PruningError(f"ACDC: phases={phases!r} is no number of sparse phases; write phases=4.")
        self.phases = phases

    @property
    def final(self) -> float:
        return self._final

    @property
    def extremes(self) -> tuple[float, float]:
        return min(0.0, self.final), max(0.0, self.final)

    def changes(self, bound: BoundSchedule) -> list[int]:
        """The steps at which phases begin: sparse, dense, sparse, ..., sparse for good."""
        pieces = 2 * self.phases
        return [bound.begin + round((bound.end - bound.begin) * piece / pieces) for piece in range(pieces + 1)]

    def amount_at_step(self, step: int, bound: BoundSchedule) -> float:
        dense = bisect_right(self.changes(bound), step) % 2 == 0
        return 0.0 if dense else self.final


def _number(text: str) -> Any:
    try:
        return float(text) if any(mark in text for mark in ".e") else int(text)
    except ValueError:  # said to be no moment where moments are checked
        return text
