"""Where a search on a cluster saturates: 1 to 200 simulated workers, with evaluation times recorded here.

    python benchmarks/cluster.py --output docs/benchmarks/cluster

One search is run with its candidates evaluated here, and the CPU seconds of each are recorded. It is then run again for
each number of workers with all that its driver does (breeding, bookkeeping, journal, what is sent out together), but
figures and seconds as recorded: an event queue hands candidates to the workers, and the driver's own CPU time, and the
time that Dask's scheduler takes to send a candidate and fetch its figures, stand between. Longer evaluations (a larger
network, `fine_tune=`) are the same times, multiplied.
"""

import argparse
import heapq
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import keras
import numpy as np
from datasets import fashion_mnist
from networks import compiled, small_cnn_with_norms
from tables import Measured, add_output, versions, write

import tfprune
from tfprune.report import Column
from tfprune.search import workers as places
from tfprune.search.genome import Genes

WORKERS = (1, 10, 50, 100, 200)
LONGER = (1, 10, 100)  # times the recorded seconds
POPULATION, GENERATIONS, SAMPLES = 200, 4, 2000
TRIVIAL = 500  # tasks to time Dask with


class Saturation(Measured):
    title: ClassVar[str] = "A search on 1 to 200 simulated workers"
    columns: ClassVar[Sequence[Column]] = (
        Column("evaluation", "seconds a candidate", ".3g"),
        Column("workers", "workers", "d"),
        Column("seconds", "seconds", ".1f"),
        Column("speedup", "faster than one", ".1f"),
        Column("busy", "workers busy", ".0%"),
        Column("driver", "driver busy", ".0%"),
    )


class Recorded:
    """A place for candidates: evaluates each that is new here, and records its seconds.

    Attributes:
        rounds: The candidates that each call sent out together.
        gaps: CPU seconds of the driver before each call.
    """

    def __init__(self) -> None:
        self.known: dict[Genes, tuple[places.Measured, float]] = {}
        self.begin()

    def begin(self) -> None:
        """Forgets rounds and gaps, and keeps what was recorded."""
        self.rounds: list[list[Genes]] = []
        self.gaps: list[float] = []
        self._left = time.thread_time()

    def __call__(
        self, packed: np.ndarray, digest: int, asked: Sequence[tuple[int, Genes]], alone: bool
    ) -> Iterator[tuple[int, places.Measured]]:
        self.gaps.append(time.thread_time() - self._left)
        self.rounds.append([genes for _, genes in asked])
        if not self.known:  # the first of all compiles, once in each worker
            places._evaluated(packed, digest, *asked[0])
        for number, genes in asked:
            if genes not in self.known:
                began = time.process_time()
                measured = places._evaluated(packed, digest, number, genes)[1]
                self.known[genes] = (measured, time.process_time() - began)
        self._left = time.thread_time()
        return iter([(number, self.known[genes][0]) for number, genes in asked])

    def seconds(self, workers: int, longer: float, sending: float) -> tuple[float, float]:
        """How long the search takes with so many workers, and for how much of that the driver works."""
        now = 0.0
        driving = self._rest
        for gap, sent in zip(self.gaps, self.rounds):
            now += gap
            driving += gap + sending * len(sent)
            free, driver, ended = [now] * workers, now, now
            for genes in sent:
                driver += sending
                begin = max(driver, heapq.heappop(free))
                heapq.heappush(free, begin + longer * self.known[genes][1])
                ended = max(ended, begin + longer * self.known[genes][1])
            now = ended
        return now + self._rest, driving

    def end(self) -> None:
        """Notes the driver's time behind the last round."""
        self._rest = time.thread_time() - self._left


def searched(model: keras.Model, data: Any, workers: int, place: Recorded) -> None:
    """The search, its candidates evaluated by the place."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(places, "_place", lambda joblib, number: place):
        place.begin()
        tfprune.genetic_search(
            model, data, ("accuracy", "macs"), "layers", population=POPULATION, generations=GENERATIONS, seed=0,
            workers=workers, journal=Path(folder) / "journal", verbose=0,
        )  # fmt: skip
        place.end()


def sending_seconds() -> float:
    """The seconds that Dask takes for each of many tasks which do nothing, with one worker on this machine."""
    import distributed

    alone = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**alone) as cluster, distributed.Client(cluster) as client:
        client.gather([client.submit(int, 0, pure=False)])
        began = time.perf_counter()
        client.gather([client.submit(int, number, pure=False) for number in range(TRIVIAL)])
        return (time.perf_counter() - began) / TRIVIAL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_output(parser)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    data = fashion_mnist(SAMPLES)
    model = compiled(keras, small_cnn_with_norms(keras), 1e-3)
    model.fit(data.x_train, data.y_train, epochs=1, verbose=0)
    sending = min(sending_seconds() for _ in range(3))
    place = Recorded()
    searched(model, (data.x_train, data.y_train), WORKERS[-1], place)
    rows = []
    for workers in WORKERS:
        searched(model, (data.x_train, data.y_train), max(2, workers), place)
        count = sum(map(len, place.rounds))
        for longer in LONGER:
            seconds, driving = place.seconds(workers, longer, sending)
            one, _ = place.seconds(1, longer, sending)
            evaluating = longer * sum(place.known[genes][1] for sent in place.rounds for genes in sent)
            rows.append(
                {
                    "evaluation": longer * statistics.mean(known[1] for known in place.known.values()),
                    "workers": workers,
                    "seconds": seconds,
                    "speedup": one / seconds,
                    "busy": evaluating / (seconds * workers),
                    "driver": driving / seconds,
                }
            )
        print(f"{workers} workers: {count} candidates in {len(place.rounds)} rounds", flush=True)
    rows.sort(key=lambda row: (row["evaluation"], row["workers"]))
    own = 1000 * (sum(place.gaps) + place._rest) / count
    about = [
        f"Population {POPULATION}, {GENERATIONS} generations, {count} candidates evaluated on {SAMPLES:,} images of "
        f"Fashion-MNIST. The driver's own CPU time: {own:.1f} ms a candidate; "
        f"sending one by Dask: {1000 * sending:.1f} ms (the mean of {TRIVIAL} empty tasks, the least of three).",
        "A generation waits for its slowest candidate, and no more workers than its new candidates have work.",
        versions(),
    ]
    write([Saturation(rows, about)], arguments.output)


if __name__ == "__main__":
    main()
