"""Candidates evaluated side by side: in processes here by joblib, or on the cluster of the joblib backend chosen.

Write `with joblib.parallel_config(backend="dask"):` or `"ray"` around a search to send its candidates there. What they
are measured with goes to a cluster once, not with every candidate.
"""

import contextlib
import pickle
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np

from tfprune.errors import PruningError, require
from tfprune.search.fitness import FitnessError
from tfprune.search.genome import Genes

Measured = tuple[dict[str, float], str | None]
Arriving = Generator[tuple[int, Measured], None, None]
# What a worker has unpacked, by its digest: it is kept from candidate to candidate, and used by one thread at a time.
_unpacked: dict[int, Any] = {}
_turn = threading.Lock()
SUSPECTS = 2  # candidates for each worker that were on their way when one died, as joblib sends them ahead


class Workers:
    """Evaluates candidates in other processes.

    Args:
        number: How many at once; on a cluster its cores say so.
        make: Makes the fitness; what it holds has to be picklable, and it is called in each worker.
        arguments: What it is called with.

    Raises:
        PruningError: joblib is not installed, or an objective or the model cannot be sent to another process.
    """

    def __init__(self, number: int, make: Callable[..., Any], arguments: tuple[Any, ...]):
        cloudpickle, joblib = (
            require(name, extra="search", purpose=f"workers={number}") for name in ("cloudpickle", "joblib")
        )
        try:
            packed = cloudpickle.dumps((make, arguments))
        except Exception as error:  # whatever the user's classes say to being pickled
            raise PruningError(
                f"workers={number}: the model or an objective cannot be sent to another process ({error}). Write "
                "objectives as functions of a module, or workers=1."
            ) from error
        # As an array joblib maps it into the workers' memory in place of copying it for each candidate.
        self._packed, self._digest = np.frombuffer(packed, np.uint8), hash(packed)
        self._number, self._place = number, _place(joblib, number)

    def __call__(self, asked: Sequence[Genes]) -> Generator[Measured, None, None]:
        """The figures of each candidate, or why it has none, in the order asked, each as soon as those before it.

        Closing it calls back what is on its way.
        A candidate whose worker died is evaluated once more, alone: that worker may have died of something else.
        """
        found: dict[int, Measured] = {}
        given = 0
        with contextlib.closing(self._arriving(list(enumerate(asked)))) as arriving:
            for number, measured in arriving:
                found[number] = measured
                while given in found:
                    yield found.pop(given)
                    given += 1

    def _arriving(self, waiting: Sequence[tuple[int, Genes]]) -> Arriving:
        """The figures of each candidate by its number, in any order."""
        while waiting:
            arrived = set()
            # Where workers have died, which candidate killed them shows when each runs alone.
            with contextlib.suppress(Exception), contextlib.closing(self._run(waiting)) as running:
                for number, measured in running:
                    arrived.add(number)
                    yield number, measured
            waiting = [each for each in waiting if each[0] not in arrived]
            for number, genes in waiting[: SUSPECTS * self._number]:
                yield number, self._alone(number, genes)
            waiting = waiting[SUSPECTS * self._number :]

    def _alone(self, number: int, genes: Genes) -> Measured:
        try:
            for _, measured in self._run([(number, genes)], alone=True):
                return measured
        except ModuleNotFoundError as error:  # of every candidate, so that nothing would be left of the search
            told = getattr(error, "cause", error)  # Ray's own error holds it
            raise PruningError(
                f"A worker cannot import {told.name!r}, which the model or an objective needs: install it on every "
                "machine, or put its folder into PYTHONPATH before the workers start; workers=1 needs none of it."
            ) from error
        except Exception as error:
            return {}, f"the worker that evaluated it died ({type(error).__name__})"
        return {}, "the worker that evaluated it died"

    def _run(self, asked: Sequence[tuple[int, Genes]], alone: bool = False) -> Arriving:
        yield from self._place(self._packed, self._digest, asked, alone)


class _Processes:
    """joblib's own processes, or any backend of joblib that is not known by name."""

    def __init__(self, joblib: Any, number: int):
        self._joblib, self._number = joblib, number

    def __call__(
        self, packed: np.ndarray, digest: int, asked: Sequence[tuple[int, Genes]], alone: bool
    ) -> Iterator[tuple[int, Measured]]:
        tasks = (self._joblib.delayed(_evaluated)(packed, digest, number, genes) for number, genes in asked)
        return self._joblib.Parallel(n_jobs=self._number, return_as="generator_unordered")(tasks)


class _Dask:
    """The workers of a Dask client; what dies is left out, unless it runs alone."""

    def __init__(self, client: Any):
        self._client = client
        self._sent: Any = None

    def __call__(
        self, packed: np.ndarray, digest: int, asked: Sequence[tuple[int, Genes]], alone: bool
    ) -> Iterator[tuple[int, Measured]]:
        from distributed import as_completed

        if self._sent is None or self._sent.status != "finished":  # it is lost with the last worker that had it
            self._sent = self._client.scatter(packed, broadcast=True, hash=False)
        tasks = [self._client.submit(_evaluated, self._sent, digest, *each, pure=False) for each in asked]
        try:
            for task in as_completed(tasks):
                if task.status == "finished":
                    yield task.result()
                elif alone:
                    raise task.exception() or RuntimeError(task.status)
        finally:  # where the search ends before them
            self._client.cancel([task for task in tasks if not task.done()])


class _Ray:
    """The workers of Ray; what dies is left out, unless it runs alone."""

    def __init__(self) -> None:
        import ray

        self._ray = ray
        if not ray.is_initialized():
            ray.init()
        self._task = ray.remote(_evaluated).options(num_cpus=1, max_retries=0)
        self._sent: Any = None

    def __call__(
        self, packed: np.ndarray, digest: int, asked: Sequence[tuple[int, Genes]], alone: bool
    ) -> Iterator[tuple[int, Measured]]:
        if self._sent is None:
            self._sent = self._ray.put(packed)
        waiting = [self._task.remote(self._sent, digest, *each) for each in asked]
        try:
            while waiting:
                (done, *_), waiting = self._ray.wait(waiting)
                try:
                    measured = self._ray.get(done)
                except self._ray.exceptions.RayError:
                    if alone:
                        raise
                    continue
                yield measured
        finally:  # where the search ends before them
            for task in waiting:
                self._ray.cancel(task)


def _place(joblib: Any, number: int) -> Callable[..., Iterator[tuple[int, Measured]]]:
    """Where candidates are evaluated: what `joblib.parallel_config` says at the moment."""
    backend, _ = joblib.parallel.get_active_backend()
    kind = type(backend).__name__
    if kind == "DaskDistributedBackend":
        return _Dask(backend.client)
    if kind == "RayBackend":
        return _Ray()
    return _Processes(joblib, number)


def _evaluated(packed: np.ndarray, digest: int, number: int, genes: Genes) -> tuple[int, Measured]:
    """Runs in a worker: unpacks the fitness the first time, and evaluates."""
    with _turn:
        if digest not in _unpacked:
            make, arguments = pickle.loads(packed.tobytes())
            _unpacked.clear()
            _unpacked[digest] = make(*arguments)
        try:
            return number, (_unpacked[digest](genes), None)
        except FitnessError as error:
            return number, ({}, str(error))
