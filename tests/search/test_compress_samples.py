"""Which samples compress searches by: from all over arrays, and of validation where a function judges."""

import keras
import numpy as np
import pytest
from search_models import X_VAL, Y_VAL, Batches, X, Y, classifier

from tfprune.search.compress.road import Road
from tfprune.search.compress.samples import reads_rows, some_samples, spread
from tfprune.search.compress.steps import Steps
from tfprune.search.compress.terms import Terms


@pytest.fixture(scope="module")
def model():
    return classifier()


def test_samples_come_from_all_over_arrays_that_may_be_sorted(model):
    order = np.argsort(Y, kind="stable")
    found = some_samples((X[order], Y[order]), model, 5)
    rows = order[[0, 74, 149, 224, 299]]  # of 300
    np.testing.assert_array_equal(found.inputs, X[rows])
    np.testing.assert_array_equal(found.targets, Y[rows])
    np.testing.assert_array_equal(spread(found, 3).targets, Y[rows[[0, 2, 4]]])
    assert some_samples((X, Y), model, 2000).size == 300


def test_batches_give_their_first_samples_and_their_targets(model):
    found = some_samples(Batches(), model, 70)
    np.testing.assert_array_equal(found.inputs, X[:70])
    np.testing.assert_array_equal(found.targets, Y[:70])


def judged(targets, outputs):
    return float(np.mean(np.argmax(outputs, -1) == targets))


@pytest.mark.parametrize(
    ("metric", "rows"),
    [
        (None, False),
        ("accuracy", False),
        (keras.metrics.MeanSquaredError(), False),
        ({"kind": "accuracy", "box": keras.metrics.MeanSquaredError()}, False),
        (judged, True),
        ({"kind": "accuracy", "box": judged}, True),
    ],
)
def test_a_function_of_the_users_may_read_rows(metric, rows):
    assert reads_rows(metric) == rows


@pytest.mark.parametrize(("metric", "searched"), [("accuracy", (X, Y)), (judged, (X_VAL, Y_VAL))])
def test_channels_are_searched_by_training_samples_or_where_a_function_judges_by_validation(model, metric, searched):
    terms = Terms(0.1, "smallest", 1, None, True, 32, 0, metric, "max")
    road = Road(Steps(model, (X, Y), (X_VAL, Y_VAL), terms, None), some_samples((X, Y), model, 2000))
    inputs, targets, _ = road._searched_by
    np.testing.assert_array_equal(inputs, searched[0])
    np.testing.assert_array_equal(targets, searched[1])
