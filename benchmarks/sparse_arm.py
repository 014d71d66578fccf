"""Files with zeros run by an ARM build of the runtime under qemu: are the answers right, and how many instructions go?

python benchmarks/sparse_arm.py --python "bash arm_python.sh" --counter libcount.so --output docs/benchmarks/sparse_arm

Instructions are a stand-in for time, and not time: a processor does several at once, and waits for memory. --python
runs an aarch64 Python with NumPy and tflite_runtime (or ai_edge_litert) under qemu-aarch64, passing on QEMU_OPTS;
--counter is a qemu plugin that prints "instructions N" at the end.
"""

import argparse
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
from tables import Measured, add_output, versions, write

import tfprune
from tfprune.lite import LiteModel
from tfprune.report import Column

RUNS = 40
WRONG = 1e-2  # of answers between 0.05 and 1
WORKER = """
import sys
import numpy as np
try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    from tflite_runtime.interpreter import Interpreter
runs, path, source, target = int(sys.argv[1]), *sys.argv[2:5]
interpreter = Interpreter(model_path=path, num_threads=1)
interpreter.allocate_tensors()
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.load(source))
for _ in range(runs):
    interpreter.invoke()
np.save(target, interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
"""


class OnArm(Measured):
    title: ClassVar[str] = "Instructions of an ARM build under qemu: a stand-in for time, not time"
    columns: ClassVar[Sequence[Column]] = (
        Column("file", "file"),
        Column("bytes", "bytes", ",d"),
        Column("instructions", "instructions", ",d"),
        Column("fewer", "times fewer", ".2f"),
        Column("difference", "ARM - x86", ".1e"),
        Column("answers", "answers"),
    )

    def rows(self) -> list[dict[str, Any]]:
        """The rows, without the instructions of what answers wrong, which say nothing."""
        return [
            {**row, "answers": "right"}
            if row["difference"] < WRONG
            else {**row, "answers": "WRONG", "instructions": None, "fewer": None}
            for row in self.found
        ]


def mlp(zeros: float, block: int) -> keras.Model:
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(1024, activation="relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((784,)), *hidden, keras.layers.Dense(10)])
    generator = np.random.default_rng(0)
    for layer in model.layers[:2]:
        rows, columns = layer.kernel.shape
        kept = generator.random((rows // block, columns)) >= zeros
        layer.kernel.assign(layer.kernel.numpy() * np.repeat(kept, block, axis=0))
    return model


def mobilenet(zeros: float) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNet(input_shape=(96, 96, 3), alpha=0.5, weights=None, classes=10)
    plan = tfprune.plan_sparse(model, "web")
    pruned = tfprune.prune(plan.model, plan.method(zeros)) if zeros else plan.model
    return tfprune.strip_masks(pruned)


def files() -> dict[str, LiteModel]:
    rows = np.random.default_rng(1).normal(size=(50, 784)).astype(np.float32)
    result = {"MLP, float32, dense": tfprune.convert(mlp(0.0, 4))}
    for zeros in (0.8, 0.9):
        result[f"MLP, float32, {zeros:.0%} in 1x4"] = tfprune.convert(mlp(zeros, 4), sparse="size")
    result["MLP, int8, dense"] = tfprune.convert(mlp(0.0, 16), "int8", rows)
    for zeros in (0.9, 0.95):
        result[f"MLP, int8, {zeros:.0%} in 1x16"] = tfprune.convert(mlp(zeros, 16), "int8", rows, sparse="size")
    for zeros in (0.0, 0.8, 0.9):
        name = f"{zeros:.0%} in 1x1" if zeros else "dense"
        result[f"MobileNet, float32, {name}"] = tfprune.convert(mobilenet(zeros), sparse=True)
    return result


def counted(lite: LiteModel, python: Sequence[str], counter: Path) -> tuple[int, np.ndarray]:
    """Instructions of one run, and its answer: what many runs take more than one, by their number."""
    with tempfile.TemporaryDirectory() as folder:
        model, source, target = lite.save(Path(folder) / "m.tflite"), f"{folder}/x.npy", f"{folder}/y.npy"
        end = lite.inputs[0]
        x = np.random.default_rng(5).normal(size=end.shape).astype(np.float32)
        np.save(source, end.quantized(x))
        found = []
        for runs in (1, 1 + RUNS):
            words = [*python, "-c", WORKER, str(runs), str(model), source, target]
            environment = {**os.environ, "QEMU_OPTS": f"-plugin {counter}", "PYTHONHASHSEED": "0"}
            said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stderr
            found.append(int(re.findall(r"instructions (\d+)", said)[-1]))
        return (found[1] - found[0]) // RUNS, lite.outputs[0].dequantized(np.load(target))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=shlex.split, required=True)
    parser.add_argument("--counter", type=Path, required=True)
    parser.add_argument("--runtime", default="", help="what the aarch64 Python has, for the notes")
    add_output(parser)
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    first = 1
    for name, lite in files().items():
        instructions, answer = counted(lite, arguments.python, arguments.counter.resolve())
        first = instructions if name.endswith("dense") else first
        x = np.random.default_rng(5).normal(size=lite.inputs[0].shape).astype(np.float32)
        found.append(
            {
                "file": name,
                "bytes": lite.size,
                "instructions": instructions,
                "fewer": first / instructions,
                "difference": float(np.abs(answer - lite(x)).max()),
            }
        )
        print(found[-1], flush=True)
    about = [
        "Random weights, one thread, one sample; times fewer: against the dense file above. Hidden layers of 1024; "
        "MobileNet of keras.applications, alpha 0.5, 96 pixels, written by plan_sparse.",
        f"{arguments.runtime} Instructions of ARMv8 that qemu executes for one run, which are no milliseconds.",
        versions(),
    ]
    write([OnArm(found, about)], arguments.output)


if __name__ == "__main__":
    main()
