"""Timing converted models on this machine, side by side."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tfprune.errors import ConversionError, PruningError, listing, nearest
from tfprune.lite.file.contents import End
from tfprune.lite.file.cost import SOURCE, Cost, cost_of
from tfprune.lite.file.lite_model import LiteModel, invoke
from tfprune.lite.measure.memory import process_memory
from tfprune.lite.measure.phone import PhoneRun, is_phone_output, read_phone_output
from tfprune.lite.measure.web import run_web
from tfprune.report import Column, Report

RUNTIMES = ("litert", "web", "browser")


@dataclass(frozen=True)
class Timing:
    """The runs of one model.

    Args:
        name: What the caller calls it.
        milliseconds: The time of each run, in the order of running.
        size: Bytes of the file.
        gzip_size: Bytes of the file compressed by gzip.
        quantization: That of the file.
        cost: Operations and bytes of one run, counted in the file.
        memory: Bytes that running it adds to a process; None where it was not measured.
        difference: The largest difference of an answer from native LiteRT's; None where LiteRT itself was timed.
        scale: The largest answer of native LiteRT's, in size.
    """

    name: str
    milliseconds: tuple[float, ...]
    size: int
    gzip_size: int
    quantization: str
    cost: Cost
    memory: int | None = None
    difference: float | None = None
    scale: float = 1.0

    @property
    def median(self) -> float:
        """The median time of a run in milliseconds."""
        return float(np.median(self.milliseconds))

    @property
    def spread(self) -> float:
        """The interquartile range: the width of the middle half of the times, in milliseconds."""
        low, high = np.percentile(self.milliseconds, (25, 75))
        return float(high - low)

    def row(self) -> dict[str, Any]:
        """The figures under the keys of the table."""
        return {
            "model": self.name,
            "quantization": self.quantization,
            "median_ms": self.median,
            "iqr_ms": self.spread,
            "min_ms": min(self.milliseconds),
            "max_ms": max(self.milliseconds),
            "bytes": self.size,
            "gzip_bytes": self.gzip_size,
            "macs": self.cost.macs,
            "activation_bytes": self.cost.peak_bytes,
            "memory_bytes": self.memory,
            "microjoules": self.cost.picojoules / 1e6,
        }


@dataclass(frozen=True)
class PhoneTiming:
    """What a phone measured, read from the text that it printed.

    Args:
        name: What the caller calls it.
        run: The figures in the text.
    """

    name: str
    run: PhoneRun

    @property
    def median(self) -> float:
        """The median time of a run in milliseconds; the mean where the phone's tool gives no median."""
        return self.run.median

    def row(self) -> dict[str, Any]:
        """The figures under the keys of the table; None for what the text does not tell."""
        return {
            "model": self.name,
            "quantization": None,
            "median_ms": self.run.median,
            "iqr_ms": None,
            "min_ms": self.run.fastest,
            "max_ms": self.run.slowest,
            "bytes": None,
            "gzip_bytes": None,
            "macs": None,
            "activation_bytes": None,
            "memory_bytes": self.run.memory,
            "microjoules": None,
        }


