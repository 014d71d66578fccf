"""The kernel of a layer as a matrix: rows of features times the matrix is the layer's output."""

import keras
import numpy as np
import pytest

from tfprune.model import regression
from tfprune.model.prunable import prunable_weights
from tfprune.model.regression import linear_form

L = keras.layers
CASES = {
    "dense": ((6,), L.Dense(4)),
    "dense on a sequence": ((5, 6), L.Dense(4)),
    "conv1d": ((9, 3), L.Conv1D(4, 3)),
    "conv1d causal dilated": ((9, 3), L.Conv1D(4, 3, padding="causal", dilation_rate=2)),
    "conv2d valid": ((7, 6, 3), L.Conv2D(4, (3, 2))),
    "conv2d same strided": ((7, 6, 3), L.Conv2D(4, 3, strides=2, padding="same")),
    "conv2d dilated": ((9, 8, 2), L.Conv2D(4, 3, dilation_rate=2, padding="same")),
    "conv2d groups": ((6, 6, 4), L.Conv2D(6, 3, groups=2)),
    "conv3d": ((4, 5, 6, 2), L.Conv3D(3, 2, padding="same")),
    "depthwise": ((6, 6, 3), L.DepthwiseConv2D(3, depth_multiplier=2, padding="same")),
    "depthwise1d": ((6, 3), L.DepthwiseConv1D(3, strides=2)),
    "einsum query": ((5, 6), L.EinsumDense("abc,cde->abde", output_shape=(None, 2, 4), bias_axes="de")),
    "einsum output": ((5, 2, 4), L.EinsumDense("abcd,cde->abe", output_shape=(None, 6), bias_axes="e")),
    "einsum dots": ((5, 6), L.EinsumDense("...x,xy->...y", output_shape=4, bias_axes="y")),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_times_the_matrix_give_the_output(name):
    shape, layer = CASES[name]
    layer = type(layer).from_config(layer.get_config())
    model = keras.Sequential([keras.Input(shape), layer])
    (weight,) = prunable_weights(model)
    form = linear_form(weight)
    kernel = np.random.default_rng(0).normal(size=weight.shape).astype("float32")
    weight.variable.assign(kernel)
    inputs = np.random.default_rng(1).normal(size=(2, *shape)).astype("float32")
    product = np.asarray(form.rows(inputs)) @ form.to_matrix(kernel)  # groups, rows, outputs
    expected = np.asarray(model(inputs))  # biases are zero
    if product.shape[0] > 1:
        product = product.transpose(1, 0, 2)
    np.testing.assert_allclose(product.reshape(expected.shape), expected, atol=1e-5)
    np.testing.assert_array_equal(form.to_kernel(form.to_matrix(kernel)), kernel)
    assert form.has_bias


def test_channels_first_reads_the_same_windows():
    first = L.Conv2D(4, 3, data_format="channels_first")
    last = L.Conv2D(4, 3)
    first.build((None, 2, 6, 6))
    last.build((None, 6, 6, 2))
    inputs = np.random.default_rng(0).normal(size=(2, 6, 6, 2)).astype("float32")
    np.testing.assert_array_equal(
        regression.Convolution(first, (3, 3, 2, 4)).rows(inputs.transpose(0, 3, 1, 2)),
        regression.Convolution(last, (3, 3, 2, 4)).rows(inputs),
    )


def test_windows_of_a_large_image_are_thinned_evenly():
    layer = L.Conv2D(4, 1)
    layer.build((None, 40, 40, 1))
    inputs = np.arange(1600, dtype="float32").reshape(1, 40, 40, 1)
    rows = np.asarray(regression.Convolution(layer, (1, 1, 1, 4)).rows(inputs)).ravel()
    np.testing.assert_array_equal(rows, inputs[0, ::3, ::3, 0].ravel())


@pytest.mark.parametrize(
    "layer", [L.LSTM(3), L.Conv1DTranspose(3, 2), L.SeparableConv1D(3, 2), L.GRU(3)], ids=lambda layer: layer.name
)
def test_kernels_that_are_used_otherwise_have_no_linear_form(layer):
    model = keras.Sequential([keras.Input((5, 4)), layer])
    assert [linear_form(weight) for weight in prunable_weights(model)] == [None] * len(prunable_weights(model))


def test_a_layer_of_the_users_own_class_has_no_linear_form():
    class Doubled(L.Dense):
        def call(self, inputs):
            return 2 * super().call(inputs)

    model = keras.Sequential([keras.Input((4,)), Doubled(3)])
    assert linear_form(prunable_weights(model)[0]) is None
