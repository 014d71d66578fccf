"""The choice of channels by what the layers that listen to them lose."""

import keras
import numpy as np
import pytest
import tiny_models

import tfprune
from tfprune import Structured, prune
from tfprune.oneshot.repair import channel_choice
from tfprune.oneshot.repair.channel_choice import Listener

L = keras.layers
IMAGES = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")


def least_squares_error(features, wanted):
    values = np.linalg.lstsq(features, wanted, rcond=None)[0]
    return np.sum(np.square(wanted - features @ values)) / len(features)


def test_a_loss_is_the_error_that_the_best_fit_without_the_channel_leaves(monkeypatch):
    monkeypatch.setattr(channel_choice, "RIDGE", 0.0)
    generator = np.random.default_rng(1)
    features = generator.normal(size=(4000, 6)) @ generator.normal(size=(6, 6))
    matrix = generator.normal(size=(6, 3))
    channels = np.array([0, 1, 0, -1, 2, 1])
    listener = Listener(channels, features.T @ features / 4000, matrix, rows=4000)
    for kept in (np.array([True, True, True]), np.array([True, False, True])):
        losses = listener.losses(kept)
        there = (channels < 0) | kept[channels]
        before = least_squares_error(features[:, there], features @ matrix)
        for channel in np.flatnonzero(kept):
            error = least_squares_error(features[:, there & (channels != channel)], features @ matrix)
            assert losses[channel] == pytest.approx(error - before, rel=1e-6)
        assert (losses[~kept] == 0).all()


def test_with_few_rows_nothing_is_made_up_for():
    matrix = np.array([[1.0], [2.0], [0.5]])
    moment = np.array([[2.0, 1.9, 0.0], [1.9, 2.0, 0.0], [0.0, 0.0, 4.0]])
    listener = Listener(np.array([0, 1, 2]), moment, matrix, rows=11)
    assert listener.losses(np.ones(3, bool)).tolist() == [2.0, 8.0, 1.0]


def with_copies():
    """A network whose first layer makes two channels twice, all of them larger than its other two."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            L.Conv2D(6, 3, activation="relu", name="copies"),
            L.Conv2D(4, 3, activation="relu", name="listener"),
            L.GlobalAveragePooling2D(),
            L.Dense(3, name="head"),
        ]
    )
    kernel, bias = model.get_layer("copies").get_weights()
    kernel[..., [4, 5]] = 3.0 * kernel[..., [0, 1]]
    kernel[..., [2, 3]] *= 0.5
    model.get_layer("copies").set_weights([kernel, bias])
    return model


def test_what_another_channel_says_already_goes_first_and_nothing_is_lost():
    keras.utils.set_random_seed(1)
    model = with_copies()
    method = Structured(0.33, layers=["copies"])
    chosen = prune(model, method, IMAGES, reconstruct="obs")
    kept = tfprune.get_masks(chosen)["copies/kernel"].any(axis=(0, 1, 2))
    assert kept[[2, 3]].all()  # the smallest, which say what no other does
    assert (kept[[0, 1]] ^ kept[[4, 5]]).all()
    by_size = prune(model, method, IMAGES, reconstruct="least_squares")
    assert not tfprune.get_masks(by_size)["copies/kernel"].any(axis=(0, 1, 2))[[2, 3]].any()
    wanted = model.predict(IMAGES, verbose=0)
    scale = np.std(wanted)
    assert np.max(np.abs(chosen.predict(IMAGES, verbose=0) - wanted)) < 0.05 * scale
    assert np.max(np.abs(by_size.predict(IMAGES, verbose=0) - wanted)) > 0.05 * scale


@pytest.mark.filterwarnings("ignore:tfprune. pruned but not repaired")
@pytest.mark.parametrize("name", ["convolutional", "one_dimensional", "nested", "dense"])
def test_every_group_loses_as_many_as_the_method_says(name):
    model, data, _ = tiny_models.make(name)
    method = Structured(0.4, min_channels=2)
    masks = [tfprune.get_masks(prune(model, method, data, reconstruct=way)) for way in ("least_squares", "obs")]
    assert masks[0].keys() == masks[1].keys()
    for key, mask in masks[0].items():
        assert np.count_nonzero(mask) == np.count_nonzero(masks[1][key])


def test_the_same_data_choose_the_same_and_the_result_shrinks():
    keras.utils.set_random_seed(2)
    model = with_copies()
    found = [prune(model, Structured(0.4), IMAGES, reconstruct="obs") for _ in range(2)]
    for one, other in zip(found[0].get_weights(), found[1].get_weights()):
        np.testing.assert_array_equal(one, other)
    small = tfprune.shrink(tfprune.strip_masks(found[0]))
    assert small.count_params() < 0.7 * model.count_params()
    np.testing.assert_allclose(
        small.predict(IMAGES, verbose=0), found[0].predict(IMAGES, verbose=0), rtol=1e-4, atol=1e-5
    )


def test_batches_that_can_be_read_once_choose_the_same():
    keras.utils.set_random_seed(2)
    model = with_copies()
    once = prune(model, Structured(0.4), iter([IMAGES[:32], IMAGES[32:]]), reconstruct=True)
    often = prune(model, Structured(0.4), IMAGES, reconstruct=True)
    for key, mask in tfprune.get_masks(often).items():
        np.testing.assert_array_equal(tfprune.get_masks(once)[key], mask)


def test_what_is_removed_already_stays_removed():
    keras.utils.set_random_seed(3)
    model = with_copies()
    before = prune(model, Structured(0.33, layers=["copies"]))
    gone = ~tfprune.get_masks(before)["copies/kernel"].any(axis=(0, 1, 2))
    after = prune(tfprune.strip_masks(before), Structured(0.67, layers=["copies"]), IMAGES, reconstruct="obs")
    kept = tfprune.get_masks(after)["copies/kernel"].any(axis=(0, 1, 2))
    assert not kept[gone].any()
    assert np.count_nonzero(kept) == 2


def test_a_layer_of_many_features_is_looked_at_in_parts(monkeypatch):
    keras.utils.set_random_seed(4)
    model = with_copies()
    whole = tfprune.get_masks(prune(model, Structured(0.33, layers=["copies"]), IMAGES, reconstruct="obs"))
    monkeypatch.setattr(channel_choice, "FEATURES", 20)  # two channels of 3 x 3
    parts = tfprune.get_masks(prune(model, Structured(0.33, layers=["copies"]), IMAGES, reconstruct="obs"))
    assert {key: np.count_nonzero(mask) for key, mask in parts.items()} == {
        key: np.count_nonzero(mask) for key, mask in whole.items()
    }
