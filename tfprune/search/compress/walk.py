"""The way along amounts of one kind, step by step, to the strongest that is kept."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from tfprune.search.compress.steps import Stop

NEAR = 0.9  # of a share that is not worth a step


@dataclass(frozen=True)
class Walk:
    """Steps from one stop to the next, each leaving a part of what the one before it left.

    A step that is kept is followed by another that leaves the same part; one that is not by a milder one from where the
    last that was kept stands. So an amount that was too much at first may be tried again from a model that was trained
    in between.

    Attributes:
        first: The share that the first step leaves.
        part: What a later one leaves of it, at least.
        least: The smallest share.
        attempts: How many steps there are at most.
    """

    first: float
    part: float
    least: float
    attempts: int

    def __call__(
        self, base: Stop, attempt: Callable[[float, Stop], Stop | None], expect: Callable[[int], None]
    ) -> Stop:
        """Goes all the way.

        Args:
            base: Where it begins.
            attempt: Makes a step of a share that is to be left, from the stop before it; None where nothing can go.
            expect: Takes note of how many steps are to come at most.

        Returns:
            The last stop that was kept; `base` where none was.
        """
        best, left, part = base, 1.0, self.first
        for number in range(self.attempts):
            if part > NEAR or left * part < self.least:
                break
            expect(self.attempts - number)
            stop = attempt(left * part, best)
            if stop is None:
                break
            if stop.kept:
                best, left, part = stop, left * part, max(part, self.part)
            else:
                part = math.sqrt(part)
        return best
