"""Samples to learn ranges of activations from: checked against a model's inputs, and kept as whole arrays.

The error messages are half of this file: data that calibrate a model wrongly give a file that converts, runs, and is
wrong, so whatever can be seen in the data themselves is said before the conversion begins.
"""

import dataclasses
import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.model.data import Batch, batches, misfit, whole_batch
from tfprune.model.native import reason_of
from tfprune.model.signature import Input, Signature, flat_outputs
from tfprune.model.tree import as_array, every_layer

CHUNK = 64
FEWEST = 4
USED = 500
ADVICE = "100 to 500 inputs of the kind the model will meet are enough"

# Arrays of samples for each input in flat order, one such list; several where the lengths of samples differ.
Samples = Sequence[Sequence[np.ndarray]]


class Calibration(NamedTuple):
    """Samples for the converter to run; what to say about them; and what the model answers to the first of them."""

    samples: Samples
    notes: list[str]
    answers: Sequence[np.ndarray] = ()


def calibration(data: Any, signature: Signature, model: keras.Model, what: str = "representative_data") -> Calibration:
    """Reads and checks representative data.

    At most 500 samples are used: of arrays evenly spaced ones, of a stream the first.

    Args:
        data: Data as `tfprune.model.data` reads them; targets are left aside.
        signature: The inputs of the model.
        model: The model, which is run on the first samples to see that they go through.
        what: How the messages call the data.

    Raises:
        PruningError: The data are empty or too few, of another shape or type, hold NaN or infinity, are all equal, lack
            an input, or do not run through the model.
    """
    whole = whole_batch(data, _open(signature), "calibration", what)
    total = None if whole is None else whole.size
    chosen = whole is not None and whole.size > USED
    if whole is not None and chosen:
        data = whole.taken(np.linspace(0, whole.size - 1, USED).round().astype(int))
    samples = first_samples(data, signature, "calibration", what, USED)
    count = sum(len(arrays[0]) for arrays in samples)
    if count < FEWEST:
        raise PruningError(
            f"{what} holds {count} sample{'s' * (count != 1)}, too few to learn the ranges of the "
            f"activations from; at least {FEWEST} are needed, and {ADVICE}."
        )
    if len(samples) == 1 and all((array == array[:1]).all() for array in samples[0]):
        raise PruningError(f"The {count} samples of {what} are all equal, so they show no range; {ADVICE}.")
    answers = _answers(samples, signature, model, what)
    _warn_of_scale(samples, signature.inputs, model, what)
    more = f" of {total:,}" if chosen else ", the first of more" if count == USED != total else ""
    return Calibration(samples, [f"Calibrated on {count:,} samples{more}."], answers)


def first_samples(data: Any, signature: Signature, purpose: str, what: str, count: int) -> Samples:
    """The first samples of data, as whole arrays."""
    read = [batch.inputs for batch in checked_batches(data, signature, purpose, what, count, count)]
    alike = itertools.groupby(read, key=lambda arrays: [array.shape[1:] for array in arrays])
    return [[np.concatenate(parts) for parts in zip(*group)] for _, group in alike]


def single_samples(samples: Iterable[Sequence[np.ndarray]]) -> Iterator[list[np.ndarray]]:
    """One sample after the other, each with a batch axis of one."""
    for arrays in samples:
        yield from ([array[row : row + 1] for array in arrays] for row in range(len(arrays[0])))


def checked_batches(
    data: Any,
    signature: Signature,
    purpose: str,
    what: str = "data",
    at_most: int | None = None,
    batch_size: int = CHUNK,
) -> Iterator[Batch]:
    """Reads data in batches whose inputs are arrays in flat order, checked, and in the types of the model's inputs.

    Args:
        data: Data as `tfprune.model.data` reads them.
        signature: The inputs of the model; batches may be of any size.
        purpose: What needs the data.
        what: How the messages call the data.
        at_most: How many samples are wanted, the first.
        batch_size: Samples in a batch of arrays.

    Raises:
        PruningError: Something is wrong with the data; the message says what.
    """
    seen = 0
    for batch in batches(data, _open(signature), purpose, batch_size, what, at_most):
        arrays = map(np.asarray, keras.tree.flatten(batch.inputs))
        yield batch._replace(
            inputs=[_as_input(array, given, what, seen) for array, given in zip(arrays, signature.inputs)]
        )
        seen += batch.size


