"""Data in any form that `fit` takes, read as batches of inputs, targets and sample weights."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from tfprune.errors import PruningError

BATCH_SIZE = 128


class Batch(NamedTuple):
    """What one step sees; `targets` and `weights` are None where the data have none."""

    inputs: Any
    targets: Any = None
    weights: Any = None

    @property
    def size(self) -> int:
        """The number of samples."""
        return int(keras.tree.flatten(self.inputs)[0].shape[0])


def batches(data: Any, model: keras.Model, purpose: str, batch_size: int = BATCH_SIZE) -> Iterator[Batch]:
    """Reads data batch by batch, once, checked against the inputs of a model.

    Args:
        data: An array, or a dict or list of arrays for several inputs, alone or in a tuple `(x, y)` or `(x, y, w)`;
            a batched `tf.data.Dataset`, a Keras `PyDataset`, or an iterable of batches in any of these forms.
        model: The model that will read them.
        purpose: What needs the data, the subject of the messages (`"reconstruct='obs'"`).
        batch_size: Samples in a batch of arrays; other data come in batches already.

    Raises:
        PruningError: No data, an endless dataset, or inputs that do not fit the model.
    """
    empty = True
    for number, batch in enumerate(_read(data, purpose, batch_size)):
        if number == 0:
            _check_inputs(batch.inputs, model, purpose)
        empty = False
        yield batch
    if empty:
        used = " A generator can be read only once; make it anew." if isinstance(data, Iterator) else ""
        raise PruningError(f"{purpose} was given data without any batch.{used}")


def input_specs(collected: list[Batch]) -> Any:
    """What a compiled function has to expect as inputs, so that it is traced once for all batches."""
    import tensorflow as tf

    def spec(*arrays: Any) -> Any:
        sizes = [set(size) for size in zip(*(array.shape for array in arrays))]
        shape = [None, *(size.pop() if len(size) == 1 else None for size in sizes[1:])]
        return tf.TensorSpec(shape, tf.as_dtype(arrays[0].dtype))

    return keras.tree.map_structure(spec, *(batch.inputs for batch in collected))


def _read(data: Any, purpose: str, batch_size: int) -> Iterator[Batch]:
    if data is None:
        raise PruningError(f"{purpose} needs data: write data=x, data=(x, y) or data=dataset.")
    if isinstance(data, keras.utils.PyDataset):
        if data.num_batches is None:
            raise PruningError(f"{purpose} needs data that end; this PyDataset has no length. Give it __len__.")
        return (_batch(data[index]) for index in range(data.num_batches))
    if hasattr(data, "cardinality"):
        if int(data.cardinality()) == -1:
            raise PruningError(f"{purpose} needs data that end; write data=dataset.take(10).")
        return (_batch(element) for element in data)
    if is_arrays(data):
        return _slices(_batch(data), purpose, batch_size)
    if hasattr(data, "__iter__"):
        return (_batch(element) for element in data)
    raise PruningError(
        f"{purpose} cannot read data of type {type(data).__name__}; give arrays (x or (x, y)), a tf.data.Dataset, a "
        "PyDataset, or an iterable of batches."
    )


def is_arrays(data: Any) -> bool:
    """Whether data are whole arrays and not an iterable of batches."""
    if isinstance(data, (Mapping, tuple)):
        return True
    if isinstance(data, list):
        return bool(data) and all(hasattr(entry, "shape") for entry in data)
    return hasattr(data, "shape")


def _batch(element: Any) -> Batch:
    return Batch(*keras.utils.unpack_x_y_sample_weight(element))


def _slices(whole: Batch, purpose: str, batch_size: int) -> Iterator[Batch]:
    arrays = keras.tree.map_structure(_array, tuple(whole))
    sizes = sorted({len(array) for array in keras.tree.flatten(arrays) if array is not None})
    if len(sizes) != 1:
        raise PruningError(
            f"{purpose} was given arrays of {' and '.join(map(str, sizes))} samples; all must be of the same length."
        )
    for start in range(0, sizes[0], batch_size):
        piece = slice(start, start + batch_size)
        yield Batch(*keras.tree.map_structure(lambda array: None if array is None else array[piece], arrays))  # noqa: B023


def _array(value: Any) -> Any:
    if value is None or hasattr(value, "shape"):
        return value if value is None or hasattr(value, "dtype") else np.asarray(value)
    return np.asarray(value)


def _check_inputs(inputs: Any, model: keras.Model, purpose: str) -> None:
    expected = getattr(model, "inputs", None)
    if not expected:
        return  # a subclassed model does not say what it takes
    given = keras.tree.flatten(inputs)
    if len(given) != len(expected):
        raise PruningError(
            f"{purpose} was given data with {len(given)} inputs, but '{model.name}' takes {len(expected)}. "
            "For data with targets write a tuple: data=(x, y)."
        )
    if isinstance(inputs, Mapping):
        return  # matched by name when the model is called
    for array, tensor in zip(given, expected):
        shape, wanted = tuple(array.shape), tuple(tensor.shape)
        fits = len(shape) == len(wanted) and all(size in (None, own) for size, own in zip(wanted, shape))
        if not fits and not (len(shape) == len(wanted) - 1 and wanted[-1] == 1):  # Keras adds a last axis of 1
            raise PruningError(
                f"{purpose} was given inputs of shape {shape}, but '{model.name}' takes {wanted}; "
                "batches come with a first axis of samples."
            )
