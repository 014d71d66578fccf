"""How time and memory of every stage grow with the parameters and with the layers of a model.

    python benchmarks/scale.py --output docs/benchmarks/scale

Each model runs in a process of its own. A stage's memory is the highest that the process reached in it, over what it
held before, in bytes for each parameter. The slope is that of the logarithm of the time over that of the size, by least
squares: 1 is linear. The floor of an update is one reading of all weights, by NumPy's sum.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PAGE = os.sysconf("SC_PAGE_SIZE")
BY_PARAMETERS = {"10 M": (10, 4), "30 M": (30, 4), "100 M": (100, 4), "300 M": (300, 4)}
BY_LAYERS = {"100 layers": (0.4096, 100), "400 layers": (1.6384, 400), "1,600 layers": (6.5536, 1600)}
LARGEST_FILE = 100  # million parameters that are converted and saved; beyond, the converter's copies fill the machine


def resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


class Stages:
    """Runs stages, and notes seconds of this process's CPU and the most memory over that before, for each."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}

    def __call__(self, name: str, work: Callable[[], Any], least: bool = False) -> Any:
        before, peak, going = resident(), [0], threading.Event()

        def watch() -> None:
            while not going.is_set():
                peak[0] = max(peak[0], resident() - before)
                time.sleep(0.002)

        watcher = threading.Thread(target=watch)
        watcher.start()
        begin = time.process_time()
        try:
            result = work()
        finally:
            seconds = time.process_time() - begin
            going.set()
            watcher.join()
        known = self.found.get(name)
        if least and known is not None:
            seconds = min(seconds, known["seconds"])
        self.found[name] = {"seconds": seconds, "bytes": max(peak[0], 0)}
        return result


def one(millions: float, layers: int) -> None:
    """Takes one model through all stages, and prints the figures as JSON."""
    import keras

    import tfprune

    sys.setrecursionlimit(max(sys.getrecursionlimit(), 20 * layers))  # Keras follows a graph by recursion
    side = round((millions * 1e6 / layers) ** 0.5)
    keras.utils.set_random_seed(0)
    kernels = [keras.layers.Dense(side, use_bias=False, name=f"dense_{number}") for number in range(layers)]
    inputs = keras.Input((side,))  # no Sequential, of which Keras loads each layer slower than the one before
    model = keras.Model(inputs, functools.reduce(lambda x, layer: layer(x), kernels, inputs))
    model.compile("sgd", "mse")
    stage = Stages()
    arrays = [np.asarray(kernel.kernel) for kernel in kernels]
    for _ in range(3):
        stage("floor: weights read once", lambda: [float(array.sum()) for array in arrays], least=True)
    updates(keras, tfprune, model, stage)
    pruned = stage("prune at once", lambda: tfprune.prune(model, tfprune.Percentile(0.8), verbose=0))
    wrapped = stage("wrap", lambda: tfprune.wrap(pruned, 0.8))
    stage("strip", lambda wrapped=wrapped: tfprune.strip_masks(wrapped))
    del wrapped
    if millions <= LARGEST_FILE:
        files(keras, tfprune, tfprune.strip_masks(pruned), stage)
    stage("summary", lambda: str(tfprune.summary(model)))
    print(json.dumps({"parameters": layers * side * side, "stages": stage.found}))


