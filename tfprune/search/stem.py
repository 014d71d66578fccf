"""The first layers of a model, in which no channel depends on whether another one is left.

What they give at full width is computed once for all candidates; a candidate takes the channels that it keeps.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.model.graph import Call, called, flow
from tfprune.model.layers import facts_of, is_entrywise, keeps_channels_apart

Places = Mapping[str, Sequence[tuple[str, int, np.ndarray]]]

PRODUCERS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Dense)


@dataclass(frozen=True)
class Settled:
    """A tensor that is the same for every candidate, but for the channels that it takes.

    Attributes:
        place: The number of the call that makes it; below 0 for an input of the model.
        groups: The channel groups on its last axis that may lose some, and where each channel lies.
    """

    place: int
    groups: tuple[tuple[str, np.ndarray], ...] = ()


class Stem:
    """The calls of a model whose results no candidate changes.

    Args:
        model: A functional or Sequential model.
        places: Key of a weight -> the channel groups that lie on it, on which axis, at which positions.

    Attributes:
        ends: Number of a call -> its result, for those that are read outside of the stem.
    """

    def __init__(self, model: keras.Model, places: Places):
        self._model, self._places = model, places
        self._inside: set[int] = set()
        self._widths: dict[int, int] = {}
        self.ends: dict[int, Settled] = {}
        numbers = itertools.count()
        inputs: list[Settled | None] = [Settled(-1 - number) for number in range(len(model.inputs))]
        for value in flow(model, inputs, lambda call: [self._follow(call, next(numbers))] * len(call.outputs)):
            self._end(value)

    def __contains__(self, number: int) -> bool:
        return number in self._inside

    def __call__(self, inputs: Any) -> dict[int, Any]:
        """The results at its ends, at full width."""
        numbers = itertools.count()
        found: dict[int, Any] = {}

        def visit(call: Call) -> Sequence[Any]:
            number = next(numbers)
            if number not in self._inside:
                return [None] * len(call.outputs)
            results = called(call)
            if number in self.ends:
                found[number] = results[0]
            return results

        flow(self._model, keras.tree.flatten(inputs), visit)
        return found

    def width(self, number: int) -> int:
        """The size of the last axis of a result."""
        return self._widths[number]

    def chosen(self, number: int, keep: Mapping[str, np.ndarray]) -> np.ndarray:
        """The matrix that takes the channels to keep from the result of a call.

        A product with it costs less than gathering along the last axis, and changes no finite number.
        """
        kept = np.ones(self._widths[number], bool)
        for name, positions in self.ends[number].groups:
            if name in keep:
                kept[positions[~keep[name]].ravel()] = False
        return np.eye(len(kept), dtype="float32")[:, kept]

    def _follow(self, call: Call, number: int) -> Settled | None:
        """What a call gives, None where candidates change it."""
        values = [value for value in keras.tree.flatten((call.args, call.kwargs)) if isinstance(value, Settled)]
        found = self._result(call, number, values)
        if found is None:
            for value in values:
                self._end(value)
        else:
            self._inside.add(number)
            self._widths[number] = int(call.outputs[0].shape[-1] or 0)
        return found

    def _result(self, call: Call, number: int, values: Sequence[Settled]) -> Settled | None:
        if len(values) != len(call.node.input_tensors) or len(call.outputs) != 1 or call.outputs[0].shape[-1] is None:
            return None
        if getattr(call.operation, "data_format", None) == "channels_first":
            return None
        losing = {key: places for key, places in self._places.items() if key.startswith(call.path + "/")}
        if not any(value.groups for value in values):  # whole tensors
            if not losing:
                return Settled(number)
            return self._produced(call, number, losing) if type(call.operation) in PRODUCERS else None
        return Settled(number, values[0].groups) if _is_by_channel(call) else None

    def _produced(self, call: Call, number: int, losing: Places) -> Settled | None:
        """The result of the layer that makes channels, where it reads whole tensors."""
        rank = len(call.operation.kernel.shape)
        entries = losing.get(f"{call.path}/kernel", ())
        if any(axis % rank != rank - 1 for _, axis, _ in entries) or not is_entrywise(call.operation.activation):
            return None
        return Settled(number, tuple((name, positions) for name, _, positions in entries))

    def _end(self, value: Settled | None) -> None:
        if value is not None and value.place >= 0:
            self.ends[value.place] = value


def _is_by_channel(call: Call) -> bool:
    layer = call.operation
    if isinstance(layer, keras.layers.BatchNormalization):
        return layer.axis in (-1, len(call.outputs[0].shape) - 1)
    if facts_of(layer).is_depthwise:
        return layer.depth_multiplier == 1 and is_entrywise(layer.activation)
    return keeps_channels_apart(layer) or (type(layer) is keras.layers.Activation and is_entrywise(layer))
