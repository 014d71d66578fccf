"""Fake quantization: values stay float32 but take only the 256 (or 255) values that int8 can hold.

Activations are rounded over a range that is observed, learned or fixed; weights symmetrically, over the range that
their largest entry spans at each step. Both let gradients through as if they did nothing (straight-through).

Paper: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
2018.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from tfprune.errors import PruningError
from tfprune.lite.quantize.weight_bits import LEVELS

RangeMode = Literal["moving_average", "learned", "fixed"]
MODES: tuple[str, ...] = ("moving_average", "learned", "fixed")


@keras.saving.register_keras_serializable(package="tfprune")
class FakeQuantize(keras.layers.Layer):
    """Rounds its input to the 256 values that int8 can hold over one range.

    One layer may be called on several tensors that must share a scale, as the inputs of a concatenation do; each is
    then a *source* with a range of its own, and the range in use is the smallest that holds them all.

    Args:
        ranges: `"moving_average"`: of the extremes of each training batch; `"learned"`: trained like a weight, from
            calibrated values; `"fixed"`: `minimum` and `maximum` as given.
        sources: Names of the layers whose results are observed, one range each.
        momentum: Weight of the past in the moving average, in [0, 1). Defaults to 0.99.
        minimum: Smallest value of a fixed range, <= 0.
        maximum: Largest value of a fixed range, >= 0.
        float_layers: Layers before it that compute in float, each with the reason.
    """

    has_learned_ranges = True  # tells `convert` that it needs no representative data

    def __init__(
        self,
        ranges: RangeMode = "moving_average",
        sources: Sequence[str] = ("input",),
        momentum: float = 0.99,
        minimum: float | None = None,
        maximum: float | None = None,
        float_layers: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        # TensorFlow's fake quantization has float32 kernels only.
        super().__init__(**{**kwargs, "dtype": "float32"})
        if ranges not in MODES:
            raise PruningError(f"ranges={ranges!r} is unknown; use one of {', '.join(map(repr, MODES))}.")
        if not 0 <= momentum < 1:
            raise PruningError(f"momentum={momentum!r} must be in [0, 1); 0.99 averages over about 100 batches.")
        if ranges == "fixed" and (minimum is None or maximum is None or not minimum <= 0 <= maximum):
            raise PruningError(f"A fixed range must hold zero: got minimum={minimum!r}, maximum={maximum!r}.")
        self.ranges = ranges
        self.sources = list(sources)
        self.momentum = momentum
        self.minimum = minimum
        self.maximum = maximum
        self.float_layers = dict(float_layers or {})
        self.supports_masking = True
        self.observing = False  # set by `calibrate`: watch the values and pass them on unrounded

    def build(self, input_shape: Any) -> None:
        """Creates the range of each source; -6 to 6 until something is observed."""
        if self.ranges == "fixed":
            return
        shape, learned = (len(self.sources),), self.ranges == "learned"
        self.lows = self.add_weight(name="minimum", shape=shape, initializer=_constant(-6.0), trainable=learned)
        self.highs = self.add_weight(name="maximum", shape=shape, initializer=_constant(6.0), trainable=learned)
        self.batches = self.add_weight(name="batches", shape=shape, initializer="zeros", trainable=False)

    def call(
        self,
        inputs: Any,
        source: int | None = 0,
        halves_away_from_zero: bool = False,
        training: bool | None = None,
    ) -> tuple[Any, Any]:
        """Rounds `inputs`; while training or calibrating, first takes their extremes into the range of `source`.

        Args:
            inputs: Float tensor of any shape.
            source: Which range these values belong to; None when they only use the range that others set.
            halves_away_from_zero: Whether to round the mean of two neighbouring int8 values away from zero, which is
                the middle of the range there, as TFLite's average pooling does. Fake quantization rounds it up.
            training: Whether a training step runs.

        Returns:
            The rounded tensor, and the step between its values, to whose multiples the biases after it are rounded.
        """
        inputs = tf.cast(inputs, "float32")  # lookups give whole numbers where Keras says real ones
        follows = training and self.trainable and self.ranges == "moving_average"
        if source is not None and self.ranges != "fixed" and (self.observing or follows):
            self._observe(inputs, source)
        low, high = self._bounds()
        if self.observing:
            return inputs, self.step()
        if halves_away_from_zero:
            # A 512th of a step decides halves, and nothing else: means of up to 256 values are further apart.
            inputs += tf.sign(inputs - (low + 128.0 * self.step())) * self.step() / 512.0
        return tf.quantization.fake_quant_with_min_max_vars(inputs, low, high, num_bits=8), self.step()

    def range(self) -> tuple[float, float]:
        """The range in use as two plain numbers, zero always between them."""
        low, high = self._bounds()
        return float(low), float(high)

    def step(self) -> Any:
        """The distance between neighbouring values, a scalar tensor."""
        low, high = self._bounds()
        return tf.stop_gradient((high - low) / tf.constant(255.0))

    def is_observed(self) -> bool:
        """Whether every source has seen data, in training or calibration."""
        return self.ranges == "fixed" or bool(np.all(keras.ops.convert_to_numpy(self.batches) > 0))

    def forget(self) -> None:
        """Makes the next batch that is observed count as the first."""
        if self.ranges != "fixed":
            self.batches.assign(keras.ops.zeros_like(self.batches))

    def fixed(self) -> "FakeQuantize":
        """A layer of the same name that keeps the range in use for good.

        Raises:
            PruningError: The range is not finite, since training met numbers that are not.
        """
        low, high = self.range()
        if not np.isfinite([low, high]).all():
            raise PruningError(
                f"'{self.name}' has no finite range ({low} to {high}): training met infinite numbers there or before, "
                "as a border of -inf around a pooling (keras.ops.pad). Leave the border to the layer behind it, such "
                'as MaxPooling2D(padding="same"), or write a finite number, and train again.'
            )
        config = {**self.get_config(), "ranges": "fixed", "minimum": low, "maximum": high}
        return FakeQuantize.from_config(config)

    def _bounds(self) -> tuple[Any, Any]:
        if self.ranges == "fixed":
            return self.minimum, self.maximum
        low = keras.ops.minimum(keras.ops.min(self.lows), 0.0)
        high = keras.ops.maximum(keras.ops.max(self.highs), 0.0)
        # A tensor that is always zero has no scale; any will do.
        return low, keras.ops.where(high - low < 1e-7, low + 1.0, high)

    def _observe(self, inputs: Any, source: int) -> None:
        here = keras.ops.one_hot(source, len(self.sources), dtype="float32")
        # The first batches are averaged evenly; from 1 / (1 - momentum) of them on, the average moves.
        rate = keras.ops.maximum(1.0 - self.momentum, 1.0 / (self.batches + 1.0)) * here
        low = tf.stop_gradient(keras.ops.minimum(keras.ops.min(inputs), 0.0))
        high = tf.stop_gradient(keras.ops.maximum(keras.ops.max(inputs), 0.0))
        self.lows.assign(self.lows + rate * (low - self.lows))
        self.highs.assign(self.highs + rate * (high - self.highs))
        self.batches.assign(self.batches + here)

    def compute_output_spec(self, inputs: Any, **kwargs: Any) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """The shape of the input, and a scalar; Keras' own guess fails where an operation might have been sparse."""
        return keras.KerasTensor(inputs.shape, "float32"), keras.KerasTensor((), "float32")

    def get_config(self) -> dict[str, Any]:
        """The arguments of the layer."""
        config = super().get_config()
        config.update(
            ranges=self.ranges,
            sources=self.sources,
            momentum=self.momentum,
            minimum=self.minimum,
            maximum=self.maximum,
            float_layers=self.float_layers,
        )
        return config


