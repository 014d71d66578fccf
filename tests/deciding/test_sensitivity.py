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


def test_wrong_use_is_told(model):
    with pytest.raises(PruningError, match=r"are no rising sparsities in \(0, 1\)"):
        sensitivity(model, (X, Y), levels=(0.9, 0.5))
    with pytest.raises(PruningError, match="compiled without the metric 'acuracy'.*Did you mean 'accuracy'"):
        sensitivity(model, (X, Y), metric="acuracy")
    with pytest.raises(PruningError, match=r"sensitivity needs targets; write data=\(x, y\)"):
        sensitivity(model, X)
    bare = keras.Sequential([keras.Input((6,)), L.Dense(2)])
    with pytest.raises(PruningError, match="is not compiled. Compile it with metrics="):
        sensitivity(bare, (X, Y))
    with pytest.raises(PruningError, match="amounts: 1.5 is no sparsity"):
        sensitivity(model, (X, Y), levels=(0.5,)).amounts(1.5)
