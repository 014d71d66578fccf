"""Layers that stay in float inside an int8 file, because they do not stand the rounding."""

from typing import Any

import keras

from tfprune.lite.convert.layer_names import paths_along, paths_before_ends
from tfprune.lite.file import flatbuffer
from tfprune.lite.file.contents import results_of
from tfprune.lite.file.edit import Graph
from tfprune.lite.quantize.frozen import StaysInFloat
from tfprune.model.hooks import converted_without_rounding
from tfprune.model.tree import covers


def converted_with_float_layers(
    converter: Any, plain: Any, model: keras.Model, names: list[str], keep: set[str]
) -> bytes:
    """Converts to int8 with some layers left in float.

    Args:
        converter: Set up for int8.
        plain: One of the same model, not set up, which tells the names of the operators.
        model: The Keras model.
        names: The names of its outputs.
        keep: Names or paths of the layers to leave in float.
    """
    import tensorflow as tf

    content = plain.convert()
    flat = flatbuffer.read_model(content)
    ends = {int(entry.tensorIndex): entry.name.decode() for entry in flat.signatureDefs[0].outputs}
    makers = {f"output_{index}": paths for index, paths in enumerate(paths_before_ends(model, names).values())}
    results = results_of(flat)
    along = paths_along(model, [end.name for end in results])
    operators = [
        end.name
        for end in results
        if any(
            covers(layer, path)
            for path in along[end.name] | makers.get(ends.get(end.tensor, ""), set())
            for layer in keep
        )
    ]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
    return converted_without_rounding(converter, operators)


def take_out_marks(model: Any) -> None:
    """Takes out of a file, in place, what has kept layers with learned ranges in float."""
    graph = Graph(model, model.subgraphs[0])
    for operator in list(graph.subgraph.operators):
        result = int(operator.outputs[0])
        if graph.name(operator) == "SIN" and StaysInFloat.MARK in flatbuffer.tensor_name(graph.tensors[result]):
            graph.replace_readers(result, int(operator.inputs[0]))
            graph.subgraph.operators = [other for other in graph.subgraph.operators if other is not operator]


def give_integer_ends(model: Any, why: str) -> list[str]:
    """Takes the conversions off the ends of a partly quantized file, in place; says which stay float, and why."""
    graph = Graph(model, model.subgraphs[0])
    signature = model.signatureDefs[0]
    notes = []
    for side in ("inputs", "outputs"):
        indices = list(getattr(graph.subgraph, side))
        for position, index in enumerate(indices):
            if graph.type(index) != "FLOAT32":
                continue
            tensor = graph.tensors[index]
            other = _behind_quantize(graph, index) if side == "inputs" else graph.integer_source(index)
            if other is None:
                name = flatbuffer.tensor_name(tensor)
                notes.append(f"The {side[:-1]} '{name}' is float32, {why}.")
                continue
            graph.tensors[other].name, tensor.name = tensor.name, tensor.name + b"_float"
            indices[position] = other
            for entry in getattr(signature, side):
                if entry.tensorIndex == index:
                    entry.tensorIndex = other
        setattr(graph.subgraph, side, indices)
    made = {int(index) for index in graph.subgraph.inputs}
    graph.subgraph.operators = [
        operator for operator in graph.subgraph.operators if not made & {int(index) for index in operator.outputs}
    ]
    graph.drop_unused(("DEQUANTIZE",))
    return notes


def _behind_quantize(graph: Graph, index: int) -> int | None:
    """The int8 tensor that a float input becomes at once, where nobody takes the float itself."""
    users = graph.users(index)
    return int(users[0].outputs[0]) if len(users) == 1 and graph.name(users[0]) == "QUANTIZE" else None
