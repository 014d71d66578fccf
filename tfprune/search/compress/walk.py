"""The way along amounts of one kind, from mild to strong, to the strongest that is kept."""

import math
from collections.abc import Callable, Sequence

from tfprune.search.compress.steps import Stop

FINER = 2  # amounts between the last that held and the first that did not
NEAR = 0.9  # of two shares that are not worth one between them


class Walk:
    """Tries amounts one after the other, each on what the strongest that held has made.

    Args:
        attempt: Makes a step of a share that is to be left, from the stop before it.
        expect: Takes note of how many attempts are to come at most.
        finer: How many amounts are tried between one that held and one that did not.
    """

    def __init__(
        self,
        attempt: Callable[[float, Stop], Stop],
        expect: Callable[[int], None],
        finer: int = FINER,
    ):
        self._attempt, self._expect, self._finer = attempt, expect, finer

    def __call__(self, shares: Sequence[float], place: int, base: Stop) -> Stop:
        """Walks from one of the shares to stronger ones, or to milder ones where it does not hold.

        Args:
            shares: What is to be left, from the mildest to the strongest.
            place: Where to begin.
            base: Where the way begins.

        Returns:
            The strongest that held; `base` where none did.
        """
        best, held, missed = base, 1.0, 0.0
        while 0 <= place < len(shares):
            self._expect((len(shares) - place if missed == 0.0 else place + 1) + self._finer)
            stop = self._attempt(shares[place], best)
            if stop.kept:
                best, held = stop, shares[place]
            else:
                missed = shares[place]
            if held < 1.0 and missed > 0.0:
                break
            place += 1 if missed == 0.0 else -1
        for number in range(self._finer if held < 1.0 and missed > 0.0 else 0):
            middle = math.sqrt(held * missed)
            if middle > NEAR * held:
                break
            self._expect(self._finer - number)
            stop = self._attempt(middle, best)
            if stop.kept:
                best, held = stop, middle
            else:
                missed = middle
        return best
