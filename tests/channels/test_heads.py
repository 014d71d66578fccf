"""Heads and the widths inside them: gates, norms, reshapes past open sizes, states that begin with zeros."""

import keras
import numpy as np
import pytest
from channel_checks import check_shrinks, randomise
from keras import layers, ops

from tfprune.channels import channel_groups
from tfprune.channels.labels import reshape

STEPS, HEADS, WIDE = 6, 2, 4


def steps_of(width):
    return np.random.default_rng(1).normal(size=(3, STEPS, width)).astype("float32")


def split(x, name, heads=HEADS, wide=WIDE):
    """A flat kernel, whose outputs are heads beside one another."""
    return ops.reshape(layers.Dense(heads * wide, use_bias=False, name=name)(x), (-1, STEPS, heads, wide))


def attended(q, k, v):
    return ops.einsum("bnts,bsnh->btnh", ops.softmax(ops.einsum("btnh,bsnh->bnts", q, k)), v)


def unit_length(x):
    return x * ops.rsqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + 1e-6)


def weight(x, *shape, name):
    """A weight as an operand, as `inline` writes it: all rows of a table, read by their numbers."""
    zero = ops.zeros_like(ops.reshape(ops.cast(x[(0,) * len(x.shape)], "int32"), (1,)))
    return layers.Embedding(*shape, name=name)(zero + np.arange(shape[0], dtype="int32"))


def test_a_gate_on_heads_laid_flat_goes_with_the_heads_and_with_the_widths_that_it_meets():
    inputs = keras.Input((STEPS, 5))
    both = layers.EinsumDense("btd,dnh->btnh", (None, HEADS, 2 * WIDE), name="query_and_gate")(inputs)
    k, v = (layers.EinsumDense("btd,dnh->btnh", (None, HEADS, WIDE), name=name)(inputs) for name in "kv")
    flat = (-1, STEPS, HEADS * WIDE)
    y = ops.reshape(attended(both[..., :WIDE], k, v), flat) * ops.sigmoid(ops.reshape(both[..., WIDE:], flat))
    y = ops.reshape(y, (-1, STEPS, HEADS, WIDE))
    model = randomise(keras.Model(inputs, layers.EinsumDense("btnh,nho->bto", (None, 3), name="out")(y)))
    groups = channel_groups(model)
    assert {name: (group.size, group.unit) for name, group in groups.free.items()} == {
        "query_and_gate/n": (2, "head"),
        "query_and_gate/h[0:4]": (4, "width"),
        "query_and_gate/h[4:8]": (4, "width"),
    }
    _, small = check_shrinks(model, data=steps_of(5))
    # One of two heads; one of four widths, of queries with keys and of gates with values.
    assert small.get_layer("query_and_gate").kernel.shape == (5, 1, 6)
    assert small.get_layer("v").kernel.shape == (5, 1, 3) and small.get_layer("out").kernel.shape == (1, 3, 3)


def test_widths_inside_heads_go_through_a_norm_of_queries_and_keys_in_flat_kernels():
    inputs = keras.Input((STEPS, 5))
    q, k, v = (split(inputs, name) for name in "qkv")
    y = ops.reshape(attended(unit_length(q), unit_length(k), v), (-1, STEPS, HEADS * WIDE))
    model = randomise(keras.Model(inputs, layers.Dense(3, name="out")(y)))
    found = {unit: channel_groups(model, unit=unit)["q"] for unit in ("head", "width")}
    assert {unit: (group.size, group.unit) for unit, group in found.items()} == {
        "head": (HEADS, "head"),
        "width": (WIDE, "width"),
    }
    _, small = check_shrinks(model, data=steps_of(5))
    assert small.get_layer("q").units == small.get_layer("k").units == HEADS * (WIDE - 1)


def test_heads_go_through_a_norm_inside_them_where_nothing_decides_for_the_width():
    inputs = keras.Input((STEPS, 5))
    y = ops.reshape(unit_length(split(inputs, "wide", 4, 2)), (-1, STEPS, 8))
    model = randomise(keras.Model(inputs, layers.Dense(3, name="out")(y)))
    assert channel_groups(model)["wide"].size == 4
    _, small = check_shrinks(model, data=steps_of(5))
    assert small.get_layer("wide").units == 3 * 2


