"""Tensors laid side by side along an axis, and the parts that are cut from one."""

import functools
import math
import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tfprune.channels.labels import Channels, Factor, expand
from tfprune.channels.reasons import Reason
from tfprune.channels.rules.registry import Entry, Resized
from tfprune.channels.visit import Visit
from tfprune.model.fresh import fresh_operation

layers = keras.layers
ops = keras.ops


def concatenation(visit: Visit) -> Channels:
    """Inputs side by side: along the axis their channels form one list, elsewhere they go together.

    Constants among the parts cannot be told from channels that stay.
    """
    parts = _parts(visit)
    axis = visit.layer.axis % len(visit.shape)
    sizes = [part.shape[axis] for part in parts]
    crossing: list[Factor] = []
    if None not in sizes:
        parts, crossing = _across(visit, parts, axis)
    for index, part in enumerate(parts):
        for factor in part.factors:
            if axis not in factor.axes:
                continue
            if None in sizes:
                visit.freeze(factor, Reason.OPEN_SIZE)
                continue
            crossing.append(_placed(visit.tied(factor, [axis]), sizes, index, axis))
    passing = _shared(visit, parts, axis)
    return visit.result([*_merged_lists(crossing), *passing])


def _across(visit: Visit, parts: list[Channels], axis: int) -> tuple[list[Channels], list[Factor]]:
    """Channels that vary along the axis and along others, as heads and their width: what is left, and one list.

    Every part must have them along the others. One that has them there alone, as where it lost its width, has the same
    ones at every place of the axis.
    """
    wide = next((f for part in parts for f in part.factors if axis in f.axes and len(f.axes) > 1), None)
    if wide is None:
        return parts, []
    others = [other for other in wide.axes if other != axis]
    found = []
    for part in parts:
        fitting = [f for f in part.factors if [other for other in f.axes if other != axis] == others]
        if len(fitting) != 1:
            return parts, []
        found.append(fitting[0])
    rest = [
        replace(part, factors=tuple(f for f in part.factors if f is not taken)) for part, taken in zip(parts, found)
    ]
    sizes = [part.shape[axis] for part in parts]
    written = [
        f.map_entries(functools.partial(expand, shape=part.shape, axes=wide.axes)) for part, f in zip(parts, found)
    ]
    return rest, [_placed(factor, sizes, index, axis) for index, factor in enumerate(written)]


def _placed(factor: Factor, sizes: Sequence[int | None], index: int, axis: int) -> Factor:
    """The factor of one part, within a list that holds all of them; elsewhere entries stay."""
    widths = [int(size or 0) for size in sizes]
    before, after = sum(widths[:index]), sum(widths[index + 1 :])
    width = [(0, 0)] * factor.labels.ndim
    width[axis] = (before, after)
    return Factor(
        np.pad(factor.labels, width),
        np.pad(factor.masked, width, constant_values=math.nan),
        np.pad(factor.now, width, constant_values=math.nan),
        factor.alike,
    )


def _merged_lists(factors: list[Factor]) -> list[Factor]:
    """Factors that never hold a label at the same place, laid into as few as possible."""
    merged: list[Factor] = []
    for factor in factors:
        for index, other in enumerate(merged):
            if not ((other.labels != 0) & (factor.labels != 0)).any():
                own = factor.labels != 0
                merged[index] = Factor(
                    np.where(own, factor.labels, other.labels),
                    np.where(own, factor.masked, other.masked),
                    np.where(own, factor.now, other.now),
                    factor.alike and other.alike,
                )
                break
        else:
            merged.append(factor)
    return merged


def _shared(visit: Visit, parts: list[Channels], axis: int) -> list[Factor]:
    """Factors along other axes than that of the concatenation: every part must have them.

    Where some vary along fewer axes than others do, as heads whose width is gone beside heads with theirs, all are
    taken to vary along those that they have in common.
    """
    left = [[f for f in part.factors if axis not in f.axes] for part in parts]
    passing: list[Factor] = []
    for factor in left[0][:]:
        partners = [_nearest(factor, others) for others in left]
        common = set(factor.axes).intersection(*(f.axes for f in partners if f is not None))
        if None in partners or not common:
            continue
        left = [[f for f in own if f is not taken] for own, taken in zip(left, partners)]
        tied = [visit.tied(f, sorted(common)) for f in partners if f is not None]
        for other in tied[1:]:
            visit.join(tied[0].labels, other.labels)
        masked, now = (
            np.where(np.all([v == values[0] for v in values], axis=0), values[0], math.nan)
            for values in ([f.masked for f in tied], [f.now for f in tied])
        )
        passing.append(Factor(tied[0].labels, masked, now))
    visit.freeze([f for own in left for f in own], Reason.FIXED_PARTNER)
    return passing


