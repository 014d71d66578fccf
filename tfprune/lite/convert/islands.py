"""Float islands: operators that the converter leaves in floating point inside an int8 model, made int8.

The converter quantizes nearly every operator, but it has no rule for a few, and surrounds each of them with DEQUANTIZE
and QUANTIZE. LiteRT has int8 kernels that give the same result, so these few are exchanged in the finished file. The
ranges are those that were calibrated: no number is made up here.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tfprune.lite.file import flatbuffer
from tfprune.lite.file.edit import Graph
from tfprune.lite.file.flatbuffer import operator_name, schema


def join_islands(model: Any) -> list[str]:
    """Exchanges the float operators of an int8 model for integer ones where an exact counterpart exists, in place.

    Args:
        model: The model as objects of the schema.

    Returns:
        Notes on inputs whose type changed.
    """
    notes: list[str] = []
    for subgraph in model.subgraphs:
        graph = Graph(model, subgraph)
        notes += _integer_inputs(graph)
        _real_inputs(graph)
        for operator in list(subgraph.operators):
            rule = RULES.get(operator_name(model, operator))
            if rule is not None and graph.is_float(operator):
                rule(graph, operator)
        graph.drop_unused(("DEQUANTIZE", "QUANTIZE", "CAST"))
    return notes


def _take_in(graph: Graph, operator: Any) -> bool:
    """Lets an operator of one input read and write the int8 tensors beside its island; False where they are missing."""
    source = graph.integer_source(int(operator.inputs[0]))
    quantizer = graph.quantizer(int(operator.outputs[0]))
    if source is None or quantizer is None:
        return False
    operator.inputs, operator.outputs = [source], [int(quantizer.outputs[0])]
    graph.subgraph.operators = [other for other in graph.subgraph.operators if other is not quantizer]
    return True


def _multiply(graph: Graph, operator: Any, factor: int) -> None:
    operator.opcodeIndex = graph.code("MUL", 2)
    operator.inputs = [*operator.inputs, factor]
    operator.builtinOptionsType = schema().BuiltinOptions.MulOptions
    operator.builtinOptions = schema().MulOptionsT()


def _negation(graph: Graph, operator: Any) -> None:
    """-x is x times the constant -1."""
    if _take_in(graph, operator):
        _multiply(graph, operator, graph.constant("minus_one", np.array(-1, np.int8), scale=1.0))


def _square(graph: Graph, operator: Any) -> None:
    """The square of x is x times x."""
    if _take_in(graph, operator):
        _multiply(graph, operator, operator.inputs[0])


def _table(graph: Graph, operator: Any) -> None:
    """A function of one number is a table of 256 entries, which LiteRT's int8 kernel makes itself."""
    _take_in(graph, operator)


def _move(graph: Graph, operator: Any) -> None:
    """An operator that only hands values on can hand on int8 values; it was left out for an output nobody reads."""
    position = next((i for i, index in enumerate(operator.inputs) if graph.type(index) == "FLOAT32"), None)
    source = None if position is None else graph.integer_source(int(operator.inputs[position]))
    outside = any(index in list(graph.subgraph.outputs) for index in operator.outputs)
    readers = [user for index in operator.outputs for user in graph.users(int(index))]
    if source is None or outside or any(graph.name(reader) != "QUANTIZE" for reader in readers):
        return
    operator.inputs = [source if i == position else index for i, index in enumerate(operator.inputs)]
    operator.opcodeIndex = graph.code(graph.name(operator), 2)
    for index in operator.outputs:
        graph.tensors[index].type = schema().TensorType.INT8
        graph.tensors[index].quantization = graph.tensors[source].quantization
    for reader in readers:  # from one int8 scale to another
        reader.opcodeIndex = graph.code("QUANTIZE", 2)


