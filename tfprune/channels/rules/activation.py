"""Functions of single entries: what they make of a masked channel decides nothing but whether it stays finite."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.channels.labels import Channels, Factor, Line
from tfprune.channels.reasons import Reason
from tfprune.channels.rules.registry import Entry
from tfprune.channels.values import apply
from tfprune.channels.visit import Visit
from tfprune.model.graph import nodes_in_order
from tfprune.model.layers import is_entrywise, is_mixing

UNARY = [
    *("Absolute", "Arcsin", "Arcsinh", "Arctan", "Arctanh", "Cbrt", "Ceil", "Conjugate", "Cos", "Cosh", "Deg2rad"),
    *("Rad2deg", "Exp", "Exp2", "Expm1", "Floor", "Isfinite", "Isinf", "Isnan", "LogicalNot", "NanToNum", "Negative"),
    *("Round", "Sign", "Signbit", "Sin", "Sinc", "Sinh", "Square", "Tan", "Tanh", "Trunc", "Real", "Fabs", "Clip"),
    *("Relu", "Relu6", "Sigmoid", "SparseSigmoid", "Softplus", "Softsign", "SoftShrink", "SparsePlus", "Silu"),
    *("Squareplus", "LogSigmoid", "LeakyRelu", "HardSigmoid", "HardSilu", "Elu", "Selu", "Gelu", "Celu", "TanhShrink"),
    *("HardTanh", "HardShrink", "Threshold", "Erf", "Erfc", "Log1p"),
    "ReLU",  # of keras.activations
    # Not finite, or not smooth enough to stay finite in training, at or near zero: looked at by running them.
    *("Log", "Log2", "Log10", "Sqrt", "Rsqrt", "Reciprocal", "Arccos", "Arccosh", "Erfinv"),
]
ENTRYWISE = {*UNARY, "Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Power", "Maximum", "Minimum", "Cast"}


layers = keras.layers


def function_of(activation: Any) -> Callable[[np.ndarray], Any] | Reason:
    """The activation as a function of single entries, or the reason why it is not known to be one."""
    if is_mixing(activation):
        return Reason.MIXED
    if not is_entrywise(activation):
        if callable(activation) and not isinstance(activation, keras.Layer) and _composed_entrywise(activation):
            return activation
        return Reason.UNKNOWN_FUNCTION
    if isinstance(activation, keras.layers.Activation):
        return function_of(activation.activation)
    return activation.call if isinstance(activation, keras.Layer) else activation or (lambda x: x)


def _composed_entrywise(function: Callable[..., Any]) -> bool:
    """Whether a function does nothing but what Keras does to every entry alone: seen by calling it on no values."""
    x = keras.KerasTensor((None, 5))
    try:
        y = function(x)
        nodes = nodes_in_order([x], [y])
    except Exception:  # whatever a user's function does not like: then it is not known
        return False
    return tuple(y.shape) == (None, 5) and all(
        type(node.operation).__module__.startswith("keras.")
        and type(node.operation).__name__ in ENTRYWISE
        and all(np.ndim(given) == 0 or given.shape == (None, 5) for given in keras.tree.flatten(node.arguments.args))
        for node in nodes
    )


def activate(visit: Visit, factors: list[Factor], activation: Any) -> list[Factor]:
    """The factors after an activation inside a layer; those that it would spoil are frozen and left out."""
    function = function_of(activation)
    if function is Reason.MIXED:
        return mixed(visit, Channels(visit.shape, tuple(factors)), [-1])
    if isinstance(function, Reason):
        for factor in factors:
            visit.freeze(factor, function)
        return []
    return [mapped for factor in factors if (mapped := map_values(visit, factor, function)) is not None]


def mixed(visit: Visit, channels: Channels, axes: Sequence[int], reason: Reason = Reason.MIXED) -> list[Factor]:
    """The factors after softmax and its kin: those along its axes are left alone, others pass with unknown values."""
    places = {channels.axis(axis) for axis in axes}
    crossing = [factor for factor in channels.factors if set(factor.axes) <= places]
    for factor in crossing:
        visit.freeze(factor, reason)
    others = tuple(factor for factor in channels.factors if not set(factor.axes) <= places)
    return [forget(f) for f in [*crossing, *visit.frozen_axis(Channels(channels.shape, others), axes, reason)]]


def map_values(visit: Visit, factor: Factor, function: Callable[[np.ndarray], Any]) -> Factor | None:
    """The factor after a function of single entries; None, and frozen, where a masked channel would not be finite."""
    masked = apply(function, factor.masked)
    broken = np.isfinite(factor.masked) & ~np.isfinite(masked)
    if broken.any():
        visit.freeze(factor, Reason.NOT_FINITE)
        return None
    now = apply(function, factor.now)
    return Factor(factor.labels, masked, np.where(np.isfinite(now), now, math.nan))


def forget(factor: Factor) -> Factor:
    """The factor with nothing known about its values."""
    unknown = np.full(factor.labels.shape, math.nan)
    return Factor(factor.labels, unknown, unknown)


def zeros_only(factor: Factor) -> Factor:
    """The factor where only zeros stay known: after padding with zeros and the like."""
    return Factor(
        factor.labels,
        np.where(factor.masked == 0, 0.0, math.nan),
        np.where(factor.now == 0, 0.0, math.nan),
    )


def forget_line(line: Line) -> Line:
    """The line with nothing known about its values."""
    return line.with_values(math.nan, math.nan)


def elementwise(visit: Visit) -> Channels:
    """The rule of a layer that treats every entry alone, such as an activation of your own; runs it on zeros."""
    factors = [map_values(visit, factor, visit.layer.call) for factor in visit.input.factors]
    return visit.result(factors)


def unchanged(visit: Visit) -> Channels:
    """The rule of a layer that only acts in training, or passes its input on."""
    return visit.result(visit.input.factors)


def _resize_noise(layer: Any, config: dict[str, Any], new: Any) -> None:
    if config.get("noise_shape"):
        config["noise_shape"] = [
            size if size in (None, 1) else after for size, after in zip(config["noise_shape"], new.outputs[0])
        ]


def activation_layer(visit: Visit) -> Channels:
    """`Activation(name or function)`."""
    return visit.result(activate(visit, list(visit.input.factors), visit.layer.activation))


def softmax(visit: Visit) -> Channels:
    """Exponentials are summed over the axis, and one of a masked channel would count."""
    axes = visit.layer.axis if isinstance(visit.layer.axis, (list, tuple)) else [visit.layer.axis]
    return visit.result(mixed(visit, visit.input, axes))


def rescaling(visit: Visit) -> Channels:
    """x * scale + offset, with two numbers."""
    if np.ndim(visit.layer.scale) or np.ndim(visit.layer.offset):
        return visit.freeze_all(Reason.INPUT_SHAPE)[0]
    return visit.result(
        map_values(visit, factor, lambda x: x * visit.layer.scale + visit.layer.offset)
        for factor in visit.input.factors
    )


def masking(visit: Visit) -> Channels:
    """Steps where every entry equals `mask_value` are skipped: a channel that is that value has no say in it."""
    for factor in visit.input.factors:
        value = float(visit.layer.mask_value)
        visit.demand_zero(factor.labels, factor.masked - value, factor.now - value, Reason.MIXED)
    return visit.result(visit.input.factors)


LAYERS: dict[type | None, Entry] = {
    **dict.fromkeys((layers.ReLU, layers.LeakyReLU, layers.ELU), Entry(elementwise)),
    **dict.fromkeys(
        (
            layers.Identity,
            layers.ActivityRegularization,
            layers.GaussianDropout,
            layers.GaussianNoise,
            layers.AlphaDropout,
            layers.SpatialDropout1D,
            layers.SpatialDropout2D,
            layers.SpatialDropout3D,
        ),
        Entry(unchanged),
    ),
    layers.Dropout: Entry(unchanged, resize=_resize_noise),
    layers.Activation: Entry(activation_layer),
    layers.Softmax: Entry(softmax),
    layers.Rescaling: Entry(rescaling),
    layers.Masking: Entry(masking),
}
