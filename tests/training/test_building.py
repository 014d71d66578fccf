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


class Halves(keras.Model):
    """Two models that a training step calls one after the other, and nobody calls together."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.second(self.first(data[0])) - data[1]))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights))
        return {"loss": loss}


def halves(width=8):
    first = keras.Sequential([keras.Input((6,)), layers.Dense(width, activation="relu"), layers.Dense(width)])
    return first, keras.Sequential([keras.Input((width,)), layers.Dense(2)])


def test_a_model_of_parts_that_its_step_calls_is_pruned_and_stripped():
    model = Halves(*halves())
    model.compile(keras.optimizers.SGD(0.01))
    model.fit(X, Y, batch_size=2, epochs=2, verbose=0, callbacks=[tfprune.PercentilePruning(0.5)])
    zeros = [np.mean(np.asarray(layer.kernel) == 0) for layer in (*model.first.layers, *model.second.layers)]
    assert min(zeros) > 0.0 and tfprune.summary(model).totals()["sparsity"] > 0.4
    plain = tfprune.strip_masks(model)
    assert type(plain) is Halves
    np.testing.assert_array_equal(np.asarray(plain.first(X)), np.asarray(model.first(X)))
    assert tfprune.get_masks(tfprune.prune(Halves(*halves()), 0.5))


def test_masks_of_channels_on_a_part_are_held_while_the_whole_is_trained():
    first, second = halves()
    masked = tfprune.prune(first, tfprune.Structured(0.5))
    model = Halves(masked, second)
    model.compile(keras.optimizers.SGD(0.01))
    model.fit(X, Y, batch_size=2, verbose=0)
    small = tfprune.shrink(tfprune.strip_masks(masked))
    assert small.count_params() < first.count_params()
    np.testing.assert_allclose(np.asarray(small(X)), np.asarray(masked(X)), atol=1e-6)
    said = r"'halves\w*' \(Halves\) has no call\(\) of its own.*Give one of them"
    with pytest.raises(PruningError, match=said):
        model.fit(X, Y, verbose=0, callbacks=[tfprune.StructuredPruning(0.5)])


def test_parts_without_weights_and_a_call_on_other_data_are_named():
    first, _ = halves()
    model = Halves(first, keras.Sequential([layers.Dense(2)]))
    model.compile(keras.optimizers.SGD(0.01))
    with pytest.raises(PruningError, match=r"not built yet.*give its parts an Input each"):
        model.fit(X, Y, verbose=0, callbacks=[tfprune.PercentilePruning(0.5)])
    other = compiled(Plain)
    with pytest.raises(PruningError, match=r"\(Plain\) has no weights yet, and cannot be called on what fit was given"):
        other.fit({"a": X, "b": X}, Y, verbose=0, callbacks=[tfprune.PercentilePruning(0.5)])
