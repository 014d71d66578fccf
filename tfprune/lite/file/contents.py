"""What stands in a `.tflite` file: its ends, operators and constants as plain values, read without running it."""

import functools
import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfprune.lite.file import flatbuffer
from tfprune.lite.file.metadata import read_origin

REPRESENTATION = ("QUANTIZE", "DEQUANTIZE", "CAST", "DENSIFY")


# Operators that only change the representation of a number; they compute nothing.
GROUPS = (2, 4, 8, 16)  # of the N:M patterns that are looked for


@dataclass(frozen=True)
class StoredTensor:
    """A constant of the file: a kernel, a bias, a table.

    Args:
        name: The tensor's name, which the converter builds from the names of the layers.
        shape: Its shape as the file has it (a convolution's output channels come first).
        dtype: How its values are stored, `"int8"`.
        size: Its values in bytes, as encoded.
        zeros: How many of its entries mean zero, that is, equal the zero point; None where the type is unknown.
        encoding: `"dense"`, or `"sparse"` where the file stores non-zero entries only.
        pattern: The narrowest N:M that holds along the last axis, `"2:4"` (at most 2 of every 4 are not zero), of
            groups of 2, 4, 8 and 16; None where none does.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    size: int
    zeros: int | None
    encoding: str = "dense"
    pattern: str | None = None

    @property
    def entries(self) -> int:
        """The number of entries, stored or not."""
        return int(np.prod(self.shape))

    @property
    def sparsity(self) -> float | None:
        """The share of zeros."""
        return None if self.zeros is None or not self.entries else self.zeros / self.entries


@dataclass(frozen=True)
class Operator:
    """One operator of the file.

    Args:
        name: What it does, `"CONV_2D"`.
        tensors: The names of its outputs and inputs, which tell the layer that it comes from.
        inputs: The types of its inputs, weights included.
        outputs: The types of its outputs.
    """

    name: str
    tensors: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def is_float(self) -> bool:
        """Whether it computes on floating-point numbers; a change of representation is no computation."""
        types = (*self.inputs, *self.outputs)
        return self.name not in REPRESENTATION and any(name.upper() in flatbuffer.FLOATS for name in types)


@dataclass(frozen=True)
class End:
    """One input or output of the model.

    Args:
        name: Its name, that of the Keras model.
        shape: Its shape; None where it may vary.
        dtype: Its type, `"int8"`.
        scale: Real value per step; None for one that is not quantized.
        zero_point: The stored value that means zero.
        tensor: Its tensor's index in the file.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    scale: float | None
    zero_point: int
    tensor: int

    def quantized(self, array: Any) -> np.ndarray:
        """Real values as this end stores them: divided by the scale, rounded, moved by the zero point, cut off."""
        if self.scale is None:
            return np.ascontiguousarray(array, dtype=self.dtype)
        limits = np.iinfo(self.dtype)
        steps = np.round(np.asarray(array, np.float32) / np.float32(self.scale)) + self.zero_point
        return np.clip(steps, limits.min, limits.max).astype(self.dtype)

    def dequantized(self, array: np.ndarray) -> np.ndarray:
        """What this end stores as real values."""
        if self.scale is None:
            return array.astype(np.float32) if array.dtype == np.float16 else array
        return (array.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


class FileContent:
    """Something that holds the bytes of a file as `content`, and tells how many they are."""

    content: bytes

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.content)

    @functools.cached_property
    def gzip_size(self) -> int:
        """Bytes of the file compressed by gzip, level 9; found when first asked, for a second per 20 MB or more."""
        # No time stamp, so that equal files give equal figures.
        return len(gzip.compress(self.content, compresslevel=9, mtime=0))


def ends(model: Any, side: str) -> tuple[End, ...]:
    """The inputs or the outputs of a model, in the order in which the interpreter has them.

    Args:
        model: The model as objects of the schema.
        side: `"inputs"` or `"outputs"`.
    """
    graph = model.subgraphs[0]
    signature = model.signatureDefs[0] if model.signatureDefs else None
    names = {entry.tensorIndex: entry.name.decode(errors="replace") for entry in getattr(signature, side, None) or []}
    result = []
    for index in getattr(graph, side):
        tensor = graph.tensors[index]
        result.append(_end(tensor, int(index), names.get(index, flatbuffer.tensor_name(tensor))))
    return tuple(result)


def results_of(model: Any) -> tuple[End, ...]:
    """What each operator of a model's main graph computes, under the names of the file."""
    graph = model.subgraphs[0]
    indices = [index for operator in graph.operators or [] for index in _indices(operator.outputs)]
    return tuple(_end(graph.tensors[index], index, flatbuffer.tensor_name(graph.tensors[index])) for index in indices)


