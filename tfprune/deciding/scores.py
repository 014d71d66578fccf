"""The scores of a weight's units, read piece by piece: those that a function of the weight makes are never kept."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfprune.deciding.pieces import PIECE, pieces

Value = float | np.floating

ROW = 8192  # values whose squares are added up at a time


class Scores:
    """Scores of units, none of them NaN, of which those that are gone go first.

    Args:
        values: The scores, an array of the units' shape.
        kept: True where a unit is still there; the others score minus infinity. Defaults to None: all are there.
    """

    def __init__(self, values: np.ndarray, kept: np.ndarray | None = None):
        self.values, self.kept = values, kept
        self.shape, self.size = values.shape, values.size

    def check(self) -> None:
        """Raises where a score means nothing, if no pass over the scores has."""

    def _of(self, values: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        """The scores of some of the values; `out` is memory that may be used for them."""
        return values

    def _pieces(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Flat pieces of the scores, as if no unit were gone, each good until the next; with what is kept of them."""
        out = np.empty(min(PIECE, self.size), self.values.dtype)
        if self.kept is None:
            for (values,) in pieces(self.values):
                yield self._of(values, out[: values.size]), None
        else:
            for values, kept in pieces(self.values, self.kept):
                yield self._of(values, out[: values.size]), kept

    def __iter__(self) -> Iterator[np.ndarray]:
        """Flat pieces of the scores in order, each good until the next."""
        for piece, kept in self._pieces():
            yield piece if kept is None else np.where(kept, piece, -np.inf).astype(piece.dtype, copy=False)

    def present(self) -> "Scores":
        """The same scores as if no unit were gone."""
        same = copy.copy(self)
        same.kept = None
        return same

    def array(self) -> np.ndarray:
        """All scores at once, in a new array."""
        parts = [piece.copy() for piece in self]
        return np.concatenate(parts).reshape(self.shape) if parts else np.zeros(self.shape, self.values.dtype)

    def sample(self, stride: int) -> np.ndarray:
        """Every so manieth score."""
        found = self._of(self.values.reshape(-1)[::stride], None)
        return found if self.kept is None else np.where(self.kept.reshape(-1)[::stride], found, -np.inf)

    def count(self, compare: np.ufunc, value: Value) -> int:
        """How many of the scores compare so with a value."""
        return sum(int(np.count_nonzero(compare(piece, value))) for piece in self)

    def marked(self, compare: np.ufunc, value: Value) -> np.ndarray:
        """True where a score compares so with a value, which minus infinity does too."""
        marks = np.empty(self.shape, bool)
        for (piece, kept), (mark,) in zip(self._pieces(), pieces(marks)):
            _mark(compare, piece, kept, value, mark)
        return marks

    def split(self, low: Value, high: Value, with_squares: bool = False) -> "Bracketed":
        """The scores cut at two values, in one pass."""
        marks = np.empty(self.shape, bool)
        places, inside, start, squares = [], [], 0, 0.0
        size = min(PIECE, self.size)
        buffers = np.empty((2, size), bool)
        scratch = np.empty(size, self.values.dtype), np.empty(size)
        above = with_squares and high < np.inf
        for (piece, kept), (mark,) in zip(self._pieces(), pieces(marks)):
            _mark(np.less_equal, piece, kept, low, mark)
            under = np.less(piece, high, out=buffers[0, : piece.size])
            found = np.flatnonzero(np.greater(under, mark, out=buffers[1, : piece.size]))
            inside.append(piece[found])
            found += start
            places.append(found)
            start += piece.size
            if above:
                squares += _sum_of_squares(piece, under, high, *scratch)
                gone = np.greater(mark, under, out=buffers[1, : piece.size])
                if gone.any():
                    squares -= float(np.square(np.maximum(piece[gone], 0), dtype=np.float64).sum())
        return Bracketed(marks, _joined(places, np.intp), _joined(inside, self.values.dtype), squares)


class Bracketed:
    """Scores cut at two values: those not above the low one are marked, those between are known one by one.

    Attributes:
        marks: Boolean array of the units' shape, True where a score is not above the low value.
        inside: The scores between the two values, in the order of their units.
        squares: The sum of the squares of the scores that are not below the high value, where it was asked for.
    """

    def __init__(self, marks: np.ndarray, places: np.ndarray, inside: np.ndarray, squares: float):
        self.marks, self.inside, self.squares = marks, inside, squares
        self._places = places
        self.not_above = int(np.count_nonzero(marks))

    def smallest(self, count: int) -> np.ndarray:
        """Marks the `count` smallest scores, the largest of which lies between the two values or is the low one."""
        rank = count - self.not_above
        if rank == 0:
            return self.marks
        threshold = np.partition(self.inside, rank - 1)[rank - 1]
        return self.up_to(threshold, rank - int(np.count_nonzero(self.inside < threshold)))

    def up_to(self, threshold: Value, ties: int) -> np.ndarray:
        """Marks the scores below a threshold between the two values, and the first `ties` of those equal to it."""
        flat = self.marks.reshape(-1)
        flat[self._places[self.inside < threshold]] = True
        flat[self._places[self.inside == threshold][:ties]] = True
        return self.marks


def as_scores(given: Any) -> Scores:
    """Scores as they are; an array as scores of units that are all there."""
    return given if isinstance(given, Scores) else Scores(given)


def _mark(compare: np.ufunc, piece: np.ndarray, kept: np.ndarray | None, value: Value, mark: np.ndarray) -> None:
    compare(piece, value, out=mark)
    if kept is not None:
        np.greater_equal(mark, kept, out=mark)  # marked, or gone


def _sum_of_squares(
    scores: np.ndarray, under: np.ndarray, high: Value, single: np.ndarray, double: np.ndarray
) -> float:
    """The sum of squares, each a whole double, of the scores above zero that are not under `high`.

    Those under it are counted as it and taken off again, which takes fewer passes than leaving them out. The last two
    arguments are memory for it.
    """
    single, double = single[: scores.size], double[: scores.size]
    least = max(high, scores.dtype.type(0))
    # With one bound alone `clip` takes NumPy's slow loop.
    np.copyto(double, np.clip(scores, least, scores.dtype.type(np.inf), out=single))
    return _dot(double) - int(np.count_nonzero(under)) * float(least) ** 2


def _dot(values: np.ndarray) -> float:
    """The sum of squares, in rows that are too short for more than one thread: the same on any number of cores."""
    whole = values.size - values.size % ROW
    rows = values[:whole].reshape(-1, 1, ROW)
    return float(np.matmul(rows, rows.transpose(0, 2, 1)).sum() + np.dot(values[whole:], values[whole:]))


def _joined(parts: list[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)
