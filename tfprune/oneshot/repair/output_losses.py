"""What the model's outputs lose as one group gives more and more of its channels.

The error of a layer does not tell what it does to the model's answers: a block that turns its residual stream little
may lose most of its heads, the first one none. So some channels of one group at a time are taken out of the model, in
the order in which they are missed least, the layers that listen to them make up for it, and the outputs are looked at.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import keras
import numpy as np

from tfprune.model.data import Batch, input_specs
from tfprune.model.tree import as_array

# At so many numbers of channels the outputs of each group are looked at; between them the error is taken as even.
LEVELS = 8


class ModelOutputs:
    """The outputs of a model while its weights are exchanged for a moment.

    Args:
        model: A copy of the user's model.
        data: Batches of inputs.
    """

    def __init__(self, model: keras.Model, data: Sequence[Batch]):
        import tensorflow as tf

        @tf.function(input_signature=[input_specs(list(data))], autograph=False)
        def run(inputs: Any) -> Any:
            return [tf.cast(output, tf.float32) for output in keras.tree.flatten(model(inputs, training=False))]

        self._run, self._data = run, data
        self._before = [[np.asarray(output) for output in run(batch.inputs)] for batch in data]
        energies = [[np.sum(np.square(o - o.mean(axis=0))) for o in outputs] for outputs in self._before]
        self._energies = np.maximum(np.sum(energies, axis=0), np.finfo(np.float32).tiny)

    def error(self, values: Iterable[tuple[Any, np.ndarray]]) -> float:
        """The squared change of the outputs over their variance, the mean over all outputs of the model.

        Args:
            values: Variables of the model with what stands in them for the moment.
        """
        values = list(values)
        old = [(variable, as_array(variable)) for variable, _ in values]
        try:
            for variable, value in values:
                variable.assign(value)
            errors = np.zeros(len(self._energies))
            for batch, before in zip(self._data, self._before):
                now = self._run(batch.inputs)
                errors += [np.sum(np.square(np.asarray(one) - other)) for one, other in zip(now, before)]
        finally:
            for variable, value in reversed(old):
                variable.assign(value)
        return float(np.mean(errors / self._energies))


def levels(gone: int, most: int) -> list[int]:
    """The numbers of channels at which the outputs are looked at, from those that are gone to the most that may go.

    >>> levels(0, 3), levels(0, 63)
    ([1, 2, 3], [8, 16, 24, 32, 39, 47, 55, 63])
    """
    return [int(level) for level in np.unique(np.linspace(gone, most, LEVELS + 1).round()) if level > gone]


def increases(errors: Mapping[int, float], gone: int, size: int) -> np.ndarray:
    """By how much the error grows with each channel that goes: the slopes of the convex line below what was measured.

    Args:
        errors: The error by the number of channels that are gone, 0 at `gone`.
        gone: Channels that are gone already, which cost nothing.
        size: How many channels there are; those beyond the largest number may not go.

    >>> increases({1: 0.1, 3: 0.2, 4: 1.2}, gone=0, size=5).round(3)
    array([0.067, 0.067, 0.067, 1.   ,   inf])
    """
    line = [(gone, 0.0)]
    for number in sorted(errors):
        point = (number, max(errors[number], line[-1][1]))
        while len(line) > 1 and _slope(line[-2], line[-1]) >= _slope(line[-1], point):
            line.pop()
        line.append(point)
    found = np.full(size, np.inf)
    found[:gone] = -np.inf
    for one, other in pairwise(line):
        found[one[0] : other[0]] = _slope(one, other)
    return found


def _slope(one: tuple[int, float], other: tuple[int, float]) -> float:
    return (other[1] - one[1]) / (other[0] - one[0])
