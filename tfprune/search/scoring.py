"""Accuracy and F1 of a model's answers, for class numbers, one-hot rows and binary labels."""

from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.lite.measure.judge import class_counts, decision_of, macro_f1


class Scoring:
    """Turns answers into accuracy and macro F1.

    Which way answers are read (by the largest, or above a threshold) is settled once, on the unpruned model's.

    Args:
        model: The model, for what its last activation tells.
        targets: The targets of all samples.
        answers: The unpruned model's answers to them.

    Raises:
        PruningError: There are no labels, or they are no classes.
    """

    def __init__(self, model: keras.Model, targets: Any, answers: Any):
        if targets is None:
            raise PruningError(
                "accuracy and F1 need labels, and the data have none; write data=(x, y), or objectives=('loss', ...) "
                "with targets, or a function of your own."
            )
        labels, scores = np.asarray(keras.tree.flatten(targets)[0]), _first(answers)
        rows = labels.reshape(scores.shape) if labels.size == scores.size else None
        classes = scores.shape[-1]
        self.binary = classes == 1 or (rows is not None and not np.allclose(rows.sum(axis=-1), 1))
        inside = decision_of(model, "") == "binary" or (scores.min() >= 0 and scores.max() <= 1)
        self.threshold = 0.5 if inside else 0.0  # probabilities, or logits
        if self.binary:
            truth = rows
        elif rows is not None:
            truth = rows.argmax(axis=-1)
        else:
            truth = labels.reshape(scores.shape[:-1]) if labels.size * classes == scores.size else None
        if truth is None or not np.array_equal(truth, np.round(truth)):
            raise PruningError(
                f"accuracy and F1 need classes: labels of shape {labels.shape} ({labels.dtype}) are none for answers "
                f"of shape {scores.shape}. Write objectives=('loss', 'macs'), or a function of your own."
            )
        self.truth = truth.astype(np.int64)
        highest = 1 if self.binary else classes - 1
        if self.truth.size and not 0 <= self.truth.min() <= self.truth.max() <= highest:
            raise PruningError(
                f"The labels lie in {self.truth.min()}..{self.truth.max()}, but the model has {highest + 1} classes, "
                "counted from 0."
            )

    def accuracy(self, answers: Any) -> float:
        """The share of right decisions."""
        return float(np.mean(self._decided(answers) == self.truth))

    def f1(self, answers: Any) -> float:
        """The mean F1 of the classes, as `verify` gives it."""
        classes = _first(answers).shape[-1]
        return macro_f1(class_counts(self._decided(answers), self.truth, classes, self.binary))

    def _decided(self, answers: Any) -> np.ndarray:
        scores = _first(answers)
        return (scores > self.threshold).astype(np.int64) if self.binary else scores.argmax(axis=-1)


def _first(answers: Any) -> np.ndarray:
    return np.asarray(keras.tree.flatten(answers)[0])
