"""Attention of several heads, written as the operators that TFLite has int8 kernels for."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras

from tfprune.errors import listing
from tfprune.lite.quantize.operators import MatrixProduct
from tfprune.lite.quantize.program import MOVED, Program, Value
from tfprune.lite.quantize.rules.activations import SIGMOID
from tfprune.lite.quantize.rules.kernels import einsum_dense
from tfprune.lite.quantize.rules.registry import NoInt8KernelError, Use, rule

layers = keras.layers
MASKS = ("query_mask", "value_mask", "key_mask", "attention_mask")


@rule(layers.MultiHeadAttention)
def multi_head_attention(program: Program, use: Use) -> Value:
    """Four products with kernels, and between them two of activations with a softmax; each with a range of its own."""
    layer = use.operation
    _require_plain(use)
    query, value, key = _given(use)
    queries = _heads(program, use, layer.query_dense, query, "query", (2, 1, 3))
    keys = _heads(program, use, layer.key_dense, key, "key", (2, 3, 1))
    values = _heads(program, use, layer.value_dense, value, "value", (2, 1, 3))
    (queries,) = program.emit(program.scaled(1 / math.sqrt(layer.key_dim), use.name), queries, name=use.name)
    scores = MatrixProduct(bool(use.kwargs.get("use_causal_mask")), name=program.unique(f"{use.name}_scores"))
    (attended,) = program.emit(scores, [queries, keys], name=use.name)
    softmax = layers.Softmax(name=program.unique(f"{use.name}_softmax"))
    (attended,) = program.emit(softmax, attended, name=use.name, result=SIGMOID)
    if layer.dropout:
        dropout = layers.Dropout(layer.dropout, name=program.unique(f"{use.name}_dropout"))
        (attended,) = program.emit(dropout, attended, name=use.name, result=MOVED)
    product = MatrixProduct(name=program.unique(f"{use.name}_context"))
    (context,) = program.emit(product, [attended, values], name=use.name)
    (context,) = program.emit(_permuted(program, use, (2, 1, 3)), context, name=use.name, result=MOVED)
    length, (heads, width, _) = use.output_shape[1], layer.output_dense.kernel.shape
    return _projected(program, use, layer.output_dense, context, "attention_output", (None, length, heads, width))


def _given(use: Use) -> list[Value]:
    """Query, value and key among the arguments of the call."""
    given = {**dict(zip(("query", "value", "key"), use.args)), **use.kwargs}
    key = given.get("key")
    return [given["query"], given["value"], given["value"] if key is None else key]


def _require_plain(use: Use) -> None:
    """Raises for attention that is more than heads over sequences of known length."""
    kind, config = type(use.operation), use.operation.get_config()
    if kind is not layers.MultiHeadAttention:
        raise NoInt8KernelError(f"{kind.__name__} may attend in a way of its own")
    refused = [name for name in ("use_gate", "sliding_window") if config.get(name)]
    if refused:
        raise NoInt8KernelError(f"attention with {listing(refused)}")
    if use.shared or use.results > 1 or use.kwargs.get("return_attention_scores"):
        raise NoInt8KernelError("attention that is called more than once, or gives its scores")
    others = [*use.args[3:], *(use.kwargs.get(name) for name in MASKS)]
    if use.is_masked or any(mask is not None for mask in others):
        raise NoInt8KernelError("attention with a mask other than a causal one")
    if not all(isinstance(value, Value) for value in _given(use)):
        raise NoInt8KernelError("attention with a constant array")
    if any(len(shape) != 3 or shape[1] is None for shape in use.input_shapes):
        raise NoInt8KernelError("attention over other than sequences of known length")


def _heads(program: Program, use: Use, projection: Any, value: Value, part: str, order: Sequence[int]) -> Value:
    """A projection to heads, `(length, heads, width)`, its axes in another order."""
    shape = use.input_shapes[use.inputs.index(value)]
    heads = _projected(program, use, projection, value, part, shape)
    return program.emit(_permuted(program, use, order), heads, name=use.name, result=MOVED)[0]


def _permuted(program: Program, use: Use, order: Sequence[int]) -> keras.Layer:
    return layers.Permute(order, name=program.unique(f"{use.name}_permuted"))


def _projected(program: Program, use: Use, projection: Any, value: Value, part: str, shape: Sequence[Any]) -> Value:
    """What one of the layer's own projections makes of a value of this shape."""
    name = program.unique(f"{use.name}_{part}")
    projection.name = name
    inner = replace(
        use, name=name, path=f"{use.path}/{part}", operation=projection, args=(value,), kwargs={}, inputs=[value],
        input_shapes=[tuple(shape)],
    )  # fmt: skip
    return einsum_dense(program, inner)
