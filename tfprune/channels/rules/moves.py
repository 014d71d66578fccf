"""Layers and operations that only move entries about: what they do is done to the labels."""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.channels.labels import Channels, Factor, expand, reshape
from tfprune.channels.reasons import Reason
from tfprune.channels.rules.registry import Resized, layer_rule, operation_rule
from tfprune.channels.visit import Visit

layers = keras.layers
ops = keras.ops


def moved(
    visit: Visit, factor: Factor, move: Callable[[np.ndarray], np.ndarray | None], index: int = 0
) -> Factor | None:
    """The factor after a move; frozen and None where an open size does not let it be followed."""
    parts = [move(values) for values in (factor.labels, factor.masked, factor.now)]
    if any(part is None for part in parts):
        visit.freeze(factor, Reason.OPEN_SIZE)
        return None
    return Factor(parts[0], parts[1], parts[2], factor.alike).compact()  # type: ignore[arg-type]


def reshaped(visit: Visit, source: Channels, index: int = 0) -> Channels:
    """What goes out of a reshape to the shape of output `index`."""
    target = visit.shapes[index]
    return visit.result(
        (moved(visit, f, lambda values: reshape(values, source.shape, target)) for f in source.factors), index
    )


def transposed(visit: Visit, source: Channels, axes: Sequence[int]) -> Channels:
    """What comes of a tensor when its axes change places."""
    shape = tuple(source.shape[axis] for axis in axes)
    return Channels(shape, tuple(factor.map(lambda values: values.transpose(axes)) for factor in source.factors))


@layer_rule(layers.Flatten)
def flatten(visit: Visit) -> Channels:
    """All axes but the batch become one."""
    source = visit.input
    if visit.layer.data_format == "channels_first" and source.rank > 2:
        source = transposed(visit, source, [0, *range(2, source.rank), 1])
    return reshaped(visit, source)


def _resize_reshape(layer: Any, config: dict[str, Any], new: Resized) -> None:
    config["target_shape"] = [-1 if size is None else size for size in new.outputs[0][1:]]


@layer_rule(layers.Reshape, resize=_resize_reshape, tied=True)
def reshape_layer(visit: Visit) -> Channels:
    """Rows of entries cut anew."""
    return reshaped(visit, visit.input)


@layer_rule(layers.Permute)
def permute(visit: Visit) -> Channels:
    """Axes change places."""
    return visit.result(transposed(visit, visit.input, [0, *visit.layer.dims]).factors)


@layer_rule(layers.RepeatVector)
def repeat_vector(visit: Visit) -> Channels:
    """(batch, channels) to (batch, repeats, channels)."""
    return visit.result(factor.map(lambda values: values[:, None]) for factor in visit.input.factors)


