"""Operations, bytes and energy counted in a file."""

import keras
import lite_models
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.lite import convert
from tfprune.lite.file.cost import ADD, CACHE_BYTE, DRAM_BYTE, MULTIPLY_ADD, cost_of


def image_model(*body):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((8, 8, 4), name="image"), *body])


BODIES = {
    "convolution": lambda: [layers.Conv2D(6, 3, strides=2, padding="same")],
    "grouped": lambda: [layers.Conv2D(8, 3, groups=2)],
    "depthwise": lambda: [layers.DepthwiseConv2D(3, depth_multiplier=2)],
    "separable": lambda: [layers.SeparableConv2D(6, 3)],
    "transposed": lambda: [layers.Conv2DTranspose(6, 3, strides=2)],
    "dense": lambda: [layers.Flatten(), layers.Dense(10)],
}


@pytest.mark.parametrize("name", BODIES)
def test_multiply_accumulates_are_those_of_the_keras_model(name):
    model = image_model(*BODIES[name]())
    assert cost_of(convert(model).file).macs == tfprune.summary(model).macs > 0


def test_products_of_two_results_count():
    values = keras.Input((6, 8), name="values")
    model = keras.Model(values, keras.ops.matmul(values, keras.ops.transpose(values, (0, 2, 1))))
    assert cost_of(convert(model).file).macs == 6 * 6 * 8


def test_bytes_and_energy_follow_from_the_counts():
    model = image_model(layers.Conv2D(6, 1, name="conv"), layers.ReLU(), layers.MaxPooling2D())
    plain = cost_of(convert(model).file)
    weights, image, result, pooled = 4 * (6 * 4 + 6), 4 * 8 * 8 * 4, 4 * 8 * 8 * 6, 4 * 4 * 4 * 6
    assert plain.macs == 8 * 8 * 6 * 4
    assert plain.other == 4 * 4 * 6
    assert plain.weight_bytes == weights
    assert plain.activation_bytes == image + result + result + pooled
    assert plain.peak_bytes == image + result
    wanted = plain.macs * MULTIPLY_ADD["FLOAT32"] + plain.other * ADD["FLOAT32"]
    assert plain.picojoules == pytest.approx(wanted + weights * DRAM_BYTE + plain.activation_bytes * CACHE_BYTE)


def test_integers_cost_less():
    model = lite_models.convolutional()
    data = np.random.default_rng(0).normal(size=(20, 12, 12, 3)).astype(np.float32)
    plain, whole = cost_of(convert(model).file), cost_of(convert(model, "int8", data).file)
    assert whole.macs == plain.macs
    assert 4 * whole.activation_bytes < 1.01 * plain.activation_bytes
    assert 4 * whole.peak_bytes == plain.peak_bytes
    assert whole.picojoules < 0.3 * plain.picojoules
