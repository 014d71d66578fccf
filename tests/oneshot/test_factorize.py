"""Layers split in two: exact where the rank suffices, ranks worked by hand, every kind, errors that are told."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.errors import PruningError

X = np.random.default_rng(0).normal(size=(50, 8, 8, 3)).astype(np.float32)


def network():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="first")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2D(24, 3, strides=2, use_bias=False, name="second")(x)
    x = layers.Flatten()(layers.ReLU()(x))
    x = layers.Dense(32, activation="tanh", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(4, activation="softmax", name="kind")(x))


def low_rank(layer, rank):
    kernel = np.asarray(layer.kernel)
    left, middle, right = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), full_matrices=False)
    layer.kernel.assign((left[:, :rank] * middle[:rank] @ right[:rank]).reshape(kernel.shape))


@pytest.mark.parametrize("data", [None, X])
@pytest.mark.parametrize(
    "layer, shape",
    [
        (lambda: layers.Dense(20, activation="relu"), (30,)),
        (lambda: layers.Conv1D(20, 3, padding="causal", dilation_rate=2), (9, 12)),
        (lambda: layers.Conv2D(20, 3, strides=2, padding="same", activation="gelu"), (8, 8, 6)),
        (lambda: layers.Conv3D(16, 2, use_bias=False), (4, 4, 4, 5)),
    ],
)
def test_a_kernel_of_low_rank_is_split_without_loss(layer, shape, data):
    model = keras.Sequential([keras.Input(shape), layer()])
    low_rank(model.layers[0], 3)
    x = np.random.default_rng(1).normal(size=(20, *shape)).astype(np.float32)
    entries, outputs = model.layers[0].kernel.shape, model.layers[0].kernel.shape[-1]
    size, price = int(np.prod(entries)), int(np.prod(entries[:-1])) + outputs
    small, report = tfprune.factorize(model, 1 - 3.5 * price / size, None if data is None else x, return_report=True)
    (split,) = report.splits
    assert (split.rank, split.after, split.before) == (3, 3 * price, size) and split.error < 1e-5
    assert report.samples == (0 if data is None else 20)
    np.testing.assert_allclose(small(x), model(x), atol=2e-5)
    assert [each.name for each in small.layers[1:]] == [f"{model.layers[0].name}_factor", model.layers[0].name]


def test_the_error_is_that_of_the_outputs_and_data_make_it_less():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(12, name="a")])
    x = (np.random.default_rng(2).normal(size=(400, 10)) * 2.0 ** -np.arange(10) + 1).astype(np.float32)
    wanted = np.asarray(model(x))
    found = {}
    for data in (None, x):
        small, report = tfprune.factorize(model, 0.5, data, return_report=True)
        off = np.asarray(small(x)) - wanted
        found[data is None] = np.sqrt(np.square(off).sum() / np.square(wanted - wanted.mean(0)).sum())
        if data is not None:
            assert report.splits[0].error == pytest.approx(found[False], rel=1e-3)
    assert report.splits[0].rank == 2 and found[False] < found[True] / 2  # 2 * 22 of 60


def test_ranks_share_one_error_and_the_amount_is_kept():
    model = network()
    before = [np.array(weight) for weight in model.get_weights()]
    small, report = tfprune.factorize(model, 0.6, X, return_report=True)
    assert report.totals()["after"] <= 0.4 * report.totals()["before"]
    kernels = {"first": 432, "second": 3456, "hidden": 6912, "kind": 128}
    assert {split.layer: split.before for split in report.splits} == kernels
    errors = [split.error for split in report.splits if split.rank is not None]
    assert len(errors) >= 2 and max(errors) < 1
    parameters = small.count_params() - (model.count_params() - sum(kernels.values()))
    assert parameters == report.totals()["after"]
    assert all(np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))
    random, _ = tfprune.factorize(model, 0.6, return_report=True)
    drift = [float(np.abs(np.asarray(each(X)) - np.asarray(model(X))).max()) for each in (small, random)]
    assert drift[0] < 0.2
    assert json.loads(report.to_json())["totals"] == {"before": 10928, "after": report.totals()["after"]}
    assert "measure" in str(report)


def test_nothing_goes_at_an_amount_of_zero():
    model = network()
    small, report = tfprune.factorize(model, 0.0, return_report=True)
    assert {split.rank for split in report.splits} == {None}
    np.testing.assert_array_equal(small(X), model(X))


def test_amounts_by_layer_leave_the_others_whole():
    small, report = tfprune.factorize(network(), {"hidden": 0.8}, return_report=True)
    ranks = {split.layer: split.rank for split in report.splits}
    assert ranks["hidden"] == int(0.2 * 6912 / (216 + 32)) and [*ranks.values()].count(None) == 3
    assert small.get_layer("hidden_factor").units == ranks["hidden"]


def test_the_way_goes_on_shared_layers_fit_prune_save_and_convert(tmp_path):
    one, two = keras.Input((12,)), keras.Input((12,))
    shared = layers.Dense(16, activation="relu", name="shared")
    model = keras.Model([one, two], layers.Dense(2, name="end")(layers.Concatenate()([shared(one), shared(two)])))
    model.compile("adam", "mse")
    x = [np.random.default_rng(seed).normal(size=(32, 12)).astype(np.float32) for seed in (0, 1)]
    small = tfprune.factorize(model, 0.3, (x, np.zeros((32, 2), np.float32)))
    assert sum(layer.name == "shared" for layer in small.layers) == 1
    small.fit(x, np.zeros((32, 2)), epochs=1, verbose=0)
    pruned = tfprune.prune(small, tfprune.Percentile(0.5))
    plain = tfprune.strip_masks(pruned)
    plain.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), plain.predict(x, verbose=0))
    assert tfprune.verify(plain, tfprune.convert(plain), x).largest_difference < 1e-5


def test_subclassed_models_are_opened():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = layers.Dense(32, activation="relu"), layers.Dense(3)

        def call(self, x):
            return self.outer(self.inner(x))

    model = Net()
    x = np.random.default_rng(3).normal(size=(40, 20)).astype(np.float32)
    model(x)
    small, report = tfprune.factorize(model, 0.3, x, return_report=True)
    assert any(split.rank for split in report.splits) and small(x).shape == (40, 3)


@pytest.mark.parametrize(
    "make, amount, said",
    [
        (network, 1.0, r"amount=1\.0: give the share of the entries that goes, in \[0, 1\)"),
        (network, "half", "amount='half'"),
        (network, True, "amount=True"),
        (network, 0.99, r"amount=0\.99 is out of reach: rank 1 in every layer leaves .* at most 0\.9"),
        (network, {"hiden": 0.5}, "No layer 'hiden' can be split in .*'first', 'second', 'hidden', 'kind'"),
        (lambda: keras.Sequential([keras.Input((4,)), layers.ReLU()]), 0.5, "has no dense or convolution layer"),
        (lambda: tfprune.prune(network(), 0.5), 0.5, "holds masks, which two layers cannot keep. Write strip_masks"),
    ],
)
def test_what_cannot_be_is_told(make, amount, said):
    with pytest.raises(PruningError, match=said):
        tfprune.factorize(make(), amount)
