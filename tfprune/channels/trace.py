"""What the trace records: which axes of which weights carry which labels, and which labels can only go together."""

import enum
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tfprune.channels.labels import KEPT, Factor, Line, Partition
from tfprune.channels.reasons import Frozen, Reason
from tfprune.channels.values import Values


class Role(enum.Enum):
    """What a weight's slice does for a channel."""

    OUTPUT = "output"  # makes the channel: kernel outputs, recurrent kernel outputs, embeddings
    BIAS = "bias"  # is added to it
    SCALE = "scale"  # gamma and beta of a norm, LayerScale
    INPUT = "input"  # listens to it: the input slices of the next layers
    STATISTIC = "statistic"  # follows it, but does not decide its value: moving averages, PReLU slopes


class AxisUse(NamedTuple):
    """Labels along one axis of one weight in one call; `line.now` is what arrives there, for the role INPUT."""

    layer: str
    operation: Any
    variable: Any
    axis: int
    role: Role
    line: Line
    foldable: bool
    call: int
    cut: bool = True  # whether the weight loses the entries, or keeps them as zeros behind all others


CONSTANT = "constant"
"""What the kind of labels begins with that a constant brings."""

UNIFORM = "constant of one number"
"""Likewise, where the constant is the same all along the axis."""


class FreshLabels(NamedTuple):
    """Fresh labels for the channels that one layer produces."""

    layer: str
    kind: str
    labels: np.ndarray


def of_constant(block: FreshLabels) -> bool:
    """Whether a constant brings the labels, and no weight makes them."""
    return block.kind.startswith(CONSTANT)


