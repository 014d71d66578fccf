"""Models as people write them, without get_config: copied with their class, their values and nothing shared."""

import threading
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import tfprune
from tfprune import PruningError
from tfprune.model.copying import clone_with_weights
from tfprune.model.duplicate import duplicate
from tfprune.training.masks import hold

X = np.random.default_rng(0).normal(size=(12, 6)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 12)


class Model(keras.Model):
    """A network whose parts are set by each test class, with three scores at its end."""

    def __init__(self):
        super().__init__()
        self.make()
        self.scores = layers.Dense(3)

    def call(self, x):
        return self.scores(self.body(x))


class Plain(Model):
    def make(self):
        self.hidden = layers.Dense(8, activation="relu")

    def body(self, x):
        return self.hidden(x)


class Ends(NamedTuple):
    first: keras.Layer
    sizes: set[int]


class Listed(Model):
    def make(self):
        self.stack = [layers.Dense(6) for _ in range(3)]
        self.named = {"last": layers.Dense(6), "width": 6}
        self.pair = (layers.Dense(6), "relu")
        self.ends = Ends(layers.Dense(6), {2, 3})

    def body(self, x):
        for layer in [*self.stack, self.named["last"], self.pair[0], self.ends.first]:
            x = x + layer(x)
        return x


class Block(layers.Layer):
    """Makes its parts and a weight of its own, from arguments that no config has."""

    def __init__(self, units, scale=lambda x: 2.0 * x):
        super().__init__()
        self.inner, self.norm, self.scale = layers.Dense(units), layers.BatchNormalization(), scale

    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones", name="gain", constraint="non_neg")
        self.offsets = [self.add_weight(shape=(), name=f"offset_{i}", regularizer="l2") for i in range(2)]

    def call(self, x, training=False):
        return self.norm(self.inner(self.scale(x) * self.gain + sum(self.offsets)), training=training)


class Nested(Model):
    def make(self):
        self.first, self.second = Block(6), Block(6)
        self.again = self.first  # one layer under two names

    def body(self, x):
        return self.again(self.second(self.first(x)))


class AroundGraphs(Model):
    def make(self):
        x = keras.Input((6,))
        self.graph = keras.Model(x, layers.Dense(6)(layers.Dense(5, activation="relu")(x)))
        self.stack = keras.Sequential([layers.Dense(6), layers.Dropout(0.5)])

    def body(self, x):
        return self.stack(self.graph(x))


class OwnMethod(Model):
    def make(self):
        self.hidden = layers.Dense(6)
        self.way = self.through_hidden
        self.table = np.arange(6, dtype="float32")
        self.constant = ops.ones((6,))

    def through_hidden(self, x):
        return self.hidden(x) * self.table + self.constant

    def body(self, x):
        return self.way(x)


class Sequence(Model):
    def make(self):
        self.scaled = layers.Normalization()
        self.scaled.adapt(X)
        self.recurrent = layers.Bidirectional(layers.LSTM(4, return_sequences=True))
        self.cells = layers.RNN([layers.GRUCell(5), layers.SimpleRNNCell(4)], return_sequences=True)
        self.attention = layers.MultiHeadAttention(2, 3)

    def body(self, x):
        x = ops.expand_dims(self.scaled(x), -1)
        x = self.cells(self.recurrent(x))
        return ops.mean(self.attention(x, x), 1)


class OwnStep(Model):
    """A training step, a metric and a seed of its own."""

    def make(self):
        self.hidden, self.mean = layers.Dense(6), keras.metrics.Mean("mean")
        self.noise = keras.random.SeedGenerator(7)

    def body(self, x):
        return self.hidden(x)

    def train_step(self, data):
        found = super().train_step(data)
        self.mean.update_state(ops.sum(self.hidden.bias))
        return {**found, "mean": self.mean.result()}


KINDS = [Plain, Listed, Nested, AroundGraphs, OwnMethod, Sequence, OwnStep]


def made(kind):
    keras.utils.set_random_seed(0)
    model = kind()
    model(X)
    generator = np.random.default_rng(2)
    for variable in model.trainable_variables:
        variable.assign(generator.normal(0.0, 0.5, variable.shape))
    model.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(True), metrics=["accuracy"])
    return model


def answers(model):
    return np.asarray(model(X, training=False))


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def model(request):
    return made(request.param)


