"""Proximal training: soft thresholds that make zeros, group thresholds that make zero channels, exact in the end."""

import keras
import numpy as np
import pytest
from tiny_models import make

import tfprune
from tfprune.channels import channel_groups
from tfprune.errors import PruningError
from tfprune.model.prunable import prunable_weights
from tfprune.training.masks import MaskConstraint, constraint_of
from tfprune.training.proximal import GroupShrinkage, soft_threshold

L = keras.layers


def test_the_soft_threshold_by_hand():
    found = soft_threshold(np.array([-2.0, -0.5, 0.0, 0.3, 1.5], np.float32), np.float32(0.5))
    np.testing.assert_allclose(found, [-1.5, 0.0, 0.0, 0.0, 1.0])


def test_the_group_soft_threshold_by_hand():
    model = keras.Sequential([keras.Input((2,)), L.Dense(2, name="hidden", use_bias=False), L.Dense(1, name="head")])
    model.get_layer("hidden").kernel.assign([[3.0, 0.3], [4.0, 0.4]])  # lengths 5 and 0.5
    groups = list(channel_groups(model).free.values())
    shrink = GroupShrinkage(groups).of("hidden/kernel")
    found = shrink(model.get_layer("hidden").kernel.value, np.float32(1.0 / np.sqrt(2)))  # sqrt(2) entries a channel
    np.testing.assert_allclose(found, [[3.0 * 0.8, 0.0], [4.0 * 0.8, 0.0]], rtol=1e-6)
    assert GroupShrinkage(groups).of("head/kernel") is None


def test_a_channel_that_two_layers_make_has_one_length():
    inputs = keras.Input((2,))
    sides = [L.Dense(2, use_bias=False, name=name)(inputs) for name in ("left", "right")]
    model = keras.Model(inputs, L.Dense(1)(L.Add()(sides)))
    model.get_layer("left").kernel.assign([[3.0, 1.0], [0.0, 0.0]])
    model.get_layer("right").kernel.assign([[0.0, 0.0], [4.0, 0.0]])
    shrinkage = GroupShrinkage(list(channel_groups(model).free.values()))
    left = shrinkage.of("left/kernel")(model.get_layer("left").kernel.value, np.float32(0.25))
    # 1 - 0.25 * sqrt(4) / 5, and / 1
    np.testing.assert_allclose(left, [[3.0 * 0.9, 0.5], [0.0, 0.0]], rtol=1e-6)


def test_a_step_is_that_of_the_optimizer_and_then_the_threshold():
    model = keras.Sequential([keras.Input((1,)), L.Dense(2, use_bias=False, name="only")])
    model.layers[0].kernel.assign([[1.0, 0.05]])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x, y = np.zeros((4, 1), "float32"), np.zeros((4, 2), "float32")  # no gradient: the threshold alone
    model.fit(x, y, batch_size=1, verbose=0, callbacks=[tfprune.ProximalSparsity(0.5, strength=0.2, end=1.0)])
    # Three steps of 0.1 x 0.2; then half is removed, and the last step is free.
    np.testing.assert_allclose(model.layers[0].kernel.numpy(), [[0.94, 0.0]], rtol=1e-6)
    assert tfprune.get_masks(model)["only/kernel"].tolist() == [[True, False]]
    assert type(constraint_of(model.layers[0].kernel)) is MaskConstraint


def test_an_inactive_feature_is_found_as_in_compressed_sensing():
    # Fewer measurements than unknowns, three of which are not zero: least squares cannot tell them, the L1 norm can.
    generator = np.random.default_rng(0)
    x = generator.normal(size=(20, 40)).astype("float32")
    truth = np.zeros((40, 1), "float32")
    truth[[3, 17, 31], 0] = [2.0, -1.5, 1.0]
    model = keras.Sequential([keras.Input((40,)), L.Dense(1, use_bias=False, kernel_initializer="zeros", name="only")])
    model.layers[0].kernel.assign(np.full((40, 1), 0.01))
    model.compile(keras.optimizers.SGD(0.05), "mse", jit_compile=False)
    callback = tfprune.ProximalSparsity(37 / 40, strength=0.1)
    many = np.tile(x, (400, 1))
    model.fit(many, many @ truth, batch_size=20, shuffle=False, verbose=0, callbacks=[callback])
    np.testing.assert_array_equal(tfprune.get_masks(model)["only/kernel"], truth != 0)
    np.testing.assert_allclose(model.layers[0].kernel, truth, atol=0.05)


