"""What every result of tfprune can do: print as a table, become a dict, JSON or Markdown, be plotted."""

import contextlib
import html
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from tfprune.errors import PruningError, in_cell, in_markdown, in_plot, printable, require


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
    plotted: ClassVar[str | Sequence[str]] = ""  # keys of the columns that `plot` draws, a panel each
    coloured: ClassVar[str] = ""  # key of the column whose words tell the colour of a bar

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
            with writing(path), open(path, "w", encoding="utf-8") as file:
                file.write(text + "\n")
        return text

    def to_markdown(self) -> str:
        """The report as a Markdown table with its notes below."""
        lines = ["| " + " | ".join(in_markdown(column.heading) for column in self.columns) + " |"]
        lines.append("|" + "|".join(" --- " if i == 0 else " ---: " for i in range(len(self.columns))) + "|")
        lines += ["| " + " | ".join(map(in_markdown, cells)) + " |" for cells in self._cells()]
        lines += [f"\n{in_markdown(note)}" for note in self.notes()]
        return "\n".join(lines)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws what the report answers; returns the matplotlib figure, saved to `path` when given.

        Lines and words have the colours of matplotlib's style sheet, `dark_background` too. Of more than 40 rows the
        largest are drawn, and a line tells how many more there are.

        Raises:
            MissingPackageError: matplotlib is missing (`pip install tfprune[plot]`).
            PruningError: The report has nothing to draw.
        """
        keys = (self.plotted,) if isinstance(self.plotted, str) else self.plotted
        drawn = [column for key in keys for column in self.columns if column.key == key]
        if not drawn:
            raise PruningError(f"{type(self).__name__} has no column to draw; print it or use .to_dict().")
        rows = [row for row in self.rows() if row.get(drawn[0].key) is not None]
        kinds = [str(row.get(self.coloured) or "none") if self.coloured else "" for row in rows]
        panels = []
        for column in drawn:
            values = {kind: [row[column.key] if kind == own else None for row, own in zip(rows, kinds)]
                      for kind in dict.fromkeys(kinds)}  # fmt: skip
            panels.append(Panel(column.heading, column.form, values))
        labels = [str(row[self.columns[0].key]) for row in rows]
        return saved(draw_bars(self.title, labels, panels), path)

    def _cells(self) -> list[list[str]]:
        rows: list[Mapping[str, Any]] = list(self.rows())
        totals = self.totals()
        if totals is not None:
            rows.append({self.columns[0].key: "total", **totals})
        return [[in_cell(column.text(row.get(column.key))) for column in self.columns] for row in rows]

    def to_text(self, width: int | None = None) -> str:
        """The report as a table of text in which no figure is cut.

        What does not fit is said more shortly: headings and words go on in the next line, what all names begin with is
        said once, names are shortened in the middle as long as no two become one, and columns that still find no room
        follow in a second table.

        Args:
            width: Columns of text. Defaults to None: those of the terminal, 120 where there is none; `COLUMNS=80` in
                the environment says otherwise.
        """
        from io import StringIO

        from rich.console import Console

        if width is not None and (not isinstance(width, int) or width < 1):
            raise PruningError(f"width={width!r} is no number of columns; write 80.")
        width = width or shutil.get_terminal_size((120, 24)).columns
        console = Console(file=StringIO(), width=width, color_system=None, highlight=False)
        console.print(self)
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        return "\n".join(line.rstrip() for line in lines).rstrip()

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich.text import Text

        if self.title:
            yield Text(printable(self.title), style="italic")
        layout = Layout(self.columns, self._cells(), has_totals=self.totals() is not None)
        yield from layout.tables(options.max_width)
        yield from (Text(printable(note)) for note in self.notes())

    def __str__(self) -> str:
        return self.to_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The report in a notebook: a table with whole names, which scrolls where it is wide."""
        head = "".join(f"<th>{html.escape(in_cell(column.heading))}</th>" for column in self.columns)
        rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in self._cells())
        notes = "".join(f"<p>{html.escape(printable(note))}</p>" for note in self.notes())
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        return f"<p><b>{html.escape(in_cell(self.title))}</b></p><div style='overflow-x:auto'>{table}</div>{notes}"


