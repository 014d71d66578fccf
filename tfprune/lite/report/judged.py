"""How right several models are on the same samples, and whether a difference between two of them can be chance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.lite.measure.comparison import Tally
from tfprune.model.judge import READINGS, Judge

SURE = 1.96  # standard errors to each side of a 95 % interval


@dataclass(frozen=True)
class Judged:
    """The decisions of several models about the same samples, the first of them the yardstick.

    Args:
        names: What the models are called.
        decisions: How many decisions were judged.
        right: How many of them were right, by model.
        won: How many are right in a model and wrong in the first, by model.
        lost: The other way round.
        hits: Right decisions by model and class; a single column for a binary output.
        labels: Samples of each class.
    """

    names: tuple[str, ...]
    decisions: int
    right: tuple[int, ...]
    won: tuple[int, ...]
    lost: tuple[int, ...]
    hits: np.ndarray
    labels: np.ndarray

    def accuracy(self, name: str) -> float:
        """The share of right decisions of a model, in [0, 1]."""
        return self.right[self.names.index(name)] / self.decisions

    def change(self, name: str) -> tuple[float, float, float]:
        """The change of accuracy from the first model, and the ends of its 95 % interval.

        Both models decide about the same samples, so only those count in which one is right and the other wrong
        (McNemar 1947, "Note on the sampling error of the difference between correlated proportions").
        """
        place = self.names.index(name)
        won, lost, count = self.won[place], self.lost[place], self.decisions
        mean = (won - lost) / count
        # Half a decision more on each side: without it no difference seen would mean no doubt at all.
        reach = SURE * math.sqrt(max(won + lost + 1 - (won - lost) ** 2 / count, 0.0)) / count
        return mean, mean - reach, mean + reach

    def classes(self) -> list[dict[str, Any]]:
        """For each class that has samples: their number, and the share of them that each model gets right."""
        rows = []
        for index in np.flatnonzero(self.labels):
            shares = {
                name: float(self.hits[place, index] / self.labels[index]) for place, name in enumerate(self.names)
            }
            rows.append({"class": int(index), "samples": int(self.labels[index]), **shares})
        return rows


class Judges:
    """Judges the first output of several models, batch by batch.

    Args:
        model: The model that tells how its output is read.
        names: What the models are called; the first is the yardstick.
    """

    def __init__(self, model: keras.Model, names: Sequence[str]):
        self._judge, self._names = Judge(model), tuple(names)
        self._tallies = {reading: Tally(len(names)) for reading in READINGS}

    def add(self, scores: Sequence[np.ndarray], labels: np.ndarray | None) -> None:
        """Takes in one batch of the answers of all models, and its labels where there are any."""
        self._judge.see(scores[0], labels)
        if labels is not None:
            for reading in self._judge.possible:  # a later batch may leave fewer of them
                self._tallies[reading].add(reading, scores, labels)

    def result(self) -> Judged | None:
        """What all batches gave; None without labels, and for an output that decides nothing."""
        tally = self._tallies.get(self._judge.reading) if self._judge.reading else None
        if tally is None or not tally.judged:
            return None
        hits, labels = np.array([counts[0] for counts in tally.counts]), tally.counts[0][2]
        right, won, lost = (tuple(counts) for counts in (tally.right, tally.won, tally.lost))
        return Judged(self._names, tally.judged, right, won, lost, hits, labels)
