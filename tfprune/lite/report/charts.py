"""Small pictures as SVG text, in the colours of the page: bars of two models side by side, and histograms."""

import html
from collections.abc import Sequence

import numpy as np

BINS = 41


def bars(labels: Sequence[str], values: Sequence[Sequence[float]], names: Sequence[str], form: str) -> str:
    """Horizontal bars, a group of them for each label.

    Args:
        labels: What stands beside each group.
        values: For each name the value of each label, 0 or more.
        names: What the bars of one group are.
        form: How a value is written behind its bar.
    """
    largest = max((value for series in values for value in series), default=0.0) or 1.0
    high, gap, left, wide = 12, 8, 190, 300
    group = high * len(names) + gap
    parts = []
    for row, label in enumerate(labels):
        top = row * group
        parts.append(_words(left - 8, top + (group - gap) / 2 + 4, label, "end", title=True))
        for place, series in enumerate(values):
            length = wide * series[row] / largest
            said = format(series[row], form)
            y = top + place * high
            parts.append(
                f'<rect class="s{place}" x="{left}" y="{y}" width="{length:.1f}" height="{high - 2}">'
                f"<title>{html.escape(label)}: {html.escape(names[place])} {said}</title></rect>"
            )
            parts.append(_words(left + length + 5, y + high - 3, said, "start"))
    return _legend(names) + _svg(left + wide + 80, max(len(labels) * group, 1), parts, "bars")


def histograms(before: np.ndarray | None, after: np.ndarray) -> str:
    """How the values of a kernel lie, zeros left out: filled now, and as an outline before.

    Args:
        before: The values before, or None.
        after: The values now.
    """
    values = [array[array != 0] for array in (before, after) if array is not None]
    reach = max((float(np.abs(array).max()) for array in values if array.size), default=0.0) or 1.0
    edges = np.linspace(-reach, reach, BINS + 1)
    counts = [np.histogram(array, edges)[0] for array in values]
    highest = max((int(count.max()) for count in counts), default=1) or 1
    wide, high = 168, 56
    parts = []
    for place, count in enumerate(counts):
        corners = [f"0,{high}"]
        for index, number in enumerate(count):
            y = high - high * number / highest
            corners += [f"{wide * index / BINS:.1f},{y:.1f}", f"{wide * (index + 1) / BINS:.1f},{y:.1f}"]
        kind = "s1" if place == len(counts) - 1 else "outline"
        parts.append(f'<polygon class="{kind}" points="{" ".join([*corners, f"{wide},{high}"])}"/>')
    parts.append(_words(0, high + 12, f"{-reach:.3g}", "start"))
    parts.append(_words(wide, high + 12, f"{reach:.3g}", "end"))
    return _svg(wide, high + 16, parts, "histogram")


def _svg(width: float, height: float, parts: Sequence[str], kind: str) -> str:
    return f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img">{"".join(parts)}</svg>'


def _words(x: float, y: float, text: str, anchor: str, title: bool = False) -> str:
    short = text if len(text) <= 30 else f"{text[:14]}…{text[-15:]}"
    whole = f"<title>{html.escape(text)}</title>" if title else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(short)}{whole}</text>'


def _legend(names: Sequence[str]) -> str:
    keys = "".join(f'<span class="key k{place}">{html.escape(name)}</span>' for place, name in enumerate(names))
    return f'<p class="legend">{keys}</p>'
