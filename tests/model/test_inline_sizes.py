"""Open sizes in the calls of layers: what is tiled, padded, counted or split by them follows them in the graph."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfprune

WIDTH = 6


class Part(layers.Layer):
    """One thing that a call does with open sizes, around a kernel of its own."""

    def __init__(self, does):
        super().__init__(name="part")
        self.does, self.dense = does, layers.Dense(WIDTH)

    def build(self, shape):
        self.tokens = self.add_weight(shape=(1, 2, WIDTH), initializer="normal", name="tokens")
        self.dense.build(shape)

    def call(self, x):
        return self.does(self, self.dense(x))


class TellsItsShape(Part):
    """Since Keras knows none for a Fourier transform along an open axis."""

    def compute_output_shape(self, shape):
        return (*shape[:-1], 2 * WIDTH)


def as_many_tokens_as_samples(self, x):
    # keras.ops.add takes the tokens for a bias where their number is that of the samples.
    return ops.concatenate([ops.tile(self.tokens, (ops.shape(x)[0], 1, 1)), x], axis=1)


def one_row_for_each_word(self, x):
    batch, steps = ops.shape(x)[:2]
    return ops.reshape(ops.reshape(x, (batch * steps, WIDTH)) * 2.0, (batch, steps, WIDTH))


def padded_before_and_behind(self, x):
    steps = ops.shape(x)[1]
    return ops.pad(x, ((0, 0), (steps, 2), (1, 1)), constant_values=3.0)


def counted_down_to_zero(self, x):
    steps = ops.shape(x)[1]
    return x + ops.cast(ops.arange(1 - steps, 1), x.dtype)[None, :, None]


def counted_from_a_number(self, x):
    steps = ops.shape(x)[1]
    return x + ops.cast(ops.arange(2, 2 + steps), x.dtype)[None, :, None]


def fourier(self, x):
    real, imaginary = ops.fft2((x, ops.zeros_like(x) + 0.5))
    return ops.concatenate([real, imaginary], axis=-1)


@pytest.mark.parametrize(
    "does",
    [
        as_many_tokens_as_samples,
        one_row_for_each_word,
        padded_before_and_behind,
        counted_down_to_zero,
        counted_from_a_number,
        fourier,
    ],
)
def test_what_depends_on_an_open_size_follows_it(does):
    model = keras.Sequential([keras.Input((None, 4)), (TellsItsShape if does is fourier else Part)(does)])
    plain = tfprune.inline(model)
    assert not any(isinstance(layer, Part) for layer in plain.layers)
    for samples, steps in ((1, 4), (2, 9), (4, 2)):
        x = np.random.default_rng(steps).normal(size=(samples, steps, 4)).astype("float32")
        np.testing.assert_allclose(np.asarray(plain(x)), np.asarray(model(x)), atol=3e-5)
