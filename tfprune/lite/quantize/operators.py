"""Pieces of activations that TFLite computes in several int8 operators."""

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="tfprune")
class Scaled(keras.layers.Layer):
    """Multiplies its input by one number: a single MUL, where Rescaling adds an offset as well.

    Args:
        factor: The number.
    """

    def __init__(self, factor: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """The product."""
        return inputs * self.factor

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The factor."""
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable(package="tfprune")
def shifted_relu6(x: Any) -> Any:
    """min(max(x + 3, 0), 6), the first operator of a hard sigmoid."""
    return keras.ops.relu6(x + 3.0)
