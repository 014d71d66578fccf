"""Candidates evaluated side by side by joblib: processes here, or the cluster of whatever backend is chosen.

Write `with joblib.parallel_config(backend="dask"):` around a search to send its candidates there.
"""

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tfprune.errors import PruningError, require
from tfprune.search.fitness import FitnessError
from tfprune.search.genome import Genes

Measured = tuple[dict[str, float], str | None]
# What a worker has unpacked, by its digest: it is kept from candidate to candidate.
_unpacked: dict[int, Any] = {}


class Workers:
    """Evaluates candidates in other processes.

    Args:
        number: How many at once.
        make: Makes the fitness; what it holds has to be picklable, and it is called in each worker.
        arguments: What it is called with.

    Raises:
        PruningError: joblib is not installed, or an objective or the model cannot be sent to another process.
    """

    def __init__(self, number: int, make: Callable[..., Any], arguments: tuple[Any, ...]):
        cloudpickle, self._joblib = (
            require(name, extra="search", purpose=f"workers={number}") for name in ("cloudpickle", "joblib")
        )
        self._number = number
        try:
            packed = cloudpickle.dumps((make, arguments))
        except Exception as error:  # whatever the user's classes say to being pickled
            raise PruningError(
                f"workers={number}: the model or an objective cannot be sent to another process ({error}). Write "
                "objectives as functions of a module, or workers=1."
            ) from error
        # As an array joblib maps it into the workers' memory in place of copying it for each candidate.
        self._packed = np.frombuffer(packed, np.uint8)
        self._digest = hash(packed)

    def __call__(self, asked: Sequence[Genes]) -> Iterator[Measured]:
        """The figures of each candidate, or why it has none, in the order asked."""
        found: dict[int, Measured] = {}
        try:
            for place, measured in self._run(list(enumerate(asked))):
                found[place] = measured
        except Exception:  # a worker has died; which candidate killed it shows when each runs alone
            for place, genes in enumerate(asked):
                if place not in found:
                    found[place] = self._alone(place, genes)
        return iter([found[place] for place in range(len(asked))])

    def _alone(self, place: int, genes: Genes) -> Measured:
        try:
            return next(iter(self._run([(place, genes)])))[1]
        except Exception as error:
            return {}, f"the worker that evaluated it died ({type(error).__name__})"

    def _run(self, asked: Sequence[tuple[int, Genes]]) -> Iterator[tuple[int, Measured]]:
        tasks = (self._joblib.delayed(_evaluated)(self._packed, self._digest, place, genes) for place, genes in asked)
        return self._joblib.Parallel(n_jobs=self._number, return_as="generator_unordered")(tasks)


def _evaluated(packed: np.ndarray, digest: int, place: int, genes: Genes) -> tuple[int, Measured]:
    """Runs in a worker: unpacks the fitness the first time, and evaluates."""
    if digest not in _unpacked:
        make, arguments = pickle.loads(packed.tobytes())
        _unpacked.clear()
        _unpacked[digest] = make(*arguments)
    try:
        return place, (_unpacked[digest](genes), None)
    except FitnessError as error:
        return place, ({}, str(error))
