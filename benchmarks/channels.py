"""Structured pruning measured: accuracy after fine-tuning, and what removing channels does to size and latency.

    python benchmarks/channels.py accuracy --output docs/benchmarks/channels_accuracy
    python benchmarks/channels.py latency --output docs/benchmarks/channels_latency

`accuracy` prunes a small CNN on Fashion-MNIST by one recipe and prints, seed by seed and as mean and spread: the dense
network, the pruned one right away, after batch-norm recalibration, and fine-tuned; the same with random channels; the
small network trained from scratch for as many epochs; and the dense network trained on for as long as the pruned one.
`latency` takes random-weight networks, removes channels, and times the float32 and int8 files before and after.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import ai_edge_litert
import keras
import numpy as np
from datasets import fashion_mnist
from networks import compiled
from tables import Measured, add_output, versions, write

import tfprune
from tfprune.lite.measure.operator_times import time_operators
from tfprune.report import Column, Report

layers = keras.layers

DENSE_EPOCHS, PRUNING_EPOCHS, TUNING_EPOCHS = 3, 2, 4
RATE, LOW_RATE, TUNING_RATE = 1e-3, 3e-4, 5e-4
BATCH = 128
# At least 60 % of the parameters; the MACs that go with them are measured.
METHOD: dict[str, Any] = {"amount": 0.62, "budget": "parameters", "round_to": 8}


def network() -> keras.Model:
    """A CNN of a quarter million weights for 28x28 images."""
    inputs = x = keras.Input((28, 28, 1))
    for width, pooled in ((16, True), (32, False), (64, True), (128, True)):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.MaxPooling2D()(x) if pooled else x
    x = layers.Dense(128, activation="relu")(layers.Flatten()(x))
    return compiled(keras, keras.Model(inputs, layers.Dense(10)(x)), RATE)


class Accuracies(Report):
    """Test accuracy by stage over seeds."""

    title: ClassVar[str] = "Fashion-MNIST, structured pruning"
    columns: ClassVar[Sequence[Column]] = (
        Column("stage", "network"),
        Column("parameters", "parameters", ".1%"),
        Column("macs", "MACs", ".1%"),
        Column("mean", "accuracy, mean", ".2f"),
        Column("spread", "lowest to highest"),
        Column("lost", "points lost, mean", ".2f"),
    )

    def __init__(self, runs: list[dict[str, dict[str, float]]], seeds: Sequence[int]):
        self.runs, self.seeds = runs, list(seeds)

    def rows(self) -> list[dict[str, Any]]:
        rows = []
        for stage in self.runs[0]:
            found = [run[stage] for run in self.runs]
            accuracies = [100 * one["accuracy"] for one in found]
            dense = statistics.mean(100 * run["dense"]["accuracy"] for run in self.runs)
            rows.append(
                {
                    "stage": stage,
                    "parameters": statistics.mean(one["parameters"] for one in found),
                    "macs": statistics.mean(one["macs"] for one in found),
                    "mean": statistics.mean(accuracies),
                    "spread": f"{min(accuracies):.2f} to {max(accuracies):.2f}",
                    "lost": dense - statistics.mean(accuracies),
                }
            )
        return rows

    def notes(self) -> list[str]:
        return [
            f"Seeds {self.seeds}; Structured({METHOD}); {DENSE_EPOCHS} epochs dense and one at the low rate, "
            f"{PRUNING_EPOCHS} with channels fading out, {TUNING_EPOCHS} fine-tuning the small network; batches of "
            f"{BATCH}; Adam {RATE}, the low rate {LOW_RATE}, fine-tuning from {TUNING_RATE} to 0 along a cosine.",
            versions(),
        ]


def accuracy(seeds: Sequence[int], samples: int | None) -> Accuracies:
    data = fashion_mnist()
    x, y = data.x_train[:samples], data.y_train[:samples]
    test = (data.x_test, data.y_test)
    runs = []
    for seed in seeds:
        keras.utils.set_random_seed(seed)
        dense = network()
        dense.fit(x, y, batch_size=BATCH, epochs=DENSE_EPOCHS, verbose=0)
        dense.optimizer.learning_rate = LOW_RATE  # a last epoch at the low rate, so that the start is no accident
        dense.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
        whole = tfprune.summary(dense)
        run: dict[str, dict[str, float]] = {}

        def record(stage: str, model: keras.Model, whole: Any = whole, run: Any = run, seed: int = seed) -> None:
            counts = tfprune.summary(model)
            reached = float(model.evaluate(*test, batch_size=500, verbose=0)[1])
            run[stage] = {
                "accuracy": reached,
                "parameters": counts.parameters / whole.parameters,
                "macs": counts.macs / whole.macs,
            }
            print(f"seed {seed}: {stage}: {run[stage]}", flush=True)

        record("dense", dense)
        for criterion in ("l2", "random"):
            method = tfprune.Structured(**METHOD, criterion=criterion)
            record(f"{criterion}, pruned at once", tfprune.shrink(tfprune.strip_masks(tfprune.prune(dense, method))))
            repaired = tfprune.prune(dense, method, data=x[:2000], reconstruct="batch_norm")
            record(f"{criterion}, at once + batch norm", tfprune.shrink(tfprune.strip_masks(repaired)))
            fading = keras.models.clone_model(dense)
            fading.set_weights(dense.get_weights())
            compiled(keras, fading, RATE)
            callback = tfprune.PruningCallback(method)
            fading.fit(x, y, batch_size=BATCH, epochs=PRUNING_EPOCHS, verbose=0, callbacks=[callback])
            small = tuned(tfprune.shrink(tfprune.strip_masks(fading)), x, y)
            record(f"{criterion}, fine-tuned", small)
            if criterion == "l2":
                architecture = small
        scratch = compiled(keras, keras.models.clone_model(architecture), RATE)
        scratch.fit(x, y, batch_size=BATCH, epochs=DENSE_EPOCHS + 1 + PRUNING_EPOCHS, verbose=0)
        record("same small network from scratch", tuned(scratch, x, y))
        dense.optimizer.learning_rate = RATE
        dense.fit(x, y, batch_size=BATCH, epochs=PRUNING_EPOCHS, verbose=0)
        record("dense, trained as long", tuned(dense, x, y))
        runs.append(run)
    return Accuracies(runs, seeds)


def tuned(model: keras.Model, x: np.ndarray, y: np.ndarray) -> keras.Model:
    """The model after the last part of the training, in which the learning rate falls to zero."""
    steps = TUNING_EPOCHS * -(-len(x) // BATCH)
    compiled(keras, model, keras.optimizers.schedules.CosineDecay(TUNING_RATE, steps))
    model.fit(x, y, batch_size=BATCH, epochs=TUNING_EPOCHS, verbose=0)
    return model


def compute_bound() -> keras.Model:
    """A VGG-like CNN at 96x96, whose time goes into wide 3x3 convolutions."""
    inputs = x = keras.Input((96, 96, 3))
    for width in (32, 64, 128):
        for _ in range(2):
            x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.MaxPooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)), name="vgg_like")


def application(name: str) -> Callable[[], keras.Model]:
    return lambda: getattr(keras.applications, name)(weights=None, input_shape=(96, 96, 3), classes=10)


NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "VGG-like CNN": compute_bound,
    "ResNet50": application("ResNet50"),
    "MobileNetV2": application("MobileNetV2"),
    "EfficientNetB0": application("EfficientNetB0"),
    "DenseNet121": application("DenseNet121"),
}


PROFILED = ("VGG-like CNN",)


class Latencies(Measured):
    """Size and latency before and after channels are removed."""

    title: ClassVar[str] = "Removing channels: size and latency"
    columns: ClassVar[Sequence[Column]] = (
        Column("network", "network"),
        Column("parameters", "parameters", ".3f"),
        Column("macs", "MACs", ".3f"),
        Column("float_bytes", "float bytes", ".3f"),
        Column("float_ms", "float ms"),
        Column("float_latency", "float latency", ".3f"),
        Column("float_over_macs", "float latency / MACs", ".2f"),
        Column("int8_bytes", "int8 bytes", ".3f"),
        Column("int8_ms", "int8 ms"),
        Column("int8_latency", "int8 latency", ".3f"),
        Column("int8_over_macs", "int8 latency / MACs", ".2f"),
    )

    def notes(self) -> list[str]:
        return [
            "Figures without a unit are after / before. Random weights, one thread, files timed in turn in one run; ms "
            "are medians, before -> after. int8 has a floor that MACs do not show: layers with few input channels, "
            "widths that are no multiple of the SIMD tile, pooling and the first and last layers cost what they cost.",
            versions(LiteRT=ai_edge_litert.__version__),
        ]


class Operators(Measured):
    """Every operator of an int8 file before and after, timed alone: where the floor of int8 is."""

    title: ClassVar[str] = "int8, operator by operator"
    columns: ClassVar[Sequence[Column]] = (
        Column("network", "network"),
        Column("operator", "operator"),
        Column("before_macs", "MACs before", ",d"),
        Column("macs", "MACs", ".3f"),
        Column("before_ms", "ms before", ".4f"),
        Column("after_ms", "ms after", ".4f"),
        Column("latency", "latency", ".2f"),
    )

    def notes(self) -> list[str]:
        return [
            "MACs and latency are after / before. Each operator is timed as a file of its own, so the start of a run, "
            "a few microseconds, is in each figure. The first layer reads 3 channels however few it makes; pooling and "
            "sums move bytes and multiply nothing; convolutions follow their MACs only as far as whole SIMD tiles go."
        ]


def operators(name: str, before: tfprune.LiteModel, after: tfprune.LiteModel, runs: int) -> list[dict[str, Any]]:
    """The operators of two files of one structure side by side."""
    rows = []
    for old, new in zip(*(time_operators(lite, runs=runs).operators for lite in (before, after))):
        timed = old.milliseconds is not None and new.milliseconds is not None
        rows.append(
            {
                "network": name,
                "operator": old.operator,
                "before_macs": old.macs,
                "macs": new.macs / old.macs if old.macs else None,
                "before_ms": old.milliseconds,
                "after_ms": new.milliseconds,
                "latency": new.milliseconds / old.milliseconds if timed else None,
            }
        )
    return rows


def latency(names: Sequence[str], amount: float, runs: int) -> list[Report]:
    found, profile = [], []
    for name in names:
        keras.utils.set_random_seed(0)
        model = NETWORKS[name]()
        generator = np.random.default_rng(0)
        for layer in model._flatten_layers(include_self=False):
            if isinstance(layer, layers.BatchNormalization):
                layer.set_weights([generator.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
        method = tfprune.Structured(amount, budget="macs", allocation="uniform", round_to=8)
        small = tfprune.shrink(model, tfprune.plan_shrink(model, method))
        images = generator.random((16, *model.input_shape[1:]), "float32")
        files = {}
        for label, network in (("before", model), ("after", small)):
            files[f"float {label}"] = tfprune.convert(network)
            files[f"int8 {label}"] = tfprune.convert(network, quantization="int8", representative_data=images)
        timed = {row["model"]: row for row in tfprune.benchmark(files, runs=runs).rows()}
        before, after = tfprune.summary(model), tfprune.summary(small)
        row: dict[str, Any] = {
            "network": name,
            "parameters": after.parameters / before.parameters,
            "macs": after.macs / before.macs,
        }
        for kind in ("float", "int8"):
            old, new = timed[f"{kind} before"], timed[f"{kind} after"]
            ratio = new["median_ms"] / old["median_ms"]
            row[f"{kind}_bytes"] = new["bytes"] / old["bytes"]
            row[f"{kind}_ms"] = f"{old['median_ms']:.3f} -> {new['median_ms']:.3f}"
            row[f"{kind}_latency"] = ratio
            row[f"{kind}_over_macs"] = ratio / row["macs"]
        print(json.dumps(row), flush=True)
        found.append(row)
        if name in PROFILED:
            profile += operators(name, files["int8 before"], files["int8 after"], runs)
    return [
        Latencies(found, title=f"Removing {amount:.0%} of the MACs: size and latency"),
        *([Operators(profile)] if profile else []),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["accuracy", "latency"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, help="training images to use; default: all")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--amount", type=float, default=0.7, help="share of the MACs to remove (latency)")
    parser.add_argument("--runs", type=int, default=50)
    add_output(parser)
    arguments = parser.parse_args()
    if arguments.part == "accuracy":
        reports: list[Report] = [accuracy(arguments.seeds, arguments.samples)]
    else:
        reports = latency(arguments.networks, arguments.amount, arguments.runs)
    write(reports, arguments.output)


if __name__ == "__main__":
    main()
