"""Models are opened in one thread while others build and train: neither notices."""

import threading

import keras
import numpy as np
from keras import layers

import tfprune

ROWS = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")


class Network(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [layers.Dense(6, activation="relu", name=f"block_{number}") for number in range(6)]
        self.scores = layers.Dense(3, name="scores")

    def call(self, inputs):
        x = inputs
        for block in self.blocks:
            x = block(x) + x
        return self.scores(x)


def trained(seed):
    """The weights of a small network after some steps, drawn from initializers with seeds of their own."""
    kernels = [keras.initializers.GlorotUniform(seed + number) for number in range(2)]
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4, "relu", kernel_initializer=kernels[0])])
    model.add(layers.Dense(1, kernel_initializer=kernels[1]))
    model.compile("sgd", "mse")
    for _ in range(4):
        model.train_on_batch(ROWS, ROWS[:, :1])
    return model.get_weights()


def test_a_model_is_opened_while_others_train():
    wanted = [trained(seed) for seed in range(3)]
    network = Network()
    network(ROWS)
    found, raised = {}, []

    def train(seed):
        try:
            found[seed] = trained(seed)
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=train, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    opened = [tfprune.inline(network) for _ in range(8)]
    for thread in threads:
        thread.join()
    assert raised == []
    for seed, weights in enumerate(wanted):
        for one, other in zip(weights, found[seed], strict=True):
            np.testing.assert_array_equal(one, other)
    for model in opened:
        assert not any(layer.name.startswith("dense") for layer in model.layers)
        np.testing.assert_allclose(model(ROWS).numpy(), network(ROWS).numpy(), rtol=1e-6)
