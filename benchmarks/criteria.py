"""Every criterion at the same amounts, with every repair: which to choose, and what a repair is worth.

    python benchmarks/criteria.py weights --seeds 0 1 2 --output docs/benchmarks/criteria_weights
    python benchmarks/criteria.py channels --seeds 0 1 2 --output docs/benchmarks/criteria_channels

For each seed one dense CNN is trained, and every criterion chooses what goes from that network: 80, 90 and 95 % of the
weights, or 30, 50 and 70 % of the channels. What is left is judged as it is, after each repair from 1,000 unlabelled
images, and after fine-tuning.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
from datasets import fashion_mnist
from networks import batches, compiled, small_cnn_with_norms
from tables import BySeed, add_output, versions, write

import tfprune
from tfprune import Percentile, Structured
from tfprune.command.datasets import Dataset
from tfprune.deciding.method import Method
from tfprune.deciding.salience import Activation
from tfprune.model.copying import clone_with_weights
from tfprune.model.prunable import every_weight
from tfprune.oneshot.repair.reconstruct import reconstruct
from tfprune.report import Column
from tfprune.training.masks import apply_masks, hold, new_mask, set_mask

DENSE_EPOCHS, RATE, BATCH = 5, 1e-3, 128
TRAINING, TUNING, TEST, CALIBRATION, LABELLED = 10_000, 4000, 5000, 1000, 1000
SPARSITIES, SHARES = (0.8, 0.9, 0.95), (0.3, 0.5, 0.7)
WEIGHT_CRITERIA = {
    "random": "random",
    "magnitude": "magnitude",
    "normalised magnitude": "normalized_magnitude",
    "gradient norm": "gradient_norm",
    "normalised sensitivity": "normalized_sensitivity",
    "Taylor, SNIP": "taylor",
    "Fisher": "fisher",
    "Hessian (OBD)": "hessian",
    "GraSP": "grasp",
    "SynFlow": "synflow",
    "Wanda": "wanda",
}
CHANNEL_CRITERIA = {
    "random": "random",
    "L1": "l1",
    "L2": "l2",
    "normalised magnitude": "normalized_magnitude",
    "geometric median": "geometric_median",
    "batch norm's scale": "batch_norm",
    "gradient norm": "gradient_norm",
    "normalised sensitivity": "normalized_sensitivity",
    "Taylor": "taylor",
    "Fisher": "fisher",
    "Hessian (OBD)": "hessian",
    "GraSP": "grasp",
    "SynFlow": "synflow",
    "Wanda": "wanda",
    "activation, mean": Activation(),
    "activation, not zero": Activation("nonzero"),
    "activation, percentile": Activation("percentile"),
}
PARTS: dict[str, tuple[Any, dict[str, Any], Sequence[float]]] = {
    "weights": (Percentile, WEIGHT_CRITERIA, SPARSITIES),
    "channels": (Structured, CHANNEL_CRITERIA, SHARES),
}
REPAIRS = ("none", "batch_norm", "reconstruct", "tuned")

Figures = dict[tuple[str, str], dict[str, float]]


class Table(BySeed):
    """Accuracy by what was removed and how it was chosen, as means over seeds with the spread."""

    columns: ClassVar[Sequence[Column]] = (
        Column("removed", "removed"),
        Column("criterion", "criterion"),
        Column("none", "no repair"),
        Column("batch_norm", "batch norm"),
        Column("reconstruct", "reconstruction"),
        Column("tuned", "fine-tuned"),
    )

    def _row(self, key: tuple[str, str], found: list[dict[str, float]]) -> dict[str, Any]:
        row: dict[str, Any] = {"removed": key[0], "criterion": key[1]}
        for way in found[0]:
            figures = [one[way] for one in found]
            spread = f" ± {statistics.stdev(figures):.1f}" if len(figures) > 1 else ""
            row[way] = f"{statistics.mean(figures):.1f}{spread}"
            row[f"{way}_by_seed"] = figures
        return row


class Judge:
    """One compiled network that takes on the weights of others, to test them and to fine-tune them."""

    def __init__(self, build: Callable[[Any], Any], data: Dataset):
        self.data = data
        self.model = compiled(keras, build(keras), RATE)
        self.held = list(every_weight(self.model))
        for weight in self.held:
            hold(weight.variable, new_mask(self.model, weight))

    def accuracy(self, model: keras.Model) -> float:
        """Per cent of the test images."""
        self._take_on(model)
        return 100.0 * self.model.evaluate(self.data.x_test, self.data.y_test, batch_size=1000, verbose=0)[1]

    def tuned(self, model: keras.Model) -> float:
        """The same after an epoch of training on a part of the images, by Adam afresh."""
        self._take_on(model)
        for variable in self.model.optimizer.variables:
            variable.assign(RATE if variable is self.model.optimizer.learning_rate else keras.ops.zeros_like(variable))
        part = batches(self.data.x_train[:TUNING], self.data.y_train[:TUNING], BATCH, 0)
        self.model.fit(part, verbose=0)
        return 100.0 * self.model.evaluate(self.data.x_test, self.data.y_test, batch_size=1000, verbose=0)[1]

    def _take_on(self, model: keras.Model) -> None:
        masks = tfprune.get_masks(model)
        self.model.set_weights(model.get_weights())
        for weight in self.held:
            set_mask(weight.variable, masks.get(weight.key, np.ones(weight.shape, bool)))


def trained(build: Callable[[Any], Any], data: Dataset, seed: int, epochs: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = compiled(keras, build(keras), RATE)
    model.fit(batches(data.x_train, data.y_train, BATCH, seed), epochs=epochs, verbose=0)
    return model


def judged(
    dense: keras.Model, method: Method, amounts: Sequence[float], unit: str, judge: Judge
) -> dict[str, dict[str, float]]:
    """Every amount by one criterion, which reads its data once, with every repair."""
    images = judge.data.x_train[:CALIBRATION]
    bound = method.bind(clone_with_weights(dense))
    bound.inform(dense, (judge.data.x_train[:LABELLED], judge.data.y_train[:LABELLED]))
    found = {}
    for amount in amounts:
        masks = bound.decide(amount)
        pruned = apply_masks(clone_with_weights(dense), masks)
        figures = {"none": judge.accuracy(pruned), "tuned": judge.tuned(pruned)}
        reconstruct(pruned, dense, images, "batch_norm")
        figures["batch_norm"] = judge.accuracy(pruned)
        pruned = apply_masks(clone_with_weights(dense), masks)
        reconstruct(pruned, dense, images, "obs" if isinstance(method, Percentile) else "least_squares")
        figures["reconstruct"] = judge.accuracy(pruned)
        found[f"{amount:.0%} of {unit}".replace("%", " %")] = {way: figures[way] for way in REPAIRS}
    return found


def by_criterion(dense: keras.Model, part: str, judge: Judge, seed: int, measured: Figures) -> Figures:
    """The figures of one seed; those that were measured before stay."""
    figures = dict(measured)
    kind, known, amounts = PARTS[part]
    for name, criterion in known.items():
        if any(name == other for _, other in measured):
            continue
        chosen = tfprune.deciding.criteria.get(
            tfprune.deciding.criteria.Random(seed) if criterion == "random" else criterion
        )
        # Scores by gradients of one loss are on one scale in all layers.
        by_gradient = part == "channels" or getattr(chosen, "uses_loss", False)
        method = kind(amounts[0], criterion=chosen, allocation="global" if by_gradient else "lamp")
        for removed, row in judged(dense, method, amounts, part, judge).items():
            figures[removed, name] = row
            say(seed, removed, name, row)
    order = [removed for removed, name in figures if name == "random"]
    return {(removed, name): figures[removed, name] for removed in order for name in known}


def written(output: Path, seed: int) -> Figures:
    """What an earlier run wrote of a seed."""
    (report,) = json.loads(Path(f"{output}.json").read_text(encoding="utf-8"))
    return {
        (row["removed"], row["criterion"]): {way: row[f"{way}_by_seed"][seed] for way in REPAIRS}
        for row in report["rows"]
    }


def say(seed: int, removed: str, name: str, row: dict[str, float]) -> None:
    figures = " ".join(f"{way} {value:.2f}" for way, value in row.items())
    print(f"{time.strftime('%H:%M:%S')} seed {seed}: {removed}, {name}: {figures}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--missing", action="store_true", help="keep what OUTPUT has of these seeds")
    add_output(parser)
    arguments = parser.parse_args()
    measured: list[Figures] = [{} for _ in arguments.seeds]
    if arguments.missing:
        measured = [written(arguments.output, number) for number, _ in enumerate(arguments.seeds)]
    data = fashion_mnist(TRAINING)
    data = data._replace(x_test=data.x_test[:TEST], y_test=data.y_test[:TEST])
    judge = Judge(small_cnn_with_norms, data)
    runs: list[Figures] = []
    whole = []
    for number, seed in enumerate(arguments.seeds):
        dense = trained(small_cnn_with_norms, data, seed, DENSE_EPOCHS)
        whole.append(judge.accuracy(dense))
        runs.append(by_criterion(dense, arguments.part, judge, seed, measured[number]))
        # After every seed, for it takes long.
        title = f"Criteria for {arguments.part}, and repairs, on Fashion-MNIST"
        write([Table(runs, _about(whole, arguments.seeds[: len(runs)]), title)], arguments.output)


def _about(whole: list[float], seeds: list[int]) -> list[str]:
    spread = f" ± {statistics.stdev(whole):.2f}" if len(whole) > 1 else ""
    return [
        f"Seeds {seeds}; means over them, with standard deviations, in per cent of {TEST:,} test images. Dense: a CNN "
        f"of 33,434 parameters with batch norm after {DENSE_EPOCHS} epochs of {TRAINING:,} of the 60,000 training "
        f"images, {statistics.mean(whole):.2f}{spread}. Weights by Percentile, those by gradients of the "
        "loss ranked globally, the others by LAMP; channels by Structured; all else by default.",
        f"Criteria read {LABELLED:,} labelled images in batches of 128 where they need data. Batch norm: its "
        f"statistics measured anew on {CALIBRATION:,} unlabelled images; reconstruction: 'obs' for weights, "
        f"'least_squares' for channels, on the same. Fine-tuned: one epoch of {TUNING:,} of those training images, "
        f"Adam {RATE}, without other repair.",
        versions(),
    ]


if __name__ == "__main__":
    main()
