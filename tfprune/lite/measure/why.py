"""Why a file is as fast as it is: what its time goes into, and what zeros, channels or int8 would change."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tfprune.errors import ConversionError, PruningError
from tfprune.lite.file.kernels import POINTWISE, Kernel, block_kernel
from tfprune.lite.file.lite_model import LiteModel
from tfprune.lite.file.narrowing import narrowed
from tfprune.lite.file.path_rules import SPARSE
from tfprune.lite.file.paths import FilePaths, OperatorPath
from tfprune.lite.measure.benchmark import benchmark
from tfprune.lite.measure.operator_times import OperatorTimes, time_operators
from tfprune.report import Column, Report

USUAL = 0.9  # the share of zeros for which is told what they would bring
HALF = 0.5  # the share of channels for which is told what they would leave
SHOWN = 10  # kinds of operators


@dataclass(frozen=True, repr=False)
class Explanation(Report):
    """What the time of a file goes into, by kinds of operators, with a verdict below.

    Args:
        paths: The way of each operator through the runtime.
        quantization: That of the file.
        times: The time of each operator on this machine; None where they cannot be timed.
        milliseconds: The median time of a run in the runtime asked for; None where it was not measured.
        measured: What was measured and where, or why nothing was.
        halved: The median time, in the same turns, of the file with half of its channels; None where it was not
            measured, or where the file does not tell where channels go.
    """

    title: ClassVar[str] = "Where the time goes, and what would change it"
    columns: ClassVar[Sequence[Column]] = (
        Column("operators", "operators"),
        Column("count", "count", "d"),
        Column("time", "time", ".0%"),
        Column("macs", "MACs", ",d"),
        Column("zeros", "zeros", ".0%"),
        Column("path", "path"),
        Column("reason", "why"),
    )
    plotted: ClassVar[Sequence[str]] = ("time", "macs")
    coloured: ClassVar[str] = "path"

    paths: FilePaths
    quantization: str
    times: OperatorTimes | None
    milliseconds: float | None
    measured: str
    halved: float | None = None

    def share(self, operator: OperatorPath) -> float:
        """An operator's share of the time; of the multiply-accumulates where no time was measured."""
        if self.times is not None and self.times.sum:
            return (self.times.operators[operator.number].milliseconds or 0.0) / self.times.sum
        return operator.macs / max(sum(found.macs for found in self.paths.operators), 1)

    def rows(self) -> list[dict[str, Any]]:
        groups: dict[tuple[str, str], list[OperatorPath]] = {}
        for found in self.paths.operators:
            groups.setdefault((found.operator, found.path), []).append(found)
        rows = [self._row(*key, found) for key, found in groups.items()]
        rows.sort(key=lambda row: -row["time"])
        return rows[:SHOWN]

    def _row(self, name: str, path: str, found: list[OperatorPath]) -> dict[str, Any]:
        largest = max(found, key=lambda operator: operator.macs)
        weighed = [operator for operator in found if operator.zeros is not None]
        macs = sum(operator.macs for operator in weighed)
        zeros = sum((operator.zeros or 0.0) * operator.macs for operator in weighed) / macs if macs else None
        return {
            "operators": name,
            "count": len(found),
            "time": sum(map(self.share, found)),
            "macs": sum(operator.macs for operator in found),
            "zeros": zeros,
            "path": path,
            "reason": largest.reason or None,
        }

    @property
    def kernel_gain(self) -> float:
        """How many times faster the whole would be at 90 % zeros in all layers that have a kernel, as predicted."""
        left = 0.0
        for found in self.paths.operators:
            kernel = self._kernel(found)
            left += self.share(found) / (kernel.gain(USUAL) if kernel is not None and found.path != SPARSE else 1.0)
        return 1.0 / left if left else 1.0

    def _kernel(self, found: OperatorPath) -> Kernel | None:
        """The sparse kernel that an operator could have, by its kind alone."""
        if found.operator == "FULLY_CONNECTED":
            return block_kernel(self.paths.runtime, self.quantization.upper())
        pointwise = found.operator == "CONV_2D" and "cluster" in found.reason + " " + found.path
        return POINTWISE if pointwise and self.paths.runtime in POINTWISE.runtimes else None

    def notes(self) -> list[str]:
        return [self._verdict(), self.measured, self._zeros(), self._channels(), self._integers()]

    def totals(self) -> dict[str, Any]:
        return {"count": len(self.paths.operators), "macs": sum(found.macs for found in self.paths.operators)}

    def to_dict(self) -> dict[str, Any]:
        about = {"runtime": self.paths.runtime, "runs": self.paths.runs, "broken": self.paths.broken}
        times = {"milliseconds": self.milliseconds, "milliseconds_half_channels": self.halved}
        return {**super().to_dict(), **about, **times, "operators": self.paths.rows()}

    def _verdict(self) -> str:
        runtime = self.paths.runtime
        if self.paths.runs:
            return f"Verdict: runtime={runtime!r} runs this file and answers right."
        return f"Verdict: do NOT use this file on runtime={runtime!r}. {self.paths.broken[0]}."

    def _zeros(self) -> str:
        skipping = sum(self.share(found) for found in self.paths.operators if found.path == SPARSE)
        now = f"Zeros: kernels that skip them run {skipping:.0%} of the time"
        gain = self.kernel_gain
        if gain > 1.05:
            return f"{now}; {USUAL:.0%} zeros in tfprune.plan_sparse's pattern would make the whole {gain:.1f}x faster."
        return f"{now}; more zeros would make nothing else faster, only the file smaller."

    def _channels(self) -> str:
        weighed = sum(self.share(found) for found in self.paths.operators if found.macs)
        said = f"Channels: {weighed:.0%} of the time multiplies weights, and goes with them: half of them everywhere"
        if self.halved is not None and self.milliseconds:
            left = f"take {self.halved:.3f} ms, {self.milliseconds / self.halved:.1f} times as fast, measured so"
        else:
            left = f"would leave about {1 - weighed + weighed / 4:.0%} of the time"
        return f"{said} {left} (tfprune.plan_shrink tells which can go)."

    def _integers(self) -> str:
        if self.quantization in ("int8", "int16x8"):
            return f"Integers: it is {self.quantization} already."
        return (
            "Integers: int8 constants take a quarter of the bytes; convert(quantization='int8') and tfprune.benchmark "
            "tell what that does to the time on a processor."
        )


