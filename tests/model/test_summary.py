import json

import keras
import numpy as np
import pytest

import tfprune
from tfprune.errors import PruningError


@pytest.fixture
def model():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(3, 3, name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(5, name="dense"),
        ],
        name="small",
    )
    kernel = np.ones((3, 3, 2, 3), "float32")
    kernel[0, 0] = 0.0  # 6 of 54
    model.get_layer("conv").set_weights([kernel, np.zeros(3)])
    return model


def test_counts_are_those_worked_by_hand(model):
    rows = {row["layer"]: row for row in tfprune.summary(model).rows()}
    assert rows == {
        "conv": {
            "layer": "conv",
            "kind": "Conv2D",
            "shape": "3x3x2x3",
            "parameters": 54 + 3,
            "zeros": 6,
            "sparsity": 6 / 54,
            "macs": 4 * 4 * 54,
        },
        "norm": {
            "layer": "norm",
            "kind": "BatchNormalization",
            "shape": None,
            "parameters": 4 * 3,
            "zeros": 0,
            "sparsity": None,
            "macs": 0,
        },
        "dense": {
            "layer": "dense",
            "kind": "Dense",
            "shape": "48x5",
            "parameters": 48 * 5 + 5,
            "zeros": 0,
            "sparsity": 0.0,
            "macs": 240,
        },
    }


def test_totals_are_the_sums(model):
    report = tfprune.summary(model)
    assert report.parameters == model.count_params() == 57 + 12 + 245
    assert report.zeros == 6
    assert report.sparsity == 6 / (54 + 240)
    assert report.macs == 864 + 240
    assert report.totals() == {"parameters": 314, "zeros": 6, "sparsity": 6 / 294, "macs": 1104}


def test_every_form_holds_the_same_figures(model, tmp_path):
    report = tfprune.summary(model)
    assert json.loads(report.to_json(tmp_path / "summary.json")) == report.to_dict()
    assert json.loads((tmp_path / "summary.json").read_text()) == report.to_dict()
    for text in (str(report), report.to_markdown()):
        assert "1,104" in text
        assert "11.11%" in text
        assert "'small'" in text
    report.plot(tmp_path / "summary.png")
    assert (tmp_path / "summary.png").read_bytes().startswith(b"\x89PNG")


def test_a_wrapped_model_counts_like_the_plain_one(model):
    wrapped = tfprune.wrap(model, 0.5)
    plain = tfprune.summary(model)
    assert tfprune.summary(wrapped).totals() == plain.totals()
    assert [row["layer"] for row in tfprune.summary(wrapped).rows()] == ["conv", "norm", "dense"]


def test_nested_and_composite_layers_come_as_one_row_each():
    inner = keras.Sequential([keras.Input((4, 8)), keras.layers.Dense(8, name="dense")], name="inner")
    inputs = keras.Input((4, 8))
    x = inner(inputs)
    x = keras.layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    outputs = keras.layers.Bidirectional(keras.layers.LSTM(3), name="both")(x)
    model = keras.Model(inputs, outputs)
    report = tfprune.summary(model)
    assert [row["layer"] for row in report.rows()] == ["inner/dense", "attention", "both"]
    assert report.parameters == model.count_params()


class Doubling(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3, name="dense")

    def call(self, inputs):
        return 2 * self.dense(inputs)


def test_a_subclassed_model_is_counted_in_the_graph_that_it_opens_into():
    model = Doubling()
    model(np.zeros((1, 2)))
    report = tfprune.summary(model)
    assert (report.macs, report.rows()[0]["macs"]) == (6, 6)


class Counting(Doubling):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def call(self, inputs):
        self.calls += 1
        return super().call(inputs)


def test_a_subclassed_model_that_does_not_open_says_that_its_macs_are_not_known():
    model = Counting()
    model(np.zeros((1, 2)))
    report = tfprune.summary(model)
    assert report.macs is None
    assert report.rows()[0]["macs"] is None
    assert "functional or Sequential model with known sizes, or one that opens" in str(report)


def test_an_unbuilt_model_is_refused():
    with pytest.raises(PruningError, match=r"Cannot summarise 'bare': it is not built.*model.build"):
        tfprune.summary(keras.Sequential([keras.layers.Dense(2)], name="bare"))
