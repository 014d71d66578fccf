"""Operations whose settings hold an open size, made again so that they follow it.

Each function takes the `Building` at work and the two records of one call, and gives the new result, or None where the
settings hold no open size after all.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfprune.model.inline.reasons import CannotOpenError
from tfprune.model.inline.sizes import Size, index_like, spread
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
    raise CannotOpenError(f"it reshapes to {one} and {two} in two traces, which leaves more than one size open")


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
    if fixed != came:
        if any(came[axis] != 1 for axis in differing):
            raise CannotOpenError(f"it broadcasts to {one} and {two} in two traces")
        x = keras.ops.broadcast_to(x, fixed)
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
    if one == two:
        return None
    came, came_too = _shapes(a, b)
    x = _first(building, a, b)
    for axis, (start, mine, theirs) in enumerate(zip(starts, one, two)):
        if start == 0 and (mine, theirs) == (came[axis], came_too[axis]):
            continue
        if mine == theirs:
            places: Any = np.arange(start, start + mine)
        else:
            places = index_like(_size(building, mine, theirs, "the size of a slice")) + start
        x = keras.ops.take(x, places, axis=axis)
    return x


REMAKES: dict[str, Remake] = {
    "Reshape": reshape,
    "BroadcastTo": broadcast_to,
    "Tile": tile,
    "Repeat": repeat,
    "GetItem": get_item,
    "Slice": slice_,
}
