"""Copies are read from their files, also where the classes of their layers do not read what they write."""

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.model.copying import copy_model
from tfprune.model.fresh import fresh_layer


@keras.saving.register_keras_serializable(package="tfprune_tests")
class Tuples(layers.Layer):
    """A layer whose build takes tuples alone, and that keeps a variable under the name of its argument."""

    def __init__(self, scale, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def build(self, input_shape):
        if not isinstance(input_shape, tuple):
            raise TypeError(f"a tuple is wanted, not {type(input_shape).__name__}")
        if not isinstance(self.scale, (float, list, np.ndarray)):
            raise TypeError(f"a number is wanted, not {type(self.scale).__name__}")
        value = keras.initializers.Constant(self.scale)
        self.scale = self.add_weight(shape=(1,), initializer=value, trainable=False, name="scale")
        self.offset = self.add_weight(shape=(input_shape[-1],), name="offset")

    def call(self, x):
        return x * self.scale + self.offset

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


@keras.saving.register_keras_serializable(package="tfprune_tests")
class NetworkOfTuples(keras.Model):
    """A functional network made by an argument of its own: its file does not write its layers."""

    def __init__(self, width, **kwargs):
        x = keras.Input((6,))
        y = layers.Dense(width, activation="relu", name="first")(x)
        y = layers.Dense(width, activation="relu", name="second")(Tuples(0.5, name="tuples")(y))
        super().__init__(x, layers.Dense(3, name="last")(y), **kwargs)
        self.width = width
        self.noise = keras.random.SeedGenerator(1)  # which no layer holds

    def get_config(self):
        return {"width": self.width, "name": self.name}


def loaded(model, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def wrapped(model):
    return tfprune.wrap(model, tfprune.Percentile(0.5))


COPIES = {
    "wrapped": wrapped,
    "stripped": lambda model: tfprune.strip_masks(wrapped(model)),
    "shrunk": lambda model: tfprune.shrink(tfprune.prune(model, tfprune.Structured(0.3))),
    "opened": tfprune.inline,
}


@pytest.mark.filterwarnings("ignore:tfprune. 'net' is of class:UserWarning", "ignore:'net' is of class:UserWarning")
@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_read_from_its_file(name, tmp_path):
    model = NetworkOfTuples(8, name="net")
    model.get_layer("tuples").offset.assign(np.arange(8.0))
    x = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    np.testing.assert_array_equal(model(x), loaded(model, tmp_path)(x))
    copy = COPIES[name](model)
    again = loaded(copy, tmp_path)
    np.testing.assert_array_equal(copy(x), again(x))
    assert [tuple(v.shape) for v in again.weights] == [tuple(v.shape) for v in copy.weights]


@pytest.mark.filterwarnings("ignore:tfprune. 'net' is of class:UserWarning", "ignore:'net' is of class:UserWarning")
def test_a_network_that_holds_variables_itself_is_of_its_class_again(tmp_path):
    model = NetworkOfTuples(8, name="net")
    model.noise.state.assign([7, 9])
    plain = tfprune.strip_masks(wrapped(model))
    assert type(plain) is NetworkOfTuples
    np.testing.assert_array_equal(plain.noise.state, [7, 9])
    again = loaded(loaded(plain, tmp_path), tmp_path)
    np.testing.assert_array_equal(plain(np.ones((2, 6))), again(np.ones((2, 6))))


def test_a_copy_of_a_copy_says_what_it_is_itself(tmp_path):
    """The methods that are exchanged are those of the copy, not of the layer that it was made of."""
    with pytest.warns(UserWarning, match="plain functional model"):
        stripped = copy_model(NetworkOfTuples(8, name="net"), fresh_layer)
    opened = tfprune.inline(keras.Sequential([keras.Input((6,)), stripped, layers.Dense(2)]))
    copied = tfprune.strip_masks(stripped)
    copied.get_layer("tuples").scale.assign([2.0])
    assert copied.get_layer("tuples").get_config()["scale"] == [2.0]
    x = np.ones((2, 6), np.float32)
    np.testing.assert_array_equal(opened(x), loaded(opened, tmp_path)(x))
    np.testing.assert_array_equal(copied(x), loaded(copied, tmp_path)(x))


@keras.saving.register_keras_serializable(package="tfprune_tests")
class BestSteps(layers.Layer):
    """Steps of the highest score, gathered sample by sample."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.score = layers.Dense(1)

    def build(self, input_shape):
        self.score.build(input_shape)

    def call(self, x):
        def gather(pair):
            return keras.ops.take(pair[0], pair[1], axis=0)

        return keras.ops.map(gather, (x, keras.ops.top_k(self.score(x)[..., 0], k=3)[1]))


@keras.saving.register_keras_serializable(package="tfprune_tests")
class ReadsBest(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.best, self.last = layers.Dense(8), BestSteps(), layers.Dense(2)

    def call(self, x):
        return self.last(self.best(self.first(x)))


def test_a_function_that_no_file_holds_keeps_its_layer_closed(tmp_path):
    model = ReadsBest()
    x = np.random.default_rng(0).normal(size=(4, 6, 3)).astype("float32")
    expected = np.asarray(model(x))
    with pytest.warns(UserWarning, match="keras.ops.map the function 'gather', which no file holds; .* whole batches"):
        opened = tfprune.inline(model)
    np.testing.assert_allclose(loaded(opened, tmp_path)(x), expected, atol=1e-6)