def explain(lite: Any, runtime: str = "litert", runs: int = 30) -> Explanation:
    """Tells what the time of a `.tflite` file goes into, what would change it, and whether a runtime answers right.

    Operators are timed one by one in LiteRT on this machine, whatever the runtime; the whole is timed in LiteRT, or in
    LiteRT.js for `"web"` where Node and its package are there.

    Args:
        lite: A `LiteModel`, the path of a `.tflite` file, or its bytes, whoever made it.
        runtime: `"litert"`, `"arm"`, `"web"` or `"micro"`. Defaults to `"litert"`.
        runs: Timed runs. Defaults to 30.

    Returns:
        A table with the verdict below.

    Raises:
        PruningError: The file is truncated or no `.tflite` file, or the runtime is not known.

    Example:
        ```python
        from tfprune.lite import explain

        lite.save("model.tflite")
        print(explain("model.tflite"))
        ```
    """
    lite = LiteModel.of(lite)
    paths = lite.paths(runtime)
    times, milliseconds, halved, said = None, None, [], "Not measured: it does not run."
    try:
        if lite.paths("litert").runs:
            times = time_operators(lite, runs)
            where = "web" if runtime == "web" and paths.runs else "litert"
            files = {"file": lite, **_with_half_the_channels(lite)}
            milliseconds, *halved = (timing.median for timing in benchmark(files, runs, runtime=where).timings)
            program = "LiteRT.js" if where == "web" else "LiteRT"
            said = (
                f"Measured: {milliseconds:.3f} ms a run in {program} on this machine, median of {runs}, one thread; "
                f"operators one by one in LiteRT, {times.sum:.3f} ms in all."
            )
    except (PruningError, ConversionError) as error:
        said = f"Not measured in full: {error}"
    return Explanation(paths, lite.quantization, times, milliseconds, said, *halved)


def _with_half_the_channels(lite: LiteModel) -> dict[str, LiteModel]:
    """A file that costs what this one would with half of its channels; nothing where that cannot be told."""
    try:
        narrow = LiteModel.written(narrowed(lite.content, HALF), isolate=lite.isolate)
        narrow.interpreter()
    except (PruningError, ConversionError):
        return {}
    return {"half of the channels": narrow}