@pytest.mark.parametrize("back", [(-1, STEPS, HEADS * WIDE), (-1, HEADS * WIDE)])
def test_widths_go_where_heads_become_rows_beside_samples_and_come_back(back):
    inputs = keras.Input((STEPS, 5))
    rows = ops.reshape(split(inputs, "wide"), (-1, WIDE))
    rows = unit_length(rows) * ops.reshape(weight(inputs, 1, WIDE, name="scale"), (WIDE,))
    gate = ops.reshape(split(inputs, "gate"), (-1, WIDE))
    model = randomise(keras.Model(inputs, layers.Dense(3, name="out")(ops.reshape(rows * ops.sigmoid(gate), back))))
    _, small = check_shrinks(model, data=steps_of(5))
    assert small.get_layer("wide").units == small.get_layer("gate").units == HEADS * (WIDE - 1)
    assert small.get_layer("scale").embeddings.shape == (1, WIDE - 1)


@pytest.mark.parametrize(
    ("source", "target", "axis", "expected"),
    [
        ((None, 6, 2, 4), (None, 4), 3, [[1, 2, 3, 4]]),
        ((None, 4), (None, 2, 8), 1, [[[1, 2, 3, 4, 1, 2, 3, 4]] * 2]),
        ((None, 4), (None, None, 8), 1, [[[1, 2, 3, 4, 1, 2, 3, 4]]]),
        ((None, 6, 2, 4), (None, 4), 2, None),  # heads come to lie beside samples
        ((None, 4), (None, 3), 1, None),
    ],
)
def test_labels_go_through_reshapes_past_open_sizes(source, target, axis, expected):
    labels = np.arange(1, source[axis] + 1).reshape([-1 if at == axis else 1 for at in range(len(source))])
    found = reshape(labels, source, target)
    assert found is None if expected is None else np.array_equal(np.broadcast_to(found, np.shape(expected)), expected)


def test_a_state_that_begins_with_zeros_goes_with_the_widths_that_it_meets():
    inputs = keras.Input((STEPS, 5))
    k, v = split(inputs, "k"), split(inputs, "v")
    sample = ops.zeros_like(inputs[:, :1, :1, None])
    state = ops.subtract(np.zeros((1, HEADS, WIDE, WIDE), "float32"), sample)
    answers = []
    for step in range(2):
        state = state + ops.einsum("bnk,bnv->bnkv", k[:, step], v[:, step])
        answers.append(ops.einsum("bnk,bnkv->bnv", k[:, step + 1], state))
    y = ops.reshape(ops.stack(answers, axis=1), (-1, 2, HEADS * WIDE))
    model = randomise(keras.Model(inputs, layers.Dense(3, name="out")(y)))
    _, small = check_shrinks(model, data=steps_of(5))
    assert small.get_layer("k").units == HEADS * (WIDE - 1)


def test_heads_of_an_outer_product_go_together_where_nothing_decides_for_the_width():
    inputs = keras.Input((STEPS, 5))
    k, v = split(inputs, "k", 4, 2), split(inputs, "v", 4, 3)
    y = ops.reshape(ops.einsum("btnk,btnv->btnkv", k, v), (-1, STEPS, 24))
    model = randomise(keras.Model(inputs, layers.Dense(3, name="out")(y)))
    assert {name: group.size for name, group in channel_groups(model).free.items()} == {"k": 4}
    _, small = check_shrinks(model, data=steps_of(5))
    assert [small.get_layer(name).units for name in "kv"] == [3 * 2, 3 * 3]


def test_heads_and_widths_of_an_outer_product_that_disagree_leave_the_heads_alone():
    inputs = keras.Input((STEPS, 5))
    k = layers.EinsumDense("btd,dn->btn", (None, HEADS), name="k")(inputs)[..., None]
    v = ops.reshape(ops.reshape(split(inputs, "v"), (-1, WIDE)), (-1, STEPS, HEADS, WIDE))
    y = ops.reshape(ops.einsum("btnk,btnv->btnkv", k, v), (-1, STEPS, HEADS * WIDE))
    model = randomise(keras.Model(inputs, layers.Dense(3, name="out")(y)))
    _, small = check_shrinks(model, data=steps_of(5))
    assert [small.get_layer(name).units for name in ("v",)] == [HEADS * (WIDE - 1)]
