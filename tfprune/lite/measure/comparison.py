"""How the outputs of two models compare: how far they are from each other, how often they agree and are right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.model.by_class import GroupLoss, Payers, sentences
from tfprune.model.judge import READINGS, Judge, Reading, macro_f1


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
        groups: What each class, or each quarter of the targets, lost, the one that lost most first; of labels alone.
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
    groups: tuple[GroupLoss, ...] = ()

    def paying(self, several: bool = False) -> list[str]:
        """Who lost most, and a warning for each that pays for the others, in sentences."""
        return sentences(self.groups, self.accuracy is not None, f"'{self.name}'" if several else "")


class Comparison:
    """Adds up how one output of two models compares, batch by batch.

    Args:
        model: The Keras model.
        name: The name of the output.
        strict: Whether labels that fit no decision are an error. Defaults to True.
    """

    def __init__(self, model: keras.Model, name: str, strict: bool = True):
        self.name = name
        self._judge = Judge(model, name, strict)
        self._tallies = {reading: Tally() for reading in READINGS}
        self._values = Payers(decisions=False)
        self.entries = 0
        self.sum = self.largest = self.largest_value = self.squares = self.power = 0.0

    def add(self, wanted: np.ndarray, answer: np.ndarray, labels: np.ndarray | None) -> None:
        """Takes in one batch of the outputs of both models, and its labels where there are any."""
        if answer.shape != wanted.shape:
            raise PruningError(
                f"Output '{self.name}' has shape {wanted.shape} in Keras and {answer.shape} in the file: the file was "
                "not made of this model."
            )
        difference = np.abs(wanted.astype(np.float64) - answer.astype(np.float64))
        self.entries += difference.size
        self.sum += float(difference.sum())
        self.squares += float(np.square(difference).sum())
        self.power += float(np.square(wanted, dtype=np.float64).sum())
        self.largest = max(self.largest, float(difference.max(initial=0.0)))
        self.largest_value = max(self.largest_value, float(np.abs(wanted).max(initial=0.0)))
        self._judge.see(wanted, labels)
        if not self._judge.possible and labels is not None and labels.size == wanted.size:
            self._values.add_values(labels.reshape(wanted.shape), wanted, answer)
        for reading in self._judge.possible:  # a later batch may leave fewer of them
            self._tallies[reading].add(reading, (wanted, answer), labels)

    def result(self) -> OutputComparison:
        """The comparison over all batches so far."""
        reading = self._judge.reading
        tally = Tally() if reading is None else self._tallies[reading]
        judged = tally.judged > 0
        return OutputComparison(
            name=self.name,
            largest_difference=self.largest,
            mean_difference=self.sum / self.entries if self.entries else 0.0,
            largest_value=self.largest_value,
            agreement=tally.agreed / tally.decisions if tally.decisions else None,
            accuracy=tally.right[0] / tally.judged if judged else None,
            lite_accuracy=tally.right[1] / tally.judged if judged else None,
            f1=macro_f1(tally.counts[0]) if judged else None,
            lite_f1=macro_f1(tally.counts[1]) if judged else None,
            groups=(tally.payers if reading is not None else self._values).result(),
            relative_error=float(np.sqrt(self.squares / self.power)) if self.power else 0.0,
        )


class Tally:
    """What is counted of the decisions of several models in one reading; agreement and payers of the first and last.

    Args:
        models: How many they are.
    """

    def __init__(self, models: int = 2):
        self.decisions = self.agreed = self.judged = 0
        self.right, self.won, self.lost = [0] * models, [0] * models, [0] * models
        self.counts: list[Any] = [0] * models
        self.payers = Payers(decisions=True)

    def add(self, reading: Reading, scores: Sequence[np.ndarray], labels: np.ndarray | None) -> None:
        """Counts one batch."""
        shape, decided = scores[0].shape, [reading.decided(each) for each in scores]
        self.decisions += decided[0].size
        self.agreed += int(np.count_nonzero(decided[0] == decided[-1]))
        if labels is None:
            return
        truth = reading.truth(labels, shape)
        self.judged += truth.size
        self.payers.add_decisions(truth, decided[0], decided[-1], reading.kind == "binary" and shape[-1] > 1)
        for index, each in enumerate(decided):
            self.right[index] += int(np.count_nonzero(each == truth))
            self.won[index] += int(np.count_nonzero((each == truth) & (decided[0] != truth)))
            self.lost[index] += int(np.count_nonzero((each != truth) & (decided[0] == truth)))
            self.counts[index] = self.counts[index] + reading.counts(each, truth, shape[-1])
