"""Layers and operations that only move or repeat entries: what they do is done to the labels."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tfprune.channels.labels import Channels, Factor, reshape
from tfprune.channels.reasons import Reason
from tfprune.channels.rules.registry import Entry, Resized
from tfprune.channels.visit import Rule, Visit
from tfprune.model.fresh import fresh_operation

layers = keras.layers
ops = keras.ops


def moving(move: Callable[[Visit, np.ndarray], np.ndarray]) -> Rule:
    """The rule of a call that `move` does to a compact array as the call does it to its input."""

    def rule(visit: Visit) -> Channels:
        return visit.result(factor.map(lambda values: move(visit, values)) for factor in visit.input.factors)

    return rule


def reshaped(visit: Visit, source: Channels) -> Channels:
    """What goes out of a reshape; frozen where an open size does not let a channel be followed.

    Of channels along several axes, those along one that can be followed may go, the same ones everywhere.
    """

    def moved(factor: Factor) -> Factor | None:
        parts = [reshape(part, source.shape, visit.shape) for part in (factor.labels, factor.masked, factor.now)]
        if any(part is None for part in parts):
            return None
        return Factor(parts[0], parts[1], parts[2], factor.alike)  # type: ignore[arg-type]

    def along(factor: Factor, axis: int) -> Factor:
        others = [other for other in factor.axes if other != axis]
        return factor.map_entries(lambda values: functools.reduce(lambda v, other: v.take([0], other), others, values))

    factors = []
    for factor in source.factors:
        result = moved(factor)
        if result is None and len(factor.axes) > 1:
            followed = [axis for axis in factor.axes if moved(along(factor, axis)) is not None]
            result = moved(visit.tied(factor, followed[-1:])) if followed else None
        if result is None:
            visit.freeze(factor, Reason.OPEN_SIZE)
        else:
            factors.append(result)

    def along_others(factor: Factor) -> bool:
        return factor.alike and any(set(factor.axes) & set(other.axes) for other in factors if other is not factor)

    # Copies that come to lie along the channels that they are of: as many as before, of those that stay.
    visit.freeze([factor for factor in factors if along_others(factor)], Reason.FIXED_PARTNER)
    return visit.result(factor for factor in factors if not along_others(factor))


def reshape_rule(visit: Visit) -> Channels:
    """Rows of entries cut anew."""
    return reshaped(visit, visit.input)


def transposed(visit: Visit, source: Channels, axes: Sequence[int]) -> Channels:
    """What comes of a tensor when its axes change places."""
    shape = tuple(source.shape[axis] for axis in axes)
    return Channels(shape, tuple(factor.map(lambda values: values.transpose(axes)) for factor in source.factors))


def flatten(visit: Visit) -> Channels:
    """All axes but the batch become one."""
    source = visit.input
    if visit.layer.data_format == "channels_first" and source.rank > 2:
        source = transposed(visit, source, [0, *range(2, source.rank), 1])
    return reshaped(visit, source)


def _resize_reshape(layer: Any, config: dict[str, Any], new: Resized) -> None:
    config["target_shape"] = [-1 if size is None else size for size in new.outputs[0][1:]]


def _replay_reshape(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    return ops.reshape(args[0], [-1 if size is None else size for size in new.outputs[0]])


def transpose(visit: Visit) -> Channels:
    """`keras.ops.transpose`."""
    axes = visit.layer.axes or tuple(reversed(range(visit.input.rank)))
    return visit.result(transposed(visit, visit.input, axes).factors)


def permute(visit: Visit) -> Channels:
    """`Permute`, which leaves the batch alone."""
    return visit.result(transposed(visit, visit.input, [0, *visit.layer.dims]).factors)


def _squeeze(visit: Visit, values: np.ndarray) -> np.ndarray:
    axis, shape = visit.layer.axis, visit.input.shape
    chosen = [a for a, size in enumerate(shape) if size == 1] if axis is None else np.atleast_1d(axis)
    return np.squeeze(values, tuple(visit.input.axis(int(a)) for a in chosen))


def _replay_squeeze(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    lost = {axis for axis, size in enumerate(new.inputs[0]) if size == 1 and new.kept_input(0, axis) is not None}
    if op.axis is not None or not lost:
        return fresh_operation(op)(*args, **kwargs)
    single = [axis for axis, size in enumerate(new.inputs[0]) if size == 1 and axis not in lost]
    return ops.squeeze(args[0] if args else kwargs["x"], single) if single else args[0]


def _replay_roll(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    if isinstance(op.axis, (list, tuple)):
        return ops.roll(args[0], op.shift, op.axis)
    kept = new.kept_input(0, op.axis)
    shift = op.shift if kept is None else int(kept[-(op.shift % len(kept)) :].sum()) if op.shift % len(kept) else 0
    return ops.roll(args[0], shift, op.axis)


def roll(visit: Visit) -> Channels:
    """`keras.ops.roll`, as of windows that shift; channels stay where several axes are rolled along them."""
    op = visit.layer
    if isinstance(op.axis, (list, tuple)):
        return visit.result(visit.frozen_axis(visit.input, op.axis, Reason.OTHER_AXIS))
    if not isinstance(op.axis, int) or not isinstance(op.shift, int):
        return visit.freeze_all(Reason.INPUT_SHAPE)[0]
    return visit.result(f.map(lambda values: np.roll(values, op.shift, op.axis)) for f in visit.input.factors)


def _replay_broadcast(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    return ops.broadcast_to(args[0], [after if after is not None else -1 for after in new.outputs[0]])


def broadcast(visit: Visit) -> Channels:
    """`keras.ops.broadcast_to`."""
    return visit.result(factor.aligned(len(visit.shape)) for factor in visit.input.factors)


def tile(visit: Visit) -> Channels:
    """`keras.ops.tile`."""
    rank = len(visit.shape)
    repeats = np.atleast_1d(visit.layer.repeats).tolist()
    tiles = [1] * (rank - len(repeats)) + repeats

    def move(values: np.ndarray) -> np.ndarray:
        return np.tile(values, [n if size > 1 else 1 for n, size in zip(tiles, values.shape)])

    return visit.result(factor.aligned(rank).map(move) for factor in visit.input.factors)


def repeat(visit: Visit) -> Channels:
    """`keras.ops.repeat` by one number along an axis; copies of a single entry may go as those they meet do."""
    op = visit.layer
    if op.axis is None or not isinstance(op.repeats, int):
        return visit.freeze_all(Reason.INPUT_SHAPE)[0]
    axis = visit.input.axis(op.axis)
    factors = [
        f.map(lambda values: np.repeat(values, op.repeats, axis) if values.shape[axis] > 1 else values)
        for f in visit.input.factors
    ]
    if visit.input.shape[axis] == 1 and axis and op.repeats > 1:
        factors.append(replace(visit.along(axis, visit.fresh(op.repeats, "copies")), alike=True))
    return visit.result(factors)


def _replay_repeat(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    x = args[0] if args else kwargs["x"]
    if op.axis is not None and x.shape[op.axis] == 1 and isinstance(op.repeats, int):
        return ops.repeat(x, new.outputs[0][op.axis], axis=op.axis)
    return fresh_operation(op)(*args, **kwargs)


def depth_space(visit: Visit) -> Channels:
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


LAYERS: dict[type | None, Entry] = {
    layers.Flatten: Entry(flatten),
    layers.Permute: Entry(permute),
    layers.RepeatVector: Entry(moving(lambda visit, values: values[:, None])),
    layers.Reshape: Entry(reshape_rule, resize=_resize_reshape),
}
OPERATIONS = {
    **dict.fromkeys(("Reshape", "Ravel"), Entry(reshape_rule, replay=_replay_reshape)),
    "Transpose": Entry(transpose),
    "Moveaxis": Entry(moving(lambda visit, v: np.moveaxis(v, visit.layer.source, visit.layer.destination))),
    "Swapaxes": Entry(moving(lambda visit, v: np.swapaxes(v, visit.layer.axis1, visit.layer.axis2))),
    "ExpandDims": Entry(moving(lambda visit, v: np.expand_dims(v, visit.layer.axis))),
    "Squeeze": Entry(moving(_squeeze), replay=_replay_squeeze),
    "Flip": Entry(moving(lambda visit, v: np.flip(v, visit.layer.axis))),
    "Roll": Entry(roll, replay=_replay_roll),
    "BroadcastTo": Entry(broadcast, replay=_replay_broadcast),
    "Tile": Entry(tile),
    "Repeat": Entry(repeat, replay=_replay_repeat),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), Entry(depth_space)),
}
