"""Operations whose settings hold an open size, made again so that they follow it.

Each function takes the `Building` at work and the two records of one call, and gives the new result, or None where the
settings hold no open size after all.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfprune.model.inline.reasons import CannotOpenError
from tfprune.model.inline.sizes import Size, index_like, length, placed, spread
from tfprune.model.inline.tracing import TracedCall

Remake = Callable[[Any, TracedCall, TracedCall], Any]


def _given(step: TracedCall, place: int, name: str) -> Any:
    return step.args[place] if len(step.args) > place else step.kwargs.get(name)


def _first(building: Any, a: TracedCall, b: TracedCall) -> Any:
    """The new tensor in the place of the first argument."""
    one, two = ((step.args or list(step.kwargs.values()))[0] for step in (a, b))
    return building.merged(one, two, a)


def _shapes(a: TracedCall, b: TracedCall) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of the first arguments."""
    return tuple((a.args or list(a.kwargs.values()))[0].shape), tuple((b.args or list(b.kwargs.values()))[0].shape)


def _size(building: Any, one: Any, two: Any, what: str) -> Size:
    size = building.open_size(one, two)
    if size is None:
        raise CannotOpenError(f"{what} ({one} and {two} in two traces) is no plain function of one open size")
    return size


def reshape(building: Any, a: TracedCall, b: TracedCall) -> Any:
    """One open axis is -1 in the shape; a second one may be the batch, which a Reshape layer leaves alone."""
    one, two = tuple(a.outputs[0].shape), tuple(b.outputs[0].shape)
    if tuple(a.operation.newshape) == tuple(b.operation.newshape):
        return None
    x = _first(building, a, b)
    differing = [axis for axis in range(len(one)) if one[axis] != two[axis]]
    shape = tuple(-1 if axis in differing else size for axis, size in enumerate(one))
    if len(differing) < 2:
        return keras.ops.reshape(x, shape)
    came, came_too = _shapes(a, b)
    if len(differing) == 2 and differing[0] == 0 and (one[0], two[0]) == (came[0], came_too[0]):
        return keras.layers.Reshape(shape[1:], name=building.name(a.path))(x)
    last = next((axis for axis in reversed(differing) if _stays(axis - len(one), came, one, came_too, two)), None)
    pair = [axis for axis in differing if len(differing) == 2 or axis != last]
    sizes = [building.open_size(one[axis], two[axis]) for axis in pair]
    if len(pair) == 2 and pair[1] == pair[0] + 1 and None not in sizes:
        merged: tuple[int, ...] = (*shape[: pair[0]], -1, *shape[pair[1] + 1 :])
        at = pair[0]
        if len(differing) == 3 and last is not None:  # goes to the front, where a Reshape layer leaves it alone
            x = keras.ops.moveaxis(x, last - len(one), 0)
            merged, at = (*merged[: last - len(one)], *merged[len(merged) + last - len(one) + 1 :]), at + 1
            x = keras.layers.Reshape(merged, name=building.name(a.path))(x)
        else:
            x = keras.ops.reshape(x, merged)
        # Rows by their numbers, since one size of a shape may be open, and no more.
        x = keras.ops.take(x, _numbered(*sizes), axis=at)
        return keras.ops.moveaxis(x, 0, last - len(one)) if len(differing) == 3 and last is not None else x
    raise CannotOpenError(f"it reshapes to {one} and {two} in two traces, which leaves more than one size open")


def _stays(axis: int, *shapes: tuple[int, ...]) -> bool:
    """Whether an axis, counted from the end, and all behind it are as long after a reshape as before, in two traces."""
    came, one, came_too, two = shapes
    return -axis < len(came) and came[axis:] == one[axis:] and came_too[axis:] == two[axis:]


def _numbered(rows: Size, columns: Size) -> Any:
    """0, 1, 2, ... row by row, in a matrix whose two sizes are open."""
    starts = (index_like(rows)) * length(columns)
    return placed(starts, 2, 0) + placed(index_like(columns), 2, 1)


