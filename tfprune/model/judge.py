"""The one judge of decisions: what the outputs of a model decide, and how often that is right.

An output decides a class (the one of the highest score), or each of its values decides yes or no (above a threshold:
one half for probabilities, zero for logits), or it decides nothing, as in a regression. Which of these holds is told by
the labels, and without labels by the activation and the loss; it is settled by all batches together, not by the first.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.model.data import real_array

REGRESSION = (
    "mean_squared",
    "mse",
    "mean_absolute",
    "mae",
    "huber",
    "log_cosh",
    "percentage",
    "msle",
    "mape",
    "cosine",
)


class Reading(NamedTuple):
    """A way to read scores as decisions: `"class"`, or `"binary"` above a threshold."""

    kind: str
    threshold: float = 0.0

    def decided(self, scores: np.ndarray) -> np.ndarray:
        """The decisions: class numbers, or 0 and 1 for each value."""
        return scores.argmax(axis=-1) if self.kind == "class" else (scores > self.threshold).astype(np.int64)

    def truth(self, labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Labels in the form of the decisions about scores of a shape."""
        if self.kind == "class" and labels.size == int(np.prod(shape)):
            return labels.reshape(shape).argmax(axis=-1)
        return labels.reshape(shape[:-1] if self.kind == "class" else shape).astype(np.int64)

    def counts(self, decided: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
        """Hits, decisions for each class and labels of each class, as three rows that add up over batches."""
        if self.kind == "binary":
            return np.stack([part.reshape(-1, classes).sum(axis=0) for part in (decided & truth, decided, truth)])
        hits = decided[decided == truth]
        return np.stack([np.bincount(part.reshape(-1), minlength=classes) for part in (hits, decided, truth)])


READINGS = (Reading("class"), Reading("binary", 0.5), Reading("binary", 0.0))


class Judge:
    """Finds out how an output is read, batch by batch; what one batch excludes stays excluded.

    Args:
        model: The model whose output it is.
        name: The output's name; `""` for the only one.
        strict: Whether labels that fit no decision are an error, and not those of a metric that reads them in its own
            way, as that of sequences does. Defaults to True.

    Attributes:
        possible: The readings that nothing speaks against so far.
    """

    def __init__(self, model: keras.Model, name: str = "", strict: bool = True):
        self._name, self._told, self._strict = name, decision_of(model, name), strict
        self.possible = list(READINGS)

    @property
    def reading(self) -> Reading | None:
        """How the output is read, by all that was seen; None where it decides nothing."""
        return self.possible[0] if self.possible else None

    def see(self, scores: np.ndarray, labels: np.ndarray | None) -> None:
        """Takes in one batch of scores, and its labels where there are any.

        Raises:
            PruningError: The labels are of another shape, or of classes that the output lacks.
        """
        labels = None if labels is None else real_array(labels, "labels")
        if scores.dtype.kind != "f" or scores.ndim < 2:
            self.possible = []
            return
        probabilities = not scores.size or bool(scores.min() >= 0 and scores.max() <= 1)
        kinds = self._without_labels(scores) if labels is None else self._by(labels, scores.shape)
        self.possible = [each for each in self.possible if each.kind in kinds and (probabilities or not each.threshold)]

    def _without_labels(self, scores: np.ndarray) -> set[str]:
        told = "class" if self._told == "open" and scores.shape[-1] > 1 and scores.ndim == 2 else self._told
        return {told}

    def _by(self, labels: np.ndarray, shape: tuple[int, ...]) -> set[str]:
        """The kinds of decisions that these labels can be of."""
        if labels.size == int(np.prod(shape)):
            rows = labels.reshape(shape)
            kinds = {"binary"} if np.isin(labels, (0, 1)).all() else set()
            one_each = shape[-1] > 1 and (rows >= 0).all() and np.allclose(rows.sum(axis=-1), 1)
            return kinds | {"class"} if one_each else kinds
        if not np.array_equal(labels, np.round(labels)):
            return set()
        fits = labels.size * shape[-1] == int(np.prod(shape))
        known = fits and not (labels.size and not 0 <= labels.min() <= labels.max() < shape[-1])
        if not known and not self._strict:
            return set()
        of, owner = (f" of output '{self._name}'", "it") if self._name else ("", "the model")
        if not fits:
            raise PruningError(
                f"The labels{of} have shape {labels.shape}, which fits neither class numbers of "
                f"shape {shape[:-1]} nor rows like its own of shape {shape}."
            )
        if not known:
            raise PruningError(
                f"The labels{of} lie in {labels.min()}..{labels.max()}, but {owner} has {shape[-1]} "
                "classes, counted from 0."
            )
        return {"class"}


class Scorer:
    """Gives the accuracy and the macro F1 of answers to samples with labels.

    How answers are read is settled once, on the unpruned model's answers to all samples.

    Args:
        model: The model, for what its last activation tells.
        targets: The targets of all samples.
        answers: The unpruned model's answers to them.
        name: The output's name; `""` (default) for the only one.

    Raises:
        PruningError: There are no labels, or they are no classes.
    """

    def __init__(self, model: keras.Model, targets: Any, answers: Any, name: str = ""):
        if targets is None:
            raise PruningError(
                "accuracy and F1 need labels, and the data have none; write data=(x, y), or objectives=('loss', ...) "
                "with targets, or a function of your own."
            )
        labels, scores = _first(targets), _first(answers)
        judge = Judge(model, name)
        judge.see(scores, labels)
        if judge.reading is None:
            raise PruningError(
                f"accuracy and F1 need classes: labels of shape {labels.shape} ({labels.dtype}) are none for answers "
                f"of shape {scores.shape}. Write objectives=('loss', 'macs'), or a function of your own."
            )
        self._reading = judge.reading
        self._truth = self._reading.truth(labels, scores.shape)

    def accuracy(self, answers: Any) -> float:
        """The share of right decisions."""
        return float(np.mean(self._reading.decided(_first(answers)) == self._truth))

    def f1(self, answers: Any) -> float:
        """The mean F1 of the classes, which for the pixels of a segmentation is called Dice."""
        return macro_f1(self._counts(answers))

    def iou(self, answers: Any) -> float:
        """The mean intersection over union of the classes."""
        hits, chosen, actual = self._counts(answers)
        union = chosen + actual - hits
        return float(np.mean(hits[union > 0] / union[union > 0])) if union.any() else 0.0

    def _counts(self, answers: Any) -> np.ndarray:
        scores = _first(answers)
        return self._reading.counts(self._reading.decided(scores), self._truth, scores.shape[-1])


def _first(parts: Any) -> np.ndarray:
    return np.asarray(keras.tree.flatten(parts)[0])


def macro_f1(counts: np.ndarray) -> float:
    """The mean F1 of the classes that are among the labels or the decisions, as scikit-learn averages "macro".

    Args:
        counts: What `Reading.counts` gave, added up over batches; one binary output has a single column.
    """
    hits, chosen, actual = counts
    occurs = chosen + actual > 0
    return float(np.mean(2 * hits[occurs] / (chosen + actual)[occurs])) if occurs.any() else 0.0


def decision_of(model: keras.Model, name: str) -> str:
    """What an output decides, as far as its activation and the loss of the model tell."""
    activation = _activation(model, name)
    if activation == "softmax":
        return "class"
    if activation == "sigmoid":
        return "binary"
    loss = getattr(model, "loss", None) if getattr(model, "compiled", False) else None
    loss = loss.get(name) if isinstance(loss, Mapping) else loss
    text = str(getattr(loss, "name", getattr(loss, "__name__", loss))).lower()
    return "values" if any(word in text for word in REGRESSION) else "open"


def _activation(model: keras.Model, name: str) -> str:
    """The name of the activation that makes an output; of the last layer in a model of one output."""
    layers = getattr(model, "layers", [])
    layer = next((layer for layer in layers if layer.name == name), layers[-1] if layers else None)
    while isinstance(layer, keras.Model) and layer.layers:
        layer = layer.layers[-1]
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    layer = getattr(layer, "layer", layer)  # inside a wrapper
    return str(getattr(getattr(layer, "activation", None), "__name__", ""))
