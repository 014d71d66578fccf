"""Small models of every kind that can be pruned, each with a batch of inputs; `MODELS` lists them by name."""

import keras
import numpy as np
from keras import layers


@keras.saving.register_keras_serializable(package="tfprune_tests")
class Mixing(layers.Layer):
    """A layer of the user's own class with two matrices and a bias, pruned only when it is named."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.mix = self.add_weight(shape=(shape[-1], self.units), name="mix")
        self.back = self.add_weight(shape=(self.units, shape[-1]), name="back")
        self.shift = self.add_weight(shape=(self.units,), initializer="zeros", name="shift")

    def call(self, inputs):
        return keras.ops.matmul(keras.ops.tanh(keras.ops.matmul(inputs, self.mix) + self.shift), self.back)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="tfprune_tests")
class Block(layers.Layer):
    """A layer made of layers without names, built when it is first called; it has no build() of its own."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = layers.Dense(units, activation="relu")
        self.rest = [layers.Dense(units), layers.Dense(units)]

    def call(self, inputs):
        x = self.first(inputs)
        for layer in self.rest:
            x = layer(x)
        return x

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="tfprune_tests")
class Perceptron(keras.Model):
    """A subclassed model that Keras can rebuild from its arguments."""

    def __init__(self, units=8, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = layers.Dense(units, activation="relu")
        self.head = layers.Dense(3)

    def build(self, shape):
        self.hidden.build(shape)
        self.head.build((*shape[:-1], self.units))
        self.built = True

    def call(self, inputs):
        return self.head(self.hidden(inputs))

    def get_config(self):
        return {"units": self.units, "name": self.name}


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tokens(*shape, below=10):
    return np.random.default_rng(0).integers(0, below, shape)


def dense():
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, activation="relu", name="hidden"), layers.Dense(3, name="head")]
    ), numbers(8, 6)


def convolutional():
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.SeparableConv2D(5, 3, name="separable"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, name="head"),
        ]
    ), numbers(4, 8, 8, 2)


def transposed():
    return keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            layers.Conv2DTranspose(4, 3, strides=2, name="up"),
            layers.Conv2D(2, 3, name="conv"),
            layers.Flatten(),
            layers.Dense(3, name="head"),
        ]
    ), numbers(4, 4, 4, 3)


def one_dimensional():
    return keras.Sequential(
        [
            keras.Input((8, 3)),
            layers.Conv1D(4, 3, name="conv"),
            layers.SeparableConv1D(4, 3, name="separable"),
            layers.DepthwiseConv1D(2, name="depthwise"),
            layers.Conv1DTranspose(2, 2, name="up"),
            layers.Flatten(),
            layers.Dense(3, name="head"),
        ]
    ), numbers(4, 8, 3)


def volumetric():
    return keras.Sequential(
        [
            keras.Input((4, 4, 4, 2)),
            layers.Conv3D(3, 2, name="conv"),
            layers.Conv3DTranspose(2, 2, name="up"),
            layers.GlobalAveragePooling3D(),
            layers.Dense(3, name="head"),
        ]
    ), numbers(4, 4, 4, 4, 2)


def recurrent():
    return keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            layers.Embedding(10, 6, mask_zero=True, name="embedding"),
            layers.Bidirectional(layers.LSTM(4, return_sequences=True, name="lstm"), name="both"),
            layers.GRU(4, return_sequences=True, name="gru"),
            layers.SimpleRNN(4, name="simple"),
            layers.Dense(3, name="head"),
        ]
    ), tokens(4, 3)


def stacked_cells():
    cells = [layers.LSTMCell(4, name="first"), layers.GRUCell(4, name="second"), layers.SimpleRNNCell(4, name="third")]
    return keras.Sequential(
        [
            keras.Input((3, 3)),
            layers.RNN(layers.StackedRNNCells(cells, name="cells"), name="stack"),
            layers.Dense(3, name="head"),
        ]
    ), numbers(4, 3, 3)


def convolutional_recurrent():
    return keras.Sequential(
        [
            keras.Input((3, 4, 4, 2)),
            layers.ConvLSTM2D(3, 2, name="convlstm"),
            layers.Flatten(),
            layers.Dense(3, name="head"),
        ]
    ), numbers(4, 3, 4, 4, 2)


