"""What each runtime makes of a file, on the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tfprune.lite.file.lite_model import LiteModel
from tfprune.lite.file.path_rules import SPARSE
from tfprune.report import Column, Report

RUNTIMES = ("litert", "arm", "web", "micro")


@dataclass(frozen=True, repr=False)
class Runtimes(Report):
    """What each runtime makes of a file, read from the file.

    Args:
        found: A row for each runtime.
    """

    title: ClassVar[str] = "On each runtime"
    columns: ClassVar[Sequence[Column]] = (
        Column("runtime", "runtime"),
        Column("runs", "runs the file"),
        Column("operators", "operators that skip zeros", ",d"),
        Column("gain", "times faster by zeros, predicted", ".2f"),
        Column("milliseconds", "ms, measured here", ".3f"),
    )
    plotted: ClassVar[str] = "gain"

    found: tuple[dict[str, Any], ...]

    def rows(self) -> list[dict[str, Any]]:
        return [dict(row) for row in self.found]

    def notes(self) -> list[str]:
        return [f"{row['runtime']}: {row['reason']}" for row in self.found if row["reason"]]


def runtimes_of(lite: LiteModel, milliseconds: float | None) -> Runtimes:
    """What each runtime makes of a file.

    Args:
        lite: The file.
        milliseconds: Its time in LiteRT on this machine; None where it was not measured.
    """
    rows = []
    for runtime in RUNTIMES:
        paths = lite.paths(runtime)
        rows.append(
            {
                "runtime": runtime,
                "runs": "yes" if paths.runs else "no",
                "operators": sum(found.path == SPARSE for found in paths.operators),
                "gain": paths.gain,
                "milliseconds": milliseconds if runtime == "litert" else None,
                "reason": None if paths.runs else paths.broken[0],
            }
        )
    return Runtimes(tuple(rows))
