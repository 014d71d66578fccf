"""Statistics of batch norm after pruning: moved by what pruning changed, or measured anew."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tfprune.model.activations import observed, trained
from tfprune.model.data import Batch
from tfprune.model.hooks import calls_by
from tfprune.model.tree import as_array, places


class Moments(NamedTuple):
    """The mean and variance of each channel of so many samples."""

    mean: np.ndarray
    variance: np.ndarray
    samples: int

    @classmethod
    def of(cls, mean: Any, variance: Any, samples: int) -> "Moments":
        """Moments from tensors or variables."""
        return cls(as_array(mean).astype(np.float64), as_array(variance).astype(np.float64), samples)


class Norm:
    """A batch norm of the pruned model beside that of the dense one."""

    def __init__(self, layer: Any, reference: Any):
        self.layer, self.plain = layer, layer.call
        self.mean, self.variance = as_array(reference.moving_mean), as_array(reference.moving_variance)
        self.awaited: list[Moments] = []  # of the dense model's calls on the present batch, in order
        self.seen: list[tuple[Moments, Moments]] = []

    def listen(self, inputs: Any) -> None:
        """Takes up a call of the dense model."""
        self.awaited.append(self._moments(inputs))

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """A call of the pruned model: by the statistics that fit this batch, as those after it expect."""
        self.seen.append((self._moments(inputs), self.awaited.pop(0)))
        self._move(*self.seen[-1])
        return self.plain(inputs, training=False, mask=mask)

    def finish(self) -> None:
        """Writes the statistics that fit all batches."""
        if self.seen:
            self._move(*(_together(calls) for calls in zip(*self.seen, strict=True)))

    def restore(self) -> None:
        """Writes the statistics of the dense model."""
        self.layer.moving_mean.assign(self.mean)
        self.layer.moving_variance.assign(self.variance)

    def _moments(self, inputs: Any) -> Moments:
        rank = len(inputs.shape)
        axes = [axis for axis in range(rank) if axis != self.layer.axis % rank]
        mean, variance = keras.ops.moments(keras.ops.cast(inputs, "float32"), axes)
        return Moments.of(mean, variance, len(inputs))

    def _move(self, own: Moments, dense: Moments) -> None:
        """Statistics by which inputs of moments `own` become what those of moments `dense` were to the dense layer."""
        epsilon = float(self.layer.epsilon)
        ratio = np.where(own.variance > 0, (own.variance + epsilon) / (dense.variance + epsilon), 0.0)
        self.layer.moving_mean.assign(self.mean * np.sqrt(ratio) + (own.mean - dense.mean * np.sqrt(ratio)))
        self.layer.moving_variance.assign(np.maximum((self.variance + epsilon) * ratio - epsilon, 0.0))


def move_statistics(pruned: keras.Model, dense: keras.Model, data: Sequence[Batch]) -> list[str]:
    """Moves the statistics of every batch norm by what pruning changed in its inputs, in place.

    A norm of the pruned model then makes of its inputs, as far as their mean and variance go, what that of the dense
    model makes of its own. So nothing changes where nothing was pruned, whatever the data: they need not be distributed
    like those that the model was trained on. Where they are, the statistics become those of the data.

    Args:
        pruned: The model, which is changed.
        dense: A copy of the model before pruning, which is called and left as it is.
        data: Batches of inputs.

    Returns:
        The paths of the layers.
    """
    layers, references = _norms(pruned), _norms(dense)
    if not layers:
        return []
    norms = [Norm(layer, references[path]) for path, layer in layers.items()]
    by_layer = {id(layer): norm for layer, norm in zip(layers.values(), norms)}
    by_reference = {id(references[path]): norm for path, norm in zip(layers, norms)}
    try:
        for batch in data:
            with observed(references.values(), lambda layer, given, _: by_reference[id(layer)].listen(given)):
                dense(batch.inputs, training=False)
            with calls_by(layers.values(), lambda layer: by_layer[id(layer)].call):
                pruned(batch.inputs, training=False)
    except BaseException:
        for norm in norms:
            norm.restore()
        raise
    for norm in norms:
        norm.finish()
    return list(layers)


def _together(calls: Sequence[Moments]) -> Moments:
    samples = sum(call.samples for call in calls)
    shares = [call.samples / samples for call in calls]
    mean = np.sum([share * call.mean for share, call in zip(shares, calls)], axis=0)
    # The variance over all samples also holds that of the batches' means.
    square = np.sum([share * (call.variance + call.mean**2) for share, call in zip(shares, calls)], axis=0)
    return Moments(mean, np.maximum(square - mean**2, 0.0), samples)


def _norms(model: keras.Model) -> dict[str, Any]:
    found = {place.path: place.layer for place in places(model)}
    return {path: layer for path, layer in found.items() if isinstance(layer, keras.layers.BatchNormalization)}


def recalibrate(model: keras.Model, data: Sequence[Batch], forward: Callable[[Any], Any] | None = None) -> list[str]:
    """Measures the mean and variance of every batch norm anew, in place; dropout and the like stay off.

    Every batch is normalised by its own statistics on the way, as in training.

    Args:
        model: The model.
        data: Batches of inputs.
        forward: A compiled `model(inputs, training=False)` that is first called here and used for nothing else, where
            a model is recalibrated many times. Defaults to None: the model itself is called.

    Returns:
        The paths of the layers.
    """
    norms = _norms(model)
    if not norms:
        return []
    layers = list(norms.values())
    before = [(layer.momentum, layer.trainable) for layer in layers]
    seen: list[list[Moments]] = [[] for _ in layers]
    try:
        for layer in layers:
            # With momentum 0 the moving statistics are those of the batch; a frozen layer would not measure any.
            layer.momentum, layer.trainable = 0.0, True
        with trained(layers):
            for batch in data:
                model(batch.inputs, training=False) if forward is None else forward(batch.inputs)
                for layer, moments in zip(layers, seen):
                    moments.append(Moments.of(layer.moving_mean, layer.moving_variance, batch.size))
    finally:
        for layer, (momentum, trainable) in zip(layers, before):
            layer.momentum, layer.trainable = momentum, trainable
    for layer, moments in zip(layers, seen):
        mean, variance, _ = _together(moments)
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)
    return list(norms)
