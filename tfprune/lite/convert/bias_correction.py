"""Bias correction: what rounding adds to a layer's results on average is taken off again by its bias.

The rounding of weights shifts the mean of every channel, most where few weights make it, as in depthwise convolutions
and in four bits, and the shifts add up from layer to layer. The means are measured on data: layer by layer in the order
of computation, each in the file whose earlier biases are corrected already.

Paper: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.2, whose
appendix D measures the means on data as here.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.lite.convert.layer_results import matched, named_results, run_calls
from tfprune.lite.file import flatbuffer
from tfprune.lite.file.edit import Graph
from tfprune.lite.file.lite_model import LiteModel, invoke
from tfprune.lite.quantize.representative import Samples, single_samples
from tfprune.model.signature import Signature, flat_outputs
from tfprune.model.tree import as_array

SAMPLES = 128
CHUNK = 8  # of samples that Keras computes at once, with the results of all layers in memory

BIAS = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}  # its place in the inputs


def correct_biases(model: keras.Model, signature: Signature, lite: LiteModel, samples: Samples) -> LiteModel:
    """Moves the mean error of each layer's results into its bias.

    A layer that is called more than once has one bias for several means, and is left as it is. A file whose answers
    come no nearer to those of Keras is left as it is, too.

    Args:
        model: The Keras model, functional or Sequential.
        signature: Its inputs.
        lite: The int8 file made of it.
        samples: Representative inputs as whole arrays; at most 128 are used, evenly spaced.

    Returns:
        The corrected file, or the one that came; with a note on what was done.
    """
    longest = max(samples, key=lambda arrays: len(arrays[0]))
    available = len(longest[0])
    chosen = np.linspace(0, available - 1, min(SAMPLES, available)).round().astype(int)
    inputs = [array[chosen] for array in longest]
    means, tensors = _means_in_keras(model, lite, inputs)
    file = flatbuffer.read_model(lite.content)
    graph = Graph(file, file.subgraphs[0])
    count = 0
    for place, operator in enumerate(graph.subgraph.operators):
        path = tensors.get(int(operator.outputs[0]))
        if path is not None and _can_be_corrected(graph, operator):
            _correct(graph, operator, means[path] - _mean_in_file(graph, place, inputs))
            count += 1
    corrected = LiteModel.written(file, lite.notes)
    answers = flat_outputs(signature.answers(model, inputs))
    before, after = (_error(each, inputs, answers) for each in (lite, corrected))
    if not after < before:
        lite.notes += (f"Bias correction brings the answers no nearer to Keras (error {before:.2%}) and is left out.",)
        return lite
    layers = f"{count} layer{'s' * (count != 1)}"
    errors = f"the answers' error on {len(chosen)} samples was {before:.2%} and is {after:.2%}"
    corrected.notes += (f"Biases of {layers} corrected: {errors}.",)
    return corrected


def _means_in_keras(
    model: keras.Model, lite: LiteModel, inputs: Sequence[np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[int, str]]:
    """The mean of each channel behind each call, and the call whose result each tensor of the file is."""
    sums: dict[str, np.ndarray] = {}
    tensors: dict[int, str] = {}
    count = len(inputs[0])
    for start in range(0, count, CHUNK):
        chunk = [array[start : start + CHUNK] for array in inputs]
        calls = run_calls(model, chunk)
        if not sums:
            found = [
                (end.tensor, path)
                for path, layer in matched(calls, named_results(model, lite)).items()
                for end in layer.results
            ]
            several = {tensor for tensor, path in found if dict(found)[tensor] != path}
            tensors = {tensor: path for tensor, path in found if tensor not in several}
        for call in calls:
            sums[call.path] = sums.get(call.path, 0.0) + _mean(call.value) * len(chunk[0]) / count
    return sums, tensors


def _mean(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64).reshape(-1, values.shape[-1]).mean(axis=0)


def _can_be_corrected(graph: Graph, operator: Any) -> bool:
    """Whether an operator computes int8 by a kernel that no other uses; a layer that is called twice is two of them."""
    name = graph.name(operator)
    if name not in BIAS or graph.type(int(operator.outputs[0])) != "INT8":
        return False
    return len(graph.users(int(operator.inputs[1]))) == 1 and (_has_bias(graph, operator) or name == "FULLY_CONNECTED")


def _has_bias(graph: Graph, operator: Any) -> bool:
    place = BIAS[graph.name(operator)]
    return len(operator.inputs) > place and operator.inputs[place] >= 0


def _mean_in_file(graph: Graph, place: int, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of each channel that an operator computes, in a file that ends with it."""
    file, subgraph = graph.model, graph.subgraph
    whole = subgraph.operators, subgraph.outputs, file.signatureDefs
    result = subgraph.operators[place].outputs[:1]
    subgraph.operators, subgraph.outputs, file.signatureDefs = subgraph.operators[: place + 1], result, []
    try:
        lite = LiteModel.written(file)
    finally:
        subgraph.operators, subgraph.outputs, file.signatureDefs = whole
    runner = lite.prepared([(1, *array.shape[1:]) for array in inputs])
    total: Any = 0.0
    for sample in single_samples([inputs]):
        lite.fill(runner, sample)
        invoke(runner)
        total += _mean(lite.outputs[0].dequantized(runner.get_tensor(lite.outputs[0].tensor)))
    return total / len(inputs[0])


def _correct(graph: Graph, operator: Any, error: np.ndarray) -> None:
    """Adds to an operator's bias what its results lack on average."""
    place = BIAS[graph.name(operator)]
    if not _has_bias(graph, operator):
        _add_bias(graph, operator, len(error))
    bias = graph.own_constant(operator, place)
    values = flatbuffer.stored_values(graph.model, bias)
    if values is None:
        raise PruningError(f"The constant '{flatbuffer.tensor_name(bias)}' cannot be read.")
    steps = np.round(values + error / np.asarray(bias.quantization.scale, np.float64))
    limits = np.iinfo(np.int32)
    graph.rewrite(bias, np.clip(steps, limits.min, limits.max).astype(np.int32))


def _add_bias(graph: Graph, operator: Any, size: int) -> None:
    """Gives a FULLY_CONNECTED a bias of zeros, which the converter leaves out."""
    source, kernel = (graph.tensors[int(index)].quantization for index in operator.inputs[:2])
    scales = np.asarray(source.scale, np.float64) * np.asarray(kernel.scale, np.float64)
    name = flatbuffer.tensor_name(graph.tensors[int(operator.outputs[0])])
    index = graph.constant(f"{name}_bias", np.zeros(size, np.int32))
    graph.tensors[index].quantization.scale = scales.astype(np.float32)
    graph.tensors[index].quantization.zeroPoint = np.zeros(len(scales), np.int64)
    operator.inputs = [*operator.inputs[:2], index]


def _error(lite: LiteModel, inputs: Sequence[np.ndarray], answers: Sequence[Any]) -> float:
    """The root mean square of a file's differences from Keras over that of Keras' answers; the mean over outputs."""
    given = lite(inputs)
    errors = []
    for answer, wanted in zip(given if isinstance(given, list) else [given], map(as_array, answers)):
        if wanted.dtype.kind == "f":
            size = float(np.sqrt(np.mean(np.square(wanted))))
            errors.append(float(np.sqrt(np.mean(np.square(wanted - answer)))) / (size or 1.0))
    return float(np.mean(errors)) if errors else 0.0
