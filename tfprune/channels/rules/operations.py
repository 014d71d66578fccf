"""`keras.ops` operations that treat entries alone, reduce axes, or have a layer of the same meaning."""

import math
from typing import Any

import keras
import numpy as np

from tfprune.channels.labels import Channels, Factor
from tfprune.channels.reasons import Reason
from tfprune.channels.rules.activation import UNARY, forget, map_values, mixed, unchanged, zeros_only
from tfprune.channels.rules.registry import Entry, Resized
from tfprune.channels.visit import Visit
from tfprune.model.fresh import fresh_operation

ops = keras.ops

_NEEDS_KNOWN = {"Log", "Log2", "Log10", "Rsqrt", "Reciprocal", "Log1p", "Arccosh", "Erfinv", "Sqrt", "Arcsin", "Arccos"}


def entrywise(visit: Visit) -> Channels:
    """One entry in, one entry out."""
    if any(np.ndim(getattr(visit.layer, name, 0)) for name in ("x_min", "x_max")):
        return visit.freeze_all(Reason.INPUT_SHAPE)[0]  # clipped by arrays
    factors = []
    for factor in visit.input.factors:
        if type(visit.layer).__name__ in _NEEDS_KNOWN and np.isnan(factor.masked).any():
            visit.freeze(factor, Reason.NOT_FINITE)
            continue
        factors.append(map_values(visit, factor, visit.layer.call))
    return visit.result(factors)


def filled(visit: Visit) -> Channels:
    """As many entries, all of them one number."""
    value = float(type(visit.layer).__name__ == "OnesLike")
    full = (np.full(factor.labels.shape, value) for factor in visit.input.factors)
    return visit.result(Factor(f.labels, v, v, alike=True) for f, v in zip(visit.input.factors, full))


def softmax(visit: Visit) -> Channels:
    """Entries along the axis decide one another's value."""
    axis = visit.layer.axis
    if axis is None:
        return visit.freeze_all(Reason.MIXED)[0]
    if type(visit.layer).__name__ == "Glu":
        return visit.result(forget(f) for f in visit.frozen_axis(visit.input, [axis], Reason.MIXED))
    axes = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    return visit.result(mixed(visit, visit.input, axes))


_ADDITIVE = {"Sum", "CountNonzero", "Nansum", "Any"}
_ANY_OF_ALIKE = {"Any", "All", "Max", "Min", "Amax", "Amin", "Median"}
_OVER_ZEROS = {"Mean", "Var", "Std"}  # zeros add nothing, once the number of entries is made up for
_ZERO_OF_ZEROS = _ADDITIVE | {"Var", "Std"}
_STEADY = {"Mean", "Max", "Min", "Amax", "Amin", "Median"}


def reduction(visit: Visit) -> Channels:
    """Axes summed up: channels along others pass; those along them may go where zeros make no difference."""
    op, source = visit.layer, visit.input
    name = type(op).__name__
    axis = getattr(op, "axis", None)
    places = range(source.rank) if axis is None else np.atleast_1d(axis)
    reduced = {source.axis(int(a)) for a in places}
    idle = name in _ANY_OF_ALIKE
    additive = name in _ADDITIVE or (name == "Norm" and getattr(op, "ord", None) in (None, 2, "fro", 1))
    keepdims = bool(getattr(op, "keepdims", False))
    factors: list[Factor] = []
    for factor in source.factors:
        crossed = set(factor.axes) & reduced
        if crossed == set(factor.axes) and factor.alike and idle:
            visit.unheard(factor.labels.ravel())
            continue
        if crossed and (additive or name in _OVER_ZEROS) and crossed == set(factor.axes):
            visit.demand_zero(factor.labels, factor.masked, factor.now, Reason.MIXED)
            if name in _OVER_ZEROS:
                visit.trace.normalised.append(factor.labels.ravel())
            continue
        if crossed and (additive or name in _OVER_ZEROS) and visit.trace.prefers != "head" and not factor.masked.any():
            left = [_of_some(visit, factor, crossed, name)]
        elif crossed:
            left = visit.frozen_axis(Channels(source.shape, (factor,)), sorted(crossed), Reason.MIXED)
        else:
            left = [factor]
        for passing in left:
            zeroed = zeros_only if name in _ZERO_OF_ZEROS else forget
            after = passing if name in _STEADY else zeroed(passing)
            factors.append(after if keepdims else after.map(lambda v: np.squeeze(v, tuple(reduced))))
    return visit.result(factors)


def _of_some(visit: Visit, factor: Factor, crossed: set[int], name: str) -> Factor:
    """Sums over some of the axes along which channels vary, as of squares inside heads: either kind may go.

    A whole head goes with its sum; where the widths inside heads may go, which are zero then, the sums stay.
    """
    visit.demand_zero(factor.labels, factor.masked, factor.now, Reason.MIXED)
    if name in _OVER_ZEROS:
        visit.trace.normalised.append(factor.labels.ravel())
    shape = [1 if axis in crossed else size for axis, size in enumerate(factor.labels.shape)]
    labels = visit.fresh(math.prod(shape), f"sums{sorted(factor.axes)}").reshape(shape)
    visit.trace.meet(factor.labels, labels, visit.path)
    quiet = (np.broadcast_to(factor.now, factor.labels.shape) == 0).all(tuple(sorted(crossed)), keepdims=True)
    return Factor(labels, np.zeros(shape), np.where(quiet, 0.0, math.nan))