@dataclass
class Trace:
    """Everything that a model's calls say about its channels.

    Attributes:
        parts: What the trace rests on, the model's variables and records of its calls.
        values: The reader of weights.
        approximate: Whether channels that meet in a normalisation may go.
        prefers: "head" or "width", which of them may go where both lie along one axis of a kernel; None: whichever
            leaves more to choose from.
    """

    parts: list[Any]
    values: Values
    approximate: bool = False
    prefers: str | None = None
    size: int = 1
    pairs: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    narrower: list[tuple[np.ndarray, np.ndarray, str]] = field(default_factory=list)  # as `meet` records them
    frozen: list[tuple[np.ndarray, Frozen]] = field(default_factory=list)
    demands: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)  # labels, value that must be zero today
    inexact: list[tuple[np.ndarray, Frozen]] = field(default_factory=list)
    normalised: list[np.ndarray] = field(default_factory=list)  # labels that statistics are taken over, exactly
    heads: list[tuple[Factor, int]] = field(default_factory=list)  # labels, and the axis along which heads lie
    shares_axes: bool = False  # whether heads and the width inside them lie along one axis of a kernel
    outputs: list[Any] = field(default_factory=list)  # the `Channels` of the model's outputs
    blocks: list[FreshLabels] = field(default_factory=list)
    owned: dict[tuple[int, str], np.ndarray] = field(default_factory=dict)  # labels by id of the layer, and kind
    uses: list[AxisUse] = field(default_factory=list)
    visits: list[Any] = field(default_factory=list)  # each a `Visit`, in the order of the calls
    calls: dict[int, Any] = field(default_factory=dict)  # the first of them by id of Keras' node
    nodes: dict[int, Any] = field(default_factory=dict)  # Keras' nodes themselves
    counts: Counter[int] = field(default_factory=Counter)  # calls by id of the layer
    partition: Partition = field(default_factory=lambda: Partition(1))

    def join(self, left: np.ndarray, right: np.ndarray, layer: str) -> None:
        """Records that `left[i]` and `right[i]` can only go together; joined with KEPT, a label cannot go at all."""
        left, right = (side.ravel() for side in np.broadcast_arrays(left, right))
        fixed = (left == KEPT) != (right == KEPT)
        if fixed.any():
            self.freeze(np.where(left == KEPT, right, left)[fixed], Reason.FIXED_PARTNER, layer)
        different = left != right
        free = different & ~fixed
        if free.any():
            self.pairs.append((left[free], right[free]))

    def meet(self, wide: np.ndarray, narrow: np.ndarray, layer: str) -> None:
        """Records that channels along several axes meet others along some of them, as heads and a scale of their width.

        They go together, unless the first cannot differ along the axes of the second: then the second stay.
        """
        self.narrower.append((wide, narrow, layer))

    def freeze(self, labels: np.ndarray, reason: Reason, layer: str) -> None:
        """Records that labels cannot go."""
        labels = np.unique(labels)
        labels = labels[labels != KEPT]
        if labels.size:
            self.frozen.append((labels, Frozen(reason, layer)))

    def resolve(self) -> None:
        """Finds the sets of labels that can only go together.

        Where channels still vary along two axes of one tensor (a reshape into heads and their width), whole slices
        along one of them are joined: along the one that leaves more channels to choose from, the last one in a tie.
        """
        self.partition = Partition(self.size)
        if self.pairs:
            left, right = (np.concatenate(side) for side in zip(*self.pairs))
            self.partition.join(left, right)
        for wide, narrow, layer in self.narrower:
            roots, shared = self.partition.root[wide], [axis for axis, size in enumerate(narrow.shape) if size > 1]
            if all(_uniform(roots, axis) for axis in shared) and not (roots == roots.flat[0]).all():
                self.freeze(narrow, Reason.FIXED_PARTNER, layer)
                continue
            before = len(self.pairs)
            self.join(wide, narrow, layer)
            for left, right in self.pairs[before:]:
                self.partition.join(left, right)
        several = {id(f): (f, visit.path) for visit in self.visits for f in visit.factors() if len(f.axes) > 1}
        changed = True
        while changed:  # joining in one tensor may leave another with half a slice joined
            changed = any(self._join_slices(factor, path) for factor, path in several.values())

    def _join_slices(self, factor: Factor, path: str) -> bool:
        """Joins slices until the sets of a factor vary along one axis only; whether that changed anything."""
        roots = self.partition.root[factor.labels]
        axes = [axis for axis in factor.axes if not _uniform(roots, axis)]
        if len(axes) < 2:
            return False
        chosen = max(axes, key=lambda axis: (_distinct_after_tie(roots, axis), axis))
        first = roots
        for axis in axes:
            if axis != chosen:
                first = first.take([0], axis)
        left, right = roots.ravel(), np.broadcast_to(first, roots.shape).ravel()
        fixed = (left == KEPT) != (right == KEPT)
        self.freeze(np.where(left == KEPT, right, left)[fixed], Reason.FIXED_PARTNER, path)
        return self.partition.join(left[~fixed], right[~fixed])

    def blocks_of(self, labels: np.ndarray) -> list[FreshLabels]:
        """What brought some labels, in the order of the model."""
        starts = [block.labels[0] for block in self.blocks]
        places = np.unique(np.searchsorted(starts, labels[labels != KEPT], side="right"))
        return [self.blocks[place - 1] for place in places]

    def are_of_constants(self, labels: np.ndarray) -> bool:
        """Whether constants that vary along them brought all of some labels."""
        blocks = self.blocks_of(labels)
        return bool((labels != KEPT).all()) and all(of_constant(b) and not b.kind.startswith(UNIFORM) for b in blocks)

    def streams(self) -> np.ndarray:
        """Which sets of labels are normalised and made by several layers, by root."""
        normalised, makers = np.zeros(self.size, bool), np.zeros(self.size, int)
        for labels in self.normalised:
            normalised[self.partition.root[labels]] = True
        made = {(id(use.variable), use.axis): use for use in self.uses if use.role is Role.OUTPUT}
        for use in made.values():
            makers[np.unique(self.partition.root[use.line.labels])] += 1
        return normalised & (makers > 1)

    def times_called(self, operation: Any) -> int:
        """How many calls of a layer there are in the whole model."""
        return self.counts[id(operation)]

    def alive(self, factor: Factor, axis: int, removed: np.ndarray) -> np.ndarray:
        """Which positions along `axis` stay when the sets marked in `removed` (by root) go."""
        stays = ~removed[self.partition.root[factor.labels]]
        others = tuple(other for other in range(stays.ndim) if other != axis)
        return stays.any(axis=others)


def _uniform(values: np.ndarray, axis: int) -> bool:
    return bool((values == values.take([0], axis)).all())


def _distinct_after_tie(roots: np.ndarray, axis: int) -> int:
    """How many sets are left when all entries at one index of `axis` are joined."""
    others = tuple(other for other in range(roots.ndim) if other != axis)
    return len(np.unique(roots.min(axis=others)))
