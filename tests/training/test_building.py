"""Models that have no weights before `fit` builds them, with every callback that prunes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfprune
from tfprune.errors import PruningError

X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
Y = X[:, :2]


class Plain(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = layers.Dense(8, activation="relu"), layers.Dense(2)
        self.norm = layers.BatchNormalization()

    def call(self, x):
        return self.out(self.norm(self.hidden(x)))


def sequential():
    return keras.Sequential([layers.Dense(8, activation="relu"), layers.Dropout(0.1), layers.Dense(2)])


def compiled(make):
    model = make()
    model.compile(keras.optimizers.SGD(0.01), "mse")
    assert not model.built
    return model


CALLBACKS = [
    lambda: tfprune.PercentilePruning(0.5),
    lambda: tfprune.PercentilePruning(tfprune.Constant(0.5)),
    lambda: tfprune.ThresholdPruning(tfprune.Constant(0.05)),
    lambda: tfprune.StructuredPruning(0.5),
    lambda: tfprune.PruningCallback(tfprune.Percentile(0.5)),
    lambda: tfprune.IterativePruning(tfprune.Percentile(0.5), rounds=2),
    lambda: tfprune.DynamicSurgery(0.5),
    lambda: tfprune.RigL(0.5),
    lambda: tfprune.ProximalSparsity(tfprune.Percentile(0.5)),
]


@pytest.mark.parametrize("make", [sequential, Plain])
@pytest.mark.parametrize("callback", CALLBACKS, ids=range(len(CALLBACKS)))
def test_a_model_that_fit_builds_is_pruned_from_its_first_step(make, callback):
    model = compiled(make)
    history = model.fit(X, Y, batch_size=2, epochs=2, verbose=0, callbacks=[callback()])
    assert history.history["sparsity"][-1] > 0.0
    assert tfprune.get_masks(model)


def test_a_dataset_is_read_without_being_used_up():
    model, seen = compiled(Plain), []
    counts = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    model.fit(data, epochs=1, verbose=0, callbacks=[tfprune.PercentilePruning(0.5), counts])
    assert seen == [0, 1]


def test_a_generator_is_left_to_fit_and_the_way_out_is_said():
    model = compiled(Plain)
    with pytest.raises(PruningError, match=r"not built yet.*Call it once on data"):
        model.fit(((X, Y) for _ in range(2)), verbose=0, callbacks=[tfprune.PercentilePruning(0.5)])
