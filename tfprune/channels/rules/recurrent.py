"""Recurrent layers, and wrappers that apply a layer in both directions or at every step."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tfprune.channels.labels import Channels, Line, unvalued
from tfprune.channels.reasons import Reason
from tfprune.channels.rules.activation import function_of
from tfprune.channels.rules.registry import Entry, Resized, find
from tfprune.channels.trace import Role
from tfprune.channels.values import known
from tfprune.channels.visit import Visit
from tfprune.model.layers import channel_axis

layers = keras.layers

# The gate that makes a unit's new value, among those side by side in the kernels: a unit whose part of it is zero
# stays at zero.
_GATES = {layers.LSTMCell: (4, 2), layers.GRUCell: (3, 2), layers.SimpleRNNCell: (1, 0)}


def _resize_units(layer: Any, config: dict[str, Any], new: Resized) -> None:
    if type(layer.cell) not in _GATES:
        return  # its units stay
    target = config["cell"]["config"] if "cell" in config else config
    target["units"] = new.size(layer.cell.recurrent_kernel)[0]


def recurrent(visit: Visit) -> list[Channels]:
    """Kernels of (inputs, gates x units) and (units, gates x units)."""
    if type(visit.layer.cell) not in _GATES:
        return visit.freeze_all(Reason.UNKNOWN_LAYER)
    line = units(visit, visit.layer, visit.input, _initial_states(visit))
    return _outputs(visit, [line] * len(visit.shapes))


def _initial_states(visit: Visit) -> list[Channels]:
    states = keras.tree.flatten(visit.argument("initial_state", 1))
    return [state for state in states if isinstance(state, Channels)]


def units(visit: Visit, layer: Any, sequence: Channels, states: Sequence[Channels], kind: str = "units") -> Line:
    """The units of one recurrent layer: they also listen to themselves, and go together with their initial states."""
    lines = visit.lines(sequence)
    cell = layer.cell
    count, candidate = _GATES[type(cell)]
    size = cell.recurrent_kernel.shape[0]
    labels = visit.fresh(size, kind)
    quiet = _stays_zero(visit, cell, lines, size, candidate)
    for state in states:
        found, _ = visit.take(state)
        if not found:
            visit.freeze(labels, Reason.FIXED_PARTNER)
        for line in found:
            visit.join(labels, line.labels)
            quiet = quiet & (line.now == 0)
    now = np.where(quiet, 0.0, math.nan)
    gates = np.tile(labels, count)
    for line in lines:
        visit.use(Role.INPUT, cell.kernel, 0, line)
    visit.use(Role.INPUT, cell.recurrent_kernel, 0, unvalued(labels).with_values(0.0, now))
    visit.use(Role.OUTPUT, cell.kernel, 1, gates)
    visit.use(Role.OUTPUT, cell.recurrent_kernel, 1, gates)
    visit.use(Role.BIAS, cell.bias, -1, gates)
    return unvalued(labels).with_values(_masked(cell, bool(states)), now)


def _masked(cell: Any, has_states: bool) -> float:
    function = function_of(cell.activation)
    if isinstance(function, Reason) or has_states:
        return math.nan
    return 0.0 if float(np.asarray(function(np.zeros(1, np.float32)))[0]) == 0 else math.nan


def _stays_zero(visit: Visit, cell: Any, lines: Sequence[Line], size: int, candidate: int) -> np.ndarray:
    if math.isnan(_masked(cell, False)) or not visit.values.enabled:
        return np.zeros(size, bool)
    own = slice(candidate * size, (candidate + 1) * size)
    kernel = visit.values.read(cell.kernel)[:, own]
    heard = ~(known(lines, len(kernel)) == 0)
    quiet = ~(kernel[heard] != 0).any(0) & ~(visit.values.read(cell.recurrent_kernel)[:, own] != 0).any(0)
    if cell.bias is not None:
        bias = visit.values.read(cell.bias).reshape(-1, cell.bias.shape[-1])[:, own]
        quiet &= ~(bias != 0).any(0)
    return quiet


def _outputs(visit: Visit, lines: Sequence[Line]) -> list[Channels]:
    """One result per output, whether a sequence or a state: units come last in both."""
    return [visit.result([visit.along(-1, line, index)], index) for index, line in enumerate(lines)]


def _resize_bidirectional(layer: Any, config: dict[str, Any], new: Resized) -> None:
    # Both directions are written out: their cells may be of different kinds.
    for key, part in (("layer", layer.forward_layer), ("backward_layer", layer.backward_layer)):
        _resize_units(part, config[key]["config"], new)


def bidirectional(visit: Visit) -> list[Channels]:
    """Two recurrent layers whose outputs are joined as `merge_mode` says."""
    layer = visit.layer
    parts = (layer.forward_layer, layer.backward_layer)
    if not all(type(getattr(part, "cell", None)) in _GATES for part in parts):
        return visit.freeze_all(Reason.UNKNOWN_LAYER)
    if parts[0].cell.units != parts[1].cell.units:
        return visit.freeze_all(Reason.INPUT_SHAPE)
    states = _initial_states(visit)
    half = len(states) // 2
    forward = units(visit, parts[0], visit.input, states[:half], "forward")
    backward = units(visit, parts[1], visit.input, states[half:], "backward")
    # Keras takes the output to be twice as wide as the forward half: both directions lose the same units.
    visit.join(forward.labels, backward.labels)
    values = [(forward.masked, backward.masked), (forward.now, backward.now)]
    if layer.merge_mode == "concat":
        labels = unvalued(np.concatenate([forward.labels, backward.labels]))
        outputs = [labels.with_values(*(np.concatenate(pair) for pair in values))]
    elif layer.merge_mode is None:
        outputs = [forward, backward]
    else:
        outputs = [forward.with_values(*(np.where((v == 0) & (w == 0), 0.0, math.nan) for v, w in values))]
    left = len(visit.shapes) - len(outputs)
    return _outputs(visit, [*outputs, *[forward] * (left // 2), *[backward] * (left // 2)])


def _resize_time_distributed(layer: Any, config: dict[str, Any], new: Resized) -> None:
    entry = find(layer.layer)
    if entry is not None and entry.resize is not None:
        frame = replace(
            new,
            inputs=[(shape[0], *shape[2:]) for shape in new.inputs],
            outputs=[(shape[0], *shape[2:]) for shape in new.outputs],
            old_outputs=[(shape[0], *shape[2:]) for shape in new.old_outputs],
        )
        entry.resize(layer.layer, config["layer"]["config"], frame)


def time_distributed(visit: Visit) -> Channels | list[Channels]:
    """A layer applied to every step alone."""
    entry = find(visit.layer.layer)
    if entry is None or len(visit.shapes) != 1:
        return visit.freeze_all(Reason.UNKNOWN_LAYER)
    factors = visit.frozen_axis(visit.input, [1], Reason.OTHER_AXIS)
    shape = visit.input.shape
    frame = Channels((shape[0], *shape[2:]), tuple(f.map(lambda v: np.squeeze(v, 1)) for f in factors))
    inner = replace(
        visit,
        layer=visit.layer.layer,
        path=f"{visit.path}/{visit.layer.layer.name}",
        args=(frame,),
        kwargs={},
        inputs=[frame],
        shapes=[(size[0], *size[2:]) for size in visit.shapes],
    )
    result = entry.rule(inner)
    output: Channels = result[0] if isinstance(result, list) else result
    return visit.result(factor.map(lambda v: np.expand_dims(v, 1)) for factor in output.factors)


def _resize_convolutional(layer: Any, config: dict[str, Any], new: Resized) -> None:
    config["filters"] = new.size(layer.cell.recurrent_kernel)[-2]


def convolutional_recurrent(visit: Visit) -> list[Channels]:
    """An LSTM whose kernels are convolutions of (space, inputs, gates x filters)."""
    layer, cell = visit.layer, visit.layer.cell
    axis = 2 if channel_axis(layer) == 1 else -1
    if _initial_states(visit) or len(visit.shapes) > 1:
        return visit.freeze_all(Reason.UNKNOWN_LAYER)
    lines = visit.lines(visit.input, axis)
    size = cell.recurrent_kernel.shape[-2]
    labels = visit.fresh(size)
    gates = np.tile(labels, 4)
    for line in lines:
        visit.use(Role.INPUT, cell.kernel, -2, line)
    visit.use(Role.INPUT, cell.recurrent_kernel, -2, labels)
    visit.use(Role.OUTPUT, cell.kernel, -1, gates)
    visit.use(Role.OUTPUT, cell.recurrent_kernel, -1, gates)
    visit.use(Role.BIAS, cell.bias, 0, gates)
    out_axis = -1 if axis == -1 else len(visit.shape) - len(cell.kernel_size) - 1
    return [visit.result([visit.along(out_axis, unvalued(labels).with_values(_masked(cell, False), math.nan))])]


LAYERS: dict[type | None, Entry] = {
    **dict.fromkeys((layers.LSTM, layers.GRU, layers.SimpleRNN, layers.RNN), Entry(recurrent, resize=_resize_units)),
    layers.Bidirectional: Entry(bidirectional, resize=_resize_bidirectional),
    layers.TimeDistributed: Entry(time_distributed, resize=_resize_time_distributed),
    **dict.fromkeys(
        (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D),
        Entry(convolutional_recurrent, resize=_resize_convolutional),
    ),
}