def _nearest(factor: Factor, others: list[Factor]) -> Factor | None:
    """The one of `others` along the same axes, or along some of them; None where there is none."""
    shared = [other for other in others if set(other.axes) & set(factor.axes)]
    return min(shared, key=lambda other: len(set(other.axes) ^ set(factor.axes)), default=None)


def stack(visit: Visit) -> Channels:
    """`keras.ops.stack`: a new axis along which nothing may differ."""
    axis = visit.layer.axis % len(visit.shape)
    parts = [
        Channels(
            (*part.shape[:axis], 1, *part.shape[axis:]),
            tuple(f.map(lambda values: np.expand_dims(values, axis)) for f in part.factors),
        )
        for part in _parts(visit)
    ]
    return visit.result(_shared(visit, parts, axis))


def _parts(visit: Visit) -> list[Channels]:
    return [x for x in keras.tree.flatten((visit.args, visit.kwargs)) if isinstance(x, Channels)]


def part(visit: Visit, axis: int, positions: np.ndarray, index: int = 0, drop: bool = False) -> Channels:
    """Entries of the input at `positions` of an axis, as output `index`; `drop` leaves the axis out."""

    def move(values: np.ndarray) -> np.ndarray:
        if values.shape[axis] > 1:
            values = values.take(positions, axis)
        return values.take(0, axis) if drop else values

    source = visit.input
    factors = [
        f.map_entries(lambda v: expand(v, source.shape, [axis])) if axis in f.axes else f for f in source.factors
    ]
    visit.unheard(source.labels())
    return visit.result((f.map(move) for f in factors), index)


