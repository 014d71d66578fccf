"""Channels first, then weights of what is left: one call, one report."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune.errors import PruningError

L = keras.layers
IMAGES = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    made = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            L.Conv2D(16, 3, activation="relu", name="conv"),
            L.Flatten(),
            L.Dense(12, activation="relu", name="hidden"),
            L.Dense(5, name="head"),
        ]
    )
    made.compile("sgd", "mse")
    return made


def test_both_shares_are_exact_and_the_model_is_left_alone(model):
    before = model.get_weights()
    pruned, report = tfprune.prune_hybrid(model, tfprune.Structured(0.5, allocation="uniform"), 0.75)
    assert pruned.get_layer("conv").filters == 8 and pruned.get_layer("hidden").units == 6
    kernels = 9 * 8 + 36 * 8 * 6 + 6 * 5
    zeros = sum(int(np.count_nonzero(~mask)) for mask in tfprune.get_masks(pruned).values())
    assert zeros == round(0.75 * kernels) == report.weights.totals()["zeros"]
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)
    pruned.fit(IMAGES, np.zeros((64, 5)), verbose=0)
    after = sum(int(np.count_nonzero(~mask)) for mask in tfprune.get_masks(tfprune.strip_masks(pruned)).values())
    assert after == zeros


def test_one_report_tells_every_stage(model):
    _, report = tfprune.prune_hybrid(model, 0.5, 0.75, IMAGES, reconstruct=True)
    stages = {row["stage"]: row for row in report.rows()}
    first, narrow, last = stages.values()
    assert first["parameters"] == model.count_params()
    assert first["macs"] > narrow["macs"] == last["macs"]
    assert narrow["nonzero"] == narrow["parameters"] > last["nonzero"]
    text = str(report)
    assert "By Structured(amount=0.5" in text.replace("\n", " ") and "By Percentile(amount=0.75" in text
    assert text.count("Repair: Read 64 samples in 1 batches.") == 2


def test_methods_in_the_wrong_places_are_told(model):
    with pytest.raises(PruningError, match="takes channels first and weights second"):
        tfprune.prune_hybrid(model, tfprune.Percentile(0.5), tfprune.Structured(0.5))