class Layout:
    """How a table finds room in a width: which columns stand side by side, and how wide each is.

    Args:
        columns: The columns; those without a form hold words, which may go on in the next line, others figures.
        cells: Their texts, row by row, under the first column the names.
        has_totals: Whether the last row holds totals.
    """

    GAP = 2  # blanks between two columns
    ROOMY, TIGHT = (24, 18), (20, 12)  # what a column of longer names, and one of longer words, is given at least

    def __init__(self, columns: Sequence[Column], cells: list[list[str]], has_totals: bool):
        self.columns, self.has_totals, self.floors = columns, has_totals, self.ROOMY
        self.texts = [[row[place] for row in cells] for place in range(len(columns))]

    def tables(self, width: int) -> Iterator[Any]:
        """The tables, one below the other, that hold all columns, and before them what all names begin with."""
        places = list(range(len(self.columns)))
        prefix = self._take_prefix() if sum(map(self._whole, places)) + self._gaps(places) > width else ""
        if prefix:
            yield _plain(f"Every name begins with {prefix}")
        if self._least(places) > width:
            self.floors = self.TIGHT
            if self._least(places) > width:  # several tables it is, and each as roomy as it can be
                self.floors = self.ROOMY
        while places:
            count = len(places)
            while count > 2 and self._least(places[:count]) > width:
                count -= 1
            yield self._table(places[:count], width)
            places = [places[0], *places[count:]] if count < len(places) else []
            if places:
                yield ""

    def _gaps(self, places: Sequence[int]) -> int:
        return self.GAP * (len(places) - 1)

    def _is_words(self, place: int) -> bool:
        return not self.columns[place].form

    def _cell(self, place: int) -> int:
        return max(map(len, self.texts[place]), default=0)

    def _whole(self, place: int) -> int:
        return max(self._cell(place), len(self.columns[place].heading))

    def _narrow(self, place: int) -> int:
        """The width at which no figure is cut and no word of the heading is."""
        cell = self._cell(place)
        if self._is_words(place):
            cell = min(cell, self.floors[min(place, 1)])
        return max(cell, *map(len, self.columns[place].heading.split() or [""]), 1)

    def _least(self, places: Sequence[int]) -> int:
        return sum(map(self._narrow, places)) + self._gaps(places)

    def _widths(self, places: Sequence[int], width: int) -> list[int]:
        """Widths that fit: figures come first, then headings, and words share what is left."""
        widths = [self._narrow(place) for place in places]
        left = width - self._gaps(places) - sum(widths)
        wishes = [self._cell(place) if self._is_words(place) else 0 for place in places]
        for wanted in (wishes, [self._whole(place) for place in places]):
            while left > 0 and any(now < wish for now, wish in zip(widths, wanted)):
                # To the one that is narrowest yet, so that two columns of words grow alike.
                place = min((i for i, wish in enumerate(wanted) if widths[i] < wish), key=widths.__getitem__)
                widths[place] += 1
                left -= 1
        return widths

    def _table(self, places: Sequence[int], width: int) -> Any:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, self.GAP - 1, 0, 0))
        texts = []
        for place, room in zip(places, self._widths(places, width)):
            is_name = place == 0 or self._is_words(place)
            table.add_column(
                _plain(in_cell(self.columns[place].heading)),
                justify="left" if is_name else "right",
                width=room,
                overflow="fold",
            )
            texts.append([folded(text, room) for text in self._names(place, room)])
        rows = list(zip(*texts))
        has_totals = self.has_totals and any(cell != "-" for cell in rows[-1][1:])
        for number, row in enumerate(rows if has_totals == self.has_totals else rows[:-1]):
            table.add_row(*map(_plain, row), end_section=has_totals and number == len(rows) - 2)
        return table

    def _names(self, place: int, room: int) -> list[str]:
        """The texts of a column; names too long for it shortened in the middle where that leaves them different."""
        texts = self.texts[place]
        if place or self._cell(place) <= room:
            return texts
        for tail in (room // 2, 2 * room // 3, room // 3):
            short = {text: shortened(text, room, tail) for text in texts}
            if len(set(short.values())) == len(short):
                return [short[text] for text in texts]
        return texts

    def _take_prefix(self) -> str:
        """Takes what all names begin with, up to a slash, from the names."""
        names = self.texts[0][:-1] if self.has_totals else self.texts[0]
        prefix = os.path.commonprefix(names)  # noqa: RUF071  (up to the last slash is cut below)
        prefix = prefix[: prefix.rfind("/") + 1]
        if len(names) < 2 or not prefix or not self._is_words(0):
            return ""
        self.texts[0][: len(names)] = [name.removeprefix(prefix) for name in names]
        return prefix


def folded(text: str, width: int) -> str:
    """A text with its words and the parts of its names in lines of so many characters, nothing left out.

    >>> folded("block_1/expand/kernel", 12)
    'block_1/\\nexpand/\\nkernel'
    """
    lines, line = [], ""
    for part in re.findall(r"[^\s/_,;]*(?:[/_,;]|\s+|$)", text):
        if line and len((line + part).rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += part
    return "\n".join([*lines, line.rstrip()])


def shortened(text: str, width: int, tail: int) -> str:
    """A text of at most so many characters, cut in the middle so that as many as `tail` stay at its end."""
    return text if len(text) <= width else f"{text[: width - tail - 1]}…{text[-tail:]}"


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)


@contextlib.contextmanager
def writing(path: Any) -> Iterator[None]:
    """Makes a PruningError of what goes wrong in writing to a path."""
    try:
        if Path(path).is_dir():
            raise PruningError(f"Cannot write '{path}': it is a folder. Give a file in it.")
        yield
    except PruningError:
        raise
    except (OSError, TypeError, ValueError) as error:
        raise PruningError(f"Cannot write {str(path)!r}: {getattr(error, 'strerror', None) or error}.") from error


COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999999")  # Okabe and Ito (2008)
MOST = 40  # bars in a picture


class Panel(NamedTuple):
    """One of the bar charts that stand side by side.

    The words at its axis with the unit, how a value is written, and by the name of each series a value or None for
    every label. Series are `stacked` to one bar, or lie one below the other; one named "" is not in the legend.
    """

    heading: str
    form: str
    series: Mapping[str, Sequence[Any]]
    stacked: bool = True

    def reach(self) -> list[Any]:
        """How far the bars of each label reach."""
        return [(sum if self.stacked else max)(value or 0 for value in row) for row in zip(*self.series.values())]

    def draw(self, axes: Any, rows: Sequence[int], colours: Mapping[str, str]) -> None:
        """Draws the bars of some labels, with what they reach in words."""
        from matplotlib.ticker import EngFormatter, MaxNLocator

        height, starts = 0.8 / (1 if self.stacked else len(self.series)), [0] * len(rows)
        said: dict[float, Any] = {}  # by its height
        for number, (name, values) in enumerate(self.series.items()):
            known = [(place, values[row]) for place, row in enumerate(rows) if values[row] is not None]
            lift = 0 if self.stacked else height * (number - (len(self.series) - 1) / 2)
            left, lengths = [starts[place] for place, _ in known], [value for _, value in known]
            axes.barh([p + lift for p, _ in known], lengths, height, left, color=colours[name], label=in_plot(name))
            for place, value in known:
                starts[place] += value if self.stacked else 0
                said[place + lift] = starts[place] if self.stacked else value
        for y, value in said.items():
            text = Column("", "", self.form).text(value)
            axes.annotate(text, (value, y), (2, 0), textcoords="offset points", va="center", fontsize=6)
        axes.set_xlim(0, 1.18 * max(said.values(), default=0) or 1)
        axes.set_xlabel(in_plot(self.heading))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if self.form.endswith("%"):
            axes.xaxis.set_major_formatter(lambda value, place: f"{100 * value:.3g}%")
        elif self.form.endswith("d"):
            axes.xaxis.set_major_formatter(EngFormatter())


def draw_bars(title: str, labels: Sequence[str], panels: Sequence[Panel], beside: Sequence[str] = ()) -> Any:
    """A matplotlib figure of horizontal bars: of many labels those that reach furthest in the first panel.

    Args:
        title: What stands above.
        labels: What stands to the left of each bar.
        panels: The bar charts.
        beside: What stands to the right of each bar. Defaults to nothing.
    """
    reach = panels[0].reach()
    rows = sorted(sorted(range(len(labels)), key=lambda row: -reach[row])[:MOST])
    ticks, more = [shortened(labels[row], 40, 24) for row in rows], len(labels) - len(rows)
    thick = max(1 if panel.stacked else 0.6 * len(panel.series) for panel in panels)
    figure = new_figure(5 + 3 * len(panels) + 3 * bool(beside), 1.6 + 0.24 * thick * (len(rows) + bool(more)))
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    names = list(dict.fromkeys(name for panel in panels for name in panel.series))
    for axes, panel in zip(every, panels):
        panel.draw(axes, rows, {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)})
    every[0].set_yticks(range(len(rows) + bool(more)), [*map(in_plot, ticks), *[f"and {more:,} more"] * bool(more)])
    every[0].set_ylim(len(rows) + bool(more) - 0.4, -0.6)
    every[0].tick_params(axis="y", labelsize=8)
    if beside:
        right = every[-1].twinx()
        right.set_ylim(every[0].get_ylim())
        right.set_yticks(range(len(rows)), [in_plot(shortened(beside[row], 60, 24)) for row in rows], fontsize=7)
    (figure.suptitle if len(panels) > 1 else every[0].set_title)(in_plot(title if labels else f"{title}: no rows"))
    keys = {name: bars for axes in every for bars, name in zip(*axes.get_legend_handles_labels()) if name}
    if keys:
        figure.legend(keys.values(), keys.keys(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def saved(figure: Any, path: str | os.PathLike[str] | None) -> Any:
    """A matplotlib figure, also saved to `path` when one is given."""
    if path is not None:
        with writing(path):
            figure.savefig(path)
    return figure


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure of so many inches."""
    figure = require("matplotlib.figure", extra="plot", purpose="Drawing")
    return figure.Figure(figsize=(width, height), layout="constrained")
