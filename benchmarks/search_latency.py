"""Is measured latency a better objective of a search than multiply-accumulates?

    nice -n 10 python benchmarks/search_latency.py --output docs/benchmarks/search_latency
    nice -n 10 python benchmarks/search_latency.py --network "plain CNN" --limits 0.95 0.9 0.85 0.8 \\
        --output docs/benchmarks/search_latency_cnn

For each network and seed, one search looks for high accuracy and few milliseconds of the int8 file, a second one, with
as many evaluations, for high accuracy and few multiply-accumulates. Every network on both fronts becomes an int8 file,
all files are timed in turns, and for each limit in milliseconds the best of either front is judged on the test images:
as it was found, and after training on.
"""

import argparse
import contextlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
from datasets import fashion_mnist
from networks import bottleneck_cnn, compiled, fashion_cnn
from tables import Measured, add_output, versions, write

import tfprune
from tfprune.command.datasets import Dataset
from tfprune.report import Column
from tfprune.search import genome as genomes
from tfprune.search.latency import LatencyTable

NETWORKS: Mapping[str, Callable[[Any], Any]] = {"inverted bottlenecks": bottleneck_cnn, "plain CNN": fashion_cnn}
GOALS = ("latency", "macs")
DENSE_EPOCHS, RATE, BATCH = 4, 1e-3, 128
VALIDATION, TRAIN = 1000, 20_000
REPRESENTATIVE = 300
RECALIBRATION = 500
POPULATION = 24
RUNS = 500  # of each file that is timed


class Latency(Measured):
    """Both objectives by limit, as means over seeds."""

    title: ClassVar[str] = "Searching: measured latency as objective against MACs"
    columns: ClassVar[Sequence[Column]] = (
        Column("limit", "measured int8 time at most", ".2f"),
        Column("latency", "searched for latency", ".2f"),
        Column("macs", "searched for MACs", ".2f"),
        Column("ahead", "latency is ahead by", "+.2f"),
        Column("least", "least", "+.2f"),
        Column("most", "most", "+.2f"),
        Column("wins", "in seeds"),
        Column("trained_latency", "for latency, trained on", ".2f"),
        Column("trained_macs", "for MACs, trained on", ".2f"),
        Column("trained_ahead", "ahead by", "+.2f"),
        Column("trained_wins", "in seeds"),
        Column("latency_macs", "MACs left, for latency", ".2f"),
        Column("macs_macs", "MACs left, for MACs", ".2f"),
    )


@dataclass
class Found:
    """A network of a front.

    Attributes:
        model: The small network.
        file: Its int8 file.
        validation: Accuracy that the search saw.
        predicted: Its objective, milliseconds or multiply-accumulates.
        macs: Multiply-accumulates as a share of the unpruned network's.
    """

    model: keras.Model
    file: Any
    validation: float
    predicted: float
    macs: float


@dataclass
class Trial:
    """A network and a seed, measured.

    Attributes:
        chosen: (limit, objective) -> accuracy as found, accuracy after training on, share of the multiply-accumulates;
            in per cent, None where no file is as fast.
        ranks: Objective -> rank correlation with the measured times.
    """

    chosen: dict[tuple[float, str], tuple[float, float, float] | None]
    ranks: dict[str, float]


