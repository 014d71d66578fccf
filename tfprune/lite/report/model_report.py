"""What `report` measured: the main figures as a table, everything as plain values."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, ClassVar

import numpy as np

from tfprune.errors import PruningError, nearest
from tfprune.lite.measure.benchmark import Benchmark
from tfprune.lite.measure.layer_errors import LayerErrors
from tfprune.lite.measure.verify import Verification
from tfprune.lite.report.judged import Judged
from tfprune.lite.report.runtimes import Runtimes
from tfprune.lite.report.verdict import Verdict
from tfprune.model.drawing import kernel_figure
from tfprune.model.summary import Summary
from tfprune.report import Column, Panel, Report, draw_bars, saved

BEFORE, AFTER, FILE = "before", "after", "in the file"
PACKAGES = ("tfprune", "keras", "tensorflow", "ai-edge-litert", "numpy")


@dataclass(frozen=True, repr=False)
class ModelReport(Report):
    """What a model saves and costs beside its baseline.

    Args:
        verdict: Whether it is safe to ship, and why.
        summaries: The layers of the model, and of the baseline where there is one, by `"before"` and `"after"`.
        kernels: The kernels of both, by the same names and their keys.
        judged: The decisions of all on the data; None without labels for classes.
        file: How the file compares with the model; None without a file.
        times: Time and bytes of the files; None without a file.
        layers: The error behind each layer of the file; None where it cannot be told.
        remarks: What could not be measured, and why.
        runtimes: What each runtime makes of the file; None without one.
        results: What else is on the page: sensitivity, a search, a benchmark, the history of training.
        call: The lines that make the page again.
    """

    title: ClassVar[str] = "What was saved, and what it cost"
    columns: ClassVar[Sequence[Column]] = (
        Column("figure", "figure"),
        Column(BEFORE, BEFORE),
        Column(AFTER, AFTER),
        Column("change", "change"),
    )

    verdict: Verdict
    summaries: dict[str, Summary]
    kernels: dict[str, dict[str, np.ndarray]] = field(compare=False)
    judged: Judged | None = None
    file: Verification | None = None
    times: Benchmark | None = None
    layers: LayerErrors | None = None
    remarks: tuple[str, ...] = ()
    runtimes: Runtimes | None = None
    results: tuple[Report, ...] = ()
    call: str = ""

    def figures(self) -> list[tuple[str, Any, Any, str]]:
        """What was measured: its name, the value before (None without a baseline) and after, and how it is written."""
        found: list[tuple[str, Any, Any, str]] = []
        if self.judged is not None:
            for name in self.judged.names[1 if BEFORE in self.judged.names else 0 :]:
                before = self.judged.accuracy(BEFORE) if BEFORE in self.judged.names else None
                what = "accuracy in the file" if name == FILE else "accuracy"
                found.append((what, before, self.judged.accuracy(name), ".2%"))
        counts = {
            name: (each.parameters, each.parameters - each.zeros, each.macs) for name, each in self.summaries.items()
        }
        for place, what in enumerate(("parameters", "weights that are not zero", "MACs of one sample")):
            found.append((what, counts[BEFORE][place] if BEFORE in counts else None, counts[AFTER][place], ",d"))
        if self.times is not None:
            timings = {timing.name: timing.row() for timing in self.times.timings}
            for key, what, form in (
                ("bytes", "bytes of the file", ",d"),
                ("gzip_bytes", "bytes compressed by gzip", ",d"),
                ("median_ms", "milliseconds here", ".3f"),
            ):
                found.append((what, timings[BEFORE][key] if BEFORE in timings else None, timings[AFTER][key], form))
        return found

    def rows(self) -> list[dict[str, Any]]:
        return [_row(*figure) for figure in self.figures()]

    def plot(self, path: str | os.PathLike[str] | None = None, weight: str | None = None) -> Any:
        """Draws what is left of the baseline in each figure; or the values and zeros of one kernel.

        Args:
            path: Where to save the picture. Defaults to None: nowhere.
            weight: Key of a kernel, such as `"conv1/kernel"`. Defaults to None: the figures of the whole.

        Returns:
            The matplotlib figure.

        Raises:
            PruningError: There is no such kernel, or no baseline to draw the figures against.
        """
        kernels = self.kernels[AFTER]
        if weight is not None:
            if weight not in kernels:
                raise PruningError(f"plot: {weight!r} is no kernel of the model. {nearest(weight, kernels)}")
            return saved(kernel_figure(weight, self.kernels.get(BEFORE, {}).get(weight), kernels[weight]), path)
        figures = [figure for figure in self.figures() if figure[1] and figure[2] is not None]
        if not figures:
            raise PruningError("plot: there is no baseline to draw against; write weight='...' for one kernel.")
        left = [after / before for _, before, after, _ in figures]
        labels = [f"{name}: {_row(name, *rest)[AFTER]}" for name, *rest in figures]
        panel = Panel("share of the baseline that is left", ".1%", {"": left})
        return saved(draw_bars(f"{self.title}. Safe to ship: {self.verdict.answer}", labels, [panel]), path)

    def notes(self) -> list[str]:
        return [str(self.verdict), *self.remarks]

    def by_layer(self) -> list[dict[str, Any]]:
        """For each layer its kind, kernel, parameters, sparsity, MACs and the error of its result in the file."""
        before = {row["layer"]: row for row in self.summaries[BEFORE].rows()} if BEFORE in self.summaries else {}
        errors = {found.layer: found.error for found in self.layers.layers} if self.layers else {}
        rows = self.summaries[AFTER].rows()
        gone = [row for name, row in before.items() if name not in {row["layer"] for row in rows}]
        return [
            {**row, "shape_before": before.get(row["layer"], {}).get("shape"), "error": errors.get(row["layer"])}
            for row in rows
        ] + [
            {"layer": row["layer"], "kind": row["kind"], "shape_before": row["shape"], "shape": "gone"} for row in gone
        ]

    def versions(self) -> dict[str, str]:
        """The versions of what was used, and the machine."""
        found = {"Python": platform.python_version()}
        found.update({name: metadata.version(name) for name in PACKAGES})
        return {**found, "machine": self.times.machine if self.times else platform.platform()}

    def seeds(self) -> dict[str, int]:
        """The seeds of what is on the page, by its title, where it has one."""
        return {found.title: seed for found in self.results if (seed := getattr(found, "seed", None)) is not None}

    def to_dict(self) -> dict[str, Any]:
        measured = {"file": self.file, "times": self.times, "layers": self.layers, "runtimes": self.runtimes}
        return {
            **super().to_dict(),
            "safe_to_ship": self.verdict.answer,
            "by_layer": self.by_layer(),
            "classes": self.judged.classes() if self.judged else None,
            "versions": self.versions(),
            "results": [found.to_dict() for found in self.results],
            **{name: found.to_dict() if found is not None else None for name, found in measured.items()},
        }


def _row(figure: str, before: Any, after: Any, form: str) -> dict[str, Any]:
    column = Column("", "", form)
    change = None
    if before is not None and after is not None and form.endswith("%"):
        change = f"{100 * (after - before):+.2f} points"
    elif before and after is not None:
        change = f"{before / after:.1f} times less" if after and before / after >= 2 else f"{after / before - 1:+.1%}"
    return {"figure": figure, BEFORE: column.text(before), AFTER: column.text(after), "change": change}
