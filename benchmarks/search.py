"""Searches measured: candidates per second, genetic search against simple ways, and the whole road of `compress`.

    nice -n 10 python benchmarks/search.py speed --output docs/benchmarks/search_speed
    nice -n 10 python benchmarks/search.py quality --output docs/benchmarks/search_quality
    nice -n 10 python benchmarks/search.py latency --output docs/benchmarks/search_latency
    nice -n 10 python benchmarks/search.py compress --output docs/benchmarks/search_compress

`speed` evaluates the same candidates of the Fashion-MNIST CNN by the search's fitness and by naive loops that rebuild
and recompile the network for each, in turns, and compares the figures that come out. `quality` gives every search the
same evaluations and the same multiply-accumulates, seed by seed, without training between. `latency` searches for few
milliseconds of the int8 file and for few multiply-accumulates, and measures the files that both found. `compress`
trains a dense network, compresses it in one call on data held back from training, and judges the files on the test
images.
"""

import argparse
import random
import statistics
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from datasets import fashion_mnist
from networks import compiled, fashion_cnn
from tables import Measured, add_output, versions, write

import tfprune
from tfprune.data import batches
from tfprune.datasets import Dataset
from tfprune.report import Column
from tfprune.search import genome as genomes
from tfprune.search import greedy_search, netadapt_search, random_search
from tfprune.search import objectives as goals
from tfprune.search.fitness import Fitness
from tfprune.search.latency import LatencyTable
from tfprune.search.result import Keeping

DENSE_EPOCHS, RATE, BATCH = 3, 1e-3, 128
HELD_BACK = 5000
SAMPLES = 2000
RUNS = 500  # of each file that is timed


class Table(Measured):
    """Rows with a title and columns of their own."""

    def __init__(self, title: str, columns: Sequence[Column], rows: list[dict[str, Any]], about: list[str]):
        super().__init__(rows, about)
        self.title, self.columns = title, columns  # type: ignore[misc]


def dense_network(data: Dataset, seed: int, epochs: int) -> keras.Model:
    """The CNN, trained without the images held back for validation."""
    keras.utils.set_random_seed(seed)
    model = compiled(keras, fashion_cnn(keras), RATE)
    model.fit(data.x_train[:-HELD_BACK], data.y_train[:-HELD_BACK], batch_size=BATCH, epochs=epochs, verbose=0)
    return model


def speed(data: Dataset, epochs: int, rounds: int, per_round: int = 5) -> Table:
    """Evaluates the same candidates in every way, in turns."""
    model = dense_network(data, 0, epochs)
    x, y = data.x_train[-SAMPLES:], data.y_train[-SAMPLES:]
    genome = genomes.make("channels", model, None, None, "element", None)
    fitness = Fitness(model, genome, list(batches((x, y), model, "benchmark", 256)), goals.get(("accuracy", "macs")))

    def searched(genes: Any) -> tuple[float, float]:
        figures = fitness(genes)
        return figures["accuracy"], figures["macs"]

    def masked(genes: Any) -> tuple[float, float]:
        candidate = keras.models.clone_model(model)
        candidate.set_weights(model.get_weights())
        return judged(tfprune.apply_masks(candidate, genome.masks(genes)), genes)

    def shrunk(genes: Any) -> tuple[float, float]:
        candidate = tfprune.shrink(model, tfprune.plan_shrink(model, Keeping(genome.keep(genes))))
        return judged(candidate, genes)

    def judged(candidate: keras.Model, genes: Any) -> tuple[float, float]:
        candidate.compile(loss=model.loss, metrics=["accuracy"])
        accuracy = candidate.evaluate(x, y, batch_size=256, verbose=0, return_dict=True)["accuracy"]
        return accuracy, genome.macs(genes)

    ways = {
        "search": searched,
        "cloned, masked, compiled, evaluated": masked,
        "built small, compiled, evaluated": shrunk,
    }
    generator = random.Random(0)
    for way in ways.values():
        way(genome.dense)
    times: dict[str, list[float]] = {name: [] for name in ways}
    largest = 0.0
    for _ in range(rounds):
        candidates = [genome.drawn(generator) for _ in range(per_round)]
        found = {}
        for name, way in ways.items():
            began = time.perf_counter()
            found[name] = [way(genes)[0] for genes in candidates]
            times[name].append((time.perf_counter() - began) / per_round)
        others = [abs(mine - other) for name in ways for mine, other in zip(found["search"], found[name])]
        largest = max(largest, *others)
    rows = [
        {
            "way": name,
            "rate": statistics.median(1 / seconds for seconds in taken),
            "low": min(1 / seconds for seconds in taken),
            "high": max(1 / seconds for seconds in taken),
            "ratio": statistics.median(slow / fast for slow, fast in zip(taken, times["search"])),
            "least": min(slow / fast for slow, fast in zip(taken, times["search"])),
        }
        for name, taken in times.items()
    ]
    columns = [
        Column("way", "way"),
        Column("rate", "candidates per second", ".2f"),
        Column("low", "low", ".2f"),
        Column("high", "high", ".2f"),
        Column("ratio", "search is so many times as fast", ".1f"),
        Column("least", "at least", ".1f"),
    ]
    about = [
        f"Median over {rounds} rounds in turns, {per_round} candidates each, the same ones for every way; the ratio is "
        "that within a round. "
        f"Accuracy on {SAMPLES:,} images of random channel masks of the CNN of 421,642 parameters. "
        f"Largest difference between two ways in the accuracy of a candidate: {largest * SAMPLES:.1f} images.",
        "The slow ways do what one writes with Keras alone: keras.models.clone_model, set_weights and masks, or a "
        "small network with the weights that are left; then compile() and evaluate() with batches of 256.",
        versions(),
    ]
    return Table("Searching: candidates per second", columns, rows, about)


