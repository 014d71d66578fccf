"""Sizes that an opened model has of the first call of a subclassed one, which may take others too."""

from collections.abc import Iterator

import keras
import numpy as np

from tfprune.model.inline.inputs import sample
from tfprune.model.inline.opening import Opened
from tfprune.model.inline.sizes import InputSpec
from tfprune.model.signature import recorded_signature


def sizes_of_the_call(model: keras.Model, found: Opened) -> Iterator[str]:
    """Says for which sizes a graph stands where its model runs with others, in a sentence."""
    if recorded_signature(model) is not None or not _takes_others(model, found):
        return
    fixed = [f"'{spec.name}' of shape {spec.shape}" for spec in found.inputs.specs if _other_sizes(spec) != spec.shape]
    yield (
        f"The opened model takes {', '.join(fixed)} alone, as '{model.name}' was first called, which runs with "
        "others too. To leave a size open, give an example in which it differs: tfprune.inline(model, data=inputs)."
    )


def _takes_others(model: keras.Model, found: Opened) -> bool:
    others = [_other_sizes(spec) for spec in found.inputs.specs]
    if others == [spec.shape for spec in found.inputs.specs]:
        return False
    generator = np.random.default_rng(0)
    flat = [
        sample(spec, [size or (8 if axis else 2) for axis, size in enumerate(shape)], generator)
        for spec, shape in zip(found.inputs.specs, others)
    ]
    try:
        with keras.StatelessScope():
            found.inputs.call(model, flat, training=False)
    except Exception:  # these sizes are none for the model
        return False
    return True


def _other_sizes(spec: InputSpec) -> tuple[int | None, ...]:
    """Images of twice the size, whatever strides and skips are in the model; sequences shorter than tables by one."""
    batch, *sizes = spec.shape
    inner = sizes[:-1] if len(sizes) > 1 else sizes
    twice = len(sizes) > 2
    others = [size if size is None or size < 2 else 2 * size if twice else size - 1 for size in inner]
    return (batch, *others, *sizes[len(inner) :])