def _comparison(graph: Graph, operator: Any) -> None:
    """Whether a number equals a constant can be told of int8 values, as far as they tell it at all."""
    sources = [graph.integer_source(int(index)) for index in operator.inputs]
    known = [source for source in sources if source is not None]
    constants = [
        flatbuffer.stored_values(graph.model, graph.tensors[index])
        for index, source in zip(operator.inputs, sources)
        if source is None
    ]
    if len(known) != 1 or constants[0] is None:
        return
    quantization = graph.tensors[known[0]].quantization
    steps = np.round(constants[0] / quantization.scale[0]) + quantization.zeroPoint[0]
    if np.any((steps < -128) | (steps > 127)):
        return
    shape = flatbuffer.shape_of(graph.tensors[next(i for i, s in zip(operator.inputs, sources) if s is None)])
    constant = graph.constant("compared", steps.astype(np.int8).reshape(shape))
    graph.tensors[constant].quantization = quantization
    operator.inputs = [constant if source is None else source for source in sources]
    operator.opcodeIndex = graph.code(graph.name(operator), 2)


RULES: dict[str, Callable[[Graph, Any], None]] = {
    "NEG": _negation,
    "SQUARE": _square,
    "ELU": _table,
    "SPLIT": _move,
    "UNPACK": _move,
    "EQUAL": _comparison,
    "NOT_EQUAL": _comparison,
}


def _real_inputs(graph: Graph) -> None:
    """Gives the type int8 to integer inputs, such as pixels, that the model turns into real numbers first."""
    for index in list(graph.subgraph.inputs):
        casts = graph.users(int(index))
        quantizers = [graph.quantizer(int(cast.outputs[0])) for cast in casts]
        if graph.type(index) in ("FLOAT32", "INT8") or len(casts) != 1 or quantizers[0] is None:
            continue
        if graph.name(casts[0]) != "CAST":
            continue
        target = int(quantizers[0].outputs[0])
        graph.tensors[index].type = schema().TensorType.INT8
        graph.tensors[index].quantization = graph.tensors[target].quantization
        graph.replace_readers(target, int(index))


def _integer_inputs(graph: Graph) -> Iterator[str]:
    """Gives the type int32 to float inputs that the model turns into integers first, such as token numbers.

    Keras declares inputs float32 unless told otherwise. 256 steps cannot number the entries of a table, and the
    converter quantizes such an input all the same.
    """
    for index in list(graph.subgraph.inputs):
        numbers = _numbers_of(graph, int(index))
        if numbers is None:
            continue
        tensor = graph.tensors[index]
        tensor.type = schema().TensorType.INT32
        tensor.quantization = schema().QuantizationParametersT()
        for number in numbers:
            for reader in graph.users(number):
                if graph.name(reader) == "CAST":
                    _take_numbers(graph, reader, number, int(index))
                else:
                    _compare_numbers(graph, reader, number, int(index))
        yield (
            f"Input '{flatbuffer.tensor_name(tensor)}' takes int32: the model turns it into integers first, and int8 "
            "has room for 256 of them."
        )


def _numbers_of(graph: Graph, index: int) -> list[int] | None:
    """The float tensors that hold an input, when all that is done with them is to count or to compare."""
    users = graph.users(index)
    if graph.type(index) == "INT8":
        if not users or any(graph.name(user) != "DEQUANTIZE" for user in users):
            return None
        numbers = [int(user.outputs[0]) for user in users]
    elif graph.type(index) == "FLOAT32":
        numbers = [index]
    else:
        return None
    readers = [reader for number in numbers for reader in graph.users(number)]
    casts = [reader for reader in readers if graph.name(reader) == "CAST"]
    if any(graph.type(int(cast.outputs[0])) not in ("INT32", "INT64") for cast in casts):
        return None
    others = [reader for reader in readers if graph.name(reader) not in ("CAST", "NOT_EQUAL", "EQUAL")]
    return numbers if casts and not others else None


def _take_numbers(graph: Graph, cast: Any, number: int, index: int) -> None:
    if graph.type(int(cast.outputs[0])) == "INT32":
        graph.replace_readers(int(cast.outputs[0]), index)
    else:
        cast.inputs = [index]
        if cast.builtinOptions is not None:
            cast.builtinOptions.inDataType = schema().TensorType.INT32


def _compare_numbers(graph: Graph, comparison: Any, number: int, index: int) -> None:
    inputs = []
    for other in comparison.inputs:
        if other == number:
            inputs.append(index)
            continue
        values = flatbuffer.stored_values(graph.model, graph.tensors[other])
        shape = flatbuffer.shape_of(graph.tensors[other])
        inputs.append(graph.constant("number", np.asarray(values).reshape(shape).astype(np.int32)))
    comparison.inputs = inputs
