"""A layer with a kernel, trained as int8 will compute it: batch norm folded in, the kernel rounded, zeros held."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.errors import PruningError
from tfprune.lite.quantize.fake_quantize import fake_quantize_bias, fake_quantize_weight, weight_scale
from tfprune.model.layers import facts_of
from tfprune.training.masks import hold, set_mask


def channel_axes(layer: keras.Layer) -> tuple[int, ...]:
    """The axes of a layer's kernel that count its output channels; each channel gets an int8 scale of its own."""
    return tuple(axis % len(layer.kernel.shape) for axis in facts_of(layer).kernels["kernel"].outputs)


@keras.saving.register_keras_serializable(package="tfprune")
class QuantizedKernel(keras.layers.Layer):
    """Computes a dense or convolutional layer with its kernel rounded to int8, one scale per output channel.

    A batch norm that follows the layer is folded into its kernel and bias, as it will be in the `.tflite`. For the
    first `freeze_batch_norm` training steps the fold follows the statistics of the batch (kernel scaled by the moving
    deviation, the result corrected by the ratio to that of the batch: Krishnamoorthi, "Quantizing deep convolutional
    networks for efficient inference", 2018); after them the moving statistics are frozen, and what trains is exactly
    what is deployed. Gamma and beta train throughout.

    Args:
        layer: Dense, convolution, transposed or depthwise convolution, with a linear activation.
        batch_norm: The batch norm over the layer's output channels. Defaults to None.
        freeze_batch_norm: Training steps after which its statistics are frozen; None (default) for never.
        held: Names of the weights whose pruned entries are held at zero, of "kernel", "bias", "gamma", "beta".
        weight_bits: Of the kernel's integers: 8, or 4 for 15 values in place of 255. Defaults to 8.
    """

    def __init__(
        self,
        layer: keras.Layer,
        batch_norm: keras.layers.BatchNormalization | None = None,
        freeze_batch_norm: int | None = None,
        held: tuple[str, ...] = (),
        weight_bits: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.layer = layer
        self.batch_norm: Any = batch_norm
        self.freeze_batch_norm = freeze_batch_norm
        self.held = tuple(held)
        self.weight_bits = weight_bits
        self.masks: dict[str, keras.Variable] = {}
        self.steps: keras.Variable | None = None
        self.supports_masking = True

    def build(self, inputs_shape: Any, scale_shape: Any = None) -> None:
        """Builds the layer and its batch norm, and creates a mask for each weight whose zeros are held."""
        if not self.layer.built:
            self.layer.build(inputs_shape)
        if self.batch_norm is not None and not self.batch_norm.built:
            self.batch_norm.build(self.layer.compute_output_shape(inputs_shape))
        if self.batch_norm is not None and self.freeze_batch_norm:
            self.steps = self.add_weight(name="steps", shape=(), dtype="int32", initializer="zeros", trainable=False)
        for name in self.held:
            weight = self.prunable()[name]
            mask = self.add_weight(
                name=f"{name}_mask", shape=weight.shape, dtype="bool", initializer="ones", trainable=False
            )
            self.masks[name] = mask
            hold(weight, mask)

    def prunable(self) -> dict[str, keras.Variable]:
        """The weights whose zeros can be held, by name."""
        found = {"kernel": self.layer.kernel, "bias": self.layer.bias}
        if self.batch_norm is not None:
            found.update(gamma=self.batch_norm.gamma, beta=self.batch_norm.beta)
        return {name: weight for name, weight in found.items() if weight is not None}

    def hold(self, masks: Mapping[str, np.ndarray]) -> None:
        """Sets the masks (True where kept) of the weights named in `held`, and zeroes what they drop."""
        for name, mask in masks.items():
            set_mask(self.prunable()[name], mask)

    def call(self, inputs: Any, scale: Any = None, training: bool | None = None) -> Any:
        """The layer's output with an int8 kernel.

        Args:
            inputs: As the layer takes them.
            scale: The step between the int8 values of the inputs; with it the bias is rounded as in the `.tflite`.
            training: Whether a training step runs.
        """
        if self.batch_norm is None or not (training and self.batch_norm.trainable) or self.freeze_batch_norm == 0:
            return self._run(inputs, *self.deployed(scale))
        if self.steps is None:
            outputs, mean, variance = self._with_batch_statistics(inputs)
        else:
            outputs, mean, variance = tf.cond(
                self.steps < self.freeze_batch_norm,
                lambda: self._with_batch_statistics(inputs),
                lambda: (self._run(inputs, *self.deployed(scale)), *self._moving()),
            )
            self.steps.assign(self.steps + 1)
        self.batch_norm.moving_mean.assign(mean)
        self.batch_norm.moving_variance.assign(variance)
        return outputs

    def deployed(self, scale: Any = None) -> tuple[Any, Any]:
        """Kernel and bias as the `.tflite` will hold them: batch norm folded in, both rounded; the bias may be None.

        Args:
            scale: The step between the int8 values of the inputs; None leaves the bias float.
        """
        kernel, bias = self._folded()
        kernel_scale = self._scale(kernel)
        kernel = fake_quantize_weight(kernel, kernel_scale, self.weight_bits)
        if bias is not None and scale is not None:
            bias = fake_quantize_bias(bias, scale * keras.ops.reshape(kernel_scale, (-1,)))
        return kernel, bias

    def in_float(self) -> tuple[Any, Any]:
        """Kernel and bias with the batch norm folded in and nothing rounded; the bias may be None."""
        return self._folded()

    def integers(self) -> np.ndarray:
        """The integers of the kernel in the `.tflite`, in Keras' layout."""
        kernel, _ = self._folded()
        steps = keras.ops.round(kernel / self._scale(kernel))
        return keras.ops.convert_to_numpy(steps).astype(np.int8)

    def _scale(self, kernel: Any) -> Any:
        return weight_scale(kernel, channel_axes(self.layer), self.weight_bits)

    def _folded(self) -> tuple[Any, Any]:
        if self.batch_norm is None:
            bias = self.layer.bias
            return self._kernel(), None if bias is None else keras.ops.convert_to_tensor(bias)
        return self._fold(*self._moving())

    def _kernel(self) -> Any:
        kernel = keras.ops.convert_to_tensor(self.layer.kernel)
        if "kernel" in self.masks:  # also where an optimizer does not apply constraints
            kernel = keras.ops.where(self.masks["kernel"], kernel, 0.0)
        return kernel

    def _run(self, inputs: Any, kernel: Any, bias: Any) -> Any:
        """The wrapped layer on another kernel and bias; a bias is added when the layer has none of its own."""
        replaced = [(self.layer.kernel, kernel)]
        if self.layer.bias is not None:
            replaced.append((self.layer.bias, keras.ops.zeros_like(self.layer.bias) if bias is None else bias))
        with keras.StatelessScope(state_mapping=replaced):
            outputs = self.layer(inputs)
        if self.layer.bias is None and bias is not None:
            outputs = outputs + bias
        return outputs

    def _moving(self) -> tuple[Any, Any]:
        norm = self.batch_norm
        return keras.ops.convert_to_tensor(norm.moving_mean), keras.ops.convert_to_tensor(norm.moving_variance)

    def _fold(self, mean: Any, variance: Any) -> tuple[Any, Any]:
        """Kernel and bias that give the layer's output normalised with these statistics."""
        gain = self._gain(variance)
        bias = 0.0 if self.layer.bias is None else self.layer.bias
        beta = 0.0 if self.batch_norm.beta is None else self.batch_norm.beta
        return self._kernel() * self._per_channel(gain), (bias - mean) * gain + beta

    def _gain(self, variance: Any) -> Any:
        gain = keras.ops.rsqrt(variance + self.batch_norm.epsilon)
        return gain if self.batch_norm.gamma is None else gain * self.batch_norm.gamma

    def _with_batch_statistics(self, inputs: Any) -> tuple[Any, Any, Any]:
        norm: Any = self.batch_norm
        plain = self._run(inputs, self._kernel(), self.layer.bias)
        mean, variance = keras.ops.moments(plain, axes=list(range(len(plain.shape) - 1)))
        moving_mean, moving_variance = self._moving()
        kernel, _ = self._fold(moving_mean, moving_variance)
        kernel = fake_quantize_weight(kernel, self._scale(kernel), self.weight_bits)
        outputs = self._run(inputs, kernel, None)
        correction = keras.ops.sqrt((moving_variance + norm.epsilon) / (variance + norm.epsilon))
        bias = self._fold(mean, variance)[1]
        keep = norm.momentum
        return (
            outputs * correction + bias,
            moving_mean * keep + tf.stop_gradient(mean) * (1.0 - keep),
            moving_variance * keep + tf.stop_gradient(variance) * (1.0 - keep),
        )

    def _per_channel(self, values: Any) -> Any:
        axes = channel_axes(self.layer)
        return keras.ops.reshape(values, [d if axis in axes else 1 for axis, d in enumerate(self.layer.kernel.shape)])

    def compute_output_shape(self, inputs_shape: Any, scale_shape: Any = None) -> Any:
        """That of the layer."""
        return self.layer.compute_output_shape(inputs_shape)

    def get_config(self) -> dict[str, Any]:
        """The layers inside, and what is held."""
        config = super().get_config()
        config.update(
            layer=keras.saving.serialize_keras_object(self.layer),
            batch_norm=keras.saving.serialize_keras_object(self.batch_norm),
            freeze_batch_norm=self.freeze_batch_norm,
            held=list(self.held),
            weight_bits=self.weight_bits,
        )
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "QuantizedKernel":
        """The layer from its config."""
        config = dict(config)
        for name in ("layer", "batch_norm"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)


def check_freeze(freeze_batch_norm: Any) -> None:
    """Raises when `freeze_batch_norm` is neither None nor a number of steps."""
    if freeze_batch_norm is None or (
        isinstance(freeze_batch_norm, int) and not isinstance(freeze_batch_norm, bool) and freeze_batch_norm >= 0
    ):
        return
    raise PruningError(
        f"freeze_batch_norm={freeze_batch_norm!r} must be a number of training steps >= 0, or None to never freeze."
    )
