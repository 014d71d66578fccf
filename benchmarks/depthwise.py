"""What int8 and 4-bit weights cost a depthwise network, and what wins it back: corrected biases, or training.

    python benchmarks/depthwise.py --seeds 0 1 2 --output docs/benchmarks/depthwise

A narrow MobileNet is trained for each seed, and converted with weights of 8 and of 4 bits: as it is with
representative images (PTQ), with its biases corrected on the same images, and after training with the rounding (QAT).
The float network trained on for as long, by the same optimizer on the same batches, stands beside them, so that what
training on alone gains can be told from what the rounding loses. All accuracies are those of the `.tflite` files.
"""

import argparse
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from datasets import fashion_mnist
from networks import batches, deep_depthwise_cnn
from tables import BySeed, add_output, means, versions, write

import tfprune
from tfprune.command.datasets import Dataset
from tfprune.report import Column

EPOCHS, RATE, BATCH = 3, 0.1, 64
REPRESENTATIVE = 300
FLOAT, TRAINED_ON = ("float32", ""), ("float32", "trained on")

Figures = dict[tuple[str, str], dict[str, Any]]


class Depthwise(BySeed):
    """Accuracy and agreement by bits and scheme, as means over seeds."""

    title: ClassVar[str] = "A depthwise network in 8 and 4 bits, Fashion-MNIST"
    plotted: ClassVar[str] = "accuracy"
    columns: ClassVar[Sequence[Column]] = (
        Column("weights", "weights"),
        Column("scheme", "scheme"),
        Column("accuracy", "accuracy", ".2f"),
        Column("lost", "lost", "+.2f"),
        Column("least", "least", "+.2f"),
        Column("most", "most", "+.2f"),
        Column("agreement", "agrees with float", ".2%"),
        Column("same", "Keras = file", ".2%"),
        Column("error", "error of the outputs", ".2%"),
        Column("kilobytes", "kB", ",.1f"),
    )

    def _row(self, key: Any, found: list[dict[str, Any]]) -> dict[str, Any]:
        beside = TRAINED_ON if key[1] in ("QAT", "trained on") else FLOAT
        lost = [run[beside]["accuracy"] - run[key]["accuracy"] for run in self.runs]
        row = means(found)
        if row["same"] is not None:
            row["same"] = min(one["same"] for one in found)
        weights, scheme = key
        return {
            "weights": weights,
            "scheme": scheme,
            **row,
            "lost": np.mean(lost),
            "least": min(lost),
            "most": max(lost),
        }


def compare(seeds: Sequence[int], epochs: int, rate: float, data: Dataset) -> Depthwise:
    about = [
        f"Seeds {list(seeds)}; means over them, of 'Keras = file' the lowest. Accuracy in per cent of "
        f"{len(data.y_test):,} test images. The network: {EPOCHS} epochs of {len(data.x_train):,} images, SGD with "
        f"momentum 0.9 and a cosine from {RATE}, batches of {BATCH}.",
        f"QAT and 'trained on' go on for {epochs} epoch{'s' * (epochs != 1)} with a cosine from {rate}. Lost: points "
        "below float32, of QAT below float32 trained on, with the least and the most of any seed; agreement and error "
        "likewise. The error is the root mean square of the differences over that of the float outputs.",
        f"PTQ calibrates on {REPRESENTATIVE} training images, and corrects biases on 128 of them. In 4 bits are all "
        "kernels, those of the depthwise convolutions too. LiteRT computes these by kernels outside XNNPACK, whose "
        "rounding is a little off that of Keras.",
        versions(),
    ]
    return Depthwise([measured(seed, epochs, rate, data) for seed in seeds], about)


def measured(seed: int, epochs: int, rate: float, data: Dataset) -> Figures:
    keras.utils.set_random_seed(seed)
    images = data.x_train[:REPRESENTATIVE]
    model = trained(deep_depthwise_cnn(keras), EPOCHS, RATE, data, seed)
    further = trained(tfprune.strip_masks(model), epochs, rate, data, seed + 1)  # which is a copy
    run: Figures = {}
    judge(run, FLOAT, tfprune.convert(model), model, None, data)
    judge(run, TRAINED_ON, tfprune.convert(further), further, None, data)
    for bits in (8, 4):
        every = {layer.name: bits for layer in model.layers if hasattr(layer, "kernel")}
        for scheme, corrects in (("PTQ", False), ("PTQ, biases corrected", True)):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Output .* is off by")  # which the table shows
                lite = tfprune.convert(model, "int8", images, weight_bits=every, bias_correction=corrects)
            judge(run, (f"{bits} bits", scheme), lite, model, None, data)
        quantized = tfprune.quantize_aware(model, images, weight_bits=every)
        trained(quantized, epochs, rate, data, seed + 1)
        answers = quantized.predict(data.x_test, batch_size=500, verbose=0)
        judge(run, (f"{bits} bits", "QAT"), tfprune.convert(quantized, "int8"), further, answers, data)
    return run


def trained(model: keras.Model, epochs: int, rate: float, data: Dataset, seed: int) -> keras.Model:
    steps = epochs * -(-len(data.x_train) // BATCH)
    optimizer = keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(rate, steps), momentum=0.9)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(batches(data.x_train, data.y_train, BATCH, seed), epochs=epochs, verbose=0)
    return model


def judge(
    run: Figures,
    key: tuple[str, str],
    lite: tfprune.LiteModel,
    model: keras.Model,
    answers: np.ndarray | None,
    data: Dataset,
) -> None:
    """Adds the figures of one file: `model` is the float network beside it, `answers` those of the one in QAT."""
    given, wanted = lite(data.x_test), model.predict(data.x_test, batch_size=500, verbose=0)
    run[key] = {
        "accuracy": 100.0 * float(np.mean(given.argmax(-1) == data.y_test)),
        "agreement": float(np.mean(given.argmax(-1) == wanted.argmax(-1))),
        "same": None if answers is None else float(np.mean(given.argmax(-1) == answers.argmax(-1))),
        "error": float(np.sqrt(np.mean((given - wanted) ** 2) / np.mean(wanted**2))),
        "kilobytes": lite.size / 1000,
    }
    print(key, run[key], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=1, help="epochs of training on, with the rounding and without")
    parser.add_argument("--rate", type=float, default=0.02, help="learning rate that training on begins with")
    parser.add_argument("--samples", type=int, default=20000, help="training images to use")
    add_output(parser)
    arguments = parser.parse_args()
    data = fashion_mnist(arguments.samples)
    write([compare(arguments.seeds, arguments.epochs, arguments.rate, data)], arguments.output)


if __name__ == "__main__":
    main()
