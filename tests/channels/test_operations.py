"""Operations with an operand of their own: filters that are weights or constants, sums up to a place, updates."""

import keras
import numpy as np
import pytest
from channel_checks import check_shrinks, randomise
from keras import layers, ops

import tfprune
from tfprune.channels import Reason, channel_groups

STEPS = 6


def steps_of(width):
    return np.random.default_rng(1).normal(size=(3, STEPS, width)).astype("float32")


def weight(x, *shape, name):
    """A weight as an operand, as `inline` writes it: all rows of a table, read by their numbers."""
    zero = ops.zeros_like(ops.reshape(ops.cast(x[(0,) * len(x.shape)], "int32"), (1,)))
    return layers.Embedding(*shape, name=name)(zero + np.arange(shape[0], dtype="int32"))


def test_channels_go_with_the_slices_of_a_filter_that_is_a_weight():
    inputs = keras.Input((STEPS, 5))
    x = layers.Dense(8, name="wide")(inputs)
    kernel = ops.expand_dims(ops.transpose(weight(inputs, 8, 3, name="filter")), -1)
    y = ops.depthwise_conv(ops.pad(x, [[0, 0], [2, 0], [0, 0]]), kernel, padding="valid")
    model = randomise(keras.Model(inputs, layers.Dense(3, name="out")(y)))
    groups = channel_groups(model)
    assert groups["filter"].frozen.reason is Reason.OTHER_AXIS  # its places in time
    _, small = check_shrinks(model, data=steps_of(5))
    assert small.get_layer("wide").units == 6 and small.get_layer("filter").embeddings.shape == (6, 3)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_channels_go_through_a_filter_that_is_a_constant(multiplier):
    inputs = keras.Input((7, 7, 3))
    x = layers.Conv2D(8, 3, name="wide")(inputs)
    blur = np.random.default_rng(0).normal(size=(3, 3, 8, multiplier)).astype("float32")
    y = ops.depthwise_conv(x, blur, strides=2, padding="same")
    model = randomise(keras.Model(inputs, layers.Conv2D(2, 1, name="out")(y)))
    _, small = check_shrinks(model)
    assert small.get_layer("wide").filters == 6 and small.get_layer("out").kernel.shape == (1, 1, 6 * multiplier, 2)


def test_a_filter_that_is_a_weight_keeps_the_channels_of_an_input():
    inputs = keras.Input((STEPS, 5))
    kernel = ops.expand_dims(ops.transpose(weight(inputs, 5, 3, name="filter")), -1)
    y = ops.depthwise_conv(inputs, kernel, padding="valid")
    model = randomise(keras.Model(inputs, layers.Dense(3, name="out")(layers.Dense(8, name="wide")(y))))
    assert list(channel_groups(model).free) == ["wide"]


@pytest.mark.parametrize("operation", [ops.cumsum, ops.cumprod])
def test_channels_pass_sums_and_products_along_another_axis(operation):
    inputs = keras.Input((STEPS, 5))
    y = operation(layers.Dense(8, name="wide")(inputs), axis=1)
    model = randomise(keras.Model(inputs, layers.Dense(3, name="out")(y)))
    _, small = check_shrinks(model, data=steps_of(5))
    assert small.get_layer("wide").units == 6


@pytest.mark.parametrize("axis", [-1, None])
def test_channels_that_are_summed_one_after_the_other_stay(axis):
    inputs = keras.Input((5,), batch_size=4 if axis is None else None)
    y = ops.reshape(ops.cumsum(layers.Dense(8, name="wide")(inputs), axis=axis), (-1, 8))
    model = keras.Model(inputs, layers.Dense(3, name="out")(y))
    assert channel_groups(model)["wide"].frozen.reason is Reason.MIXED


@pytest.mark.parametrize("known", [True, False], ids=["into a constant", "into a tensor"])
def test_channels_go_with_those_of_a_part_that_takes_the_place_of_others(known):
    inputs = keras.Input((STEPS, 5), batch_size=3)
    wide, part = layers.Dense(8, name="wide")(inputs), layers.Dense(8, name="part")(inputs[:, 2:4])
    into = np.random.default_rng(0).normal(size=(3, STEPS, 8)).astype("float32") if known else wide
    y = ops.slice_update(into, (0, 1, 0), part)
    model = randomise(keras.Model(inputs, layers.Dense(3, name="out")(y if not known else y * wide)))
    assert [group.size for group in channel_groups(model).free.values()] == [8]
    _, small = check_shrinks(model, data=steps_of(5))
    assert small.get_layer("wide").units == small.get_layer("part").units == 6


def test_channels_stay_along_an_axis_that_an_update_fills_in_part():
    inputs = keras.Input((STEPS, 5))
    wide, part = layers.Dense(8, name="wide")(inputs), layers.Dense(2, name="part")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="out")(ops.slice_update(wide, (0, 0, 4), part)))
    groups = channel_groups(model)
    assert groups["wide"].frozen.reason is groups["part"].frozen.reason is Reason.OTHER_AXIS


@pytest.mark.parametrize("axes", [1, [[2], [0]], [[-1], [-2]]], ids=str)
def test_channels_go_through_a_tensordot(axes):
    inputs = keras.Input((STEPS, 5))
    x = layers.Dense(8, activation="relu", name="wide")(inputs)
    y = ops.relu(ops.tensordot(x, weight(inputs, 8, 10, name="kernel"), axes=axes))
    model = randomise(keras.Model(inputs, layers.Dense(2, name="out")(y)))
    _, small = check_shrinks(model, data=steps_of(5))
    assert small.get_layer("wide").units == 6 and small.get_layer("kernel").embeddings.shape == (6, 7)


def test_channels_go_through_a_tensordot_over_two_axes():
    inputs = keras.Input((STEPS, 5))
    x = layers.Dense(8, activation="relu", name="wide")(inputs)
    kernel = ops.reshape(weight(inputs, STEPS * 8, 3, name="kernel"), (STEPS, 8, 3))
    model = randomise(keras.Model(inputs, layers.Dense(2, name="out")(ops.tensordot(x, kernel, axes=2))))
    check_shrinks(model, data=steps_of(5))
    plan = tfprune.plan_shrink(model, tfprune.Structured(0.3))
    assert plan["wide"].sum() == 6, str(plan)