def broadcast_to(building: Any, a: TracedCall, b: TracedCall) -> Any:
    """Fixed sizes are broadcast to; along open ones zeros are added."""
    one, two = tuple(a.operation.shape), tuple(b.operation.shape)
    if one == two:
        return None
    x = _first(building, a, b)
    came = _shapes(a, b)[0]
    for _ in range(len(one) - len(came)):
        x = keras.ops.expand_dims(x, 0)
    came = (1,) * (len(one) - len(came)) + came
    differing = [axis for axis in range(len(one)) if one[axis] != two[axis]]
    fixed = tuple(came[axis] if axis in differing else size for axis, size in enumerate(one))
    if fixed != came and all(came[axis] == 1 for axis in differing):
        x = keras.ops.broadcast_to(x, fixed)
    elif fixed != came:  # beside axes that are as long as an open size already
        for axis in (axis for axis in range(len(one)) if fixed[axis] != came[axis]):
            x = keras.ops.repeat(x, fixed[axis], axis=axis)
    grown = [axis for axis in differing if came[axis] == 1]
    return spread(x, {axis: _size(building, one[axis], two[axis], "the shape it broadcasts to") for axis in grown})


def tile(building: Any, a: TracedCall, b: TracedCall) -> Any:
    """An axis of length 1 that is repeated as often as an open size."""
    one, two = a.operation.repeats, b.operation.repeats
    if one == two:
        return None
    x, came = _first(building, a, b), _shapes(a, b)[0]
    one, two = [list(times) if isinstance(times, (list, tuple)) else [times] for times in (one, two)]
    rank = max(len(came), len(one))
    one, two = [[1] * (rank - len(times)) + times for times in (one, two)]
    for _ in range(rank - len(came)):
        x = keras.ops.expand_dims(x, 0)
    came = (1,) * (rank - len(came)) + came
    differing = [axis for axis in range(rank) if one[axis] != two[axis]]
    if any(came[axis] != 1 for axis in differing):
        raise CannotOpenError(f"it tiles by {one} and {two} in two traces")
    x = spread(x, {axis: _size(building, one[axis], two[axis], "the number of tiles") for axis in differing})
    left = [1 if axis in differing else times for axis, times in enumerate(one)]
    return keras.ops.tile(x, left) if any(times != 1 for times in left) else x


def repeat(building: Any, a: TracedCall, b: TracedCall) -> Any:
    """An axis of length 1 that is repeated as often as an open size."""
    one, two, axis = a.operation.repeats, b.operation.repeats, a.operation.axis
    if axis is None or np.array_equal(one, two):
        return None
    axis %= len(a.outputs[0].shape)
    if _shapes(a, b)[0][axis] != 1:
        raise CannotOpenError(f"it repeats {one} and {two} times in two traces")
    return spread(_first(building, a, b), {axis: _size(building, one, two, "the number of repeats")})


def get_item(building: Any, a: TracedCall, b: TracedCall) -> Any:
    """A slice up to an open size: all of an axis that is as long, else the first entries by their numbers."""
    key, other = _given(a, 1, "key"), _given(b, 1, "key")
    if repr(key) == repr(other):
        return None
    came, came_too = _shapes(a, b)
    keys, others = [each if isinstance(each, tuple) else (each,) for each in (key, other)]
    new: list[Any] = list(keys)
    x = _first(building, a, b)
    for axis, (mine, theirs) in enumerate(zip(keys, others)):
        if repr(mine) == repr(theirs):
            continue
        if not isinstance(mine, slice) or mine.start not in (None, 0) or mine.step not in (None, 1):
            raise CannotOpenError(f"it takes [{mine}] and [{theirs}] in two traces")
        new[axis] = slice(None)
        if (mine.stop, theirs.stop) != (came[axis], came_too[axis]):
            size = _size(building, mine.stop, theirs.stop, "the end of a slice")
            x = keras.ops.take(x, index_like(size), axis=axis)
    return x[tuple(new)] if any(repr(each) != repr(slice(None)) for each in new) else x


def slice_(building: Any, a: TracedCall, b: TracedCall) -> Any:
    """`keras.ops.slice`, axis by axis."""
    one, two = tuple(a.operation.shape), tuple(b.operation.shape)
    starts = [int(np.asarray(start)) for start in _given(a, 1, "start_indices")]
    came, came_too = _shapes(a, b)
    x = _first(building, a, b)
    if one == two:  # as numbers alone, which follow what is left of the axes that are taken whole
        whole = [(0, size) == part for size, part in zip(came, zip(starts, one))]
        parts = [slice(None) if all_ else slice(start, start + size) for all_, start, size in zip(whole, starts, one)]
        return x if all(whole) and came == came_too else x[(*parts, ...)]
    for axis, (start, mine, theirs) in enumerate(zip(starts, one, two)):
        if (start + mine, start + theirs) == (came[axis], came_too[axis]):  # all to the end
            x = x[(*[slice(None)] * axis, slice(start, None), ...)] if start else x
            continue
        if mine == theirs:
            places: Any = np.arange(start, start + mine)
        else:
            places = index_like(_size(building, mine, theirs, "the size of a slice")) + start
        x = keras.ops.take(x, places, axis=axis)
    return x