def test_a_copy_is_of_the_class_and_answers_alike(model):
    copy = clone_with_weights(model)
    assert type(copy) is type(model) and copy.name == model.name and copy.built and copy.compiled
    np.testing.assert_array_equal(answers(copy), answers(model))
    for old, new in zip(model.variables, copy.variables, strict=True):
        assert (old.path, old.dtype, old.trainable) == (new.path, new.dtype, new.trainable)
        assert type(old.constraint) is type(new.constraint) and type(old.regularizer) is type(new.regularizer)
        np.testing.assert_array_equal(np.asarray(old), np.asarray(new))


def test_what_happens_to_a_copy_does_not_happen_to_the_first(model):
    copy, before, expected = clone_with_weights(model), model.get_weights(), answers(model)
    for variable in copy.variables:
        variable.assign(ops.zeros_like(variable))
    np.testing.assert_array_equal(answers(model), expected)
    assert not answers(copy).any()  # no weight of the first is left in it
    for variable, value in zip(model.weights, before):
        np.testing.assert_array_equal(np.asarray(variable), value)


def test_a_copy_trains_as_the_first(model):
    copy = clone_with_weights(model)
    histories = []
    for one in (model, copy):
        keras.utils.set_random_seed(1)
        histories.append(one.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0).history)
    assert histories[0].keys() == histories[1].keys()
    for old, new in zip(model.trainable_variables, copy.trainable_variables, strict=True):
        np.testing.assert_allclose(np.asarray(old), np.asarray(new), rtol=1e-5, atol=1e-6)


def test_a_copy_of_a_copy_is_one_too(model):
    once = clone_with_weights(model)
    np.testing.assert_array_equal(answers(clone_with_weights(once)), answers(model))


def test_fit_and_strip_and_prune_work_on_a_model_as_people_write_it():
    model = made(Plain)
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[tfprune.PercentilePruning(0.5)])
    plain = tfprune.strip_masks(model)
    assert type(plain) is Plain and plain.hidden is not model.hidden
    assert all(weight.constraint is None for weight in plain.trainable_variables)
    np.testing.assert_array_equal(answers(plain), answers(model))
    pruned = tfprune.prune(model, 0.75)
    assert type(pruned) is Plain and tfprune.summary(pruned).sparsity == 0.75
    assert tfprune.summary(model).sparsity == 0.5


def test_masks_that_are_held_stay_behind_and_the_users_own_constraint_comes_along():
    model = made(Nested)
    own = {variable.path: variable.constraint for variable in model.variables}
    for variable in model.trainable_variables:
        hold(variable, keras.Variable(np.ones(variable.shape, bool), trainable=False))
    copy = clone_with_weights(model)
    assert {variable.path: variable.constraint for variable in copy.variables} == own
    assert any(own.values())


def test_what_is_shared_inside_is_shared_in_the_copy():
    copy = clone_with_weights(made(Nested))
    assert copy.again is copy.first and copy.second is not copy.first
    assert len(copy.variables) == len(made(Nested).variables)


def odd_models():
    class Closure(Plain):
        def make(self):
            super().make()
            hidden = self.hidden
            self.way = lambda x: 2.0 * hidden(x)

        def body(self, x):
            return self.way(x)

    class Lock(Plain):
        def make(self):
            super().make()
            self.lock = threading.Lock()

    class Loose(Plain):
        def build(self, shape):
            self.add_weight(shape=(3,), name="loose")
            super().build(shape)

    class Replaced(Plain):
        def make(self):
            self.hidden = layers.Dense(4)
            super().make()

    return {
        Closure: "its attribute 'way' is a function that holds a layer or a variable",
        Lock: r"its attribute 'lock' \(lock\) cannot be copied: cannot pickle",
        Loose: r"'loose' \(Loose\) has weights or layers that stand in none of its attributes",
        Replaced: r"'replaced' \(Replaced\) has weights or layers that stand in none of its attributes",
    }


ODD = odd_models()


@pytest.mark.parametrize("kind", ODD, ids=lambda kind: kind.__name__)
def test_what_cannot_be_taken_over_is_named_with_the_ways_out(kind):
    model = made(kind)
    before = answers(model)
    with pytest.raises(
        PruningError, match=rf"cannot be rebuilt from its config, and {ODD[kind]}.*Give it get_config\("
    ):
        tfprune.prune(model, 0.5)
    np.testing.assert_array_equal(answers(model), before)