def weight_scale(weight: Any, channel_axes: Sequence[int], bits: int = 8) -> Any:
    """The step between neighbouring integers, one for each channel: the largest magnitude over 127, or 7 in 4 bits.

    Args:
        weight: Float tensor.
        channel_axes: Axes that count output channels, as non-negative numbers; none of them for one scale.
        bits: Of the integers, 8 or 4. Defaults to 8.

    Returns:
        Tensor that broadcasts against `weight`; 1 for a channel of zeros.
    """
    others = [axis for axis in range(len(weight.shape)) if axis not in channel_axes]
    largest = keras.ops.max(keras.ops.abs(weight), axis=others, keepdims=True)
    return keras.ops.where(largest > 0, largest / LEVELS[bits], 1.0)


def fake_quantize_weight(weight: Any, scale: Any, bits: int = 8) -> Any:
    """Rounds a weight to the 255 multiples of its scale that symmetric int8 can hold; zero stays exactly zero.

    In 4 bits they are 15.
    """
    return _rounded(weight, scale, LEVELS[bits])


def fake_quantize_bias(bias: Any, scale: Any) -> Any:
    """Rounds a bias to the multiples of its scale that int32 can hold."""
    return _rounded(bias, scale, 2**31 - 1)


def _rounded(weight: Any, scale: Any, levels: int) -> Any:
    # A gradient of one's own may not capture variables.
    return _straight_through(tf.convert_to_tensor(weight), tf.stop_gradient(scale), float(levels))


@tf.custom_gradient
def _straight_through(weight: tf.Tensor, scale: tf.Tensor, levels: float) -> tuple[tf.Tensor, Any]:
    steps = tf.clip_by_value(tf.round(weight / scale), -levels, levels)
    return steps * scale, lambda gradient: (gradient, None, None)


def _constant(value: float) -> keras.initializers.Initializer:
    return keras.initializers.Constant(value)
