"""Models that leave the length of their inputs open, converted for one length."""

import keras
import numpy as np
import pytest
from keras import layers

from tfprune.errors import PruningError
from tfprune.lite import convert, verify

STEPS = 6


def _recurrent(cell):
    series = keras.Input((None, 4), name="series")
    return keras.Model(series, layers.Dense(3)(layers.Bidirectional(cell(6, name="cell"))(series)), name="recurrent")


def _translator():
    """An encoder and a decoder of different lengths, with an attention between them."""
    source, target = (keras.Input((None,), dtype="int32", name=name) for name in ("source", "target"))
    table = layers.Embedding(20, 8, name="table", embeddings_initializer="normal")
    x = layers.Attention()([table(target), table(source)])
    return keras.Model([source, target], layers.Dense(3)(x), name="translator")


def _series(count=24, steps=STEPS):
    return np.random.default_rng(0).normal(size=(count, steps, 4)).astype(np.float32)


@pytest.mark.parametrize("cell", [layers.LSTM, layers.GRU])
@pytest.mark.parametrize("quantization, error", [("int8", 0.1), ("int16x8", 0.03)])
def test_recurrent_layers_of_open_length_become_integers(cell, quantization, error):
    model, data = _recurrent(cell), _series()
    lite = convert(model, quantization, data, sequence_length=STEPS)
    assert lite.inputs[0].shape == (1, STEPS, 4) and lite.inspect().float_ops == {}
    wanted = np.asarray(model(data))
    assert np.abs(lite(data) - wanted).max() < error * np.abs(wanted).max()
    assert verify(model, lite, data).samples == len(data)
    assert model.input_shape == (None, None, 4)


def test_inputs_have_lengths_of_their_own():
    model = _translator()
    tokens = np.random.default_rng(0).integers(0, 20, (24, 12))
    data = {"source": tokens[:, :7], "target": tokens[:, 7:]}
    lite = convert(model, "int8", data, sequence_length={"source": 7, "target": 5})
    assert [(end.name, end.shape) for end in lite.inputs] == [("source", (1, 7)), ("target", (1, 5))]
    wanted = np.asarray(model(data))
    assert np.abs(lite(data) - wanted).max() < 0.1 * np.abs(wanted).max()
    one = convert(model, sequence_length={"target": 5})
    assert [end.shape for end in one.inputs] == [(1, None), (1, 5)]


def test_data_of_another_length_are_refused():
    with pytest.raises(PruningError, match=r"has shape \(24, 5, 4\), but a sample of the model has shape \(6, 4\)"):
        convert(_recurrent(layers.GRU), "int8", _series(steps=5), sequence_length=STEPS)


@pytest.mark.parametrize("length", [0, True, 2.5, "6", {"series": -1}])
def test_no_length(length):
    with pytest.raises(PruningError, match="is no length. Give 1 or more, or None to leave it open"):
        convert(_recurrent(layers.GRU), sequence_length=length)


def test_an_input_that_is_not_open():
    with pytest.raises(PruningError, match="takes 'series.*Give it for 'series' alone"):
        convert(_recurrent(layers.GRU), sequence_length={"serie": 6})
    fixed = keras.Sequential([keras.Input((4,), name="row"), layers.Dense(2)], name="fixed")
    for length in (4, {"row": 4}):
        with pytest.raises(PruningError, match="and 'fixed' takes 'row .*Leave it out"):
            convert(fixed, sequence_length=length)
