"""What a `.tflite` file tells about its making: model, pruning, quantization, versions, kept in the file itself."""

import json
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.lite.file import flatbuffer
from tfprune.model.prunable import every_weight
from tfprune.model.tree import as_array, wrapped_layers
from tfprune.version import __version__

NAME = b"TFPRUNE"  # of the entry among the file's metadata


def origin_of(model: keras.Model, quantization: str, more: Mapping[str, Any]) -> dict[str, Any]:
    """What to write into the file of a model.

    Args:
        model: The Keras model.
        quantization: What it is converted to.
        more: Entries of the user's.

    Returns:
        Model name, versions, quantization, zeros and entries of all kernels together, zeros of each
        kernel, and the pruning method where the model still has it (one made by `wrap`).

    Raises:
        PruningError: The user's entries cannot be written as JSON.
    """
    import tensorflow

    kernels = {weight.key: as_array(weight.variable) for weight in every_weight(model) if weight.is_kernel}
    zeros = {key: int(np.count_nonzero(values == 0)) for key, values in kernels.items()}
    methods = {repr(layer.method) for layer in wrapped_layers(model)}
    try:
        json.dumps(dict(more))
    except (TypeError, ValueError) as error:
        raise PruningError(
            f"metadata={more!r} cannot be stored: {error}. Give a dict of strings, numbers, lists and dicts."
        ) from error
    return {
        "model": model.name,
        "quantization": quantization,
        "zeros": sum(zeros.values()),
        "entries": sum(values.size for values in kernels.values()),
        "kernels": zeros,  # of all, so that a dense and a pruned file are of one size
        **({"method": sorted(methods)} if methods else {}),
        "versions": {
            "tfprune": __version__,
            "keras": keras.__version__,
            "tensorflow": tensorflow.__version__,
        },
        **dict(more),
    }


def write_origin(model: Any, origin: Mapping[str, Any]) -> None:
    """Puts the entry into a model given as objects of the schema, in place; an entry that is there is replaced."""
    data = np.frombuffer(json.dumps(origin, separators=(",", ":")).encode(), np.uint8)
    for entry in model.metadata or []:
        if entry.name == NAME:
            model.buffers[entry.buffer].data = data
            return
    buffer, entry = flatbuffer.schema().BufferT(), flatbuffer.schema().MetadataT()
    buffer.data = data
    model.buffers.append(buffer)
    entry.name, entry.buffer = NAME, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]


def read_origin(model: Any) -> dict[str, Any]:
    """The entry of a model given as objects of the schema; empty for a file that tfprune did not make."""
    for entry in model.metadata or []:
        if entry.name == NAME:
            data = model.buffers[entry.buffer].data
            try:
                return dict(json.loads(bytes(np.asarray(data, np.uint8))))
            except (ValueError, TypeError):  # another tool's entry of the same name
                return {}
    return {}