@pytest.mark.parametrize(
    ("name", "settings"), [("convolutional", {"jit_compile": True}), ("attention", {})], ids=["XLA", "graph"]
)
def test_weights_end_at_the_share_exactly(name, settings):
    model, inputs, targets = make(name, **settings)
    model.fit(inputs, targets, batch_size=4, epochs=4, verbose=0, callbacks=[tfprune.ProximalSparsity(0.6)])
    masks = tfprune.get_masks(model)
    total = sum(int(np.prod(weight.shape)) for weight in prunable_weights(model))
    assert sum(np.count_nonzero(~mask) for mask in masks.values()) == round(0.6 * total)


def test_channels_end_at_the_share_exactly_and_are_those_that_became_zero():
    model, inputs, targets = make("dense", optimizer=keras.optimizers.SGD(0.05))
    hidden = model.get_layer("hidden")
    kernel = hidden.kernel.numpy()
    kernel[:, [1, 4]] *= 1e-3
    hidden.kernel.assign(kernel)
    frozen = {"epochs": 8, "batch_size": 4, "verbose": 0}
    model.get_layer("head").kernel.assign(np.zeros((8, 3)))  # no gradient reaches the channels at first
    callback = tfprune.ProximalSparsity(tfprune.Structured(0.25), strength=0.05)
    model.fit(inputs, targets, callbacks=[callback], **frozen)
    assert np.flatnonzero(~tfprune.get_masks(model)["hidden/kernel"].any(axis=0)).tolist() == [1, 4]
    assert tfprune.shrink(tfprune.strip_masks(model)).get_layer("hidden").units == 6


def test_the_same_seed_gives_the_same_weights():
    found = []
    for _ in range(2):
        model, inputs, targets = make("dense")
        callback = tfprune.ProximalSparsity(0.5)
        model.fit(inputs, targets, batch_size=4, epochs=3, verbose=0, shuffle=False, callbacks=[callback])
        found.append(model.get_weights())
    for one, other in zip(*found):
        np.testing.assert_array_equal(one, other)


def test_budgets_that_are_shares_are_taken():
    for budget in ("channels", "parameters", "macs"):
        assert tfprune.ProximalSparsity(tfprune.Structured(0.5, budget=budget)).method.budget == budget


class Broken(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        raise KeyboardInterrupt


def test_after_a_run_that_broke_off_nothing_goes_on_shrinking():
    model, inputs, targets = make("dense")
    with pytest.raises(KeyboardInterrupt):
        model.fit(inputs, targets, verbose=0, callbacks=[tfprune.ProximalSparsity(0.5), Broken()])
    model.fit(inputs, targets, verbose=0, callbacks=[tfprune.PercentilePruning(tfprune.OneShot(0.5))])
    assert {type(constraint_of(weight.variable)) for weight in prunable_weights(model)} == {MaskConstraint}


def test_wrong_use_is_told():
    with pytest.raises(PruningError, match="strength=0 is not positive; write strength=0.02"):
        tfprune.ProximalSparsity(0.5, strength=0)
    thresholds = (tfprune.Threshold(0.1), tfprune.Structured(0.1, budget="threshold"))
    for method in (*thresholds, tfprune.Percentile(tfprune.Linear(0.0, 0.5))):
        with pytest.raises(PruningError, match="does not say what share is to go in the end; write Percentile"):
            tfprune.ProximalSparsity(method)
