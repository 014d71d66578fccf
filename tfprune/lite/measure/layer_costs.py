"""What a metric loses by the result of one layer: the file's in the place of Keras', and all behind it by Keras."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.model.data import Batch, joined
from tfprune.model.graph import Call, called, flow
from tfprune.model.metrics import Metric, found_metrics
from tfprune.model.tree import as_array


def cost_of_layers(
    model: keras.Model, read: Sequence[Batch], values: Mapping[str, np.ndarray], metric: Any, mode: Any
) -> tuple[Metric, float, dict[str, float]]:
    """The first metric, its value in Keras, and by path of a layer its value with what the file gave there.

    Args:
        model: The Keras model, functional or Sequential.
        read: The samples, inputs in flat order, with targets where the metric needs them.
        values: Path of a layer -> what the file gave behind it for all samples.
        metric, mode: See `compress`.

    Raises:
        PruningError: The metric is unknown, or cannot be computed.
    """
    inputs = [keras.ops.convert_to_tensor(array) for array in joined([list(batch.inputs) for batch in read])]
    dense = answers_with(model, inputs)
    first = [array[: read[0].size] for array in dense]
    # A Sequential that was never called as a layer has one output, and does not say which.
    outputs = first[0] if isinstance(model, keras.Sequential) else keras.tree.pack_sequence_as(model.output, first)
    found = found_metrics(model, read, metric, mode, dense, "layer_errors()", outputs)[0]
    return found, found(dense), {path: found(answers_with(model, inputs, path, values[path])) for path in values}


def answers_with(
    model: keras.Model, inputs: Sequence[Any], replaced: str = "", value: np.ndarray | None = None
) -> list[np.ndarray]:
    """What a model answers where the result of the layer at one path is another."""
    counts: Counter[str] = Counter()

    def visit(call: Call) -> list[Any]:
        counts[call.path] += 1
        path = call.path if counts[call.path] == 1 else f"{call.path} ({counts[call.path]})"
        flat = called(call)
        return [keras.ops.convert_to_tensor(value, flat[0].dtype), *flat[1:]] if path == replaced else flat

    return [as_array(output) for output in flow(model, inputs, visit)]
