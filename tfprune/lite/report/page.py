"""The page of a report: HTML that needs no network, sorts its tables, prints, and fits a phone."""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from io import BytesIO
from typing import TYPE_CHECKING, Any

from tfprune.errors import PruningError
from tfprune.lite.report.charts import bars, histograms
from tfprune.report import Column, Report

if TYPE_CHECKING:
    from tfprune.lite.report.model_report import ModelReport

LAYERS = (
    Column("layer", "layer"),
    Column("kind", "kind"),
    Column("shape_before", "kernel before"),
    Column("shape", "kernel"),
    Column("parameters", "parameters", ",d"),
    Column("sparsity", "zeros", ".1%"),
    Column("macs", "MACs", ",d"),
    Column("error", "error in the file", ".2%"),
)
MOST = 40  # bars in one picture
HISTOGRAMS = 120


def page_of(report: "ModelReport", name: str) -> str:
    """The whole page.

    Args:
        report: What was measured.
        name: What the model is called.
    """
    style, script = (resources.files(__package__).joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    sections = [
        _section("What was saved, and what it cost", _table(report.columns, report.rows()) + _remarks(report.remarks)),
        _classes(report),
        _layers(report),
        _histograms(report),
        _file(report),
        _section("More that was measured", "".join(map(_result, report.results))),
        _section("How to repeat it", _versions({**report.versions(), **_seeds(report)}, report.call)),
    ]
    answer = report.verdict.answer
    reasons = "".join(f"<p>{_text(reason)}</p>" for reason in report.verdict.reasons)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(name)}: report</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{style}</style></head><body><main><h1>{_text(name)}</h1>"
        f'<div class="verdict {answer.replace(" ", "-")}"><h2>Safe to ship: {answer}</h2>{reasons}</div>'
        f"{''.join(sections)}</main><script>{script}</script></body></html>\n"
    )


def _text(value: Any) -> str:
    return html.escape(str(value))


def _section(title: str, content: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{content}</section>" if content else ""


def _remarks(remarks: Iterable[str]) -> str:
    return "".join(f'<p class="remark">{_text(remark)}</p>' for remark in remarks)


def _table(columns: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> str:
    """A table whose columns sort when their heads are clicked, by the values and not by their texts."""
    head = "".join(f'<th scope="col" tabindex="0">{_text(column.heading)}</th>' for column in columns)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td data-value="{_text(value)}">{_text(column.text(value))}</td>'
            for column, value in ((column, row.get(column.key)) for column in columns)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _classes(report: "ModelReport") -> str:
    """Who pays: the accuracy of each class, those that lost most first."""
    if report.judged is None:
        return ""
    names, rows = report.judged.names, report.judged.classes()
    rows.sort(key=lambda row: row[names[-1]] - row[names[0]])
    columns = [Column("class", "class"), Column("samples", "samples", ",d")]
    columns += [Column(name, name, ".2%") for name in names]
    shown = rows[:MOST]
    picture = bars([f"class {row['class']}" for row in shown], [[row[n] for row in shown] for n in names], names, ".1%")
    return _section(
        "Accuracy by class, the greatest loss first", picture + _folded("All classes", _table(columns, rows))
    )


def _layers(report: "ModelReport") -> str:
    rows = report.by_layer()
    columns = [column for column in LAYERS if any(row.get(column.key) is not None for row in rows)]
    summary = report.summaries["after"]
    return _section("Layers", _table(columns, rows) + _remarks(summary.notes()[1:]))


def _histograms(report: "ModelReport") -> str:
    """The values of each kernel that are not zero, before and now."""
    before, after = report.kernels.get("before", {}), report.kernels["after"]
    figures = [
        f"<figure>{histograms(before.get(key), kernel)}<figcaption>{_text(key)}<br>"
        f"{(kernel == 0).mean():.1%} zeros</figcaption></figure>"
        for key, kernel in list(after.items())[:HISTOGRAMS]
        if kernel.size
    ]
    more = len(after) - HISTOGRAMS
    note = f'<p class="remark">{more} further kernels are in the table.</p>' if more > 0 else ""
    said = "<p>Zeros are left out; the outline is the kernel before.</p>" if before else "<p>Zeros are left out.</p>"
    return _section("Weights", f'{said}<div class="figures">{"".join(figures)}</div>{note}')


def _file(report: "ModelReport") -> str:
    """The file: its answers, time and errors."""
    parts = []
    for found in (report.file, report.times, report.runtimes, report.layers):
        if found is not None:
            table = _table(found.columns, found.rows())
            parts.append(f"<h3>{_text(found.title)}</h3>{table}{_remarks(found.notes())}")
    return _section("The file", "".join(parts))


def _result(found: Report) -> str:
    """One further result: its picture, its table, its notes."""
    try:
        picture = BytesIO()
        found.plot().savefig(picture, format="svg", metadata={"Date": None})
        code = base64.b64encode(picture.getvalue()).decode()
        image = f'<img alt="{_text(found.title)}" style="max-width:100%" src="data:image/svg+xml;base64,{code}">'
    except PruningError:  # matplotlib is missing, or there is nothing to draw
        image = ""
    table = _folded("All figures", _table(found.columns, found.rows()))
    return f"<h3>{_text(found.title)}</h3>{image}{table}{_remarks(found.notes())}"


def _seeds(report: "ModelReport") -> dict[str, str]:
    return {f"seed of: {title}": str(seed) for title, seed in report.seeds().items()}


def _versions(versions: Mapping[str, str], lines: str) -> str:
    rows = [{"what": what, "version": version} for what, version in versions.items()]
    return _table((Column("what", "what"), Column("version", "version")), rows) + f"<pre>{_text(lines)}</pre>"


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{_text(title)}</summary>{content}</details>"
