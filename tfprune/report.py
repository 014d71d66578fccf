"""What every result of tfprune can do: print as a table, become a dict, JSON or Markdown, be plotted."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from tfprune.errors import PruningError, require


class Column(NamedTuple):
    """One column of a report: the key of the row's value, the heading, and how the value is written.

    `form` is a format specification (`",d"`, `".1%"`); an empty one writes the value as it is.
    """

    key: str
    heading: str
    form: str = ""

    def text(self, value: Any) -> str:
        """A value as it stands in a table; a dash for None."""
        if value is None:
            return "-"
        return format(value, self.form) if self.form else str(value)


class Report:
    """A measured result: rows of plain values under named columns, with totals and notes.

    A subclass says its `title` and `columns` and gives `rows()`; `totals()` and `notes()` are optional.
    Values in rows are plain Python (str, int, float, bool, None), so every form below holds the same figures.
    """

    title: ClassVar[str] = ""
    columns: ClassVar[Sequence[Column]] = ()
    plotted: ClassVar[str] = ""  # key of the column that `plot` draws, against the first column

    def rows(self) -> list[dict[str, Any]]:
        """The lines of the table, each with a value (or None) under the key of every column."""
        raise NotImplementedError

    def totals(self) -> dict[str, Any] | None:
        """The figures for the whole, under the same keys as the rows; None where a sum says nothing."""
        return None

    def notes(self) -> list[str]:
        """Sentences that belong below the table: what was skipped, and why."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values: title, rows, totals, notes."""
        return {"title": self.title, "rows": self.rows(), "totals": self.totals(), "notes": self.notes()}

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """The report as JSON text, also written to `path` when one is given."""
        text = json.dumps(self.to_dict(), indent=2)
        if path is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text + "\n")
        return text

    def to_markdown(self) -> str:
        """The report as a Markdown table with its notes below."""
        lines = ["| " + " | ".join(column.heading for column in self.columns) + " |"]
        lines.append("|" + "|".join(" --- " if i == 0 else " ---: " for i in range(len(self.columns))) + "|")
        lines += ["| " + " | ".join(cells) + " |" for cells in self._cells()]
        lines += [f"\n{note}" for note in self.notes()]
        return "\n".join(lines)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws the report's main column as bars; returns the matplotlib figure, saved to `path` when given.

        Raises:
            MissingPackageError: matplotlib is missing (`pip install tfprune[plot]`).
            PruningError: The report has nothing to draw.
        """
        if not self.plotted:
            raise PruningError(f"{type(self).__name__} has no column to draw; print it or use .to_dict().")
        rows = [row for row in self.rows() if row.get(self.plotted) is not None]
        labels = [str(row[self.columns[0].key]) for row in rows]
        figure = new_figure(8, 1 + 0.3 * len(rows))
        axes = figure.subplots()
        axes.barh(range(len(rows)), [float(row[self.plotted]) for row in rows])
        axes.set_yticks(range(len(rows)), labels)
        axes.invert_yaxis()
        axes.set_title(self.title)
        axes.set_xlabel(next(column.heading for column in self.columns if column.key == self.plotted))
        if path is not None:
            figure.savefig(path)
        return figure

    def _cells(self) -> list[list[str]]:
        rows: list[Mapping[str, Any]] = list(self.rows())
        totals = self.totals()
        if totals is not None:
            rows.append({self.columns[0].key: "total", **totals})
        return [[column.text(row.get(column.key)) for column in self.columns] for row in rows]

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table

        table = Table(title=self.title, title_justify="left")
        for index, column in enumerate(self.columns):
            table.add_column(column.heading, justify="left" if index == 0 else "right")
        cells = self._cells()
        has_totals = self.totals() is not None
        for index, row in enumerate(cells):
            table.add_row(*row, end_section=has_totals and index == len(cells) - 2)
        return Group(table, *self.notes())

    def __str__(self) -> str:
        from io import StringIO

        from rich.console import Console

        # A fixed width: the same text in a log, a notebook and a terminal.
        console = Console(file=StringIO(), width=120, color_system=None, highlight=False)
        console.print(self)
        return console.file.getvalue().rstrip()  # type: ignore[attr-defined]

    __repr__ = __str__


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure of so many inches."""
    figure = require("matplotlib.figure", extra="plot", purpose="Drawing")
    return figure.Figure(figsize=(width, height), layout="constrained")
