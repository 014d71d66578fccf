"""Some of the training data: to search channels by, and to find the ranges of activations with."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfprune.model.data import Batch, batches, joined, whole_batch


def some_samples(train: Any, model: keras.Model, count: int) -> Batch:
    """Samples from all over arrays, which may be sorted; the first ones of data that come in batches."""
    whole = whole_batch(train, model, "compress", "train")
    if whole is None:
        read = batches(train, model, "compress", argument="train", at_most=count)
        whole = Batch(*joined([tuple(batch) for batch in read]))
    return spread(whole, count)


def spread(samples: Batch, count: int) -> Batch:
    """So many of the samples, at equal distances."""
    rows = np.linspace(0, samples.size - 1, min(count, samples.size)).astype(int)
    return samples.taken(rows)


def reads_rows(metric: Any) -> bool:
    """Whether a metric may be one of the validation data alone: functions of the user's may read samples in rows.

    All others are asked of training samples in a search, so that those that decide have not been searched by.
    """
    kinds = metric.values() if isinstance(metric, Mapping) else [metric]
    return any(callable(each) and not isinstance(each, keras.metrics.Metric) for each in kinds)
