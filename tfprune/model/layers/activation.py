"""Activations: which layers are one, and which functions treat every entry by itself."""

from typing import Any

import keras

ENTRYWISE = {
    *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish", "mish", "tanh"),
    *("sigmoid", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "hard_shrink", "soft_shrink", "tanh_shrink"),
    *("softplus", "softsign", "squareplus", "sparse_plus", "sparse_sigmoid", "log_sigmoid", "exponential", "exp"),
    *("threshold", "identity"),
}
MIXING = {"softmax", "log_softmax", "sparsemax", "glu"}
# Layers that are one and the same function of every entry.
ENTRYWISE_LAYERS = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU)


def is_activation(layer: Any) -> bool:
    """Whether a layer is an activation: one of functions of single entries, or of softmax and its kin."""
    return isinstance(layer, (keras.layers.Activation, keras.layers.PReLU, *ENTRYWISE_LAYERS))


def is_entrywise(activation: Any) -> bool:
    """Whether an activation, or what a layer has as one, is a known function of single entries."""
    if isinstance(activation, keras.layers.Activation):
        return is_entrywise(activation.activation)
    return activation is None or isinstance(activation, ENTRYWISE_LAYERS) or _is_one_of(activation, ENTRYWISE)


def is_mixing(activation: Any) -> bool:
    """Whether an activation is a known function of several entries at once."""
    if isinstance(activation, keras.layers.Activation):
        return is_mixing(activation.activation)
    return _is_one_of(activation, MIXING)


def _is_one_of(function: Any, names: set[str]) -> bool:
    module = str(getattr(function, "__module__", "")).split(".")[0]
    return module in ("keras", "tensorflow") and getattr(function, "__name__", "") in names
