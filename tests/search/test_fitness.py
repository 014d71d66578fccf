"""Fitness: the faster way to run candidates, and what is said and raised where it cannot be taken."""

import keras
import numpy as np
import pytest

from tfprune.search import fitness as fitnesses
from tfprune.search import random_search

L = keras.layers
X, Y = np.random.default_rng(0).normal(size=(8, 6, 6, 1)).astype("float32"), np.arange(8) % 2


def network(layer):
    return keras.Sequential([keras.Input((6, 6, 1)), layer, L.Conv2D(3, 3), L.Flatten(), L.Dense(2)])


def search(model):
    return random_search(model, (X, Y), evaluations=1, verbose=0)


def test_a_result_says_why_candidates_were_run_under_masks():
    told = "Candidates were run at full width, under masks: 'up' (Conv2DTranspose) loses channels in a way"
    assert any(note.startswith(told) for note in search(network(L.Conv2DTranspose(4, 2, name="up"))).notes())
    assert not any("full width" in note for note in search(network(L.Conv2D(4, 2))).notes())


def test_an_error_that_no_layer_raises_is_not_swallowed(monkeypatch):
    def broken(*arguments):
        raise RuntimeError("a defect")

    monkeypatch.setattr(fitnesses, "ThinModel", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        search(network(L.Conv2D(4, 2)))
