"""Repair without training: exact counts, zeros held, answers nearer to the dense model."""

import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune
from tfprune import Percentile, PruningError, Structured, Threshold, prune
from tfprune.model.data import Batch
from tfprune.model.prunable import every_weight
from tfprune.oneshot.repair.batch_norm import Norm, move_statistics, recalibrate
from tfprune.oneshot.repair.reconstruct import reconstruct

L = keras.layers
rng = np.random.default_rng(0)
IMAGES = rng.normal(size=(96, 8, 8, 3)).astype("float32")


@pytest.fixture(scope="module")
def convolutional():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(8, 3, padding="same", use_bias=False, name="first")(inputs)
    x = L.BatchNormalization(name="norm")(x)
    x = L.ReLU()(x)
    y = L.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = L.Add()([x, L.Conv2D(8, 1, activation="relu", name="pointwise")(y)])
    x = L.Conv2D(8, 3, strides=2, groups=2, padding="same", activation="relu", name="grouped")(x)
    x = L.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, L.Dense(5, name="head")(x))
    recalibrate(model, [Batch(IMAGES)])  # as training on such images would have left it
    return model


def distance(model, other, data):
    return float(np.mean((model.predict(data, verbose=0) - other.predict(data, verbose=0)) ** 2))


@pytest.mark.parametrize(
    ("pattern", "ways"), [("element", ["least_squares", "obs"]), ("2:4", ["obs"]), ("2x1", ["obs"])]
)
def test_each_repair_brings_answers_nearer_with_the_same_number_of_zeros(convolutional, pattern, ways):
    method = Percentile(0.5, pattern=pattern, layers=["pointwise", "head"])
    fresh = np.random.default_rng(1).normal(size=(200, 8, 8, 3)).astype("float32")
    plain = prune(convolutional, method)
    plain_distance = distance(plain, convolutional, fresh)
    for way in ways:
        repaired = prune(convolutional, method, IMAGES, reconstruct=way)
        assert distance(repaired, convolutional, fresh) < 0.9 * plain_distance
        before, after = tfprune.get_masks(plain), tfprune.get_masks(repaired)
        assert before.keys() == after.keys()
        for key, mask in after.items():
            assert np.count_nonzero(mask) == np.count_nonzero(before[key])
            if way == "least_squares":
                np.testing.assert_array_equal(mask, before[key])


def test_n_of_m_still_holds_after_a_new_choice(convolutional):
    repaired = prune(convolutional, Percentile(pattern="2:4", layers="pointwise"), IMAGES, reconstruct="obs")
    kernel = repaired.get_layer("pointwise").kernel.numpy()  # 1 x 1 x 8 x 8
    groups = kernel.reshape(2, 4, 8)
    np.testing.assert_array_equal(np.count_nonzero(groups, axis=1), 2)


def test_the_report_tells_the_error_of_every_layer_before_and_after(convolutional):
    pruned = prune(convolutional, 0.6)
    report = reconstruct(pruned, convolutional, (IMAGES, np.zeros(96)), "least_squares")
    assert [row["weight"] for row in report.rows()] == [
        "first/kernel",
        "depthwise/kernel",
        "pointwise/kernel",
        "grouped/kernel",
        "head/kernel",
    ]
    for row in report.rows():
        assert row["after"] <= row["before"] + 1e-6
    assert "Read 96 samples in 1 batches." in report.notes()
    assert "norm" in str(report)


def test_the_repaired_layer_is_the_least_squares_solution_of_numpy():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), L.Dense(3)])
    data = (np.random.default_rng(2).normal(size=(300, 6)) + 1.0).astype("float32")
    repaired = prune(model, Percentile(0.5), data, reconstruct="least_squares")
    kernel, bias = repaired.layers[0].kernel.numpy(), repaired.layers[0].bias.numpy()
    wanted = model.predict(data, verbose=0)
    for column in range(3):
        support = kernel[:, column] != 0
        features = np.column_stack([data[:, support], np.ones(300)])
        best = np.linalg.lstsq(features, wanted[:, column], rcond=None)[0]
        # The ridge of 1 % pulls towards the old values.
        np.testing.assert_allclose(np.append(kernel[support, column], bias[column]), best, atol=0.03)


def test_layers_before_are_made_up_for_by_those_after(convolutional):
    only_first = prune(convolutional, Percentile(0.8, layers="first"))
    before = distance(only_first, convolutional, IMAGES)
    masks = {"head/kernel": np.ones((8, 5), bool)}  # nothing removed there, but free to change
    tfprune.apply_masks(only_first, masks)
    reconstruct(only_first, convolutional, IMAGES, "least_squares")
    assert distance(only_first, convolutional, IMAGES) < before


