"""A `.tflite` file with fewer channels everywhere: how fast it would be, before anything is pruned or trained."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfprune.errors import PruningError
from tfprune.lite.file.edit import Graph
from tfprune.lite.file.flatbuffer import operator_name, read_model, shape_of, stored_values

WEIGHTED = {"CONV_2D": (0, 1, 2), "FULLY_CONNECTED": (0, 1, 2), "TRANSPOSE_CONV": (2, 1, 3)}  # input, kernel, bias


def narrowed(content: bytes, share: float) -> Any:
    """The file, as objects of the schema, with this share of the channels of every layer; the first ones are left.

    Channels of the inputs and of the results stay. What it computes is of no use; what it costs is what a pruned model
    of these widths costs.

    Args:
        content: The bytes of the file.
        share: From 0 to 1.

    Raises:
        PruningError: An operator does not tell where its channels go.
    """
    model = read_model(content)
    narrowing = Narrowing(model, share)
    for operator in list(model.subgraphs[0].operators):
        name = operator_name(model, operator)
        if name not in RULES:
            raise PruningError(f"channels of {name} cannot be told from the file")
        RULES[name](narrowing, operator)
    return model


class Narrowing:
    """Takes channels out of a file, operator by operator in their order.

    Args:
        model: The file as objects of the schema, changed in place.
        share: The share of the channels that is left.
    """

    def __init__(self, model: Any, share: float):
        self.model, self.share = model, share
        self.graph = Graph(model, model.subgraphs[0])
        self.shapes = [shape_of(tensor) for tensor in self.graph.tensors]  # as they were
        self._widths: dict[int, int] = {}
        self._whole = self._that_stay_whole()

    def _that_stay_whole(self) -> set[int]:
        """The results, and what they are computed from up to the last layer with a kernel."""
        waiting = [int(index) for index in self.graph.subgraph.outputs]
        found: set[int] = set()
        while waiting:
            index = waiting.pop()
            if index in found:
                continue
            found.add(index)
            maker = self.graph.maker(index)
            if maker is not None and self.graph.name(maker) not in WEIGHTED:
                waiting += self.computed(maker)
        return found

    def computed(self, operator: Any) -> list[int]:
        """The inputs that depend on the inputs of the file."""
        return [int(index) for index in operator.inputs if index >= 0 and not self.graph.is_constant(int(index))]

    def width(self, index: int) -> int:
        """The channels that a tensor has now."""
        return self._widths.get(index, self.shapes[index][-1] if self.shapes[index] else 1)

    def left(self, index: int) -> int:
        """The channels that a result is to have which takes none over."""
        before = self.width(index)
        return before if index in self._whole else max(1, round(self.share * before))

    def give(self, index: int, width: int) -> None:
        """Notes the channels of a result, in its shape too."""
        self._widths[index] = width
        tensor = self.graph.tensors[index]
        for name in ("shape", "shapeSignature"):
            sizes = getattr(tensor, name)
            if sizes is not None and len(sizes):
                setattr(tensor, name, np.array([*sizes[:-1], width], np.int32))

    def cut(self, operator: Any, place: int, axis: int, size: int) -> None:
        """Leaves the first entries of a constant along an axis."""
        if place >= len(operator.inputs) or operator.inputs[place] < 0:
            return
        unpacker = self.graph.maker(int(operator.inputs[place]))
        if unpacker is not None:
            self.cut(unpacker, 0, axis, size)
            unpacked = self.graph.tensors[operator.inputs[place]]
            unpacked.shape = np.array(self.graph.tensors[unpacker.inputs[0]].shape, np.int32)
            return
        tensor = self.graph.own_constant(operator, place)
        shape, values = shape_of(tensor), stored_values(self.model, tensor)
        if tensor.sparsity is not None or values is None or values.size != int(np.prod(shape)):
            raise PruningError(f"constants of {self.graph.name(operator)} are not stored entry by entry")
        if shape[axis] == size:
            return
        kept = np.take(values.reshape(shape), np.arange(size), axis)
        self.graph.rewrite(tensor, np.ascontiguousarray(kept))
        tensor.shape = np.array(kept.shape, np.int32)
        quantization = tensor.quantization
        if quantization is not None and quantization.quantizedDimension == axis % len(shape):
            for name in ("scale", "zeroPoint"):
                found = getattr(quantization, name)
                if found is not None and len(found) == shape[axis]:
                    setattr(quantization, name, found[:size])

    def set_last(self, operator: Any, place: int, before: int, after: int) -> None:
        """Writes another size behind a list of sizes, where it names the size that was there before."""
        values = stored_values(self.model, self.graph.tensors[operator.inputs[place]])
        if values is not None and values[-1] == before:
            tensor = self.graph.own_constant(operator, place)
            self.graph.rewrite(tensor, np.array([*values[:-1], after], values.dtype))


def _weighted(narrowing: Narrowing, operator: Any) -> None:
    given, kernel, bias = WEIGHTED[narrowing.graph.name(operator)]
    result, source = int(operator.outputs[0]), int(operator.inputs[given])
    taken, before = narrowing.shapes[operator.inputs[kernel]][-1], narrowing.shapes[source][-1]
    made, width = narrowing.left(result), narrowing.width(source)
    size = max(1, taken * width // before)
    if narrowing.graph.name(operator) == "CONV_2D" and (width % size or made % (width // size)):
        raise PruningError(f"{width} channels do not make groups of {size}")
    narrowing.cut(operator, kernel, -1, size)
    narrowing.cut(operator, kernel, 0, made)
    narrowing.cut(operator, bias, 0, made)
    if narrowing.graph.name(operator) == "TRANSPOSE_CONV":
        narrowing.set_last(operator, 0, narrowing.shapes[result][-1], made)
    narrowing.give(result, made)


def _depthwise(narrowing: Narrowing, operator: Any) -> None:
    source, result = int(operator.inputs[0]), int(operator.outputs[0])
    made = narrowing.shapes[result][-1] * narrowing.width(source) // narrowing.shapes[source][-1]
    narrowing.cut(operator, 1, -1, made)
    narrowing.cut(operator, 2, 0, made)
    narrowing.give(result, made)


def _entry_by_entry(narrowing: Narrowing, operator: Any) -> None:
    result = int(operator.outputs[0])
    before = narrowing.width(result)
    full = [index for index in narrowing.computed(operator) if narrowing.shapes[index][-1:] == (before,)]
    # A number for each sample alone times a constant, as in a layer norm, is to meet the channels that it came from.
    made = _same(narrowing, operator, full) if full else narrowing.left(result)
    for place, index in enumerate(operator.inputs):
        is_wide = before > 1 and index >= 0 and narrowing.shapes[index][-1:] == (before,)
        if is_wide and narrowing.graph.is_constant(index):
            narrowing.cut(operator, place, -1, made)
    narrowing.give(result, made)


def _same(narrowing: Narrowing, operator: Any, indices: Sequence[int]) -> int:
    widths = {narrowing.width(index) for index in indices}
    if len(widths) > 1:
        raise PruningError(f"{narrowing.graph.name(operator)} joins {' and '.join(map(str, sorted(widths)))} channels")
    return widths.pop()


def _carried(narrowing: Narrowing, operator: Any) -> None:
    """The first input's channels are those of the result; other inputs tell sizes or are numbers."""
    if narrowing.graph.is_constant(int(operator.outputs[0])):
        return
    narrowing.give(int(operator.outputs[0]), narrowing.width(int(operator.inputs[0])))


