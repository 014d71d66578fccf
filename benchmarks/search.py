"""Searches measured: candidates per second, genetic search against simple ways, and the whole road of `compress`.

    nice -n 10 python benchmarks/search.py speed --output docs/benchmarks/search_speed
    nice -n 10 python benchmarks/search.py quality --output docs/benchmarks/search_quality
    nice -n 10 python benchmarks/search.py compress --output docs/benchmarks/search_compress

`speed` evaluates the same candidates of the Fashion-MNIST CNN by the search's fitness and by naive loops that rebuild
and recompile the network for each, in turns, and compares the figures that come out. `quality` gives every search the
same evaluations and the same multiply-accumulates, seed by seed, without training between. `compress` trains a dense
network, compresses it in one call on data held back from training, and judges the files on the test images.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import keras
import numpy as np
from datasets import fashion_mnist
from networks import compiled, fashion_cnn
from tables import Measured, add_output, versions, write

import tfprune
from tfprune.command.datasets import Dataset
from tfprune.model.data import batches
from tfprune.report import Column
from tfprune.search import genome as genomes
from tfprune.search import greedy_search, netadapt_search, random_search
from tfprune.search import objectives as goals
from tfprune.search.fitness import Fitness
from tfprune.search.result import Keeping

DENSE_EPOCHS, RATE, BATCH = 3, 1e-3, 128
HELD_BACK = 5000
SAMPLES = 2000


class AtFullWidth(Fitness):
    """The search's evaluation without its engine of slices (`tfprune/search/thin.py`)."""

    def _try_thin(self) -> None:
        return None


class WithoutStem(Fitness):
    """The search's evaluation whose first layers are computed for each candidate (without `tfprune/search/stem.py`)."""

    def _try_thin(self) -> Any:
        with mock.patch("tfprune.search.thin.LARGEST", 0):
            return super()._try_thin()


def dense_network(data: Dataset, seed: int, epochs: int) -> keras.Model:
    """The CNN, trained without the images held back for validation."""
    keras.utils.set_random_seed(seed)
    model = compiled(keras, fashion_cnn(keras), RATE)
    model.fit(data.x_train[:-HELD_BACK], data.y_train[:-HELD_BACK], batch_size=BATCH, epochs=epochs, verbose=0)
    return model


def speed(data: Dataset, epochs: int, rounds: int, per_round: int = 5) -> Measured:
    """Evaluates the same candidates in every way, in turns."""
    model = dense_network(data, 0, epochs)
    x, y = data.x_train[-SAMPLES:], data.y_train[-SAMPLES:]
    genome = genomes.make("channels", model, None, None, "element", None)
    samples, objectives = list(batches((x, y), model, "benchmark", 256)), goals.get(("accuracy", "macs"))

    def searching(kind: type[Fitness]) -> Callable[[Any], tuple[float, float]]:
        fitness = kind(model, genome, samples, objectives)

        def searched(genes: Any) -> tuple[float, float]:
            figures = fitness(genes)
            return figures["accuracy"], figures["macs"]

        return searched

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
        "search": searching(Fitness),
        "search, first layers anew for each": searching(WithoutStem),
        "search, under masks at full width": searching(AtFullWidth),
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
    return Measured(rows, about, "Searching: candidates per second", columns)


def quality(data: Dataset, epochs: int, seeds: Sequence[int], evaluations: int, shares: Sequence[float]) -> Measured:
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
    return Measured(rows, about, "Searching: accuracy at equal multiply-accumulates", columns)


def compression(data: Dataset, epochs: int, seeds: Sequence[int]) -> Measured:
    """Compresses one dense network a seed."""
    rows, steps = [], []
    for seed in seeds:
        model = dense_network(data, seed, epochs)
        train = (data.x_train[:-HELD_BACK], data.y_train[:-HELD_BACK])
        val = (data.x_train[-HELD_BACK:], data.y_train[-HELD_BACK:])
        began, used = time.monotonic(), time.process_time()
        result = tfprune.compress(model, train, val, seed=seed)
        minutes, cpu = (time.monotonic() - began) / 60, (time.process_time() - used) / 60
        print(result, flush=True)
        right = result.lite(data.x_test).argmax(axis=-1) == data.y_test
        dense = model.evaluate(data.x_test, data.y_test, verbose=0, return_dict=True)["accuracy"]
        ratios = result.ratios
        rows.append(
            {
                "seed": seed,
                "minutes": minutes,
                "cpu": cpu,
                "lost": 100 * result.drop,
                "error": 100 * (result.standard_errors[0] or 0.0),
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
        Column("cpu", "CPU minutes", ".1f"),
        Column("lost", "points lost, validation", "+.2f"),
        Column("error", "±", ".2f"),
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
        "10,000 test images, which no decision has seen: of the dense Keras network and of the int8 file. "
        "Points lost: on val, of the file, with one standard error. Minutes: beside other work, and of the processor.",
        "Times smaller: the dense float32 file over the int8 file, as it is and compressed by gzip. Milliseconds: "
        "compressed over dense, float32 files and int8 files.",
        *steps,
        versions(),
    ]
    return Measured(rows, about, "compress on Fashion-MNIST", columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["speed", "quality", "compress"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=DENSE_EPOCHS, help="epochs of the dense network")
    parser.add_argument("--evaluations", type=int, default=400)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5, 0.3])
    parser.add_argument("--rounds", type=int, default=10)
    add_output(parser)
    arguments = parser.parse_args()
    data = fashion_mnist()
    if arguments.part == "speed":
        report = speed(data, arguments.epochs, arguments.rounds)
    elif arguments.part == "quality":
        report = quality(data, arguments.epochs, arguments.seeds, arguments.evaluations, arguments.shares)
    else:
        report = compression(data, arguments.epochs, arguments.seeds)
    write([report], arguments.output)


if __name__ == "__main__":
    main()
