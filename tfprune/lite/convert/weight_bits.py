"""How many bits each kernel is stored in: eight, or four where LiteRT has a kernel that reads them."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError, nearest
from tfprune.lite.convert.islands import Graph
from tfprune.lite.convert.trace import kernels_before_ends, layer_at, layers_along
from tfprune.lite.file import flatbuffer
from tfprune.model.tree import places

WEIGHT_BITS = (4, 8)
LEVELS = {bits: 2 ** (bits - 1) - 1 for bits in WEIGHT_BITS}  # symmetric, so that -w is as exact as w

# Operators whose kernels in LiteRT read 4-bit weights beside int8 activations, with the version that does first, as
# TFLite's own op_version.cc numbers them.
OPERATORS = {"FULLY_CONNECTED": 10, "CONV_2D": 7, "DEPTHWISE_CONV_2D": 7}
BY_DEFAULT = ("FULLY_CONNECTED", "CONV_2D")  # depthwise kernels are small, and stand four bits worst

Bits = int | Mapping[str, int]


@dataclass(frozen=True)
class WeightBits:
    """The bits of every kernel.

    Args:
        default: Of Dense layers and convolutions that are not named; depthwise ones and others keep eight.
        layers: Of layers by name, those inside them included.
    """

    default: int = 8
    layers: Mapping[str, int] = field(default_factory=dict)

    @property
    def has_four(self) -> bool:
        """Whether any kernel is to have four bits."""
        return 4 in (self.default, *self.layers.values())

    def of(self, names: Set[str], in_default: bool) -> int:
        """The bits of one kernel.

        Args:
            names: Of its layer and of those that hold it.
            in_default: Whether the default is for kernels of its kind.
        """
        named = [bits for name, bits in self.layers.items() if name in names]
        return named[-1] if named else self.default if in_default else 8


def checked_weight_bits(model: keras.Model, weight_bits: Any) -> WeightBits:
    """What a user's `weight_bits` means for a model.

    Args:
        model: The Keras model.
        weight_bits: 8 or 4 for all, or a mapping from names or paths of layers to 8 or 4.

    Raises:
        PruningError: Another number, or the model has no such layer.
    """
    chosen = dict(weight_bits) if isinstance(weight_bits, Mapping) else {"": weight_bits}
    for bits in chosen.values():
        if isinstance(bits, bool) or bits not in WEIGHT_BITS:
            raise PruningError(
                f"weight_bits={weight_bits!r}: LiteRT stores weights in 8 bits or in 4. Write weight_bits=4 for all "
                "Dense layers and convolutions, or weight_bits={'name': 4} for some layers."
            )
    if not isinstance(weight_bits, Mapping):
        return WeightBits(int(weight_bits))
    known = {place.path: place.layer.name for place in places(model)}
    known.update({name: name for name in known.values()})
    for layer in chosen:
        if layer not in known:
            raise PruningError(f"weight_bits: '{model.name}' has no layer '{layer}'. {nearest(str(layer), known)}")
    return WeightBits(layers={known[layer]: int(bits) for layer, bits in chosen.items()})


def learned_weight_bits(model: keras.Model) -> WeightBits:
    """The bits that the layers of a quantization-aware model learned with, which they keep as `weight_bits`."""
    learned = {layer.name: getattr(layer, "weight_bits", 8) for layer in model.layers}
    return WeightBits(layers={name: bits for name, bits in learned.items() if bits != 8})


def pack_four_bits(file: Any, model: keras.Model, ends: Sequence[str], bits: WeightBits) -> list[str]:
    """Stores kernels of an int8 file in four bits, in place, two entries to a byte.

    A kernel's largest entry in each channel becomes 7 steps in place of 127, so zeros stay zeros, and a kernel that was
    trained on 7 steps is stored as it is.

    Args:
        file: The model as objects of the schema.
        model: The Keras model it was made of.
        ends: The names of its outputs.
        bits: The bits of every kernel.

    Returns:
        The names of the layers with a kernel in four bits.

    Raises:
        PruningError: A layer was named for four bits, and has no kernel in the file that LiteRT reads so.
    """
    packed: list[str] = []
    served: set[str] = set()
    before_ends = kernels_before_ends(model, ends)
    for subgraph in file.subgraphs:
        graph = Graph(file, subgraph)
        kernels = {
            int(operator.inputs[1]): operator for operator in subgraph.operators if _reads_kernel(graph, operator)
        }
        for index, operator in kernels.items():
            kernel, result = (flatbuffer.tensor_name(graph.tensors[int(i)]) for i in (index, operator.outputs[0]))
            along = layers_along(model, [kernel, result])
            # The kernel of a grouped convolution has no name of its own, and with TensorFlow 2.19 none has.
            layers = along[kernel] or along[result] or before_ends.get(result, set())
            if bits.of(layers, graph.name(operator) in BY_DEFAULT) == 4:
                _pack(graph, index)
                served |= layers
                packed.append(layer_at(model, kernel) or layer_at(model, result) or kernel)
    refuse_left(bits, served)
    return list(dict.fromkeys(packed))


def refuse_left(bits: WeightBits, served: Set[str]) -> None:
    """Raises where a layer was named for four bits, and none of its kernels, or of those inside it, got them.

    Args:
        bits: The bits of every kernel.
        served: Names of the layers with a kernel in four bits, and of those that hold them.
    """
    left = [name for name, chosen in bits.layers.items() if chosen == 4 and name not in served]
    if left:
        raise PruningError(
            f"weight_bits: layer '{left[0]}' has no kernel that LiteRT reads in 4 bits. It does so for Dense, Conv1D, "
            "Conv2D and DepthwiseConv2D in int8, and for no others. Leave it out of weight_bits."
        )


def _reads_kernel(graph: Graph, operator: Any) -> bool:
    """Whether an operator reads an int8 constant as its kernel, and has a form that reads four bits."""
    if graph.name(operator) not in OPERATORS or graph.type(int(operator.inputs[0])) != "INT8":
        return False
    kernel = graph.tensors[int(operator.inputs[1])]
    users = graph.users(int(operator.inputs[1]))
    return (
        flatbuffer.type_name(kernel) == "INT8"
        and graph.model.buffers[kernel.buffer].data is not None
        and all(graph.name(user) in OPERATORS for user in users)
    )


def _pack(graph: Graph, index: int) -> None:
    kernel = graph.tensors[index]
    ratio = LEVELS[4] / LEVELS[8]
    steps = _stored(graph, kernel).astype(np.float64) * ratio
    graph.rewrite(kernel, flatbuffer.pack_four_bits(np.round(steps).astype(np.int8)))
    kernel.type = flatbuffer.schema().TensorType.INT4
    _widen(kernel, ratio)
    for operator in graph.users(index):
        name = graph.name(operator)
        operator.opcodeIndex = graph.code(name, OPERATORS[name])
        if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
            # Its scale is that of the kernel times that of the input.
            bias = graph.own_constant(operator, 2)
            stored = _stored(graph, bias)
            graph.rewrite(bias, np.round(stored.astype(np.float64) * ratio).astype(stored.dtype))
            _widen(bias, ratio)


def _stored(graph: Graph, tensor: Any) -> np.ndarray:
    values = flatbuffer.stored_values(graph.model, tensor, b"")
    if values is None:
        raise PruningError(f"The constant '{flatbuffer.tensor_name(tensor)}' cannot be read.")
    return values


def _widen(tensor: Any, ratio: float) -> None:
    tensor.quantization.scale = (np.asarray(tensor.quantization.scale, np.float64) / ratio).astype(np.float32)
