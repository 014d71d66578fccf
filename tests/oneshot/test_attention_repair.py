"""Repair of attention and MLPs that lost heads or units."""

import keras
import numpy as np
import pytest
from channel_checks import randomise
from keras import layers

import tfprune

DATA = np.random.default_rng(0).normal(size=(150, 5, 6)).astype("float32")


def transformer():
    inputs = keras.Input((5, 6))
    x = layers.Dense(16, name="stem")(inputs)
    y = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(4, 4, name="attention")(y, y)
    y = layers.Dense(24, activation="gelu", name="hidden")(layers.LayerNormalization()(x))
    x = x + layers.Dense(16, name="out")(y)
    return randomise(keras.Model(inputs, layers.Dense(3, name="classes")(x)))


@pytest.mark.parametrize(("unit", "layer"), [("head", "attention"), ("width", "hidden")])
def test_what_is_left_makes_up_for_heads_and_units_that_went(unit, layer):
    model = transformer()
    dense = model.predict(DATA, verbose=0)
    errors = []
    for reconstruct in (None, True):
        method = tfprune.Structured(0.5, unit=unit, layers=[layer])
        pruned = tfprune.prune(model, method, DATA, reconstruct=reconstruct, verbose=0)
        errors.append(np.mean(np.square(pruned.predict(DATA, verbose=0) - dense)))
        plain = tfprune.strip_masks(pruned)
        assert tfprune.certify(plain, tfprune.shrink(plain), DATA).largest < 1e-5
    assert 0 < errors[1] < 0.5 * errors[0]
