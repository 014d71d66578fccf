"""Small Keras models with random weights and zeros, for the tests of conversion."""

import keras
import numpy as np
from keras import layers

SPARSITY = 0.6


def punch(model, seed=0):
    """Gives every kernel zeros and every batch norm statistics of its own; returns the model."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.dtype not in ("float32", "float16", "bfloat16"):
            continue
        if len(weight.shape) >= 2:
            values = (
                generator.normal(size=weight.shape) * np.sqrt(weight.shape[-1] / np.prod(weight.shape)) / (1 - SPARSITY)
            )
            weight.assign(np.where(generator.random(weight.shape) < SPARSITY, 0.0, values))
        elif weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
        else:
            weight.assign(generator.normal(0, 0.1, weight.shape))
    return model


def convolutional():
    """Convolutions of every kind, each with a batch norm or a residual after it."""
    image = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = before = layers.ReLU(name="stem_relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.BatchNormalization(name="depthwise_norm")(x)
    x = layers.SeparableConv2D(8, 3, padding="same", name="separable")(x)
    x = layers.Conv2DTranspose(8, 3, padding="same", name="transposed")(x)
    x = layers.Add(name="add")([x, before])
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(32, activation="relu", name="hidden")(x)
    return punch(keras.Model(image, layers.Dense(5, activation="softmax", name="scores")(x), name="convolutional"))


def two_inputs():
    """Inputs whose order is not alphabetical, outputs neither."""
    zeta = keras.Input((8,), name="zeta")
    alpha = keras.Input((4,), name="alpha")
    x = layers.Concatenate()([layers.Dense(6, activation="tanh")(zeta), layers.Dense(3)(alpha)])
    outputs = [layers.Dense(3, name="second")(x), layers.Dense(2, name="first")(x)]
    return punch(keras.Model([zeta, alpha], outputs, name="two_inputs"))


def dict_inputs():
    """Inputs and outputs in dicts."""
    image = keras.Input((6, 6, 1), name="image")
    length = keras.Input((1,), name="length")
    x = layers.Concatenate()([layers.Flatten()(layers.Conv2D(2, 3)(image)), length])
    outputs = {"size": layers.Dense(1)(x), "kind": layers.Dense(4, activation="softmax")(x)}
    return punch(keras.Model({"length": length, "image": image}, outputs, name="dict_inputs"))


def single_dense():
    return punch(keras.Sequential([keras.Input((8,), name="values"), layers.Dense(16, name="dense")]))


def recurrent(cell=layers.LSTM, **options):
    return punch(keras.Sequential([keras.Input((5, 4), name="series"), cell(6, **options), layers.Dense(3)]))


def embedding(dtype="int32"):
    return punch(
        keras.Sequential(
            [
                keras.Input((7,), dtype=dtype, name="tokens"),
                layers.Embedding(300, 8, name="table"),
                layers.GlobalAveragePooling1D(),
                layers.Dense(2, name="scores"),
            ]
        )
    )


def attention():
    x = tokens = keras.Input((6, 8), name="tokens")
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.Add()([layers.MultiHeadAttention(2, 4, name="attention")(x, x), tokens])
    x = layers.Dense(8, activation="gelu")(x)
    return punch(keras.Model(tokens, layers.GlobalAveragePooling1D(name="mean")(x), name="attention"))


class Subclassed(keras.Model):
    """A model that computes in its own `call`, without a `training` argument, and answers in a dict."""

    def __init__(self):
        super().__init__(name="subclassed")
        self.inner = layers.Dense(6, activation="relu")
        self.outer = layers.Dense(2)

    def call(self, features):
        hidden = self.inner(features)
        return {"scores": self.outer(hidden), "hidden": hidden}


def subclassed():
    model = Subclassed()
    model(np.zeros((2, 5), np.float32))
    return punch(model)


class TwoArguments(keras.Model):
    """A model whose `call` takes two tensors."""

    def __init__(self):
        super().__init__(name="two_arguments")
        self.inner = layers.Dense(3)

    def build(self, left_shape, right_shape):
        self.inner.build(left_shape)

    def call(self, left, right):
        return self.inner(left) - right


def two_arguments():
    model = TwoArguments()
    model(np.zeros((2, 5), np.float32), np.zeros((2, 3), np.float32))
    return punch(model)


class TakesDict(keras.Model):
    """A subclassed model that takes a dict."""

    def __init__(self):
        super().__init__(name="takes_dict")
        self.inner = layers.Dense(3)

    def call(self, inputs):
        return self.inner(inputs["wide"]) + inputs["narrow"]


def takes_dict():
    model = TakesDict()
    model({"wide": np.zeros((2, 5), np.float32), "narrow": np.zeros((2, 3), np.float32)})
    return punch(model)


def nested():
    image = keras.Input((12, 12, 3), name="picture")
    backbone = keras.Sequential(
        [keras.Input((12, 12, 3)), layers.Conv2D(4, 3, activation="relu"), layers.GlobalAveragePooling2D()],
        name="backbone",
    )
    x = layers.Concatenate()([backbone(image), backbone(1.0 - image)])
    return punch(keras.Model(image, layers.Dense(3, name="head")(x), name="nested"))


def mixed_precision():
    policy = "mixed_float16"
    return punch(
        keras.Sequential(
            [
                keras.Input((8, 8, 3), name="image"),
                layers.Conv2D(4, 3, use_bias=False, dtype=policy, name="conv"),
                layers.BatchNormalization(dtype=policy),
                layers.ReLU(dtype=policy),
                layers.GlobalAveragePooling2D(dtype=policy),
                layers.Dense(3, dtype=policy, name="scores"),
            ]
        )
    )


EVERY = {
    "convolutional": convolutional,
    "two_inputs": two_inputs,
    "dict_inputs": dict_inputs,
    "lstm": recurrent,
    "gru": lambda: recurrent(layers.GRU),
    "gru_reset_before": lambda: recurrent(layers.GRU, reset_after=False),
    "simple_rnn": lambda: recurrent(layers.SimpleRNN),
    "embedding": embedding,
    "float_tokens": lambda: embedding("float32"),
    "attention": attention,
    "subclassed": subclassed,
    "two_arguments": two_arguments,
    "takes_dict": takes_dict,
    "nested": nested,
    "mixed_precision": mixed_precision,
}


def samples_for(inputs, count=40, seed=1):
    """Random data for the inputs that `signature_of` reads, by name."""
    generator = np.random.default_rng(seed)

    def array(given):
        shape = (count, *(size or 9 for size in given.shape[1:]))
        if given.name == "tokens" and len(shape) == 2:
            return generator.integers(0, 300, shape).astype(given.dtype)
        return generator.normal(size=shape).astype(given.dtype)

    return {given.name: array(given) for given in inputs}
