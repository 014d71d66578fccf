"""Tensors of which a part is put into another's place."""

from dataclasses import replace
from typing import Any

import keras

from tfprune.channels.labels import Channels
from tfprune.channels.reasons import Reason
from tfprune.channels.rules.merging import merged, staying
from tfprune.channels.rules.registry import Entry, Resized
from tfprune.channels.visit import Visit
from tfprune.model.fresh import fresh_operation

NAMES = ("inputs", "start_indices", "updates")


def slice_update(visit: Visit) -> Channels:
    """`keras.ops.slice_update`: along axes that the update fills channels go together, along the others none may."""
    tensors = [visit.argument(name, place) for place, name in ((0, "inputs"), (2, "updates"))]
    others = [axis for axis, (size, new) in enumerate(zip(*(x.shape for x in tensors))) if size != new]
    placed = []
    for x in tensors:
        shape = tuple(1 if axis in others else size for axis, size in enumerate(x.shape))
        factors = tuple(visit.frozen_axis(x, others, Reason.OTHER_AXIS))
        placed.append(replace(x, shape=shape, factors=factors, value=None))
    return merged(visit, placed)


def _replay(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    """A constant on either side loses what the result loses."""
    given = dict(zip(NAMES, args)) | kwargs
    kept = {axis: new.kept(0, axis) for axis in range(len(new.outputs[0]))}
    for name in ("inputs", "updates"):
        if not isinstance(given[name], keras.KerasTensor):
            given[name] = staying(keras.ops.convert_to_numpy(given[name]), kept)
    return fresh_operation(op)(*(given[name] for name in NAMES))


OPERATIONS = {"SliceUpdate": Entry(slice_update, replay=_replay)}
