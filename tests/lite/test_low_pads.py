"""Borders of minus infinity before a max pooling, in integers."""

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.errors import ConversionError

IMAGES = np.random.default_rng(0).normal(size=(20, 8, 8, 3)).astype("float32")


def padded(value, behind):
    inputs = keras.Input((8, 8, 3))
    inner = layers.Conv2D(4, 3, padding="same", name="convolution")(inputs)
    border = keras.ops.pad(inner, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=value)
    return keras.Model(inputs, behind(border, layers.Conv2D(4, 3, strides=2, padding="same")(inputs)))


def pooled(border, other):
    return layers.add([layers.MaxPooling2D(3, 2)(border), other])


@pytest.mark.parametrize("value", [-np.inf, -1e30])
def test_the_border_is_the_lowest_value_that_is_seen(value):
    keras.utils.set_random_seed(0)
    model = padded(value, pooled)  # LiteRT once ended the process when it prepared the file
    lite = tfprune.convert(model, quantization="int8", representative_data=IMAGES)
    assert [operator.name for operator in lite.operators].count("PADV2") == 1
    expected = np.asarray(model(IMAGES))
    assert np.abs(lite(IMAGES) - expected).max() < 0.03 * np.abs(expected).max()  # several steps of 256


def test_the_float_file_keeps_the_border():
    model = padded(-np.inf, pooled)
    np.testing.assert_allclose(tfprune.convert(model)(IMAGES[:2]), model(IMAGES[:2]), rtol=1e-5, atol=1e-5)


def test_a_border_that_counts_beside_values_is_refused_by_name():
    model = padded(-1e9, lambda border, _: layers.Activation("tanh", name="squash")(border))
    with pytest.raises(
        ConversionError, match=r"it pads with -1000000000.0, and Tanh of layer 'squash' behind it is no"
    ):
        tfprune.convert(model, quantization="int8", representative_data=IMAGES)