@dataclass(frozen=True, repr=False)
class Benchmark(Report):
    """Time and bytes of converted models, measured in one run.

    Args:
        timings: One per model, in the order given; ratios are against the first.
        threads: Threads that the kernels could use.
        xnnpack: Whether XNNPACK kernels were used where there are some.
        warmup: Untimed runs of each model before the first.
        machine: The processor and system, and the version of LiteRT.
        phones: What phones measured; these rows come last.
    """

    title: ClassVar[str] = "Models timed on this machine"
    columns: ClassVar[Sequence[Column]] = (
        Column("model", "model"),
        Column("quantization", "type"),
        Column("median_ms", "median ms", ".3f"),
        Column("iqr_ms", "IQR ms", ".3f"),
        Column("time_ratio", "ratio", ".2f"),
        Column("bytes", "bytes", ",d"),
        Column("bytes_ratio", "ratio", ".2f"),
        Column("gzip_bytes", "gzip bytes", ",d"),
        Column("macs", "MACs", ",d"),
        Column("activation_bytes", "peak", ",d"),
        Column("microjoules", "uJ (est.)", ",.2f"),
    )
    plotted: ClassVar[Sequence[str]] = ("median_ms", "bytes")

    timings: tuple[Timing, ...]
    threads: int
    xnnpack: bool
    warmup: int
    machine: str
    phones: tuple[PhoneTiming, ...] = ()

    def rows(self) -> list[dict[str, Any]]:
        rows = [timing.row() for timing in self.timings] + [phone.row() for phone in self.phones]
        first = dict(rows[0])
        for row in rows:
            row["time_ratio"] = row["median_ms"] / first["median_ms"]
            row["bytes_ratio"] = row["bytes"] / first["bytes"] if row["bytes"] and first["bytes"] else None
        return rows

    def notes(self) -> list[str]:
        said = []
        if self.timings:
            count = len(self.timings[0].milliseconds)
            said.append(
                f"{count} run{'s' * (count > 1)} of each, taken in turns, after {self.warmup} to warm up; "
                f"{self.threads} thread{'s' * (self.threads != 1)}; XNNPACK {'on' if self.xnnpack else 'off'}."
            )
            said.append(self.machine)
            said.append(self._legend())
        for row in self.rows():
            if row["memory_bytes"] is not None:
                said.append(f"Running '{row['model']}' adds {row['memory_bytes']:,} bytes to a process, at its peak.")
        for phone in self.phones:
            run = phone.run
            threads = "" if run.threads is None else f", {run.threads} thread{'s' * (run.threads != 1)}"
            said.append(f"'{phone.name}' is read from a phone's text: {run.runs} runs{threads} of {run.graph or '?'}.")
        return said

    def _legend(self) -> str:
        """What columns mean whose headings do not tell."""
        return (
            "Counted in the file: MACs; peak, the most bytes that results need at one time; energy, ESTIMATED from "
            f"operations and bytes moved with the constants of {SOURCE}: good for comparing models, no more."
        )


@dataclass(frozen=True, repr=False)
class WebBenchmark(Benchmark):
    """Time of converted models in LiteRT.js, and how far their answers are from native LiteRT's."""

    title: ClassVar[str] = "Models timed in LiteRT.js on this machine"
    columns: ClassVar[Sequence[Column]] = (
        *(column for column in Benchmark.columns if column.key not in ("activation_bytes", "microjoules")),
        Column("difference", "off LiteRT", ".1e"),
    )

    def rows(self) -> list[dict[str, Any]]:
        differences = [timing.difference for timing in self.timings] + [None] * len(self.phones)
        return [{**row, "difference": off} for row, off in zip(super().rows(), differences)]

    def notes(self) -> list[str]:
        said = super().notes()
        for timing in self.timings:
            if not (timing.difference or 0.0) <= ALIKE * max(timing.scale, 1e-6):
                said.append(
                    f"'{timing.name}' answers something else in LiteRT.js than in LiteRT: do not use it there. "
                    "tfprune why --runtime web tells the reason."
                )
        return said

    def _legend(self) -> str:
        return "off LiteRT: the largest difference of any answer from that of native LiteRT for the same input."


ALIKE = 1e-3  # of the largest answer; kernels of two processors round in different orders


