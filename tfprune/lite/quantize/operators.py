"""Pieces of activations that TFLite computes in several int8 operators."""

from typing import Any

import keras
import numpy as np

# What attention writes where it masks: e to this is nothing, and logits of a usual size keep their steps of int8 beside
# it. Keras writes -1e9 or less, beside which all logits are one.
MASKED = -30.0


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


@keras.saving.register_keras_serializable(package="tfprune")
class MatrixProduct(keras.layers.Layer):
    """The product of two batches of matrices, with what lies above the diagonal masked where it is causal.

    Args:
        causal: Whether it is. Defaults to False.
    """

    def __init__(self, causal: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.causal = causal

    def call(self, inputs: Any) -> Any:
        """The product of the first input with the second."""
        product = keras.ops.matmul(*inputs)
        if not self.causal:
            return product
        seen = np.tril(np.ones((1, 1, *product.shape[-2:]), bool))
        return keras.ops.where(seen, product, MASKED)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the product."""
        first, second = input_shape
        return (*first[:-1], second[-1])

    def get_config(self) -> dict[str, Any]:
        """Whether it is causal."""
        return {**super().get_config(), "causal": self.causal}
