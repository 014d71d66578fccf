"""int8 after training, and training in int8, side by side with tfmot: dense, pruned, shrunk and depthwise networks.

    python benchmarks/quantization.py --seeds 0 1 2 --samples 20000 --output docs/benchmarks/quantization
    python benchmarks/quantization.py --network depthwise --output docs/benchmarks/quantization_depthwise

One float network of each kind is trained with Keras 3, for each seed. Both tools then start from the same weights and
make two int8 files of it: one converted as it is with some hundreds of representative images (PTQ), and one trained on
in int8 for the same epochs, with the same optimizer and the same batches in the same order (QAT; of the pruned network
tfmot's PQAT, which keeps zeros). The float network trained on for as long stands beside them, so that what training on
alone gains can be told from what int8 loses. tfmot runs in a process of its own, with Keras 2; all files are judged
here by the same code.
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
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
from datasets import fashion_mnist
from networks import batches, compiled, depthwise_cnn, fashion_cnn
from tables import BySeed, add_output, means, versions, write

import tfprune
from tfprune.command.datasets import Dataset
from tfprune.lite.file.zeros import kept_zeros
from tfprune.report import Column

DENSE_EPOCHS, PRUNING_EPOCHS = 3, 2
RATE, BATCH = 1e-3, 128
SPARSITY, CHANNELS = 0.8, 0.5
TITLES = {
    "plain": "Fashion-MNIST in int8: tfprune and tfmot",
    "depthwise": "A depthwise network in int8: tfprune and tfmot",
}
WIDTHS = (16, 32, 64)  # of the plain CNN, small enough that three seeds end in a quarter of an hour
REPRESENTATIVE = 300

Figures = dict[str, Any]


class Network(NamedTuple):
    """A float network, how tfmot builds it, and how tfmot trains it in int8."""

    model: keras.Model
    builder: str
    arguments: dict[str, Any]
    scheme: str


class Comparison(BySeed):
    """Accuracy, agreement, zeros and bytes by network, tool and scheme, as means over seeds."""

    plotted: ClassVar[str] = "accuracy"
    columns: ClassVar[Sequence[Column]] = (
        Column("network", "network"),
        Column("scheme", "scheme"),
        Column("accuracy", "accuracy", ".2f"),
        Column("lost", "lost", "+.2f"),
        Column("least", "least", "+.2f"),
        Column("most", "most", "+.2f"),
        Column("agreement", "Keras = file", ".2%"),
        Column("steps", "largest difference, steps", ".2f"),
        Column("zeros", "zeros of the network", ",.0f"),
        Column("kept", "of these in the file", ",.0f"),
        Column("kilobytes", "kB", ",.1f"),
        Column("kilobytes_gzip", "gzip", ",.1f"),
    )

    def _row(self, key: tuple[str, str], found: list[Figures]) -> dict[str, Any]:
        network, scheme = key
        row = means(found)
        row["agreement"] = None if row["agreement"] is None else min(one["agreement"] for one in found)
        row["steps"] = None if row["steps"] is None else max(one["steps"] for one in found)
        lost = [run[network, "float32"]["accuracy"] - run[key]["accuracy"] for run in self.runs]
        spread = {"lost": statistics.mean(lost), "least": min(lost), "most": max(lost)}
        return {"network": network, "scheme": scheme, "seeds": found, **row, **spread}


def compare(seeds: Sequence[int], epochs: int, rate: float, data: Dataset, network: str) -> Comparison:
    """Trains, quantizes by both tools and judges, seed by seed."""
    runs = []
    made_by: dict[str, str] = {}
    for seed in seeds:
        run: dict[tuple[str, str], Figures] = {}
        networks = float_networks(data, seed, network)
        for name, made in networks.items():
            judge_float(run, name, made.model, data)
            trained_on = compiled(keras, keras.models.clone_model(made.model), rate)
            trained_on.set_weights(made.model.get_weights())
            tfprune.apply_masks(trained_on, tfprune.get_masks(made.model))
            trained_on.fit(batches(data.x_train, data.y_train, BATCH, seed), epochs=epochs, verbose=0)
            judge_float(run, name, trained_on, data, "float32, trained on")
            representative = data.x_train[:REPRESENTATIVE]
            ptq = tfprune.convert(made.model, "int8", representative_data=representative)
            judge(run, (name, "tfprune PTQ"), ptq, made.model, None, data)
            quantized = compiled(keras, tfprune.quantize_aware(made.model, representative), rate)
            quantized.fit(batches(data.x_train, data.y_train, BATCH, seed), epochs=epochs, verbose=0)
            answers = quantized.predict(data.x_test, batch_size=500, verbose=0)
            qat = tfprune.convert(quantized, "int8")
            judge(run, (name, "tfprune QAT"), qat, made.model, answers, data)
        with tempfile.TemporaryDirectory() as folder:
            made_by = run_tfmot(Path(folder), networks, {"epochs": epochs, "rate": rate, "seed": seed}, data)
            for name, made in networks.items():
                for scheme in ("PTQ", made.scheme):
                    lite = tfprune.LiteModel.load(Path(folder) / f"{name}.{scheme}.tflite")
                    answers = None if scheme == "PTQ" else np.load(Path(folder) / f"{name}.{scheme}.npy")
                    judge(run, (name, f"tfmot {scheme}"), lite, made.model, answers, data)
        runs.append({key: run[key] for key in sorted(run, key=lambda key: list(networks).index(key[0]))})
    return Comparison(runs, about(seeds, epochs, rate, data, network, made_by), TITLES[network])


def about(
    seeds: Sequence[int], epochs: int, rate: float, data: Dataset, network: str, made_by: dict[str, str]
) -> list[str]:
    plain = (
        f" (pruned: {PRUNING_EPOCHS} more to {SPARSITY:.0%} zeros; shrunk: {PRUNING_EPOCHS} more while {CHANNELS:.0%} "
        f"of the channels fade out); its layers are of {', '.join(map(str, WIDTHS))} and 10 units."
    )
    return [
        f"Seeds {list(seeds)}; means over them. Accuracy in per cent of {len(data.y_test):,} test images; lost: points "
        "below the float network that all schemes start from, with the least and the most of any seed. It is trained "
        f"for {DENSE_EPOCHS} epochs of {len(data.x_train):,} images{plain if network == 'plain' else '.'}",
        f"QAT and PQAT train on for {epochs} epoch{'s' * (epochs != 1)}, Adam {rate}, batches of {BATCH} in the same "
        f"order; 'trained on' is the float network after the same. PTQ calibrates on {REPRESENTATIVE} images.",
        "Keras = file: the share of test images on which the model trained in int8 and its file choose the same class, "
        "the lowest of the seeds; the largest difference of any output is in steps of the output's int8 scale. "
        "Kilobytes are 1,000 bytes.",
        versions(**made_by),
    ]


def float_networks(data: Dataset, seed: int, network: str) -> dict[str, Network]:
    keras.utils.set_random_seed(seed)

    def train() -> Any:
        return batches(data.x_train, data.y_train, BATCH, seed)

    def copy() -> keras.Model:
        model = compiled(keras, fashion_cnn(keras, WIDTHS), RATE)
        model.set_weights(dense.get_weights())
        return model

    if network == "depthwise":
        depthwise = compiled(keras, depthwise_cnn(keras), RATE)
        depthwise.fit(train(), epochs=DENSE_EPOCHS, verbose=0)
        return {"depthwise": Network(depthwise, "depthwise_cnn", {}, "QAT")}
    dense = compiled(keras, fashion_cnn(keras, WIDTHS), RATE)
    dense.fit(train(), epochs=DENSE_EPOCHS, verbose=0)
    pruned, structured = copy(), copy()
    pruned.fit(train(), epochs=PRUNING_EPOCHS, callbacks=[tfprune.PercentilePruning(SPARSITY)], verbose=0)
    structured.fit(train(), epochs=PRUNING_EPOCHS, callbacks=[tfprune.StructuredPruning(CHANNELS)], verbose=0)
    shrunk = tfprune.shrink(tfprune.strip_masks(structured))
    widths = [layer.kernel.shape[-1] for layer in shrunk.layers if hasattr(layer, "kernel")][:-1]
    return {
        "dense": Network(dense, "fashion_cnn", {"widths": WIDTHS}, "QAT"),
        "pruned": Network(tfprune.strip_masks(pruned), "fashion_cnn", {"widths": WIDTHS}, "PQAT"),
        "shrunk": Network(shrunk, "fashion_cnn", {"widths": widths}, "QAT"),
    }


def run_tfmot(folder: Path, networks: dict[str, Network], recipe: dict[str, Any], data: Dataset) -> dict[str, str]:
    """Lets tfmot quantize the same networks in its own process; returns the versions it ran with."""
    described = {
        name: {"builder": network.builder, "arguments": network.arguments, "schemes": ["PTQ", network.scheme]}
        for name, network in networks.items()
    }
    (folder / "job.json").write_text(json.dumps({**recipe, "batch": BATCH, "networks": described}))
    for name, network in networks.items():
        np.savez(folder / f"{name}.npz", *network.model.get_weights())
    images = {"x_train": data.x_train, "y_train": data.y_train, "x_test": data.x_test}
    np.savez(folder / "data.npz", representative=data.x_train[:REPRESENTATIVE], **images)
    command = [sys.executable, "-W", "ignore", "-m", "peers.tfmot_quantization", str(folder)]
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
    subprocess.run(command, cwd=Path(__file__).parent, env=environment, check=True)
    found = json.loads((folder / "versions.json").read_text())
    return {name: found[name] for name in ("tfmot", "tf_keras")}


def judge_float(run: dict[Any, Figures], name: str, model: keras.Model, data: Dataset, scheme: str = "float32") -> None:
    judge(run, (name, scheme), tfprune.convert(model), model, None, data)


def judge(
    run: dict[Any, Figures],
    key: tuple[str, str],
    lite: tfprune.LiteModel,
    source: keras.Model,
    answers: np.ndarray | None,
    data: Dataset,
) -> None:
    """Adds the figures of one file: `source` is the float network, `answers` are those of the model trained in int8."""
    given = lite(data.x_test)
    kept = kept_zeros(source, lite.file)
    step = lite.outputs[0].scale
    run[key] = {
        "accuracy": 100.0 * float(np.mean(given.argmax(-1) == data.y_test)),
        "agreement": None if answers is None else float(np.mean(given.argmax(-1) == answers.argmax(-1))),
        "steps": None if answers is None or step is None else float(np.abs(given - answers).max() / step),
        "zeros": sum(weight.zeros for weight in kept),
        "kept": sum(weight.kept or 0 for weight in kept),
        "file_zeros": lite.inspect().zeros,
        "kilobytes": lite.size / 1000,
        "kilobytes_gzip": lite.gzip_size / 1000,
    }
    print(key, run[key], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=1, help="epochs of training in int8")
    parser.add_argument("--rate", type=float, default=1e-4, help="learning rate of training in int8")
    parser.add_argument("--samples", type=int, help="training images to use; default: all")
    parser.add_argument("--network", choices=list(TITLES), default="plain")
    add_output(parser)
    arguments = parser.parse_args()
    data = fashion_mnist(arguments.samples)
    found = compare(arguments.seeds, arguments.epochs, arguments.rate, data, arguments.network)
    write([found], arguments.output)


if __name__ == "__main__":
    main()
