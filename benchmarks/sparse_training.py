"""Ways to train a sparse network from random weights, for as many epochs: which one loses the least?

    python benchmarks/sparse_training.py --seeds 0 1 2 --output docs/benchmarks/sparse_training

A CNN learns the first 20,000 images of Fashion-MNIST: dense, along the default ramp, in sparse and dense phases
(AC/DC), with regrowth (RigL, also for five times as many epochs), by dynamic surgery, and by thresholds that are
trained with the weights (soft threshold reparameterization, written here), beside the ramp to the share of zeros that
those reach. A second table has zeros and rounding learned one after the other and both at once, in the int8 file.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import keras
import numpy as np
from criteria import Figures, say
from datasets import fashion_mnist
from networks import fashion_cnn
from tables import BySeed, add_output, versions, write

import tfprune
from tfprune.command.datasets import Dataset
from tfprune.report import Column

IMAGES, EPOCHS, BATCH, RATE = 20_000, 6, 128, 2e-3
LONGER = 5
SHARES = (0.9, 0.98)
# Weight decay of trained thresholds, which decides how many zeros there are in the end, and where thresholds begin.
DECAYS = {"weaker": 4e-5, "stronger": 4e-4}
FIRST_THRESHOLD = -5.0  # the threshold is its sigmoid


class Thresholded(keras.layers.Layer):
    """A layer whose kernel is what remains of it above a trained threshold."""

    decay = 0.0

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        decay = keras.regularizers.L2(self.decay)
        first = keras.initializers.Constant(FIRST_THRESHOLD)
        self.threshold = self.add_weight(shape=(), initializer=first, regularizer=decay)
        self.kernel.regularizer = decay

    def remaining(self) -> Any:
        """The kernel, everything nearer to zero by the threshold."""
        ops = keras.ops
        return ops.sign(self.kernel) * ops.relu(ops.abs(self.kernel) - ops.sigmoid(self.threshold))


class ThresholdedDense(Thresholded, keras.layers.Dense):
    def call(self, inputs: Any) -> Any:
        return self.activation(keras.ops.matmul(inputs, self.remaining()) + self.bias)


class ThresholdedConv2D(Thresholded, keras.layers.Conv2D):
    def call(self, inputs: Any) -> Any:
        return self.activation(self.convolution_op(inputs, self.remaining()) + self.bias)


class WithThresholds:
    """Keras with thresholded layers, for `fashion_cnn` to build with."""

    def __init__(self) -> None:
        self.Input, self.Sequential, self.layers = keras.Input, keras.Sequential, self
        self.MaxPooling2D, self.Flatten = keras.layers.MaxPooling2D, keras.layers.Flatten
        self.Dense, self.Conv2D = ThresholdedDense, ThresholdedConv2D


class Trained(BySeed):
    """Accuracy by share of zeros and way, and how far it is below the dense network."""

    title: ClassVar[str] = "A sparse network from random weights"
    columns: ClassVar[Sequence[Column]] = (
        Column("target", "zeros"),
        Column("way", "way"),
        Column("zeros", "zeros found", ".2f"),
        Column("epochs", "epochs", ".0f"),
        Column("accuracy", "accuracy", ".2f"),
        Column("below", "below dense", "+.2f"),
        Column("worst", "worst seed", "+.2f"),
        Column("seconds", "CPU s", ".0f"),
    )

    def _row(self, key: tuple[str, str], found: list[dict[str, float]]) -> dict[str, Any]:
        drops = [run["0 %", "dense"]["accuracy"] - one["accuracy"] for run, one in zip(self.runs, found)]
        figures = {name: statistics.mean(one[name] for one in found) for name in found[0]}
        return {"target": key[0], "way": key[1], **figures, "below": statistics.mean(drops), "worst": max(drops)}


class Rounded(Trained):
    """The same, of int8 files."""

    title: ClassVar[str] = "Zeros and rounding: one after the other, and at once"


def learn(
    model: keras.Model, data: Dataset, callbacks: Sequence[Any], epochs: int, seed: int, rate: float = RATE
) -> None:
    """Trains in place along half a cosine."""
    keras.utils.set_random_seed(seed)
    steps = -(-len(data.x_train) // BATCH) * epochs
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)), loss)
    model.fit(data.x_train, data.y_train, BATCH, epochs, verbose=0, callbacks=list(callbacks))


def per_cent(share: float) -> str:
    return f"{100 * share:.0f} %"


def judged(
    model: keras.Model, data: Dataset, epochs: int, seconds: float, answers: np.ndarray | None = None
) -> dict[str, float]:
    """The figures of a network, by its own answers or by those of its file."""
    answers = model.predict(data.x_test, 1000, verbose=0) if answers is None else answers
    return {
        "zeros": 100 * float(tfprune.summary(tfprune.strip_masks(model)).sparsity),
        "epochs": epochs,
        "accuracy": 100 * float(np.mean(answers.argmax(-1) == data.y_test)),
        "seconds": seconds,
    }


def network(seed: int, build: Any = keras) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return fashion_cnn(build)


def with_callback(make: Callable[[], Any], data: Dataset, epochs: int, seed: int) -> dict[str, float]:
    model, began = network(seed), time.process_time()
    learn(model, data, [make()], epochs, seed)
    return judged(model, data, epochs, time.process_time() - began)


def with_thresholds(decay: float, data: Dataset, seed: int) -> dict[str, float]:
    """A network whose thresholds are trained: the decay of weights and thresholds drives zeros in."""
    Thresholded.decay = decay
    model, began = network(seed, WithThresholds()), time.process_time()
    learn(model, data, [], EPOCHS, seed)
    plain = fashion_cnn(keras)
    for layer, trained in zip(plain.layers, model.layers):
        if isinstance(trained, Thresholded):
            layer.set_weights([np.asarray(trained.remaining()), np.asarray(trained.bias)])
    return judged(plain, data, EPOCHS, time.process_time() - began)


def ways(share: float) -> dict[str, tuple[Callable[[], Any], int]]:
    """Callbacks, and how many epochs they take."""
    return {
        "ramp": (lambda: tfprune.PercentilePruning(share), EPOCHS),
        "ACDC": (lambda: tfprune.PercentilePruning(tfprune.ACDC(share)), EPOCHS),
        "ACDC, two phases": (lambda: tfprune.PercentilePruning(tfprune.ACDC(share, phases=2)), EPOCHS),
        "DynamicSurgery": (lambda: tfprune.DynamicSurgery(share), EPOCHS),
        "RigL": (lambda: tfprune.RigL(share), EPOCHS),
        f"RigL, {LONGER} times as long": (lambda: tfprune.RigL(share), LONGER * EPOCHS),
        f"ramp, {LONGER} times as long": (lambda: tfprune.PercentilePruning(share), LONGER * EPOCHS),
    }


def measure(data: Dataset, seed: int) -> Figures:
    figures: Figures = {}

    def add(target: str, way: str, found: dict[str, float]) -> None:
        figures[target, way] = found
        say(seed, target, way, found)

    add("0 %", "dense", with_callback(keras.callbacks.Callback, data, EPOCHS, seed))
    add("0 %", f"dense, {LONGER} times as long", with_callback(keras.callbacks.Callback, data, LONGER * EPOCHS, seed))
    for share in SHARES:
        for way, (make, epochs) in ways(share).items():
            add(per_cent(share), way, with_callback(make, data, epochs, seed))
    for name, decay in DECAYS.items():
        found = with_thresholds(decay, data, seed)
        add(f"{name} decay", "trained thresholds", found)
        ramp = with_callback(partial(tfprune.PercentilePruning, found["zeros"] / 100), data, EPOCHS, seed)
        add(f"{name} decay", "ramp to as many zeros", ramp)
    return figures


def rounded(data: Dataset, seed: int) -> Figures:
    """Half of the epochs dense; then zeros and rounding."""
    figures: Figures = {}
    dense, half = network(seed), EPOCHS // 2
    learn(dense, data, [], half, seed)
    images = data.x_train[:500]

    def add(target: str, way: str, model: keras.Model, began: float) -> None:
        seconds = time.process_time() - began
        lite = tfprune.convert(model, "int8", images)
        figures[target, way] = judged(model, data, EPOCHS, seconds, lite(data.x_test))
        say(seed, target, way, figures[target, way])

    def copied() -> keras.Model:
        model = fashion_cnn(keras)
        model.set_weights(dense.get_weights())
        return model

    began, model = time.process_time(), copied()
    learn(model, data, [], half, seed, RATE / 2)
    add("0 %", "dense", model, began)
    for share in SHARES:
        for way, at_once in (("zeros, then rounding", False), ("both at once", True)):
            began, model = time.process_time(), copied()
            if not at_once:
                learn(model, data, [tfprune.PercentilePruning(share)], half - 1, seed, RATE / 2)
                model = tfprune.strip_masks(model)
            model = tfprune.quantize_aware(model, images)
            callbacks = [tfprune.PercentilePruning(share)] if at_once else []
            learn(model, data, callbacks, half if at_once else 1, seed, RATE / 2 if at_once else RATE / 10)
            add(per_cent(share), way, model, began)
    return figures


def about() -> list[str]:
    return [
        f"{IMAGES:,} training images, {EPOCHS} epochs in batches of {BATCH} unless said, Adam from {RATE:g} along half "
        "a cosine, random weights; accuracy in per cent of the 10,000 test images, means over the seeds. Zeros found: "
        "of all kernels. All with the default allocation, RigL's is ERK. Below dense: of the same seed, trained for "
        f"{EPOCHS} epochs.",
        "Trained thresholds: every layer's threshold is a weight (Kusupati et al., 2020, "
        "https://arxiv.org/abs/2002.03231); how many zeros come of it the decay decides: "
        f"{', '.join(f'{decay:g} ({name})' for name, decay in DECAYS.items())}.",
        versions(),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add_output(parser)
    options = parser.parse_args()
    data = fashion_mnist(IMAGES)
    trained = Trained([measure(data, seed) for seed in options.seeds], about())
    files = [
        f"Dense for {EPOCHS // 2} epochs, then as many: first zeros, and rounding in the last epoch, or both together. "
        "Accuracy of the int8 file in LiteRT."
    ]
    write([trained, Rounded([rounded(data, seed) for seed in options.seeds], files)], options.output)


if __name__ == "__main__":
    main()
