"""Tables in a file of int16 activations: taken out before the converter runs, and put in front of what it made.

The converter's quantizer for int16 activations takes no tensor of integers, so no token numbers. What lies behind the
tables is real numbers throughout: that is what it gets, calibrated on what the tables hold for the samples, and the
lookups are written into its file.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tfprune.errors import ConversionError, listing
from tfprune.lite.convert.trace import batch_of
from tfprune.lite.file.edit import Graph
from tfprune.lite.file.flatbuffer import schema
from tfprune.lite.quantize.representative import Samples
from tfprune.model.signature import Input, Signature, flat_outputs
from tfprune.model.substitutes import instead
from tfprune.model.tree import places

STEPS = 127  # of an int8 table on either side of zero
COMPUTED = -1  # the number of no input
CASTS = ("Cast", "Identity")


class Lookup(NamedTuple):
    """A table that the model looks its tokens up in, and the number of the input that holds them."""

    path: str
    table: keras.layers.Embedding
    number: int
    shape: tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Behind(Signature):
    """The signature of the part of a model behind its tables: the lookups stand where the tokens stood.

    Args:
        whole: The signature of the whole model.
        lookups: The lookups, in the order in which the model makes them.
    """

    whole: Signature = dataclasses.field(kw_only=True)
    lookups: tuple[Lookup, ...] = dataclasses.field(kw_only=True)

    @property
    def kept(self) -> list[int]:
        """The numbers of the inputs that are no tokens."""
        return _kept(self.whole, self.lookups)

    def call(self, model: keras.Model, tensors: Sequence[Any]) -> Any:
        """The model's outputs in inference, given its other inputs and what its tables hold."""
        looked_up = dict(zip(self.lookups, tensors[len(self.kept) :]))
        given: dict[int, Any] = dict(zip(self.kept, tensors))
        for lookup, tensor in looked_up.items():  # a number of the right shape, which nobody reads
            tokens = self.whole.inputs[lookup.number]
            given.setdefault(lookup.number, keras.ops.zeros_like(tensor[..., 0], dtype=tokens.dtype))
        answers = iter(looked_up.values())
        with _answering({lookup.table for lookup in self.lookups}, lambda table, tokens: next(answers)):
            return self.whole.call(model, [given[number] for number in range(len(self.whole.inputs))])

    def samples(self, samples: Samples) -> Samples:
        """Samples for the whole model as samples for this part of it."""
        return [
            [arrays[number] for number in self.kept]
            + [np.asarray(lookup.table(arrays[lookup.number])) for lookup in self.lookups]
            for arrays in samples
        ]


def behind_tables(model: keras.Model, signature: Signature, batch_size: int | None) -> Signature:
    """The signature of the part of a model behind its tables; its own where it has none.

    Args:
        model: The model.
        signature: Its signature.
        batch_size: Samples at once in the file; None leaves it open.

    Raises:
        ConversionError: Token numbers are used for more than looking them up, such as for a mask, or are no input.
    """
    tables = {place.layer: place.path for place in places(model) if isinstance(place.layer, keras.layers.Embedding)}
    if not tables:
        return signature
    lookups = _lookups(model, signature, batch_size, tables)
    inputs = [signature.inputs[number] for number in _kept(signature, lookups)]
    for index, lookup in enumerate(lookups):
        inputs.append(Input(f"{signature.inputs[lookup.number].name}/lookup_{index}", lookup.shape, "float32"))
    return Behind(tuple(inputs), signature.structure, signature.keywords, whole=signature, lookups=tuple(lookups))


def _kept(signature: Signature, lookups: Sequence[Lookup]) -> list[int]:
    tokens = {lookup.number for lookup in lookups}
    return [number for number in range(len(signature.inputs)) if number not in tokens]


def _lookups(
    model: keras.Model, signature: Signature, batch_size: int | None, tables: dict[Any, str]
) -> list[Lookup]:  # fmt: skip
    """What a trace of the model looks up; raises where tokens are more than looked up."""
    import tensorflow as tf

    batch = batch_of(signature.inputs, batch_size)
    ends: list[Any] = []
    found: list[Lookup] = []

    def answer(table: Any, tokens: Any) -> Any:
        found.append(Lookup(tables[table], table, _source(tokens, ends), (*tokens.shape, table.output_dim)))
        return tf.compat.v1.placeholder(table.compute_dtype, found[-1].shape)

    @tf.function(input_signature=[tf.TensorSpec([batch, *given.shape[1:]], given.dtype) for given in signature.inputs])
    def inference(*tensors: Any) -> Any:
        ends[:] = tensors
        with _answering(set(tables), answer):
            return flat_outputs(signature.call(model, tensors))

    read = _read_by(inference.get_concrete_function().outputs)
    computed = [lookup.path for lookup in found if lookup.number == COMPUTED]
    if computed:
        raise ConversionError(
            f"'{model.name}' computes the token numbers that it looks up in {listing(dict.fromkeys(computed))}, which "
            "are not taken in int16x8. Use quantization='int8', or give them as an input."
        )
    tokens = [ends[lookup.number] for lookup in found]
    used = [tables[lookup.table] for lookup, end in zip(found, tokens) if end.op.name in read]
    if used:
        raise ConversionError(
            f"'{model.name}' looks up token numbers in {listing(dict.fromkeys(used))} and computes with them besides, "
            "such as for a mask (mask_zero=True), which int16x8 does not take. Use quantization='int8'."
        )
    return found


