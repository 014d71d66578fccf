"""The `.tflite` file as objects: read through the published schema, constants decoded, written back."""

import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.errors import PruningError
from tfprune.model.hooks import schema as schema

IDENTIFIER = b"TFL3"
CONSTANT_ALIGNMENT = 16  # bytes; `force_align` of a buffer's data in the schema

# How the values of a constant lie in its buffer. Four-bit types lie two to a byte and are unpacked by hand.
STORED = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "FLOAT64": np.float64,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "UINT16": np.uint16,
    "INT32": np.int32,
    "UINT32": np.uint32,
    "INT64": np.int64,
    "UINT64": np.uint64,
    "BOOL": np.bool_,
}
FLOATS = ("FLOAT32", "FLOAT16", "BFLOAT16", "FLOAT64")


@functools.cache
def _names(enumeration: str) -> dict[int, str]:
    members = vars(getattr(schema(), enumeration))
    return {value: name for name, value in members.items() if isinstance(value, int)}


def type_name(tensor: Any) -> str:
    """The type of a tensor in the schema's words, `"INT8"`."""
    return _names("TensorType").get(tensor.type, f"TYPE_{tensor.type}")


def dtype_name(tensor: Any) -> str:
    """The type of a tensor in NumPy's words, `"int8"`."""
    return type_name(tensor).lower()


def operator_name(model: Any, operator: Any) -> str:
    """The name of an operator, `"CONV_2D"`; the custom name where it is a custom one."""
    code = model.operatorCodes[operator.opcodeIndex]
    # Files older than 2020 keep the number in the deprecated field, and newer ones in both while it fits.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    name = _names("BuiltinOperator").get(number, f"OPERATOR_{number}")
    return f"CUSTOM {code.customCode.decode(errors='replace')}" if name == "CUSTOM" and code.customCode else name


def shape_of(tensor: Any) -> tuple[int, ...]:
    """The shape of a tensor; the file may leave out that of a scalar."""
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)


def tensor_name(tensor: Any) -> str:
    """The name of a tensor as text."""
    return (tensor.name or b"").decode(errors="replace")


def read_content(source: Any) -> bytes:
    """The bytes of a `.tflite` file given as a path, as bytes, or as a `LiteModel`.

    Raises:
        PruningError: There is no such file, or it is another kind of file.
    """
    content = getattr(source, "content", source)
    name = "The bytes"
    if isinstance(content, (str, os.PathLike)):
        path = Path(content)
        name = f"'{path}'"
        if not path.is_file():
            raise PruningError(f"{name} is not a file. Give the path of a .tflite file, its bytes, or a LiteModel.")
        content = path.read_bytes()
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise PruningError(
            f"Cannot read a .tflite model from {type(source).__name__}. Give the path of a .tflite file, its bytes, "
            "or a LiteModel."
        )
    content = bytes(content)
    if content[4:8] != IDENTIFIER:
        raise PruningError(f"{name} is not a .tflite model{_kind(content)}.")
    return content


def _kind(content: bytes) -> str:
    if not content:
        return ": it is empty"
    if content.startswith(b"PK"):
        return ": it looks like a .keras file, which keras.models.load_model reads; tfprune.convert makes the .tflite"
    if content.startswith(b"\x89HDF"):
        return ": it looks like an HDF5 file, which keras.models.load_model reads; tfprune.convert makes the .tflite"
    return f": it lacks the mark 'TFL3' (its first bytes are {content[:8]!r})"


def read_model(content: bytes) -> Any:
    """The model as objects of the schema, the values of all constants in their buffers.

    Raises:
        PruningError: The file is cut off or damaged.
    """
    try:
        model = schema().ModelT.InitFromPackedBuf(content, 0)
        for buffer in model.buffers:
            if buffer.offset > 1:  # files above 2 GB keep their values behind the tables
                buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
                buffer.offset = buffer.size = 0
        return model
    except Exception as error:  # the reader follows offsets wherever they lead, so anything may come
        raise PruningError(
            f"The .tflite model of {len(content):,} bytes is truncated or damaged: it cannot be read to its end. "
            "Save or copy it again."
        ) from error


@functools.cache
def _sharing_builder() -> Any:
    """A builder that writes vectors and strings of the same content once, however many tables refer to them.

    Bytes begin at multiples of 16, as the schema wants the values of constants to lie.
    """
    import flatbuffers

    class SharingBuilder(flatbuffers.Builder):
        def __init__(self) -> None:
            super().__init__(1024)
            self._written: dict[tuple[str, bytes], int] = {}

        def _once(self, kind: str, content: Any, write: Callable[[], int]) -> int:
            key = (kind, hashlib.sha256(content).digest())
            if key not in self._written:
                self._written[key] = write()
            return self._written[key]

        def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802
            x = np.ascontiguousarray(x)
            return self._once(x.dtype.str, x, lambda: self._vector(x))

        def _vector(self, x: np.ndarray) -> int:
            if x.dtype == np.uint8 and x.size:
                self.Prep(CONSTANT_ALIGNMENT, x.size)
            return super().CreateNumpyVector(x)

        def CreateString(self, s: Any, *arguments: str) -> int:  # noqa: N802
            content = s if isinstance(s, bytes) else s.encode(*arguments)
            return self._once("string", content, lambda: super(SharingBuilder, self).CreateString(content))

    return SharingBuilder


