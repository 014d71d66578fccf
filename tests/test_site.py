"""The site: its blocks run, its figures are those of the tables they link to, and no public name is missing."""

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from test_workflows import blocks, run

import tfprune

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
HOW_TO = sorted((DOCS / "how_to").glob("*.md"))
UNITS = r"(?:%|ms|us|kB|MB|bytes|times|minutes|seconds|points)"


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs_as_written(page, tmp_path, monkeypatch):
    text = page.read_text(encoding="utf-8")
    if not blocks(text, "python"):
        pytest.skip("no code on this page")
    if "run_micro" in text:
        pytest.importorskip("tflite_micro")
    monkeypatch.chdir(tmp_path)
    run(text, {})


def test_the_python_of_the_first_page_runs_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layers = [keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((6, 6, 1)), *layers])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.save("model.keras")
    x, y = np.random.default_rng(0).random((64, 6, 6, 1), np.float32), np.arange(64) % 3
    run((DOCS / "index.md").read_text(encoding="utf-8"), {"x": x, "y": y, "x_test": x[:32], "y_test": y[:32]})
    assert {path.name for path in tmp_path.iterdir()} == {"model.keras", "model.tflite", "report.html"}


def test_every_public_name_is_in_the_reference_once():
    pages = [page.read_text(encoding="utf-8") for page in sorted((DOCS / "reference").glob("*.md"))]
    entry = re.compile(r"^(?:::: |    options: \{heading: )tfprune\.(\w+)(?:,.*)?$", flags=re.M)
    written = [name for page in pages for name in entry.findall(page)]
    public = {name for name in tfprune.__all__ if not name.startswith("_")}
    assert {name: written.count(name) for name in public} == dict.fromkeys(public, 1)
    assert public <= set(re.findall(r"`(\w+)`", (DOCS / "reference" / "index.md").read_text(encoding="utf-8")))


def test_every_table_has_the_command_that_wrote_it():
    commands = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    tables = {path.stem for path in (DOCS / "benchmarks").glob("*.md")}
    assert tables <= set(re.findall(r"--output docs/benchmarks/(\w+)", commands))
    for script in re.findall(r"^python (benchmarks/\w+\.py)", commands, flags=re.M):
        assert (ROOT / script).exists()


def figures(part):
    """The measured figures of a paragraph or of a row: with a unit, or with digits behind a point."""
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)", " ", part)
    return re.findall(rf"\b\d+\.\d+|\b\d[\d,.]*(?= ?{UNITS}(?:\W|$))", prose)


def parts_of(page):
    """Paragraphs and rows of tables, without code and without what another test compares with its file."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$|^<!-- (\w+) -->$.*?^<!-- /\1 -->$", "", text, flags=re.M | re.S)
    return [part for block in text.split("\n\n") for part in (block.splitlines() if block[:1] == "|" else [block])]


@pytest.mark.parametrize("page", [DOCS / "index.md", *HOW_TO], ids=lambda page: page.stem)
def test_a_figure_stands_in_the_table_that_its_paragraph_links_to(page):
    for part in parts_of(page):
        linked = [page.parent / target for target in re.findall(r"\]\(([./\w]*benchmarks/(?!index)\w+\.md)\)", part)]
        measured = " ".join(table.read_text(encoding="utf-8") for table in linked)
        for figure in figures(part):
            assert re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d,]|\.\d)", measured), f"{figure} in {part!r}"


def test_figures_are_found():
    row = "| 1.7 to 2.1 minutes, 90 % zeros, 42.1% in [8.5](a/3.1.md), `Linear(0.5)`, two |"
    assert figures(row) == ["1.7", "2.1", "90", "42.1", "8.5"]


@pytest.mark.parametrize(
    ("part", "removed", "criteria"),
    [
        ("weights", "90 % of weights", ["random", "magnitude", "Taylor, SNIP", "SynFlow", "Wanda"]),
        ("channels", "30 % of channels", ["random", "L2", "batch norm's scale", "Taylor", "activation, mean"]),
    ],
)
def test_the_criteria_are_shown_as_they_were_measured(part, removed, criteria):
    report = json.loads((DOCS / "benchmarks" / f"criteria_{part}.json").read_text(encoding="utf-8"))[0]
    rows = {row["criterion"]: row for row in report["rows"] if row["removed"] == removed}
    page = (DOCS / "how_to" / "which_method.md").read_text(encoding="utf-8")
    lines = re.search(rf"<!-- {part} -->\n(.*?)\n<!-- /{part} -->", page, re.S)[1].splitlines()[2:]
    ways = ("none", "batch_norm", "reconstruct", "tuned")
    assert lines == [f"| {name} | {' | '.join(str(rows[name][way]) for way in ways)} |" for name in criteria]


def test_the_page_of_how_tos_lists_every_page_and_notebook():
    page = (DOCS / "how_to" / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(\w+\.ipynb)`", page)) == {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {f"]({path.name})" for path in HOW_TO if path.stem != "index"} <= set(re.findall(r"\]\(\w+\.md\)", page))


def test_the_citation_is_of_this_version():
    assert f"\nversion: {tfprune.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