def _reduced(narrowing: Narrowing, operator: Any) -> None:
    source, result = int(operator.inputs[0]), int(operator.outputs[0])
    rank = len(narrowing.shapes[source])
    axes = stored_values(narrowing.model, narrowing.graph.tensors[operator.inputs[1]])
    if axes is None:
        raise PruningError(f"{narrowing.graph.name(operator)} computes its axes")
    if rank - 1 not in {int(axis) % rank for axis in axes}:
        narrowing.give(result, narrowing.width(source))


def _reshaped(narrowing: Narrowing, operator: Any) -> None:
    source, result = int(operator.inputs[0]), int(operator.outputs[0])
    before, after = narrowing.shapes[source], narrowing.shapes[result]
    if narrowing.width(source) == before[-1]:
        return
    if after[-1] % before[-1]:
        raise PruningError(f"RESHAPE takes the channels of {before} apart")
    made = after[-1] // before[-1] * narrowing.width(source)
    if len(operator.inputs) > 1:
        narrowing.set_last(operator, 1, after[-1], made)
    if operator.builtinOptions is not None and operator.builtinOptions.newShape is not None:
        operator.builtinOptions.newShape = [*operator.builtinOptions.newShape[:-1], made]
    narrowing.give(result, made)


def _joined(narrowing: Narrowing, operator: Any) -> None:
    sources, result = [int(index) for index in operator.inputs], int(operator.outputs[0])
    rank = len(narrowing.shapes[result])
    if operator.builtinOptions.axis % rank == rank - 1:
        narrowing.give(result, sum(map(narrowing.width, sources)))
    else:
        narrowing.give(result, _same(narrowing, operator, sources))