def _open(signature: Signature) -> Signature:
    """The signature for batches of any size."""
    inputs = tuple(given._replace(shape=(None, *given.shape[1:])) for given in signature.inputs)
    return dataclasses.replace(signature, inputs=inputs)


def _as_input(array: np.ndarray, given: Input, what: str, seen: int) -> np.ndarray:
    """An array for one input: checked, in the input's type."""
    if array.ndim != len(given.shape):
        raise PruningError(misfit(array.shape, given, what))
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise PruningError(
            f"{what} for input '{given.name}' has dtype {array.dtype}, which holds no numbers; {given.dtype} is wanted."
        )
    if array.dtype.kind in "iub":
        return array.astype(given.dtype)
    bad = ~np.isfinite(array.astype(np.float32)).reshape(len(array), -1).all(axis=1)
    if bad.any():
        raise PruningError(
            f"{what} for input '{given.name}' holds NaN or infinite values in {int(bad.sum())} of the {len(array)} "
            f"samples read (first in sample {seen + int(bad.argmax())}). Repair or leave out these samples."
        )
    if np.dtype(given.dtype).kind in "iu" and (array != np.round(array)).any():
        raise PruningError(
            f"{what} for input '{given.name}' holds fractions (as {array[array != np.round(array)][0]:.6g}), but the "
            f"input takes {given.dtype}."
        )
    return array.astype(given.dtype)


def _warn_of_scale(samples: Samples, inputs: Sequence[Input], model: keras.Model, what: str) -> None:
    """Warns where the numbers look like pixels on another scale than the model's first layers suggest."""
    kinds = (keras.layers.Rescaling, keras.layers.Normalization)
    scaling = [layer for layer in every_layer(model) if isinstance(layer, kinds)]
    for index, given in enumerate(inputs):
        if given.dtype != "float32" or len(given.shape) != 4:
            continue
        lowest = min(float(sample[index].min()) for sample in samples)
        highest = max(float(sample[index].max()) for sample in samples)
        pixels = lowest >= 0 and 100 < highest <= 255
        shrinks = [
            layer for layer in scaling if isinstance(layer, keras.layers.Rescaling) and np.max(layer.scale) < 0.05
        ]
        if pixels and not scaling:
            _warn(
                f"{what} for input '{given.name}' lies in {lowest:g}..{highest:g} and '{model.name}' has no Rescaling "
                "or Normalization layer. If it was trained on x / 255, divide the data too."
            )
        elif shrinks and highest <= 1:
            _warn(
                f"{what} for input '{given.name}' lies in {lowest:g}..{highest:g}, but '{model.name}' divides its "
                f"input itself (layer '{shrinks[0].name}'). Give the data as they are before that."
            )


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=5)


def _answers(
    samples: Samples, signature: Signature, model: keras.Model, what: str, count: int = 16
) -> list[np.ndarray]:
    """What the model itself makes of the first samples; raises where it cannot run, or gives no finite numbers."""
    try:
        outputs = flat_outputs(signature.answers(model, [array[:count] for array in samples[0]]))
    except Exception as error:  # whatever the user's layers raise
        raise PruningError(
            f"'{model.name}' cannot run on {what}: {reason_of(error)} Give what model.predict takes."
        ) from error
    arrays = [as_array(output) for output in outputs]
    if not all(np.isfinite(array).all() for array in arrays):
        raise PruningError(
            f"'{model.name}' gives NaN or infinite outputs on {what}. Look for NaN in its weights, and for inputs on "
            "another scale than it was trained on."
        )
    return arrays
