"""Running a model on a part of its channels without building it anew.

The kept slices of the weights are the inputs of one compiled function, whose axes of channels have no fixed size: so a
candidate with half of the channels costs about a quarter, and nothing is compiled for it. What that gains over masks at
full width, and the stem over computing the first layers anew, is measured in docs/benchmarks/search_speed.md.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.channels import ChannelGroups
from tfprune.model.graph import Call, called, flow
from tfprune.model.prunable import every_weight
from tfprune.model.tree import as_array
from tfprune.search.stem import Stem

Keep = Mapping[str, np.ndarray]
Weights = dict[str, Any]
LARGEST = 512 * 2**20  # bytes of the stem's results
TOLERANCE = 1e-4  # of the largest answer: sums are taken in another order


class UnsupportedError(Exception):
    """A layer that is not known here; the model has to be run with masks."""


class ThinModel:
    """A model whose channels can be left out from call to call.

    Args:
        model: A functional or Sequential model.
        groups: Its channel groups.

    Attributes:
        stem: The first layers, whose results are given in place of being computed; None to compute all.
        largest: Bytes of its largest activation, of one sample.

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
        self.largest = 1
        self._check()
        self.stem: Stem | None = Stem(model, self._members)

    @property
    def _chosen_ends(self) -> list[tuple[int, Stem]]:
        """The results of the stem of which candidates take channels, by their numbers."""
        return [(number, self.stem) for number, end in self.stem.ends.items() if end.groups] if self.stem else []

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
        for number, stem in self._chosen_ends:
            found[_chosen(number)] = tf.TensorSpec([stem.width(number), None], "float32")
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
        for number, stem in self._chosen_ends:
            found[_chosen(number)] = stem.chosen(number, keep)
        return found

    def __call__(self, weights: Weights, inputs: Any, settled: Mapping[str, Any]) -> Any:
        """The model's answers with these weights; to be called inside a compiled function.

        Args:
            weights: What `weights` gave.
            inputs: Of the model.
            settled: What `settled` gave for these inputs; empty without a stem.
        """
        numbers = itertools.count()

        def visit(call: Call) -> Sequence[Any]:
            number = next(numbers)
            if self.stem is None or number not in self.stem:
                return self._visit(call, weights)
            if str(number) not in settled:
                return [None] * len(call.outputs)
            whole = settled[str(number)]
            return [_chosen_of(whole, weights[_chosen(number)]) if _chosen(number) in weights else whole]

        return flow(self._model, keras.tree.flatten(inputs), visit)[0]

    def settled(self, data: Sequence[Any]) -> list[dict[str, Any]]:
        """What the stem gives for batches of inputs; nothing, from then on, where that is too large or not finite."""
        found: list[dict[str, Any]] = []
        size = 0
        for inputs in data:
            results = (
                {str(number): np.asarray(result) for number, result in self.stem(inputs).items()} if self.stem else {}
            )
            size += sum(result.nbytes for result in results.values())
            if size > LARGEST or not all(np.isfinite(result).all() for result in results.values()):
                self.stem = None
                return [{} for _ in data]
            found.append(results)
        return found

    def _visit(self, call: Call, weights: Weights) -> Sequence[Any]:
        layer = call.operation
        if isinstance(layer, keras.layers.Flatten):
            return [_flattened(layer, call.args[0])]
        if not any(key.startswith(call.path + "/") for key in self._members):
            return called(call)
        own = {
            name: weights[key] if (key := f"{call.path}/{name}") in weights else self._dense[key]
            for name in ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
            if f"{call.path}/{name}" in self._dense
        }
        return [_computed(layer, call.args[0], own)]

    def _check(self) -> None:
        """Raises for layers that lose channels and are not known here."""

        def visit(call: Call) -> list[Any]:
            for output in call.outputs:
                entries = math.prod(size or 1 for size in output.shape[1:])
                self.largest = max(self.largest, 4 * entries)
            loses = any(key.startswith(call.path + "/") for key in self._members)
            if loses and not _is_known(call.operation):
                kind = type(call.operation).__name__
                raise UnsupportedError(f"'{call.path}' ({kind}) loses channels in a way that is not known here.")
            return list(call.outputs)

        flow(self._model, list(self._model.inputs), visit)
        if len(self._model.outputs) != 1:
            raise UnsupportedError("the model has several outputs.")


def _is_known(layer: Any) -> bool:
    kinds = (
        keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.DepthwiseConv2D,
        keras.layers.BatchNormalization,
    )  # fmt: skip
    plain = getattr(layer, "groups", 1) == 1 and getattr(layer, "padding", None) != "causal"
    return type(layer) in kinds and plain and not getattr(layer, "lora_enabled", False)


def _chosen(number: int) -> str:
    """The name of the matrix that takes channels from a result of the stem."""
    return f"channels of {number}"


def _chosen_of(whole: Any, matrix: Any) -> Any:
    """The channels that a matrix takes."""
    import tensorflow as tf

    flat = tf.matmul(tf.reshape(whole, (-1, whole.shape[-1])), tf.cast(matrix, whole.dtype))
    taken = tf.reshape(flat, tf.concat([tf.shape(whole)[:-1], tf.shape(flat)[-1:]], axis=0))
    taken.set_shape([*whole.shape[:-1], None])
    return taken


def _computed(layer: Any, x: Any, own: Weights) -> Any:
    """What a layer gives with other weights than its own."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return keras.ops.batch_normalization(
            x, own["moving_mean"], own["moving_variance"], layer.axis, own.get("beta"), own.get("gamma"), layer.epsilon
        )
    if isinstance(layer, keras.layers.Dense):
        y = keras.ops.matmul(x, own["kernel"])
    else:
        convolved = keras.ops.depthwise_conv if isinstance(layer, keras.layers.DepthwiseConv2D) else keras.ops.conv
        y = convolved(
            x,
            own["kernel"],
            strides=layer.strides,
            padding=layer.padding,
            data_format=layer.data_format,
            dilation_rate=layer.dilation_rate,
        )
    if "bias" in own:
        y = _with_bias(layer, y, own["bias"])
    return y if layer.activation is None else layer.activation(y)


def _with_bias(layer: Any, y: Any, bias: Any) -> Any:
    """The sum with a bias, in the form that TensorFlow computes along with the product before it."""
    import tensorflow as tf

    if getattr(layer, "data_format", None) == "channels_first":
        return y + keras.ops.reshape(bias, (1, -1, *[1] * (len(y.shape) - 2)))
    return tf.nn.bias_add(y, tf.cast(bias, y.dtype))


def _flattened(layer: Any, x: Any) -> Any:
    """Flatten, for axes whose size is known only while running."""
    import tensorflow as tf

    if layer.data_format == "channels_first" and len(x.shape) > 2:
        x = keras.ops.moveaxis(x, 1, -1)
    return tf.reshape(x, (tf.shape(x)[0], -1))
