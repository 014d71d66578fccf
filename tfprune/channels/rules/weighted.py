"""Layers that make channels out of channels: dense, convolutions of every kind, embeddings."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfprune.channels.labels import Channels, Factor, Line, unvalued
from tfprune.channels.reasons import Reason
from tfprune.channels.rules.activation import activate, forget
from tfprune.channels.rules.registry import Entry, Resized, sized
from tfprune.channels.trace import Role
from tfprune.channels.values import known
from tfprune.channels.visit import Visit
from tfprune.model.layers import Equation, channel_axis, has_borders, letter_axes

layers = keras.layers


def produce(
    visit: Visit,
    kernel: Any,
    bias: Any,
    lines: Sequence[Line],
    in_axis: int,
    out_axis: int,
    *,
    borders: bool = False,
    kind: str = "channels",
) -> Line:
    """Fresh channels at `out_axis` of a kernel that listens to `lines` along `in_axis`.

    Args:
        visit: The call.
        kernel: The weight.
        bias: The bias of rank 1, or None.
        lines: The channels that come in.
        in_axis: The kernel's axis of inputs.
        out_axis: The kernel's axis of outputs.
        borders: Whether the output meets padding, so that a constant that comes in does not stay one.
        kind: Name of these channels among those of the layer.
    """
    size = kernel.shape[out_axis]
    for line in lines:
        visit.use(Role.INPUT, kernel, in_axis, line, foldable=bias is not None and not borders)
    labels = visit.fresh(size, kind)
    visit.use(Role.OUTPUT, kernel, out_axis, labels)
    visit.use(Role.BIAS, bias, 0, labels)
    now = visit.values.product(kernel, lines, in_axis, out_axis, borders) + visit.values.vector(bias, size)
    return unvalued(labels).with_values(0.0, now)


def dense(visit: Visit) -> Channels:
    """A kernel of (inputs, outputs) over the last axis; channels along other axes pass."""
    layer = visit.layer
    lines, rest = visit.take(visit.input)
    line = produce(visit, layer.kernel, layer.bias, lines, 0, 1)
    factors = [*(forget(factor) for factor in rest), visit.along(-1, line)]
    return visit.result(activate(visit, factors, layer.activation))


def _resize_convolution(layer: Any, config: dict[str, Any], new: Resized) -> None:
    config["filters"] = new.size(layer.kernel)[-1]
    if layer.groups > 1:
        config["groups"] = int(new.inputs[0][channel_axis(layer)] or 0) // new.size(layer.kernel)[-2]


def convolution(visit: Visit) -> Channels:
    """A kernel of (space, inputs, outputs)."""
    layer = visit.layer
    lines = visit.lines(visit.input, channel_axis(layer))
    if layer.groups > 1:
        line = _grouped(visit, lines)
    else:
        line = produce(visit, layer.kernel, layer.bias, lines, -2, -1, borders=has_borders(layer))
    return visit.result(activate(visit, [visit.along(channel_axis(layer), line)], layer.activation))


def _grouped(visit: Visit, lines: Sequence[Line]) -> Line:
    """The channels of a grouped convolution.

    With one input or output per group whole groups go; otherwise every group loses the same positions, so that groups
    stay equally wide and the number of channels divisible by them.
    """
    layer = visit.layer
    groups, kernel = layer.groups, layer.kernel
    width, size = kernel.shape[-2], kernel.shape[-1]
    labels = visit.fresh(size)
    outputs = labels.reshape(groups, -1)
    whole = width == 1 or outputs.shape[1] == 1
    visit.join(outputs, outputs[:, :1] if whole else outputs[:1])
    if whole and not lines:
        visit.freeze(labels, Reason.FIXED_PARTNER)
    for line in lines:
        inputs = line.labels.reshape(groups, width)
        if whole:
            visit.join(inputs, outputs[:, :1])
        else:
            visit.join(inputs, inputs[:1])
            # What arrives at one slice of the kernel comes from all groups.
            now = line.now.reshape(groups, width)
            arriving = np.where((now == now[:1]).all(0), now[0], math.nan)
            visit.use(Role.INPUT, kernel, -2, unvalued(inputs[0]).with_values(0.0, arriving))
    visit.use(Role.OUTPUT, kernel, -1, labels)
    visit.use(Role.BIAS, layer.bias, 0, labels)
    arriving = known(lines, groups * width).reshape(groups, width)
    silent = np.repeat((arriving == 0).all(1), size // groups)
    quiet = visit.values.is_zero(kernel, -1) | silent
    bias = visit.values.vector(layer.bias, size)
    return unvalued(labels).with_values(0.0, np.where(quiet, bias, math.nan))


def transposed_convolution(visit: Visit) -> Channels:
    """A kernel of (space, outputs, inputs); how many of its entries meet at a place varies, as at a border."""
    layer = visit.layer
    lines = visit.lines(visit.input, channel_axis(layer))
    line = produce(visit, layer.kernel, layer.bias, lines, -1, -2, borders=True)
    return visit.result(activate(visit, [visit.along(channel_axis(layer), line)], layer.activation))


def depthwise_convolution(visit: Visit) -> Channels:
    """A kernel of (space, channels, multiplier): every channel is filtered alone and keeps its label."""
    layer = visit.layer
    lines = visit.lines(visit.input, channel_axis(layer))
    factors = [
        visit.along(channel_axis(layer), filtered(visit, layer.kernel, layer.bias, line, has_borders(layer)))
        for line in lines
    ]
    return visit.result(activate(visit, factors, layer.activation))


def filtered(visit: Visit, kernel: Any, bias: Any, line: Line, borders: bool) -> Line:
    """The channels after a depthwise kernel: `multiplier` outputs for each, side by side."""
    multiplier = kernel.shape[-1]
    visit.use(Role.OUTPUT, kernel, -2, line)
    result = line.map(lambda values: np.repeat(values, multiplier))
    visit.use(Role.BIAS, bias, 0, result)
    now = np.full(result.labels.shape, math.nan)
    if visit.values.enabled:
        array = visit.values.read(kernel)
        array = array.reshape(-1, *array.shape[-2:])
        sums = np.where((array != 0).any(0), math.nan if borders else array.sum(0), 0.0).ravel()
        arriving = result.now
        now = np.where((sums == 0) | (arriving == 0), 0.0, sums * arriving)
    return result.with_values(0.0, now + visit.values.vector(bias, len(now)))


def separable_convolution(visit: Visit) -> Channels:
    """A depthwise convolution, then a kernel of (1, inputs, outputs)."""
    layer = visit.layer
    lines = visit.lines(visit.input, channel_axis(layer))
    inner = [filtered(visit, layer.depthwise_kernel, None, line, has_borders(layer)) for line in lines]
    line = produce(visit, layer.pointwise_kernel, layer.bias, inner, -2, -1)
    return visit.result(activate(visit, [visit.along(channel_axis(layer), line)], layer.activation))


def _resize_embedding(layer: Any, config: dict[str, Any], new: Resized) -> None:
    config["input_dim"], config["output_dim"] = new.size(layer.embeddings)
    if config.get("weights") is not None:  # the table is set from the old one
        config["weights"] = None


def embedding(visit: Visit) -> Channels:
    """A table of (tokens, channels); where all rows are taken it is a weight, whose rows are channels too."""
    for channels in visit.inputs:
        visit.freeze(channels, Reason.FIXED_PARTNER)
    table, rows = visit.layer.embeddings, visit.input.known
    factors = []
    whole = rows is not None and table.shape[0] > 1 and np.array_equal(rows, np.arange(table.shape[0]))
    for axis, kind in enumerate(("rows", "channels")):
        if axis or whole:
            labels = visit.fresh(table.shape[axis], kind)
            visit.use(Role.OUTPUT, table, axis, labels)
            now = np.where(visit.values.is_zero(table, axis), 0.0, math.nan)
            factors.append(visit.along(axis - 2, unvalued(labels).with_values(0.0, now)))
    return visit.result(factors)


def _replay_embedding(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    """A table that lost rows is read as far as it goes."""
    (x,) = args or kwargs.values()
    kept = new.kept(0, -2) if len(x.shape) == 1 else None
    return layer(x if kept is None else keras.ops.take(x, np.arange(layer.input_dim, dtype="int32"), axis=0))


def reversible_embedding(visit: Visit) -> Channels:
    """A table that also turns channels back into tokens, or a second table that does, of the same width."""
    layer = visit.layer
    labels = visit.fresh(layer.embeddings.shape[1])
    heard = unvalued(labels)
    factors: list[Factor] = []
    if visit.argument("reverse", 1, False):
        lines, rest = visit.take(visit.input)
        if not lines:
            visit.freeze(labels, Reason.FIXED_PARTNER)
        for line in lines:
            visit.join(labels, line.labels)
            heard = line
        factors = [forget(factor) for factor in rest]
    else:
        factors = [visit.along(-1, heard.with_values(0.0, math.nan))]
    # Calls in both directions say the same about the weights, so that they can be compared.
    visit.use(Role.OUTPUT, layer.embeddings, 1, labels)
    if layer.tie_weights:
        visit.use(Role.INPUT, layer.embeddings, 1, heard)
    else:
        visit.use(Role.INPUT, layer.reverse_embeddings, 0, heard)
    return visit.result(factors)


def _resize_einsum(layer: Any, config: dict[str, Any], new: Resized) -> None:
    sizes = new.outputs[0][-len(layer.partial_output_shape) :]
    config["output_shape"] = [
        after if isinstance(before, int) else before for before, after in zip(layer.partial_output_shape, sizes)
    ]


def einsum_dense(visit: Visit) -> Channels:
    """Letters of the equation play the parts of axes: summed, made, or shared by input and kernel."""
    layer = visit.layer
    equation = Equation.parse(layer.equation)
    kernel = equation.kernel
    in_axes = letter_axes(equation.terms[0], visit.input.rank)
    out_axes = letter_axes(equation.result, len(visit.shape))
    factors: list[Factor] = []
    quiet = _zero_bias(visit, layer.bias)
    letters = {axis: letter for letter, axis in in_axes.items()}
    for factor in visit.input.factors:
        axis = max(factor.axes, key=lambda axis: (letters.get(axis, "") not in out_axes, axis))
        line = visit.tied(factor, [axis]).line(axis)
        letter = letters.get(axis)
        if letter is None:  # under the dots
            visit.freeze(line, Reason.OTHER_AXIS)
        elif letter in kernel and letter not in out_axes:
            visit.use(Role.INPUT, layer.kernel, kernel.index(letter), line)
        elif letter in out_axes and visit.shape[out_axes[letter]] is None:  # the layer does not say how long it is
            visit.freeze(line, Reason.OPEN_SIZE)
        elif letter in out_axes:
            after = line.with_values(math.nan, math.nan)
            if letter in kernel:
                visit.use(Role.OUTPUT, layer.kernel, kernel.index(letter), line)
                after = _with_bias(visit, letter, out_axes[letter], after)
            factors.append(visit.along(out_axes[letter], after))
        else:
            visit.freeze(line, Reason.MIXED)
    for axis, letter in enumerate(kernel):
        if letter in out_axes and letter not in in_axes:
            labels = visit.fresh(layer.kernel.shape[axis], kind=letter if _makes_several(layer) else "channels")
            visit.use(Role.OUTPUT, layer.kernel, axis, labels)
            line = _with_bias(visit, letter, out_axes[letter], unvalued(labels))
            now = np.where(visit.values.is_zero(layer.kernel, axis) & quiet(out_axes[letter]), 0.0, math.nan)
            factors.append(visit.along(out_axes[letter], line.with_values(line.masked, now)))
    return visit.result(activate(visit, factors, layer.activation))


def _with_bias(visit: Visit, letter: str, axis: int, line: Line) -> Line:
    """Records the bias's axis of a letter; without one there, a masked channel is left with the bias of others."""
    bias = visit.layer.bias
    if bias is None:
        return line.with_values(0.0, line.now)
    position = axis - len(visit.shape)
    if -position > len(bias.shape) or letter not in visit.layer.bias_axes:
        return line
    visit.use(Role.BIAS, bias, position, line)
    return line.with_values(0.0, line.now)


