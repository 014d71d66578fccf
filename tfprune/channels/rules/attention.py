"""Attention: whole heads may go, and the width inside heads."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tfprune.channels.labels import Channels, Line, unvalued
from tfprune.channels.reasons import Reason
from tfprune.channels.rules.products import product
from tfprune.channels.rules.registry import Entry, Resized
from tfprune.channels.trace import Role
from tfprune.channels.visit import Visit
from tfprune.model.fresh import fresh_operation
from tfprune.model.tree import children

layers = keras.layers


def projections(layer: Any) -> dict[str, Any]:
    """The dense layers of an attention layer: "query", "key", "value", "attention_output", maybe "gate"."""
    return {child.name: child for child in children(layer) if hasattr(child, "kernel")}


def _resize_multi_head(layer: Any, config: dict[str, Any], new: Resized) -> None:
    parts = projections(layer)
    heads, key_dim = new.size(parts["query"].kernel)[1:]
    output = new.size(parts["attention_output"].kernel)[2]
    config.update(num_heads=heads, key_dim=key_dim, value_dim=new.size(parts["value"].kernel)[2])
    if config.get("output_shape") or output != new.inputs[0][-1]:
        config["output_shape"] = [output]


def _rescale_query(old: Any, layer: Any, new: Resized) -> None:
    """Scores are divided by the root of the key's width, which is now smaller: the query makes up for it."""
    query = projections(layer)["query"]
    ratio = query.kernel.shape[2] / projections(old)["query"].kernel.shape[2]
    if ratio != 1:
        for variable in query.weights:
            variable.assign(variable * math.sqrt(ratio))


def multi_head_attention(visit: Visit) -> list[Channels]:
    """Three projections into (heads, width), and one out of them."""
    parts = projections(visit.layer)
    if len(parts["attention_output"].kernel.shape) != 3:
        return visit.freeze_all(Reason.INPUT_SHAPE)
    size, key_dim = parts["query"].kernel.shape[1:]
    heads = visit.fresh(size, "heads")
    keys = visit.fresh(key_dim, "key_dim")
    values = visit.fresh(parts["value"].kernel.shape[2], "value_dim")
    output = visit.fresh(parts["attention_output"].kernel.shape[2])
    _attend(visit, heads, heads, keys, values, output)
    return _results(visit, output, heads)


def _resize_grouped_query(layer: Any, config: dict[str, Any], new: Resized) -> None:
    parts = projections(layer)
    query, key = new.size(parts["query"].kernel), new.size(parts["key"].kernel)
    config.update(num_query_heads=query[1], num_key_value_heads=key[1], head_dim=query[2])


def grouped_query_attention(visit: Visit) -> list[Channels]:
    """Several query heads share the key and value of one: they go together, one width serves all projections."""
    layer = visit.layer
    size, width = projections(layer)["key"].kernel.shape[1:]
    heads = visit.fresh(size, "heads")
    keys = visit.fresh(width, "head_dim")
    # The layer gives as many channels as its query has, and has no setting to tell them apart.
    lines, _ = visit.take(visit.input)
    output = lines[0].labels if lines else None
    queries = np.repeat(heads, layer.num_repeats)
    _attend(visit, queries, heads, keys, keys, output)
    return _results(visit, output, queries)


def _attend(
    visit: Visit,
    queries: np.ndarray,
    heads: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    output: np.ndarray | None,
) -> None:
    """Records the weights of multi-head attention: labels of query heads, of key and value heads, and of widths."""
    parts = projections(visit.layer)
    tensors = dict(zip(("query", "value", "key"), visit.inputs))
    sources = {name: visit.args[i] if len(visit.args) > i else visit.kwargs.get(name) for i, name in enumerate(tensors)}
    query, value = (s if isinstance(s, Channels) else visit.input for s in (sources["query"], sources.get("value")))
    key = sources.get("key")
    key = key if isinstance(key, Channels) else value
    inward = [("query", query, queries, keys), ("key", key, heads, keys), ("value", value, heads, values)]
    if "gate" in parts:
        inward.append(("gate", query, queries, values))
    for name, source, head_labels, widths in inward:
        dense = parts[name]
        for line in visit.lines(source):
            visit.use(Role.INPUT, dense.kernel, 0, line)
        for axis, labels in ((1, head_labels), (2, widths)):
            visit.use(Role.OUTPUT, dense.kernel, axis, labels)
            visit.use(Role.BIAS, dense.bias, axis - 1, labels)
    for mask in visit.inputs:
        if not any(mask is source for source in (query, key, value)):
            visit.freeze(mask, Reason.OTHER_AXIS)
    silent_keys = _silent(visit, parts["query"], 2) | _silent(visit, parts["key"], 2)
    visit.demand_zero(keys, np.zeros(len(keys)), np.where(silent_keys, 0.0, math.nan), Reason.MIXED)
    outward = parts["attention_output"]
    repeats = len(queries) // len(heads)
    silent_heads = np.repeat(_silent(visit, parts["value"], 1), repeats)
    visit.use(Role.INPUT, outward.kernel, 0, _line(queries, silent_heads))
    visit.use(Role.INPUT, outward.kernel, 1, _line(values, _silent(visit, parts["value"], 2)))
    if output is not None:
        visit.use(Role.OUTPUT, outward.kernel, 2, output)
        visit.use(Role.BIAS, outward.bias, 0, output)