def _source(tensor: Any, ends: Sequence[Any]) -> int:
    """The number of the input that a tensor of tokens is, whatever its type; `COMPUTED` for none of them."""
    while tensor.op.type in CASTS:
        tensor = tensor.op.inputs[0]
    return next((number for number, end in enumerate(ends) if end is tensor), COMPUTED)


def _read_by(outputs: Sequence[Any]) -> set[str]:
    """The names of all operations that outputs come from."""
    waiting, seen = [output.op for output in outputs], set()
    while waiting:
        operation = waiting.pop()
        if operation.name not in seen:
            seen.add(operation.name)
            waiting += [tensor.op for tensor in operation.inputs]
    return seen


@contextlib.contextmanager
def _answering(tables: set[Any], answer: Callable[[Any, Any], Any]) -> Iterator[None]:
    """Lets layers answer otherwise than they do, in this thread and inside the block only."""
    with contextlib.ExitStack() as stack:
        for table in tables:
            other = functools.partial(_answer, answer, table)
            stack.enter_context(instead(table, "call", lambda plain, other=other: other))  # type: ignore[misc]
        yield


def _answer(answer: Callable[[Any, Any], Any], table: Any, inputs: Any, **_: Any) -> Any:
    return answer(table, inputs)


def put_in_front(model: Any, signature: Behind) -> None:
    """Writes the lookups into the file of what is behind them, in place; it then takes the inputs of the whole model.

    Args:
        model: The file as objects of the schema, its inputs in the order of `signature`.
        signature: The part of the model that the file holds.
    """
    graph = Graph(model, model.subgraphs[0])
    given = [int(index) for index in graph.subgraph.inputs]
    entries = list(model.signatureDefs[0].inputs)
    ends = dict(zip(signature.kept, zip(given, entries)))
    for lookup, index, entry in zip(signature.lookups, given[len(signature.kept) :], entries[len(signature.kept) :]):
        if lookup.number not in ends:
            name = signature.whole.inputs[lookup.number].name.encode()
            entry.name, entry.tensorIndex = name, _tokens(graph, index, name)
            ends[lookup.number] = (entry.tensorIndex, entry)
        _look_up(graph, lookup, ends[lookup.number][0], index)
    ordered = [ends[number] for number in range(len(signature.whole.inputs))]
    graph.subgraph.inputs = [index for index, _ in ordered]
    model.signatureDefs[0].inputs = [entry for _, entry in ordered]


def _tokens(graph: Graph, looked_up: int, name: bytes) -> int:
    """A new int32 tensor of the shape of what is looked up, without its last axis."""
    source = graph.tensors[looked_up]
    signature = None if source.shapeSignature is None else source.shapeSignature[:-1]
    return graph.tensor(name, schema().TensorType.INT32, source.shape[:-1], signature)


def _look_up(graph: Graph, lookup: Lookup, tokens: int, index: int) -> None:
    """Fills the int16 tensor that was an input from an int8 table: GATHER, and QUANTIZE to the scale learned."""
    quantizer = graph.quantizer(index)
    if quantizer is not None:  # the file's ends are float32
        index = int(quantizer.outputs[0])
        graph.subgraph.operators = [operator for operator in graph.subgraph.operators if operator is not quantizer]
    table = np.asarray(lookup.table(np.arange(lookup.table.input_dim)), np.float32)
    scale = float(np.abs(table).max()) / STEPS or 1.0
    name = lookup.path + "/embeddings"
    stored = graph.constant(name, np.round(table / scale).astype(np.int8), scale)
    source, kept = graph.tensors[index], graph.tensors[stored]
    rows = graph.tensor(kept.name + b"/rows", kept.type, source.shape, source.shapeSignature, kept.quantization)
    gather, requantize = schema().OperatorT(), schema().OperatorT()
    gather.opcodeIndex, gather.inputs, gather.outputs = graph.code("GATHER", 2), [stored, tokens], [rows]
    gather.builtinOptionsType = schema().BuiltinOptions.GatherOptions
    gather.builtinOptions = schema().GatherOptionsT()
    requantize.opcodeIndex, requantize.inputs, requantize.outputs = graph.code("QUANTIZE", 2), [rows], [index]
    requantize.builtinOptionsType = schema().BuiltinOptions.QuantizeOptions
    requantize.builtinOptions = schema().QuantizeOptionsT()
    graph.subgraph.operators = [gather, requantize, *graph.subgraph.operators]
