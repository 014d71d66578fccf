"""The trace: labels flow through the calls of a model, and what the layers do with them is recorded.

A rule (see `rules`) handles one call: it takes the `Channels` that come in, makes fresh labels for the channels a
layer produces, records which axes of which weights carry which labels, and gives the `Channels` that go out. Joining
labels is only recorded here; `Trace.resolve` then finds the sets that can only go together. The work grows linearly
with the number of channels.
"""

import enum
import functools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np

from tfprune.channels.labels import KEPT, Channels, Factor, Line, Partition, unvalued
from tfprune.channels.reasons import Frozen, Reason
from tfprune.channels.values import Values
from tfprune.errors import PruningError
from tfprune.model.graph import Call, flow


class Role(enum.Enum):
    """What a weight's slice does for a channel."""

    OUTPUT = "output"  # makes the channel: kernel outputs, recurrent kernel outputs, embeddings
    BIAS = "bias"  # is added to it
    SCALE = "scale"  # gamma and beta of a norm, LayerScale
    INPUT = "input"  # listens to it: the input slices of the next layers
    STATISTIC = "statistic"  # follows it, but does not decide its value: moving averages, PReLU slopes


class Use(NamedTuple):
    """Labels along one axis of one weight in one call; `line.now` is what arrives there, for the role INPUT."""

    layer: str
    operation: Any
    variable: Any
    axis: int
    role: Role
    line: Line
    foldable: bool
    call: int


class Block(NamedTuple):
    """Fresh labels for the channels that one layer produces."""

    layer: str
    kind: str
    labels: np.ndarray


@dataclass
class Trace:
    """Everything that a model's calls say about its channels."""

    size: int = 1
    pairs: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    frozen: list[tuple[np.ndarray, Frozen]] = field(default_factory=list)
    demands: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)  # labels, value that must be zero today
    approximate: list[tuple[np.ndarray, Frozen]] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    tensors: dict[int, Channels] = field(default_factory=dict)  # by id of Keras' symbolic tensor
    calls: dict[int, "Visit"] = field(default_factory=dict)  # by id of Keras' node, the first visit of each
    visits: list["Visit"] = field(default_factory=list)
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

    def times_called(self, operation: Any) -> int:
        """How many calls of a layer there are in the whole model."""
        return self.counts[id(operation)]

    def alive(self, factor: Factor, axis: int, removed: np.ndarray) -> np.ndarray:
        """Which positions along `axis` stay when the sets marked in `removed` (by root) go."""
        stays = ~removed[self.partition.root[factor.labels]]
        others = tuple(other for other in range(stays.ndim) if other != axis)
        return stays.any(axis=others)