def attention():
    inputs = keras.Input((3,), dtype="int32")
    x = layers.Embedding(10, 8, mask_zero=True, name="embedding")(inputs)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x, use_causal_mask=True)
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.GlobalAveragePooling1D()(x))), tokens(4, 3)


def contracted():
    return keras.Sequential(
        [
            keras.Input((5, 6)),
            layers.EinsumDense("abc,cd->abd", (None, 6), bias_axes="d", name="einsum"),
            layers.TimeDistributed(layers.Dense(4, name="dense"), name="each"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3, name="head"),
        ]
    ), numbers(4, 5, 6)


def nested():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(6, name="dense")], name="inner")
    inputs = keras.Input((6,))
    backbone_inputs = keras.Input((6,))
    x = layers.Dense(6, activation="relu", name="dense")(backbone_inputs)
    backbone = keras.Model(backbone_inputs, inner(x) + x, name="backbone")
    return keras.Model(inputs, layers.Dense(3, name="head")(backbone(inputs))), numbers(8, 6)


def siamese():
    first, second = keras.Input((6,), name="first"), keras.Input((6,), name="second")
    shared = layers.Dense(8, activation="relu", name="shared")
    tower = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="dense")], name="tower")
    difference = keras.ops.absolute(tower(shared(first)) - tower(shared(second)))
    model = keras.Model([first, second], layers.Dense(3, name="head")(difference))
    return model, [numbers(8, 6), numbers(8, 6, seed=1)]


def own_layers():
    inputs = keras.Input((6,))
    x = Mixing(5, name="mixing")(inputs)
    return keras.Model(inputs, layers.Dense(3, name="head")(Block(4, name="block")(x))), numbers(8, 6)


def subclass_inside():
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(3, name="head")(Perceptron(name="inside")(inputs))), numbers(8, 6)


def subclassed():
    model = Perceptron(name="perceptron")
    model.build((None, 6))
    return model, numbers(8, 6)


GRAPHS = {
    builder.__name__: builder
    for builder in (
        dense,
        convolutional,
        transposed,
        one_dimensional,
        volumetric,
        recurrent,
        stacked_cells,
        convolutional_recurrent,
        attention,
        contracted,
        nested,
        siamese,
        own_layers,
        subclass_inside,
    )
}
MODELS = {**GRAPHS, "subclassed": subclassed}


def make(name, seed=0, **compile_arguments):
    """A compiled model by name, its inputs and targets; the same weights at each call with the same seed."""
    keras.utils.set_random_seed(seed)
    model, inputs = MODELS[name]()
    # XLA compiles for seconds what trains here in milliseconds; tests that are about it ask for it.
    settings = {"optimizer": keras.optimizers.SGD(0.1), "loss": "mse", "jit_compile": False, **compile_arguments}
    model.compile(**settings)
    samples = len(inputs[0]) if isinstance(inputs, list) else len(inputs)
    return model, inputs, numbers(samples, 3, seed=2)


@keras.saving.register_keras_serializable("tfprune_tests")
class TellsTooMuch(layers.Layer):
    """Its config holds what follows from the arguments too, as KerasHub's patch embeddings."""

    def __init__(self, width, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.width, self.dense = width, layers.Dense(width)
        self.halved = scale / 2  # what it was given is told nowhere

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.halved * self.dense(x)

    def get_config(self):
        return {**super().get_config(), "width": self.width, "twice": 2 * self.width}


@keras.saving.register_keras_serializable("tfprune_tests")
class Network(keras.Model):
    """A functional model by arguments, with a tuple among its attributes, as KerasHub's backbones."""

    def __init__(self, sizes=(5, 6), **kwargs):
        inputs = keras.Input((sizes[0],))
        x = layers.Dense(8, activation="relu")(TellsTooMuch(sizes[1], 3.0, name="patches")(inputs))
        super().__init__(inputs, layers.Dense(2)(x), **kwargs)
        self.sizes, self.names = tuple(sizes), {"patches", "dense"}

    def get_config(self):
        return {"sizes": self.sizes, "name": self.name}