def write_model(model: Any) -> bytes:
    """The bytes of a model given as objects of the schema; equal shapes, zero points and constants are stored once."""
    builder = _sharing_builder()()
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def stored_bytes(model: Any, tensor: Any) -> np.ndarray | None:
    """The bytes of a constant as they lie in the file; None for a tensor that is computed."""
    data = model.buffers[tensor.buffer].data
    return None if tensor.buffer == 0 or data is None or len(data) == 0 else np.asarray(data, np.uint8)


def stored_values(model: Any, tensor: Any) -> np.ndarray | None:
    """The values of a constant as a flat array, without the zeros that a sparse encoding leaves out.

    None for a tensor that is computed, or whose type has no counterpart in NumPy.
    """
    stored = stored_bytes(model, tensor)
    if stored is None:
        return None
    name = type_name(tensor)
    if name == "BFLOAT16":
        return (stored.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if name in ("INT4", "UINT4"):
        return _four_bit(stored, signed=name == "INT4")[: int(np.prod(shape_of(tensor)))]
    if name not in STORED:
        return None
    return stored.view(STORED[name])


def _four_bit(stored: np.ndarray, signed: bool) -> np.ndarray:
    pairs = np.stack([stored & 0x0F, stored >> 4], axis=-1).reshape(-1)
    return ((pairs ^ 8).astype(np.int8) - 8) if signed else pairs


def pack_four_bits(values: np.ndarray) -> np.ndarray:
    """Integers from -8 to 7 as bytes, two to each, the first in the low half; the counterpart of reading them."""
    low, high = values[0::2], values[1::2]
    high = np.concatenate([high, np.zeros(len(low) - len(high), values.dtype)])
    return ((low & 0x0F) | ((high & 0x0F) << 4)).astype(np.uint8)


def zero_points(tensor: Any) -> np.ndarray:
    """The stored value that means zero, shaped to broadcast against the tensor: one for all, or one per channel."""
    points = getattr(tensor.quantization, "zeroPoint", None)
    if points is None or len(points) == 0:
        return np.zeros((), np.int64)
    points = np.asarray(points, np.int64)
    if len(points) == 1:
        return points.reshape(())
    shape = [1] * len(shape_of(tensor))
    shape[tensor.quantization.quantizedDimension] = len(points)
    return points.reshape(shape)


def zero_pattern(model: Any, tensor: Any) -> np.ndarray | None:
    """Where a constant is zero, as booleans of its shape; None where that cannot be told."""
    values = stored_values(model, tensor)
    shape = shape_of(tensor)
    if values is None:
        return None
    if tensor.sparsity is not None:
        kinds = schema().DimensionType
        if any(level.format not in (kinds.DENSE, kinds.SPARSE_CSR) for level in tensor.sparsity.dimMetadata):
            return None
        pattern = np.ones(shape, np.bool_)
        pattern[_stored_positions(tensor)] = values == 0
        return pattern
    return values.reshape(shape) == zero_points(tensor) if values.size == int(np.prod(shape)) else None


def _stored_positions(tensor: Any) -> tuple[np.ndarray, ...]:
    """The indices, one array per axis, of the entries that a sparse encoding stores, in the order of the buffer.

    The encoding is a tree with one level per axis in `traversalOrder`, blocks last. A dense level has every index, a
    sparse one lists its indices, and where those of each parent begin (as in compressed sparse rows).
    """
    order = [int(axis) for axis in tensor.sparsity.traversalOrder]
    levels: list[np.ndarray] = []
    parents = 1
    for level in tensor.sparsity.dimMetadata:
        if level.format == schema().DimensionType.DENSE:
            counts = np.full(parents, level.denseSize)
            indices = np.tile(np.arange(level.denseSize), parents)
        else:
            counts = np.diff(np.asarray(level.arraySegments.values, np.int64))
            indices = np.asarray(level.arrayIndices.values, np.int64)
        levels = [np.repeat(earlier, counts) for earlier in levels] + [indices]
        parents = len(indices)
    rank = len(shape_of(tensor))
    sizes = [int(level.denseSize) for level in tensor.sparsity.dimMetadata]
    positions = [np.zeros(parents, np.int64) for _ in range(rank)]
    for indices, axis in zip(levels, order):
        if axis < rank:
            positions[axis] += indices
    for indices, axis, size in zip(levels, order, sizes):  # a block's own index counts within the block
        if axis >= rank:
            blocked = int(tensor.sparsity.blockMap[axis - rank])
            positions[blocked] = positions[blocked] * size + indices
    return tuple(positions)
