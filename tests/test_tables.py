"""Every table in 80 columns: no figure is cut, no two names become one, nothing is wider."""

import itertools

import keras
import numpy as np
import pytest

import tfprune
from tfprune.command.demo import small_network
from tfprune.lite import time_operators
from tfprune.lite.quantize import quantization_report
from tfprune.report import Column, Layout, Report, folded

WIDTH = 80
LONG = "MobileNetV3Small/expanded_conv_{}/squeeze_excite/convolution/kernel"


def words_of(text):
    return set(text.replace("…", " ").split())


def check(report, width=WIDTH):
    """All figures stand in the text whole, all lines fit, and shown names differ where the names do."""
    text = report.to_text(width)
    assert max(map(len, text.splitlines())) <= width, text
    shown = words_of(text)
    for row in report._cells():
        for column, cell in zip(report.columns, row):
            if column.form:
                assert cell in shown, f"{cell} of {column.heading} is cut:\n{text[:3000]}"
    for column in report.columns:
        assert all(word in shown for word in column.heading.split()), f"{column.heading} is cut:\n{text[:3000]}"
    layout = Layout(report.columns, report._cells(), report.totals() is not None)
    whole = list(layout.texts[0])
    tables = [each for each in layout.tables(width) if hasattr(each, "columns")]
    for table in tables:
        names = [str(cell) for cell in table.columns[0].cells]
        assert len(set(names)) == len(set(whole[: len(names)])), f"equal names:\n{text[:3000]}"
    return text


@pytest.fixture(scope="module")
def resnet():
    keras.utils.set_random_seed(0)
    return keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=10)


@pytest.fixture(scope="module")
def small():
    """The README's network, and its file."""
    keras.utils.set_random_seed(0)
    model = small_network((28, 28, 1))
    return model, tfprune.convert(model)


def test_the_tables_of_resnet50_fit(resnet):
    plan = tfprune.plan_shrink(resnet, tfprune.Structured(0.5))
    for report in (tfprune.summary(resnet), plan, tfprune.channel_groups(resnet)):
        check(report)
    last = plan.to_text(WIDTH).replace("\n", " ").split("overlap. ")[1]
    smaller = tfprune.shrink(resnet, plan)
    gone = sum(int((~keep).sum()) for keep in plan.values())
    assert last == (
        f"In all {gone:,} of {sum(map(len, plan.values())):,} channels go, and "
        f"{resnet.count_params() - smaller.count_params():,} parameters with them."
    )


@pytest.mark.slow
def test_the_tables_of_a_file_of_resnet50_fit(resnet):
    lite = tfprune.convert(resnet)
    check(lite.inspect())
    check(time_operators(lite, runs=1))


def test_the_tables_of_the_readmes_networks_fit(small):
    model, lite = small
    x, y = np.random.default_rng(0).random((32, 28, 28, 1), np.float32), np.arange(32) % 10
    pruned, told = tfprune.prune(model, tfprune.Percentile(0.9), data=x, reconstruct=True, return_report=True)
    reports = [
        tfprune.summary(pruned),
        told,
        tfprune.plan_shrink(model, tfprune.Structured(0.5)),
        tfprune.certify(model, tfprune.shrink(model, tfprune.plan_shrink(model, tfprune.Structured(0.5))), x),
        tfprune.sensitivity(model, (x, y)),
        lite.inspect(),
        tfprune.verify(model, lite, x, labels=y),
        tfprune.layer_errors(model, lite, x),
        tfprune.benchmark({"before": lite, "after, with a name of many words": lite}, runs=1),
        time_operators(lite, runs=1),
        quantization_report(tfprune.quantize_aware(model, x)),
    ]
    for report in reports:
        check(report)
        assert report._repr_html_().count("<tr>") == len(report._cells()) + 1
    check(tfprune.prune_hybrid(model, tfprune.Structured(0.3), 0.8)[1])


class Names(Report):
    title = "Names"
    columns = (Column("name", "layer"), Column("size", "parameters kept", ",d"), Column("why", "why"))

    def __init__(self, names):
        self.names = names

    def rows(self):
        return [
            {"name": name, "size": 1_234_567_890 + place, "why": "it feeds 'add', which needs all of its channels"}
            for place, name in enumerate(self.names)
        ]


def test_what_all_names_begin_with_is_said_once():
    text = check(Names([LONG.format(number) for number in range(3)]), 60)
    assert "Every name begins with MobileNetV3Small/" in text
    assert text.count("MobileNetV3Small") == 1


def test_names_are_shortened_in_the_middle_or_go_on_in_the_next_line():
    text = check(Names([f"first_part_that_is_long_and_the_end_{n}" for n in (1, 2)]), 56)
    assert "first_p" in text and "…" in text and "end_1" in text
    text = check(Names([f"begins_alike_in_all_{n}_of_these_and_ends_in_the_same_way_too" for n in range(3)]), 60)
    assert "…" not in text and "begins_alike_in_all_2_" in text


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120, 200])
def test_columns_that_find_no_room_follow_in_a_second_table(width, monkeypatch):
    report = tfprune.summary(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="only")]))
    text = check(report, width)
    assert text.count("only") == len([line for line in text.splitlines() if line.startswith("layer")])
    monkeypatch.setenv("COLUMNS", str(width))
    assert str(report) == text


def test_a_table_that_fits_stands_as_it_is():
    layout = Layout(Names.columns, [["conv", "1,234", "a"], ["dense", "12", "b"]], has_totals=False)
    (table,) = layout.tables(80)
    assert [next(iter(column.cells)).plain for column in table.columns] == ["conv", "1,234", "a"]


def test_folded_text_leaves_nothing_out():
    for text, width in itertools.product((LONG, "it feeds 'add', which needs all"), (8, 13, 20)):
        lines = folded(text, width).splitlines()
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
        assert all(len(line) <= width or not set(line[:-1]) & set(" /_,;") for line in lines)


def test_markup_in_a_name_is_text():
    assert "[red]name" in Names(["[red]name"]).to_text(80)
    assert "&lt;b&gt;" in Names(["<b>"])._repr_html_()
