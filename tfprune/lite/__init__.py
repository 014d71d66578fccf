"""To the device: a Keras model as a `.tflite` file, looked into, compared with its source, and timed."""

from tfprune.lite.convert import convert
from tfprune.lite.inspect import Inspection, inspect
from tfprune.lite.lite_model import LiteModel

__all__ = ["Inspection", "LiteModel", "convert", "inspect"]