def _silent(visit: Visit, dense: Any, axis: int) -> np.ndarray:
    """Where a projection gives zero today along an axis of its kernel."""
    quiet = visit.values.is_zero(dense.kernel, axis)
    return quiet if dense.bias is None else quiet & visit.values.is_zero(dense.bias, axis - 1)


def _line(labels: np.ndarray, silent: np.ndarray) -> Line:
    return unvalued(labels).with_values(0.0, np.where(silent, 0.0, math.nan))


def _results(visit: Visit, output: np.ndarray | None, heads: np.ndarray) -> list[Channels]:
    factors = []
    if output is not None:
        outward = projections(visit.layer)["attention_output"]
        quiet = visit.values.is_zero(outward.kernel, 2)
        values = np.where(quiet, visit.values.vector(outward.bias, len(output)), math.nan)
        factors = [visit.along(-1, unvalued(output).with_values(0.0, values))]
    results = [visit.result(factors)]
    if len(visit.shapes) > 1:  # the scores, one map per head
        results.append(visit.result([visit.along(1, heads, 1)], 1))
    return results


def _replay_dot_product(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], new: Resized) -> Any:
    # Scores are divided by the root of the width, unless told otherwise: told the old one, they stay as they were.
    names = ("query", "key", "value", "bias", "mask", "scale")
    given = {**dict(zip(names, args)), **kwargs}
    if given.get("scale") is None:
        given["scale"] = 1.0 / math.sqrt(int(new.old_outputs[0][-1] or 1))
    return fresh_operation(op)(**given)


def dot_product_attention(visit: Visit) -> Channels:
    """`keras.ops.dot_product_attention` on (batch, steps, heads, width)."""
    tensors = [visit.argument(name, position) for position, name in enumerate(("query", "key", "value"))]
    if len({tensor.shape[2] for tensor in tensors}) > 1:
        return visit.freeze_all(Reason.INPUT_SHAPE)[0]  # fewer heads of keys than of queries
    others = [x for x in visit.inputs if not any(x is tensor for tensor in tensors)]
    tensors = [visit.split_heads(tensor, 2) for tensor in tensors]
    for other in others:
        visit.freeze(other, Reason.OTHER_AXIS)
    # Keras says that the output is as wide as the query is, so the value's width goes with it.
    query, value = ([f for f in t.factors if 3 in f.axes] for t in (tensors[0], tensors[2]))
    if len(query) == len(value) == 1:
        visit.join(*(visit.tied(f, [3]).line(3).labels for f in (*query, *value)))
    else:  # as behind rotary embeddings; whole heads may go all the same
        tensors = [replace(t, factors=tuple(visit.frozen_axis(t, [3], Reason.FIXED_PARTNER))) for t in tensors]
    letters = [dict(zip(term, range(4))) for term in ("btnh", "bsnh", "bsnd")]
    return product(visit, tensors, letters, dict(zip("btnd", range(4))))


def attention(visit: Visit) -> list[Channels]:
    """Scores are products of query and key, summed over their channels; the value's channels pass.

    With "concat" they are tanh(query + key) instead, weighted by `scale` in AdditiveAttention.
    """
    layer = visit.layer
    given = visit.args[0] if visit.args else visit.kwargs["inputs"]
    query, value, key = given[0], given[1], given[2] if len(given) > 2 else given[1]
    dot = getattr(layer, "score_mode", "concat") == "dot"
    scale = layer.scale if isinstance(layer, layers.AdditiveAttention) and layer.use_scale else None
    lines = [line for tensor in (query, key) for line in visit.lines(tensor)]
    if len(lines) == 2:
        visit.join(lines[0].labels, lines[1].labels)
        # A product is zero where one factor is, a sum where both are.
        masked, now = _zero_where(np.any if dot else np.all, lines)
        if scale is None:
            visit.demand_zero(lines[0].labels, masked, now, Reason.MIXED)
        else:
            visit.use(Role.INPUT, scale, 0, lines[0].with_values(math.nan, now))
    for line in lines if len(lines) != 2 else ():
        visit.freeze(line, Reason.MIXED if dot else Reason.FIXED_PARTNER)
    factors = [visit.along(-1, line.with_values(*_zero_where(np.all, [line]))) for line in visit.lines(value)]
    return [visit.result(factors), *(Channels(shape) for shape in visit.shapes[1:])]


def _zero_where(which: Any, lines: Sequence[Line]) -> tuple[np.ndarray, np.ndarray]:
    """Values of masked and present channels of which only zeros are known: those of any or of all lines."""
    masked = which([line.masked == 0 for line in lines], axis=0)
    now = which([line.now == 0 for line in lines], axis=0)
    return np.where(masked, 0.0, math.nan), np.where(now, 0.0, math.nan)


LAYERS: dict[type | None, Entry] = {
    layers.MultiHeadAttention: Entry(multi_head_attention, resize=_resize_multi_head, adjust=_rescale_query),
    layers.GroupQueryAttention: Entry(grouped_query_attention, resize=_resize_grouped_query, adjust=_rescale_query),
    **dict.fromkeys((layers.Attention, layers.AdditiveAttention), Entry(attention)),
}
OPERATIONS = {
    "DotProductAttention": Entry(dot_product_attention, replay=_replay_dot_product),
}
