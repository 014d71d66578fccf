"""What pictures of results are made of beside bars: curves, heat maps, points with numbers, histograms, zeros."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfprune.errors import in_plot
from tfprune.report import COLOURS, MOST, new_figure, shortened

MARKERS = "os^Dv*PX"
CURVES = len(MARKERS)  # lines that can be told apart
LETTERS = 110  # small ones in the width of a figure
PIXELS = 192  # of the image of a kernel, each way


def as_shares(axis: Any) -> None:
    """Writes an axis of shares in percent."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0))


def counted() -> Any:
    """How large counts are written at an axis: 1.2 M."""
    from matplotlib.ticker import EngFormatter

    return EngFormatter()


def draw_curves(
    axes: Any, x: Sequence[float], curves: Mapping[str, Sequence[float]], rings: Mapping[str, float]
) -> None:
    """Lines of several names with a marker each, and a ring where one of them was chosen.

    Args:
        axes: Of matplotlib.
        x: Where the values are.
        curves: Values by name.
        rings: A place on `x` by name.
    """
    for number, (name, values) in enumerate(curves.items()):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % CURVES]
        axes.plot(x, values, color=colour, marker=marker, markersize=4, label=in_plot(shortened(name, 40, 24)))
        if name in rings:
            y = float(np.interp(rings[name], x, values))
            axes.plot([rings[name]], [y], "o", markersize=12, markerfacecolor="none", markeredgecolor=colour)


def draw_heat(axes: Any, columns: Sequence[str], rows: Mapping[str, Sequence[float]], dots: Mapping[str, float]) -> Any:
    """A heat map with a row for each name, and a dot where one was chosen; of many names those of the largest values.

    Args:
        axes: Of matplotlib.
        columns: The words below.
        rows: Values by name.
        dots: A place among the columns by name, 0 the first.

    Returns:
        The image, for a colour bar.
    """
    order = list(rows)
    kept = sorted(sorted(range(len(order)), key=lambda place: -max(rows[order[place]]))[:MOST])
    names, more = [order[place] for place in kept], len(order) - len(kept)
    image = axes.imshow(np.array([rows[name] for name in names], float), aspect="auto", cmap="cividis_r", vmin=0)
    found = [(dots[name], row) for row, name in enumerate(names) if name in dots]
    if found:
        axes.plot(*zip(*found), "o", color="white", markeredgecolor="black", markersize=5)
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    ticks = [in_plot(shortened(name, 40, 24)) for name in names]
    axes.set_yticks(range(len(names) + bool(more)), [*ticks, *[f"and {more:,} more"] * bool(more)], fontsize=7)
    axes.set_ylim(len(names) + bool(more) - 0.5, -0.5)
    return image


def draw_pieces(axes: Any, bars: Mapping[str, Sequence[tuple[str, float]]], unit: str) -> None:
    """Bars made of pieces, the largest first, each named where its name has room.

    Args:
        axes: Of matplotlib.
        bars: Name and length of each piece, by the name of the bar.
        unit: Of the lengths.
    """
    longest = max((sum(length for _, length in pieces) for pieces in bars.values()), default=1.0) or 1.0
    for row, pieces in enumerate(bars.values()):
        start = 0.0
        for place, (name, length) in enumerate(sorted(pieces, key=lambda piece: -piece[1])):
            axes.barh(row, length, 0.8, start, color=COLOURS[0 if place % 2 else 5], edgecolor="white", linewidth=0.3)
            letters = int(LETTERS * length / longest) - 2
            if letters >= 6:
                words = in_plot(shortened(name, letters, 2 * letters // 3))
                colour = "white" if place % 2 else "black"
                axes.text(start + length / 2, row, words, ha="center", va="center", fontsize=6, color=colour)
            start += length
        share = start / (sum(length for each in bars.values() for _, length in each) or 1.0)
        axes.annotate(
            f"{start:.4g} {unit}, {share:.0%}",
            (start, row),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    axes.margins(x=0.12)
    axes.set_yticks(range(len(bars)), [in_plot(name) for name in bars], fontsize=8)
    axes.invert_yaxis()


def draw_path(axes: Any, points: Sequence[tuple[float, float]], within: Sequence[bool]) -> None:
    """Numbered points, 1 the first: those within a bound are dots on a line, the others crosses.

    Args:
        axes: Of matplotlib.
        points: Their places; one that is no number is left out.
        within: Whether each is within the bound.
    """
    known = [
        (*point, fits, place) for place, (point, fits) in enumerate(zip(points, within)) if np.isfinite(point).all()
    ]
    for wanted, style, colour, label in ((True, "o-", 0, "within the bound"), (False, "x", 3, "beyond the bound")):
        found = [(x, y) for x, y, fits, _ in known if fits is wanted]
        if found:
            axes.plot(*zip(*found), style, color=COLOURS[colour], label=label)
    wide, high = (float(np.ptp(each)) or 1.0 for each in list(zip(*known))[:2])
    numbers: dict[tuple[int, int], list[int]] = {}  # points that lie on each other share their words
    for x, y, _, place in known:
        numbers.setdefault((round(25 * x / wide), round(25 * y / high)), []).append(place)
    for places in numbers.values():
        text = ", ".join(str(place + 1) for place in places)
        axes.annotate(text, points[places[0]], (6, 7), textcoords="offset points", fontsize=8)


def kernel_figure(title: str, before: np.ndarray | None, now: np.ndarray) -> Any:
    """The values of a kernel that are not zero, before and now, beside an image of its zeros.

    Args:
        title: What stands above.
        before: The kernel before, or None.
        now: The kernel now.
    """
    figure = new_figure(11, 4.2)
    values, zeros = figure.subplots(1, 2)
    kernels = {"now": now} if before is None else {"now": now, "before": before}
    reach = max(float(np.abs(kernel).max(initial=0.0)) for kernel in kernels.values()) or 1.0
    edges = np.linspace(-reach, reach, 61)
    for (name, kernel), kind in zip(kernels.items(), ("stepfilled", "step")):
        label = f"{name}: {np.mean(kernel == 0):.1%} zeros"
        colour = COLOURS[0] if name == "now" else COLOURS[1]
        values.hist(kernel[kernel != 0].ravel(), edges, histtype=kind, color=colour, label=label, linewidth=1.5)
    values.set_xlabel("value of a weight (zeros left out)")
    values.set_ylabel("number of weights")
    figure.legend(loc="outside lower left", ncols=2, fontsize=8)
    figure.colorbar(draw_zeros(zeros, now), ax=zeros, label="share of weights that are not zero")
    figure.suptitle(in_plot(title))
    return figure


def draw_zeros(axes: Any, kernel: np.ndarray) -> Any:
    """An image of where a kernel is zero, its outputs to the right; of a large one the shares in small squares."""
    flat = (np.atleast_1d(kernel) != 0).reshape(-1, kernel.shape[-1] if kernel.ndim else 1).astype(float)
    rows, columns = (np.unique(np.linspace(0, size, PIXELS + 1).astype(int))[:-1] for size in flat.shape)
    sums = np.add.reduceat(np.add.reduceat(flat, rows, axis=0), columns, axis=1)
    high, wide = np.diff([*rows, flat.shape[0]]), np.diff([*columns, flat.shape[1]])
    axes.set_xlabel("output")
    axes.set_ylabel("input and place" if kernel.ndim > 2 else "input")
    area = (0, flat.shape[1], flat.shape[0], 0)
    return axes.imshow(
        sums / np.outer(high, wide), aspect="auto", interpolation="nearest", cmap="cividis", vmin=0, vmax=1, extent=area
    )