def _end(tensor: Any, index: int, name: str) -> End:
    shape = flatbuffer.shape_of(tensor)
    variable = tensor.shapeSignature if tensor.shapeSignature is not None else shape
    scale = getattr(tensor.quantization, "scale", None)
    return End(
        name=name,
        shape=tuple(None if known < 0 else int(size) for size, known in zip(shape, variable)),
        dtype=flatbuffer.dtype_name(tensor),
        scale=float(scale[0]) if scale is not None and len(scale) == 1 else None,
        zero_point=int(flatbuffer.zero_points(tensor).reshape(-1)[0]),
        tensor=index,
    )


def operators_of(model: Any) -> tuple[Operator, ...]:
    """Every operator of a model, in the order of execution, subgraphs one after the other."""
    result = []
    for graph in model.subgraphs:
        for operator in graph.operators if graph.operators is not None else []:
            outputs = [graph.tensors[index] for index in _indices(operator.outputs)]
            inputs = [graph.tensors[index] for index in _indices(operator.inputs)]
            result.append(
                Operator(
                    name=flatbuffer.operator_name(model, operator),
                    tensors=tuple(flatbuffer.tensor_name(tensor) for tensor in (*outputs, *inputs)),
                    inputs=tuple(flatbuffer.dtype_name(tensor) for tensor in inputs),
                    outputs=tuple(flatbuffer.dtype_name(tensor) for tensor in outputs),
                )
            )
    return tuple(result)


def _indices(indices: Any) -> list[int]:
    """The tensors of an operator; an optional one that is left out has the index -1."""
    return [] if indices is None else [int(index) for index in indices if index >= 0]


def quantization_of(model: Any, operators: Sequence[Operator]) -> str:
    """Which of the forms that `convert` makes a file has, read from the types of its operators and constants."""
    computing = [operator for operator in operators if operator.name not in REPRESENTATION]
    if any("int16" in operator.inputs and "int16" in operator.outputs for operator in computing):
        return "int16x8"
    # An int8 table of a dynamic-range file is looked up in int8 too, so one such operator says nothing.
    if 2 * sum("int8" in operator.outputs for operator in computing) > sum(
        operator.is_float or "int8" in operator.outputs for operator in computing
    ):
        return "int8"
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    types = {flatbuffer.dtype_name(tensor) for tensor in tensors if flatbuffer.stored_bytes(model, tensor) is not None}
    if read_origin(model).get("quantization") == "int8":  # with layers kept in float
        return "int8"
    if "int8" in types or "int4" in types:
        return "dynamic"
    return "float16" if "float16" in types else "float32"


def constants_of(model: Any) -> list[StoredTensor]:
    """Every constant of a model that holds numbers, each buffer once."""
    result = []
    seen: set[int] = set()
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            stored = flatbuffer.stored_bytes(model, tensor)
            if stored is None or tensor.buffer in seen or not _holds_numbers(tensor):
                continue
            seen.add(tensor.buffer)
            shape, zeros = flatbuffer.shape_of(tensor), flatbuffer.zero_pattern(model, tensor)
            result.append(
                StoredTensor(
                    name=flatbuffer.tensor_name(tensor),
                    shape=shape,
                    dtype=flatbuffer.dtype_name(tensor),
                    size=len(stored),
                    zeros=None if zeros is None else int(np.count_nonzero(zeros)),
                    encoding="dense" if tensor.sparsity is None else "sparse",
                    pattern=_pattern_of(zeros),
                )
            )
    return result


def zero_patterns(model: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The weights of a file by name, as booleans that are true where they are zero."""
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            zeros = flatbuffer.zero_pattern(model, tensor) if _holds_numbers(tensor) else None
            if zeros is not None and zeros.ndim >= 2:
                yield short_name(flatbuffer.tensor_name(tensor)), zeros


def _pattern_of(zeros: np.ndarray | None) -> str | None:
    """The narrowest N:M pattern that a weight keeps."""
    if zeros is None or zeros.ndim < 2 or zeros.all():
        return None
    found = [(most_in_groups(zeros, group), group) for group in GROUPS if zeros.shape[-1] >= group]
    kept = [(keep / group, group, keep) for keep, group in found if keep < group]
    if not kept:
        return None
    _, group, keep = min(kept)
    return f"{keep}:{group}"


def most_in_groups(zeros: np.ndarray, group: int) -> int:
    """The most entries that are not zero in any group along the last axis."""
    short = -zeros.shape[-1] % group
    kept = np.pad(~zeros, [(0, 0)] * (zeros.ndim - 1) + [(0, short)])
    return int(kept.reshape(-1, group).sum(axis=1).max(initial=0))


def _holds_numbers(tensor: Any) -> bool:
    """Whether a constant is a weight or a bias and not a shape, a list of axes, or another argument."""
    scale = getattr(tensor.quantization, "scale", None)
    return flatbuffer.type_name(tensor) in flatbuffer.FLOATS or (scale is not None and len(scale) > 0)


def short_name(name: str) -> str:
    """The first of the names that the converter joins when it fuses operators."""
    return name.split(";")[0]
