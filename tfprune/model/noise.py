"""How far a figure of some samples may be off: the standard error of what a metric lost, by leaving samples out."""

import time

import numpy as np

from tfprune.errors import PruningError
from tfprune.model.data import Batch, joined
from tfprune.model.metrics import DIFFERENCE, Answers, Metric

ERRORS = 2.0  # standard errors within which another loss is no surprise
PARTS = 20
SECONDS = 30.0  # at most


def standard_error(metric: Metric, dense: Answers, answers: Answers) -> float | None:
    """The standard error of how much worse answers are than the unpruned model's to the same samples.

    Other samples would have given another loss. How far apart these losses lie is told by a jackknife (Quenouille,
    "Notes on bias in estimation", 1956): both figures are computed without one twentieth of the samples after the
    other, so any metric has one, and what both models get wrong together does not count. Samples that are sorted, by
    their class say, make it too large.

    Args:
        metric: What judges.
        dense: The unpruned model's answers to all samples of the metric.
        answers: Those that are judged.

    Returns:
        The error in the unit of the metric. None where there are fewer than two samples in a part, where the metric is
        the difference from the unpruned answers, or where it cannot be computed without some samples, or not in time.
    """
    count = int(answers[0].shape[0])
    size = count // PARTS
    if size < 2 or metric.name.split()[-1] == DIFFERENCE:
        return None
    whole, found, began = Batch(*joined([tuple(batch) for batch in metric.batches])), [], time.monotonic()
    for number in range(PARTS):
        # Parts are neighbours and all of one length: a metric may read samples in rows, as rankings do.
        rows = np.r_[: number * size, (number + 1) * size : count]
        try:
            found.append(_worse(metric, whole.taken(rows), rows, dense, answers))
        except PruningError:
            return None
        if (time.monotonic() - began) * PARTS / (number + 1) > SECONDS:
            return None
    spread = np.asarray(found) - np.mean(found)
    error = float(np.sqrt((PARTS - 1) / PARTS * np.sum(np.square(spread))))
    return error if np.isfinite(error) else None


def _worse(metric: Metric, batch: Batch, rows: np.ndarray, dense: Answers, answers: Answers) -> float:
    value, wanted = (metric.of([array[rows] for array in given], [batch]) for given in (answers, dense))
    return metric.worse(value, wanted)
