"""What calls ask of Keras while they are traced."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfprune
from tfprune.channels import channel_groups


class Asking(layers.Layer):
    """A kernel, and something that its call asks."""

    def __init__(self, asks, **kwargs):
        super().__init__(**kwargs)
        self.asks, self.dense = asks, layers.Dense(4)

    def call(self, x, training=None):
        self.training = training
        return self.asks(self.dense(x))


def for_the_number_of_axes(x):
    keys = [None] * (ops.ndim(x) or 3)
    keys[0] = keys[1] = keys[-1] = slice(None)
    return x[keys[: ops.ndim(x)]]


def for_the_backend(x):
    numbers = ops.broadcast_to(ops.cast(ops.arange(2), "int32"), (ops.shape(x)[0], 3, 2))
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        return tf.gather(x, numbers, batch_dims=2)
    return ops.take_along_axis(x, numbers, axis=2)


def for_axes_in_capitals(x):
    return ops.einsum("BTH,BSH->BTS", x, x)


def for_a_window_longer_than_the_sequence(x):
    steps = ops.shape(x)[1]
    if keras.config.backend() == "tensorflow":  # whose triangles reach no further than the matrix
        return ops.einsum("ts,bsd->btd", ops.ones((steps, steps)), x)
    inside = ops.triu(ops.ones((steps, steps)), -100) * ops.tril(ops.ones((steps, steps)), 100)
    return ops.einsum("ts,bsd->btd", inside, x)


def for_bounds_that_are_tensors(x):
    low = ops.min(x, axis=-1, keepdims=True)  # as high as those above it, where the order of the bounds counts
    return ops.clip(x, low + 1.0, ops.convert_to_tensor(0.5))


def for_a_loop_between_numbers(x):
    return ops.fori_loop(0, 3, lambda step, value: value * 0.5 + x * ops.cast(step, x.dtype), x)


def for_arrays_on_the_left(x):
    table = np.arange(12, dtype="float32").reshape(3, 4)
    return np.float32(2.0) * (table * x) + (1 - table) / (2.0 + ops.abs(x))


@pytest.mark.parametrize(
    "asks",
    [
        for_a_loop_between_numbers,
        for_arrays_on_the_left,
        for_the_number_of_axes,
        for_the_backend,
        for_axes_in_capitals,
        for_a_window_longer_than_the_sequence,
        for_bounds_that_are_tensors,
    ],
)
def test_answers_lead_to_a_way_that_a_graph_holds(asks):
    inputs = keras.Input((3, 5))
    model = keras.Model(inputs, Asking(asks, name="asking")(inputs))
    before = ops.ndim, keras.config.backend
    plain = tfprune.inline(model)
    assert not any(isinstance(layer, Asking) for layer in plain.layers)
    x = np.random.default_rng(0).normal(size=(2, 3, 5)).astype("float32")
    np.testing.assert_allclose(plain(x), model(x), rtol=1e-5, atol=1e-6)
    assert (ops.ndim, keras.config.backend) == before


def test_a_layer_that_notes_whether_it_trains_opens_again_after_a_call():
    inputs = keras.Input((3, 5))
    model = keras.Model(inputs, layers.Dense(2)(Asking(ops.tanh, name="asking")(inputs)))
    model(np.zeros((1, 3, 5)), training=False)  # notes False
    assert not channel_groups(model)["asking.dense"].frozen
