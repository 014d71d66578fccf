"""Finding the int8 ranges of activations by running data through a model, before any training."""

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.lite.quantize.fake_quantize import FakeQuantize

BATCH = 32


def calibrate(model: keras.Model, data: Any) -> keras.Model:
    """Sets the ranges of a quantization-aware model, in place, to the mean extremes of these samples' batches.

    What was observed before is forgotten. Training with `ranges="moving_average"` moves the ranges on from there.

    Args:
        model: What `quantize_aware` gave.
        data: An array, a list or dict of arrays for several inputs (taken in batches of 32), or an iterable of
            batches, each the inputs or a pair (inputs, labels).

    Returns:
        The same model.

    Raises:
        PruningError: The model has no ranges, the data is empty, does not fit, or leads to NaN or infinity; the
            ranges are then as they were.
    """
    quantizers = [layer for layer in model.layers if isinstance(layer, FakeQuantize)]
    if not quantizers:
        raise PruningError(f"'{model.name}' has no int8 ranges to calibrate; make it with quantize_aware(model) first.")
    variables = [variable for layer in quantizers for variable in layer.variables]
    before = [keras.ops.convert_to_numpy(variable) for variable in variables]
    for layer in quantizers:
        layer.forget()
        layer.observing = True
    try:
        batches = _run(model, data)
        if batches == 0:
            raise PruningError("The calibration data is empty; give some hundred samples like those in use.")
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


def _run(model: keras.Model, data: Any) -> int:
    count = 0
    for batch in _batches(data, len(model.inputs)):
        try:
            model(batch, training=False)
        except (ValueError, TypeError) as error:
            shapes = ", ".join(f"{tensor.name}: {tuple(tensor.shape)}" for tensor in model.inputs)
            raise PruningError(
                f"The calibration data does not fit the model's inputs ({shapes}): {str(error).splitlines()[0]}"
            ) from error
        count += 1
    return count


def _batches(data: Any, inputs: int) -> Iterator[Any]:
    """The inputs of each batch."""
    is_many = isinstance(data, (list, tuple)) and len(data) == inputs and inputs > 1
    if hasattr(data, "shape") or isinstance(data, Mapping) or is_many:
        arrays = keras.tree.map_structure(np.asarray, data)
        for start in range(0, len(keras.tree.flatten(arrays)[0]), BATCH):
            yield keras.tree.map_structure(lambda array, start=start: array[start : start + BATCH], arrays)
        return
    if not hasattr(data, "__iter__"):
        raise PruningError(f"Calibration data must be arrays or an iterable of batches, not {type(data).__name__}.")
    for batch in data:
        yield batch[0] if isinstance(batch, tuple) and not (inputs > 1 and len(batch) == inputs) else batch
