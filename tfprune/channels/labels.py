"""Channels that flow along a model's edges: every entry of a tensor carries the label of the channel it belongs to.

A tensor may have channels along several axes at once (heads and the width inside heads); each such family is one
`Factor`. An entry goes when its label goes in any factor.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

KEPT = 0
"""The label of entries that stay whatever happens: what comes from the model's inputs, or was never a channel."""

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Factor:
    """One family of channels over a tensor, in compact form: an axis along which nothing varies has size 1.

    Attributes:
        labels: Int array, of the tensor's rank.
        masked: The value of an entry while its channel is masked, whatever the model's input; NaN: not known.
        now: The value of an entry with the weights as they are; NaN: depends on the input.
        alike: Whether the entries are copies of one another, so that any one of them says it all (Keras spreads the
            masks of padded steps over channels in this way).
    """

    labels: np.ndarray
    masked: np.ndarray
    now: np.ndarray
    alike: bool = False

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes along which the labels vary."""
        return tuple(axis for axis, size in enumerate(self.labels.shape) if size > 1)

    def map(self, move: Callable[[np.ndarray], np.ndarray]) -> "Factor":
        """Moves labels and values alike, for operations that only move entries about."""
        return self.map_entries(move).compact()

    def map_entries(self, move: Callable[[np.ndarray], np.ndarray]) -> "Factor":
        """The same, written out as it comes."""
        return Factor(move(self.labels), move(self.masked), move(self.now), self.alike)

    def with_values(self, masked: np.ndarray, now: np.ndarray) -> "Factor":
        """The same labels with other values."""
        return Factor(self.labels, masked, now, self.alike)

    def compact(self) -> "Factor":
        """The same with every axis along which nothing varies cut to size 1."""
        labels, masked, now = np.broadcast_arrays(self.labels, self.masked, self.now)
        for axis in range(labels.ndim):
            if labels.shape[axis] > 1 and all(_is_uniform(values, axis) for values in (labels, masked, now)):
                labels, masked, now = (values.take([0], axis) for values in (labels, masked, now))
        return Factor(labels, masked, now, self.alike)

    def aligned(self, rank: int) -> "Factor":
        """The same with leading axes of size 1, as broadcasting would add them."""
        return self.map(lambda values: values.reshape((1,) * (rank - values.ndim) + values.shape))

    def line(self, axis: int) -> "Line":
        """The labels along the only axis where they vary."""
        labels, masked, now = np.broadcast_arrays(self.labels, self.masked, self.now)
        return Line(labels.ravel(), masked.ravel(), now.ravel(), axis)


@dataclass(frozen=True)
class Line:
    """Labels and values along one axis, in the order of the positions."""

    labels: np.ndarray
    masked: np.ndarray
    now: np.ndarray
    axis: int = -1

    def with_values(self, masked: np.ndarray | float, now: np.ndarray | float) -> "Line":
        """The same labels with other values for the pruned and the present channel."""
        size = self.labels.shape
        return replace(self, masked=np.broadcast_to(masked, size), now=np.broadcast_to(now, size))

    def map(self, move: Callable[[np.ndarray], np.ndarray]) -> "Line":
        """Moves labels and values alike, for operations that only move entries about."""
        return Line(move(self.labels), move(self.masked), move(self.now), self.axis)

    def spread(self, rank: int, axis: int) -> Factor:
        """The factor of a tensor of `rank` axes that varies along `axis` as this line does."""
        shape = [1] * rank
        shape[axis] = len(self.labels)
        return Factor(self.labels.reshape(shape), self.masked.reshape(shape), self.now.reshape(shape))


def unvalued(labels: np.ndarray) -> Line:
    """A line whose values are not known."""
    return Line(labels, np.full(labels.shape, math.nan), np.full(labels.shape, math.nan))


@dataclass(frozen=True)
class Channels:
    """What flows along one edge of the graph: the tensor's shape and the channels it carries.

    `constant` holds the array itself when the edge is a constant that the operation was given: it has no channels of
    its own and can lose entries with any others. `value` is what a tensor is that does not depend on the model's input,
    in compact form.
    """

    shape: Shape
    factors: tuple[Factor, ...] = ()
    constant: Any = None
    value: np.ndarray | None = None

    @property
    def known(self) -> np.ndarray | None:
        """What the tensor is whatever the model's input; None where that is not known."""
        return self.value if self.constant is None else self.constant

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def axis(self, axis: int) -> int:
        """The axis counted from the front."""
        return axis % self.rank if self.rank else 0

    def labels(self) -> np.ndarray:
        """Every label that the tensor carries, in no order."""
        parts = [factor.labels.ravel() for factor in self.factors]
        return np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.int64)


