"""Which way a metric is better: asked of the metric where it knows, else told by the words of its name."""

import re
from typing import Any

import keras

from tfprune.errors import PruningError
from tfprune.model.hooks import direction_of_metric

MODES = ("max", "min")
SMALL = (
    "loss", "error", "mae", "mse", "rmse", "mape", "msle", "crossentropy", "divergence", "hinge", "poisson",
    "distance", "wer", "cer", "perplexity", "difference", "huber", "logcosh", "cosh", "fid", "deviation", "negatives",
)  # fmt: skip
LARGE = (
    "accuracy", "acc", "auc", "precision", "recall", "iou", "io", "dice", "f1", "fbeta", "score", "r2", "hit", "hits",
    "ndcg", "map", "mrr", "similarity", "sensitivity", "specificity", "psnr", "ssim", "correlation", "agreement",
    "jaccard", "bleu",
)  # fmt: skip


def mode_of(name: str, metric: Any = None) -> str | None:
    """`"max"` where a large value is better, `"min"` where a small one is, None where nothing tells.

    Args:
        name: The name under which the value is logged.
        metric: The Keras metric, where there is one.

    >>> mode_of("val_loss"), mode_of("mean_io_u"), mode_of("latitude")
    ('min', 'max', None)
    """
    known = direction_of_metric(metric) if isinstance(metric, keras.metrics.Metric) else None
    if known is not None:
        return known
    words = re.findall(r"[a-z]+[0-9]*", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower())
    small, large = (any(_says(word, known) for word in words for known in each) for each in (SMALL, LARGE))
    return None if small == large else "min" if small else "max"


def chosen_mode(name: str, mode: str | None, known: str | None, certain: bool = True) -> str:
    """The way of a metric from what was asked for and what is known of it.

    Args:
        name: The metric's name.
        mode: What the caller says; None for nothing.
        known: What the metric or its name says.
        certain: Whether the caller cannot know better.

    Raises:
        PruningError: The two contradict each other, or neither says anything.
    """
    if mode not in (None, *MODES):
        raise PruningError(f"mode={mode!r} is unknown; write mode='max' where large is better, or mode='min'.")
    if mode is not None and known is not None and mode != known and certain:
        better = "a large value" if known == "max" else "a small value"
        raise PruningError(
            f"mode={mode!r} contradicts the metric '{name}', of which {better} is better; write mode={known!r}, or "
            "leave it out."
        )
    if mode is None and known is None:
        raise PruningError(
            f"Whether a large or a small '{name}' is better cannot be told; write mode='max' or mode='min'."
        )
    return mode or known  # type: ignore[return-value]


def _says(word: str, known: str) -> bool:
    return word == known or (len(known) > 3 and known in word)
