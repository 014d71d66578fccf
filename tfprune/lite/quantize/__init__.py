"""Quantization-aware training: models that learn with the rounding of int8, and convert without sample data."""

from tfprune.lite.quantize.calibration import calibrate
from tfprune.lite.quantize.frozen import frozen
from tfprune.lite.quantize.quantize_aware import is_quantized, quantize_aware
from tfprune.lite.quantize.report import QuantizationReport, quantization_report

__all__ = [
    "QuantizationReport",
    "calibrate",
    "frozen",
    "is_quantized",
    "quantization_report",
    "quantize_aware",
]