def quality(data: Dataset, epochs: int, seeds: Sequence[int], evaluations: int, shares: Sequence[float]) -> Table:
    """Lets every search find what it can, on one dense network a seed."""
    found: dict[tuple[float, str], list[float]] = {}
    for seed in seeds:
        model = dense_network(data, seed, epochs)
        search = (data.x_train[-SAMPLES:], data.y_train[-SAMPLES:])
        test = (data.x_test, data.y_test)
        for share in shares:
            arguments: dict[str, Any] = {"objectives": "accuracy", "budget": {"macs": share}, "seed": seed}
            results = {
                "genetic, channels": tfprune.genetic_search(
                    model, search, generations=1000, evaluations=evaluations, **arguments
                ),
                "genetic, layers": tfprune.genetic_search(
                    model, search, genome="layers", generations=1000, evaluations=evaluations, **arguments
                ),
                "layer by layer (NetAdapt)": netadapt_search(model, search, steps=evaluations // 3, **arguments),
                "greedy by sensitivity": greedy_search(model, search, evaluations=evaluations, **arguments),
                "random": random_search(model, search, evaluations=evaluations, **arguments),
            }
            models = {name: result.apply() for name, result in results.items()}
            uniform = tfprune.Structured(1 - share, budget="macs", allocation="uniform")
            models["uniform"] = tfprune.shrink(model, tfprune.plan_shrink(model, uniform))
            for name, pruned in models.items():
                accuracy = pruned.evaluate(*test, verbose=0, return_dict=True)["accuracy"]
                found.setdefault((share, name), []).append(100 * accuracy)
                used = len(results[name].evaluated) - 1 if name in results else 0
                print(f"seed {seed} share {share} {name}: {100 * accuracy:.2f} after {used} evaluations", flush=True)
    rows = []
    for (share, name), accuracies in found.items():
        genetic = found[share, "genetic, channels"]
        ahead = [mine - other for mine, other in zip(genetic, accuracies)]
        rows.append(
            {
                "share": share,
                "search": name,
                "accuracy": statistics.mean(accuracies),
                "low": min(accuracies),
                "high": max(accuracies),
                "ahead": statistics.mean(ahead) if name != "genetic, channels" else None,
                "wins": f"{sum(gap > 0 for gap in ahead)} of {len(ahead)}" if name != "genetic, channels" else None,
            }
        )
    behind = "; ".join(
        f"{r['search']}, {r['share']:g} MACs" for r in rows if r["ahead"] is not None and r["ahead"] <= 0
    )
    columns = [
        Column("search", "search"),
        Column("share", "MACs", ".2f"),
        Column("accuracy", "accuracy", ".2f"),
        Column("low", "low", ".2f"),
        Column("high", "high", ".2f"),
        Column("ahead", "genetic is ahead by", "+.2f"),
        Column("wins", "in seeds"),
    ]
    about = [
        f"Seeds {list(seeds)}; means over them. Dense networks of {epochs} epochs. Per cent of the 10,000 test images, "
        f"right after removing channels, without any training. Each search has at most {evaluations} evaluations on "
        f"{SAMPLES:,} validation images "
        "(uniform none, greedy and NetAdapt stop by themselves), and at most that share of the multiply-accumulates.",
        *([f"The genetic search of channels is NOT ahead of: {behind}."] if behind else []),
        versions(),
    ]
    return Table("Searching: accuracy at equal multiply-accumulates", columns, rows, about)


def latency(
    data: Dataset, epochs: int, seeds: Sequence[int], evaluations: int, limits: Sequence[float], points: int
) -> Table:
    """Searches for few milliseconds and for few multiply-accumulates, and measures what both found side by side."""
    found: dict[float, dict[str, list[float]]] = {limit: {"latency": [], "macs": []} for limit in limits}
    ranks: dict[str, list[float]] = {"latency": [], "macs": []}
    layers = ""
    for seed in seeds:
        model = dense_network(data, seed, epochs)
        search = (data.x_train[-SAMPLES:], data.y_train[-SAMPLES:])
        files = {"dense": tfprune.convert(model, "int8", representative_data=search[0][:300])}
        layers = layers or by_layer(model, search[0][:300])
        figures: dict[str, tuple[str, float, float]] = {}
        for goal in ("latency", "macs"):
            result = tfprune.genetic_search(
                model, search, ("accuracy", goal), "layers", population=24, generations=1000, evaluations=evaluations,
                seed=seed,
            )  # fmt: skip
            for candidate in evenly(result.front, points):
                name = f"{goal} {candidate.number}"
                small = tfprune.shrink(model, result.plan(candidate))
                files[name] = tfprune.convert(small, "int8", representative_data=search[0][:300])
                figures[name] = (goal, candidate["accuracy"], candidate[goal])
        # The fastest of many runs: other work on the machine lengthens some of them, and never shortens one.
        measured = {timing.name: min(timing.milliseconds) for timing in tfprune.benchmark(files, runs=RUNS).timings}
        dense = measured["dense"]
        for goal, others in ranks.items():
            own = [name for name, entry in figures.items() if entry[0] == goal]
            others.append(rank_correlation([figures[n][2] for n in own], [measured[n] for n in own]))
        for limit in limits:
            for goal, accuracies in found[limit].items():
                # The one that a user would take: the best on the validation images among those that are fast enough.
                fast = [n for n, e in figures.items() if e[0] == goal and measured[n] <= limit * dense]
                chosen = max(fast, key=lambda name: figures[name][1], default=None)
                accuracy = None if chosen is None else np.mean(files[chosen](data.x_test).argmax(-1) == data.y_test)
                accuracies.append(float("nan") if accuracy is None else 100 * float(accuracy))
                print(f"seed {seed} limit {limit} {goal}: {accuracies[-1]:.2f} by {chosen}", flush=True)
    rows = []
    for limit, by_goal in found.items():
        ahead = [mine - other for mine, other in zip(by_goal["latency"], by_goal["macs"])]
        both = [gap for gap in ahead if not np.isnan(gap)]
        rows.append(
            {
                "limit": limit,
                "latency": mean_of(by_goal["latency"]),
                "macs": mean_of(by_goal["macs"]),
                "ahead": statistics.mean(both) if both else None,
                "least": min(both) if both else None,
                "most": max(both) if both else None,
                "wins": f"{sum(gap > 0 for gap in both)} of {len(both)}",
                "none": f"{np.isnan(by_goal['latency']).sum()} and {np.isnan(by_goal['macs']).sum()}",
            }
        )
    columns = [
        Column("limit", "measured int8 time at most", ".2f"),
        Column("latency", "searched for latency", ".2f"),
        Column("macs", "searched for MACs", ".2f"),
        Column("ahead", "latency is ahead by", "+.2f"),
        Column("least", "least", "+.2f"),
        Column("most", "most", "+.2f"),
        Column("wins", "in seeds"),
        Column("none", "seeds without a file as fast"),
    ]
    behind = [f"{row['limit']:g}" for row in rows if row["ahead"] is not None and row["ahead"] <= 0]
    losing = f"Latency as objective is NOT ahead at {', '.join(behind)} of the dense file's time." if behind else ""
    about = [
        f"Seeds {list(seeds)}; means over them. The CNN of 421,642 parameters that the other tables use, trained for "
        f"{epochs} epochs. Accuracy of the int8 files in per cent of the 10,000 test images, right after removing "
        f"channels, without any training. Both searches had {evaluations} evaluations on {SAMPLES:,} validation "
        f"images, genome 'layers', population 24. Up to {points} files of each front were timed in turns with the "
        f"dense int8 file, one thread, and the fastest of {RUNS} runs counts; of those that are fast enough the one "
        "best on the validation images is taken. Times are shares of the dense int8 file's.",
        "How far the objective tells the order of the measured times on its own front (rank correlation): "
        f"latency by table {statistics.mean(ranks['latency']):.2f}, MACs {statistics.mean(ranks['macs']):.2f}. "
        f"MACs and int8 time by layer: {layers}.",
        *([losing] if losing else []),
        versions(),
    ]
    return Table("Searching: measured latency as objective against MACs", columns, rows, about)


def by_layer(model: keras.Model, samples: Any) -> str:
    """Each layer's part in the multiply-accumulates and in the int8 time, in words."""
    table = LatencyTable.measured(model, genomes.make("layers", model, None, None, "element", None), samples).to_dict()
    macs = {
        layer.name: tfprune.summary(keras.Sequential([keras.Input(layer.input.shape[1:]), layer])).macs
        for layer in model.layers
        if layer.name in table["times"]
    }
    widest = {name: max(times)[-1] for name, times in table["times"].items()}
    return ", ".join(
        f"{name} {macs[name] / sum(macs.values()):.0%} and {widest[name] / sum(widest.values()):.0%}" for name in macs
    )


def evenly(front: Sequence[Any], count: int) -> list[Any]:
    """So many points of a front, its ends among them."""
    places = np.unique(np.linspace(0, len(front) - 1, min(count, len(front))).round().astype(int))
    return [front[place] for place in places]


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's, for figures without many ties."""
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def mean_of(values: Sequence[float]) -> float | None:
    """The mean of those that are there."""
    known = [value for value in values if not np.isnan(value)]
    return statistics.mean(known) if known else None


def compression(data: Dataset, epochs: int, seeds: Sequence[int]) -> Table:
    """Compresses one dense network a seed."""
    rows, steps = [], []
    for seed in seeds:
        model = dense_network(data, seed, epochs)
        train = (data.x_train[:-HELD_BACK], data.y_train[:-HELD_BACK])
        val = (data.x_train[-HELD_BACK:], data.y_train[-HELD_BACK:])
        began = time.monotonic()
        result = tfprune.compress(model, train, val, seed=seed)
        minutes = (time.monotonic() - began) / 60
        print(result, flush=True)
        right = result.lite(data.x_test).argmax(axis=-1) == data.y_test
        dense = model.evaluate(data.x_test, data.y_test, verbose=0, return_dict=True)["accuracy"]
        ratios = result.ratios
        rows.append(
            {
                "seed": seed,
                "minutes": minutes,
                "dense": 100 * dense,
                "accuracy": 100 * float(np.mean(right)),
                "macs": result.macs,
                "bytes": 1 / ratios["bytes"],
                "gzip": 1 / ratios["gzip_bytes"],
                "float_latency": ratios["float_latency"],
                "int8_latency": ratios["int8_latency"],
            }
        )
        steps.append(
            f"Seed {seed}: " + "; ".join(f"{s.name} {s.accuracy:.2%} in {s.seconds:.0f} s" for s in result.steps)
        )
    columns = [
        Column("seed", "seed"),
        Column("minutes", "minutes", ".1f"),
        Column("dense", "dense accuracy", ".2f"),
        Column("accuracy", "int8 accuracy", ".2f"),
        Column("macs", "MACs", ".3f"),
        Column("bytes", "times smaller", ".1f"),
        Column("gzip", "compressed", ".1f"),
        Column("float_latency", "float ms", ".2f"),
        Column("int8_latency", "int8 ms", ".2f"),
    ]
    about = [
        f"Dense network: {epochs} epochs on {len(data.x_train) - HELD_BACK:,} images. Then compress(model, train, val) "
        f"with nothing else given; val are {HELD_BACK:,} images held back from training. Accuracies in per cent of the "
        "10,000 test images, which no decision has seen: of the dense Keras network and of the int8 file.",
        "Times smaller: the dense float32 file over the int8 file, as it is and compressed by gzip. Milliseconds: "
        "compressed over dense, float32 files and int8 files.",
        *steps,
        versions(),
    ]
    return Table("compress on Fashion-MNIST", columns, rows, about)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["speed", "quality", "latency", "compress"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=DENSE_EPOCHS, help="epochs of the dense network")
    parser.add_argument("--evaluations", type=int, default=400)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5, 0.3])
    parser.add_argument("--limits", type=float, nargs="+", default=[0.95, 0.9, 0.85, 0.8, 0.75], help="for latency")
    parser.add_argument("--points", type=int, default=24, help="files of each front, for latency")
    parser.add_argument("--rounds", type=int, default=10)
    add_output(parser)
    arguments = parser.parse_args()
    data = fashion_mnist()
    if arguments.part == "speed":
        report = speed(data, arguments.epochs, arguments.rounds)
    elif arguments.part == "quality":
        report = quality(data, arguments.epochs, arguments.seeds, arguments.evaluations, arguments.shares)
    elif arguments.part == "latency":
        report = latency(
            data, arguments.epochs, arguments.seeds, arguments.evaluations, arguments.limits, arguments.points
        )
    else:
        report = compression(data, arguments.epochs, arguments.seeds)
    write([report], arguments.output)


if __name__ == "__main__":
    main()
