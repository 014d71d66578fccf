"""Layers whose config does not build them, in models that Keras saves all the same."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from tiny_models import Network, TellsTooMuch

import tfprune
from tfprune.errors import PruningError
from tfprune.model.fresh import fresh_layer


@keras.saving.register_keras_serializable("tfprune_tests")
class TakesAFunction(layers.Layer):
    """Has no config, since Keras makes none for an argument that is a function."""

    def __init__(self, function, width=4, **kwargs):
        super().__init__(**kwargs)
        self._function, self.width = function, width

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.width), name="kernel")

    def call(self, x):
        return self._function(ops.matmul(x, self.kernel))


class FitsWhatItReads(layers.Layer):
    """Rounds what it loads, as position tables that are fitted to a size of image."""

    def build(self, shape):
        self.table = self.add_weight(shape=(shape[-1],), initializer="normal", name="table")

    def call(self, x):
        return x + self.table

    def load_own_variables(self, store):
        self.table.assign(np.round(np.asarray(store["0"]), 2))


def twice(x):
    return 2.0 * x


X = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")


@pytest.mark.parametrize(
    "layer",
    [TakesAFunction(twice, 3), layers.Identity(dtype=keras.DTypePolicy("float32"))],
    ids=["no config", "no config by a dtype policy"],
)
def test_a_layer_is_made_again_by_the_arguments_of_its_class(layer):
    expected = np.asarray(layer(X))
    made = fresh_layer(layer)
    assert made is not layer and made.name == layer.name and not {*map(id, made.weights)} & {*map(id, layer.weights)}
    made(X)
    made.set_weights(layer.get_weights())
    np.testing.assert_array_equal(np.asarray(made(X)), expected)


def test_a_function_of_keras_that_has_the_name_of_another_stays_itself():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(6, activation=ops.gelu), layers.Dense(3)])
    masked = tfprune.prune(model, tfprune.Structured(0.3))
    assert masked.layers[0].activation is ops.gelu  # by its config it would be keras.activations.gelu
    small = tfprune.shrink(masked)
    assert small.count_params() < model.count_params()
    np.testing.assert_allclose(np.asarray(small(X)), np.asarray(masked(X)), atol=1e-6)
    assert tfprune.quantize_aware(model)(X).shape == (3, 3)


def test_a_regularizer_of_the_users_that_has_the_name_of_one_of_keras_stays_itself():
    class OrthogonalRegularizer(keras.regularizers.Regularizer):  # Keras has another one
        def __init__(self, amount):
            self.amount = amount

        def __call__(self, x):
            return self.amount * ops.sum(ops.square(x))

        def get_config(self):
            return {"amount": self.amount}

    model = keras.Sequential([keras.Input((5,)), layers.Dense(6, kernel_regularizer=OrthogonalRegularizer(0.1))])
    assert type(fresh_layer(model.layers[0]).kernel_regularizer) is OrthogonalRegularizer
    assert tfprune.quantize_aware(model)(X).shape == (3, 6)


def test_no_default_stands_for_an_argument_that_is_nowhere():
    with pytest.raises(PruningError, match=r"\(TellsTooMuch\) cannot be rebuilt from its config"):
        fresh_layer(TellsTooMuch(6, 3.0))


def test_a_layer_whose_arguments_are_nowhere_is_named():
    class Forgets(TakesAFunction):
        def __init__(self, function, **kwargs):
            super().__init__(twice, **kwargs)
            del self._function
            self.other = function

    with pytest.raises(PruningError, match=r"'it' \(Forgets\) cannot be rebuilt from its config: .*Give its class a"):
        made = Forgets(twice, name="it")
        made.build((None, 5))
        fresh_layer(made)


def test_a_network_by_arguments_is_pruned_whatever_its_layers_say():
    model = Network()
    masked = tfprune.prune(model, tfprune.Structured(0.3))
    assert type(masked) is Network and masked.sizes == (5, 6) and masked.names == {"patches", "dense"}
    small = tfprune.shrink(masked)
    assert small.count_params() < model.count_params()
    np.testing.assert_allclose(np.asarray(small(X)), np.asarray(masked(X)), atol=1e-6)


def test_a_class_that_alters_what_it_loads_gets_the_weights_as_they_are():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layers.Dense(3)(FitsWhatItReads()(inputs)))
    masked = tfprune.prune(model, tfprune.Percentile(0.5))
    np.testing.assert_array_equal(np.asarray(masked.layers[1].table), np.asarray(model.layers[1].table))
