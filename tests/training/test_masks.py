import keras
import numpy as np
import pytest
from keras import layers
from tiny_models import MODELS, make, numbers

import tfprune
from tfprune.errors import PruningError
from tfprune.training.masks import MaskConstraint, constraint_of


def value(variable):
    return keras.ops.convert_to_tensor(variable).numpy()


def kernel_model(**arguments):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, name="dense", **arguments)])
    model.compile("sgd", "mse", jit_compile=False)
    return model


def test_a_constraint_keeps_what_its_mask_keeps_and_gives_plain_zeros():
    mask = keras.Variable(np.array([True, False, True, False]), dtype="bool", trainable=False)
    held = value(MaskConstraint(mask)(keras.ops.convert_to_tensor([1.5, -2.0, -0.5, np.inf])))
    np.testing.assert_array_equal(held, [1.5, 0.0, -0.5, 0.0])
    assert not np.signbit(held[[1, 3]]).any()


def test_the_users_constraint_sees_the_weight_with_its_zeros():
    mask = keras.Variable(np.array([[True], [False], [True]]), dtype="bool", trainable=False)
    held = value(MaskConstraint(mask, keras.constraints.UnitNorm())(keras.ops.convert_to_tensor([[3.0], [9.0], [4.0]])))
    np.testing.assert_allclose(held, [[0.6], [0.0], [0.8]], rtol=1e-6)  # UnitNorm adds an epsilon to the norm


def test_masks_of_a_dense_model_are_none_and_of_zeros_their_places():
    model = kernel_model()
    assert tfprune.get_masks(model) == {}
    model.layers[0].kernel.assign([[1.0, 0.0, 2.0], [0.0, 0.0, -1.0]])
    masks = tfprune.get_masks(model)
    assert list(masks) == ["dense/kernel"]
    np.testing.assert_array_equal(masks["dense/kernel"], [[True, False, True], [False, False, True]])


def test_masks_are_read_for_the_layers_asked_for():
    model, _, _ = make("nested")
    pruned = tfprune.prune(model, 0.5)
    assert list(tfprune.get_masks(pruned, layers="head")) == ["head/kernel"]
    assert list(tfprune.get_masks(pruned, layers="backbone")) == [
        "backbone/dense/kernel",
        "backbone/inner/dense/kernel",
    ]


@pytest.mark.parametrize("name", MODELS)
def test_masks_go_over_to_another_model_and_hold_there(name):
    model, inputs, targets = make(name)
    model.fit(inputs, targets, batch_size=2, verbose=0, callbacks=[tfprune.PercentilePruning(0.5)])
    masks = tfprune.get_masks(model)
    assert masks
    other, _, _ = make(name, seed=1)
    assert tfprune.apply_masks(other, masks) is other
    other.fit(inputs, targets, batch_size=2, verbose=0)
    found = tfprune.get_masks(tfprune.strip_masks(other))
    assert list(found) == [key for key in masks if not masks[key].all()]
    for key, mask in found.items():
        np.testing.assert_array_equal(mask, masks[key], err_msg=key)


def test_masks_go_over_between_a_plain_and_a_wrapped_model():
    model, inputs, targets = make("dense")
    masks = tfprune.get_masks(tfprune.prune(model, tfprune.Percentile(0.5, allocation="uniform")))
    wrapped = tfprune.apply_masks(tfprune.wrap(model, 0.9), masks)
    wrapped.fit(inputs, targets, verbose=0)  # decided: no callback is asked for
    for key, mask in tfprune.get_masks(wrapped).items():
        np.testing.assert_array_equal(mask, masks[key])


def test_masks_of_ones_and_zeros_and_of_biases_are_taken():
    model = kernel_model(bias_initializer="ones")
    tfprune.apply_masks(model, {"dense/bias": [1, 0, 1], "dense/kernel": np.array([[1, 0, 1], [0, 1, 1]], np.float32)})
    np.testing.assert_array_equal(value(model.layers[0].bias), [1, 0, 1])
    assert np.count_nonzero(value(model.layers[0].kernel) == 0) == 2


def test_masks_that_are_applied_again_replace_the_first():
    model = kernel_model()
    first = constraint_of(tfprune.apply_masks(model, {"dense/kernel": np.eye(2, 3, dtype=bool)}).layers[0].kernel)
    tfprune.apply_masks(model, {"dense/kernel": ~np.eye(2, 3, dtype=bool)})
    assert constraint_of(model.layers[0].kernel) is first
    assert not value(model.layers[0].kernel).any()


def test_a_step_that_was_compiled_before_keeps_masks_that_came_after():
    model = kernel_model()
    inputs, targets = numbers(4, 2), numbers(4, 3)
    model.train_on_batch(inputs, targets)
    tfprune.apply_masks(model, {"dense/kernel": np.eye(2, 3, dtype=bool)})
    model.train_on_batch(inputs, targets)
    np.testing.assert_array_equal(value(model.layers[0].kernel) != 0, np.eye(2, 3, dtype=bool))


GOOD = np.eye(2, 3, dtype=bool)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (
            {"dense/kernel": GOOD, "dense/kernl": GOOD},
            "has no weight 'dense/kernl' for its mask. Did you mean 'dense/kernel'",
        ),
        ({"dense/kernel": GOOD, "dense/bias": GOOD}, r"mask for 'dense/bias' has shape \(2, 3\), the weight \(3,\)"),
        (
            {"dense/bias": [True] * 3, "dense/kernel": GOOD * 0.5},
            "mask for 'dense/kernel' holds other values than True",
        ),
    ],
)
def test_masks_that_do_not_fit_change_nothing(masks, message):
    model = kernel_model()
    before = [value(variable) for variable in model.weights]
    with pytest.raises(PruningError, match=message):
        tfprune.apply_masks(model, masks)
    for now, then in zip(model.weights, before):
        np.testing.assert_array_equal(value(now), then)
    assert all(constraint_of(variable) is None for variable in model.weights)


@pytest.mark.parametrize(
    "function", [tfprune.get_masks, lambda model: tfprune.apply_masks(model, {}), tfprune.strip_masks]
)
def test_what_is_no_built_model_is_refused(function):
    with pytest.raises(PruningError, match=r"it is not built yet, so it has no weights"):
        function(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(PruningError, match=r"Cannot .* dict: give a keras\.Model"):
        function({})
