"""Layers that work over space or time and treat every channel alone: pooling, padding, cropping, resizing, patches."""

import math

import keras
import numpy as np

from tfprune.channels.labels import Channels, Factor
from tfprune.channels.reasons import Reason
from tfprune.channels.rules.activation import zeros_only
from tfprune.channels.rules.registry import Entry
from tfprune.channels.visit import Visit
from tfprune.model.layers import channel_axis

layers = keras.layers


def over_space(visit: Visit) -> list[Factor]:
    """The factors along the channel axis; channels that lie in space are left alone."""
    places = [a for a in range(1, visit.input.rank) if a != visit.input.axis(channel_axis(visit.layer))]
    return visit.frozen_axis(visit.input, places, Reason.OTHER_AXIS)


def steady(visit: Visit) -> Channels:
    """Pooling and cropping: the largest or the mean of a constant is that constant; padding takes no part."""
    return visit.result(over_space(visit))


def unsteady(visit: Visit) -> Channels:
    """Padding, repeating and interpolation: of constants only zero stays one."""
    return visit.result(zeros_only(factor) for factor in over_space(visit))


def patches(visit: Visit) -> Channels:
    """Every place of a patch has the channels of the images, one place after the other."""
    op = visit.layer
    if visit.input.rank != 2 + len(op.size):
        return visit.freeze_all(Reason.INPUT_SHAPE)[0]
    axis, places = visit.input.axis(channel_axis(op)), math.prod(op.size)
    lines = [zeros_only(factor).line(axis) for factor in over_space(visit)]
    return visit.result(visit.along(axis, line.map(lambda values: np.tile(values, places))) for line in lines)


def global_pooling(visit: Visit) -> Channels:
    """The largest or the mean over all space."""
    factors = over_space(visit)
    if visit.layer.keepdims:
        return visit.result(factors)
    axis = visit.input.axis(channel_axis(visit.layer))
    return visit.result(visit.along(-1, factor.line(axis)) for factor in factors)


def _classes(*names: str) -> list[type | None]:
    """The layer classes of these names in one, two and three dimensions."""
    return [getattr(layers, f"{name}{n}D", None) for name in names for n in (1, 2, 3)]


_POOLING = _classes("MaxPooling", "AveragePooling", "AdaptiveMaxPooling", "AdaptiveAveragePooling")

LAYERS: dict[type | None, Entry] = {
    **dict.fromkeys([*_POOLING, *_classes("Cropping")], Entry(steady)),
    **dict.fromkeys(_classes("GlobalMaxPooling", "GlobalAveragePooling"), Entry(global_pooling)),
    **dict.fromkeys([*_classes("ZeroPadding", "UpSampling"), layers.Resizing, layers.CenterCrop], Entry(unsteady)),
}
OPERATIONS = {
    **dict.fromkeys(("MaxPool", "AveragePool", "AdaptiveMaxPool", "AdaptiveAveragePool"), Entry(steady)),
    **dict.fromkeys(("Resize", "PadImages", "CropImages"), Entry(unsteady)),
    "ExtractPatches": Entry(patches),
}
