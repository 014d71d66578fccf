"""After `fit` nothing of a callback holds the user's data: they go at once, without the garbage collector."""

import gc
import tempfile
import weakref

import keras
import numpy as np
import pytest
from tiny_models import make

import tfprune

WAYS = {
    "none": list,
    "percentile": lambda: [tfprune.PercentilePruning(0.5)],
    "beside EarlyStopping": lambda: [
        keras.callbacks.EarlyStopping("loss", restore_best_weights=True),
        tfprune.PercentilePruning(0.5),
    ],
    "structured": lambda: [tfprune.StructuredPruning(0.5)],
    "movement": lambda: [tfprune.PercentilePruning(0.5, criterion="movement")],
    "iterative": lambda: [tfprune.IterativePruning(0.5, rounds=2, rewind=0.0)],
    "surgery": lambda: [tfprune.DynamicSurgery(0.5)],
    "RigL": lambda: [tfprune.RigL(0.5)],
    "proximal": lambda: [tfprune.ProximalSparsity(0.5)],
    "logger": lambda: [tfprune.PercentilePruning(0.5), tfprune.SparsityLogger(tempfile.mkdtemp())],
    "wrapped": lambda: [tfprune.UpdateMasks()],
    "in turns": lambda: [tfprune.PercentilePruning(tfprune.ACDC(0.5))],
}


@pytest.mark.parametrize("way", WAYS)
def test_the_data_of_a_run_go_with_it(way):
    model, inputs, targets = make("convolutional", optimizer=keras.optimizers.Adam(0.01))
    if way == "wrapped":
        model = tfprune.wrap(model, 0.5)
        model.compile(keras.optimizers.Adam(0.01), "mse")
    data = np.array(inputs)  # of this function alone
    gone = weakref.ref(data)
    gc.collect()
    gc.disable()
    try:
        model.fit(data, np.array(targets), batch_size=2, epochs=3, verbose=0, callbacks=WAYS[way]())
        del data
        assert gone() is None
    finally:
        gc.enable()
