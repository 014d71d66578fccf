"""Whether the zeros of a Keras model's kernels are zeros in its `.tflite` file, entry by entry."""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.lite.file import flatbuffer
from tfprune.model.prunable import every_weight
from tfprune.model.tree import as_array


@dataclass(frozen=True)
class KeptZeros:
    """What has become of the zeros of one kernel.

    Args:
        key: The kernel's place in the Keras model, `"backbone/conv1/kernel"`.
        shape: Its shape there.
        zeros: How many of its entries are exactly zero.
        kept: How many of these entries are zero in the file; None where no constant of the file is this kernel.
        constant: The name of that constant.
    """

    key: str
    shape: tuple[int, ...]
    zeros: int
    kept: int | None
    constant: str | None


def kept_zeros(model: keras.Model, file: Any) -> tuple[KeptZeros, ...]:
    """Follows the zeros of every kernel that has some into the file.

    The file lays kernels out in its own order of axes and under names that the converter builds, so a kernel is looked
    for among the constants with as many entries, in every order of its axes; a constant whose name holds the layer's
    is tried first, and the one that agrees in the most zeros is taken. The values take no part: batch norm folding
    scales them per channel, and integers round them, but a zero stays one. A kernel that the converter cut into pieces
    is found in pieces, when they keep all. Small weights that round to zero add zeros to the file; they are not counted
    here.

    Args:
        model: The Keras model that the file was made of.
        file: The file as objects of the schema.
    """
    patterns = _patterns(file)
    result = []
    for weight in every_weight(model):
        if not weight.is_kernel:
            continue
        zeros = as_array(weight.variable) == 0
        count = int(np.count_nonzero(zeros))
        if not count:
            continue
        layer = weight.key.split("/")[-2] if "/" in weight.key else weight.key
        candidates = sorted(patterns[zeros.size], key=lambda entry: layer not in entry[0])
        kept, name = _best(zeros, candidates)
        if kept != count:
            parts = _in_parts(zeros, patterns)
            kept, name = (count, parts) if parts else (kept, name)
        result.append(KeptZeros(weight.key, weight.shape, count, kept, name))
    return tuple(result)


def _patterns(file: Any) -> dict[int, list[tuple[str, np.ndarray]]]:
    """Where each constant of the file is zero, flat, by the number of entries."""
    result: dict[int, list[tuple[str, np.ndarray]]] = defaultdict(list)
    for graph in file.subgraphs:
        for tensor in graph.tensors:
            pattern = flatbuffer.zero_pattern(file, tensor)
            if pattern is not None and pattern.ndim >= 1:
                result[pattern.size].append((flatbuffer.tensor_name(tensor), pattern.reshape(-1)))
    return result


def _best(zeros: np.ndarray, candidates: list[tuple[str, np.ndarray]]) -> tuple[int | None, str | None]:
    """The most zeros that any candidate keeps, and its name."""
    count = int(np.count_nonzero(zeros))
    best: tuple[int | None, str | None] = (None, None)
    for layout in _layouts(zeros):
        for name, pattern in candidates:
            kept = int(np.count_nonzero(layout & pattern))
            if best[0] is None or kept > best[0]:
                best = (kept, name)
            if kept == count:
                return best
    return best


def _in_parts(zeros: np.ndarray, patterns: dict[int, list[tuple[str, np.ndarray]]]) -> str | None:
    """The names of constants that keep all zeros of a kernel, each those of some channels, such as a cell's gates."""
    channels = zeros.shape[-1]
    size = zeros.size // channels
    names = []
    begin = 0
    while begin < channels:
        for end in range(channels, begin, -1):
            part = zeros[..., begin:end]
            kept, name = _best(part, patterns.get(size * (end - begin), []))
            if name is not None and kept == np.count_nonzero(part) > 0:
                names.append(name)
                begin = end
                break
        else:
            return None
    return "; ".join(names)


def _layouts(zeros: np.ndarray) -> Iterator[np.ndarray]:
    """The pattern, flat, in every order of its axes; first with output channels first, as most operators want it."""
    squeezed = zeros.squeeze() if zeros.ndim > 1 else zeros
    axes = range(squeezed.ndim)
    orders = sorted(itertools.permutations(axes), key=lambda order: list(order) != [*axes[-1:], *axes[:-1]])
    for order in orders:
        yield squeezed.transpose(order).reshape(-1)
