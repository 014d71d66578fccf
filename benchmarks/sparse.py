"""Zeros that pay: Dense layers pruned in the blocks that LiteRT's kernels read, timed beside the dense network.

python benchmarks/sparse.py --seeds 0 1 2 --output docs/benchmarks/sparse_dense    trained networks
python benchmarks/sparse.py kernels --output docs/benchmarks/sparse_kernels         random weights, the times alone
python benchmarks/sparse.py web --output docs/benchmarks/sparse_web                 a MobileNet in LiteRT.js
python benchmarks/sparse.py applications --output docs/benchmarks/sparse_applications
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import sparse_applications
import sparse_web
from datasets import fashion_mnist
from tables import BySeed, Measured, add_output, versions, write

import tfprune
from tfprune.command.datasets import Dataset
from tfprune.lite import LiteModel
from tfprune.lite.measure.benchmark import filled
from tfprune.report import Column

EPOCHS, PRUNING_EPOCHS, BATCH, CALIBRATION, UNITS = 5, 2, 128, 1000, 1024

Figures = dict[str, dict[str, Any]]


class Paying(BySeed):
    """Accuracy, bytes and time of each file, and how they stand to the dense network."""

    title: ClassVar[str] = "Dense layers with zeros in blocks, Fashion-MNIST"
    columns: ClassVar[Sequence[Column]] = (
        Column("file", "file"),
        Column("zeros", "zeros", ".0%"),
        Column("accuracy", "accuracy", ".2f"),
        Column("drop", "below dense", ".2f"),
        Column("worst", "worst seed", ".2f"),
        Column("bytes", "bytes", ",d"),
        Column("smaller", "smaller", ".1f"),
        Column("microseconds", "us", ".1f"),
        Column("faster", "faster", ".2f"),
    )

    def _row(self, key: Any, found: list[dict[str, Any]]) -> dict[str, Any]:
        """A row against the dense file in float32 for accuracy, against that of the same numbers for the rest."""
        drops = [run["dense, float32"]["accuracy"] - one["accuracy"] for run, one in zip(self.runs, found)]
        numbers = "int8" if "int8" in key else "float32"
        peers = [run[f"dense, {numbers}"] for run in self.runs]
        return {
            "file": key,
            "zeros": found[0]["zeros"],
            "accuracy": statistics.mean(one["accuracy"] for one in found),
            "drop": statistics.mean(drops),
            "worst": max(drops),
            "bytes": found[0]["bytes"],
            "smaller": statistics.mean(peer["bytes"] / one["bytes"] for peer, one in zip(peers, found)),
            "microseconds": statistics.mean(one["microseconds"] for one in found),
            "faster": statistics.mean(peer["microseconds"] / one["microseconds"] for peer, one in zip(peers, found)),
        }


class Kernels(Measured):
    """Bytes and time of each file, and how they stand to the dense one of the same width and numbers."""

    title: ClassVar[str] = "Dense layers with zeros in blocks: the times alone"
    columns: ClassVar[Sequence[Column]] = (
        Column("file", "file"),
        Column("zeros", "zeros", ".0%"),
        Column("bytes", "bytes", ",d"),
        Column("smaller", "smaller", ".1f"),
        Column("least", "us, least", ".1f"),
        Column("faster", "faster", ".2f"),
        Column("median", "us, median", ".1f"),
        Column("faster_median", "faster, median", ".2f"),
    )


def network(units: int = UNITS) -> keras.Model:
    hidden = [keras.layers.Dense(units, activation="relu", name=name) for name in ("first", "second")]
    model = keras.Sequential(
        [keras.Input((28, 28, 1), name="image"), keras.layers.Flatten(), *hidden, keras.layers.Dense(10, name="scores")]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    return model


def pruned(dense: keras.Model, data: Dataset, method: Any) -> keras.Model:
    """The network after two epochs of gradual pruning from the dense one."""
    model = network()
    model.set_weights(dense.get_weights())
    steps = PRUNING_EPOCHS * -(-len(data.x_train) // BATCH)
    model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    callback = tfprune.PruningCallback(method)
    model.fit(data.x_train, data.y_train, batch_size=BATCH, epochs=PRUNING_EPOCHS, verbose=0, callbacks=[callback])
    return tfprune.strip_masks(model)


def files(dense: keras.Model, data: Dataset) -> dict[str, tuple[LiteModel, float]]:
    """Every file by name, with its share of zeros."""
    images = data.x_train[:CALIBRATION]
    result = {
        "dense, float32": (tfprune.convert(dense), 0.0),
        "dense, int8": (tfprune.convert(dense, "int8", images), 0.0),
    }
    for quantization, amounts in (("float32", (0.9, 0.95)), ("int8", (0.9, 0.95))):
        plan = tfprune.plan_sparse(dense, quantization=quantization)
        calibration = images if quantization == "int8" else None
        for amount in amounts:
            plain = pruned(dense, data, plan.method(amount))
            name = f"{plan.method(amount).pattern.height}x1, {quantization}, two epochs"
            result[f"{name}, {amount:.0%}"] = (tfprune.convert(plain, quantization, calibration, sparse="size"), amount)
    plan = tfprune.plan_sparse(dense)
    method = tfprune.Percentile(
        0.8, pattern="4x1", allocation="uniform", layers=[found.layer for found in plan.prunable]
    )
    for amount, reorder in ((0.8, False), (0.8, True), (0.9, False), (0.9, True)):
        once = tfprune.prune(dense, method.with_amount(amount), images, reconstruct=True, reorder=reorder)
        name = f"4x1, float32, at once, {amount:.0%}" + ", reordered" * reorder
        result[name] = (tfprune.convert(tfprune.strip_masks(once), sparse="size"), amount)
    return result


def timed(models: dict[str, LiteModel], rounds: int = 400) -> dict[str, list[float]]:
    """Microseconds of processor time of runs taken in turns, since others run beside."""
    ready = {name: filled(lite, 1, True) for name, lite in models.items()}
    found: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(rounds):
        for name, runner in ready.items():
            for _ in range(5):
                begin = time.thread_time_ns()
                runner.invoke()
                found[name].append((time.thread_time_ns() - begin) / 1e3)
    return found


def kernels(widths: Sequence[int] = (1024, 2048)) -> list[dict[str, Any]]:
    """The rows of the table of kernels: random weights, random blocks."""
    images = np.random.default_rng(0).uniform(size=(100, 28, 28, 1)).astype(np.float32)
    rows = []
    for units in widths:
        models, zeros = {}, {}
        for quantization, block in (("float32", 4), ("int8", 16)):
            data = images if quantization == "int8" else None
            for amount in (0.0, 0.8, 0.9, 0.95):
                keras.utils.set_random_seed(0)
                model = network(units)
                if amount:
                    method = tfprune.Percentile(
                        amount, pattern=f"{block}x1", allocation="uniform", layers=["first", "second"]
                    )
                    model = tfprune.strip_masks(tfprune.prune(model, method))
                name = f"{units}, {quantization}, {f'1x{block}' if amount else 'dense'} {amount:.0%}"
                models[name] = tfprune.convert(model, quantization, data, sparse="size" if amount else False)
                zeros[name] = amount
        times = timed(models, 150)
        for name, lite in models.items():
            dense = name.rsplit(", ", 1)[0] + ", dense 0%"
            least, median = ({key: pick(found) for key, found in times.items()} for pick in (min, statistics.median))
            rows.append(
                {
                    "file": name,
                    "zeros": zeros[name],
                    "bytes": lite.size,
                    "smaller": models[dense].size / lite.size,
                    "least": least[name],
                    "faster": least[dense] / least[name],
                    "median": median[name],
                    "faster_median": median[dense] / median[name],
                }
            )
    return rows


def measure_kernels(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="The times of Dense layers alone.")
    add_output(parser)
    arguments = parser.parse_args(words)
    about = [
        "Two hidden layers of so many units on 784 inputs, random weights, one sample; blocks along the inputs; stored "
        "with convert(sparse='size'). Time: processor time of one thread, 750 runs in turns, native LiteRT; the least "
        "is that of warm caches, the median that of a machine on which others run.",
        versions(),
    ]
    write([Kernels(kernels(), about)], arguments.output)


def measured(seed: int, data: Dataset) -> Figures:
    """The figures of one seed."""
    keras.utils.set_random_seed(seed)
    dense = network()
    dense.fit(data.x_train, data.y_train, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    made = files(dense, data)
    times = {name: min(found) for name, found in timed({name: lite for name, (lite, _) in made.items()}).items()}
    figures = {}
    for name, (lite, zeros) in made.items():
        right = lite(data.x_test).argmax(axis=-1) == data.y_test
        figures[name] = {
            "zeros": zeros,
            "accuracy": 100 * float(right.mean()),
            "bytes": lite.size,
            "microseconds": times[name],
        }
        print(seed, name, figures[name], flush=True)
    return figures


def main() -> None:
    others = {"kernels": measure_kernels, "web": sparse_web.main, "applications": sparse_applications.main}
    if sys.argv[1:2] and sys.argv[1] in others:
        others[sys.argv[1]](sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add_output(parser)
    arguments = parser.parse_args()
    data = fashion_mnist()
    runs: list[Figures] = []
    for seed in arguments.seeds:
        runs.append(measured(seed, data))
        about = [
            f"Seeds {arguments.seeds[: len(runs)]}; means over them. Two hidden layers of {UNITS}, {EPOCHS} epochs of "
            f"Adam; then {PRUNING_EPOCHS} epochs of gradual pruning with plan_sparse(...).method(amount), or at once "
            f"with reconstruct=True from {CALIBRATION:,} unlabelled images (reordered: reorder=True). Accuracy is that "
            "of the file on the test images, against the dense float32 file; smaller and faster are against the dense "
            "file of the same type.",
            "Time: processor time of one thread, the least of 2,000 runs in turns, native LiteRT on this machine.",
            versions(),
        ]
        write([Paying(runs, about)], arguments.output)


if __name__ == "__main__":
    main()
