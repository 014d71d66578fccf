"""One network through prune, sparse, shrink and int8: accuracy, bytes and milliseconds, for the picture of the README.

    python benchmarks/first_page.py --output docs/benchmarks/first_page && python docs/draw_before_after.py

A CNN with Dense layers on Fashion-MNIST, trained, and then trained as long again in three ways: as it is, with 90 % of
the Dense weights fading out in the blocks that LiteRT's kernel skips, and with half of the channels. Accuracy is that
of the `.tflite` file on the 10,000 test images; milliseconds are the least of many runs of one image on one thread, the
files in turns.
"""

import argparse
import statistics
from collections.abc import Sequence
from typing import Any, ClassVar

import ai_edge_litert
import keras
import numpy as np
from datasets import fashion_mnist
from networks import compiled
from tables import BySeed, add_output, versions, write

import tfprune
from tfprune.lite import LiteModel
from tfprune.report import Column

layers = keras.layers

EPOCHS, RATE, BATCH = 4, 1e-3, 128
ROUNDS, RUNS = 25, 20
ZEROS, CHANNELS = 0.9, 0.5


def network() -> keras.Model:
    """Two convolutions and two wide Dense layers for 28x28 images."""
    inputs = x = keras.Input((28, 28, 1))
    for width in (16, 32):
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    for _ in range(2):
        x = layers.Dropout(0.3)(layers.Dense(1024, activation="relu")(x))
    return compiled(keras, keras.Model(inputs, layers.Dense(10)(x)), RATE)


class FirstPage(BySeed):
    """Accuracy, bytes and milliseconds of the files of one network, means over seeds."""

    title: ClassVar[str] = "One network, smaller and faster"
    columns: ClassVar[Sequence[Column]] = (
        Column("file", "file"),
        Column("accuracy", "accuracy", ".2%"),
        Column("spread", "lowest to highest"),
        Column("bytes", "bytes", ",d"),
        Column("gzip_bytes", "compressed", ",d"),
        Column("milliseconds", "ms", ".3f"),
        Column("times", "ms, lowest to highest"),
    )

    def _row(self, key: str, found: list[dict[str, Any]]) -> dict[str, Any]:
        accuracies = [one["accuracy"] for one in found]
        times = [one["milliseconds"] for one in found]
        return {
            "file": key,
            "accuracy": statistics.mean(accuracies),
            "spread": f"{min(accuracies):.2%} to {max(accuracies):.2%}",
            "bytes": round(statistics.mean(one["bytes"] for one in found)),
            "gzip_bytes": round(statistics.mean(one["gzip_bytes"] for one in found)),
            "milliseconds": statistics.median(times),
            "times": f"{min(times):.3f} to {max(times):.3f}",
        }


def trained_on(model: keras.Model, x: np.ndarray, y: np.ndarray, method: Any = None) -> keras.Model:
    """A copy that trained for as long again, with the method where there is one, stripped."""
    copy = compiled(keras, keras.models.clone_model(model), RATE)
    copy.set_weights(model.get_weights())
    rate = keras.callbacks.LearningRateScheduler(lambda epoch: RATE * (1 - epoch / EPOCHS))
    callbacks = [rate] if method is None else [rate, tfprune.PruningCallback(method)]
    copy.fit(x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=callbacks)
    return tfprune.strip_masks(copy)


def files(x: np.ndarray, y: np.ndarray) -> dict[str, LiteModel]:
    """The five files of one seed."""
    model = network()
    model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    dense = trained_on(model, x, y)
    pruned = trained_on(model, x, y, tfprune.plan_sparse(model).method(ZEROS))
    halving = tfprune.Structured(tfprune.Polynomial(0.0, CHANNELS, end=0.5), allocation="uniform")
    small = tfprune.shrink(trained_on(model, x, y, halving))
    return {
        "as trained": tfprune.convert(dense),
        "prune, 90 % zeros": tfprune.convert(pruned),
        "stored sparse": tfprune.convert(pruned, sparse=True),
        "shrink, half the channels": tfprune.convert(small),
        "shrink and int8": tfprune.convert(small, "int8", representative_data=x[:500]),
    }


def measured(lites: dict[str, LiteModel], x: np.ndarray, y: np.ndarray) -> dict[str, dict[str, Any]]:
    """The figures of each file; the least time of all runs, round by round in turns."""
    rounds = [{row["model"]: row for row in tfprune.benchmark(lites, runs=RUNS).rows()} for _ in range(ROUNDS)]
    return {
        name: {
            "accuracy": float((np.argmax(lite(x), -1) == y).mean()),
            "bytes": rounds[0][name]["bytes"],
            "gzip_bytes": rounds[0][name]["gzip_bytes"],
            "milliseconds": min(one[name]["min_ms"] for one in rounds),
        }
        for name, lite in lites.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--samples", type=int, default=10_000, help="training images; default: %(default)s")
    add_output(parser)
    options = parser.parse_args()
    data, runs = fashion_mnist(options.samples), []
    for seed in options.seeds:
        keras.utils.set_random_seed(seed)
        runs.append(measured(files(data.x_train, data.y_train), data.x_test, data.y_test))
        print(seed, runs[-1], flush=True)
    about = [
        f"Fashion-MNIST, {len(data.x_train):,} training images, {EPOCHS} epochs and then {EPOCHS} more for every "
        f"row, Adam {RATE}, in these falling to a quarter, batches of {BATCH}; zeros in Dense layers, in blocks of 4 "
        f"inputs. Seeds {options.seeds}: mean accuracy of the file on {len(data.x_test):,} test images, mean bytes, "
        f"median of the least milliseconds of {ROUNDS * RUNS} runs of one image on one thread.",
        versions(LiteRT=ai_edge_litert.__version__),
    ]
    write([FirstPage(runs, about)], options.output)


if __name__ == "__main__":
    main()
