"""compress as far as it goes: from step to step, the same way after an interruption, and with room for chance."""

import json

import numpy as np
import pytest
import tensorflow as tf
from search_models import X_VAL, Y_VAL, Batches, X, Y, classifier

from tfprune import compress
from tfprune.search.compress.steps import Steps
from tfprune.search.compress.terms import Terms


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture(scope="module")
def smallest(model):
    """A compression as far as it goes."""
    return compress(model, Batches(), (X_VAL, Y_VAL), 0.1, epochs=1, verbose=0)


def test_each_step_goes_on_from_the_last_that_was_kept(smallest):
    names = [step.name for step in smallest.steps]
    assert names[:2] == ["unpruned", "channels to 25%"] and "weights 80%" in names
    kept = [step for step in smallest.steps if step.kept]
    for cost in ("parameters", "zeros"):
        values = [getattr(step, cost) for step in kept]
        assert values == sorted(values, reverse=cost == "parameters")
    assert kept[1].parameters <= 0.25  # the network is so small that others end at one channel a layer
    assert smallest.within_bound and smallest.parameters == kept[-1].parameters


def test_a_walk_that_was_interrupted_goes_the_same_way(model, smallest, tmp_path):
    arguments = {"max_drop": 0.1, "epochs": 1, "folder": tmp_path / "kept", "verbose": 0}
    with pytest.raises((RuntimeError, tf.errors.OpError), match="interrupted"):
        compress(model, Batches(left=35), (X_VAL, Y_VAL), **arguments)  # in the third training
    assert len(json.loads((tmp_path / "kept" / "steps.json").read_text())["steps"]) == 3
    resumed = compress(model, Batches(), (X_VAL, Y_VAL), **arguments)
    for mine, other in zip(resumed.steps, smallest.steps, strict=True):
        assert (mine.name, mine.outcome, mine.parameters, mine.zeros) == (
            other.name, other.outcome, other.parameters, other.zeros,
        )  # fmt: skip
        assert mine.accuracy == pytest.approx(other.accuracy, abs=1e-6)


@pytest.mark.parametrize(
    ("lost", "gained", "kept"),
    [
        (0.065, 0.0, True),  # an error of 0.013
        (0.08, 0.0, False),
        (0.45, 0.38, False),  # of 0.045
        (0.45, 0.405, True),  # less than half of the bound, whatever the error
        (0.02, 0.3, True),
    ],
)
def test_a_step_is_kept_surely_where_two_errors_more_would_be_within_the_bound(model, lost, gained, kept):
    right = np.random.default_rng(2).permutation(400) < 200  # of the unpruned model
    answers = np.eye(2)[np.where(right, Y_VAL, 1 - Y_VAL)]
    steps = Steps(model, (X, Y), (X_VAL, Y_VAL), Terms(0.1, "smallest", 1, None, True, 32, 0), None)
    steps.answers = [answers]
    steps.bounds.dense = (0.5,)
    order = np.random.default_rng(0).permutation(400)
    wrong = [*order[right[order]][: round(400 * lost)], *order[~right[order]][: round(400 * gained)]]
    changed = answers.copy()
    changed[wrong] = 1 - changed[wrong]
    assert steps.surely(steps.score([changed]), [changed]) == kept