def test_batch_norm_statistics_become_those_of_the_data(convolutional):
    pruned = prune(convolutional, Percentile(0.8, layers="first"), IMAGES, reconstruct="batch_norm")
    norm = pruned.get_layer("norm")
    reached = np.asarray(pruned.get_layer("first")(IMAGES))
    np.testing.assert_allclose(norm.moving_mean, reached.mean(axis=(0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, reached.var(axis=(0, 1, 2)), atol=1e-4)
    assert norm.momentum == 0.99
    assert norm.trainable


def test_statistics_stay_where_nothing_was_pruned_whatever_the_data(convolutional):
    copies = [keras.models.clone_model(convolutional) for _ in range(2)]
    for copy in copies:
        copy.set_weights(convolutional.get_weights())
    batches = [Batch(3 * IMAGES[:40] + 1), Batch(5 * IMAGES[40:] - 2)]
    assert move_statistics(*copies, batches) == ["norm"]
    for copy in copies:
        for weight, value in zip(copy.weights, convolutional.get_weights()):
            np.testing.assert_array_equal(weight, value)
        assert all("call" not in vars(layer) for layer in copy.layers)


@pytest.mark.parametrize("way", ["batch_norm", "least_squares", "obs"])
def test_a_repair_helps_though_the_data_are_not_those_of_the_training(convolutional, way):
    fresh = np.random.default_rng(1).normal(size=(200, 8, 8, 3)).astype("float32")
    plain, anew = prune(convolutional, 0.6), prune(convolutional, 0.6)
    repaired = prune(convolutional, 0.6, 2 * IMAGES, reconstruct=way)
    recalibrate(anew, [Batch(2 * IMAGES)])
    assert distance(repaired, convolutional, fresh) < distance(plain, convolutional, fresh)
    assert distance(anew, convolutional, fresh) > distance(plain, convolutional, fresh)  # which took them for those


def test_moved_statistics_by_hand():
    """One channel, twice as wide and shifted: its norm makes of it what the dense one makes of its own input."""
    dense, pruned = (keras.Sequential([keras.Input((1,)), L.BatchNormalization(epsilon=0.0)]) for _ in range(2))
    for model, values in ((dense, (3.0, 4.0)), (pruned, (0.0, 1.0))):
        model.layers[0].moving_mean.assign([values[0]])
        model.layers[0].moving_variance.assign([values[1]])
    norm = Norm(pruned.layers[0], dense.layers[0])
    norm.listen(np.array([[0.0], [2.0]], "float32"))  # mean 1, variance 1
    given = np.array([[7.0], [3.0]], "float32")  # mean 5, variance 4
    # The mean is 2 below that of the norm, in standard deviations of the data; these are twice as large here.
    np.testing.assert_allclose(norm.call(given), [[-0.5], [-1.5]], rtol=1e-6)
    norm.finish()
    np.testing.assert_allclose(pruned.layers[0].moving_mean, [5 + 2 * 2])
    np.testing.assert_allclose(pruned.layers[0].moving_variance, [4 * 4])


def test_nothing_of_the_dense_model_changes(convolutional):
    before = [weight.numpy() for weight in convolutional.weights]
    prune(convolutional, 0.5, IMAGES, reconstruct=True)
    for weight, value in zip(convolutional.weights, before):
        np.testing.assert_array_equal(weight, value)
    assert all("call" not in vars(layer) for layer in convolutional.layers)


def test_channels_are_repaired_and_stay_removed(convolutional):
    plain = prune(convolutional, tfprune.Structured(0.25))
    repaired = prune(convolutional, tfprune.Structured(0.25), IMAGES, reconstruct=True)
    assert distance(repaired, convolutional, IMAGES) < distance(plain, convolutional, IMAGES)
    before, after = tfprune.get_masks(plain), tfprune.get_masks(repaired)
    for key, mask in before.items():
        np.testing.assert_array_equal(after[key], mask)
    for weight in every_weight(repaired):
        if weight.key in after:
            assert not weight.variable.numpy()[~after[weight.key]].any()
    shrunk = tfprune.shrink(tfprune.strip_masks(repaired))
    np.testing.assert_allclose(shrunk.predict(IMAGES, verbose=0), repaired.predict(IMAGES, verbose=0), atol=1e-4)


@pytest.mark.parametrize(
    "data",
    [
        tf.data.Dataset.from_tensor_slices(IMAGES).batch(32),
        tf.data.Dataset.from_tensor_slices((IMAGES, np.zeros(96))).batch(32),
        [IMAGES[:48], IMAGES[48:]],
    ],
    ids=["dataset", "dataset with labels", "iterable"],
)
def test_any_data_give_the_same_repair(convolutional, data):
    if isinstance(data, list):
        data = iter(data)
    expected = prune(convolutional, 0.5, IMAGES, reconstruct="least_squares")
    found = prune(convolutional, 0.5, data, reconstruct="least_squares")
    assert distance(expected, found, IMAGES) < 1e-3 * distance(prune(convolutional, 0.5), convolutional, IMAGES)


def test_attention_is_repaired_and_recurrence_is_named():
    keras.utils.set_random_seed(2)
    inputs = keras.Input((6, 8))
    x = L.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    model = keras.Model(inputs, L.Dense(2)(L.LSTM(4, name="lstm")(x)))
    data = np.random.default_rng(3).normal(size=(128, 6, 8)).astype("float32")
    with pytest.warns(UserWarning, match=r"not repaired: 'lstm/lstm_cell/kernel' is a kernel of LSTMCell"):
        pruned = prune(model, 0.5, data, reconstruct=True)
    attention = prune(model, Percentile(0.5, layers="attention"), data, reconstruct=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = prune(model, Percentile(0.5, layers="attention"))
    assert distance(attention, model, data) < distance(plain, model, data)
    assert pruned.count_params() == model.count_params()


@pytest.fixture(scope="module")
def separable():
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((8, 8, 3))
    for index, width in enumerate((12, 16)):
        x = L.SeparableConv2D(width, 3, padding="same", depth_multiplier=2, name=f"separable{index}")(x)
        x = L.ReLU()(L.BatchNormalization()(x))
    model = keras.Model(inputs, L.Dense(5, name="head")(L.GlobalAveragePooling2D()(x)))
    recalibrate(model, [Batch(IMAGES)])
    return model


@pytest.mark.filterwarnings("error::UserWarning:tfprune")
@pytest.mark.parametrize("method", [Percentile(0.5), Structured(0.3)], ids=["entries", "channels"])
def test_both_kernels_of_a_separable_convolution_are_repaired(separable, method):
    fresh = np.random.default_rng(1).normal(size=(200, 8, 8, 3)).astype("float32")
    plain = prune(separable, method)
    repaired, report = prune(separable, method, IMAGES, reconstruct="least_squares", return_report=True)
    keys = [row["weight"] for row in report.reconstruction.rows()]
    assert [key for key in keys if key.startswith("separable1")] == [
        "separable1/depthwise_kernel",
        "separable1/pointwise_kernel",
    ]
    assert all(row["after"] <= row["before"] + 1e-6 for row in report.reconstruction.rows())
    assert distance(repaired, separable, fresh) < 0.7 * distance(plain, separable, fresh)


def test_the_activation_of_a_separable_convolution_says_nothing_of_its_first_kernel(separable):
    with pytest.raises(PruningError, match="is not defined for 'separable0/depthwise_kernel'"):
        prune(separable, Percentile(0.5, criterion="activation"), IMAGES)


def test_a_wide_layer_is_repaired_in_parts(monkeypatch):
    monkeypatch.setattr(sys.modules["tfprune.oneshot.repair.reconstruct"], "FEATURES", 16)
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((37,)), L.Dense(4)])
    data = np.random.default_rng(4).normal(size=(512, 37)).astype("float32")
    repaired = prune(model, 0.5, data, reconstruct=True)
    assert np.count_nonzero(repaired.layers[0].kernel) == 74
    assert distance(repaired, model, data) < distance(prune(model, 0.5), model, data)


def test_wrong_use_is_told(convolutional):
    with pytest.raises(PruningError, match=r"reconstruct='obs' needs data: write data=images\[:1000\]"):
        prune(convolutional, 0.5, reconstruct=True)
    with pytest.raises(PruningError, match="no way of repair.*Did you mean 'batch_norm'"):
        prune(convolutional, 0.5, IMAGES, reconstruct="batchnorm")
    with pytest.raises(
        PruningError,
        match="chooses which entries stay, which a threshold has decided; write reconstruct='least_squares'",
    ):
        prune(convolutional, Threshold(0.1), IMAGES, reconstruct="obs")
    with pytest.raises(PruningError, match="chooses which channels stay, which a threshold has decided; write"):
        prune(convolutional, Structured(0.1, budget="threshold"), IMAGES, reconstruct="obs")
    with pytest.raises(PruningError, match=r"reconstruct='obs': .* shape \(96, 4\), but .* \(any, 8, 8, 3\)"):
        prune(convolutional, 0.5, np.zeros((96, 4)), reconstruct=True)
    plain = keras.Sequential([keras.Input((4,)), L.Dense(2)])
    with pytest.raises(PruningError, match="has no batch norm to measure; write reconstruct=True"):
        prune(plain, 0.5, np.zeros((8, 4)), reconstruct="batch_norm")
