"""What outputs decide is told by all batches together, one rule for verify, search and compress."""

import keras
import numpy as np
import pytest

from tfprune.errors import PruningError
from tfprune.lite.measure.comparison import Comparison
from tfprune.model.judge import Judge, Reading, Scorer


def network(units, activation=None):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation=activation, name="answer")])


ONE_EACH = np.eye(3)[[0, 1, 2, 0]]
SEVERAL = np.array([[1, 1, 0], [0, 0, 0], [1, 1, 1], [0, 1, 1]])
SCORES = np.array([[0.9, 0.2, 0.1], [0.1, 0.8, 0.3], [0.2, 0.3, 0.4], [0.7, 0.6, 0.2]])


def test_several_labels_are_seen_in_a_later_batch():
    judge = Judge(network(3, "sigmoid"))
    judge.see(SCORES, ONE_EACH)
    assert judge.reading == Reading("class")
    judge.see(SCORES, SEVERAL)
    assert judge.reading == Reading("binary", 0.5)


def test_logits_are_seen_in_a_later_batch():
    judge = Judge(network(1))
    judge.see(np.full((4, 1), 0.3), np.array([0, 1, 1, 0]))
    assert judge.reading == Reading("binary", 0.5)
    judge.see(np.array([[-2.0], [3.0]]), np.array([0, 1]))
    assert judge.reading == Reading("binary", 0.0)


def test_real_values_are_seen_in_a_later_batch():
    judge = Judge(network(1))
    judge.see(np.full((2, 1), 0.3), np.array([0.0, 1.0]))
    judge.see(np.full((2, 1), 0.3), np.array([0.25, 1.0]))
    assert judge.reading is None


@pytest.mark.parametrize("labels", [np.array([0, 1, 2, 0]), ONE_EACH, np.array([[0], [1], [2], [0]])])
def test_classes_come_by_number_or_one_hot(labels):
    assert Scorer(network(3), labels, SCORES).accuracy(SCORES) == 1.0


def test_figures_in_batches_are_those_of_all_samples():
    labels, scores = np.concatenate([ONE_EACH, SEVERAL]), np.concatenate([SCORES, SCORES[::-1]])
    comparison = Comparison(network(3, "sigmoid"), "answer")
    comparison.add(scores[:4], scores[:4], labels[:4])
    comparison.add(scores[4:], scores[4:], labels[4:])
    found, scorer = comparison.result(), Scorer(network(3, "sigmoid"), labels, scores)
    assert found.accuracy == scorer.accuracy(scores) == np.mean((scores > 0.5) == labels)
    assert found.f1 == scorer.f1(scores)


def test_what_cannot_be_judged_is_told():
    with pytest.raises(PruningError, match=r"accuracy and F1 need labels.*write data=\(x, y\)"):
        Scorer(network(3), None, SCORES)
    with pytest.raises(PruningError, match=r"accuracy and F1 need classes: labels of shape \(4, 3\)"):
        Scorer(network(3), SCORES * 3, SCORES)
    with pytest.raises(PruningError, match="The labels lie in 0..3, but the model has 3 classes, counted from 0"):
        Scorer(network(3), np.arange(4), SCORES)
    with pytest.raises(PruningError, match=r"labels of output 'answer' have shape \(3,\), which fits neither"):
        Judge(network(3), "answer").see(SCORES, np.arange(3))
