"""One short rule for each kind of layer: how it is computed in int8."""

from tfprune.lite.quantize.rules import activations, attention, kernels, plain  # noqa: F401 - each registers its rules
from tfprune.lite.quantize.rules.registry import RULES, Use, quantize_call

__all__ = ["RULES", "Use", "quantize_call"]