def updates(keras: Any, tfprune: Any, model: Any, stage: Stages) -> None:
    """A first update of dense weights and two later ones, for each way to decide."""
    start = model.get_weights()
    ways = {name: {"allocation": name} for name in ("uniform", "global", "lamp")}
    callbacks = {
        name: tfprune.PercentilePruning(tfprune.Linear(0.5, 0.8, 0, 2, 1), **way) for name, way in ways.items()
    }
    callbacks["2:4"] = tfprune.PercentilePruning(tfprune.Linear(0.3, 0.5, 0, 2, 1), pattern="2:4")
    callbacks["structured"] = tfprune.StructuredPruning(tfprune.Linear(0.3, 0.5, 0, 2, 1))
    for name, callback in callbacks.items():
        callback.set_model(model)
        callback.set_params({"epochs": 1, "steps": 3, "verbose": 0})
        stage(f"{name}: run begins", callback.on_train_begin)
        callback.on_epoch_begin(0)
        stage(f"{name}: first update", lambda callback=callback: callback.on_train_batch_begin(0))
        for step in (1, 2):
            stage(
                f"{name}: later update",
                lambda callback=callback, step=step: callback.on_train_batch_begin(step),
                least=True,
            )
        callback.on_train_end()
        tfprune.apply_masks(model, {key: np.ones_like(mask) for key, mask in tfprune.get_masks(model).items()})
        model.set_weights(start)


def files(keras: Any, tfprune: Any, plain: Any, stage: Stages) -> None:
    """Saved, loaded, shrunk, converted."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        stage("save", lambda: plain.save(path))
        stage("load", lambda: keras.models.load_model(path))
    stage("shrink", lambda: tfprune.shrink(plain, tfprune.plan_shrink(plain, tfprune.Structured(0.5))))
    stage("convert", lambda: tfprune.convert(plain))


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float | None:
    """The exponent of growth."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(seconds, 1e-6)), 1)[0]) if len(sizes) > 1 else None


def table(title: str, kinds: dict[str, tuple[float, int]], known: dict[str, Any]) -> Any:
    from tables import Measured, versions

    from tfprune.report import Column

    found: dict[str, Any] = {name: known[name] for name in kinds if name in known}
    failed = []
    for name, (millions, layers) in kinds.items():
        if known:
            continue
        command = [sys.executable, __file__, "--one", str(millions), str(layers)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            failed.append(f"{name}: the process ended with {done.returncode}: {done.stderr.strip()[-200:]}")
            print(failed[-1], flush=True)
            continue
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, json.dumps(found[name]), flush=True)
    stages = list(dict.fromkeys(stage for each in found.values() for stage in each["stages"]))
    rows = []
    for stage in stages:
        there = {name: each for name, each in found.items() if stage in each["stages"]}
        row: dict[str, Any] = {"stage": stage}
        row |= {name: each["stages"][stage]["seconds"] for name, each in there.items()}
        sizes = [kinds[name][1] if kinds is BY_LAYERS else each["parameters"] for name, each in there.items()]
        row["slope"] = slope(sizes, [each["stages"][stage]["seconds"] for each in there.values()])
        largest = list(there.values())[-1]
        row["bytes"] = largest["stages"][stage]["bytes"] / largest["parameters"]
        rows.append(row)
    columns = [Column("stage", "stage"), *(Column(name, f"{name}, s", ".3f") for name in found)]
    columns += [Column("slope", "slope", ".2f"), Column("bytes", "bytes a parameter", ".1f")]
    shapes = ", ".join(f"{name}: {kinds[name][1]} Dense layers" for name in found)
    return Measured(rows, [
        f"Seconds of CPU, the least of two or three for reading and later updates; {shapes}. Bytes: the most over what "
        "the process held before the stage, at the largest size, for each parameter; float32 weights take 4.",
        *failed,
        versions(),
    ], title, columns)  # fmt: skip


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        one(float(sys.argv[2]), int(sys.argv[3]))
        return
    from tables import add_output, write

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--found", type=Path, help="lines that an earlier run printed, to write the tables of")
    add_output(parser)
    options = parser.parse_args()
    known = {}
    if options.found:
        for line in options.found.read_text(encoding="utf-8").splitlines():
            name, brace, rest = line.partition(" {")
            known.update({name: json.loads(brace[1:] + rest)} if brace else {})
    tables = {"Growth with the parameters": BY_PARAMETERS, "Growth with the layers": BY_LAYERS}
    wanted = {title: kinds for title, kinds in tables.items() if not known or kinds.keys() & known.keys()}
    write([table(title, kinds, known) for title, kinds in wanted.items()], options.output)


if __name__ == "__main__":
    main()
