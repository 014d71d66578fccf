"""How much faster two workers of Dask, Ray or this machine search than one, each with one core.

    python benchmarks/cluster_here.py --output docs/benchmarks/cluster_here

The same search with one worker and with two in turns, after a first generation of another search, so that TensorFlow is
imported. One worker is a process of its own like each of two, with one thread for TensorFlow. All journals have to be
equal.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = (
    "1"  # before TensorFlow starts, here and in workers
)

import keras
from datasets import fashion_mnist
from networks import compiled, small_cnn_with_norms
from tables import Measured, add_output, versions, write

import tfprune
from tfprune.report import Column

POPULATION, GENERATIONS, SAMPLES = 32, 10, 8000


class TwoWorkers(Measured):
    title: ClassVar[str] = "The same search with one worker and with two"
    columns: ClassVar[Sequence[Column]] = (
        Column("place", "place"),
        Column("one", "one worker, s", ".1f"),
        Column("two", "two workers, s", ".1f"),
        Column("faster", "faster", ".2f"),
        Column("lowest", "low", ".2f"),
        Column("highest", "high", ".2f"),
    )


@contextlib.contextmanager
def dask(workers: int) -> Iterator[None]:
    import distributed
    import joblib

    own = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**own) as cluster, distributed.Client(cluster), joblib.parallel_config("dask"):
        yield


@contextlib.contextmanager
def ray(workers: int) -> Iterator[None]:
    import joblib
    import ray as package
    from ray.util.joblib import register_ray

    register_ray()
    package.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    try:
        with joblib.parallel_config("ray"):
            yield
    finally:
        package.shutdown()


def searched(model: keras.Model, data: Any, generations: int, seed: int) -> tuple[float, str]:
    """Seconds of a search whose candidates all go to workers, and its journal without the times."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        began = time.perf_counter()
        tfprune.genetic_search(
            model, data, ("accuracy", "macs"), "layers", population=POPULATION, generations=generations, seed=seed,
            workers=2, journal=journal, verbose=0,
        )  # fmt: skip
        return time.perf_counter() - began, journal.read_text()


def measured(place: Any, workers: int, model: keras.Model, data: Any) -> tuple[float, str]:
    """Seconds of a search with workers that have evaluated before."""
    with place(workers):
        searched(model, data, 1, 1)
        return searched(model, data, GENERATIONS, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", default=["dask"], help="dask, ray")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    add_output(parser)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    images = fashion_mnist(SAMPLES)
    data = images.x_train, images.y_train
    model = compiled(keras, small_cnn_with_norms(keras), 1e-3)
    model.fit(*data, epochs=1, verbose=0)
    rows = []
    for name in arguments.places:
        rounds = []
        for _ in range(arguments.rounds):
            rounds.append([measured({"dask": dask, "ray": ray}[name], count, model, data) for count in (1, 2)])
            print(name, [round(seconds, 1) for seconds, _ in rounds[-1]], flush=True)
        if len({journal for pair in rounds for _, journal in pair}) != 1:
            raise RuntimeError(f"{name}: the journals differ")
        faster = [one / two for (one, _), (two, _) in rounds]
        one, two = (statistics.median(pair[place][0] for pair in rounds) for place in (0, 1))
        rows.append({
            "place": name, "one": one, "two": two,
            "faster": statistics.median(faster), "lowest": min(faster), "highest": max(faster),
        })  # fmt: skip
        print(rows[-1], flush=True)
    about = [
        f"Population {POPULATION}, {GENERATIONS} generations, accuracy on {SAMPLES:,} images of Fashion-MNIST and "
        f"MACs; medians of {arguments.rounds} rounds, one and two workers in turns, each with one core and one thread. "
        "Workers have evaluated a first generation before; each search sends its model and data and compiles anew. All "
        "journals are equal.",
        versions(),
    ]
    write([TwoWorkers(rows, about)], arguments.output)


if __name__ == "__main__":
    main()