def cumulative(visit: Visit) -> Channels:
    """Sums or products up to each entry: channels along other axes pass."""
    if visit.layer.axis is None:
        return visit.freeze_all(Reason.MIXED)[0]
    return visit.result(zeros_only(f) for f in visit.frozen_axis(visit.input, [visit.layer.axis], Reason.MIXED))


def _replay_reduction(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    """A mean is taken over as many entries as before: those that are gone are zero."""
    widths, name = new.padding(0), type(op).__name__
    x, *others = args or (kwargs.pop("x"),)
    fresh = fresh_operation(op)
    if name not in _OVER_ZEROS or not any(lost for _, lost in widths):
        return fresh(x, *others, **kwargs)
    reduced = range(len(widths)) if op.axis is None else {int(axis) % len(widths) for axis in np.atleast_1d(op.axis)}
    widths = [width if axis in reduced else (0, 0) for axis, width in enumerate(widths)]
    if name != "Mean":
        return fresh(ops.pad(x, widths), *others, **kwargs)
    shares = [
        int(x.shape[axis] or 0) / (int(x.shape[axis] or 0) + lost) for axis, (_, lost) in enumerate(widths) if lost
    ]
    mean = fresh(x, *others, **kwargs)
    return mean * math.prod(shares) if shares else mean


def moments(visit: Visit) -> list[Channels]:
    """Mean and variance over space or samples; both are zero where all is."""
    op, source = visit.layer, visit.input
    reduced = tuple({source.axis(int(axis)) for axis in np.atleast_1d(op.axes)})
    left = [zeros_only(factor) for factor in visit.frozen_axis(source, reduced, Reason.MIXED)]
    factors = left if op.keepdims else [factor.map(lambda values: np.squeeze(values, reduced)) for factor in left]
    return [visit.result(factors, number) for number in (0, 1)]


def _replay_pad(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    widths = []
    for axis, (before, after) in enumerate(_pad_width(op, len(new.inputs[0]))):
        kept = new.kept(0, axis)
        if kept is None:
            widths.append((before, after))
        else:
            widths.append((int(kept[:before].sum()), int(kept[len(kept) - after :].sum())))
    return ops.pad(args[0], widths, mode=op.mode, **kwargs)


def _pad_width(op: Any, rank: int) -> list[tuple[int, int]]:
    """The widths for every axis; one pair stands for all."""
    given = [tuple(pair) for pair in op.pad_width]
    return given if len(given) == rank else given * rank


def pad(visit: Visit) -> Channels:
    """`keras.ops.pad`: entries added along the axis of channels are channels too, and may go as those they meet do."""
    op = visit.layer
    constant = visit.argument("constant_values", 1)
    value = 0.0 if op.mode == "constant" and constant in (None, 0) else math.nan
    factors = list(visit.input.factors)
    for axis, (before, after) in enumerate(_pad_width(op, visit.input.rank)):
        if not (before or after):
            continue
        result = []
        for factor in factors:
            if axis not in factor.axes:
                result.append(zeros_only(factor))
            elif op.mode != "constant":
                visit.freeze(factor, Reason.OTHER_AXIS)
            else:
                result.append(_padded(visit, visit.tied(factor, [axis]), axis, before, after, value))
        factors = result
    return visit.result(factors)


def _padded(visit: Visit, factor: Factor, axis: int, before: int, after: int, value: float) -> Factor:
    labels = visit.fresh(before + after, kind=f"padding{axis}")
    line = factor.line(axis)
    sides = (before, after)
    merged = np.concatenate([labels[:before], line.labels, labels[before:]])
    values = [np.pad(v, sides, constant_values=value) for v in (line.masked, line.now)]
    shape = [1] * factor.labels.ndim
    shape[axis] = len(merged)
    return Factor(merged.reshape(shape), values[0].reshape(shape), values[1].reshape(shape))


def segments(visit: Visit) -> Channels:
    """Rows summed up by the number that each has, or the largest of them; a row that none has is 0, or the least."""
    rest = visit.frozen_axis(visit.input, [0], Reason.OTHER_AXIS)
    return visit.result(zeros_only(f) if type(visit.layer).__name__ == "SegmentSum" else forget(f) for f in rest)


_REDUCTIONS = [
    *("Sum", "CountNonzero", "Nansum", "Mean", "Max", "Min", "Amax", "Amin", "Prod", "Any", "All", "Median"),
    *("Var", "Std", "Logsumexp", "Norm", "Argmax", "Argmin"),
]

OPERATIONS = {
    **dict.fromkeys(UNARY, Entry(entrywise)),
    **dict.fromkeys(("OnesLike", "ZerosLike"), Entry(filled)),
    **dict.fromkeys(("Cast", "SaturateCast", "StopGradient", "Copy", "ConvertToTensor"), Entry(unchanged)),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Sparsemax", "Glu"), Entry(softmax)),
    **dict.fromkeys(_REDUCTIONS, Entry(reduction, replay=_replay_reduction)),
    **dict.fromkeys(("Cumsum", "Cumprod"), Entry(cumulative)),
    **dict.fromkeys(("SegmentSum", "SegmentMax", "SegmentMin", "SegmentProd"), Entry(segments)),
    "Moments": Entry(moments),
    "Pad": Entry(pad, replay=_replay_pad),
}
