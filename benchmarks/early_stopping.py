"""EarlyStopping and ModelCheckpoint beside pruning: the model that comes back, against the run without them.

    python benchmarks/early_stopping.py --output docs/benchmarks/early_stopping

MobileNetV3Small is trained on 3,000 upscaled images of Fashion-MNIST for each seed, and then pruned with
`EarlyStopping(restore_best_weights=True)` and `ModelCheckpoint(save_best_only=True)` beside it, which stand before the
pruning callback in one seed and behind it in the next. The patience lasts to the end of the run, so that the run
without them is the same one up to its last epoch: that epoch is what the model that comes back is compared with.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
from datasets import fashion_mnist
from networks import for_a_short_run
from tables import Measured, add_output, versions, write

import tfprune
from tfprune.report import Column

SIZE, TRAINED, JUDGED = 32, 3000, 2000
DENSE_EPOCHS, EPOCHS, BATCH, RATE = 8, 6, 100, 1e-3
PATIENCE = EPOCHS // 2
WAYS = {
    "callback, 80 % of weights": lambda ramp: tfprune.PercentilePruning(ramp(0.8)),
    "wrapper, 80 % of weights": lambda ramp: tfprune.Percentile(ramp(0.8)),
    "callback, 30 % of channels": lambda ramp: tfprune.StructuredPruning(ramp(0.3)),
}


class Images(NamedTuple):
    """Training images and those that choose the best epoch."""

    x: np.ndarray
    y: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray


class EarlyStopped(Measured):
    """Accuracy by way of pruning and seed, without and with Keras' callbacks."""

    title: ClassVar[str] = "Early stopping and best checkpoints beside pruning, MobileNetV3Small"
    plotted: ClassVar[str] = "ahead"
    columns: ClassVar[Sequence[Column]] = (
        Column("way", "pruned by"),
        Column("seed", "seed"),
        Column("dense", "dense", ".2f"),
        Column("without", "last epoch", ".2f"),
        Column("restored", "with EarlyStopping", ".2f"),
        Column("saved", "best checkpoint", ".2f"),
        Column("ahead", "ahead", "+.2f"),
        Column("best_epoch", "best epoch"),
        Column("zeros", "zeros without", ".2%"),
        Column("zeros_restored", "zeros with", ".2%"),
    )


def data() -> Images:
    read = fashion_mnist(TRAINED)

    def upscaled(images: np.ndarray) -> np.ndarray:
        large = keras.ops.image.resize(255 * images.reshape(-1, 28, 28, 1), (SIZE, SIZE))
        return np.repeat(np.asarray(large), 3, axis=-1)

    return Images(upscaled(read.x_train), read.y_train, upscaled(read.x_test[:JUDGED]), read.y_test[:JUDGED])


def network() -> keras.Model:
    arguments = {"weights": None, "classes": 10, "classifier_activation": None, "dropout_rate": 0.1}
    model = keras.applications.MobileNetV3Small((SIZE, SIZE, 3), **arguments)
    return compiled(for_a_short_run(keras, model))


def compiled(model: keras.Model) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(RATE), loss, metrics=["accuracy"])
    return model


def trained(model: keras.Model, images: Images, epochs: int, callbacks: list[Any], seed: int) -> Any:
    """Trains in place; gives the history."""
    keras.utils.set_random_seed(seed)
    return model.fit(
        images.x,
        images.y,
        epochs=epochs,
        batch_size=BATCH,
        verbose=0,
        validation_data=(images.x_val, images.y_val) if callbacks else None,
        validation_batch_size=500,
        callbacks=callbacks,
    )


def pruned(way: str, weights: list[np.ndarray], images: Images, seed: int) -> dict[str, Any]:
    """The figures of one run."""
    model = network()
    model.set_weights(weights)
    pruning = WAYS[way](lambda amount: tfprune.Polynomial(0.0, amount, end=0.5))
    if way.startswith("wrapper"):
        model, pruning = compiled(tfprune.wrap(model, pruning)), tfprune.UpdateMasks()
    with tempfile.TemporaryDirectory() as folder:
        best = Path(folder) / "best.keras"
        watched = {"monitor": "val_accuracy"}
        stop = keras.callbacks.EarlyStopping(**watched, patience=PATIENCE, restore_best_weights=True)
        saver = keras.callbacks.ModelCheckpoint(best, **watched, save_best_only=True)
        callbacks = [pruning, stop, saver] if seed % 2 else [saver, stop, pruning]
        logs = trained(model, images, EPOCHS, callbacks, seed).history
        if len(logs["loss"]) != EPOCHS:
            raise SystemExit(f"the run ended after {len(logs['loss'])} epochs, so nothing tells of the one without")
        saved = keras.models.load_model(best)
    plain = tfprune.strip_masks(model)
    without, restored = 100 * logs["val_accuracy"][-1], accuracy(plain, images)
    return {
        "without": without,
        "restored": restored,
        "ahead": restored - without,
        "saved": accuracy(saved, images),
        "best_epoch": stop.best_epoch + 1,
        "zeros": logs["sparsity"][-1],
        "zeros_restored": zeros(plain),
    }


def compare(seeds: Sequence[int], images: Images) -> EarlyStopped:
    rows = []
    for seed in seeds:
        keras.utils.set_random_seed(seed)
        dense = network()
        trained(dense, images, DENSE_EPOCHS, [], seed)
        for way in WAYS:
            found = pruned(way, dense.get_weights(), images, seed)
            rows.append({"way": way, "seed": seed, "dense": accuracy(dense, images), **found})
            print(rows[-1], flush=True)
    return EarlyStopped(sorted(rows, key=lambda row: list(WAYS).index(row["way"])), about(rows))


def accuracy(model: keras.Model, images: Images) -> float:
    answers = model.predict(images.x_val, batch_size=500, verbose=0)
    return 100 * float(np.mean(answers.argmax(-1) == images.y_val))


def zeros(model: keras.Model) -> float:
    return float(tfprune.summary(model).sparsity)


def about(rows: list[dict[str, Any]]) -> list[str]:
    ahead = [row["ahead"] for row in rows]
    return [
        f"Accuracy in per cent of the {JUDGED:,} images that choose the best epoch; {TRAINED:,} others, of "
        f"{SIZE}x{SIZE}, train the network from random weights for {DENSE_EPOCHS} epochs. Pruned for {EPOCHS} epochs, "
        f"the target reached after half of them, Adam {RATE:g}, batches of {BATCH}.",
        f"Ahead: points of the model that EarlyStopping brings back over that of the run's last epoch; median "
        f"{statistics.median(ahead):+.2f}, least {min(ahead):+.2f}, most {max(ahead):+.2f}. The best checkpoint is "
        "loaded from its file as it was saved. Zeros: of the last epoch "
        "among the weights that are pruned, of the model that comes back among all kernels.",
        versions(),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    add_output(parser)
    arguments = parser.parse_args()
    write([compare(arguments.seeds, data())], arguments.output)


if __name__ == "__main__":
    main()
