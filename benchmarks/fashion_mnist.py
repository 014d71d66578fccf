"""Accuracy at high sparsity, side by side with tfmot: the same dense network, the same recipe, two epochs of pruning.

    python benchmarks/fashion_mnist.py --seeds 0 1 2 --output docs/benchmarks/fashion_mnist
    python benchmarks/fashion_mnist.py --seeds 0 1 2 --ramp guide --output docs/benchmarks/fashion_mnist_guide

One dense CNN is trained for each seed. tfprune (`PercentilePruning(sparsity)`, all defaults) and tfmot
(`prune_low_magnitude` with `PolynomialDecay`) each prune copies of it with the same optimizer, learning rate, epochs,
batches in the same order, and moments of their schedule; `--ramp guide` gives tfmot the schedule that its own guide
writes instead, and tfprune once its default and once that one. tfmot runs in a process of its own, with Keras 2. All
results are judged here by the same code: weights loaded into the same network, files run by the same interpreter.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
from datasets import fashion_mnist
from networks import batches, compiled, fashion_cnn
from tables import BySeed, add_output, means, versions, write

import tfprune
from tfprune.command.datasets import Dataset
from tfprune.deciding import schedules
from tfprune.report import Column

DENSE_EPOCHS, EPOCHS = 3, 2
RATE, BATCH = 1e-3, 128
REPRESENTATIVE = 300
SPARSITIES = (0.8, 0.9, 0.95, 0.98, 0.99)
# Points of accuracy by which tfprune has to be ahead of tfmot.
REQUIRED = {0.8: 0.0, 0.9: 2.0, 0.95: 4.0, 0.98: 10.0, 0.99: 30.0}
GUIDED = "tfprune, that ramp"

Figures = dict[str, float]


class Comparison(BySeed):
    """Accuracy, sparsity and bytes by sparsity and tool, as means over seeds."""

    title: ClassVar[str] = "Fashion-MNIST: tfprune and tfmot at the same sparsity"
    plotted: ClassVar[str] = "accuracy"
    columns: ClassVar[Sequence[Column]] = (
        Column("tool", "tool"),
        Column("sparsity", "sparsity", ".4%"),
        Column("accuracy", "accuracy", ".2f"),
        Column("lowest", "low", ".2f"),
        Column("highest", "high", ".2f"),
        Column("ahead", "ahead", "+.2f"),
        Column("required", "needed", "+.0f"),
        Column("kilobytes", "float kB", ",.1f"),
        Column("kilobytes_gzip", "gzip", ",.1f"),
        Column("int8_accuracy", "int8 acc.", ".2f"),
        Column("int8_kilobytes", "int8 kB", ",.1f"),
        Column("int8_kilobytes_gzip", "gzip", ",.1f"),
    )

    def _row(self, key: tuple[float, str], found: list[Figures]) -> dict[str, Any]:
        target, tool = key
        row = means(found)
        accuracies = [one["accuracy"] for one in found]
        row.update({f"kilo{key}": row[key] / 1000 for key in ("bytes", "bytes_gzip")})
        row.update({f"int8_kilo{key}": row[f"int8_{key}"] / 1000 for key in ("bytes", "bytes_gzip")})
        row.update(target=target, tool=tool, lowest=min(accuracies), highest=max(accuracies))
        if tool.startswith("tfprune"):
            peer = statistics.mean(run[target, "tfmot"]["accuracy"] for run in self.runs)
            row.update(ahead=row["accuracy"] - peer, required=REQUIRED.get(target))
        return row


def compare(
    seeds: Sequence[int], sparsities: Sequence[float], dense_epochs: int, ramp: str, data: Dataset
) -> Comparison:
    """Trains, prunes by both tools and judges, seed by seed."""
    runs = []
    made_by: dict[str, str] = {}
    steps = -(-len(data.x_train) // BATCH) * EPOCHS
    for seed in seeds:
        keras.utils.set_random_seed(seed)
        dense = compiled(keras, fashion_cnn(keras), RATE)
        dense.fit(batches(data.x_train, data.y_train, BATCH, seed), epochs=dense_epochs, verbose=0)
        run = {(0.0, "dense"): judged(dense, *files_of(dense, data), data)}
        say(seed, run)
        shared = recipe(steps, seed, ramp)
        for target in sparsities:
            for tool, amount in amounts(target, shared, ramp).items():
                pruned = pruned_by_tfprune(dense, amount, data, seed)
                run[target, tool] = judged(pruned, *files_of(pruned, data), data)
                say(seed, run)
        with tempfile.TemporaryDirectory() as folder:
            made_by = run_tfmot(Path(folder), dense, sparsities, shared, data)
            for target in sparsities:
                weights = np.load(Path(folder) / f"{target}.npz")
                pruned = fashion_cnn(keras)
                pruned.set_weights([weights[name] for name in weights.files])
                files = [
                    tfprune.LiteModel.load(Path(folder) / f"{target}.{kind}.tflite") for kind in ("float32", "int8")
                ]
                run[target, "tfmot"] = judged(pruned, *files, data)
                say(seed, run)
        runs.append({key: run[key] for key in sorted(run, key=lambda key: key[0])})
    moments = recipe(steps, seeds[0], ramp)
    about = [
        f"Seeds {list(seeds)}; means over them, with the lowest and highest accuracy. Accuracy in per cent of "
        f"{len(data.y_test):,} test images. Dense network: {dense_epochs} epochs. Then {EPOCHS} epochs of pruning on "
        f"either side: Adam {RATE} afresh, batches of {BATCH} in the same order, cubic ramp from 0. "
        "tfprune: PercentilePruning(sparsity), nothing else given"
        + (f"; '{GUIDED}': given tfmot's ramp" if ramp == "guide" else "")
        + ". tfmot: the ramp "
        + ("of tfprune's default" if ramp == "same" else "that its guide writes, to the end of the run")
        + f", steps {moments['begin']} to {moments['end']} of {steps}, masks decided anew every {moments['every']}.",
        "Kilobytes (1,000 bytes) are of the .tflite file as it is and compressed with gzip. tfprune's files are by "
        "tfprune.convert, tfmot's by tf.lite.TFLiteConverter with the same settings: int8 inputs and outputs, int8 "
        f"operators only, {REPRESENTATIVE} representative images. int8 accuracy is that of the int8 file.",
        versions(**made_by),
    ]
    ramps = {"same": "one ramp", "guide": "the ramp of tfmot's guide"}
    return Comparison(runs, about, f"{Comparison.title}, by {ramps[ramp]}")


def recipe(steps: int, seed: int, ramp: str) -> dict[str, Any]:
    """What tfmot does: the defaults of tfprune in optimizer steps, or what its own guide writes."""
    schedule: Any = schedules.get(0.5)
    bound = schedule.bind(steps)
    # tfmot decides masks only at multiples of its frequency, so it would miss an end between two of them.
    end = round(bound.end / bound.every) * bound.every
    moments = {"begin": bound.begin, "end": end, "every": bound.every, "power": schedule.power}
    if ramp == "guide":  # end_step=ceil(images / batch) * epochs, frequency=100 by default
        moments = {"begin": 0, "end": steps, "every": 100, "power": 3}
    return {**moments, "epochs": EPOCHS, "batch": BATCH, "rate": RATE, "seed": seed}


def amounts(target: float, shared: dict[str, Any], ramp: str) -> dict[str, Any]:
    """What tfprune is given, by the name of its row."""
    if ramp == "same":
        return {"tfprune": target}
    # A run of so many steps ends with the one before; masks decided after it would not be trained with.
    ramp_of = {"begin": shared["begin"], "end": shared["end"] - 1, "every": shared["every"], "power": shared["power"]}
    return {"tfprune": target, GUIDED: schedules.Polynomial(0.0, target, **ramp_of)}


def pruned_by_tfprune(dense: keras.Model, amount: Any, data: Dataset, seed: int) -> keras.Model:
    model = compiled(keras, fashion_cnn(keras), RATE)
    model.set_weights(dense.get_weights())
    train = batches(data.x_train, data.y_train, BATCH, seed)
    model.fit(train, epochs=EPOCHS, callbacks=[tfprune.PercentilePruning(amount)], verbose=0)
    return tfprune.strip_masks(model)


def run_tfmot(
    folder: Path, dense: keras.Model, sparsities: Sequence[float], shared: dict[str, Any], data: Dataset
) -> dict[str, str]:
    """Lets tfmot prune the same network in its own process; returns the versions it ran with."""
    (folder / "job.json").write_text(json.dumps({**shared, "sparsities": list(sparsities)}))
    np.savez(folder / "dense.npz", *dense.get_weights())
    representative = data.x_train[:REPRESENTATIVE]
    np.savez(folder / "data.npz", x_train=data.x_train, y_train=data.y_train, representative=representative)
    command = [sys.executable, "-W", "ignore", "-m", "peers.tfmot_accuracy", str(folder)]
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
    subprocess.run(command, cwd=Path(__file__).parent, env=environment, check=True)
    found = json.loads((folder / "versions.json").read_text())
    return {name: found[name] for name in ("tfmot", "tf_keras")}


def files_of(model: keras.Model, data: Dataset) -> tuple[tfprune.LiteModel, tfprune.LiteModel]:
    representative = data.x_train[:REPRESENTATIVE]
    return tfprune.convert(model), tfprune.convert(model, "int8", representative_data=representative)


def judged(model: keras.Model, plain: tfprune.LiteModel, int8: tfprune.LiteModel, data: Dataset) -> Figures:
    kernels = [weight.numpy() for weight in model.weights if weight.name == "kernel"]
    zeros = sum(int(np.count_nonzero(kernel == 0)) for kernel in kernels)
    answers = model.predict(data.x_test, batch_size=500, verbose=0)
    return {
        "sparsity": zeros / sum(kernel.size for kernel in kernels),
        "accuracy": share_right(answers, data.y_test),
        "bytes": plain.size,
        "bytes_gzip": plain.gzip_size,
        "int8_accuracy": share_right(int8(data.x_test), data.y_test),
        "int8_bytes": int8.size,
        "int8_bytes_gzip": int8.gzip_size,
    }


def share_right(scores: np.ndarray, labels: np.ndarray) -> float:
    return 100.0 * float(np.mean(np.argmax(scores, axis=-1) == labels))


def say(seed: int, run: dict[tuple[float, str], Figures]) -> None:
    (target, tool), figures = list(run.items())[-1]
    print(f"seed {seed}: {tool} {target}: {figures['accuracy']:.2f} % at {figures['sparsity']:.4%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--sparsities", type=float, nargs="+", default=list(SPARSITIES))
    parser.add_argument("--dense-epochs", type=int, default=DENSE_EPOCHS, help="of the network that is pruned")
    parser.add_argument("--ramp", choices=["same", "guide"], default="same", help="of tfmot")
    parser.add_argument("--samples", type=int, help="training images to use; default: all")
    add_output(parser)
    arguments = parser.parse_args()
    data = fashion_mnist(arguments.samples)
    options = (arguments.seeds, arguments.sparsities, arguments.dense_epochs, arguments.ramp)
    write([compare(*options, data)], arguments.output)


if __name__ == "__main__":
    main()