def trial(
    model: keras.Model,
    data: Dataset,
    validation: Any,
    seed: int,
    evaluations: int,
    limits: Sequence[float],
    epochs: int,
) -> Trial:
    """Both searches on one dense network, and what a user takes from them."""
    images = validation[0][:REPRESENTATIVE]
    dense = tfprune.convert(model, "int8", representative_data=images)
    whole = tfprune.summary(model).macs
    found: dict[str, dict[str, Found]] = {}
    for goal in GOALS:
        result = tfprune.genetic_search(
            model, validation, ("accuracy", goal), "layers", population=POPULATION, generations=1000,
            evaluations=evaluations, seed=seed, recalibrate=validation[0][:RECALIBRATION],
        )  # fmt: skip
        found[goal] = {}
        for candidate in result.front:
            small = tfprune.shrink(tfprune.strip_masks(result.apply(candidate)))
            with contextlib.suppress(tfprune.PruningError, tfprune.ConversionError):  # ruined, no range in some layer
                file = tfprune.convert(small, "int8", representative_data=images)
                left = tfprune.summary(small).macs / whole
                entry = Found(small, file, candidate["accuracy"], candidate[goal], left)
                found[goal][f"{goal} {candidate.number}"] = entry
    files = {"dense": dense, **{name: entry.file for front in found.values() for name, entry in front.items()}}
    # The fastest of many runs: other work on the machine lengthens some of them, and never shortens one.
    times = {timing.name: min(timing.milliseconds) for timing in tfprune.benchmark(files, runs=RUNS).timings}
    ranks = {
        goal: rank_correlation([entry.predicted for entry in front.values()], [times[name] for name in front])
        for goal, front in found.items()
    }
    judged: dict[str, tuple[float, float, float]] = {}
    chosen: dict[tuple[float, str], tuple[float, float, float] | None] = {}
    for limit in limits:
        for goal, front in found.items():
            # The one that a user would take: the best on the validation images among those that are fast enough.
            fast = [name for name in front if times[name] <= limit * times["dense"]]
            best = max(fast, key=lambda name: front[name].validation, default=None)
            if best is not None and best not in judged:
                entry = front[best]
                after = tfprune.convert(trained(entry.model, data, seed, epochs), "int8", representative_data=images)
                judged[best] = accuracy(entry.file, data), accuracy(after, data), entry.macs
            chosen[limit, goal] = None if best is None else judged[best]
            print(f"  {limit} {goal}: {best}, {chosen[limit, goal]}", flush=True)
    return Trial(chosen, ranks)


