import json
import sys

import pytest

from tfprune.errors import PruningError
from tfprune.report import Column, Report, new_figure


class Layers(Report):
    title = "Layers"
    columns = (Column("name", "layer"), Column("parameters", "parameters", ",d"), Column("sparsity", "zeros", ".1%"))
    plotted = "sparsity"

    def rows(self):
        return [
            {"name": "conv", "parameters": 1500, "sparsity": 0.25},
            {"name": "dense", "parameters": 20, "sparsity": None},
        ]

    def totals(self):
        return {"parameters": 1520, "sparsity": 0.247}

    def notes(self):
        return ["'norm' has no kernel."]


class Bare(Report):
    columns = (Column("name", "layer"),)

    def rows(self):
        return [{"name": "conv"}]


def test_as_a_table():
    lines = [line.split() for line in str(Layers()).splitlines()]
    assert lines[0] == ["Layers"] and repr(Layers()) == str(Layers())
    cells = [[cell for cell in line if cell not in "│┃"] for line in lines]
    assert ["layer", "parameters", "zeros"] in cells
    assert (
        ["conv", "1,500", "25.0%"] in cells and ["dense", "20", "-"] in cells and ["total", "1,520", "24.7%"] in cells
    )
    assert str(Layers()).endswith("'norm' has no kernel.")


def test_as_a_dict_and_json(tmp_path):
    expected = {
        "title": "Layers",
        "rows": Layers().rows(),
        "totals": {"parameters": 1520, "sparsity": 0.247},
        "notes": ["'norm' has no kernel."],
    }
    assert Layers().to_dict() == expected == json.loads(Layers().to_json())
    path = tmp_path / "layers.json"
    assert json.loads(Layers().to_json(path)) == json.loads(path.read_text()) == expected


def test_as_markdown():
    assert Layers().to_markdown() == (
        "| layer | parameters | zeros |\n"
        "| --- | ---: | ---: |\n"
        "| conv | 1,500 | 25.0% |\n"
        "| dense | 20 | - |\n"
        "| total | 1,520 | 24.7% |\n"
        "\n"
        "'norm' has no kernel."
    )


def test_without_totals_and_notes():
    assert Bare().to_markdown() == "| layer |\n| --- |\n| conv |"
    assert Bare().to_dict() == {"title": "", "rows": [{"name": "conv"}], "totals": None, "notes": []}
    assert "total" not in str(Bare())


def test_as_a_figure(tmp_path):
    figure = Layers().plot(tmp_path / "layers.png")
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.25]  # the row without a figure is left out
    assert [label.get_text() for label in axes.get_yticklabels()] == ["conv"]
    assert axes.get_title() == "Layers" and axes.get_xlabel() == "zeros"
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_draw_is_an_error():
    with pytest.raises(PruningError, match=r"Bare has no column to draw; print it or use .to_dict\(\)"):
        Bare().plot()


def test_missing_matplotlib_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for draw in (lambda: new_figure(8, 5), Layers().plot):
        with pytest.raises(
            ImportError, match=r"Drawing needs the package matplotlib, .* pip install 'tfprune\[plot\]'"
        ):
            draw()


def test_a_report_has_to_say_its_rows():
    with pytest.raises(NotImplementedError):
        Report().rows()
