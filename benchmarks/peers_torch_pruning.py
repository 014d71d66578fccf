"""Channels removed by tfprune and by Torch-Pruning, from the same dense weights: right away, and after two epochs.

    python benchmarks/peers_torch_pruning.py --output docs/benchmarks/peers_torch_pruning

A narrow ResNet-20 and a narrow MobileNet are trained in Keras on Fashion-MNIST. Torch-Pruning runs in an environment
of its own, which is made with torch from PyPI; its networks take the same weights and first have to give the same
outputs. Both sides then remove channels until 70, 50 and 30 % of the multiply-accumulates are left, and train on for
two epochs of the same batches by the same optimizer. Torch-Pruning has no repair; what its networks are worth with the
statistics of batch norm measured anew is shown in that column, and they train on from there.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
from datasets import fashion_mnist
from peers.conversation import Peer
from peers.environment import NotInstalledError, python_of
from tables import Measured, add_output, versions, write

import tfprune
from tfprune.report import Column

layers = keras.layers
PACKAGES = ("torch", "torch-pruning==1.6.1", "numpy")
SHARES = (0.7, 0.5, 0.3)
EPOCHS, TUNING_EPOCHS, RATE, TUNING_RATE, BATCH = 8, 2, 2e-3, 1e-3, 64
TRAINED, TESTED, CALIBRATION = 6000, 5000, 1000
METHODS = {"tfprune": ("L2", "Taylor"), "Torch-Pruning": ("L1, global", "L2, local", "Taylor, global")}
Nodes = list[list[Any]]


def resnet() -> Nodes:
    """ResNet-20 of a quarter of the places: its nine blocks of 12, 24 and 48 channels, behind a stem of stride 2."""
    nodes: Nodes = []

    def normed(source: str, name: str, width: int, kernel: int, strides: int, relu: bool = True) -> str:
        nodes.append(["conv", name, [source], {"width": width, "kernel": kernel, "strides": strides}])
        nodes.append(["norm", f"{name}_norm", [name], {}])
        if relu:
            nodes.append(["relu", f"{name}_relu", [f"{name}_norm"], {}])
        return nodes[-1][1]

    x, before = normed("input", "stem", 12, 3, 2), 12
    for block, width in enumerate(width for width in (12, 24, 48) for _ in range(3)):
        strides = 1 if width == before else 2
        y = normed(normed(x, f"block{block}_a", width, 3, strides), f"block{block}_b", width, 3, 1, relu=False)
        x = x if width == before else normed(x, f"block{block}_short", width, 1, strides, relu=False)
        nodes.append(["add", f"block{block}_add", [y, x], {}])
        nodes.append(["relu", f"block{block}_out", [f"block{block}_add"], {}])
        x, before = f"block{block}_out", width
    return [*nodes, *head(x)]


def mobilenet() -> Nodes:
    """Eight pairs of depthwise and pointwise convolutions, 16 to 96 channels."""
    nodes: Nodes = []
    x = "input"
    pairs = ((32, 1), (32, 1), (48, 2), (48, 1), (64, 1), (64, 2), (96, 1), (96, 1))
    convolutions = [("stem", "conv", 16, 3, 2)]
    for pair, (width, strides) in enumerate(pairs):
        convolutions += [(f"pair{pair}_deep", "depthwise", 0, 3, strides), (f"pair{pair}_wide", "conv", width, 1, 1)]
    for name, kind, width, kernel, strides in convolutions:
        settings = {"kernel": kernel, "strides": strides} | ({"width": width} if width else {})
        nodes.append([kind, name, [x], settings])
        nodes.append(["norm", f"{name}_norm", [name], {}])
        nodes.append(["relu", f"{name}_relu", [f"{name}_norm"], {}])
        x = f"{name}_relu"
    return [*nodes, *head(x)]


def head(source: str) -> Nodes:
    """The mean over the image, and a layer of classes."""
    return [["mean", "mean", [source], {}], ["dense", "classes", ["mean"], {"width": 10}]]


NETWORKS = {"ResNet-20": resnet, "MobileNet": mobilenet}


def built(nodes: Nodes) -> keras.Model:
    """The Keras network of some nodes; strides pad on both sides, as torch does."""
    values: dict[str, Any] = {"input": keras.Input((28, 28, 1))}
    for kind, name, sources, settings in nodes:
        taken = [values[source] for source in sources]
        if kind in ("conv", "depthwise"):
            x, size, strides = taken[0], settings["kernel"], settings["strides"]
            if strides > 1 and size > 1:
                x = layers.ZeroPadding2D(size // 2)(x)
            common = {
                "strides": strides,
                "padding": "same" if strides == 1 else "valid",
                "use_bias": False,
                "name": name,
            }
            made = layers.DepthwiseConv2D(size, **common) if kind == "depthwise" else None
            values[name] = (made or layers.Conv2D(settings["width"], size, **common))(x)
        elif kind == "norm":
            values[name] = layers.BatchNormalization(momentum=0.9, epsilon=1e-3, name=name)(taken[0])
        elif kind == "relu":
            values[name] = layers.ReLU(name=name)(taken[0])
        elif kind == "add":
            values[name] = layers.Add(name=name)(taken)
        elif kind == "mean":
            values[name] = layers.GlobalAveragePooling2D(name=name)(taken[0])
        else:
            values[name] = layers.Dense(settings["width"], name=name)(taken[0])
    return compiled(keras.Model(values["input"], values[nodes[-1][1]]), RATE)


def compiled(model: keras.Model, rate: float) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model


class Trial:
    """One dense network of one seed, and what both sides make of it."""

    def __init__(self, nodes: Nodes, seed: int, data: dict[str, np.ndarray], epochs: int):
        keras.utils.set_random_seed(seed)
        random = np.random.default_rng(seed)
        self.data, self.nodes = data, nodes
        self.orders = np.stack([random.permutation(len(data["x_train"])) for _ in range(TUNING_EPOCHS)])
        self.model = built(nodes)
        falling = keras.callbacks.LearningRateScheduler(lambda epoch: RATE * (0.1 if epoch >= epochs - 2 else 1.0))
        train = (data["x_train"], data["y_train"])
        self.model.fit(*train, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[falling])
        self.dense = self.accuracy(self.model)
        self.macs = tfprune.summary(self.model).macs

    def accuracy(self, model: keras.Model) -> float:
        told = model.predict(self.data["x_test"], batch_size=500, verbose=0).argmax(axis=-1)
        return float((told == self.data["y_test"]).mean())

    def ours(self, criterion: str, share: float) -> dict[str, Any]:
        """tfprune's side: removed, repaired by unlabelled images, trained on."""
        x, y = self.data["x_train"], self.data["y_train"]
        method = tfprune.Structured(1 - share, criterion=criterion.lower(), budget="macs")
        labelled = (x[:CALIBRATION], y[:CALIBRATION])
        after = tfprune.prune(self.model, method, labelled, verbose=0)
        began = time.process_time()
        pruned = tfprune.prune(self.model, method, labelled, reconstruct=True, verbose=0)
        small = compiled(tfprune.shrink(tfprune.strip_masks(pruned)), TUNING_RATE)
        found = {"seconds": time.process_time() - began, "after": self.accuracy(tfprune.strip_masks(after))}
        found |= {"repaired": self.accuracy(small), "macs": tfprune.summary(small).macs}
        began = time.process_time()
        for order in self.orders:
            small.fit(x[order], y[order], batch_size=BATCH, epochs=1, shuffle=False, verbose=0)
        found["tuning"] = time.process_time() - began
        return {**found, "tuned": self.accuracy(small), "parameters": trainable(small)}

    def begin(self, peer: Peer, folder: Path) -> dict[str, Any]:
        """Hands the dense network to the other side, and sees that it gives the same outputs; the version there."""
        weights = {
            f"{layer.name}/{number}": np.asarray(weight)
            for layer in self.model.layers
            for number, weight in enumerate(layer.weights)
        }
        np.savez(folder / "weights.npz", **weights)
        np.savez(folder / "data.npz", **self.data, orders=self.orders)
        paths = {"weights": str(folder / "weights.npz"), "data": str(folder / "data.npz")}
        found = peer.ask("begin", nodes=self.nodes, **paths)
        wanted = self.model.predict(self.data["x_test"][:64], verbose=0)
        apart = np.abs(np.array(found["outputs"]) - wanted).max() / np.abs(wanted).max()
        if apart > 1e-4 or found["macs"] != self.macs:
            raise SystemExit(f"The networks differ: outputs by {apart:.2g}, MACs {self.macs} and {found['macs']}.")
        return {"torch": found["torch"], "apart": float(apart)}


