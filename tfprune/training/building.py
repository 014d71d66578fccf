"""A model that `fit` would build in its first step, built before it, so that its weights are masked from the start."""

import inspect
from collections.abc import Iterator
from typing import Any

import keras

from tfprune.errors import PruningError
from tfprune.model.data import batches
from tfprune.model.tree import has_no_call, is_built


def build_as_fit_would(model: keras.Model) -> None:
    """Builds a model on the first sample of the data that the running `fit` was given; else leaves it as it is.

    A `Sequential` without an Input and a subclass that was never called are without weights when callbacks begin. Data
    that can be read only once, as from a generator, are left to `fit`.
    """
    if is_built(model) or has_no_call(model):
        return
    data = _data_of_fit(model)
    if data is None or isinstance(data, Iterator):
        return
    first = next(iter(batches(data, model, "fit", argument="x", at_most=1)))
    try:
        model(first.inputs, training=False)
    except Exception as error:
        raise PruningError(
            f"'{model.name}' ({type(model).__name__}) has no weights yet, and cannot be called on what fit was given: "
            f"{' '.join(str(error).split())[:200]} Call it once on data of its own before fit, or its parts."
        ) from error


def _data_of_fit(model: keras.Model) -> Any:
    """What `fit` of this model was given, where it stands above on the stack; a callback is not told."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            return frame.f_locals.get("x")
        frame = frame.f_back
    return None
