"""Running a model on a part of its channels without building it anew.

The kept slices of the weights are the inputs of one compiled function, whose axes of channels have no fixed size: so a
candidate with half of the channels costs about a quarter, and nothing is compiled for it.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.channels.groups import ChannelGroups
from tfprune.models import as_array
from tfprune.nodes import Call, flow
from tfprune.prunable import every_weight

Keep = Mapping[str, np.ndarray]
Weights = dict[str, Any]
TOLERANCE = 1e-4  # of the largest answer: sums are taken in another order


class UnsupportedError(Exception):
    """A layer that is not known here; the model has to be run with masks."""


class ThinModel:
    """A model whose channels can be left out from call to call.

    Args:
        model: A functional or Sequential model.
        groups: Its channel groups.

    Raises:
        UnsupportedError: A layer that loses channels is of a kind that is not known here.
    """

    def __init__(self, model: keras.Model, groups: ChannelGroups):
        self._model, self._groups = model, groups
        self._dense = {weight.key: as_array(weight.variable) for weight in every_weight(model)}
        self._members: dict[str, list[tuple[str, int, np.ndarray]]] = {}
        for name, group in groups.free.items():
            for member in group.members:
                self._members.setdefault(member.key, []).append((name, member.axis, member.positions))
        self._check()

    @property
    def specs(self) -> Weights:
        """What a compiled function has to expect as weights."""
        import tensorflow as tf

        found = {}
        for key, places in self._members.items():
            array = self._dense[key]
            open_axes = {axis % array.ndim for _, axis, _ in places}
            shape = [None if axis in open_axes else size for axis, size in enumerate(array.shape)]
            found[key] = tf.TensorSpec(shape, array.dtype)
        return found

    def weights(self, keep: Keep) -> Weights:
        """The slices of the weights that are left.

        Args:
            keep: Group name -> True for each channel to keep; other groups stay whole.
        """
        found = {}
        for key, places in self._members.items():
            array = self._dense[key]
            kept = {axis % array.ndim: np.ones(array.shape[axis], bool) for _, axis, _ in places}
            for name, axis, positions in places:
                if name in keep:
                    kept[axis % array.ndim][positions[~keep[name]].ravel()] = False
            for axis, vector in kept.items():
                if not vector.all():
                    array = np.compress(vector, array, axis=axis)
            found[key] = np.ascontiguousarray(array)
        return found

    def __call__(self, weights: Weights, inputs: Any) -> Any:
        """The model's answers with these weights; to be called inside a compiled function."""
        flat = keras.tree.flatten(inputs)
        outputs = flow(self._model, flat, lambda call: self._visit(call, weights))
        return outputs[0]

    def _visit(self, call: Call, weights: Weights) -> Sequence[Any]:
        layer = call.operation
        if isinstance(layer, keras.layers.Flatten):
            return [_flattened(layer, call.args[0])]
        if not any(key.startswith(call.path + "/") for key in self._members):
            kwargs = {**call.kwargs, "training": False} if _has_training(layer) else call.kwargs
            return keras.tree.flatten(layer(*call.args, **kwargs))
        own = {
            name: weights[key] if (key := f"{call.path}/{name}") in weights else self._dense[key]
            for name in ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
            if f"{call.path}/{name}" in self._dense
        }
        return [_computed(layer, call.args[0], own)]

    def _check(self) -> None:
        """Raises for layers that lose channels and are not known here."""

        def visit(call: Call) -> list[Any]:
            loses = any(key.startswith(call.path + "/") for key in self._members)
            if loses and not _is_known(call.operation):
                raise UnsupportedError(call.path)
            return list(call.outputs)

        flow(self._model, list(self._model.inputs), visit)
        if len(self._model.outputs) != 1:
            raise UnsupportedError("several outputs")


def _is_known(layer: Any) -> bool:
    kinds = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.BatchNormalization)
    plain = getattr(layer, "groups", 1) == 1 and getattr(layer, "padding", None) != "causal"
    return type(layer) in kinds and plain and not getattr(layer, "lora_enabled", False)


def _has_training(layer: Any) -> bool:
    return isinstance(layer, keras.Layer) and "training" in inspect.signature(layer.call).parameters


def _computed(layer: Any, x: Any, own: Weights) -> Any:
    """What a layer gives with other weights than its own."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return keras.ops.batch_normalization(
            x, own["moving_mean"], own["moving_variance"], layer.axis, own.get("beta"), own.get("gamma"), layer.epsilon
        )
    if isinstance(layer, keras.layers.Dense):
        y = keras.ops.matmul(x, own["kernel"])
    else:
        y = keras.ops.conv(
            x,
            own["kernel"],
            strides=layer.strides,
            padding=layer.padding,
            data_format=layer.data_format,
            dilation_rate=layer.dilation_rate,
        )
    if "bias" in own:
        first = getattr(layer, "data_format", None) == "channels_first"
        bias = keras.ops.reshape(own["bias"], (1, -1, *[1] * (len(x.shape) - 2))) if first else own["bias"]
        y = y + bias
    return y if layer.activation is None else layer.activation(y)


def _flattened(layer: Any, x: Any) -> Any:
    """Flatten, for axes whose size is known only while running."""
    import tensorflow as tf

    if layer.data_format == "channels_first" and len(x.shape) > 2:
        x = keras.ops.moveaxis(x, 1, -1)
    return tf.reshape(x, (tf.shape(x)[0], -1))
