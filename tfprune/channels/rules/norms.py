"""Normalisation: per channel it follows its channels; over channels it changes when one goes."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfprune.channels.labels import Channels, Factor, Line
from tfprune.channels.reasons import Reason
from tfprune.channels.rules.activation import forget, mixed, unchanged, zeros_only
from tfprune.channels.rules.registry import Entry, Resized, sized
from tfprune.channels.trace import Role
from tfprune.channels.visit import Visit
from tfprune.model.hooks import class_of_applications

layers = keras.layers


def batch_normalization(visit: Visit) -> Channels:
    """Moving averages, gamma and beta per channel: with all of a channel at zero it gives beta, which is zero too."""
    layer = visit.layer
    lines, rest = visit.take(visit.input, layer.axis)
    factors = [forget(factor) for factor in rest]
    for line in lines:
        _scale(visit, line, 0)
        visit.use(Role.STATISTIC, layer.moving_mean, 0, line)
        visit.use(Role.STATISTIC, layer.moving_variance, 0, line)
        factors.append(visit.along(layer.axis, _normalised(visit, line)))
    return visit.result(factors)


def _normalised(visit: Visit, line: Line) -> Line:
    layer, size = visit.layer, len(line.labels)
    gamma = visit.values.vector(layer.gamma, size, missing=1.0)
    beta = visit.values.vector(layer.beta, size)
    mean = visit.values.vector(layer.moving_mean, size)
    deviation = np.sqrt(visit.values.vector(layer.moving_variance, size) + layer.epsilon)
    with np.errstate(invalid="ignore"):
        now = np.where(gamma == 0, beta, gamma * (line.now - mean) / deviation + beta)
    # Without gamma a masked channel is some constant: its moving average is not masked.
    return line.with_values(0.0 if layer.gamma is not None else math.nan, now)


def _scale(visit: Visit, line: Line, axis: int, cut: bool = True) -> None:
    visit.use(Role.SCALE, visit.layer.gamma, axis, line, cut=cut)
    visit.use(Role.SCALE, visit.layer.beta, axis, line, cut=cut)


def layer_normalization(visit: Visit) -> Channels:
    """Mean and variance over its axes; channels along others pass.

    Channels that are zero may go: the layer keeps its size, and zeros stand in their place (`over_zeros`). With
    `approximate` it becomes smaller instead, and its statistics change.
    """
    axes, gamma, beta = _axes(visit), visit.layer.gamma, visit.layer.beta
    approximate = visit.trace.approximate
    if visit.steps_masked and not approximate:
        return visit.result(mixed(visit, visit.input, axes, Reason.NORMALIZED))
    lines, factors = _lines_along(visit, axes)
    masked = 0.0 if gamma is not None else math.nan
    for position, line in lines:
        if approximate:
            visit.inexact(line, Reason.NORMALIZED)
        else:
            visit.normalise(line)
        now = np.full(line.labels.shape, math.nan)
        if gamma is not None:
            silent = visit.values.is_zero(gamma, position)
            now[silent if beta is None else silent & visit.values.is_zero(beta, position)] = 0.0
        _scale(visit, line, position, cut=approximate)
        factors.append(visit.along(axes[position], line.with_values(masked, now)))
    return visit.result(factors)


def over_zeros(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    """Calls a layer that takes statistics over as many entries as before: zeros stand for those that are gone."""
    x, *others = args
    widths = new.padding(0)
    if new.approximate or not any(lost for _, lost in widths):
        return layer(*args, **kwargs)
    y = layer(keras.ops.pad(x, widths), *others, **kwargs)
    return y[tuple(slice(None) if not lost else slice(size) for (_, lost), size in zip(widths, x.shape))]


def _axes(visit: Visit) -> list[int]:
    """The axes that a layer normalises over, counted from the front."""
    axis = visit.layer.axis
    return [visit.input.axis(a) for a in (axis if isinstance(axis, (list, tuple)) else [axis])]


def _lines_along(visit: Visit, axes: Sequence[int]) -> tuple[list[tuple[int, Line]], list[Factor]]:
    """The channels along each of the axes, with the position of the axis in the list, and the others."""
    found: list[tuple[int, Line]] = []
    rest = list(visit.input.factors)
    for position, axis in enumerate(axes):
        lines, rest = visit.take(Channels(visit.input.shape, tuple(rest)), axis)
        found += [(position, line) for line in lines]
    return found, [forget(factor) for factor in rest]


def _resize_rms(layer: Any, config: dict[str, Any], new: Resized) -> None:
    config["epsilon"] = layer.epsilon * math.prod(layer.scale.shape) / math.prod(new.size(layer.scale))


def _rescale_rms(old: Any, layer: Any, new: Resized) -> None:
    """The mean is now over fewer entries of the same sum: the weight and epsilon make up for it."""
    ratio = math.prod(old.scale.shape) / math.prod(layer.scale.shape)
    if ratio != 1:
        layer.scale.assign(layer.scale * math.sqrt(ratio))


def rms_normalization(visit: Visit) -> Channels:
    """Division by the root of the mean square over its axes, to whose sum zeros add nothing."""
    axes = _axes(visit)
    lines, factors = _lines_along(visit, axes)
    for position, line in lines:
        visit.normalise(line)
        visit.use(Role.SCALE, visit.layer.scale, position, line)
        quiet = (line.now == 0) | visit.values.is_zero(visit.layer.scale, position)
        factors.append(visit.along(axes[position], line.with_values(0.0, np.where(quiet, 0.0, math.nan))))
    return visit.result(factors)


def _resize_groups(layer: Any, config: dict[str, Any], new: Resized) -> None:
    weight = layer.gamma if layer.gamma is not None else layer.beta
    if layer.groups != -1 and weight is not None:
        config["groups"] = new.size(weight)[0] // (weight.shape[0] // layer.groups)


def _replay_groups(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    return over_zeros(layer, args, kwargs, new) if new.layer.groups == 1 else layer(*args, **kwargs)


def group_normalization(visit: Visit) -> Channels:
    """Mean and variance within groups of channels: whole groups may go, and the others do not notice."""
    layer = visit.layer
    size = int(visit.input.shape[visit.input.axis(layer.axis)] or 0)
    groups = size if layer.groups == -1 else layer.groups
    lines = visit.lines(visit.input, layer.axis)
    factors = []
    for line in lines:
        whole = groups == 1 and not visit.trace.approximate
        if whole and visit.steps_masked:
            visit.freeze(line, Reason.NORMALIZED)
            continue
        if whole:
            visit.normalise(line)
        elif groups == 1:
            visit.inexact(line, Reason.NORMALIZED)
        elif layer.gamma is None and layer.beta is None:
            visit.freeze(line, Reason.INPUT_SHAPE)
            continue
        else:
            members = line.labels.reshape(groups, -1)
            visit.join(members, members[:, :1])
        _scale(visit, line, 0, cut=not whole)
        gamma = visit.values.vector(layer.gamma, size, missing=1.0)
        beta = visit.values.vector(layer.beta, size)
        masked = 0.0 if layer.gamma is not None else math.nan
        factors.append(visit.along(layer.axis, line.with_values(masked, np.where(gamma == 0, beta, math.nan))))
    return visit.result(factors)


def unit_normalization(visit: Visit) -> Channels:
    """Division by the length over its axes, to which zeros add nothing."""
    axes = set(_axes(visit))
    for factor in visit.input.factors:
        if set(factor.axes) & axes:
            visit.demand_zero(factor.labels, factor.masked, factor.now, Reason.NORMALIZED)
    return visit.result(zeros_only(factor) for factor in visit.input.factors)


def prelu(visit: Visit) -> Channels:
    """A slope per channel (and per place, unless `shared_axes` says otherwise)."""
    alpha = visit.layer.alpha
    for factor in visit.input.factors:
        own = [axis for axis in factor.axes if alpha.shape[axis - 1] != 1]
        if not own:
            continue
        line = visit.tied(factor, own[-1:]).line(own[-1])
        visit.use(Role.STATISTIC, alpha, own[-1] - 1, line)
    return visit.result(zeros_only(factor) for factor in visit.input.factors)


def layer_scale(visit: Visit) -> Channels:
    """A factor per channel."""
    gamma = visit.layer.gamma
    lines, rest = visit.take(visit.input)
    factors = [forget(factor) for factor in rest]
    for line in lines:
        visit.use(Role.SCALE, gamma, 0, line)
        values = visit.values.vector(gamma, len(line.labels))
        now = np.where((values == 0) | (line.now == 0), 0.0, values * line.now)
        factors.append(visit.along(-1, line.with_values(0.0, now)))
    return visit.result(factors)


LAYERS: dict[type | None, Entry] = {
    layers.BatchNormalization: Entry(batch_normalization),
    layers.LayerNormalization: Entry(layer_normalization, replay=over_zeros),
    getattr(layers, "RMSNormalization", None): Entry(rms_normalization, resize=_resize_rms, adjust=_rescale_rms),
    layers.GroupNormalization: Entry(group_normalization, resize=_resize_groups, replay=_replay_groups),
    layers.UnitNormalization: Entry(unit_normalization),
    layers.PReLU: Entry(prelu),
    class_of_applications("convnext", "LayerScale"): Entry(layer_scale, resize=sized("projection_dim", "gamma", 0)),
    class_of_applications("convnext", "StochasticDepth"): Entry(unchanged),
}