class TorchPruning(Measured):
    """A row for each network, share and method; means over seeds."""

    title: ClassVar[str] = "Channels removed by tfprune and by Torch-Pruning"
    columns: ClassVar[Sequence[Column]] = (
        Column("network", "network"),
        Column("share", "MACs to be left", ".0%"),
        Column("side", "by"),
        Column("method", "criterion"),
        Column("macs", "MACs", ".1%"),
        Column("parameters", "parameters", ".1%"),
        Column("dense", "dense", ".2f"),
        Column("after", "right after removal", ".2f"),
        Column("repaired", "repaired", ".2f"),
        Column("spread", "lowest to highest"),
        Column("tuned", "after two epochs", ".2f"),
        Column("tuned_spread", "lowest to highest"),
        Column("seconds", "seconds to prune", ".1f"),
        Column("tuning", "to train", ".1f"),
    )


def row(network: str, share: float, side: str, method: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    """A row from the figures of every seed."""
    known: dict[str, Any] = {"network": network, "share": share, "side": side, "method": method}
    for key in ("macs", "parameters"):
        known[key] = statistics.mean(one[key] / one[f"dense_{key}"] for one in found)
    for key in ("dense", "after", "repaired", "tuned"):
        known[key] = 100 * statistics.mean(one[key] for one in found)
    for key, name in (("repaired", "spread"), ("tuned", "tuned_spread")):
        known[name] = f"{100 * min(one[key] for one in found):.1f} to {100 * max(one[key] for one in found):.1f}"
    return known | {key: statistics.mean(one[key] for one in found) for key in ("seconds", "tuning")}


def standing(rows: list[dict[str, Any]]) -> list[str]:
    """By how much tfprune is ahead or behind, network by network and share by share, each side by its best row."""
    told = []
    for network, share in dict.fromkeys((each["network"], each["share"]) for each in rows):
        of = [each for each in rows if (each["network"], each["share"]) == (network, share)]
        best = {
            key: {side: max(each[key] for each in of if each["side"] == side) for side in METHODS}
            for key in ("repaired", "tuned")
        }
        gaps = {key: value["tfprune"] - value["Torch-Pruning"] for key, value in best.items()}
        words = [f"{abs(gap):.2f} points {'ahead' if gap >= 0 else 'BEHIND'}" for gap in gaps.values()]
        lost = of[0]["dense"] - best["repaired"]["tfprune"]
        told.append(
            f"{network}, {share:.0%} of the MACs, the best of each side: tfprune is {words[0]} before training, "
            f"{words[1]} after two epochs; without training it loses {lost:.2f} points."
        )
    return told


def measured(network: str, seed: int, data: dict[str, np.ndarray], epochs: int, python: str) -> list[dict[str, Any]]:
    """The figures of one network of one seed, for each share, side and criterion."""
    trial, found = Trial(NETWORKS[network](), seed, data, epochs), []
    dense = {"dense": trial.dense, "dense_macs": trial.macs, "dense_parameters": trainable(trial.model)}

    def note(share: float, side: str, method: str, figures: dict[str, Any]) -> None:
        key = {"network": network, "seed": seed, "share": share, "side": side, "method": method}
        found.append(key | dense | figures)
        print(found[-1], flush=True)

    for share in SHARES:
        for method in METHODS["tfprune"]:
            note(share, "tfprune", method, trial.ours(method, share))
    settings = {"epochs": TUNING_EPOCHS, "rate": TUNING_RATE, "batch": BATCH, "calibration": CALIBRATION}
    if python:
        with Peer("peers.torch_pruning", python=python) as peer, tempfile.TemporaryDirectory() as folder:
            same = trial.begin(peer, Path(folder))
            for share in SHARES:
                for method in METHODS["Torch-Pruning"]:
                    figures = peer.ask("prune", method=method, share=share, **settings)
                    note(share, "Torch-Pruning", method, figures | same)
    return found


def chance(found: list[dict[str, Any]]) -> float:
    """The standard error of the difference of two accuracies on the test images, over all seeds."""
    share = statistics.mean(one["tuned"] for one in found)
    return float(np.sqrt(2 * share * (1 - share) / (TESTED * len({one["seed"] for one in found}))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the dense networks; default: %(default)s")
    parser.add_argument("--samples", type=int, default=TRAINED, help="training images; default: %(default)s")
    parser.add_argument("--kept", type=Path, help="a file of what is measured already, to go on from")
    add_output(parser)
    options = parser.parse_args()
    whole = fashion_mnist(options.samples)
    data = {"x_train": whole.x_train, "y_train": whole.y_train}
    data |= {"x_test": whole.x_test[:TESTED], "y_test": whole.y_test[:TESTED]}
    python, reason = "", ""
    try:
        python = python_of("torch-pruning", PACKAGES)
    except NotInstalledError as error:
        reason = str(error)
    kept = options.kept.read_text().splitlines() if options.kept and options.kept.exists() else []
    found = [json.loads(line) for line in kept]
    for network in options.networks:
        for seed in options.seeds:
            if not any((each["network"], each["seed"]) == (network, seed) for each in found):
                found += measured(network, seed, data, options.epochs, python)
                if options.kept:
                    options.kept.write_text("".join(json.dumps(each) + "\n" for each in found))
    places = [
        (network, share, side, method)
        for network in options.networks
        for share in SHARES
        for side, methods in METHODS.items()
        for method in methods
        if python or side == "tfprune"
    ]
    names = ("network", "share", "side", "method")
    rows = [row(*place, [each for each in found if tuple(each[name] for name in names) == place]) for place in places]
    about = [
        f"Fashion-MNIST, {len(data['x_train']):,} training images, {options.epochs} epochs of Adam at {RATE}, a tenth "
        f"of it in the last two; then two epochs at {TUNING_RATE}, batches of {BATCH}, the same on both sides. Means "
        f"over seeds {options.seeds}; accuracies in per cent of {TESTED:,} test images, of which the difference of two "
        f"is uncertain by about {100 * chance(found):.1f} points (a standard error). Multiply-accumulates of "
        "convolutions and dense layers. CPU seconds, beside other work.",
        f"Repaired: tfprune by `prune(..., reconstruct=True)` with {CALIBRATION:,} images; Torch-Pruning has no "
        "repair, and gets the statistics of its batch norms measured anew on them. Both train on from there. Taylor "
        f"reads labels: of {CALIBRATION:,} images in tfprune, of 256 at each of its steps in Torch-Pruning.",
    ]
    if python:
        apart = max(each["apart"] for each in found if "apart" in each)
        torch = next(each["torch"] for each in found if "torch" in each)
        about += standing(rows)
        about.append(f"The dense networks' outputs in Keras and in torch differ by {apart:.0e} of the largest at most.")
        about.append(versions(torch=torch, **{"Torch-Pruning": "1.6.1"}))
    else:
        about += [f"Torch-Pruning COULD NOT BE INSTALLED here, so its rows are missing: {reason}", versions()]
    write([TorchPruning(rows, about)], options.output)


def trainable(model: keras.Model) -> int:
    """Parameters without the statistics of batch norm, as torch counts them."""
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


if __name__ == "__main__":
    main()