def trained(model: keras.Model, data: Dataset, seed: int, epochs: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    rate = keras.optimizers.schedules.CosineDecay(RATE, epochs * math.ceil(len(data.x_train) / BATCH))
    compiled(keras, model, rate).fit(data.x_train, data.y_train, batch_size=BATCH, epochs=epochs, verbose=0)
    return model


def accuracy(file: Any, data: Dataset) -> float:
    """Of a file, in per cent of the test images."""
    return 100 * float(np.mean(file(data.x_test).argmax(-1) == data.y_test))


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's, for figures without many ties."""
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def row(limit: float, trials: Sequence[Trial]) -> dict[str, Any]:
    """The means at a limit, over the seeds in which both fronts have a file as fast."""
    pairs = [(one.chosen[limit, "latency"], one.chosen[limit, "macs"]) for one in trials]
    both = [(mine, other) for mine, other in pairs if mine is not None and other is not None]
    entry: dict[str, Any] = {"limit": limit}
    if not both:
        return {**dict.fromkeys(column.key for column in Latency.columns), **entry, "wins": "none as fast"}
    ours, theirs = np.mean(both, axis=0)
    gaps = [mine[0] - other[0] for mine, other in both]
    later = [mine[1] - other[1] for mine, other in both]
    return {
        **entry,
        "latency": ours[0],
        "macs": theirs[0],
        "ahead": float(np.mean(gaps)),
        "least": min(gaps),
        "most": max(gaps),
        "wins": f"{sum(gap > 0 for gap in gaps)} of {len(both)}",
        "trained_latency": ours[1],
        "trained_macs": theirs[1],
        "trained_ahead": float(np.mean(later)),
        "trained_wins": f"{sum(gap > 0 for gap in later)} of {len(both)}",
        "latency_macs": ours[2],
        "macs_macs": theirs[2],
    }


def by_group(model: keras.Model, samples: Any) -> str:
    """The MACs and the int8 time that each group of channels saves by losing half of them, in words."""
    genome = genomes.make("layers", model, None, None, "element", None)
    table = LatencyTable.measured(model, genome, samples)
    said = []
    for place, name in enumerate(genome.chosen):
        genes = genome.repaired([0.5 if place == other else 0.0 for other in range(genome.size)])
        shares = (1 - figure(genes) / figure(genome.dense) for figure in (genome.macs, table))
        said.append(f"{name} " + " and ".join(f"{share:.1%}" for share in shares))
    return ", ".join(said)


def compare(
    data: Dataset, network: str, seeds: Sequence[int], epochs: int, evaluations: int, limits: Sequence[float],
    fine_tuning: int,
) -> Latency:  # fmt: skip
    validation = (data.x_train[-VALIDATION:], data.y_train[-VALIDATION:])
    data = data._replace(x_train=data.x_train[:-VALIDATION], y_train=data.y_train[:-VALIDATION])
    trials, dense = [], []
    saved = ""
    for seed in seeds:
        keras.utils.set_random_seed(seed)
        model = trained(NETWORKS[network](keras), data, seed, epochs)
        dense.append(100 * model.evaluate(data.x_test, data.y_test, verbose=0, return_dict=True)["accuracy"])
        print(f"{network}, seed {seed}: dense {dense[-1]:.2f} %", flush=True)
        saved = saved or by_group(model, validation[0][:REPRESENTATIVE])
        trials.append(trial(model, data, validation, seed, evaluations, limits, fine_tuning))
    rows = [row(limit, trials) for limit in limits]
    told = {goal: np.mean([one.ranks[goal] for one in trials]) for goal in GOALS}
    behind = [f"{each['limit']:g}" for each in rows if each["ahead"] is not None and each["ahead"] <= 0]
    about = [
        f"The network: {network}, {model.count_params():,} parameters, trained for {epochs} epochs on "
        f"{len(data.x_train):,} images, Adam, a cosine from {RATE}; {np.mean(dense):.2f} % of the 10,000 test images. "
        f"Seeds {list(seeds)}; means over them.",
        "Accuracy of the int8 files in per cent of the test images: right after removing channels, batch norms "
        f"measured anew, and after {fine_tuning} epoch{'s' * (fine_tuning != 1)} more. Both searches had {evaluations} "
        f"evaluations on {VALIDATION:,} validation images, genome 'layers', population {POPULATION}. All files of both "
        f"fronts were timed in turns with the dense int8 file, one thread, and the fastest of {RUNS} runs counts; of "
        "those that are fast enough the one best on the validation images is taken. Limits are shares of the dense "
        "int8 file's time.",
        "Rank correlation of the objective with the measured times on its own front: latency by table "
        f"{told['latency']:.2f}, MACs {told['macs']:.2f}. What half of a group's channels save of the MACs, and of the "
        f"int8 time by table: {saved}.",
        *([f"Latency as objective is NOT ahead at {', '.join(behind)} of the dense file's time."] if behind else []),
        versions(),
    ]
    return Latency(rows, about, f"Searching {network}: measured latency as objective against MACs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=list(NETWORKS), default="inverted bottlenecks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=DENSE_EPOCHS, help="epochs of the dense network")
    parser.add_argument("--evaluations", type=int, default=300)
    parser.add_argument("--limits", type=float, nargs="+", default=[0.9, 0.8, 0.7, 0.6])
    parser.add_argument("--fine-tuning", type=int, default=1, help="epochs that each chosen network is trained on")
    parser.add_argument("--samples", type=int, default=TRAIN + VALIDATION, help="training and validation images")
    add_output(parser)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)  # of poor answers: the far ends of the fronts have them
    report = compare(
        fashion_mnist(arguments.samples), arguments.network, arguments.seeds, arguments.epochs, arguments.evaluations,
        arguments.limits, arguments.fine_tuning,
    )  # fmt: skip
    write([report], arguments.output)


if __name__ == "__main__":
    main()
