"""Layers that work over space or time and treat every channel alone: pooling, padding, cropping, resizing."""

import keras

from tfprune.channels.labels import Channels, Factor
from tfprune.channels.reasons import Reason
from tfprune.channels.rules.activation import zeros_only
from tfprune.channels.rules.registry import layer_rule
from tfprune.channels.rules.weighted import channel_axis
from tfprune.channels.visit import Visit

layers = keras.layers


def over_space(visit: Visit, axis: int, constants: bool) -> list[Factor]:
    """The factors along the channel axis; channels that lie in space are left alone.

    Args:
        visit: the call.
        axis: the channel axis.
        constants: whether a channel that is constant stays so.
    """
    places = [a for a in range(1, visit.input.rank) if a != visit.input.axis(axis)]
    factors = visit.frozen_axis(visit.input, places, Reason.OTHER_AXIS)
    return factors if constants else [zeros_only(factor) for factor in factors]


@layer_rule(
    *(getattr(layers, f"{kind}Pooling{n}D", None) for kind in ("Max", "Average") for n in (1, 2, 3)),
    *(getattr(layers, f"Adaptive{kind}Pooling{n}D", None) for kind in ("Max", "Average") for n in (1, 2, 3)),
)
def pooling(visit: Visit) -> Channels:
    """The largest or the mean of a window; padding takes no part."""
    return visit.result(over_space(visit, channel_axis(visit.layer), constants=True))


@layer_rule(*(getattr(layers, f"Global{kind}Pooling{n}D", None) for kind in ("Max", "Average") for n in (1, 2, 3)))
def global_pooling(visit: Visit) -> Channels:
    """The largest or the mean over all space."""
    axis = channel_axis(visit.layer)
    factors = over_space(visit, axis, constants=True)
    if visit.layer.keepdims:
        return visit.result(factors)
    return visit.result(visit.along(-1, factor.line(visit.input.axis(axis))) for factor in factors)


@layer_rule(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
def zero_padding(visit: Visit) -> Channels:
    """Zeros around; a constant other than zero does not stay one."""
    return visit.result(over_space(visit, _axis(visit), constants=False))


@layer_rule(layers.Cropping1D, layers.Cropping2D, layers.Cropping3D)
def cropping(visit: Visit) -> Channels:
    """Space cut off."""
    return visit.result(over_space(visit, _axis(visit), constants=True))


@layer_rule(layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D, layers.Resizing, layers.CenterCrop)
def resizing(visit: Visit) -> Channels:
    """Space repeated or interpolated."""
    return visit.result(over_space(visit, _axis(visit), constants=False))


def _axis(visit: Visit) -> int:
    return 1 if getattr(visit.layer, "data_format", "channels_last") == "channels_first" else -1
