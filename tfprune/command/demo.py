"""The demo: one small network from training to a verified int8 file, dense and pruned side by side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import keras

import tfprune
from tfprune.command import datasets
from tfprune.lite import Benchmark, Verification
from tfprune.model import files
from tfprune.progress import TrainingProgress, shown, stage
from tfprune.report import Column, Report


class Recipe(NamedTuple):
    """How the demo trains on a data set: channels of the first convolution, epochs before and while pruning."""

    channels: int
    dense_epochs: int
    pruning_epochs: int
    batch_size: int


DATASETS = {"digits": Recipe(32, 8, 8, 32), "fashion_mnist": Recipe(16, 1, 2, 128)}
CALIBRATION = 300
TIMED_RUNS = 1000  # of some microseconds each


class Row(NamedTuple):
    """One file of the demo, and the Keras model that it was made from."""

    name: str
    model: keras.Model
    lite: tfprune.LiteModel
    nonzero: int
    checked: Verification


@dataclass(frozen=True, repr=False)
class DemoResult(Report):
    """What the demo measured; see `run_demo`.

    Args:
        dataset: Its data set.
        sparsity: The share of zeros asked for.
        files: Dense in float32, dense in int8, pruned in int8.
        timing: The benchmark of the three files.
    """

    title: ClassVar[str] = "Before and after"
    columns: ClassVar[Sequence[Column]] = (
        Column("model", "model"),
        Column("keras_accuracy", "accuracy", ".2%"),
        Column("lite_accuracy", "in file", ".2%"),
        Column("nonzero", "non-zero", ",d"),
        Column("bytes", "bytes", ",d"),
        Column("gzip_bytes", "gzip", ",d"),
        Column("milliseconds", "ms", ".3f"),
    )
    plotted: ClassVar[Sequence[str]] = ("lite_accuracy", "gzip_bytes", "milliseconds")

    dataset: str
    sparsity: float
    files: tuple[Row, ...]
    timing: Benchmark

    @property
    def agreement(self) -> float | None:
        """The share of test images on which the pruned model and its int8 file give the same class."""
        return self.files[-1].checked.agreement

    def rows(self) -> list[dict[str, Any]]:
        milliseconds = {timing.name: timing.median for timing in self.timing.timings}
        return [
            {
                "model": row.name,
                "keras_accuracy": row.checked.accuracy,
                "lite_accuracy": row.checked.lite_accuracy,
                "nonzero": row.nonzero,
                "bytes": row.lite.size,
                "gzip_bytes": row.lite.gzip_size,
                "milliseconds": milliseconds[row.name],
            }
            for row in self.files
        ]

    def notes(self) -> list[str]:
        pruned = self.files[-1]
        inspection = pruned.lite.inspect()
        ends = {*inspection.input_dtypes.values(), *inspection.output_dtypes.values()}
        return [
            f"Pruned Keras model and its int8 file: same class on {self.agreement:.2%} of the test images; "
            f"{inspection.sparsity:.1%} of the file's weights are zero.",
            f"The int8 file takes and gives {' and '.join(sorted(ends))}; "
            f"operators that compute in float: {', '.join(inspection.float_ops) or 'none'}.",
            "The zeros make the file smaller when it is compressed, and save no time here: no kernel skips single "
            "zeros in int8. `tfprune why FILE.tflite` tells what zeros, channels or int8 would change in any file.",
        ]

    def to_dict(self) -> dict[str, Any]:
        return {
            **super().to_dict(),
            "dataset": self.dataset,
            "sparsity": self.sparsity,
            "agreement": self.agreement,
            "machine": self.timing.machine,
        }

    def save(self, folder: Path) -> None:
        """Writes the Keras models, the int8 files and the report into a folder, which is made when missing."""
        folder.mkdir(exist_ok=True)
        dense, pruned = self.files[-2], self.files[-1]
        for name, row in (("dense", dense), ("pruned", pruned)):
            files.save_model(row.model, folder / f"{name}.keras")
            row.lite.save(folder / f"{name}.tflite")
        files.save_report(self, folder / "report.json")


def run_demo(dataset: str = "digits", sparsity: float = 0.9, console: Any = None, verbose: int = 1) -> DemoResult:
    """Trains a small network, prunes a copy of it while it trains on, converts both, and measures.

    Args:
        dataset: `"digits"` (from scikit-learn, no network needed) or `"fashion_mnist"` (from the cache of Keras).
        sparsity: Share of zeros in [0, 1).
        console: A `rich.console.Console` to show progress on. Defaults to None: standard error.
        verbose: 0 shows no progress, 1 (default) bars in a terminal and lines elsewhere, 2 lines.

    Returns:
        A report: print it, or use `.to_dict()`, `.save(folder)`.

    Raises:
        PruningError: The data set is not there.
    """
    keras.utils.set_random_seed(1)
    recipe = DATASETS[dataset]
    with shown(verbose, console, transient=False):
        with stage(f"load {dataset}"):
            data = datasets.load(dataset)
        dense = small_network(data.x_train.shape[1:], recipe.channels)
        _train("train", dense, data, recipe.dense_epochs, recipe.batch_size)
        # A copy goes on training with pruning; another without, so that both have seen the data equally often.
        pruned = _copy(dense)
        callbacks = [tfprune.PercentilePruning(sparsity)]
        _train(f"prune to {sparsity:.0%}", pruned, data, recipe.pruning_epochs, recipe.batch_size, callbacks)
        _train("train dense one on", dense, data, recipe.pruning_epochs, recipe.batch_size)
        with stage("strip, convert, verify", total=3) as bar:
            rows = _convert(dense, tfprune.strip_masks(pruned), data, bar.advance)
        with stage("measure milliseconds"):
            timing = tfprune.benchmark({row.name: row.lite for row in rows}, runs=TIMED_RUNS)
    return DemoResult(dataset, sparsity, tuple(rows), timing)


def small_network(shape: tuple[int, ...], channels: int = 16, classes: int = 10) -> keras.Model:
    """A compiled network of two convolutions and two dense layers for small images."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(channels, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(2 * channels, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(classes),
        ],
        name="small_network",
    )
    return _compiled(model)


def _compiled(model: keras.Model) -> keras.Model:
    model.compile(
        keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    return model


def _copy(model: keras.Model) -> keras.Model:
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return _compiled(copy)


def _train(
    name: str,
    model: keras.Model,
    data: datasets.Dataset,
    epochs: int,
    batch_size: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    steps = epochs * -(-len(data.x_train) // batch_size)
    with stage(name, total=steps) as bar:
        model.fit(
            data.x_train,
            data.y_train,
            epochs=epochs,
            batch_size=batch_size,
            callbacks=[*callbacks, TrainingProgress(bar)],
            verbose=0,
        )


def _convert(dense: keras.Model, pruned: keras.Model, data: datasets.Dataset, advance: Callable[[], None]) -> list[Row]:
    rows = []
    for name, model, quantization in (
        ("dense float32", dense, "float32"),
        ("dense int8", dense, "int8"),
        ("pruned int8", pruned, "int8"),
    ):
        samples = data.x_train[:CALIBRATION] if quantization == "int8" else None
        lite = tfprune.convert(model, quantization=quantization, representative_data=samples)
        agreement = tfprune.verify(model, lite, data.x_test, labels=data.y_test)
        layers = tfprune.summary(model).layers
        rows.append(Row(name, model, lite, sum(layer.kernel_entries - layer.zeros for layer in layers), agreement))
        advance()
    return rows
