"""Passes over large arrays piece by piece: what is worked out about a piece stays in the processor's cache."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

import numpy as np

PIECE = 1 << 16
# Pieces that one thread takes at a time; with fewer than four such shares, starting threads is not worth the while.
SHARE = 16

Result = TypeVar("Result")


def pieces(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Cuts flat arrays of one length into matching pieces, as views."""
    for start in range(0, arrays[0].size, PIECE):
        yield tuple(array[start : start + PIECE] for array in arrays)


def each_piece(function: Callable[..., Result], *arrays: np.ndarray) -> list[Result]:
    """The results of a function over the matching pieces of flat arrays, in order; large arrays take several threads.

    NumPy lets go of Python's lock while it works, so threads do help.

    >>> each_piece(np.sum, np.arange(5))
    [np.int64(10)]
    """
    cut = list(pieces(*arrays))
    shares = [cut[start : start + SHARE] for start in range(0, len(cut), SHARE)]
    if len(shares) < 4:
        return [function(*parts) for parts in cut]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(lambda share: [function(*parts) for parts in share], shares)
        return list(chain.from_iterable(done))
