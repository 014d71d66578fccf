"""What is left of every weight and tensor when channels go."""

from typing import Any

import numpy as np

from tfprune.channels.groups import ChannelGroups
from tfprune.channels.labels import Channels
from tfprune.channels.rules import Resized


class Sizes:
    """The positions that stay along the axes of weights and tensors.

    Args:
        groups: The channel groups of the model.
        gone: Marks the label sets that go, see `ChannelGroups.removed`.

    Attributes:
        kept_axes: By id of a variable, the positions that stay along each axis that carries channels.
        sorted_axes: Likewise for axes that keep their size: what stays comes first along them.
    """

    def __init__(self, groups: ChannelGroups, gone: np.ndarray):
        self.trace = groups.trace
        self.gone = gone
        self.kept_axes: dict[int, dict[int, np.ndarray]] = {}
        self.sorted_axes: dict[int, dict[int, np.ndarray]] = {}
        for use in self.trace.uses:
            stays = ~self.lost(use.line.labels)
            axes = (self.kept_axes if use.cut else self.sorted_axes).setdefault(id(use.variable), {})
            axes[use.axis] = axes[use.axis] & stays if use.axis in axes else stays

    def lost(self, labels: np.ndarray) -> np.ndarray:
        """Which of these labels go."""
        return self.gone[self.trace.partition.root[labels]]

    def cut(self, variable: Any, value: Any) -> Any:
        """The entries of a variable's value (or of an optimizer's slot for it) that stay."""
        for axis, kept in self.kept_axes.get(id(variable), {}).items():
            if not kept.all():
                value = np.compress(kept, value, axis)
        for axis, kept in self.sorted_axes.get(id(variable), {}).items():
            if not kept.all():
                value = np.take(value, np.argsort(~kept, kind="stable"), axis)
        return value

    def touches(self, variable: Any) -> bool:
        """Whether a variable carries channels at all."""
        return id(variable) in self.kept_axes or id(variable) in self.sorted_axes

    def size(self, variable: Any) -> tuple[int, ...]:
        """The shape that a variable has in the smaller model."""
        axes = self.kept_axes.get(id(variable), {})
        return tuple(int(axes[a].sum()) if a in axes else int(n) for a, n in enumerate(variable.shape))

    def kept(self, channels: Channels, axis: int) -> np.ndarray | None:
        """Which positions along an axis of a tensor stay; None when all do."""
        axis = channels.axis(axis)
        stays = None
        for factor in channels.factors:
            if axis in factor.axes:
                alive = self.trace.alive(factor, axis, self.gone)
                stays = alive if stays is None else stays & alive
        return None if stays is None or stays.all() else stays

    def shape(self, channels: Channels) -> tuple[int | None, ...]:
        """The shape that a tensor has in the smaller model."""
        shape = []
        for axis, size in enumerate(channels.shape):
            kept = self.kept(channels, axis)
            shape.append(size if kept is None else int(kept.sum()))
        return tuple(shape)

    def resized_for(self, node: Any) -> Resized:
        """What a rule needs to know of a call to make its layer smaller."""
        visit = self.trace.calls[id(node)]
        inputs, outputs = visit.inputs, visit.outputs
        return Resized(
            self.size,
            [self.shape(channels) for channels in inputs],
            [self.shape(channels) for channels in outputs],
            [channels.shape for channels in outputs],
            lambda index, axis: self.kept(outputs[index], axis),
            lambda index, axis: self.kept(inputs[index], axis),
            self.trace.approximate,
            node.operation,
        )
