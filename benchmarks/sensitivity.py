"""Sensitivity of a deep CNN, against building and compiling every candidate anew; the same numbers, timed in turns.

    python benchmarks/sensitivity.py --output docs/benchmarks/sensitivity

Every weight of a CNN of 20 layers is pruned alone to 9 levels. `tfprune.sensitivity` measures all 180 candidates with
one compiled evaluation. The other side copies the model, zeroes the weight, compiles and evaluates, as a loop over
candidates is usually written; since that takes long, it is timed for evenly spread candidates.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from tables import add_output, versions, write

import tfprune
from tfprune.report import Column, Report

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SAMPLES, SIZE, WIDTH, CONVOLUTIONS = 256, 16, 16, 19
REQUIRED = 10.0


class Comparison(Report):
    """Seconds for each candidate on either side, and how far their numbers are apart."""

    title: ClassVar[str] = "Sensitivity of 20 layers at 9 levels"
    columns: ClassVar[Sequence[Column]] = (
        Column("way", "way"),
        Column("candidates", "candidates timed", ",d"),
        Column("seconds", "seconds a candidate", ".4f"),
        Column("ratio", "times as fast", ".1f"),
        Column("required", "needed", ".0f"),
        Column("difference", "largest difference in loss", ".1e"),
    )

    def __init__(self, rows: list[dict[str, Any]], about: list[str]):
        self._rows, self.about = rows, about

    def rows(self) -> list[dict[str, Any]]:
        return self._rows

    def notes(self) -> list[str]:
        return self.about


def deep_cnn() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3))])
    for number in range(CONVOLUTIONS):
        model.add(layers.Conv2D(WIDTH, 3, padding="same", activation="relu", name=f"conv{number:02d}"))
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(10, name="logits"))
    return compiled(model)


def compiled(model: keras.Model) -> keras.Model:
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def rebuilt(model: keras.Model, key: str, level: float, x: np.ndarray, y: np.ndarray) -> float:
    """The loss of one candidate, from a model of its own."""
    candidate = compiled(keras.models.clone_model(model))
    candidate.set_weights(model.get_weights())
    kernel = candidate.get_layer(key.split("/")[0]).kernel
    value = np.array(kernel)
    smallest = np.argsort(np.abs(value).ravel(), kind="stable")[: round(level * value.size)]
    value.ravel()[smallest] = 0.0
    kernel.assign(value)
    return candidate.evaluate(x, y, batch_size=128, verbose=0, return_dict=True)["loss"]


def compare(rounds: int, candidates: int) -> Comparison:
    model = deep_cnn()
    generator = np.random.default_rng(0)
    x = generator.normal(size=(SAMPLES, SIZE, SIZE, 3)).astype("float32")
    y = generator.integers(0, 10, SAMPLES)
    ours, theirs, differences = [], [], []
    for _ in range(rounds):
        start = time.perf_counter()
        report = tfprune.sensitivity(model, (x, y), metric="loss", levels=LEVELS)
        count = len(report.values) * len(LEVELS)
        ours.append((time.perf_counter() - start) / count)
        every = [(key, number) for key in report.values for number in range(len(LEVELS))]
        start = time.perf_counter()
        found = {
            (key, number): rebuilt(model, key, LEVELS[number], x, y) for key, number in every[:: count // candidates]
        }
        theirs.append((time.perf_counter() - start) / len(found))
        differences += [abs(value - report.values[key][number]) for (key, number), value in found.items()]
    ratio = statistics.median(theirs) / statistics.median(ours)
    rows = [
        {"way": "tfprune.deciding.sensitivity", "candidates": count * rounds, "seconds": statistics.median(ours)},
        {"way": "a new model each", "candidates": len(found) * rounds, "seconds": statistics.median(theirs)},
    ]
    rows[0].update(ratio=ratio, required=REQUIRED, difference=max(differences))
    about = [
        f"{CONVOLUTIONS} convolutions of {WIDTH} channels on {SIZE}x{SIZE}x3 and a dense layer, {SAMPLES} samples; "
        f"medians of {rounds} rounds in turns: {', '.join(f'{b / a:.1f}' for a, b in zip(ours, theirs))} times as "
        "fast. The time of sensitivity holds its one compilation.",
        versions(),
    ]
    return Comparison(rows, about)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--candidates", type=int, default=9, help="timed in each round on the other side")
    add_output(parser)
    arguments = parser.parse_args()
    write([compare(arguments.rounds, arguments.candidates)], arguments.output)


if __name__ == "__main__":
    main()
