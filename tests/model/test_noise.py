"""The standard error of what a metric lost: exact for means, any metric has one, none where it would mislead."""

import keras
import numpy as np
import pytest

from tfprune.model import noise
from tfprune.model.data import batches
from tfprune.model.metrics import answers_of, found_metrics
from tfprune.model.noise import PARTS, standard_error

L = keras.layers
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(10 * PARTS, 4)).astype("float32")
Y = (X[:, 0] + RANDOM.normal(size=len(X)) > 0).astype("int32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((4,)), L.Dense(2, activation="softmax")])
    network.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return network


def error(model, metric=None, mode=None, data=(X, Y)):
    """The error beside answers that are off by chance, and both answers."""
    read = list(batches(data, model, "compress", 64))
    dense = answers_of(model, read)
    given = [dense[0] + np.random.default_rng(1).normal(0, 0.3, dense[0].shape).astype("float32")]
    (found,) = found_metrics(model, read, metric, mode, dense, "compress")
    return standard_error(found, dense, given), dense[0], given[0]


def of_mean(losses):
    """The standard error of a mean, by the means of equal parts."""
    parts = losses.reshape(PARTS, -1).mean(axis=1)
    return np.sqrt(np.sum((parts - parts.mean()) ** 2) / (PARTS * (PARTS - 1)))


def test_of_a_mean_it_is_that_of_the_differences_in_pairs(model):
    found, dense, given = error(model)
    lost = (dense.argmax(axis=1) == Y).astype(float) - (given.argmax(axis=1) == Y)
    assert found == pytest.approx(of_mean(lost), rel=1e-6) and found > 0
    found, dense, given = error(model, lambda targets, outputs: np.abs(outputs[:, 1] - targets).mean(), "min")
    assert found == pytest.approx(of_mean(np.abs(given[:, 1] - Y) - np.abs(dense[:, 1] - Y)), rel=1e-3)


def test_answers_as_good_on_every_sample_have_none(model):
    read = list(batches((X, Y), model, "compress", 64))
    dense = answers_of(model, read)
    (found,) = found_metrics(model, read, None, None, dense, "compress")
    assert standard_error(found, dense, dense) == 0.0


def test_what_is_no_mean_and_what_is_read_in_rows_have_one_too(model):
    assert 0 < error(model, "f1")[0] < 0.1
    assert 0 < error(model, "loss")[0] < 0.5

    def first_of_five(targets, outputs):
        return float((outputs[:, 1].reshape(-1, 5).argmax(axis=1) == 0).mean())

    found, dense, given = error(model, first_of_five, "max")
    first = [(each[:, 1].reshape(-1, 5).argmax(axis=1) == 0).astype(float) for each in (dense, given)]
    assert found == pytest.approx(of_mean(first[0] - first[1]), rel=1e-6)


def test_it_is_not_told_of_few_samples_differences_and_what_parts_do_not_give(model, monkeypatch):
    assert error(model, data=(X[: 2 * PARTS - 1], Y[: 2 * PARTS - 1]))[0] is None
    assert error(model, data=X)[0] is None

    def of_all(targets, outputs):
        if len(targets) < len(X):
            raise ValueError("some are missing")
        return float(outputs.mean())

    assert error(model, of_all, "max")[0] is None
    monkeypatch.setattr(noise, "SECONDS", 0.0)
    assert error(model)[0] is None