def _replay_split(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    axis = op.axis % len(new.inputs[0])
    sizes = [shape[axis] for shape in new.outputs]
    if None in sizes:
        return type(op)(op.indices_or_sections, op.axis)(*args, **kwargs)
    return ops.split(args[0], [int(cut) for cut in np.cumsum(sizes)[:-1]], axis=axis)


def split(visit: Visit) -> list[Channels]:
    """`keras.ops.split`."""
    axis = visit.input.axis(visit.layer.axis)
    size = visit.input.shape[axis]
    if size is None:
        rest = visit.frozen_axis(visit.input, [axis], Reason.OPEN_SIZE)
        return [visit.result(rest, index) for index in range(len(visit.shapes))]
    sizes = [int(shape[axis] or 0) for shape in visit.shapes]
    ends = np.cumsum(sizes)
    return [part(visit, axis, np.arange(end - n, end), i) for i, (n, end) in enumerate(zip(sizes, ends))]


def unstack(visit: Visit) -> list[Channels]:
    """`keras.ops.unstack`: channels along the axis would change how many outputs there are."""
    axis = visit.input.axis(visit.layer.axis)
    rest = visit.frozen_axis(visit.input, [axis], Reason.INPUT_SHAPE)
    dropped = [f.map(lambda values: values.take(0, axis)) for f in rest]
    return [visit.result(dropped, index) for index in range(len(visit.shapes))]


def _replay_take(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    x, indices = (args[i] if len(args) > i else kwargs[name] for i, name in enumerate(("x", "indices")))
    known = not isinstance(indices, keras.KerasTensor) and not isinstance(x, np.ndarray)
    kept = new.kept_input(0, op.axis) if op.axis is not None and known else None
    if kept is None:
        return fresh_operation(op)(x, indices)
    indices = np.asarray(indices)
    places = np.cumsum(kept) - 1
    indices = indices % len(kept)
    chosen = places[indices[kept[indices]] if indices.ndim else indices]
    return ops.take(x, chosen.astype("int32"), axis=op.axis)


def take(visit: Visit) -> Channels:
    """`keras.ops.take` of entries along an axis, with constant indices (a number or a list) or others."""
    op, source = visit.layer, visit.argument("x", 0)
    indices = visit.argument("indices", 1)
    constant = indices.constant if isinstance(indices, Channels) else indices
    if op.axis is None or source.constant is not None:
        return visit.freeze_all(Reason.INPUT_SHAPE)[0]
    axis = source.axis(op.axis)
    if constant is not None and np.ndim(constant) < 2:
        return part(visit, axis, np.atleast_1d(np.asarray(constant, int)), drop=np.ndim(constant) == 0)
    if constant is None:
        visit.freeze(indices, Reason.INPUT_SHAPE)
    return _gathered(visit, source, axis, len(indices.shape))


def _gathered(visit: Visit, source: Channels, axis: int, rank: int) -> Channels:
    """Entries along an axis in the order of indices of some rank; channels along the others pass."""

    def move(values: np.ndarray) -> np.ndarray:
        return values.reshape((*values.shape[:axis], *([1] * rank), *values.shape[axis + 1 :]))

    return visit.result(factor.map(move) for factor in visit.frozen_axis(source, [axis], Reason.INPUT_SHAPE))


def _keys(key: Any, rank: int) -> list[Any] | None:
    """The key of x[key], one part per axis of x and None for each new axis; None when it is not that simple."""
    keys = list(key) if isinstance(key, (tuple, list)) else [key]
    if not all(k is None or k is Ellipsis or isinstance(k, (int, np.integer, slice)) for k in keys):
        return None
    given = sum(k is not None and k is not Ellipsis for k in keys)
    if Ellipsis not in [k for k in keys if k is Ellipsis]:
        keys.append(Ellipsis)
    where = next(i for i, k in enumerate(keys) if k is Ellipsis)
    return [*keys[:where], *[slice(None)] * (rank - given), *keys[where + 1 :]]


def _slices(starts: Any, sizes: Sequence[int], shape: Sequence[int | None]) -> list[Any] | None:
    """What `keras.ops.slice` takes as the key of x[key]; None when it is told where to begin by a tensor."""
    if not all(isinstance(start, (int, np.integer)) for start in starts):
        return None
    whole = [start == 0 and size in (-1, length) for start, size, length in zip(starts, sizes, shape)]
    ends = [None if size == -1 else int(start) + size for start, size in zip(starts, sizes)]
    return [slice(None) if all_ else slice(int(start), end) for all_, start, end in zip(whole, starts, ends)]


def _replay_get_item(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    keys = _keys(args[1] if len(args) > 1 else kwargs["key"], len(args[0].shape))
    taken = None if keys is None else _replay_taken(args[0], keys, new)
    return type(op)()(*args, **kwargs) if taken is None else taken


def _replay_slice(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    x, starts = args[0], args[1] if len(args) > 1 else kwargs["start_indices"]
    before = [len(kept) if (kept := new.kept_input(0, axis)) is not None else n for axis, n in enumerate(x.shape)]
    keys = _slices(starts, op.shape, before)
    taken = None if keys is None else _replay_taken(x, keys, new)
    return fresh_operation(op)(*args, **kwargs) if taken is None else taken


def _replay_taken(x: Any, keys: Sequence[Any], new: Resized) -> Any:
    """x[keys] of what stays; None where nothing is lost."""
    result: list[Any] = []
    axis, lost = 0, False
    for key in keys:
        kept = None if key is None else new.kept_input(0, axis)
        lost = lost or kept is not None
        axis += key is not None
        if kept is None or key == slice(None):
            result.append(key)
            continue
        positions = np.arange(len(kept))[key]
        if np.ndim(positions) == 0:
            result.append(int(kept[:positions].sum()))
        else:
            # A slice of what stays is in general no slice, so its entries are taken one by one.
            places = np.cumsum(kept)[positions[kept[positions]]] - 1
            x = ops.take(x, places.astype("int32"), axis=axis - 1)
            result.append(slice(None))
    if not lost:  # then as it was written: Keras may not know the number of axes right
        return None
    return x if all(key == slice(None) for key in result) else x[tuple(result)]


def get_item(visit: Visit) -> Channels:
    """`x[...]` with numbers, slices, `...` and `None`."""
    return _taken(visit, _keys(visit.argument("key", 1), visit.input.rank))


def slice_(visit: Visit) -> Channels:
    """`keras.ops.slice`, from places that are numbers."""
    return _taken(visit, _slices(visit.argument("start_indices", 1), visit.layer.shape, visit.input.shape))


def _taken(visit: Visit, keys: Sequence[Any] | None) -> Channels:
    if keys is None or len(visit.inputs) > 1:
        return visit.freeze_all(Reason.INPUT_SHAPE)[0]
    factors: list[Factor] = []
    visit.unheard(visit.input.labels())
    for factor in visit.input.factors:
        full = factor.map_entries(functools.partial(expand, shape=visit.input.shape, axes=factor.axes))
        index: list[Any] = []
        axis = 0
        for key in keys:
            # An axis along which nothing varies has one entry, which every part of it shares.
            alike = key is not None and axis not in factor.axes
            index.append((0 if isinstance(key, (int, np.integer)) else slice(None)) if alike else key)
            axis += key is not None
        place = tuple(index)
        factors.append(full.map_entries(operator.itemgetter(place)))
    return visit.result(factors)


LAYERS: dict[type | None, Entry] = {layers.Concatenate: Entry(concatenation)}
OPERATIONS = {
    "Concatenate": Entry(concatenation),
    "Stack": Entry(stack),
    **dict.fromkeys(("Split", "ArraySplit"), Entry(split, replay=_replay_split)),
    "Unstack": Entry(unstack),
    "Take": Entry(take, replay=_replay_take),
    "GetItem": Entry(get_item, replay=_replay_get_item),
    "Slice": Entry(slice_, replay=_replay_slice),
}