def benchmark(
    models: Mapping[str, Any],
    runs: int = 100,
    threads: int = 1,
    *,
    warmup: int = 10,
    xnnpack: bool = True,
    data: Any = None,
    memory: bool = False,
    runtime: str = "litert",
    litertjs: str | os.PathLike[str] | None = None,
    isolate: bool = False,
) -> Benchmark:
    """Times converted models in turns, so that whatever else the machine does falls on all of them alike.

    A run is the interpreter's work on one batch as the file has it (one sample by default); filling in the inputs and
    reading the outputs are not timed.

    Args:
        models: Models by the name to print: each a `LiteModel`, the path of a `.tflite` file, or its bytes; or the path
            of a `.txt` or `.log` file with what `benchmark_model` printed on a phone (`tfprune.lite.phone_lines` tells
            the lines to type). The ratios are against the first.
        runs: Timed runs of each, 1 or more. Defaults to 100.
        threads: Threads that the kernels may use, 1 or more. Defaults to 1.
        warmup: Runs of each before that are not timed. Defaults to 10.
        xnnpack: Whether XNNPACK kernels may be used, as on phones by default; False times the plain kernels.
        data: What `LiteModel` takes, for models whose inputs may vary in length or must be real; the first samples
            are used. Defaults to None: random numbers, and zeros for integer inputs.
        memory: Whether to measure, too, what running each model adds to the memory of a fresh process; about a second
            each. Defaults to False.
        runtime: `"litert"`, LiteRT on this machine; `"web"`, LiteRT.js, the build for web pages, in Node; `"browser"`,
            LiteRT.js in a headless Chromium. The last two take one thread, and compare the answers with LiteRT's.
            Defaults to `"litert"`.
        litertjs: The folder of the npm package @litertjs/core. Defaults to None: looked for in `node_modules` of this
            folder and those above it, then where npm installs packages for all.
        isolate: Whether LiteRT is to run files given by path or as bytes in a process of its own, which one of unknown
            origin may end; times are taken there. Defaults to False.

    Returns:
        A `Benchmark`, which prints as a table.

    Raises:
        PruningError: No model, a number below its limit, or a file that is none.
        MissingPackageError: Node, Chromium or the npm package is missing; the message has the line that gets it.
        ConversionError: The runtime cannot prepare or run a model.

    Example:
        ```python
        print(tfprune.benchmark({"dense": dense_lite, "pruned": lite}, threads=2))
        ```
    """
    if not isinstance(models, Mapping) or not models:
        came = "an empty one" if isinstance(models, Mapping) else type(models).__name__
        raise PruningError(f"benchmark takes a dict of models by name, such as {{'dense': lite}}, and {came} came.")
    for name, value, least in (("runs", runs, 1), ("threads", threads, 1), ("warmup", warmup, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise PruningError(f"{name}={value!r}: give a whole number of {least} or more.")
    if runtime not in RUNTIMES:
        raise PruningError(f"runtime={runtime!r} is unknown. {nearest(str(runtime), RUNTIMES)}")
    phones = {name: read_phone_output(source) for name, source in models.items() if is_phone_output(source)}
    loaded = {name: LiteModel.of(source, isolate) for name, source in models.items() if name not in phones}
    on_phones = tuple(PhoneTiming(name, run) for name, run in phones.items())
    if runtime != "litert":
        if threads != 1 or not xnnpack or memory:
            raise PruningError(f"runtime={runtime!r} takes one thread, and neither xnnpack=False nor memory=True.")
        in_javascript, where = _in_javascript(loaded, data, (runs, warmup), runtime == "browser", litertjs)
        return WebBenchmark(in_javascript, threads, xnnpack, warmup, where, on_phones)
    ready = {name: filled(lite, threads, xnnpack, data) for name, lite in loaded.items()}
    for interpreter in ready.values():
        for _ in range(warmup):
            invoke(interpreter)
    times = interleaved(ready, runs)
    timings = []
    for name, lite in loaded.items():
        used = process_memory(lite.content, threads, xnnpack) if memory else None
        sizes = (lite.size, lite.gzip_size, lite.quantization)
        timings.append(Timing(name, tuple(times[name]), *sizes, cost_of(lite.file), used))
    return Benchmark(tuple(timings), threads, xnnpack, warmup, _machine(), on_phones)


def _in_javascript(
    loaded: Mapping[str, LiteModel], data: Any, counts: tuple[int, int], browser: bool, litertjs: Any
) -> tuple[tuple[Timing, ...], str]:
    """The times in LiteRT.js with the differences from LiteRT, and what ran them."""
    given = {name: _arrays(lite, data) for name, lite in loaded.items()}
    inputs = {
        name: [end.quantized(array) for array, end in zip(given[name], lite.inputs)] for name, lite in loaded.items()
    }
    found = run_web(loaded, inputs, *counts, browser=browser, litertjs=litertjs)
    timings = []
    for name, lite in loaded.items():
        run = found.runs[name]
        if run.failure:
            raise ConversionError(f"LiteRT.js cannot run '{name}': {run.failure} tfprune why --runtime web says more.")
        wanted = lite(given[name] if len(given[name]) > 1 else given[name][0])
        differences, scale = [], 0.0
        for end, answer, expected in zip(lite.outputs, run.outputs, wanted if isinstance(wanted, list) else [wanted]):
            differences.append(float(np.abs(end.dequantized(answer).reshape(expected.shape) - expected).max(initial=0)))
            scale = max(scale, float(np.abs(expected).max(initial=0)))
        sizes = (lite.size, lite.gzip_size, lite.quantization, cost_of(lite.file))
        worst = float(np.max(differences))  # not a number where any is none
        timings.append(Timing(name, run.milliseconds, *sizes, difference=worst, scale=scale))
    return tuple(timings), f"{_processor()}; LiteRT.js {found.version} in {found.where}, compared with {_machine()}"


def filled(lite: LiteModel, threads: int, xnnpack: bool, data: Any = None) -> Any:
    """An interpreter with its inputs filled in: with data, or with random numbers and, for plain integers, zeros."""
    open_lengths = [end.name for end in lite.inputs if None in end.shape[1:]]
    if open_lengths and data is None:  # a guess could be too short for a kernel, and some versions of LiteRT crash then
        raise PruningError(
            f"The length of {listing(open_lengths)} is open, and the time depends on it: give samples of a typical "
            "length as data=."
        )
    lite.require_memory()
    arrays = _arrays(lite, data)
    interpreter = lite.prepared([array.shape for array in arrays], threads=threads, xnnpack=xnnpack)
    lite.fill(interpreter, arrays)
    return interpreter


def _arrays(lite: LiteModel, data: Any) -> list[np.ndarray]:
    """One batch as the file has it: of the data, or of random numbers."""
    if data is None:
        generator = np.random.default_rng(0)
        return [random_input(end, end.shape, generator) for end in lite.inputs]
    arrays = [array[: end.shape[0] or 1] for array, end in zip(lite.arrays(data), lite.inputs)]
    if not all(map(len, arrays)):
        raise PruningError("benchmark was given no samples: data is empty.")
    return arrays


def random_input(end: End, shape: Sequence[int | None], generator: np.random.Generator) -> np.ndarray:
    """Real numbers for an input, open sizes taken as 1; zeros where it takes plain integers, such as word numbers."""
    sizes = tuple(size or 1 for size in shape)
    if end.scale is None and not end.dtype.startswith("float"):
        return np.zeros(sizes, end.dtype)
    return generator.uniform(0, 1, sizes).astype(np.float32)


def interleaved(ready: Mapping[str, Any], runs: int) -> dict[str, list[float]]:
    """Milliseconds of interpreters, each run once in each round, each round beginning with another one.

    Args:
        ready: Interpreters with their inputs filled in, by name.
        runs: Rounds.
    """
    names = list(ready)
    times: dict[str, list[float]] = {name: [] for name in names}
    for round_number in range(runs if names else 0):
        first = round_number % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(invoke(ready[name]) / 1e6)
    return times


def _machine() -> str:
    return (
        f"{_processor()}; {platform.system()} {platform.machine()}; LiteRT {metadata.version('ai-edge-litert')}; "
        f"Python {platform.python_version()}."
    )


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "processor unknown"
