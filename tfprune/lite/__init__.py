"""To the device: a Keras model as a `.tflite` file, looked into, compared with its source, and timed.

In comes a trained Keras model, dense, pruned or shrunk, and data of the kind it will meet. Out come a model that has
learned with the rounding of int8 (`quantize`), which kernels take its zeros (`sparse`), its file (`convert`), what
stands in that file (`file`), what it answers and costs here, in a browser, on a microcontroller or on a phone
(`measure`), and a page that shows it all (`report`). Each of these six imports only the ones that stand before it in
the order file, quantize, sparse, convert, measure, report.
"""

from tfprune.lite.convert.convert import convert
from tfprune.lite.file.inspect import Inspection, inspect
from tfprune.lite.file.lite_model import LiteModel
from tfprune.lite.measure.benchmark import Benchmark, benchmark
from tfprune.lite.measure.explorer import node_data, write_node_data
from tfprune.lite.measure.layer_errors import LayerErrors, layer_errors
from tfprune.lite.measure.micro import MicroRun, run_micro
from tfprune.lite.measure.operator_times import OperatorTimes, time_operators
from tfprune.lite.measure.phone import phone_lines
from tfprune.lite.measure.verify import Verification, verify
from tfprune.lite.measure.why import Explanation, explain
from tfprune.lite.sparse.decoded import store_for_micro

__all__ = [
    "Benchmark",
    "Explanation",
    "Inspection",
    "LayerErrors",
    "LiteModel",
    "MicroRun",
    "OperatorTimes",
    "Verification",
    "benchmark",
    "convert",
    "explain",
    "inspect",
    "layer_errors",
    "node_data",
    "phone_lines",
    "run_micro",
    "store_for_micro",
    "time_operators",
    "verify",
    "write_node_data",
]