@dataclass
class Visit:
    """One call as a rule sees it.

    Attributes:
        path: of the layer, for names and messages.
        layer: the layer, or the `keras.ops` operation.
        args: positional arguments of the call, with `Channels` in place of tensors and constant arrays.
        kwargs: likewise.
        inputs: the `Channels` among them, in order, constants left out.
        shapes: shape of each output.
    """

    trace: Trace
    owned: dict[tuple[int, str], np.ndarray]
    values: Values
    path: str
    layer: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Channels]
    shapes: list[tuple[int | None, ...]]
    approximate: bool = False
    call: int = 0
    outputs: list[Channels] = field(default_factory=list)

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
        if key not in self.owned:
            start = self.trace.size
            self.trace.size += size
            self.owned[key] = np.arange(start, start + size)
            self.trace.blocks.append(Block(self.path, kind, self.owned[key]))
        return self.owned[key]

    def join(self, left: np.ndarray, right: np.ndarray) -> None:
        """Makes channels go together."""
        self.trace.join(left, right, self.path)

    def freeze(self, channels: Channels | Factor | Line | np.ndarray, reason: Reason) -> None:
        """Leaves channels alone, for a reason."""
        labels = channels if isinstance(channels, np.ndarray) else channels.labels
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

    def unheard(self, labels: np.ndarray) -> None:
        """Records that nothing listens to channels from here on, as where a slice leaves them out."""
        self.trace.demands.append((labels, np.zeros(labels.shape)))

    # Weights

    def use(self, role: Role, variable: Any, axis: int, line: Line | np.ndarray, foldable: bool = False) -> None:
        """Records that `axis` of a weight carries labels; nothing for a weight that is None.

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
        self.trace.uses.append(Use(self.path, self.layer, variable, axis, role, line, foldable, self.call))

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


def trace_model(
    model: Any,
    find_rule: Callable[[Any], Rule | None],
    values: bool = False,
    strict: bool = False,
    approximate: bool = False,
) -> Trace:
    """Traces a model.

    Args:
        model: a model whose graph can be read.
        find_rule: gives the rule of a layer or operation, None when there is none.
        values: whether to read the weights too, to know which channels are zero or constant today.
        strict: whether a layer without a rule is an error, where it has weights or channels come to it.
        approximate: whether channels that meet in a normalisation may go, at the price of a difference.

    Raises:
        PruningError: a rule is wrong; or, with `strict`, there is none for some layer.
    """
    trace = Trace()
    owned: dict[tuple[int, str], np.ndarray] = {}
    reader = Values(enabled=values)

    def visit(call: Call) -> list[Channels]:
        arguments = keras.tree.map_structure(_as_channels, (call.args, call.kwargs))
        inputs = [x for x in keras.tree.flatten(arguments) if isinstance(x, Channels) and x.constant is None]
        seen = Visit(
            trace, owned, reader, call.path, call.operation, arguments[0], arguments[1], inputs,
            [tuple(x.shape) for x in call.outputs], approximate, len(trace.visits),
        )  # fmt: skip
        outputs = _outputs(seen, find_rule(call.operation), strict)
        seen.outputs = outputs
        trace.visits.append(seen)
        trace.counts[id(call.operation)] += 1
        first = trace.calls.setdefault(id(call.node), seen)
        for tensor, channels in zip(call.outputs, outputs):
            if first is not seen:
                # The graph of a nested model is one, however often it is called: its calls lose the same channels.
                tie(seen, trace.tensors[id(tensor)], channels)
            else:
                trace.tensors[id(tensor)] = channels
        return outputs

    inputs = [Channels(tuple(x.shape)) for x in model.inputs]
    trace.tensors.update((id(tensor), channels) for tensor, channels in zip(model.inputs, inputs))
    outputs = flow(model, inputs, visit)
    for tensor, channels in zip(model.outputs, outputs):
        name = tensor._keras_history.operation.name if hasattr(tensor, "_keras_history") else tensor.name
        trace.freeze(channels.labels(), Reason.MODEL_OUTPUT, name)
    _note_unheard(trace, outputs)
    _tie_calls(trace)
    trace.resolve()
    _freeze_single(trace)
    return trace


def tie(visit: Visit, left: Channels, right: Channels) -> None:
    """Makes two tensors of one shape lose the same entries."""
    for factor in left.factors:
        partner = next((other for other in right.factors if other.axes == factor.axes), None)
        if partner is None:
            visit.freeze(factor, Reason.FIXED_PARTNER)
        else:
            visit.join(factor.labels, partner.labels)
    for factor in right.factors:
        if not any(other.axes == factor.axes for other in left.factors):
            visit.freeze(factor, Reason.FIXED_PARTNER)


def _outputs(visit: Visit, rule: Rule | None, strict: bool) -> list[Channels]:
    if rule is None:
        if strict and (any(channels.factors for channels in visit.inputs) or getattr(visit.layer, "weights", None)):
            raise PruningError(
                f"No channel rule for layer '{visit.path}' ({type(visit.layer).__module__}."
                f"{type(visit.layer).__name__}). Give it one with tfprune.channels.register_rule, or leave out "
                "strict=True to keep the channels around it as they are."
            )
        return visit.freeze_all(Reason.UNKNOWN_LAYER)
    result = rule(visit)
    outputs = list(result) if isinstance(result, (list, tuple)) else [result]
    fits = len(outputs) == len(visit.shapes) and all(
        isinstance(channels, Channels) and _fits(channels, shape) for channels, shape in zip(outputs, visit.shapes)
    )
    if not fits:
        got = [getattr(channels, "shape", type(channels).__name__) for channels in outputs]
        raise PruningError(
            f"The channel rule of layer '{visit.path}' ({type(visit.layer).__name__}) gives channels of shape {got}, "
            f"but the layer's outputs have shape {visit.shapes}. Build them with visit.result(...)."
        )
    return outputs


def _fits(channels: Channels, shape: tuple[int | None, ...]) -> bool:
    return tuple(channels.shape) == tuple(shape) and all(
        factor.labels.ndim == len(shape) and all(size in (1, full) for size, full in zip(factor.labels.shape, shape))
        for factor in channels.factors
    )


def _as_channels(x: Any) -> Any:
    if isinstance(x, (np.ndarray, np.generic)) or keras.ops.is_tensor(x):
        array = keras.ops.convert_to_numpy(x)
        return Channels(tuple(array.shape), constant=array)
    return x


def _note_unheard(trace: Trace, outputs: Sequence[Channels]) -> None:
    """Records that nothing listens to tensors that no call takes, such as unused outputs of nested models."""
    taken = {id(channels) for given in [outputs, *(visit.inputs for visit in trace.visits)] for channels in given}
    for visit in trace.visits:
        for channels in visit.outputs:
            if id(channels) not in taken:
                visit.unheard(channels.labels())


def _tie_calls(trace: Trace) -> None:
    """Makes all calls of a shared layer agree on what its weights carry: they have only one set of entries to lose."""
    calls: dict[int, set[int]] = defaultdict(set)
    for visit in trace.visits:
        calls[id(visit.layer)].add(visit.call)
    lying: dict[tuple[int, int], dict[int, list[Use]]] = defaultdict(lambda: defaultdict(list))
    for use in trace.uses:
        lying[id(use.variable), use.axis][use.call].append(use)
    owners = {call: id(visit.layer) for visit in trace.visits for call in [visit.call]}
    for by_call in lying.values():
        everywhere = calls[owners[next(iter(by_call))]]
        if len(everywhere) == 1:
            continue
        first = next(iter(by_call.values()))
        for call in everywhere:
            uses = by_call.get(call, [])
            for one, other in zip(first, uses):
                trace.join(one.line.labels, other.line.labels, other.layer)
            for use in [*first[len(uses) :], *uses[len(first) :]]:
                trace.freeze(use.line.labels, Reason.FIXED_PARTNER, use.layer)


def _freeze_single(trace: Trace) -> None:
    """Leaves channels alone that are the last of an axis of some weight: without them the layer would be empty."""
    for use in trace.uses:
        roots = trace.partition.root[use.line.labels]
        if (roots == roots[0]).all():
            trace.freeze(use.line.labels, Reason.SINGLE, use.layer)


def _uniform(values: np.ndarray, axis: int) -> bool:
    return bool((values == values.take([0], axis)).all())


def _distinct_after_tie(roots: np.ndarray, axis: int) -> int:
    """How many sets are left when all entries at one index of `axis` are joined."""
    others = tuple(other for other in range(roots.ndim) if other != axis)
    return len(np.unique(roots.min(axis=others)))
