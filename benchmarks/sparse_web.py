"""Zeros that pay in the browser: a MobileNet with zeros in its 1x1 convolutions, in LiteRT.js, beside fewer channels.

python benchmarks/sparse.py web --zeros --output docs/benchmarks/sparse_web --page docs/live
python benchmarks/sparse.py web --untrained --output docs/benchmarks/sparse_web_times

Needs Node and the npm package @litertjs/core (npm install @litertjs/core).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from datasets import fashion_mnist
from tables import Measured, add_output, versions, write

import tfprune
from tfprune.lite import LiteModel
from tfprune.lite.measure.web import run_web
from tfprune.report import Column

SIZE, ALPHA, IMAGES, BATCH = 96, 0.5, 16_000, 64
EPOCHS, PRUNING_EPOCHS, FEWER, RUNS = 3, 2, 0.4, 60
LONGER = "dense, trained as long"
SHOWN = 200  # images on the page


class InTheBrowser(Measured):
    title: ClassVar[str] = "A MobileNet in LiteRT.js: zeros in its 1x1 convolutions, fewer channels, and both"
    columns: ClassVar[Sequence[Column]] = (
        Column("file", "file"),
        Column("accuracy", "accuracy", ".2f"),
        Column("drop", "below dense", ".2f"),
        Column("bytes", "bytes", ",d"),
        Column("smaller", "smaller", ".1f"),
        Column("macs", "MACs", ",d"),
        Column("milliseconds", "ms, web", ".2f"),
        Column("faster", "faster", ".2f"),
        Column("native", "ms, native", ".2f"),
        Column("difference", "web - native", ".1e"),
    )


def batches(images: np.ndarray, labels: np.ndarray, seed: int | None = None) -> tf.data.Dataset:
    """Images as a network for photographs takes them: larger, of three colours, from -1 to 1."""
    data = tf.data.Dataset.from_tensor_slices((images, labels))
    if seed is not None:
        data = data.shuffle(len(images), seed=seed)
    return data.batch(BATCH).map(lambda x, y: (larger(x), y), num_parallel_calls=2).prefetch(2)


def larger(images: Any) -> Any:
    return tf.repeat(tf.image.resize(images, (SIZE, SIZE)), 3, axis=-1) * 2.0 - 1.0


class Recipe:
    """Trains, prunes and measures networks on one data set with one seed.

    Args:
        seed: Of weights and of the order of images.
        litertjs: The folder of the npm package.
        untrained: Whether to prune random weights at once, for the times alone.
    """

    def __init__(self, seed: int, litertjs: Path | None, untrained: bool = False):
        self.untrained = untrained
        data = fashion_mnist(IMAGES)
        self.train = batches(data.x_train, data.y_train, seed)
        self.test = batches(data.x_test, data.y_test)
        self.images = larger(data.x_test[:8]).numpy()
        self.litertjs = litertjs
        self.found: list[dict[str, Any]] = []
        self.files: dict[str, LiteModel] = {}

    def fitted(self, model: keras.Model, epochs: int, *callbacks: Any) -> keras.Model:
        if self.untrained:
            return model
        rate = keras.optimizers.schedules.CosineDecay(2e-3 if epochs == EPOCHS else 1e-3, epochs * len(self.train))
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(self.train, epochs=epochs, verbose=2, callbacks=list(callbacks))
        return model

    def fine_tuned(self, model: keras.Model, method: Any = None) -> keras.Model:
        """A copy of the model after gradual pruning, or as much training without."""
        if self.untrained:
            return tfprune.strip_masks(tfprune.prune(model, method))
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
        callbacks = [] if method is None else [tfprune.PruningCallback(method)]
        return tfprune.strip_masks(self.fitted(copy, PRUNING_EPOCHS, *callbacks))

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
            row["drop"] = None if self.untrained else reached - row["accuracy"]
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


def run(seed: int, litertjs: Path | None, untrained: bool = False, channels: bool = True) -> tuple[Recipe, str]:
    keras.utils.set_random_seed(seed)
    recipe = Recipe(seed, litertjs, untrained)
    shape = (SIZE, SIZE, 3)
    dense = keras.applications.MobileNet(input_shape=shape, alpha=ALPHA, weights=None, classes=10)
    for layer in dense.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # the runs are short, and with 0.99 the averages still hold what they began with
    recipe.note("dense", recipe.fitted(dense, EPOCHS))
    if not untrained:
        recipe.note(LONGER, recipe.fine_tuned(dense))
    plan = tfprune.plan_sparse(dense, "web")
    for amount in (0.8, 0.9):
        pruned = recipe.fine_tuned(plan.model, plan.method(amount))
        recipe.note(f"{amount:.0%} zeros in 1x1 convolutions", pruned, sparse=True)
    if channels:
        narrow = tfprune.shrink(recipe.fine_tuned(dense, tfprune.Structured(FEWER)))
        recipe.note(f"{FEWER:.0%} fewer channels", narrow)
        small = tfprune.plan_sparse(narrow, "web")
        both = recipe.fine_tuned(small.model, small.method(0.8))
        recipe.note(f"{FEWER:.0%} fewer channels, then 80% zeros", both, sparse=True)
    return recipe, recipe.measured()


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--litertjs", type=Path, help="folder of the npm package @litertjs/core")
    parser.add_argument("--untrained", action="store_true", help="random weights, pruned at once: the times alone")
    parser.add_argument("--zeros", action="store_true", help="without the networks of fewer channels")
    parser.add_argument("--page", type=Path, help="folder for the files of the page that runs them live")
    add_output(parser)
    arguments = parser.parse_args(words)
    recipe, where = run(arguments.seed, arguments.litertjs, arguments.untrained, not arguments.zeros)
    if arguments.page is not None:
        recipe.write_page(arguments.page)
    trained = (
        f"One seed ({arguments.seed}). MobileNet of keras.applications, alpha {ALPHA}, {SIZE} pixels; the first "
        f"{IMAGES:,} images of Fashion-MNIST made larger, {EPOCHS} epochs; then {PRUNING_EPOCHS} more, dense or pruned "
        "gradually with plan_sparse(model, 'web').method(...) or Structured(...). Accuracy on the 10,000 test "
        "images; smaller and faster are against the dense file, below dense against the one trained as long."
    )
    random = (
        f"MobileNet of keras.applications, alpha {ALPHA}, {SIZE} pixels, random weights, pruned at once with "
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
