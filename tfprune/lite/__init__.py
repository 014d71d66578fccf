"""To the device: a Keras model as a `.tflite` file, looked into, compared with its source, and timed."""

from tfprune.lite.benchmark import Benchmark, benchmark
from tfprune.lite.convert import convert
from tfprune.lite.inspect import Inspection, inspect
from tfprune.lite.layer_errors import LayerErrors, layer_errors
from tfprune.lite.lite_model import LiteModel
from tfprune.lite.micro import MicroRun, run_micro
from tfprune.lite.operator_times import OperatorTimes, time_operators
from tfprune.lite.phone import phone_lines
from tfprune.lite.verify import Verification, verify

__all__ = [
    "Benchmark",
    "Inspection",
    "LayerErrors",
    "LiteModel",
    "MicroRun",
    "OperatorTimes",
    "Verification",
    "benchmark",
    "convert",
    "inspect",
    "layer_errors",
    "phone_lines",
    "run_micro",
    "time_operators",
    "verify",
]
