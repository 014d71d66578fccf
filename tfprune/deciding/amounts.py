"""Numbers that say how much: what counts as a number, a share or a count."""

import numbers
from typing import Any

from tfprune.errors import PruningError


class OutOfReachError(PruningError):
    """An amount that is more than a method can remove from a model, however valid by itself."""


def is_number(value: Any) -> bool:
    """Whether a value is a real number of Python or NumPy; True and False are none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_share(value: Any) -> bool:
    """Whether a value is a sparsity, a number in [0, 1).

    >>> is_share(0.5), is_share(1.0), is_share("0.5")
    (True, False, False)
    """
    return is_number(value) and bool(0.0 <= value < 1.0)


def is_count(value: Any) -> bool:
    """Whether a value is a whole number of things, at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
