"""Zeros that pay in the browser: a MobileNet with zeros in its 1x1 convolutions, in LiteRT.js, beside fewer channels.

python benchmarks/sparse.py web --folder /tmp/web --output docs/benchmarks/sparse_web --page docs/live
python benchmarks/sparse.py web --untrained --output docs/benchmarks/sparse_web_times
python benchmarks/sparse.py web --untrained --size 128 --alpha 0.5625 --output docs/benchmarks/sparse_web_times_128

The first trains for an hour or two. What is in the folder is not trained again, so that the times can be taken anew
when the machine has nothing else to do. Needs Node and the npm package @litertjs/core (npm install @litertjs/core).
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from datasets import fashion_mnist
from networks import for_a_short_run
from tables import Measured, add_output, versions, write

import tfprune
from tfprune.lite import LiteModel
from tfprune.lite.measure.web import run_web
from tfprune.report import Column

SMALLER, BATCH, LAST = 64, 128, 30_000  # pixels of a side; images; images of the last epoch
EPOCHS, PRUNING_EPOCHS = 4, 5  # of smaller images, from which most is learned; one epoch of full size follows
RATE, PRUNING_RATE, FEWER, RUNS = 2e-3, 1e-3, 0.4, 60
LONGER = "dense, trained as long"
SHOWN = 200  # images on the page


class InTheBrowser(Measured):
    title: ClassVar[str] = "A MobileNet in LiteRT.js: zeros in its 1x1 convolutions, fewer channels, and both"
    columns: ClassVar[Sequence[Column]] = (
        Column("file", "file"),
        Column("accuracy", "accuracy", ".2f"),
        Column("drop", "below dense", ".2f"),
        Column("drop_longer", "below dense as long", ".2f"),
        Column("bytes", "bytes", ",d"),
        Column("smaller", "smaller", ".1f"),
        Column("macs", "MACs", ",d"),
        Column("milliseconds", "ms, web", ".2f"),
        Column("faster", "faster", ".2f"),
        Column("native", "ms, native", ".2f"),
        Column("difference", "web - native", ".1e"),
    )


def batches(images: np.ndarray, labels: np.ndarray, size: int, seed: int | None = None) -> tf.data.Dataset:
    """Images as a network for photographs takes them: larger, of three colours, from -1 to 1."""
    data = tf.data.Dataset.from_tensor_slices((images, labels))
    if seed is not None:
        data = data.shuffle(len(images), seed=seed)
    return data.batch(BATCH).map(lambda x, y: (larger(x, size), y), num_parallel_calls=2).prefetch(2)


def larger(images: Any, size: int) -> Any:
    return tf.repeat(tf.image.resize(images, (size, size)), 3, axis=-1) * 2.0 - 1.0


def of_size(model: keras.Model, size: int) -> keras.Model:
    """A copy of the model for images of another size, which the same weights serve."""
    config = model.get_config()
    config["layers"][0]["config"]["batch_shape"] = (None, size, size, 3)
    copy = keras.Model.from_config(config)
    copy.set_weights(model.get_weights())
    return copy


class Recipe:
    """Trains, prunes and measures networks on one data set with one seed.

    Args:
        seed: Of weights and of the order of images.
        size: Pixels of a side of the images.
        litertjs: The folder of the npm package.
        untrained: Whether to prune random weights at once, for the times alone.
        folder: Where trained models are kept, or are found.
    """

    def __init__(
        self, seed: int, size: int, litertjs: Path | None, untrained: bool = False, folder: Path | None = None
    ):
        self.size, self.untrained, self.folder = size, untrained, folder
        data = fashion_mnist()
        self.smaller = batches(data.x_train, data.y_train, SMALLER, seed)
        self.full = batches(data.x_train[:LAST], data.y_train[:LAST], size, seed)
        self.test = batches(data.x_test, data.y_test, size)
        self.images = larger(data.x_test[:8], size).numpy()
        self.litertjs = litertjs
        self.found: list[dict[str, Any]] = []
        self.files: dict[str, LiteModel] = {}

    def kept(self, name: str, train: Callable[[], keras.Model]) -> keras.Model:
        """The model of this name from the folder, or else what `train` gives."""
        path = None if self.folder is None or self.untrained else self.folder / f"{name}.keras"
        if path is not None and path.exists():
            return keras.models.load_model(path)
        model = train()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            model.save(path)
        return model

    def learned(self, model: keras.Model, rate: float, epochs: int, method: Any = None) -> keras.Model:
        """A trained copy, with gradual pruning where a method is given.

        Most is learned from smaller images, which cost less; then half an epoch of those that the network is for.
        """
        if self.untrained:
            return model if method is None else tfprune.strip_masks(tfprune.prune(model, method))
        callbacks = [] if method is None else [tfprune.PruningCallback(method)]
        small = fitted(of_size(model, SMALLER), self.smaller, epochs, rate, *callbacks)
        full = of_size(tfprune.strip_masks(small), self.size)
        if method is not None:
            tfprune.apply_masks(full, tfprune.get_masks(small))
        return tfprune.strip_masks(fitted(full, self.full, 1, rate / 2))

    def fine_tuned(self, model: keras.Model, method: Any = None) -> keras.Model:
        """A copy of the model after gradual pruning, or as much training without."""
        return self.learned(model, PRUNING_RATE, PRUNING_EPOCHS, method)

    def note(self, name: str, model: keras.Model, **options: Any) -> keras.Model:
        """Converts a model, and notes its accuracy."""
        lite = tfprune.convert(model, **options)
        accuracy = None if self.untrained else 100 * self._judged(model)[1]
        self.files[name] = lite
        self.found.append({"file": name, "accuracy": accuracy, "bytes": lite.size})
        print(self.found[-1], flush=True)
        return model

    def _judged(self, model: keras.Model) -> Any:
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
        copy.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        return copy.evaluate(self.test, verbose=0)

    def write_page(self, folder: Path) -> None:
        """Writes what docs/live/index.html runs: the dense file, one with 90 % zeros, and images with their labels."""
        folder.mkdir(exist_ok=True)
        for target, name in (("dense", LONGER), ("sparse", "90% zeros in 1x1 convolutions")):
            self.files[name].save(folder / f"{target}.tflite")
        data = fashion_mnist()
        images = np.round(255 * data.x_test[:SHOWN]).astype("uint8")
        (folder / "images.bin").write_bytes(images.tobytes() + data.y_test[:SHOWN].astype("uint8").tobytes())

    def measured(self) -> str:
        """Fills in times and differences; what ran the files in the end."""
        inputs = {name: [self.images[:1]] for name in self.files}
        web = run_web(self.files, inputs, RUNS, 10, litertjs=self.litertjs)
        native = tfprune.benchmark(self.files, runs=RUNS)
        dense = self.found[0]
        reached = next((row["accuracy"] for row in self.found if row["file"] == LONGER), None)
        for row, timing in zip(self.found, native.timings):
            run = web.runs[row["file"]]
            if run.failure:
                raise RuntimeError(f"{row['file']}: {run.failure}")
            row["milliseconds"], row["native"] = min(run.milliseconds), min(timing.milliseconds)
            row["macs"] = timing.cost.macs
            row["difference"] = self._difference(row["file"])
            row["drop"] = None if self.untrained else dense["accuracy"] - row["accuracy"]
            row["drop_longer"] = None if self.untrained else reached - row["accuracy"]
            row["smaller"] = dense["bytes"] / row["bytes"]
            row["faster"] = dense["milliseconds"] / row["milliseconds"]
        return f"LiteRT.js {web.version} in {web.where}"

    def _difference(self, name: str) -> float:
        """The largest difference between the answers of LiteRT.js and of native LiteRT."""
        lite = self.files[name]
        each = {str(place): lite for place in range(8)}
        runs = run_web(each, {str(n): [self.images[n : n + 1]] for n in range(8)}, litertjs=self.litertjs).runs
        answers = np.stack([runs[str(place)].outputs[0] for place in range(8)])
        return float(np.abs(answers - lite(self.images[:8])).max())


def fitted(model: keras.Model, data: tf.data.Dataset, epochs: int, rate: float, *callbacks: Any) -> keras.Model:
    """The model, trained with a rate that falls to nothing."""
    falling = keras.optimizers.schedules.CosineDecay(rate, epochs * len(data))
    model.compile(keras.optimizers.Adam(falling), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(data, epochs=epochs, verbose=2, callbacks=list(callbacks))
    return model


def run(recipe: Recipe, seed: int, alpha: float, channels: bool = True) -> str:
    """Makes all networks of the table; what ran their files in the end."""
    keras.utils.set_random_seed(seed)
    shape = (recipe.size, recipe.size, 3)
    network = keras.applications.MobileNet(input_shape=shape, alpha=alpha, weights=None, classes=10)
    network = for_a_short_run(keras, network)
    dense = recipe.note("dense", recipe.kept("dense", lambda: recipe.learned(network, RATE, EPOCHS)))
    if not recipe.untrained:
        recipe.note(LONGER, recipe.kept("longer", lambda: recipe.fine_tuned(dense)))
    plan = tfprune.plan_sparse(dense, "web")
    for amount in (0.8, 0.9):
        pruned = recipe.kept(
            f"zeros_{amount}", lambda amount=amount: recipe.fine_tuned(plan.model, plan.method(amount))
        )
        recipe.note(f"{amount:.0%} zeros in 1x1 convolutions", pruned, sparse=True)
    if channels:
        fewer = tfprune.Structured(FEWER)
        narrow = recipe.kept("narrow", lambda: tfprune.shrink(recipe.fine_tuned(dense, fewer)))
        recipe.note(f"{FEWER:.0%} fewer channels", narrow)
        small = tfprune.plan_sparse(narrow, "web")
        both = recipe.kept("both", lambda: recipe.fine_tuned(small.model, small.method(0.8)))
        recipe.note(f"{FEWER:.0%} fewer channels, then 80% zeros", both, sparse=True)
    return recipe.measured()


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=96, help="pixels of a side; default: %(default)s")
    parser.add_argument("--alpha", type=float, default=0.5, help="of the MobileNet's widths; default: %(default)s")
    parser.add_argument("--litertjs", type=Path, help="folder of the npm package @litertjs/core")
    parser.add_argument("--untrained", action="store_true", help="random weights, pruned at once: the times alone")
    parser.add_argument("--zeros", action="store_true", help="without the networks of fewer channels")
    parser.add_argument("--folder", type=Path, help="folder that keeps the trained models")
    parser.add_argument("--page", type=Path, help="folder for the files of the page that runs them live")
    add_output(parser)
    arguments = parser.parse_args(words)
    recipe = Recipe(arguments.seed, arguments.size, arguments.litertjs, arguments.untrained, arguments.folder)
    where = run(recipe, arguments.seed, arguments.alpha, not arguments.zeros)
    if arguments.page is not None:
        recipe.write_page(arguments.page)
    network = f"MobileNet of keras.applications, alpha {arguments.alpha}, {arguments.size} pixels"
    trained = (
        f"One seed ({arguments.seed}). {network}; Fashion-MNIST made larger, {EPOCHS} epochs of {SMALLER} pixels, then "
        f"{LAST:,} images of {arguments.size}; from there {PRUNING_EPOCHS} epochs and {LAST:,} images more in the same "
        "way, dense or pruned gradually with plan_sparse(model, 'web').method(...) or Structured(...). Accuracy on the "
        "10,000 test images; smaller and faster are against the dense file, as is the drop beside the one against the "
        "network trained as long."
    )
    random = (
        f"{network}, random weights, pruned at once with "
        "plan_sparse(model, 'web').method(...) or Structured(...): the times alone, which do not depend on what was "
        "learned; smaller and faster are against the dense file."
    )
    about = [
        random if arguments.untrained else trained,
        f"Time: {where}, one thread; native LiteRT on the same machine, one thread, where XNNPACK's kernels for x86 "
        f"make no use of such zeros. The least of {RUNS} runs in turns. web - native: the largest difference.",
        versions(),
    ]
    write([InTheBrowser(recipe.found, about)], arguments.output)


if __name__ == "__main__":
    main()
