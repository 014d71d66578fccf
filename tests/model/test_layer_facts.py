"""What is known about a layer, and its kernel as a matrix: rows of features times the matrix are the output."""

import keras
import numpy as np
import pytest

from tfprune.model.layers import Equation, channel_axis, facts_of, has_borders, is_entrywise, is_mixing
from tfprune.model.layers.linear import convolution_form
from tfprune.model.layers.table import LAYERS
from tfprune.model.prunable import linear_form, prunable_weights

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


@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        ((7, 6, 3), L.SeparableConv2D(5, 3, padding="same", depth_multiplier=2)),
        ((7, 6, 3), L.SeparableConv2D(5, (2, 3), strides=2)),
        ((9, 3), L.SeparableConv1D(4, 3, dilation_rate=2, padding="same")),
    ],
    ids=["2d same", "2d strided", "1d dilated"],
)
def test_a_separable_convolution_is_one_product_after_another(shape, layer):
    layer = type(layer).from_config(layer.get_config())
    model = keras.Sequential([keras.Input(shape), layer])
    first, second = (linear_form(weight) for weight in prunable_weights(model))
    generator = np.random.default_rng(0)
    for variable in layer.weights:
        variable.assign(generator.normal(size=variable.shape))
    inputs = generator.normal(size=(2, *shape)).astype("float32")
    between = np.asarray(first.rows(inputs)) @ first.to_matrix(np.asarray(layer.depthwise_kernel))
    rows = np.asarray(second.rows(inputs))
    np.testing.assert_allclose(between.transpose(1, 0, 2).reshape(rows.shape[1:]), rows[0], atol=1e-5)
    product = rows @ second.to_matrix(np.asarray(layer.pointwise_kernel)) + np.asarray(layer.bias)
    expected = np.asarray(model(inputs))
    np.testing.assert_allclose(product.reshape(expected.shape), expected, atol=1e-5)
    assert (first.has_bias, first.is_last, second.has_bias, second.is_last) == (False, False, True, True)


def test_channels_first_reads_the_same_windows():
    first = L.Conv2D(4, 3, data_format="channels_first")
    last = L.Conv2D(4, 3)
    first.build((None, 2, 6, 6))
    last.build((None, 6, 6, 2))
    inputs = np.random.default_rng(0).normal(size=(2, 6, 6, 2)).astype("float32")
    np.testing.assert_array_equal(
        convolution_form(first).rows(inputs.transpose(0, 3, 1, 2)),
        convolution_form(last).rows(inputs),
    )


def test_windows_of_a_large_image_are_thinned_evenly():
    layer = L.Conv2D(4, 1)
    layer.build((None, 40, 40, 1))
    inputs = np.arange(1600, dtype="float32").reshape(1, 40, 40, 1)
    rows = np.asarray(convolution_form(layer).rows(inputs)).ravel()
    np.testing.assert_array_equal(rows, inputs[0, ::3, ::3, 0].ravel())


@pytest.mark.parametrize("layer", [L.LSTM(3), L.Conv1DTranspose(3, 2), L.GRU(3)], ids=lambda layer: layer.name)
def test_kernels_that_are_used_otherwise_have_no_linear_form(layer):
    model = keras.Sequential([keras.Input((5, 4)), layer])
    assert [linear_form(weight) for weight in prunable_weights(model)] == [None] * len(prunable_weights(model))


def test_a_layer_of_the_users_own_class_has_no_linear_form():
    class Doubled(L.Dense):
        def call(self, inputs):
            return 2 * super().call(inputs)

    model = keras.Sequential([keras.Input((4,)), Doubled(3)])
    assert linear_form(prunable_weights(model)[0]) is None


def test_an_equation_is_parsed_into_the_parts_of_its_letters():
    query = Equation.parse("abc, cde -> abde")
    assert (query.summed, query.shared, query.made, query.free) == ("c", "", "de", "ab")
    heads = Equation.parse("...hc,hcd->...hd")
    assert (heads.summed, heads.shared, heads.made, heads.free) == ("c", "h", "d", "")
    assert Equation.parse("ij,jk").result == ""
    assert Equation.parse("ii->i").repeats_a_letter
    assert not query.repeats_a_letter


@pytest.mark.parametrize(
    ("equation", "expected"),
    [
        ("abc,cd->abd", True),
        ("...x,xy->...y", True),
        ("abcd,cde->abe", True),
        ("abc,cd->adb", False),  # the result is moved
        ("abc,bd->acd", False),  # the sum runs over an axis in the middle
        ("abc,dc->abd", False),  # the kernel is transposed
        ("abc,bcd->abd", False),  # a product for each b
        ("abc,c->ab", False),  # nothing is made
    ],
)
def test_an_equation_knows_whether_it_is_a_product_with_one_matrix(equation, expected):
    assert Equation.parse(equation).is_matrix_product is expected


@pytest.mark.parametrize("name", [name for name in CASES if "einsum" not in name])
def test_a_kernel_has_the_axes_that_its_linear_form_has(name):
    shape, layer = CASES[name]
    layer = type(layer).from_config(layer.get_config())
    layer.build((None, *shape))
    axes = facts_of(layer).kernels["kernel"]
    groups, features, outputs = facts_of(layer).forms["kernel"](layer).shape
    assert groups * outputs == np.prod([layer.kernel.shape[axis] for axis in axes.outputs])
    assert features % (1 if facts_of(layer).is_depthwise else layer.kernel.shape[axes.inputs]) == 0
    assert facts_of(layer).is_depthwise == name.startswith("depthwise")


def test_subclasses_count_as_their_nearest_base_and_what_is_not_described_has_no_facts():
    class Wide(L.Conv2D):
        pass

    class Own(L.Layer):
        pass

    assert facts_of(Wide(3, 1)) is LAYERS[L.Conv2D]
    assert facts_of(Own()).kernels == {}
    assert facts_of(Own()).macs is None


def test_the_configuration_names_the_number_of_outputs_as_the_table_says():
    for layer in (L.Dense(3), L.Conv2D(3, 1), L.Conv1DTranspose(3, 1), L.SeparableConv2D(3, 1), L.Embedding(5, 3)):
        assert layer.get_config()[facts_of(layer).width] == 3
    assert facts_of(L.DepthwiseConv2D(3)).width is None


def test_channels_are_last_unless_they_come_first():
    assert [channel_axis(L.Conv2D(1, 1, data_format=name)) for name in ("channels_last", "channels_first")] == [-1, 1]
    assert channel_axis(L.Dense(1)) == -1
    assert [has_borders(L.Conv2D(1, *args)) for args in ((3, 1, "valid"), (3, 1, "same"), (1, 1, "same"))] == [0, 1, 0]


def test_functions_of_single_entries_are_told_from_those_that_mix():
    assert all(map(is_entrywise, (None, keras.activations.relu, L.ReLU(), L.Activation("gelu"))))
    assert all(map(is_mixing, (keras.activations.softmax, L.Activation("log_softmax"))))
    assert not any(is_entrywise(each) or is_mixing(each) for each in (relu, L.PReLU(), L.Activation(relu)))


def relu(x):
    """Of the user's own, whatever its name says."""
    return x - keras.ops.mean(x)
