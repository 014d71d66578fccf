"""What ends a residual branch makes up for the stream past it."""

import keras
import numpy as np
import pytest
from channel_checks import randomise
from keras import layers

import tfprune
from tfprune.oneshot.repair import reconstruct, streams

DATA = np.random.default_rng(0).normal(size=(400, 6)).astype("float32")


@keras.saving.register_keras_serializable("tfprune_tests")
class Residual(layers.Layer):
    """A residual MLP of the user's own."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.wide, self.out = layers.Dense(units, activation="relu", name="wide"), layers.Dense(8, name="out")

    def build(self, shape):
        self.wide.build(shape)
        self.out.build((*shape[:-1], self.units))
        self.built = True

    def call(self, x):
        return x + self.out(self.wide(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def network(own):
    x = inputs = keras.Input((6,))
    x = layers.Dense(8, name="stem")(x)
    for number, units in enumerate((16, 48)):
        if own:
            x = Residual(units, name=f"block{number}")(x)
            continue
        y = layers.Dense(units, activation="relu", name=f"wide{number}")(x)
        x = x + layers.Dropout(0.1)(layers.Dense(8, name=f"out{number}")(y))
    return randomise(keras.Model(inputs, layers.Dense(3, name="head")(x)))


@pytest.mark.parametrize("own", [False, True], ids=["functional", "own layers"])
def test_a_later_branch_corrects_what_an_earlier_one_lost(own, monkeypatch):
    model = network(own)
    dense = model.predict(DATA, verbose=0)
    names = {"block0/wide": 0.75, "block1/wide": 0.1} if own else {"wide0": 0.75, "wide1": 0.1}
    method = tfprune.Structured(0.5, layers=names)

    def error():
        pruned, report = tfprune.prune(model, method, DATA, reconstruct="least_squares", return_report=True, verbose=0)
        assert np.count_nonzero(~tfprune.get_masks(pruned)[next(iter(names)) + "/kernel"].any(axis=0)) == 12
        assert not report.reconstruction.skipped
        return np.mean(np.square(pruned.predict(DATA, verbose=0) - dense))

    with_streams = error()
    monkeypatch.setattr(reconstruct.Side, "of", classmethod(lambda cls, model: cls(model)))
    assert with_streams < 0.7 * error()


def test_only_layers_that_a_branch_ends_in_as_they_are_follow_the_stream():
    x = inputs = keras.Input((4, 8))
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4, name="attention")(y, y)])
    x = x + layers.Dense(8, name="plain")(x)
    x = x + layers.Dense(8, activation="relu", name="cut")(x)
    x = x + layers.LayerNormalization()(layers.Dense(8, name="normed")(x))
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    assert set(streams.Side.of(model).sums) == {"attention/attention_output/kernel", "plain/kernel"}


def test_a_model_that_is_no_graph_has_no_streams():
    class Branching(keras.Model):
        def __init__(self):
            super().__init__()
            self.out = layers.Dense(4)

        def call(self, x):
            return self.out(x) if float(keras.ops.max(x)) > 0 else x

    model = Branching()
    model(np.ones((2, 4), "float32"))
    assert streams.Side.of(model).sums == {}
