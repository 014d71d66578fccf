"""Passes over large arrays piece by piece: what is worked out about a piece stays in the processor's cache."""

from collections.abc import Iterator

import numpy as np

PIECE = 1 << 17


def pieces(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Cuts arrays of one shape into matching flat pieces: views where the memory is in C order.

    >>> list(pieces(np.zeros((2, 1)), np.ones((2, 1))))
    [(array([0., 0.]), array([1., 1.]))]
    """
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, PIECE):
        yield tuple(array[start : start + PIECE] for array in flat)