def test_layers_without_a_config_are_copied_in_a_graph_too():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(3)(Block(6, scale=lambda x: 3.0 * x)(inputs)))
    pruned = tfprune.prune(model, 0.5)
    assert tfprune.summary(pruned).sparsity == 0.5 and type(pruned.layers[1]) is Block
    np.testing.assert_array_equal(answers(clone_with_weights(model)), answers(model))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[tfprune.PercentilePruning(0.5)])
    np.testing.assert_array_equal(answers(tfprune.strip_masks(model)), answers(model))


def test_layers_whose_config_says_something_else_are_copied_in_a_graph_with_what_they_share():
    class Scaled(layers.Layer):
        """Scales by a number that its config does not hold, what a layer of others gives."""

        def __init__(self, inner=None, **kwargs):
            super().__init__(**kwargs)
            self.inner, self.factor = inner or layers.Dense(6), 1.0

        def build(self, shape):
            self.inner.build(shape)

        def call(self, x):
            return self.factor * self.inner(x)

        def get_config(self):
            return {"name": self.name}

    inner = Block(6, scale=lambda x: 2.0 * x)
    layer = Scaled(inner, name="scaled")
    layer.factor = 3.0
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(3)(inner(layer(inputs))))
    copy = clone_with_weights(model)
    np.testing.assert_array_equal(answers(copy), answers(model))
    assert copy.get_layer("scaled").inner in copy.layers and len(copy.weights) == len(model.weights)


def test_a_layer_without_a_config_that_wraps_layers_itself_is_named():
    class Wraps(layers.Layer):
        def __init__(self, make):
            super().__init__(name="wraps")
            self.inner = make()

        def call(self, x):
            return self.inner(x)

    inputs = keras.Input((6,))
    layer = Wraps(lambda: tfprune.PrunedLayer(layers.Dense(4), 0.5))
    model = keras.Model(inputs, layers.Dense(3)(layer(inputs)))
    with pytest.raises(PruningError, match="its attribute 'inner' is a wrapper that holds masks"):
        duplicate(layer, clone_with_weights)
    for function in (clone_with_weights, tfprune.strip_masks):
        with pytest.raises(PruningError, match=r"'wraps' \(Wraps\) cannot be rebuilt from its config"):
            function(model)


def test_what_a_layer_of_the_users_calls_history_is_its_own():
    class Remembers(layers.Layer):
        def __init__(self, parts):
            super().__init__()
            self.history = [layers.Dense(6) for _ in range(parts)]

        def call(self, x):
            return sum(part(x) for part in self.history)

    layer = Remembers(2)
    expected = np.asarray(layer(X))
    np.testing.assert_array_equal(np.asarray(duplicate(layer, clone_with_weights)(X)), expected)


def test_a_layer_that_is_duplicated_has_its_class_and_its_values():
    layer = Block(6)
    expected = np.asarray(layer(X))
    copy = duplicate(layer, clone_with_weights)
    assert type(copy) is Block and copy.name == layer.name
    np.testing.assert_array_equal(np.asarray(copy(X)), expected)


class Named(layers.Layer):
    """Keeps another thing under the name of its argument."""

    def __init__(self, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.activation = layers.Activation(activation)
        self.dense = layers.Dense(6)

    def call(self, x):
        return tf.raw_ops.Relu(features=self.dense(self.activation(x)))


class Untold(layers.Layer):
    """Is made of a layer, and does not say so."""

    def __init__(self, made):
        super().__init__()
        self.dense = made

    def call(self, x):
        return tf.raw_ops.Relu(features=self.dense(x))


@pytest.mark.parametrize("make", [lambda: Named("tanh"), lambda: Untold(layers.Dense(6))], ids=["another", "none"])
def test_closed_layers_that_keep_their_sizes_come_along_in_the_smaller_model(make):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(8, activation="relu")(make()(inputs))))
    pruned = tfprune.prune(model, tfprune.Structured(0.5), verbose=0)
    small = tfprune.shrink(pruned)
    assert small.count_params() < model.count_params()
    np.testing.assert_allclose(small(X), pruned(X), atol=1e-6)
    assert not {id(variable) for variable in small.variables} & {id(variable) for variable in pruned.variables}


def test_a_layer_that_stands_in_a_sequential_part_and_beside_it_is_one_in_the_copy():
    class Encoder(Plain):
        def make(self):
            self.hidden = Untold(layers.Dense(6))
            self.encoder = keras.Sequential([self.hidden, layers.Dense(4)])

        def body(self, x):
            return self.encoder(x)

    model = made(Encoder)
    copy = clone_with_weights(model)
    assert copy.hidden is copy.encoder.layers[0] and copy.hidden is not model.hidden
    np.testing.assert_array_equal(answers(copy), answers(model))
