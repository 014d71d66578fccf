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
UNROLLED = 1.5  # times the size of the float file; what quantization adds to a small file is less


class Files:
    """The files of a model, each made when it is first asked for.

    Args:
        model: In plain float layers.
        samples: Inputs for the ranges of activations.
        kind: `"int8"`, or `"dynamic"` for weights of int8 alone. Defaults to None: the latter where int8 unrolls loops.
        rounded: The file of that kind, where there is one. Defaults to None: made.
    """

    def __init__(self, model: keras.Model, samples: Any, kind: str | None = None, rounded: LiteModel | None = None):
        self._model, self._samples, self._kind, self._rounded = model, samples, kind, rounded

    @functools.cached_property
    def floating(self) -> LiteModel:
        """In float32."""
        return convert(self._model)

    @functools.cached_property
    def kind(self) -> str:
        """`"int8"`, or `"dynamic"` where int8 makes a file much larger than float32: integers take no loops."""
        return self._kind or ("dynamic" if self._in_int8.size > UNROLLED * self.floating.size else "int8")

    @functools.cached_property
    def rounded(self) -> LiteModel:
        """In int8, or with weights of int8."""
        return self._rounded or (self._in_int8 if self.kind == "int8" else convert(self._model, self.kind))

    @functools.cached_property
    def _in_int8(self) -> LiteModel:
        return convert(self._model, "int8", representative_data=self._samples)

    @functools.cached_property
    def arena(self) -> int:
        """Bytes of RAM that TensorFlow Lite Micro takes for the rounded file."""
        return run_micro(self.rounded).arena


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
