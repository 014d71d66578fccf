"""Channels in another order: the same function, and blocks that keep more of it."""

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.errors import PruningError
from tfprune.oneshot.reordering import best_order, reordered

GENERATOR = np.random.default_rng(0)


def kept(kernel, share, height=4):
    """What blocks of one column keep, worked without the package."""
    blocks = np.abs(kernel).reshape(-1, height, kernel.shape[-1]).sum(axis=1).ravel()
    return np.sort(blocks)[round(share * blocks.size) :].sum() / blocks.sum()


@pytest.fixture
def network():
    """Sixteen hidden channels of four kinds in turns: each column of the next kernel hears one kind alone."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(16, activation="relu"), layers.Dense(4), layers.Dense(2)])
    kernel = np.zeros((16, 4), np.float32)
    for row in range(16):
        kernel[row, row % 4] = 1 + row / 16
    model.layers[1].kernel.assign(kernel)
    return model


def test_rows_of_one_kind_become_a_block():
    rows = np.eye(4)[np.arange(16) % 4]
    order = best_order(rows, 0.75, 4)
    assert sorted(order) == list(range(16))
    assert all(len({row % 4 for row in block}) == 1 for block in order.reshape(4, 4))


def test_a_short_last_block_stays_and_a_good_order_is_left_alone():
    rows = np.eye(3)[np.arange(12) // 4]
    np.testing.assert_array_equal(np.sort(best_order(rows, 2 / 3, 4).reshape(3, 4)), np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(best_order(np.ones((6, 2)), 0.5, 4), np.arange(6))
    assert list(best_order(GENERATOR.random((11, 5)), 0.5, 4)[8:]) == [8, 9, 10]


def test_no_zero_falls_on_an_entry_that_counts(network):
    method = tfprune.Percentile(0.75, pattern="4x1", layers=[network.layers[1].name])
    x = GENERATOR.normal(size=(32, 6)).astype("float32")
    wanted = network(x).numpy()
    plain, pruned = (tfprune.prune(network, method, verbose=0, reorder=reorder) for reorder in (False, True))
    assert np.abs(plain(x).numpy() - wanted).max() > 0.1
    np.testing.assert_allclose(pruned(x).numpy(), wanted, rtol=1e-5, atol=1e-6)
    for model in (plain, pruned):
        assert [int((~mask).sum()) for mask in tfprune.get_masks(model).values()] == [48]


def residual():
    inputs = x = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name="stem")(x)
    y = layers.BatchNormalization()(layers.Conv2D(8, 1, activation="relu", name="inner")(x))
    y = layers.Concatenate()([layers.Conv2D(8, 1, name="outer")(y), layers.DepthwiseConv2D(3, padding="same")(y)])
    x = layers.Concatenate()([x, y])
    x = layers.Dense(24, activation="relu", name="mixed")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(4, name="scores")(x))


@pytest.mark.parametrize("pattern", ["4x1", "2x2", "8x1"])
def test_a_network_stays_the_same_function_and_blocks_keep_no_less(pattern):
    keras.utils.set_random_seed(1)
    model = residual()
    for variable in model.non_trainable_variables:
        variable.assign(GENERATOR.uniform(0.5, 1.5, variable.shape))
    before = model.get_weights()
    new = reordered(model, tfprune.Percentile(0.8, pattern=pattern))
    assert tfprune.certify(model, new).largest < 1e-5
    assert all(np.array_equal(old, now) for old, now in zip(before, model.get_weights()))
    assert any(not np.array_equal(old, now) for old, now in zip(before, new.get_weights()))
    if pattern == "4x1":
        pairs = [(kept(net.get_layer("scores").get_weights()[0], 0.8)) for net in (model, new)]
        assert pairs[1] > pairs[0]


@pytest.mark.parametrize(
    "method", [tfprune.Percentile(0.8), tfprune.Percentile(0.8, pattern="1x4"), tfprune.Structured(0.5)]
)
def test_patterns_without_blocks_of_inputs_are_refused(network, method):
    with pytest.raises(PruningError, match=r"reorder=True sorts channels .*write Percentile\(0.9, pattern='4x1'\)"):
        tfprune.prune(network, method, reorder=True, verbose=0)