def _zero_bias(visit: Visit, bias: Any) -> Any:
    def quiet(axis: int) -> np.ndarray | bool:
        position = axis - len(visit.shape)
        if bias is None:
            return True
        if -position > len(bias.shape):
            return False
        return visit.values.is_zero(bias, position)

    return quiet


def _makes_several(layer: Any) -> bool:
    return len(Equation.parse(layer.equation).made) > 1


LAYERS: dict[type | None, Entry] = {
    layers.Dense: Entry(dense, resize=sized("units", "kernel", -1)),
    **dict.fromkeys((layers.Conv1D, layers.Conv2D, layers.Conv3D), Entry(convolution, resize=_resize_convolution)),
    **dict.fromkeys(
        (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
        Entry(transposed_convolution, resize=sized("filters", "kernel", -2)),
    ),
    **dict.fromkeys((layers.DepthwiseConv1D, layers.DepthwiseConv2D), Entry(depthwise_convolution)),
    **dict.fromkeys(
        (layers.SeparableConv1D, layers.SeparableConv2D),
        Entry(separable_convolution, resize=sized("filters", "pointwise_kernel", -1)),
    ),
    layers.Embedding: Entry(embedding, resize=_resize_embedding, replay=_replay_embedding),
    getattr(layers, "ReversibleEmbedding", None): Entry(reversible_embedding, resize=_resize_embedding),
    layers.EinsumDense: Entry(einsum_dense, resize=_resize_einsum),
}