def _replay_reshape(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    return ops.reshape(args[0], [-1 if size is None else size for size in new.outputs[0]])


@operation_rule("Reshape", "Ravel", replay=_replay_reshape)
def reshape_operation(visit: Visit) -> Channels:
    """`keras.ops.reshape`."""
    return reshaped(visit, visit.input)


@operation_rule("Transpose")
def transpose_operation(visit: Visit) -> Channels:
    """`keras.ops.transpose`."""
    axes = visit.layer.axes or tuple(reversed(range(visit.input.rank)))
    return visit.result(transposed(visit, visit.input, axes).factors)


@operation_rule("Moveaxis")
def moveaxis_operation(visit: Visit) -> Channels:
    """`keras.ops.moveaxis`."""
    op = visit.layer
    return visit.result(
        f.map(lambda values: np.moveaxis(values, op.source, op.destination)) for f in visit.input.factors
    )


@operation_rule("Swapaxes")
def swapaxes_operation(visit: Visit) -> Channels:
    """`keras.ops.swapaxes`."""
    op = visit.layer
    return visit.result(f.map(lambda values: np.swapaxes(values, op.axis1, op.axis2)) for f in visit.input.factors)


@operation_rule("ExpandDims")
def expand_dims_operation(visit: Visit) -> Channels:
    """`keras.ops.expand_dims`."""
    axis = visit.layer.axis
    return visit.result(f.map(lambda values: np.expand_dims(values, axis)) for f in visit.input.factors)


@operation_rule("Squeeze")
def squeeze_operation(visit: Visit) -> Channels:
    """`keras.ops.squeeze`."""
    axis = visit.layer.axis
    chosen = [a for a, size in enumerate(visit.input.shape) if size == 1] if axis is None else np.atleast_1d(axis)
    places = tuple(visit.input.axis(int(a)) for a in chosen)
    return visit.result(f.map(lambda values: np.squeeze(values, places)) for f in visit.input.factors)


@operation_rule("Flip")
def flip_operation(visit: Visit) -> Channels:
    """`keras.ops.flip`."""
    return visit.result(f.map(lambda values: np.flip(values, visit.layer.axis)) for f in visit.input.factors)


def _replay_roll(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    kept = new.kept_input(0, op.axis)
    shift = op.shift if kept is None else int(kept[-(op.shift % len(kept)) :].sum()) if op.shift % len(kept) else 0
    return ops.roll(args[0], shift, op.axis)


@operation_rule("Roll", replay=_replay_roll)
def roll_operation(visit: Visit) -> Channels:
    """`keras.ops.roll` along one axis."""
    op = visit.layer
    if not isinstance(op.axis, int) or not isinstance(op.shift, int):
        return visit.freeze_all(Reason.INPUT_SHAPE)[0]
    return visit.result(moved(visit, f, lambda values: np.roll(values, op.shift, op.axis)) for f in visit.input.factors)


@layer_rule(layers.Concatenate)
def concatenate_layer(visit: Visit) -> Channels:
    """Inputs side by side along an axis."""
    return concatenated(visit, list(visit.inputs), visit.layer.axis)


@operation_rule("Concatenate")
def concatenate_operation(visit: Visit) -> Channels:
    """`keras.ops.concatenate`; constants among the parts cannot be told from channels that stay."""
    return concatenated(visit, _parts(visit), visit.layer.axis)


def concatenated(visit: Visit, parts: list[Channels], axis: int) -> Channels:
    """Inputs side by side: along the axis their channels form one list, elsewhere they go together."""
    axis %= len(visit.shape)
    sizes = [part.shape[axis] for part in parts]
    crossing: list[Factor] = []
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
    """Factors along other axes than that of the concatenation: every part must have them."""
    passing: list[Factor] = []
    for index, part in enumerate(parts):
        for factor in part.factors:
            if axis in factor.axes:
                continue
            partners = [[f for f in other.factors if f.axes == factor.axes] for other in parts]
            if not all(partners):
                visit.freeze(factor, Reason.FIXED_PARTNER)
                continue
            for other in partners:
                visit.join(factor.labels, other[0].labels)
            if index == 0:
                masked, now = (
                    np.where(np.all([v == w for w in others], axis=0), v, math.nan)
                    for v, others in (
                        (factor.masked, [f[0].masked for f in partners]),
                        (factor.now, [f[0].now for f in partners]),
                    )
                )
                passing.append(Factor(factor.labels, masked, now))
    return passing


@operation_rule("Stack")
def stack_operation(visit: Visit) -> Channels:
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


# Parts of an axis


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


def _cuts(op: Any, size: int) -> list[int]:
    given = op.indices_or_sections
    if isinstance(given, int):
        return [size // given * i for i in range(1, given)]
    return [int(cut) for cut in given]


def _replay_split(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    axis = op.axis % len(new.inputs[0])
    sizes = [shape[axis] for shape in new.outputs]
    if None in sizes:
        return type(op)(op.indices_or_sections, op.axis)(*args, **kwargs)
    return ops.split(args[0], [int(cut) for cut in np.cumsum(sizes)[:-1]], axis=axis)


@operation_rule("Split", "ArraySplit", replay=_replay_split)
def split_operation(visit: Visit) -> list[Channels]:
    """`keras.ops.split`."""
    axis = visit.input.axis(visit.layer.axis)
    size = visit.input.shape[axis]
    if size is None:
        rest = visit.frozen_axis(visit.input, [axis], Reason.OPEN_SIZE)
        return [visit.result(rest, index) for index in range(len(visit.shapes))]
    sizes = [int(shape[axis] or 0) for shape in visit.shapes]
    ends = np.cumsum(sizes)
    return [part(visit, axis, np.arange(end - n, end), i) for i, (n, end) in enumerate(zip(sizes, ends))]


@operation_rule("Unstack")
def unstack_operation(visit: Visit) -> list[Channels]:
    """`keras.ops.unstack`: channels along the axis would change how many outputs there are."""
    axis = visit.input.axis(visit.layer.axis)
    rest = visit.frozen_axis(visit.input, [axis], Reason.INPUT_SHAPE)
    dropped = [f.map(lambda values: values.take(0, axis)) for f in rest]
    return [visit.result(dropped, index) for index in range(len(visit.shapes))]


def _replay_take(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    indices = np.asarray(args[1] if len(args) > 1 else kwargs["indices"])
    kept = new.kept_input(0, op.axis) if op.axis is not None else None
    if kept is None:
        return type(op)(op.axis)(args[0], indices)
    places = np.cumsum(kept) - 1
    indices = indices % len(kept)
    chosen = places[indices[kept[indices]] if indices.ndim else indices]
    return ops.take(args[0], chosen.astype("int32"), axis=op.axis)


@operation_rule("Take", replay=_replay_take)
def take_operation(visit: Visit) -> Channels:
    """`keras.ops.take` of constant indices (a number or a list) along an axis."""
    op, source = visit.layer, visit.input
    indices = visit.argument("indices", 1)
    indices = indices.constant if isinstance(indices, Channels) else indices
    if op.axis is None or indices is None or np.ndim(indices) > 1 or len(visit.inputs) > 1:
        return visit.freeze_all(Reason.INPUT_SHAPE)[0]
    axis = source.axis(op.axis)
    return part(visit, axis, np.atleast_1d(np.asarray(indices, int)), drop=np.ndim(indices) == 0)


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


def _replay_get_item(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    x = args[0]
    keys = _keys(args[1] if len(args) > 1 else kwargs["key"], len(x.shape))
    if keys is None:
        return type(op)()(*args, **kwargs)
    result: list[Any] = []
    axis = 0
    for key in keys:
        kept = None if key is None else new.kept_input(0, axis)
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
    return x if all(key == slice(None) for key in result) else x[tuple(result)]


@operation_rule("GetItem", replay=_replay_get_item)
def get_item_operation(visit: Visit) -> Channels:
    """`x[...]` with numbers, slices, `...` and `None`."""
    keys = _keys(visit.argument("key", 1), visit.input.rank)
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


# Repeated entries


def _replay_broadcast(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    return ops.broadcast_to(args[0], [after if after is not None else -1 for after in new.outputs[0]])


@operation_rule("BroadcastTo", replay=_replay_broadcast)
def broadcast_operation(visit: Visit) -> Channels:
    """`keras.ops.broadcast_to`."""
    return visit.result(factor.aligned(len(visit.shape)) for factor in visit.input.factors)


def _tiles(visit: Visit) -> list[int]:
    repeats = np.atleast_1d(visit.layer.repeats).tolist()
    return [1] * (len(visit.shape) - len(repeats)) + repeats


@operation_rule("Tile")
def tile_operation(visit: Visit) -> Channels:
    """`keras.ops.tile`."""
    tiles = _tiles(visit)

    def move(values: np.ndarray) -> np.ndarray:
        return np.tile(values, [n if size > 1 else 1 for n, size in zip(tiles, values.shape)])

    return visit.result(factor.aligned(len(visit.shape)).map(move) for factor in visit.input.factors)


@operation_rule("Repeat")
def repeat_operation(visit: Visit) -> Channels:
    """`keras.ops.repeat` by one number along an axis."""
    op = visit.layer
    if op.axis is None or not isinstance(op.repeats, int):
        return visit.freeze_all(Reason.INPUT_SHAPE)[0]
    axis = visit.input.axis(op.axis)
    return visit.result(
        f.map(lambda values: np.repeat(values, op.repeats, axis) if values.shape[axis] > 1 else values)
        for f in visit.input.factors
    )


@operation_rule("DepthToSpace", "SpaceToDepth")
def depth_space_operation(visit: Visit) -> Channels:
    """Blocks of channels become space, or space becomes channels; every place of a block loses the same channels."""
    op, source = visit.layer, visit.input
    axis = 1 if op.data_format == "channels_first" else source.rank - 1
    rest = visit.frozen_axis(source, [a for a in range(1, source.rank) if a != axis], Reason.OTHER_AXIS)
    block = op.block_size**2
    factors = []
    for factor in rest:
        line = factor.line(axis)
        if type(op).__name__ == "SpaceToDepth":
            factors.append(visit.along(axis, line.map(lambda values: np.tile(values, block))))
        else:
            table = line.labels.reshape(block, -1)
            visit.join(table, table[:1])
            factors.append(visit.along(axis, table[0]))
    return visit.result(factors)
