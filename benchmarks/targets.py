"""Every target of `compress` on five kinds of network: what is reached, what it costs, and how long it takes.

    python benchmarks/targets.py --folder /tmp/targets --output docs/benchmarks/targets

A CNN, a narrow MobileNet, a vision transformer and a BiLSTM (which reads an image row by row) classify Fashion-MNIST;
a U-Net finds the garments in noise. Each is trained, and made smaller by one call for each target: a share of the
unpruned network's multiply-accumulates, bytes, compressed bytes, milliseconds in LiteRT or in LiteRT.js, or RAM in
TensorFlow Lite Micro. Decisions are made by validation data; the file is judged on test data, too.
A folder keeps what was measured, so that a later call goes on.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
import tasks
from datasets import fashion_mnist
from networks import compiled, deep_depthwise_cnn, fashion_cnn, for_a_short_run, vision_transformer
from tables import Measured, add_output, versions, write

import tfprune
from tfprune.report import Column

layers = keras.layers

SAMPLES = (4000, 1000, 2000)  # to train on, to decide by, to judge on
BOUND, BATCH, EPOCHS = 0.02, 64, 2
TARGETS: dict[str, dict[str, float]] = {
    "MACs": {"macs": 0.5},
    "bytes": {"bytes": 0.12},
    "compressed bytes": {"gzip_bytes": 0.08},
    "ms": {"latency": 0.6},
    "ms in the browser": {"web_latency": 0.6},
    "RAM": {"arena": 0.7},
}
ZEROS = ("compressed bytes",)  # the targets that zeros serve


class Network(NamedTuple):
    """A network to train, for how long, and at which rate."""

    build: Callable[[], keras.Model]
    epochs: int
    rate: float


class Data(NamedTuple):
    """Inputs and targets: to train on, to decide by, to judge on."""

    train: tuple[Any, Any]
    val: tuple[Any, Any]
    test: tuple[Any, Any]


def bilstm() -> keras.Model:
    """Two bidirectional LSTMs over the rows of an image."""
    inputs = keras.Input((28, 28))
    x = layers.Bidirectional(layers.LSTM(32, return_sequences=True))(inputs)
    return keras.Model(inputs, layers.Dense(10)(layers.Bidirectional(layers.LSTM(32))(x)))


NETWORKS = {
    "CNN": Network(lambda: fashion_cnn(keras), 4, 1e-3),
    "MobileNet": Network(lambda: deep_depthwise_cnn(keras), 8, 2e-3),
    "ViT": Network(lambda: vision_transformer(keras, hidden=256), 6, 1e-3),
    "U-Net": Network(lambda: tasks.segmentation(0).model, 8, 2e-3),
    "BiLSTM": Network(bilstm, 6, 2e-3),
}


class Targets(Measured):
    title: ClassVar[str] = "Every target of compress"
    columns: ClassVar[Sequence[Column]] = (
        Column("network", "network"),
        Column("target", "target"),
        Column("asked", "asked", ".2f"),
        Column("reached", "reached", ".3f"),
        Column("lowest", "low", ".3f"),
        Column("highest", "high", ".3f"),
        Column("met", "met"),
        Column("dense", "dense", ".2f"),
        Column("lost", "points lost", "+.2f"),
        Column("worst", "most", "+.2f"),
        Column("lost_test", "lost in the test", "+.2f"),
        Column("smaller", "times smaller", ".1f"),
        Column("compressed", "compressed", ".1f"),
        Column("float_latency", "time, float", ".2f"),
        Column("int8_latency", "time, int8", ".2f"),
        Column("minutes", "minutes", ".1f"),
    )


def data_of(name: str, seed: int) -> Data:
    """What a network learns and is judged by."""
    if name == "U-Net":
        task = tasks.segmentation(seed)
        return Data(task.train, task.val, task.test)
    data = fashion_mnist()
    chosen = np.random.default_rng(seed).permutation(len(data.x_train))[: sum(SAMPLES[:2])]
    x, x_test = (images[..., 0] if name == "BiLSTM" else images for images in (data.x_train[chosen], data.x_test))
    train, val = tasks.parted(x, data.y_train[chosen], SAMPLES[:2])
    return Data(train, val, (x_test[: SAMPLES[2]], data.y_test[: SAMPLES[2]]))


def trained(name: str, seed: int, data: Data) -> keras.Model:
    """A network that has learnt what it can in its epochs."""
    keras.utils.set_random_seed(seed)
    network = NETWORKS[name]
    model = for_a_short_run(keras, compiled(keras, network.build(), network.rate))
    tasks.learn(model, *data.train, network.epochs, BATCH)
    return model


def right(name: str, targets: np.ndarray, outputs: np.ndarray) -> float:
    """The share of right answers, or for the U-Net the mean overlap of garments, in per cent."""
    if name == "U-Net":
        return 100 * tasks.mean_overlap(targets, outputs)
    return 100 * float((outputs.argmax(-1) == targets).mean())


def measured(name: str, target: str, seed: int, data: Data, model: keras.Model) -> dict[str, Any]:
    """What one call makes of a trained network."""
    x_test, y_test = data.test
    began = time.monotonic()
    metric = "iou" if name == "U-Net" else None
    goal = TARGETS[target]
    result = tfprune.compress(
        model, data.train, data.val, BOUND, goal, metric=metric, epochs=EPOCHS, batch_size=BATCH, seed=seed, verbose=0,
        sparsities=None if target in ZEROS else (),
    )  # fmt: skip
    minutes = (time.monotonic() - began) / 60
    print(result, flush=True)
    ratios = result.ratios
    before, after = (
        right(name, y_test, np.asarray(each)) for each in (model.predict(x_test, verbose=0), result.lite(x_test))
    )
    return {
        "reached": result.costs[next(iter(goal))], "met": result.meets_target and result.within_bound,
        "dense": 100 * result.dense_accuracy, "lost": 100 * (result.dense_accuracy - result.accuracy),
        "lost_test": before - after, "smaller": 1 / ratios["bytes"], "compressed": 1 / ratios["gzip_bytes"],
        "float_latency": ratios["float_latency"], "int8_latency": ratios["int8_latency"], "minutes": minutes,
    }  # fmt: skip


def kept(folder: Path, name: str, target: str, seed: int) -> Path:
    """Where the figures of one call are."""
    return folder / f"{name}-{target}-{seed}.json".replace(" ", "_")


def measure(folder: Path, name: str, wanted: Sequence[str], seed: int) -> None:
    """Measures what is not in the folder yet, or the reason why a runtime does not take the network."""
    missing = [target for target in wanted if not kept(folder, name, target, seed).exists()]
    if not missing:
        return
    data = data_of(name, seed)
    model = trained(name, seed, data)
    for target in missing:
        try:
            found = measured(name, target, seed, data, model)
        except tfprune.PruningError as error:
            found = {"refused": str(error)}
        print(name, target, seed, found, flush=True)
        kept(folder, name, target, seed).write_text(json.dumps(found))


def row(name: str, target: str, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A row from the figures of every seed."""
    goal = TARGETS[target]
    named = {"network": name, "target": target, "asked": next(iter(goal.values()))}
    figures = [one for one in found if "refused" not in one]
    if not figures:
        return {**named, "met": "refused"}
    means = {key: statistics.mean(one[key] for one in figures) for key in figures[0] if key != "met"}
    reached = [one["reached"] for one in figures]
    met = f"{sum(one['met'] for one in figures)} of {len(found)}"
    worst = max(one["lost"] for one in figures)
    return {**named, **means, "lowest": min(reached), "highest": max(reached), "met": met, "worst": worst}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, required=True, help="keeps what was measured")
    parser.add_argument("--kept", action="store_true", help="measures nothing, writes what the folder holds")
    add_output(parser)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for name in [] if options.kept else options.networks:
            measure(options.folder, name, options.targets, seed)
    rows, refused = [], []
    for name in options.networks:
        for target in options.targets:
            paths = [kept(options.folder, name, target, seed) for seed in options.seeds]
            found = [json.loads(path.read_text()) for path in paths if path.exists()]
            if not found:
                continue
            rows.append(row(name, target, found))
            refused += [f"{name}, {target}: {found[0]['refused']}"] if "refused" in found[0] else []
    met = sum(len(set(one["met"].split(" of "))) == 1 and one["met"] != "refused" for one in rows)
    about = [
        f"{met} of {len(rows)} targets are met within the bound in every seed measured.",
        f"Seeds {options.seeds}: means. `compress(model, train, val, {BOUND}, target)` with {EPOCHS} epochs for each "
        f"step, {SAMPLES[0]:,} images of Fashion-MNIST to train on and {SAMPLES[1]:,} to decide by (the U-Net "
        f"{tasks.IMAGES[0]:,} and {tasks.IMAGES[1]:,}); points of accuracy, of the U-Net of mean IoU, lost on those, "
        f"on average and at most; then on {SAMPLES[2]:,} others (the U-Net {tasks.IMAGES[2]:,}). Zeros are tried for "
        "compressed bytes alone, the target that they serve.",
        "Asked and reached: shares of the unpruned network's; of bytes, the int8 file's over the float file's. Times "
        "smaller: so too, raw and compressed. Time: over that of the unpruned file of the same kind in LiteRT, one "
        "thread, an image at a time. Minutes of the call, on one core beside other work.",
        *refused,
        versions(),
    ]
    write([Targets(rows, about)], options.output)


if __name__ == "__main__":
    main()
