"""Finding the int8 ranges of activations by running data through a model, before any training."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.lite.quantize.fake_quantize import FakeQuantize
from tfprune.lite.quantize.representative import USED, Samples, first_samples
from tfprune.model.signature import signature_of

BATCH = 32


def calibrate(model: keras.Model, data: Any) -> keras.Model:
    """Sets the ranges of a quantization-aware model, in place, to the mean extremes of these samples' batches.

    What was observed before is forgotten. Training with `ranges="moving_average"` moves the ranges on from there.

    Args:
        model: What `quantize_aware` gave.
        data: Samples in any form that `convert` takes: an array, a list or dict of arrays for several inputs, a
            tf.data.Dataset or a generator. At most 500 are used.

    Returns:
        The same model.

    Raises:
        PruningError: The model has no ranges, the data is empty, does not fit, or leads to NaN or infinity; the
            ranges are then as they were.
    """
    if not _quantizers(model):
        raise PruningError(f"'{model.name}' has no int8 ranges to calibrate; make it with quantize_aware(model) first.")
    return observe(model, first_samples(data, signature_of(model), "calibrate()", "data", USED))


def observe(model: keras.Model, samples: Samples) -> keras.Model:
    """Sets the ranges of a quantization-aware model to the mean extremes of these samples' batches.

    Raises:
        PruningError: The samples lead to NaN or infinity; the ranges are then as they were.
    """
    quantizers, signature = _quantizers(model), signature_of(model)
    variables = [variable for layer in quantizers for variable in layer.variables]
    before = [keras.ops.convert_to_numpy(variable) for variable in variables]
    for layer in quantizers:
        layer.forget()
        layer.observing = True
    try:
        for batch in _in_parts(model, samples):
            signature.call(model, batch)
        for layer in quantizers:
            if not np.isfinite(layer.range()).all():
                raise PruningError(
                    f"Calibration met NaN or infinity after layer '{layer.sources[0]}'. Check the data and the weights."
                )
    except BaseException:
        for variable, value in zip(variables, before):
            variable.assign(value)
        raise
    finally:
        for layer in quantizers:
            layer.observing = False
    return model


def _quantizers(model: keras.Model) -> list[FakeQuantize]:
    return [layer for layer in model.layers if isinstance(layer, FakeQuantize)]


def _in_parts(model: keras.Model, samples: Samples) -> Iterator[list[np.ndarray]]:
    """The samples in batches of 32; one by one where their shapes differ."""
    size = BATCH if len(samples) == 1 and all(tensor.shape[0] is None for tensor in model.inputs) else 1
    for arrays in samples:
        yield from ([array[start : start + size] for array in arrays] for start in range(0, len(arrays[0]), size))
