"""What the outputs of two models decide, how often they agree, and how often they are right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError, listing

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


@dataclass(frozen=True)
class OutputComparison:
    """How one output of the two models compares.

    Args:
        name: The output's name.
        largest_difference: Largest absolute difference of any entry.
        mean_difference: Mean absolute difference over all entries.
        largest_value: Largest absolute value that Keras gives, the scale of the differences.
        agreement: Share of decisions (the class of highest score; above or below one half for a binary output) in which
            both agree, in [0, 1]; None for a regression.
        accuracy: Share of decisions of Keras that are right; None without labels.
        lite_accuracy: Share of decisions of the converted model that are right; None without labels.
        f1: F1 of Keras: the mean over the classes that occur, of a single binary output that of its positive class;
            None without labels.
        lite_f1: The same of the converted model.
        relative_error: Root mean square of the differences over that of Keras' values.
    """

    name: str
    largest_difference: float
    mean_difference: float
    largest_value: float
    agreement: float | None
    accuracy: float | None
    lite_accuracy: float | None
    f1: float | None = None
    lite_f1: float | None = None
    relative_error: float = 0.0


class Judge:
    """Adds up the comparison of one output, piece by piece."""

    def __init__(self, name: str, decision: str):
        self.name = name
        self.decision = decision  # "class", "binary", "values", or "open" until the labels tell
        self.threshold = 0.5
        self.entries = self.decisions = self.agreed = 0
        self.judged = self.right = self.lite_right = 0
        self.sum = self.largest = self.largest_value = 0.0
        self.squares = self.power = 0.0
        self.counts: dict[str, np.ndarray] = {}  # of each model: hits, decisions for and labels of each class

    def add(self, wanted: np.ndarray, answer: np.ndarray, labels: np.ndarray | None) -> None:
        """Takes in one batch of the outputs of both models, and its labels where there are any."""
        if answer.shape != wanted.shape:
            raise PruningError(
                f"Output '{self.name}' has shape {wanted.shape} in Keras and {answer.shape} in the file: the file was "
                "not made of this model."
            )
        if not self.entries:
            self.decision = self._settled(wanted, labels)
            inside = wanted.size and float(wanted.min()) >= 0 and float(wanted.max()) <= 1
            self.threshold = 0.5 if inside else 0.0  # probabilities, or logits
        difference = np.abs(wanted.astype(np.float64) - answer.astype(np.float64))
        self.entries += difference.size
        self.sum += float(difference.sum())
        self.squares += float(np.square(difference).sum())
        self.power += float(np.square(wanted, dtype=np.float64).sum())
        self.largest = max(self.largest, float(difference.max(initial=0.0)))
        self.largest_value = max(self.largest_value, float(np.abs(wanted).max(initial=0.0)))
        if self.decision == "values":
            return
        decided, lite_decided = self._decide(wanted), self._decide(answer)
        self.decisions += decided.size
        self.agreed += int(np.count_nonzero(decided == lite_decided))
        if labels is not None:
            truth = self._truth(labels, wanted)
            self.judged += truth.size
            self.right += int(np.count_nonzero(decided == truth))
            self.lite_right += int(np.count_nonzero(lite_decided == truth))
            classes = wanted.shape[-1]
            for name, decisions in (("keras", decided), ("lite", lite_decided)):
                counts = class_counts(decisions, truth, classes, self.decision == "binary")
                self.counts[name] = self.counts.get(name, 0) + counts

    def result(self) -> OutputComparison:
        """The comparison over all batches so far."""
        return OutputComparison(
            name=self.name,
            largest_difference=self.largest,
            mean_difference=self.sum / self.entries if self.entries else 0.0,
            largest_value=self.largest_value,
            agreement=self.agreed / self.decisions if self.decisions else None,
            accuracy=self.right / self.judged if self.judged else None,
            lite_accuracy=self.lite_right / self.judged if self.judged else None,
            f1=macro_f1(self.counts["keras"]) if self.judged else None,
            lite_f1=macro_f1(self.counts["lite"]) if self.judged else None,
            relative_error=float(np.sqrt(self.squares / self.power)) if self.power else 0.0,
        )

    def _settled(self, wanted: np.ndarray, labels: np.ndarray | None) -> str:
        """What the output decides, from the labels where they tell."""
        if wanted.dtype.kind not in "f" or wanted.ndim < 2:
            return "values"
        classes = wanted.shape[-1]
        if labels is None:
            return (
                self.decision if self.decision != "open" else "class" if classes > 1 and wanted.ndim == 2 else "values"
            )
        if labels.shape == wanted.shape and classes > 1:
            shares = (labels >= 0).all() and np.allclose(labels.sum(axis=-1), 1)
            return "class" if shares else "binary" if _is_binary(labels) else "values"
        if classes > 1:
            return "class" if labels.dtype.kind in "iub" or (labels == np.round(labels)).all() else "values"
        return "binary" if _is_binary(labels) else "values"

    def _decide(self, scores: np.ndarray) -> np.ndarray:
        return scores.argmax(axis=-1) if self.decision == "class" else (scores > self.threshold).astype(np.int64)

    def _truth(self, labels: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """The labels in the form of the decisions."""
        if self.decision == "class" and labels.shape == wanted.shape:
            return labels.argmax(axis=-1)
        shape = wanted.shape[:-1] if self.decision == "class" else wanted.shape
        if labels.size != int(np.prod(shape)):
            raise PruningError(
                f"The labels of output '{self.name}' have shape {labels.shape}, which fits neither class numbers of "
                f"shape {shape} nor rows like its own of shape {wanted.shape}."
            )
        truth = labels.reshape(shape).astype(np.int64)
        if self.decision == "class" and truth.size and (truth.min() < 0 or truth.max() >= wanted.shape[-1]):
            raise PruningError(
                f"The labels of output '{self.name}' lie in {truth.min()}..{truth.max()}, but it has "
                f"{wanted.shape[-1]} classes, counted from 0."
            )
        return truth


def class_counts(decided: np.ndarray, truth: np.ndarray, classes: int, binary: bool) -> np.ndarray:
    """Hits, decisions for each class, and labels of each class, as three rows; a binary output has a column each."""
    if binary:
        hits, chosen, actual = (decided & truth, decided, truth)
        return np.stack([part.reshape(-1, classes).sum(axis=0) for part in (hits, chosen, actual)])
    hits = decided[decided == truth]
    return np.stack([np.bincount(part.reshape(-1), minlength=classes) for part in (hits, decided, truth)])


def macro_f1(counts: np.ndarray) -> float:
    """The mean F1 of the classes that are among the labels or the decisions, as scikit-learn averages "macro".

    Args:
        counts: What `class_counts` gave, added up over batches; one binary output has a single column.
    """
    hits, chosen, actual = counts
    occurs = chosen + actual > 0
    return float(np.mean(2 * hits[occurs] / (chosen + actual)[occurs])) if occurs.any() else 0.0


def _is_binary(labels: np.ndarray) -> bool:
    return bool(np.isin(labels, (0, 1)).all())


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


def labels_of(labels: Any, own: Any, names: Sequence[str], part: slice, count: int) -> list[np.ndarray | None]:
    """The labels of one piece of data for each output.

    Args:
        labels: The labels of all the data, as the caller gave them; None where the data bring their own.
        own: The labels that came with this piece.
        names: The names of the outputs.
        part: The place of this piece in the data.
        count: The number of samples in it.

    Raises:
        PruningError: They came twice, are for unknown outputs, or are fewer than the samples.
    """
    if labels is not None and own is not None:
        raise PruningError("Labels came twice: with the data, and as labels=. Give them once.")
    given = own if labels is None else labels
    if given is None:
        return [None] * len(names)
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in names]
        if unknown:
            raise PruningError(f"Labels came for {listing(unknown)}; the outputs are {listing(names)}.")
        parts = [given.get(name) for name in names]
    elif len(names) == 1:
        parts = [given]
    elif isinstance(given, (list, tuple)) and len(given) == len(names):
        parts = list(given)
    else:
        raise PruningError(
            f"The model has {len(names)} outputs. Give labels as a dict with the names {listing(names)}, or a list in "
            "this order."
        )
    result: list[np.ndarray | None] = []
    for values in parts:
        array = None if values is None else np.asarray(values)
        if array is not None and labels is not None:
            array = array[part]
        elif array is not None and array.ndim == 0:
            array = array[None]
        if array is not None and len(array) != count:
            if labels is None and count == 1:
                array = array[None]
            else:
                raise PruningError(f"There are fewer labels than samples: {part.start + len(array)} labels.")
        result.append(array)
    return result


def require_all_used(labels: Any, samples: int) -> None:
    """Raises where there are more labels than samples."""
    parts = labels.values() if isinstance(labels, Mapping) else [] if labels is None else [labels]
    for values in parts:
        if isinstance(values, np.ndarray) and len(values) != samples:
            raise PruningError(f"There are {len(values)} labels for {samples} samples.")
