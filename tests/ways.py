"""Every callback and the wrapper, and a small network to train with them."""

import keras
import numpy as np
import pytest
from keras import layers

import tfprune

WAYS = {
    "percentile": lambda: tfprune.PercentilePruning(0.5),
    "threshold": lambda: tfprune.ThresholdPruning(0.3),
    "structured": lambda: tfprune.StructuredPruning(0.5),
    "iterative": lambda: tfprune.IterativePruning(0.5, rounds=2, rewind=0.0),
    "surgery": lambda: tfprune.DynamicSurgery(0.5),
    "rigl": lambda: tfprune.RigL(0.5),
    "proximal": lambda: tfprune.ProximalSparsity(0.5),
    "movement": lambda: tfprune.PercentilePruning(0.5, criterion="movement"),
    "wrapper": tfprune.UpdateMasks,
}
NUMBERS = np.random.default_rng(0)
X, Y = NUMBERS.normal(size=(16, 6)).astype("float32"), NUMBERS.normal(size=(16, 3)).astype("float32")
every_way = pytest.mark.parametrize("way", WAYS)


def network():
    keras.utils.set_random_seed(0)
    hidden = layers.Dense(8, activation="relu", name="hidden")
    model = keras.Sequential([keras.Input((6,)), hidden, layers.Dense(3, name="head")])
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model


def prepared(way, model=None):
    model = network() if model is None else model
    return tfprune.wrap(model, tfprune.Percentile(0.5)) if way == "wrapper" else model, WAYS[way]()


def trained(model, callbacks, epochs=3, x=X, **arguments):
    return model.fit(x, Y, batch_size=4, epochs=epochs, verbose=0, callbacks=callbacks, **arguments)


def zeros(model):
    return {key: int(np.count_nonzero(~mask)) for key, mask in tfprune.get_masks(model).items() if "kernel" in key}


def values(model):
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]