def pad(building: Any, a: TracedCall, b: TracedCall) -> Any:
    """Zeros before or behind an axis, as many as an open size."""
    one, two = (np.asarray(step.operation.pad_width) for step in (a, b))
    if np.array_equal(one, two):
        return None
    if a.operation.mode != "constant":
        raise CannotOpenError(f"it pads by {one.tolist()} and {two.tolist()} in two traces")
    x, rank = _first(building, a, b), len(a.outputs[0].shape)
    value = _given(a, 2, "constant_values") or 0
    one, two = (np.broadcast_to(each, (rank, 2)) for each in (one, two))
    for axis in range(rank):
        parts = [x]
        for side in (0, 1):
            mine, theirs = int(one[axis][side]), int(two[axis][side])
            if not mine and not theirs:
                continue
            block = keras.ops.zeros_like(keras.ops.take(x, np.zeros(1, "int32"), axis=axis)) + value
            if mine == theirs:
                block = keras.ops.repeat(block, mine, axis=axis)
            else:
                block = spread(block, {axis: _size(building, mine, theirs, "the padding")})
            parts.insert(0 if side == 0 else len(parts), block)
        x = keras.ops.concatenate(parts, axis=axis) if len(parts) > 1 else x
    return x


def fft2(building: Any, a: TracedCall, b: TracedCall) -> Any:
    """The Fourier transform over the last two axes as products with cosines and sines, whose sizes may be open."""
    one, two = ([tuple(x.shape) for x in step.outputs] for step in (a, b))
    if one == two:
        return None
    real, imaginary = (building.merged(x, y, a) for x, y in zip(a.args[0], b.args[0]))
    for axis in (-2, -1):
        size = building.open_size(one[0][axis], two[0][axis])
        line = np.arange(one[0][axis], dtype="int32") if size is None else index_like(size)
        count = one[0][axis] if size is None else length(size)
        turns = keras.ops.mod(placed(line, 2, 0) * placed(line, 2, 1), count)
        angles = keras.ops.cast(turns, real.dtype) * (2 * np.pi / keras.ops.cast(count, real.dtype))
        cosine, sine = keras.ops.cos(angles), keras.ops.sin(angles)
        left = axis == -2  # both matrices are their own transposes
        by_cosine, by_sine = (
            [keras.ops.matmul(matrix, x) if left else keras.ops.matmul(x, matrix) for x in (real, imaginary)]
            for matrix in (cosine, sine)
        )
        real, imaginary = by_cosine[0] + by_sine[1], by_cosine[1] - by_sine[0]
    return real, imaginary


def segment_sum(building: Any, a: TracedCall, b: TracedCall) -> Any:
    """Sums of as many segments as an open size: a row of zeros for each lets Keras count them by itself."""
    one, two = a.operation.num_segments, b.operation.num_segments
    if one == two:
        return None
    count = _size(building, one, two, "the number of segments")
    data, ids = (building.merged(x, y, a) for x, y in zip(a.args, b.args))
    line = keras.ops.cast(index_like(count), ids.dtype)
    zeros = spread(keras.ops.zeros_like(keras.ops.take(data, np.zeros(1, "int32"), axis=0)), {0: count})
    sums = keras.ops.segment_sum(keras.ops.concatenate([data, zeros]), keras.ops.concatenate([ids, line]))
    return keras.ops.take(sums, index_like(count), axis=0)  # numbers that are none of a segment's were counted too


def convert_to_tensor(building: Any, a: TracedCall, b: TracedCall) -> Any:
    """What is a tensor of that type already, as inputs of nested models are, stays what it is."""
    x = (a.args or list(a.kwargs.values()))[0]
    same = isinstance(x, keras.KerasTensor) and x.dtype == a.outputs[0].dtype
    return _first(building, a, b) if same else None


REMAKES: dict[str, Remake] = {
    "ConvertToTensor": convert_to_tensor,
    "Reshape": reshape,
    "BroadcastTo": broadcast_to,
    "Tile": tile,
    "Repeat": repeat,
    "GetItem": get_item,
    "Slice": slice_,
    "Pad": pad,
    "FFT2": fft2,
    "SegmentSum": segment_sum,
}
