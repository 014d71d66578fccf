"""Who pays: what each class, or each quarter of the targets, lost between two models, and whether one pays too much.

A group is said to pay too much when it loses more than three times what samples lose on average, and that is beyond
chance: a one-sided z test of "it loses at most three times the average", over its samples, at one percent divided by
the number of groups. Two samples, one that lost and one that gained, are added to each group (after Agresti and Min,
"Simple improved confidence intervals for comparing matched proportions", 2005), so that few samples tell little.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TIMES = 3.0  # the average
LEVEL = 0.01  # of the test, over all groups together
SHOWN = 3
QUARTERS = 4


@dataclass(frozen=True)
class GroupLoss:
    """What one class, or one range of targets, lost.

    Attributes:
        name: The class, or the range.
        samples: How many samples are of it.
        before, after: The share of right decisions in both models; of values the mean absolute error.
        lost: By how much it became worse.
        average: By how much samples became worse on average.
        p: How likely so large a loss is by chance where the group loses three times the average.
        pays: Whether it loses more than three times the average, beyond chance.
    """

    name: str
    samples: int
    before: float
    after: float
    lost: float
    average: float
    p: float
    pays: bool


class Payers:
    """Collects, batch by batch, what two models got right of each class, or how far off they were.

    Args:
        decisions: Whether they decide; else they give values.
    """

    def __init__(self, decisions: bool):
        self._decisions = decisions
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add_decisions(self, truth: np.ndarray, before: np.ndarray, after: np.ndarray, of_columns: bool) -> None:
        """Takes in decisions about one batch.

        Args:
            truth: The right ones, of any shape behind the axis of samples.
            before, after: Those of the models.
            of_columns: Whether the last axis holds several decisions of yes or no, each a group of its own.
        """
        groups = np.broadcast_to(np.arange(truth.shape[-1]), truth.shape) if of_columns else truth
        for groups_of, *right in zip(groups, before == truth, after == truth):
            # Decisions about one sample are no samples of their own: their mean in each class is one.
            kinds, places, counts = np.unique(groups_of, return_inverse=True, return_counts=True)
            first, second = (np.bincount(places.reshape(-1), each.reshape(-1).astype(float)) / counts for each in right)
            self._parts.append((kinds, first, second))

    def add_values(self, truth: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
        """Takes in values about one batch, and what they should have been."""
        axes = tuple(range(1, truth.ndim))
        first, second = (np.abs(np.asarray(each, float) - truth).mean(axis=axes) for each in (before, after))
        self._parts.append((np.asarray(truth, float).mean(axis=axes), first, second))

    def result(self) -> tuple[GroupLoss, ...]:
        """What each group lost, the one that lost most first; none where there is a single group."""
        if not self._parts:
            return ()
        keys, before, after = (np.concatenate(parts) for parts in zip(*self._parts))
        names, groups = self._named(keys)
        if len(names) < 2:
            return ()
        worse = before - after if self._decisions else after - before
        found = [self._loss(names, number, groups == number, before, after, worse) for number in range(len(names))]
        return tuple(sorted(found, key=lambda group: -group.lost))

    def _named(self, keys: np.ndarray) -> tuple[list[str], np.ndarray]:
        if self._decisions:
            kinds, groups = np.unique(keys, return_inverse=True)
            return [f"class {kind}" for kind in kinds], groups.reshape(-1)
        edges = np.unique(np.quantile(keys, np.linspace(0, 1, QUARTERS + 1)))
        groups = np.clip(np.searchsorted(edges, keys, side="right") - 1, 0, max(len(edges) - 2, 0))
        return [f"targets {low:.3g} to {high:.3g}" for low, high in itertools.pairwise(edges)], groups

    def _loss(
        self, names: Sequence[str], number: int, among: np.ndarray, before: Any, after: Any, worse: Any
    ) -> GroupLoss:
        mine, average = worse[among], float(worse.mean())
        lost = float(mine.mean()) if mine.size else 0.0
        p = _chance(mine, 1.0 if self._decisions else float(np.sqrt(np.mean(worse**2))), TIMES * max(average, 0.0))
        pays = lost > TIMES * max(average, 0.0) and p < LEVEL / len(names)
        first, second = (float(each[among].mean()) if mine.size else 0.0 for each in (before, after))
        return GroupLoss(names[number], int(mine.size), first, second, lost, average, p, pays)


def sentences(groups: Sequence[GroupLoss], decisions: bool, output: str = "") -> list[str]:
    """Who lost most, and a warning for each group that pays too much."""
    if not groups:
        return []

    def text(loss: float) -> str:
        return f"{100 * loss:.1f} points" if decisions else f"{loss:.3g}"

    of = f" of {output}" if output else ""
    lost = [f"{group.name} {text(group.lost)} ({group.samples} samples)" for group in groups[:SHOWN] if group.lost > 0]
    said = [f"Lost most{of}: {', '.join(lost)}; on average {text(groups[0].average)}."] if lost else []
    for group in groups:
        if group.pays:
            said.append(
                f"WARNING: {group.name}{of} pays for the others: it loses {text(group.lost)}, more than {TIMES:g} "
                f"times the average of {text(group.average)} and beyond chance (z test, p = {group.p:.1g} below "
                f"{LEVEL / len(groups):.1g})."
            )
    return said


def _chance(worse: np.ndarray, scale: float, limit: float) -> float:
    """How likely so large a mean is where the true one is the limit."""
    if not scale:
        return 1.0
    samples = np.concatenate([worse, [scale, -scale]])
    deviation = float(samples.std()) / math.sqrt(len(samples))
    return 0.5 * math.erfc((float(samples.mean()) - limit) / deviation / math.sqrt(2))
