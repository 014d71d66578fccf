"""Half of the heads and of the MLP width of two transformers removed: at once, repaired, and after two epochs.

    python benchmarks/transformers.py --output docs/benchmarks/transformers

A vision transformer learns Fashion-MNIST, and a small text classifier sentences whose topic is told by the words behind
cues alone. Half of every block's heads and widths go, or half of them all by what the outputs miss. Beside stand a
random choice, one by size, and a network of the smaller size trained from scratch.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
from datasets import fashion_mnist
from networks import text_transformer, vision_transformer
from tables import BySeed, add_output, versions, write

import tfprune
from tfprune.report import Column

CALIBRATION, BATCH = 1000, 128
TUNING = 2  # epochs of fine-tuning
DEPTH = 0.2  # of the residual branches
OUTPUTS = 'reconstruct=True, allocation="outputs"'

Figures = dict[tuple[str, str], dict[str, float]]


class Task(NamedTuple):
    """A network, what it learns, and for how long."""

    name: str
    network: Callable[..., keras.Model]
    whole: tuple[int, int]
    half: tuple[int, int]
    epochs: int
    rate: float
    data: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


# What is done with each network, in the order of the table.
WAYS = (
    "dense",
    "random",
    "random, least squares",
    "L2",
    "reconstruct=True",
    OUTPUTS,
    f"StructuredDepth({DEPTH})",
    f"{OUTPUTS}, {TUNING} epochs",
    "from scratch",
)


def _place(key: tuple[str, str]) -> tuple[str, int]:
    return key[0], WAYS.index(key[1])


class Transformers(BySeed):
    """Accuracy by what was done, and how far it is below the dense network."""

    title: ClassVar[str] = "Transformers with half of their heads and MLP width"
    plotted: ClassVar[str] = "accuracy"
    columns: ClassVar[Sequence[Column]] = (
        Column("network", "network"),
        Column("how", "how"),
        Column("parameters", "parameters", ",d"),
        Column("accuracy", "accuracy", ".2f"),
        Column("drop", "below dense", "+.2f"),
        Column("worst", "worst seed", "+.2f"),
        Column("allowed", "allowed", ".1f"),
    )
    allowed: ClassVar[dict[str, float]] = {OUTPUTS: 1.5, f"{OUTPUTS}, {TUNING} epochs": 0.3}

    def rows(self) -> list[dict[str, Any]]:
        every = [key for key in self.runs[0] if all(key in run for run in self.runs)]
        return [self._row(key, [run[key] for run in self.runs]) for key in sorted(every, key=_place)]

    def _row(self, key: tuple[str, str], found: list[dict[str, float]]) -> dict[str, Any]:
        network, how = key
        drops = [run[network, "dense"]["accuracy"] - one["accuracy"] for run, one in zip(self.runs, found)]
        return {
            "network": network,
            "how": how,
            "parameters": int(found[0]["parameters"]),
            "accuracy": statistics.mean(one["accuracy"] for one in found),
            "drop": statistics.mean(drops),
            "worst": max(drops),
            "drop_by_seed": drops,
            "allowed": self.allowed.get(how),
        }


def sentences(samples: int, seed: int, length: int = 32, topics: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Sentences out of 200 words: the words behind six cues come from their topic, all others from other topics."""
    generator = np.random.default_rng(seed)
    vocabulary = np.random.default_rng(0).dirichlet(np.full(191, 0.1), topics)
    labels = generator.integers(0, topics, samples)
    words = np.empty((samples, length), np.int32)
    for topic in range(topics):
        own = labels == topic
        others = np.delete(vocabulary, topic, axis=0).mean(axis=0)
        words[own] = generator.choice(191, (own.sum(), length), p=others) + 9
        behind = generator.choice(191, (own.sum(), length), p=vocabulary[topic]) + 9
        cues = np.zeros((own.sum(), length), bool)
        pairs = np.argsort(generator.random((own.sum(), length // 2)), axis=1)[:, :6]
        cues[np.arange(own.sum())[:, None], 2 * pairs] = True
        words[own] = np.where(np.roll(cues, 1, axis=1), behind, words[own])
        words[own] = np.where(cues, generator.integers(1, 9, cues.shape), words[own])
    return words, labels


def trained(model: keras.Model, task: Task, epochs: int, rate: float) -> keras.Model:
    x, y = task.data[:2]
    steps = epochs * -(-len(x) // BATCH)
    falling = keras.optimizers.schedules.CosineDecay(
        0.0, steps, alpha=0.01, warmup_target=rate, warmup_steps=steps // 10
    )
    optimizer = keras.optimizers.AdamW(falling, weight_decay=0.01)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    model.fit(x, y, epochs=epochs, batch_size=BATCH, verbose=0)
    return model


def network(task: Task, size: tuple[int, int], epochs: int, seed: int, kept: Path | None) -> keras.Model:
    """A network trained from scratch, or read from where an earlier run kept it."""
    keras.utils.set_random_seed(seed)
    model = task.network(keras, *size)
    path = kept and kept / f"{task.name}_{size[0]}_{epochs}_{seed}.weights.h5"
    if path is not None and path.exists():
        model.load_weights(path)
        return model
    trained(model, task, epochs, task.rate)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save_weights(path)
    return model


def figures_path(task: Task, seed: int, kept: Path) -> Path:
    return kept / f"{task.name}_{task.epochs}_{seed}.json"


def named(task: Task, figures: dict[str, dict[str, float]]) -> Figures:
    return {(task.name, how): found for how, found in figures.items()}


def measured(task: Task, seed: int, kept: Path | None) -> Figures:
    """The figures of one network and seed, by the lines that a user writes; those of an earlier run are read."""
    x, y = task.data[2:]
    path = kept and figures_path(task, seed, kept)
    figures = json.loads(path.read_text()) if path is not None and path.exists() else {}
    dense = network(task, task.whole, task.epochs, seed, kept)
    groups = [name for name in tfprune.channel_groups(dense) if name.endswith(("/heads", "_hidden"))]
    randomly = tfprune.criteria.Random(seed)

    def judge(how: str, model: Callable[[], keras.Model]) -> None:
        if how in figures:
            return
        made = model()
        answers = made.predict(x, batch_size=500, verbose=0).argmax(axis=-1)
        figures[how] = {"accuracy": 100.0 * float(np.mean(answers == y)), "parameters": made.count_params()}
        print(seed, task.name, how, figures[how], flush=True)
        if path is not None:
            path.write_text(json.dumps(figures))

    def smaller(method: Any, reconstruct: Any = None) -> keras.Model:
        pruned = tfprune.prune(dense, method, task.data[0][:CALIBRATION], reconstruct=reconstruct, verbose=0)
        return tfprune.shrink(tfprune.strip_masks(pruned))

    def halved(criterion: Any, reconstruct: Any, allocation: str = "uniform") -> keras.Model:
        method = tfprune.Structured(0.5, criterion, allocation, layers=groups, unit=("head", "width"))
        return smaller(method, reconstruct)

    @cache
    def repaired() -> keras.Model:
        return halved("l2", True, "outputs")

    judge("dense", lambda: dense)
    judge("random", lambda: halved(randomly, None))
    judge("random, least squares", lambda: halved(randomly, "least_squares"))
    judge("L2", lambda: halved("l2", None))
    judge("reconstruct=True", lambda: halved("l2", True))
    judge(OUTPUTS, repaired)
    judge(f"StructuredDepth({DEPTH})", lambda: smaller(tfprune.StructuredDepth(DEPTH)))
    judge(f"{OUTPUTS}, {TUNING} epochs", lambda: trained(repaired(), task, TUNING, task.rate / 2))
    judge("from scratch", lambda: network(task, task.half, task.epochs, seed, kept))
    return named(task, figures)


def tasks(names: Sequence[str]) -> list[Task]:
    found = []
    if "vision" in names:
        data = fashion_mnist()
        images = (data.x_train, data.y_train, data.x_test, data.y_test)
        found.append(Task("vision", vision_transformer, (4, 512), (2, 256), 3, 1e-3, images))
    if "text" in names:
        data = (*sentences(20000, seed=1), *sentences(5000, seed=2))
        found.append(Task("text", text_transformer, (4, 256), (2, 128), 5, 2e-3, data))
    return found


def _not_measured(chosen: Sequence[Task], runs: Sequence[Figures]) -> list[str]:
    """A sentence on what the table does not say, where only kept figures were read."""
    ways = [(task.name, how) for task in chosen for how in WAYS]
    missing = [f"{name} {how}" for name, how in ways if any((name, how) not in run for run in runs)]
    return [f"Not measured in every seed: {'; '.join(missing)}."] if missing else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", choices=["vision", "text"], default=["text", "vision"])
    parser.add_argument("--keep", type=Path, help="a folder for trained weights and figures, which a later run reads")
    parser.add_argument("--kept-only", action="store_true", help="measure nothing; write what --keep has of all seeds")
    add_output(parser)
    arguments = parser.parse_args()
    chosen = tasks(arguments.tasks)
    runs: list[Figures] = []
    for seed in arguments.seeds:
        runs.append({})
        for task in chosen:
            if arguments.kept_only:
                runs[-1].update(named(task, json.loads(figures_path(task, seed, arguments.keep).read_text())))
            else:
                runs[-1].update(measured(task, seed, arguments.keep))
        about = [
            f"Seeds {arguments.seeds[: len(runs)]}; means over them. Half of the heads and of the MLP widths gone, by "
            "Structured(0.5, unit=('head', 'width')): of every block (allocation='uniform'), or where the outputs miss "
            "them least (allocation='outputs'); the smaller networks are judged. Repaired from "
            f"{CALIBRATION} unlabelled inputs; fine-tuned for {TUNING} epochs; from scratch: half of every block, for "
            "as long as the dense network. Allowed: points below dense that the project allows itself.",
            *(
                f"{task.name}: {len(task.data[0]):,} training and {len(task.data[2]):,} test samples, {task.epochs} "
                f"epochs in batches of {BATCH}, AdamW from {task.rate} along a cosine, fine-tuning from half of it."
                for task in chosen
            ),
            "The vision transformer has a stem of three convolutions, 9 tokens and 5 blocks of width 128, the text one "
            "32 tokens and 2 blocks of width 64.",
            *_not_measured(chosen, runs),
            versions(),
        ]
        write([Transformers(runs, about)], arguments.output)


if __name__ == "__main__":
    main()
