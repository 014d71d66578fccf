"""Measuring on a phone: the exact lines to type, and what `benchmark_model` printed there as figures."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from tfprune.errors import PruningError

FOLDER = "/data/local/tmp"
TOOL = "benchmark_model"
DOWNLOAD = "https://ai.google.dev/edge/litert/models/measurement"

# When all runs took the same time, the tool leaves the spread out.
RUNS = re.compile(r"count=(\d+)(?: first=\S+)? curr=([\d.e+]+)(?: min=(\S+) max=(\S+) avg=(\S+))?(.*)")
AVERAGE = re.compile(r"Inference \(avg\): ([\d.e+]+)")
MEDIAN = re.compile(r"median=([\d.]+)")
MEMORY = re.compile(r"Overall peak memory footprint \(MB\) via periodic monitoring: ([\d.]+)")
DELTA = re.compile(r"Memory footprint delta from the start of the tool \(MB\): init=\S+ overall=([\d.]+)")
SETTING = re.compile(r"(Num threads|Use xnnpack|Graph): \[(.*?)\]")


@dataclass(frozen=True)
class PhoneRun:
    """What `benchmark_model` said about one model.

    Args:
        runs: Timed runs.
        median: Median milliseconds of a run; the mean where an older tool gives no median.
        mean: Mean milliseconds.
        fastest: Fewest milliseconds.
        slowest: Most milliseconds.
        memory: Peak memory of the tool in bytes; None where it was not reported.
        threads: Threads; None where not printed.
        graph: The file that ran, as the tool printed it.
    """

    runs: int
    median: float
    mean: float
    fastest: float
    slowest: float
    memory: int | None
    threads: int | None
    graph: str | None


def phone_lines(path: Any, runs: int = 100, threads: int = 1, *, warmup: int = 10, xnnpack: bool = True) -> str:
    """The lines that measure a `.tflite` file on a connected Android phone, to be typed into a shell.

    The last one leaves a text file beside the model, which `benchmark` takes like a model:
    `benchmark({"here": "model.tflite", "phone": "model.phone.txt"})`.

    Args:
        path: The `.tflite` file.
        runs: Timed runs. Defaults to 100.
        threads: Threads that the kernels may use. Defaults to 1.
        warmup: Untimed runs before. Defaults to 10.
        xnnpack: Whether XNNPACK kernels may be used. Defaults to True.

    >>> print(phone_lines("model.tflite").splitlines()[1])
    adb push benchmark_model /data/local/tmp
    """
    file = PurePath(path)
    there = f"{FOLDER}/{file.name}"
    arguments = {
        "graph": there,
        "num_threads": threads,
        "num_runs": runs,
        "warmup_runs": warmup,
        "use_xnnpack": str(xnnpack).lower(),
        "report_peak_memory_footprint": "true",
    }
    flags = " ".join(f"--{name}={shlex.quote(str(value))}" for name, value in arguments.items())
    result = shlex.quote(str(file.with_suffix(".phone.txt")))
    return "\n".join(
        [
            f"# {TOOL} for android_aarch64: {DOWNLOAD}",
            f"adb push {TOOL} {FOLDER}",
            f"adb shell chmod +x {FOLDER}/{TOOL}",
            f"adb push {shlex.quote(str(file))} {FOLDER}",
            f"adb shell {FOLDER}/{TOOL} {flags} > {result} 2>&1",
        ]
    )


def is_phone_output(source: Any) -> bool:
    """Whether a source of `benchmark` is the path of a text and not of a `.tflite` file."""
    return isinstance(source, (str, Path)) and Path(source).suffix.lower() in (".txt", ".log")


def read_phone_output(path: Any) -> PhoneRun:
    """The figures in what `benchmark_model` printed, saved as text.

    Raises:
        PruningError: There is no such file, or no finished measurement in it.
    """
    file = Path(path)
    if not file.is_file():
        raise PruningError(f"'{file}' is not a file. Save what {TOOL} prints; phone_lines(path) tells how.")
    text = file.read_text(encoding="utf-8", errors="replace")
    measured = list(RUNS.finditer(text))  # the warm-up comes first, the timed runs last
    average = AVERAGE.search(text)
    if average is None or not measured:
        raise PruningError(
            f"'{file}' holds no finished measurement of {TOOL}: a line 'Inference timings in us: ...' is missing. "
            f"It ends with: {' '.join(text.split()[-12:])!r}."
        )
    count, current, fastest, slowest, _, more = measured[-1].groups()
    median = MEDIAN.search(more)
    settings = dict(SETTING.findall(text))
    memory = MEMORY.search(text) or DELTA.search(text)
    mean = float(average[1]) / 1000
    return PhoneRun(
        runs=int(count),
        median=float(median[1]) / 1000 if median else mean,
        mean=mean,
        fastest=float(fastest or current) / 1000,
        slowest=float(slowest or current) / 1000,
        memory=round(float(memory[1]) * 2**20) if memory else None,
        threads=int(settings["Num threads"]) if settings.get("Num threads", "").isdigit() else None,
        graph=settings.get("Graph"),
    )
