"""Filters as operations, whose kernel is an operand: a weight of a layer's own, or a constant."""

from typing import Any

import keras
import numpy as np

from tfprune.channels.labels import Channels, Line
from tfprune.channels.reasons import Reason
from tfprune.channels.rules.activation import zeros_only
from tfprune.channels.rules.merging import staying
from tfprune.channels.rules.registry import Entry, Resized
from tfprune.channels.visit import Visit
from tfprune.model.fresh import fresh_operation


def _channel_axis(op: Any, rank: int) -> int:
    return 1 if (op.data_format or keras.config.image_data_format()) == "channels_first" else rank - 1


def depthwise(visit: Visit) -> Channels:
    """`keras.ops.depthwise_conv`: every channel meets its own slices of the kernel, and they go together."""
    data, kernel = visit.argument("inputs", 0), visit.argument("kernel", 1)
    axis = _channel_axis(visit.layer, data.rank)
    lines = visit.lines(data, axis)
    if kernel.constant is None:
        own = visit.lines(kernel, -2)
        if not (lines and own):
            for line in [*lines, *own]:
                visit.freeze(line, Reason.FIXED_PARTNER)
            lines = []
        else:
            lines = [_together(visit, [*lines, *own])]
    passing = (line.map(lambda values: np.repeat(values, kernel.shape[-1])) for line in lines)
    return visit.result(zeros_only(visit.along(axis, line)) for line in passing)  # no bias, and zeros around it


def _together(visit: Visit, lines: list[Line]) -> Line:
    """The products of what lies along several lines: zero where any of them is."""
    for line in lines[1:]:
        visit.join(lines[0].labels, line.labels)
    masked, now = (
        np.where(np.any([getattr(line, name) == 0 for line in lines], axis=0), 0.0, np.nan)
        for name in ("masked", "now")
    )
    return lines[0].with_values(masked, now)


def _replay(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    """A constant kernel loses the slices of channels that are gone."""
    given = dict(zip(("inputs", "kernel"), args)) | kwargs
    if not isinstance(given["kernel"], keras.KerasTensor):
        kernel = keras.ops.convert_to_numpy(given["kernel"])
        kept = new.kept_input(0, _channel_axis(op, len(new.inputs[0])))
        given["kernel"] = staying(kernel, {kernel.ndim - 2: kept})
    return fresh_operation(op)(given["inputs"], given["kernel"])


OPERATIONS = {"DepthwiseConv": Entry(depthwise, replay=_replay)}
