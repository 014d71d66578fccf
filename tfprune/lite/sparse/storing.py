"""Each constant of a file stored the way its kernel reads it: in blocks, sparsely before DENSIFY, or as it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfprune.errors import ConversionError, listing
from tfprune.lite.file import flatbuffer
from tfprune.lite.file.contents import short_name
from tfprune.lite.file.edit import Graph
from tfprune.lite.file.kernels import BLOCKS, Kernel
from tfprune.lite.file.lite_model import LiteModel
from tfprune.lite.file.sparsity import blocks_kept, encoded_bytes, store

# Operators that read the result of a DENSIFY, once when the file is loaded. In int8 XNNPACK refuses such a file.
DENSIFIED = {
    *("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D", "DEQUANTIZE", "GATHER"),
}
DENSIFIED_TYPES = ("FLOAT32", "FLOAT16")
SMALL = 128  # bytes of a constant below which nobody gains or loses


@dataclass(frozen=True)
class Stored:
    """How one constant is stored.

    Args:
        name: The constant.
        zeros: Its share of zeros.
        form: `"blocks"`, which a kernel reads; `"densified"`, which makes the file smaller alone; `"dense"`.
        reason: What stands in the way of blocks; empty where they are stored.
        blocks: The share of blocks that are zero, where they are stored.
    """

    name: str
    zeros: float
    form: str
    reason: str
    blocks: float = 0.0


def store_sparse(file: Any, smallest: bool = False) -> list[Stored]:
    """Stores the constants of a file sparsely, in place, where that makes it smaller and no layer slower.

    Args:
        file: The model as objects of the schema.
        smallest: Whether a layer may become slower for the sake of the size.

    Returns:
        How each weight with zeros is stored.
    """
    result = []
    for subgraph in file.subgraphs:
        graph = Graph(file, subgraph)
        read = {int(index) for operator in subgraph.operators for index in operator.inputs if index >= 0}
        for index in sorted(read):
            found = _store(graph, index, smallest)
            if found is not None:
                result.append(found)
    return result


def _store(graph: Graph, index: int, smallest: bool) -> Stored | None:
    """Stores one constant; None for what is no weight, or has no zeros to speak of."""
    tensor = graph.tensors[index]
    shape, kind = flatbuffer.shape_of(tensor), flatbuffer.type_name(tensor)
    if len(shape) < 2 or kind not in (*DENSIFIED_TYPES, "INT8") or tensor.sparsity is not None:
        return None
    flat = flatbuffer.stored_values(graph.model, tensor)
    if flat is None or flat.nbytes < SMALL or np.any(flatbuffer.zero_points(tensor)):
        return None
    values = flat.reshape(shape)
    zeros = 1.0 - np.count_nonzero(values) / values.size
    kernel = BLOCKS.get(kind)
    reason = f"{kind.lower()} has no kernel that reads blocks"
    if kernel is not None:
        reason = why_not_blocks(graph, index, values, kernel, smallest)
        if not reason:
            store(graph, index, values, kernel.block)
            share = 1.0 - float(np.mean(blocks_kept(values, kernel.block)))
            return Stored(short_name(flatbuffer.tensor_name(tensor)), zeros, "blocks", "", share)
    form = "dense"
    smaller = kind in DENSIFIED_TYPES and encoded_bytes(values) < 0.9 * values.nbytes
    if smaller and {graph.name(user) for user in graph.users(index)} <= DENSIFIED:
        store(graph, index, values, densify=True)
        form = "densified"
    return Stored(short_name(flatbuffer.tensor_name(tensor)), zeros, form, reason) if zeros > 0 else None


def why_not_blocks(graph: Graph, index: int, values: np.ndarray, kernel: Kernel, smallest: bool = False) -> str:
    """What stands in the way of a kernel that reads blocks of this constant; empty where it takes it and is faster.

    Args:
        graph: The subgraph.
        index: The constant's place among the tensors.
        values: Its values, of its shape.
        kernel: The kernel.
        smallest: Whether it may be slower by the kernel's tolerance.
    """
    users = graph.users(index)
    names = {graph.name(user) for user in users}
    if names != {"FULLY_CONNECTED"} or any(int(user.inputs[1]) != index for user in users):
        return f"{listing(sorted(names))} reads it, and only FULLY_CONNECTED reads blocks"
    if any(graph.type(int(user.inputs[0])) != flatbuffer.type_name(graph.tensors[index]) for user in users):
        return "its inputs are of another type"
    if values.shape[-1] % kernel.block:
        return f"its {values.shape[-1]:,} inputs are no multiple of {kernel.block}"
    share = 1.0 - float(np.mean(blocks_kept(values, kernel.block)))
    rows = max(_rows(graph, user) for user in users)
    larger = encoded_bytes(values, kernel.block) >= values.nbytes
    if larger or kernel.gain(share, rows) * (kernel.tolerance if smallest else 1.0) < 1.0:
        behind = f" with {rows:,} rows of inputs" if rows > 1 else ""
        return f"{share:.0%} of its {kernel.zeros} are zero, and from {kernel.share(rows):.0%} they are faster{behind}"
    return ""


def _rows(graph: Graph, operator: Any) -> int:
    source = flatbuffer.shape_of(graph.tensors[int(operator.inputs[0])])
    inputs = flatbuffer.shape_of(graph.tensors[int(operator.inputs[1])])[-1]
    return max(1, int(np.prod(source)) // max(inputs, 1))


def notes_on(stored: Sequence[Stored]) -> list[str]:
    """What was stored how, and why, in sentences."""
    notes = []
    blocks = [found.name for found in stored if found.form == "blocks"]
    if blocks:
        notes.append(f"Stored in blocks, which LiteRT's kernels read: {listing(blocks)}.")
    densified = [found.name for found in stored if found.form == "densified"]
    if densified:
        notes.append(f"Stored sparsely and made dense when loaded, smaller but no faster: {listing(densified)}.")
    reasons = [f"'{found.name}': {found.reason}" for found in stored if found.form == "dense" and found.zeros >= 0.3]
    if reasons:
        notes.append(f"Stored densely: {'; '.join(reasons)}.")
    return notes


def stored_sparsely(
    lite: LiteModel,
    inputs: Sequence[np.ndarray] = (),
    named: Callable[[str], str | None] = lambda _: None,
    smallest: bool = False,
) -> LiteModel:
    """The same model with its zeros stored sparsely, run once and compared, with notes on what was stored how.

    Args:
        lite: The model, all dense.
        inputs: One sample to compare the two on. Defaults to random ones.
        named: The name of the layer that a constant comes from, where it is known.
        smallest: Whether a layer may become slower for the sake of the size.

    Raises:
        ConversionError: LiteRT cannot run what was stored, or answers something else.
    """
    file = flatbuffer.read_model(lite.content)
    stored = [replace(found, name=named(found.name) or found.name) for found in store_sparse(file, smallest)]
    notes = (*lite.notes, *notes_on(stored))
    if all(found.form == "dense" for found in stored):
        lite.notes = (*notes, "No tensor is stored sparsely: none would be smaller, and no slower.")
        return lite
    sparse = LiteModel.written(file, notes)
    if any(None in end.shape[1:] for end in lite.inputs):
        sparse.notes += ("A length is open, so the sparse file was not compared with the dense one.",)
        return sparse
    names = [found.name for found in stored if found.form != "dense"]
    _compare(lite, sparse, list(inputs) or _random_inputs(lite), names)
    return sparse


def _compare(dense: LiteModel, sparse: LiteModel, inputs: list[np.ndarray], names: list[str]) -> None:
    """Raises where the sparse file does not answer like the dense one."""
    tolerance = 0.05 if dense.quantization == "int8" else 1e-3  # kernels round int8 differently, by a step or two
    try:
        answers = [lite(inputs if len(inputs) > 1 else inputs[0]) for lite in (dense, sparse)]
    except ConversionError as failure:
        raise ConversionError(
            f"LiteRT cannot run the zeros of {listing(names)} stored sparsely: {failure} Leave sparse out."
        ) from failure
    for wanted, given in zip(*(each if isinstance(each, list) else [each] for each in answers)):
        size = float(np.sqrt(np.mean(np.square(wanted, dtype=np.float64))))
        error = float(np.sqrt(np.mean(np.square(given - wanted.astype(np.float64)))))
        if not error <= tolerance * max(size, 1e-6):
            raise ConversionError(
                f"With the zeros of {listing(names)} stored sparsely LiteRT answers something else (off by "
                f"{error / max(size, 1e-6):.2%}). Leave sparse out."
            )


def _random_inputs(lite: LiteModel) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    shapes = [tuple(size or 1 for size in end.shape) for end in lite.inputs]
    return [
        generator.uniform(-1, 1, shape).astype(np.float32)
        if end.scale is not None or end.dtype.startswith("float")
        else np.zeros(shape, end.dtype)
        for end, shape in zip(lite.inputs, shapes)
    ]
