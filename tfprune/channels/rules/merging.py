"""Where tensors meet entry by entry."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tfprune.channels.labels import KEPT, Channels, Factor, Line, unvalued
from tfprune.channels.reasons import Reason
from tfprune.channels.rules.registry import Entry, Resized
from tfprune.channels.trace import CONSTANT, UNIFORM
from tfprune.channels.visit import Rule, Visit
from tfprune.model.fresh import fresh_operation
from tfprune.model.hooks import class_of_applications

layers = keras.layers
ops = keras.ops

Function = Callable[..., Any]


def merged(
    visit: Visit,
    operands: Sequence[Channels],
    function: Function | None = None,
    index: int = 0,
    absorbing: int = 0,
) -> Channels:
    """What goes out where tensors meet entry by entry, as under broadcasting.

    Channels that meet go together. A channel that meets entries which stay is frozen, except where the other tensor
    has a single entry for all of them.

    Args:
        visit: The call.
        operands: What meets, constants included, in the order of `function`'s arguments.
        function: Gives the values; None when they are not to be followed.
        index: Which output this is.
        absorbing: Of how many operands, from the first, zero meets anything as zero: all of a product, what a quotient
            divides.
    """
    shape = visit.shapes[index]
    rank = len(shape)
    sizes = [(1,) * (rank - len(op.shape)) + tuple(op.shape) for op in operands]
    operands = [_with_channels_of_its_own(visit, place, operands, sizes) for place in range(len(operands))]
    lists = [[factor.aligned(rank) for factor in op.factors] for op in operands]
    factors: list[Factor] = []
    while any(lists):
        # The widest factor first: those that vary along fewer axes join it.
        owner = max((i for i in range(len(lists)) if lists[i]), key=lambda i: len(lists[i][0].axes))
        factor = lists[owner].pop(0)
        partners: list[Factor | None] = [None] * len(operands)
        partners[owner] = factor
        for other in range(len(operands)):
            if other == owner or operands[other].constant is not None:
                continue
            meeting = [axis for axis in factor.axes if sizes[other][axis] == shape[axis]]
            found = [f for f in lists[other] if set(f.axes) & set(meeting) and not _gives_way(visit, f, factor)]
            found = _nearest(factor, meeting, _counterpart(factor, lists[owner], found))
            alone = [axis for axis in meeting if not any(axis in f.axes for f in found)]
            if alone:
                # Along these axes the other tensor cannot lose entries.
                rest = [axis for axis in factor.axes if axis not in alone]
                if not rest:
                    visit.freeze(factor, Reason.FIXED_PARTNER)
                    partners = [None] * len(operands)
                    break
                factor = visit.tied(factor, rest)
                partners[owner] = factor
            for partner in found:
                if absorbing == len(operands) == 2 and _apart(factor, partner, sizes[owner], shape):
                    _share(visit, factor, partner, len(factors))
                    alone_in_it = [partner if place == other else None for place in range(2)]
                    factors.append(_met(visit, alone_in_it, operands, function, absorbing))
                    continue
                if set(partner.axes) < set(factor.axes):
                    visit.trace.meet(factor.labels, partner.labels, visit.path)
                else:
                    visit.join(*np.broadcast_arrays(factor.labels, partner.labels))
                partners[other] = partner
            lists[other] = [f for f in lists[other] if not any(f is partner for partner in found)]
        if any(partner is not None for partner in partners):
            factors.append(_met(visit, partners, operands, function, absorbing))
    return visit.result(factors, index)


def _with_channels_of_its_own(
    visit: Visit, place: int, operands: Sequence[Channels], sizes: Sequence[tuple[int | None, ...]]
) -> Channels:
    """An operand; a constant with the channels that it has along axes where all others have a single entry."""
    if operands[place].constant is None:
        return operands[place]
    others = [size for other, size in enumerate(sizes) if other != place]
    added = len(sizes[place]) - operands[place].rank
    alone = [axis - added for axis in range(added, len(sizes[place])) if all(size[axis] == 1 for size in others)]
    return outer_constant(visit, operands[place], place, alone)


def _counterpart(factor: Factor, others: Sequence[Factor], found: list[Factor]) -> list[Factor]:
    """Of several families along the same axes, as heads and their width in one, the one that lies as `factor` does.

    All of them, where some has no counterpart among the `others` that lie beside `factor`.
    """
    own, *rest = (_pattern(each) for each in (factor, *others))
    patterns = [_pattern(each) for each in found]
    paired = all(pattern in [own, *rest] for pattern in patterns) and len(set(patterns)) == len(patterns)
    return [found[patterns.index(own)]] if len(found) > 1 and paired and own in patterns else found


def _nearest(factor: Factor, meeting: Sequence[int], found: list[Factor]) -> list[Factor]:
    """Those that lie along some of the axes of `factor` and no others, where they are enough; the rest comes later."""
    within = [other for other in found if set(other.axes) <= set(factor.axes)]
    return within if set(meeting) <= {axis for other in within for axis in other.axes} else found


def _apart(factor: Factor, partner: Factor, size: Sequence[int | None], shape: Sequence[int | None]) -> bool:
    """Whether both lie along axes where the other tensor of a product has a single entry, as in an outer product."""
    own, theirs = set(factor.axes), set(partner.axes)
    met = {axis for axis in theirs if size[axis] == shape[axis]}
    return bool(own - theirs) and bool(theirs - own) and met <= own


def _share(visit: Visit, one: Factor, other: Factor, place: int) -> None:
    """Channels along some axes in common, as the heads of an outer product, whose widths may go by themselves."""
    shape = [size if axis in other.axes else 1 for axis, size in enumerate(one.labels.shape)]
    labels = visit.fresh(math.prod(shape), f"shared{place}").reshape(shape)
    for factor in (one, other):
        visit.trace.meet(factor.labels, labels, visit.path)


def _pattern(factor: Factor) -> tuple[tuple[int, ...], bytes]:
    """Which entries of a factor have one label, whatever it is."""
    _, first, places = np.unique(factor.labels, return_index=True, return_inverse=True)
    return factor.labels.shape, first[places].tobytes()


def outer_constant(visit: Visit, operand: Channels, place: int, axes: Iterable[int]) -> Channels:
    """A constant, such as the frequencies of a rotary embedding, whose entries along some axes are channels.

    No weight makes them: they go with those of weights that they meet later, and stay where they meet none.
    """
    array = np.asarray(operand.constant, np.float64)
    number = array.flat[0] if array.size and (array == array.flat[0]).all() and np.isfinite(array.flat[0]) else math.nan

    def line(axis: int) -> Line:
        kind = UNIFORM if (array == array.take(range(min(1, array.shape[axis])), axis)).all() else CONSTANT
        labels = visit.fresh(int(operand.shape[axis] or 0), f"{kind}{place}.{axis}")
        return unvalued(labels).with_values(number, number)

    lines = {axis: line(axis) for axis in axes if operand.shape[axis] != 1}
    return replace(operand, factors=tuple(line.spread(operand.rank, axis) for axis, line in lines.items()))


def _gives_way(visit: Visit, partner: Factor, factor: Factor) -> bool:
    """Whether channels of a constant stay for those that also lie along other axes, as heads whose width they meet.

    Those of one number, as zeros that a sum begins with, go with whatever goes.
    """
    narrower = set(partner.axes) < set(factor.axes)
    return narrower and visit.trace.prefers != "width" and visit.trace.are_of_constants(partner.labels)


def _met(
    visit: Visit,
    partners: Sequence[Factor | None],
    operands: Sequence[Channels],
    function: Function | None,
    absorbing: int,
) -> Factor:
    present = [partner for partner in partners if partner is not None]
    labels = present[0].labels
    for partner in present[1:]:
        ours, theirs = np.broadcast_arrays(labels, partner.labels)
        labels = np.where(ours == KEPT, theirs, ours)
    rank = labels.ndim
    values = []
    for name in ("masked", "now"):
        arrays = [
            _constant(operand, rank) if partner is None else getattr(partner, name)
            for partner, operand in zip(partners, operands)
        ]
        values.append(_evaluate(function, arrays, absorbing, labels.shape))
    masked, now = values
    if np.isinf(masked).any():
        visit.freeze(labels, Reason.NOT_FINITE)
    alike = all(
        _is_alike(operand, labels.shape) if partner is None else partner.alike
        for partner, operand in zip(partners, operands)
    )
    return Factor(labels, masked, np.where(np.isfinite(now), now, math.nan), alike)


def _is_alike(operand: Channels, shape: tuple[int, ...]) -> bool:
    """Whether an operand has a single entry along every axis where labels of this compact shape vary."""
    padded = (*(1 for _ in shape), *operand.shape)[-len(shape) :]
    return all(theirs == 1 or ours == 1 for ours, theirs in zip(shape, padded))


def _constant(operand: Channels, rank: int) -> np.ndarray:
    if operand.known is None:
        return np.full((1,) * rank, math.nan)
    array = np.asarray(operand.known, np.float64)
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def _evaluate(
    function: Function | None, arrays: Sequence[np.ndarray], absorbing: int, shape: tuple[int, ...]
) -> np.ndarray:
    full = np.broadcast_arrays(*arrays, np.zeros(shape))[:-1]
    known = ~np.any([np.isnan(array) for array in full], axis=0)
    result = np.full(full[0].shape, math.nan)
    if function is not None and known.any():
        with np.errstate(all="ignore"):
            given = [array[known].astype(np.float32) for array in full]
            result[known] = np.asarray(function(*given), np.float64)
            # A value that is no number, such as 0 / 0, is as bad as an infinite one.
            result[known] = np.where(np.isnan(result[known]), math.inf, result[known])
    if absorbing:
        result[np.any([array == 0 for array in full[:absorbing]], axis=0)] = 0.0
    return result


def _merge_rule(function: Function, absorbing: bool = False) -> Rule:
    def rule(visit: Visit) -> Channels:
        """Entry by entry."""
        operands = operands_of(visit)
        return merged(visit, operands, function, absorbing=len(operands) * absorbing)

    return rule


def operands_of(visit: Visit) -> list[Channels]:
    """Tensors, arrays and numbers among the arguments, in order."""
    found = []
    for x in keras.tree.flatten((visit.args, visit.kwargs)):
        is_switch = isinstance(x, bool) and isinstance(visit.layer, layers.Layer)  # such as `training`
        if isinstance(x, Channels):
            found.append(x)
        elif isinstance(x, (int, float, np.number)) and not is_switch:
            found.append(Channels((), constant=np.asarray(x)))
    return found


def scaled_sum(visit: Visit) -> Channels:
    """x[0] + scale * x[1]."""
    return merged(visit, visit.inputs, lambda x, y: x + y * visit.layer.scale)


# Operations entry by entry: what they give is looked up by running NumPy's function of the same name.
_BINARY = {
    "Add": np.add, "Subtract": np.subtract, "Maximum": np.maximum, "Minimum": np.minimum, "Fmax": np.fmax,
    "Fmin": np.fmin, "Hypot": np.hypot, "Arctan2": np.arctan2, "Logaddexp": np.logaddexp, "Logaddexp2": np.logaddexp2,
    "Equal": np.equal, "NotEqual": np.not_equal, "Greater": np.greater, "GreaterEqual": np.greater_equal,
    "Less": np.less, "LessEqual": np.less_equal, "LogicalAnd": np.logical_and, "LogicalOr": np.logical_or,
    "LogicalXor": np.logical_xor,
}  # fmt: skip


def staying(array: np.ndarray, kept: Mapping[int, Any]) -> np.ndarray:
    """The entries of a constant that stay, by what is kept along each axis: None for all."""
    for axis, stays in kept.items():
        if stays is not None and array.shape[axis] == len(stays):
            array = array.compress(stays, axis)
    return array


def slice_constants(args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> tuple[Any, dict[str, Any]]:
    """The arguments with every constant array cut to the entries that stay in the output."""

    def cut(x: Any) -> Any:
        if not (isinstance(x, (np.ndarray, np.generic)) or (keras.ops.is_tensor(x) and not _is_symbolic(x))):
            return x
        array = keras.ops.convert_to_numpy(x)
        rank = len(new.outputs[0])
        return staying(array, {axis: new.kept(0, axis + rank - array.ndim) for axis in range(array.ndim)})

    return keras.tree.map_structure(cut, (args, kwargs))


def _is_symbolic(x: Any) -> bool:
    return isinstance(x, keras.KerasTensor)


def replay_with_constants(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    """Calls a fresh operation with its constants cut."""
    args, kwargs = slice_constants(args, kwargs, new)
    return fresh_operation(op)(*args, **kwargs)


def division(visit: Visit) -> Channels:
    """A masked channel below the line must not be zero."""
    functions = {"Divide": np.divide, "TrueDivide": np.divide, "FloorDivide": np.floor_divide, "Power": np.power}
    function = functions.get(type(visit.layer).__name__, np.mod)
    operands = operands_of(visit)
    for operand in operands[1:]:
        for factor in operand.factors:
            visit.freeze(factor.labels[~(np.isfinite(factor.masked) & (factor.masked != 0))], Reason.NOT_FINITE)
    return merged(visit, operands, function, absorbing=int(function is not np.power))


def take_along_axis(visit: Visit) -> Channels:
    """`keras.ops.take_along_axis`: nothing may go along the axis; along others entries meet their numbers."""
    op = visit.layer
    operands = [visit.argument(name, place) for place, name in enumerate(("x", "indices"))]
    if op.axis is None or any(not isinstance(x, Channels) or x.constant is not None for x in operands):
        return visit.freeze_all(Reason.INPUT_SHAPE)[0]
    axis = op.axis % len(visit.shape)
    placed = []
    for x in operands:
        rest = visit.frozen_axis(x, [axis], Reason.INPUT_SHAPE)
        shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
        placed.append(Channels(shape, tuple(rest)))
    return merged(visit, placed)


def _of_all(function: Function) -> Function:
    """NumPy's reduction as a function of the operands."""
    return lambda *arrays: function(arrays, axis=0)


_product = _merge_rule(_of_all(np.prod), absorbing=True)

LAYERS: dict[type | None, Entry] = {
    layers.Add: Entry(_merge_rule(_of_all(np.sum))),
    layers.Subtract: Entry(_merge_rule(np.subtract)),
    layers.Multiply: Entry(_product),
    layers.Average: Entry(_merge_rule(_of_all(np.mean))),
    layers.Maximum: Entry(_merge_rule(_of_all(np.max))),
    layers.Minimum: Entry(_merge_rule(_of_all(np.min))),
    class_of_applications("inception_resnet_v2", "CustomScaleLayer"): Entry(scaled_sum),
}
_RULES: dict[str, Rule] = {
    **{name: _merge_rule(function) for name, function in _BINARY.items()},
    "Multiply": _product,
    **dict.fromkeys(("Divide", "TrueDivide", "FloorDivide", "Mod", "Fmod", "Power"), division),
    "DivideNoNan": lambda visit: merged(visit, operands_of(visit)),  # 0 for x / 0
    "Where": _merge_rule(np.where),
    "TakeAlongAxis": take_along_axis,
}
OPERATIONS = {name: Entry(rule, replay=replay_with_constants) for name, rule in _RULES.items()}
