"""Memory of the host that TensorFlow takes over as it is, without a copy of its own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

ALIGNMENT = 64  # bytes; TensorFlow copies what begins elsewhere
LARGE = 1 << 25  # bytes; memory of so many comes anew from the system each time, page by page
PIECE = 1 << 16  # values that are read, made and written in the processor's cache


def empty(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """An array that is not filled yet, which `handed_over` need not copy.

    NumPy asks the system for large pages, TensorFlow does not: that alone halves the time of filling a large array.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def handed_over(array: np.ndarray) -> tf.Tensor:
    """A tensor in the memory of an array, which nobody may write to any more."""
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def zeroed(values: Any, kept: tf.Tensor) -> tf.Tensor:
    """Values with zeros where they are not kept.

    Args:
        values: A variable, or an eager tensor.
        kept: An eager boolean tensor of its shape.

    >>> zeroed(tf.constant([-1.0, np.inf, 3.0]), tf.constant([False, False, True])).numpy()
    array([0., 0., 3.], dtype=float32)
    """
    values = tf.convert_to_tensor(values)
    if values.shape.num_elements() * values.dtype.size < LARGE:
        return tf.where(kept, values, tf.zeros((), values.dtype))
    read, mask = np.asarray(values), np.asarray(kept)
    bits = np.dtype(f"i{read.itemsize}")
    left, ones = empty(read.shape, bits), np.empty(PIECE, bits)
    flat = mask.reshape(-1).view(np.int8), read.reshape(-1).view(bits), left.reshape(-1)
    for start in range(0, left.size, PIECE):
        keep, value, out = (array[start : start + PIECE] for array in flat)
        # All bits or none: a product would make NaN of infinity, and -0.0 of what is below zero.
        every = np.negative(keep, out=ones[: out.size], dtype=bits, casting="unsafe")
        np.bitwise_and(value, every, out=out)
    return tf.bitcast(handed_over(left), values.dtype)