def _sliced(narrowing: Narrowing, operator: Any) -> None:
    """A part along other axes; channels have to be taken whole."""
    source, result = int(operator.inputs[0]), int(operator.outputs[0])
    before, made = narrowing.shapes[source], narrowing.width(source)
    if made == before[-1]:
        return
    if len(narrowing.shapes[result]) != len(before) or narrowing.shapes[result][-1] != before[-1]:
        raise PruningError(f"{narrowing.graph.name(operator)} takes some of the channels")
    narrowing.set_last(operator, 2, before[-1], made)
    narrowing.give(result, made)


def _tiled(narrowing: Narrowing, operator: Any) -> None:
    times = stored_values(narrowing.model, narrowing.graph.tensors[operator.inputs[1]])
    if times is None or times[-1] != 1:
        raise PruningError("TILE repeats the channels")
    _carried(narrowing, operator)


def _turned(narrowing: Narrowing, operator: Any) -> None:
    order = stored_values(narrowing.model, narrowing.graph.tensors[operator.inputs[1]])
    source = int(operator.inputs[0])
    if narrowing.width(source) != narrowing.shapes[source][-1]:
        if order is None or order[-1] != len(order) - 1:
            raise PruningError("TRANSPOSE moves the channels to another axis")
        narrowing.give(int(operator.outputs[0]), narrowing.width(source))


RULES: dict[str, Callable[[Narrowing, Any], None]] = {
    **dict.fromkeys(WEIGHTED, _weighted),
    "DEPTHWISE_CONV_2D": _depthwise,
    **dict.fromkeys(
        ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "POW", "SQUARED_DIFFERENCE", "PRELU", "SELECT_V2"),
        _entry_by_entry,
    ),
    **dict.fromkeys(
        ("ABS", "ELU", "EXP", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC", "NEG", "RELU", "RELU6", "ROUND")
        + (
            "RELU_N1_TO_1",
            "RSQRT",
            "SIN",
            "COS",
            "SOFTMAX",
            "LOG_SOFTMAX",
            "SQRT",
            "SQUARE",
            "TANH",
            "L2_NORMALIZATION",
        )
        + ("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
        + ("CAST", "DENSIFY", "DEQUANTIZE", "QUANTIZE", "PAD", "PADV2", "MIRROR_PAD"),
        _carried,
    ),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"), _reduced),
    "RESHAPE": _reshaped,
    "CONCATENATION": _joined,
    **dict.fromkeys(("SLICE", "STRIDED_SLICE"), _sliced),
    "TILE": _tiled,
    "TRANSPOSE": _turned,
}
