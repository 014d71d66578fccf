"""What the benchmarks share in writing: versions, and a table as .md and .json."""

import argparse
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import tfprune
from tfprune.report import Column, Report


class Measured(Report):
    """Rows as they were measured, and sentences about them; title and columns are those of a subclass, or given."""

    def __init__(
        self, found: list[dict[str, Any]], about: Sequence[str] = (), title: str = "", columns: Sequence[Column] = ()
    ):
        self.found, self.about = found, list(about)
        self.title = title or self.title  # type: ignore[misc]
        self.columns = columns or self.columns  # type: ignore[misc]

    def rows(self) -> list[dict[str, Any]]:
        return self.found

    def notes(self) -> list[str]:
        return self.about


class BySeed(Report):
    """A row for every key, from one table of figures for each seed; a subclass says what a row holds."""

    def __init__(self, runs: list[dict[Any, dict[str, Any]]], about: list[str], title: str = ""):
        self.runs, self.about = runs, about
        self.title = title or self.title  # type: ignore[misc]

    def rows(self) -> list[dict[str, Any]]:
        return [self._row(key, [run[key] for run in self.runs]) for key in self.runs[0]]

    def _row(self, key: Any, found: list[dict[str, Any]]) -> dict[str, Any]:
        """A row from the figures of every seed."""
        raise NotImplementedError

    def notes(self) -> list[str]:
        return self.about


def means(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of each figure over the seeds; None for one that is not there."""
    return {key: None if found[0][key] is None else statistics.mean(one[key] for one in found) for key in found[0]}


def versions(**others: str) -> str:
    """One line that names what ran, and where."""
    known = {"tfprune": tfprune.__version__, "TensorFlow": tf.__version__, "Keras": keras.__version__, **others}
    named = ", ".join(f"{name} {version}" for name, version in known.items())
    return f"{named}, Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores."


def add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, help="path without suffix for a .md and a .json file")


def write(reports: list[Report], output: Path | None) -> None:
    """Prints reports, and writes them where `--output` says."""
    for report in reports:
        print(report, end="\n\n", flush=True)
    if output is None:
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(f"# {report.title}\n\n{report.to_markdown()}\n" for report in reports)
    Path(f"{output}.md").write_text(text, encoding="utf-8")
    parts = ",\n".join(report.to_json() for report in reports)
    Path(f"{output}.json").write_text(f"[{parts}]\n", encoding="utf-8")