class Partition:
    """Sets of labels that can only go together, built from pairs, in nearly linear time."""

    def __init__(self, size: int):
        self.root = np.arange(size)

    def join(self, left: np.ndarray, right: np.ndarray) -> bool:
        """Joins the sets of `left[i]` and `right[i]` for all i; whether anything changed."""
        changed = False
        while True:
            a, b = self.root[left], self.root[right]
            apart = a != b
            if not apart.any():
                return changed
            changed = True
            left, right, a, b = left[apart], right[apart], a[apart], b[apart]
            # Hook the larger root under the smaller one, then shorten all paths to length one.
            np.minimum.at(self.root, np.maximum(a, b), np.minimum(a, b))
            while True:
                shorter = self.root[self.root]
                if np.array_equal(shorter, self.root):
                    break
                self.root = shorter


def expand(values: np.ndarray, shape: Sequence[int | None], axes: Sequence[int]) -> np.ndarray:
    """Repeats a compact array to the tensor's full size along `axes`."""
    target = [int(shape[axis] or 1) if axis in axes else size for axis, size in enumerate(values.shape)]
    return np.broadcast_to(values, target)


def reshape(values: np.ndarray, source: Shape, target: Shape) -> np.ndarray | None:
    """Reshapes a compact array as its tensor is reshaped; None where an open size stands in the way."""
    result = _by_blocks(values, source, target)
    return _in_rows(values, source, target) if result is None else result


def _by_blocks(values: np.ndarray, source: Shape, target: Shape) -> np.ndarray | None:
    """Axes matched in blocks of equal product from the right; only those in which something varies are written out."""
    blocks = _blocks(source, target)
    if blocks is None:
        return None
    full: list[int] = []
    final: list[int] = []
    for before, after in blocks:
        sizes = [values.shape[axis] for axis in before]
        if all(size == 1 for size in sizes):
            full += sizes
            final += [1] * len(after)
        elif any(source[axis] is None for axis in before) or any(target[axis] is None for axis in after):
            return None
        else:
            full += [int(source[axis] or 1) for axis in before]
            final += [int(target[axis] or 1) for axis in after]
    return np.broadcast_to(values, full).reshape(final)


def _in_rows(values: np.ndarray, source: Shape, target: Shape) -> np.ndarray | None:
    """Where sizes go into open axes in front, or come from them: rows of entries become several, or one of several."""
    before, after = (
        next((axis for axis, size in enumerate(shape) if size is not None), 0) for shape in (source, target)
    )
    rest, wanted = ([size for size in shape if size] for shape in (source[before:], target[after:]))
    known = len(rest) == len(source) - before and len(wanted) == len(target) - after
    if not before or not after or not known or any(size > 1 for size in values.shape[:before]):
        return None
    row = np.broadcast_to(values, [*values.shape[:before], *rest]).ravel()
    size = math.prod(wanted)
    if size % row.size == 0:
        row = np.tile(row, size // row.size)
    elif row.size % size == 0 and _is_uniform(row.reshape(-1, size), 0):
        row = row[:size]
    else:
        return None
    return row.reshape([1] * after + wanted)


def _blocks(source: Shape, target: Shape) -> list[tuple[list[int], list[int]]] | None:
    """Axes of `source` beside the axes of `target` that hold the same entries, from the left."""
    source, target = _same_open_size(source, target)
    blocks: list[tuple[list[int], list[int]]] = []
    i, j = len(source), len(target)
    while i > 0 and j > 0:
        if source[:i] == target[:j]:  # the rest is untouched, open sizes included
            blocks += [([axis], [axis]) for axis in reversed(range(i))]
            i = j = 0
            break
        before, after = [i - 1], [j - 1]
        i, j = i - 1, j - 1
        while True:
            sizes = [source[axis] for axis in before], [target[axis] for axis in after]
            if None in sizes[0] or None in sizes[1]:
                # From here to the left sizes cannot be told apart: one block takes all that is left.
                before, after, i, j = [*range(i), *before], [*range(j), *after], 0, 0
                break
            left, right = math.prod(s or 1 for s in sizes[0]), math.prod(s or 1 for s in sizes[1])
            if left == right:
                break
            if left < right and i > 0:
                i -= 1
                before.insert(0, i)
            elif right < left and j > 0:
                j -= 1
                after.insert(0, j)
            else:
                return None
        blocks.append((before, after))
    if i or j:  # only axes of size 1 can be left over
        blocks.append((list(range(i)), list(range(j))))
    return blocks[::-1]


def _same_open_size(source: Shape, target: Shape) -> tuple[Shape, Shape]:
    """The shapes with a number in the place of an open size that must be the same before and after.

    Only a Reshape layer gives two open sizes. It leaves the batch alone, so that the other one has no choice where the
    sizes that are known have the same product.
    """
    if not source or not target or source[0] is not None or target[0] is not None:
        return source, target
    rest = source[1:], target[1:]
    products = [math.prod(size for size in shape if size is not None) for shape in rest]
    if any(shape.count(None) != 1 for shape in rest) or products[0] != products[1]:
        return source, target
    number = 1 + products[0]  # no product of the others
    one, other = (tuple(number if size is None else size for size in shape) for shape in rest)
    return (None, *one), (None, *other)


def _is_uniform(values: np.ndarray, axis: int) -> bool:
    first = values.take([0], axis)
    if values.dtype.kind != "f":
        return bool((values == first).all())
    return bool(((values == first) | (np.isnan(values) & np.isnan(first))).all())
