"""Each weight pruned alone: the same numbers as by hand, one compilation, amounts that meet their target."""

import json

import keras
import numpy as np
import pytest

import tfprune
from tfprune import Percentile, PruningError, sensitivity
from tfprune.deciding.sensitivity import Sensitivity

L = keras.layers
X = np.random.default_rng(0).normal(size=(200, 6)).astype("float32")
Y = (X[:, 0] + X[:, 1] > 0).astype("int32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    made = keras.Sequential(
        [keras.Input((6,)), L.Dense(16, activation="relu", name="wide"), L.Dense(2, name="last")], name="tiny"
    )
    made.compile(
        keras.optimizers.Adam(0.02), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    made.fit(X, Y, epochs=5, verbose=0)
    return made


def test_the_numbers_are_those_of_pruning_and_evaluating(model):
    before = model.get_weights()
    report = sensitivity(model, (X, Y), levels=(0.5, 0.9))
    for name in ("wide", "last"):
        for level, value in zip(report.levels, report.values[f"{name}/kernel"]):
            pruned = tfprune.prune(model, Percentile(level, layers=name))
            assert value == pytest.approx(pruned.evaluate(X, Y, verbose=0, return_dict=True)["accuracy"])
    assert report.dense == pytest.approx(model.evaluate(X, Y, verbose=0, return_dict=True)["accuracy"])
    for one, other in zip(model.get_weights(), before):
        np.testing.assert_array_equal(one, other)


def test_channel_groups_are_measured_with_everything_that_belongs_to_them(model):
    before = model.get_weights()
    report = sensitivity(model, (X, Y), metric="loss", levels=(0.25, 0.5), criterion="l2", pattern="channel")
    assert report.sizes == {"wide": 16}
    for level, value in zip(report.levels, report.values["wide"]):
        pruned = tfprune.prune(model, tfprune.Structured(level, criterion="l2"))
        assert value == pytest.approx(pruned.evaluate(X, Y, verbose=0, return_dict=True)["loss"], rel=1e-5)
    for one, other in zip(model.get_weights(), before):
        np.testing.assert_array_equal(one, other)
    method = tfprune.Structured(0.5, allocation=report.amounts(0.5))
    assert (~tfprune.get_masks(tfprune.prune(model, method))["wide/bias"]).sum() == 8


def test_the_loss_and_functions_can_be_measured(model):
    loss = sensitivity(model, (X, Y), metric="loss", levels=(0.9,))
    assert (loss.losses("wide/kernel") >= 0).all() and loss.metric == "loss"

    def zeros(candidate):
        return sum(int(np.count_nonzero(np.asarray(weight) == 0)) for weight in candidate.trainable_weights)

    counted = sensitivity(model, (X, Y), metric=zeros, levels=(0.25, 0.5), layers="wide")
    assert counted.metric == "zeros" and np.diff(counted.values["wide/kernel"]).tolist() == [24.0]


@pytest.mark.parametrize("sparsity", [0.0, 0.35, 0.6, 0.8, 0.95])
def test_amounts_meet_the_overall_sparsity_exactly(model, sparsity):
    amounts = sensitivity(model, (X, Y)).amounts(sparsity)
    pruned = tfprune.prune(model, Percentile(sparsity, allocation=amounts))
    zeros = sum(int(np.count_nonzero(layer.kernel.numpy() == 0)) for layer in pruned.layers)
    assert zeros == round(sparsity * 128)


def test_sensitive_weights_get_less():
    report = Sensitivity("accuracy", 0.9, (0.5, 0.9), {"a": [0.9, 0.9], "b": [0.5, 0.1]}, {"a": 100, "b": 100}, 10)
    amounts = report.amounts(0.5)
    assert amounts["a"] > 0.85 and amounts["a"] + amounts["b"] == pytest.approx(1.0)


def test_the_report_is_a_table_and_a_plot(model, tmp_path):
    report = sensitivity(model, (X, Y), levels=(0.5, 0.9))
    assert "wide/kernel" in str(report) and "90%" in str(report)
    assert [row["weight"] for row in json.loads(report.to_json())["rows"]] == ["wide/kernel", "last/kernel"]
    report.plot(tmp_path / "lines.png")
    assert (tmp_path / "lines.png").stat().st_size > 0


def latitude(targets, outputs):
    return float(np.mean(outputs))


def test_of_an_error_the_weight_that_raises_it_most_is_pruned_least():
    values = {"a": [0.1, 0.1], "b": [0.5, 0.9]}
    for name in ("mae", "mean_absolute_error", "root_mean_squared_error", "edit_distance"):
        amounts = Sensitivity(name, 0.1, (0.5, 0.9), values, {"a": 100, "b": 100}, 10).amounts(0.5)
        assert amounts["a"] > 0.85 and amounts["a"] + amounts["b"] == pytest.approx(1.0)
    amounts = Sensitivity("latitude", 0.1, (0.5, 0.9), values, {"a": 100, "b": 100}, 10, "min").amounts(0.5)
    assert amounts["a"] > 0.85


def test_keras_metrics_functions_of_answers_and_differences_are_measured(model):
    by_name = sensitivity(model, (X, Y), levels=(0.9,), verbose=0)
    of_class = sensitivity(model, (X, Y), metric=keras.metrics.SparseCategoricalAccuracy(), levels=(0.9,), verbose=0)
    for key, values in by_name.values.items():
        assert of_class.values[key] == pytest.approx(values)
    assert of_class.mode == "max"

    def wrong(targets, outputs):
        return np.mean(outputs.argmax(axis=-1) != targets)

    counted = sensitivity(model, (X, Y), metric=wrong, mode="min", levels=(0.9,), verbose=0)
    assert counted.dense == pytest.approx(1 - by_name.dense)
    assert counted.losses("wide/kernel") == pytest.approx(by_name.losses("wide/kernel"))
    apart = sensitivity(model, X, levels=(0.5, 0.9), verbose=0)
    assert apart.metric == "difference" and apart.dense == 0.0 and apart.mode == "min"
    assert 0 < apart.values["wide/kernel"][0] < apart.values["wide/kernel"][1]


def test_wrong_use_is_told(model):
    with pytest.raises(PruningError, match=r"are no rising sparsities in \(0, 1\)"):
        sensitivity(model, (X, Y), levels=(0.9, 0.5))
    with pytest.raises(PruningError, match="compiled without the metric 'acuracy'.*Did you mean 'accuracy'"):
        sensitivity(model, (X, Y), metric="acuracy")
    with pytest.raises(PruningError, match="the metric 'accuracy' needs targets, and the data have none"):
        sensitivity(model, X, metric="accuracy")
    with pytest.raises(PruningError, match="mode='min' contradicts the metric 'accuracy', of which a large value"):
        sensitivity(model, (X, Y), mode="min")
    with pytest.raises(PruningError, match="mode='most' is unknown; write mode='max'"):
        sensitivity(model, (X, Y), mode="most")
    with pytest.raises(PruningError, match="Whether a large or a small 'latitude' is better cannot be told"):
        sensitivity(model, (X, Y), metric=latitude)
    bare = keras.Sequential([keras.Input((6,)), L.Dense(2)])
    with pytest.raises(PruningError, match="is not compiled. Compile it with metrics="):
        sensitivity(bare, (X, Y))
    with pytest.raises(PruningError, match="amounts: 1.5 is no sparsity"):
        sensitivity(model, (X, Y), levels=(0.5,)).amounts(1.5)
