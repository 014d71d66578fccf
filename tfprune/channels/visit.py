"""One call of a layer as its rule sees it, and all that a rule can say of it."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tfprune.channels.labels import Channels, Factor, Line, unvalued
from tfprune.channels.reasons import Frozen, Reason
from tfprune.channels.trace import AxisUse, FreshLabels, Role, Trace
from tfprune.channels.values import Values
from tfprune.errors import PruningError


@dataclass
class Visit:
    """One call as a rule sees it.

    Attributes:
        path: Of the layer, for names and messages.
        layer: The layer, or the `keras.ops` operation.
        args: Positional arguments of the call, with `Channels` in place of tensors and constant arrays.
        kwargs: Likewise.
        inputs: The `Channels` among them, in order, constants left out.
        shapes: Shape of each output.
        steps_masked: Whether Keras hands on with what comes in which steps are padding, as layers do and operations
            do not.
    """

    trace: Trace
    path: str
    layer: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Channels]
    shapes: list[tuple[int | None, ...]]
    call: int
    steps_masked: bool = False
    outputs: list[Channels] = field(default_factory=list)

    @property
    def values(self) -> Values:
        """The reader of weights."""
        return self.trace.values

    def factors(self) -> Iterable[Factor]:
        """The factors of all that comes in and goes out."""
        return (factor for channels in [*self.inputs, *self.outputs] for factor in channels.factors)

    @property
    def input(self) -> Channels:
        """The first input."""
        return self.inputs[0]

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of the first output."""
        return self.shapes[0]

    def argument(self, name: str, position: int, default: Any = None) -> Any:
        """An argument of the call, given by name or by position; for operations also one given at construction."""
        if name in self.kwargs:
            return self.kwargs[name]
        if len(self.args) > position:
            return self.args[position]
        return getattr(self.layer, name, default)

    # Labels

    def fresh(self, size: int, kind: str = "channels") -> np.ndarray:
        """Labels of the channels that this layer produces; the same at every call of the layer."""
        key = (id(self.layer), kind)
        owned = self.trace.owned
        if key not in owned:
            owned[key] = np.arange(self.trace.size, self.trace.size + size)
            self.trace.size += size
            self.trace.blocks.append(FreshLabels(self.path, kind, owned[key]))
        return owned[key]

    def join(self, left: np.ndarray, right: np.ndarray) -> None:
        """Makes channels go together."""
        self.trace.join(left, right, self.path)

    def freeze(self, channels: Channels | Factor | Line | np.ndarray | Sequence[Factor], reason: Reason) -> None:
        """Leaves channels alone, for a reason."""
        for one in channels if isinstance(channels, Sequence) else [channels]:
            labels = one if isinstance(one, np.ndarray) else one.labels
            self.trace.freeze(labels() if callable(labels) else labels, reason, self.path)

    def freeze_all(self, reason: Reason) -> list[Channels]:
        """Leaves everything that comes in alone; what goes out carries no channels."""
        for channels in self.inputs:
            self.freeze(channels, reason)
        return [Channels(shape) for shape in self.shapes]

    def take(self, channels: Channels, axis: int = -1) -> tuple[list[Line], list[Factor]]:
        """Splits what comes in into the channels along `axis` and all others.

        A layer that works along one axis needs the same channels to go at every place of the others, so channels that
        vary along `axis` and elsewhere are joined to be the same elsewhere.
        """
        axis = channels.axis(axis)
        lines, rest = [], []
        for factor in channels.factors:
            if axis in factor.axes:
                lines.append(self.tied(factor, [axis]).line(axis))
            else:
                rest.append(factor)
        return lines, rest

    def lines(self, channels: Channels, axis: int = -1) -> list[Line]:
        """What comes in along `axis`; channels along any other are left alone."""
        lines, rest = self.take(channels, axis)
        self.freeze(rest, Reason.OTHER_AXIS)
        return lines

    def tied(self, factor: Factor, axes: Sequence[int]) -> Factor:
        """The factor with its labels joined so that they vary along `axes` only."""
        others = [axis for axis in factor.axes if axis not in axes]
        if not others:
            return factor
        first = factor
        for axis in others:
            first = first.map_entries(functools.partial(np.take, indices=[0], axis=axis))
        self.join(factor.labels, np.broadcast_to(first.labels, factor.labels.shape))

        def agreed(values: np.ndarray, theirs: np.ndarray) -> np.ndarray:
            return np.where((values == theirs).all(tuple(others), keepdims=True), theirs, math.nan)

        return first.with_values(agreed(factor.masked, first.masked), agreed(factor.now, first.now))

    def frozen_axis(self, channels: Channels, axes: Iterable[int], reason: Reason) -> list[Factor]:
        """Leaves the channels along any of `axes` alone; returns the factors of the others."""
        rest = []
        axes = {channels.axis(axis) for axis in axes}
        for factor in channels.factors:
            crossed = [axis for axis in factor.axes if axis in axes]
            if not crossed:
                rest.append(factor)
            elif len(crossed) < len(factor.axes):
                rest.append(self.tied(factor, [axis for axis in factor.axes if axis not in axes]))
            else:
                self.freeze(factor, reason)
        return rest

    def demand_zero(self, labels: np.ndarray, masked: np.ndarray, now: np.ndarray, reason: Reason) -> None:
        """Records that channels may go only while their value is zero, as where entries are summed without weights."""
        masked = np.broadcast_to(masked, labels.shape)
        self.freeze(labels[~(masked == 0)], reason)
        self.trace.demands.append((labels.ravel(), np.broadcast_to(now, labels.shape).ravel()))

    def normalise(self, line: Line) -> None:
        """Records that statistics are taken over channels, to which zeros add nothing."""
        self.demand_zero(line.labels, line.masked, line.now, Reason.NORMALIZED)
        self.trace.normalised.append(line.labels)

    def unheard(self, labels: np.ndarray) -> None:
        """Records that nothing listens to channels from here on, as where a slice leaves them out."""
        self.trace.demands.append((labels, np.zeros(labels.shape)))

    def inexact(self, line: Line, reason: Reason) -> None:
        """Records that removing channels changes the others a little."""
        self.trace.inexact.append((line.labels, Frozen(reason, self.path)))

    def split_heads(self, channels: Channels, axis: int) -> Channels:
        """Records that heads lie along an axis; where they share labels with another, one of the two goes."""
        prefers, factors = self.trace.prefers, list(channels.factors)
        for index, factor in enumerate(factors):
            others = [other for other in factor.axes if other != axis]
            if axis not in factor.axes:
                continue
            self.trace.shares_axes |= bool(others)
            if others and prefers:
                factors[index] = self.tied(factor, [axis] if prefers == "head" else others)
            if axis in factors[index].axes:
                self.trace.heads.append((factors[index], axis))
        return replace(channels, factors=tuple(factors))

    # Weights

    def use(
        self,
        role: Role,
        variable: Any,
        axis: int,
        line: Line | np.ndarray,
        foldable: bool = False,
        cut: bool = True,
    ) -> None:
        """Records that `axis` of a weight carries labels; nothing for a weight that is None.

        Without `cut` the weight keeps its size: the entries of what is gone come last.

        Raises:
            PruningError: the axis is not as long as the labels, so the rule is wrong.
        """
        if variable is None:
            return
        line = unvalued(line) if isinstance(line, np.ndarray) else line
        axis %= len(variable.shape)
        if len(line.labels) != variable.shape[axis]:
            raise PruningError(
                f"The channel rule of layer '{self.path}' ({type(self.layer).__name__}) gives {len(line.labels)} "
                f"labels for axis {axis} of weight '{variable.name}', which has shape {tuple(variable.shape)}."
            )
        self.trace.uses.append(AxisUse(self.path, self.layer, variable, axis, role, line, foldable, self.call, cut))

    # Results

    def result(self, factors: Iterable[Factor | None], index: int = 0) -> Channels:
        """What goes out: `factors` over output `index`."""
        shape = self.shapes[index]
        kept = []
        for given in factors:
            if given is None:
                continue
            factor = given.compact()
            if not factor.axes:
                # One entry per channel cannot be told from an axis that carries none; such a channel stays.
                self.freeze(factor, Reason.SINGLE)
                continue
            kept.append(factor)
        return Channels(shape, tuple(kept))

    def along(self, axis: int, line: Line | np.ndarray, index: int = 0) -> Factor:
        """The factor of output `index` that varies along `axis` as `line` does."""
        line = unvalued(line) if isinstance(line, np.ndarray) else line
        return line.spread(len(self.shapes[index]), axis % len(self.shapes[index]))


Rule = Callable[[Visit], Any]
