"""Labels in any form that callers give them in, as one array for each output of a model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfprune.errors import PruningError, listing
from tfprune.model.data import real_array


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
        array = None if values is None else real_array(values, "labels")
        if array is not None and (array.ndim == 0 or np.isnan(array.astype(np.float32, copy=False)).any()):
            wrong = "hold NaN" if array.ndim else "are one value for each sample, and a single one came"
            raise PruningError(f"labels {wrong}.")
        if array is not None and labels is not None:
            array = array[part]
        if array is not None and len(array) != count:
            raise PruningError(f"There are fewer labels than samples: {part.start + len(array)} labels.")
        result.append(array)
    return result


def require_all_used(labels: Any, samples: int) -> None:
    """Raises where there are more labels than samples."""
    parts = labels.values() if isinstance(labels, Mapping) else [] if labels is None else [labels]
    for values in parts:
        if isinstance(values, np.ndarray) and len(values) != samples:
            raise PruningError(f"There are {len(values)} labels for {samples} samples.")
