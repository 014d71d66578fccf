"""A file with fewer channels everywhere costs what the file of a network built so narrow costs."""

import re

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.errors import PruningError
from tfprune.lite import LiteModel, explain
from tfprune.lite.file.cost import cost_of
from tfprune.lite.file.flatbuffer import operator_name, shape_of
from tfprune.lite.file.narrowing import narrowed


def mobile(width):
    x = inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(width, 3, 2, "same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU(6.0)(x)
    y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
    gate = layers.Conv2D(width // 2, 1, activation="relu")(gate)
    y = layers.Multiply()([y, layers.Conv2D(2 * width, 1, activation="sigmoid")(gate)])
    x = layers.Add()([x, layers.Conv2D(width, 1)(y)])
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


def joined(width):
    x = inputs = keras.Input((16, 16, 4))
    x = layers.Conv2D(width, 3, padding="same", activation="swish")(x)
    x = layers.Concatenate()([x, layers.Conv2D(width, 3, padding="same", groups=2)(x), layers.MaxPooling2D(1)(x)])
    x = layers.ZeroPadding2D(1)(layers.PReLU(shared_axes=[1, 2])(x))
    x = layers.Cropping2D(((1, 0), (0, 1)))(x)
    x = layers.Flatten()(layers.AveragePooling2D(2)(x))
    return keras.Model(inputs, layers.Dense(3)(layers.Dense(2 * width, activation="gelu")(x)))


def upwards(width):
    x = inputs = keras.Input((8, 8, 3))
    down = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
    x = layers.Conv2DTranspose(width, 2, 2)(layers.MaxPooling2D()(down))
    x = layers.UpSampling2D()(layers.MaxPooling2D()(layers.Concatenate()([down, x])))
    return keras.Model(inputs, [layers.Conv2D(2, 1)(x), layers.Conv2D(1, 1, activation="sigmoid")(down)])


def normed(width):
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(width, 4, 4)(x)
    y = layers.Conv2D(width, 3, padding="same", groups=width)(x)
    y = layers.Dense(4 * width, activation="gelu")(layers.LayerNormalization(epsilon=1e-6)(y))
    x = layers.Add()([x, layers.Dense(width)(y)])
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))


def shapes(lite):
    """Each operator with the shapes of what it reads and makes."""
    graph = lite.file.subgraphs[0]

    def read(indices):
        return [shape_of(graph.tensors[index]) for index in indices if index >= 0]

    return [(operator_name(lite.file, each), read(each.inputs), read(each.outputs)) for each in graph.operators]


@pytest.mark.parametrize("quantization", ["float32", "float16", "int8"])
@pytest.mark.parametrize("network", [mobile, joined, upwards, normed])
def test_a_narrowed_file_has_the_operators_of_a_network_built_so_narrow(network, quantization):
    keras.utils.set_random_seed(0)
    data = {} if quantization != "int8" else {"representative_data": np.random.rand(8, *network(8).input_shape[1:])}
    wide, narrow = (tfprune.convert(network(width), quantization, **data) for width in (16, 8))
    found = LiteModel.written(narrowed(wide.content, 0.5))
    assert shapes(found) == shapes(narrow)
    assert cost_of(found.file).macs == cost_of(narrow.file).macs < cost_of(wide.file).macs
    found(np.random.rand(1, *network(8).input_shape[1:]).astype("float32"))  # LiteRT runs it


def in_groups():
    x = inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(6, 3, groups=3, padding="same")(x)
    return keras.Model(inputs, layers.Conv2D(4, 1, groups=2)(x))


def apart():
    x = inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(8, 1)(x)
    return keras.Model(inputs, layers.Conv2D(2, 1)(layers.Reshape((4, 8, 4))(x)))


def turned():
    x = inputs = keras.Input((4, 4, 3))
    return keras.Model(inputs, layers.Dense(2)(layers.Permute((3, 1, 2))(layers.Conv2D(8, 1)(x))))


def some_of_them():
    x = inputs = keras.Input((4, 4, 3))
    return keras.Model(inputs, layers.Conv2D(2, 1)(layers.Conv2D(8, 1)(x)[..., :4]))


def with_the_inputs():
    x = inputs = keras.Input((4, 4, 8))
    return keras.Model(inputs, layers.Conv2D(2, 1)(layers.Add()([x, layers.Conv2D(8, 1)(x)])))


def attending():
    x = inputs = keras.Input((4, 8))
    return keras.Model(inputs, layers.MultiHeadAttention(2, 4)(x, x))


def summed():
    x = inputs = keras.Input((4, 8))
    return keras.Model(inputs, keras.ops.cumsum(layers.Dense(4)(x), axis=-1))


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (in_groups, "3 channels do not make groups of 1"),
        (apart, "RESHAPE takes the channels of (1, 4, 4, 8) apart"),
        (turned, "TRANSPOSE moves the channels to another axis"),
        (some_of_them, "STRIDED_SLICE takes some of the channels"),
        (with_the_inputs, "ADD joins 4 and 8 channels"),
        (attending, "RESHAPE takes the channels of (1, 4, 8) apart"),
        (summed, "channels of CUMSUM cannot be told from the file"),
    ],
)
def test_says_where_channels_cannot_be_told(network, reason):
    lite = tfprune.convert(network())
    with pytest.raises(PruningError, match=re.escape(reason)):
        narrowed(lite.content, 0.5)


def test_why_measures_half_of_the_channels_and_estimates_where_it_cannot():
    measured = explain(tfprune.convert(mobile(16)), runs=3)
    assert measured.halved > 0
    assert f"half of them everywhere take {measured.halved:.3f} ms" in " ".join(str(measured).split())
    assert measured.to_dict()["milliseconds_half_channels"] == measured.halved
    estimated = explain(tfprune.convert(with_the_inputs()), runs=3)
    assert estimated.halved is None
    assert "half of them everywhere would leave about" in " ".join(str(estimated).split())
