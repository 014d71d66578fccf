"""What a target counts that only a run of the files tells, and those files."""

import functools
from collections.abc import Callable
from typing import Any

import keras

from tfprune.lite.convert.convert import convert
from tfprune.lite.file.lite_model import LiteModel
from tfprune.lite.measure.benchmark import benchmark
from tfprune.lite.measure.micro import run_micro

TIMED_RUNS = 200


class Files:
    """The files of a model, each made when it is first asked for.

    Args:
        model: In plain float layers.
        samples: Inputs for the ranges of activations.
        int8: Its int8 file, where there is one. Defaults to None: made.
    """

    def __init__(self, model: keras.Model, samples: Any, int8: LiteModel | None = None):
        self._model, self._samples, self._int8 = model, samples, int8

    @functools.cached_property
    def floating(self) -> LiteModel:
        """In float32."""
        return convert(self._model)

    @functools.cached_property
    def int8(self) -> LiteModel:
        """In int8."""
        return self._int8 or convert(self._model, "int8", representative_data=self._samples)

    @functools.cached_property
    def arena(self) -> int:
        """Bytes of RAM that TensorFlow Lite Micro takes for the int8 file."""
        return run_micro(self.int8).arena


def _time(dense: Files, thin: Files, runtime: str) -> float:
    files = {"unpruned": dense.floating, "thin": thin.floating}
    before, after = benchmark(files, runs=TIMED_RUNS, runtime=runtime).timings
    return after.median / before.median


# Of the unpruned model's and a thinner one's files, what the latter takes over the former.
MEASURED: dict[str, Callable[[Files, Files], float]] = {
    "latency": lambda dense, thin: _time(dense, thin, "litert"),
    "web_latency": lambda dense, thin: _time(dense, thin, "web"),
    "arena": lambda dense, thin: thin.arena / dense.arena,
}
