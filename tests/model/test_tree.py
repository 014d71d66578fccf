import keras
import numpy as np
import pytest
from keras import layers
from test_copying import Plain, dense_model

from tfprune.errors import PruningError
from tfprune.model.tree import as_array, check_model, children, named_weights, own_weights, places

# Checking


def test_a_keras_2_model_is_told_how_to_come_over():
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))], name="old")
    with pytest.raises(
        PruningError,
        match=r"Cannot prune 'old': it is a Keras 2 model \(tf_keras, .*model = tfprune.from_tfmot\(model\)",
    ):
        check_model(model, "prune")


@pytest.mark.parametrize("wrong", ["model.keras", None, layers.Dense(3), np.zeros(3)])
def test_what_is_no_model_is_refused(wrong):
    with pytest.raises(PruningError, match=rf"Cannot strip {type(wrong).__name__}: give a keras.Model \(Keras 3"):
        check_model(wrong, "strip")


@pytest.mark.parametrize("model", [keras.Sequential([layers.Dense(3)], name="raw"), Plain(name="raw")], ids=type)
def test_a_model_without_weights_yet_is_told_how_to_get_them(model):
    with pytest.raises(PruningError, match=r"Cannot prune 'raw': it is not built yet, .* model.build\(\(None, ...\)\)"):
        check_model(model, "prune")


def test_a_built_model_comes_back_as_it_is():
    model = dense_model()
    assert check_model(model, "prune") is model


# Walking


def test_layers_inside_a_composite_layer_are_found():
    # Reads a private hook of Keras: fails when Keras moves it.
    attention = layers.MultiHeadAttention(2, 3)
    attention.build((None, 4, 6), (None, 4, 6))
    found = [layer.name for layer in children(attention)]
    assert {"query", "key", "value", "attention_output"} <= set(found)
    lstm = layers.LSTM(2, name="lstm")
    assert children(lstm) == [lstm.cell] and children(lstm.cell) == []
    both = layers.Bidirectional(lstm)
    assert children(both) == [both.forward_layer, both.backward_layer]


def test_places_come_parents_first_with_their_owners():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="dense")], name="inner")
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(2, name="head")])
    found = list(places(model))
    assert [place.path for place in found] == ["inner", "inner/dense", "head"]
    assert found[1].owners == (inner, inner.layers[0]) and found[1].layer is inner.layers[0]


def test_a_layer_that_two_models_share_has_one_place():
    shared = layers.Dense(4, name="shared")
    one = keras.Sequential([keras.Input((4,)), shared], name="one")
    two = keras.Sequential([keras.Input((4,)), shared], name="two")
    x = keras.Input((4,))
    model = keras.Model(x, two(one(x)))
    assert [place.path for place in places(model) if place.layer is shared] == ["one/shared"]


def test_own_weights_are_those_of_no_layer_inside():
    class Gated(layers.Layer):
        def build(self, shape):
            self.gate = self.add_weight(shape=(3,), name="gate")
            self.dense = layers.Dense(3)
            self.dense.build(shape)
            self.built = True

    layer = Gated()
    layer.build((None, 4))
    assert [weight.name for weight in own_weights(layer)] == ["gate"]
    assert len(layer.weights) == 3


def test_weights_of_one_name_in_a_layer_get_names_of_their_own():
    class Two(layers.Layer):
        def build(self, shape):
            self.a = self.add_weight(shape=(3,), name="table")
            self.b = self.add_weight(shape=(3,), name="table")
            self.built = True

    layer = Two()
    layer.build((None, 3))
    assert [name for name, _ in named_weights(layer)] == ["table", "table_1"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_arrays_on_the_host_are_of_a_precision_that_numpy_can_sort(dtype):
    array = as_array(keras.Variable([1.5, -0.25], dtype=dtype))
    assert array.tolist() == [1.5, -0.25] and array.dtype == ("float64" if dtype == "float64" else "float32")
