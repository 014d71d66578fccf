"""Amounts by what the model's outputs lose: `Structured(..., allocation="outputs")`."""

import keras
import numpy as np
import pytest
from channel_checks import randomise
from keras import layers

import tfprune
from tfprune import PruningError, Structured, prune
from tfprune.model.data import Batch
from tfprune.oneshot.repair.channel_choice import choose_channels
from tfprune.oneshot.repair.output_losses import ModelOutputs, increases

WORDS = np.random.default_rng(0).normal(size=(60, 5, 6)).astype("float32")
DATA = np.random.default_rng(1).normal(size=(100, 6)).astype("float32")


def quiet(*kernels):
    """Lets these kernels hardly say anything."""
    for kernel in kernels:
        kernel.assign(0.01 * kernel)


@pytest.fixture(scope="module")
def model():
    """Two residual blocks, the second of which hardly says anything."""
    x = inputs = keras.Input((6,))
    x = layers.Dense(8, name="stem")(x)
    for block in range(2):
        y = layers.Dense(12, activation="tanh", name=f"hidden{block}")(x)
        x = layers.Add()([x, layers.Dense(8, name=f"out{block}")(y)])
    model = randomise(keras.Model(inputs, layers.Dense(3, name="classes")(x)))
    quiet(model.get_layer("out1").kernel)
    return model


@pytest.fixture(scope="module")
def transformer():
    """Two blocks of attention and an MLP, the second of which hardly says anything."""
    x = inputs = keras.Input((5, 6))
    x = layers.Dense(16, name="stem")(x)
    for block in range(2):
        x = layers.Add()([x, layers.MultiHeadAttention(4, 4, name=f"attention{block}")(x, x)])
        y = layers.Dense(12, activation="tanh", name=f"hidden{block}")(x)
        x = layers.Add()([x, layers.Dense(16, name=f"out{block}")(y)])
    model = randomise(keras.Model(inputs, layers.Dense(3, name="classes")(x)))
    quiet(model.get_layer("attention1").output_dense.kernel, model.get_layer("out1").kernel)
    return model


def chosen(model, method, data):
    return choose_channels(method.bind(model), method.final, model, [Batch(data)])


def lost(masks, *keys):
    """How many of their last axis the masks of these weights remove, one after another."""
    return [int((~masks[key].any(axis=tuple(range(masks[key].ndim - 1)))).sum()) for key in keys]


def test_blocks_that_outputs_hardly_need_give_more_and_each_unit_its_share(transformer):
    names = ["attention0/heads", "attention1/heads", "hidden0", "hidden1"]
    masks = chosen(transformer, Structured(0.5, allocation="outputs", layers=names), WORDS)
    heads = [masks[f"attention{block}/attention_output/kernel"].any(axis=(1, 2)) for block in range(2)]
    assert [np.count_nonzero(~kept) for kept in heads] == [1, 3]  # 4 of 8 heads, one of each block stays
    assert lost(masks, "hidden0/kernel", "hidden1/kernel") == [1, 11]


def test_groups_that_no_product_listens_to_are_measured_without_repair(transformer):
    method = Structured(0.5, allocation="outputs", layers=["attention0/key_dim", "attention1/key_dim"])
    assert lost(chosen(transformer, method, WORDS), "attention0/query/kernel", "attention1/query/kernel") == [1, 3]


def test_it_loses_less_than_even_shares_and_leaves_the_model_alone(model):
    before, dense = [weight.copy() for weight in model.get_weights()], model.predict(DATA, verbose=0)
    masks, errors = [], []
    for allocation in ("outputs", "uniform"):
        method = Structured(0.5, allocation=allocation, layers=["hidden0", "hidden1"])
        pruned = prune(model, method, DATA, reconstruct=True, verbose=0)
        masks.append(tfprune.get_masks(pruned))
        errors.append(np.mean(np.square(pruned.predict(DATA, verbose=0) - dense)))
    assert errors[0] < 0.5 * errors[1]
    assert [lost(each, "hidden0/kernel", "hidden1/kernel") for each in masks] == [[1, 11], [6, 6]]
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("budget", ["parameters", "macs"])
def test_a_budget_is_met_by_what_is_cheapest_for_the_outputs(model, budget):
    method = Structured(0.2, allocation="outputs", budget=budget, layers=["hidden0", "hidden1"], round_to=2)
    bound = method.bind(model)
    masks = choose_channels(bound, 0.2, model, [Batch(DATA)])
    first, second = lost(masks, "hidden0/kernel", "hidden1/kernel")
    assert first < second
    assert first % 2 == second % 2 == 0
    biases = 1 if budget == "parameters" else 0
    whole = 6 * 8 + 4 * 8 * 12 + 8 * 3 + biases * (8 + 12 + 8 + 12 + 8 + 3)
    saved = 8 + biases + 8  # by one channel
    assert (first + second) * saved >= 0.2 * whole > (first + second - 2) * saved


def test_channels_that_are_gone_stay_gone_and_count(model):
    masked = prune(model, Structured(0.5, layers={"hidden0": 0.5}), verbose=0)
    gone = ~tfprune.get_masks(masked)["hidden0/bias"]
    bound = Structured(0.5, allocation="outputs", layers=["hidden0", "hidden1"]).bind(model)
    masks = choose_channels(bound, 0.5, tfprune.strip_masks(masked), [Batch(DATA)], tfprune.get_masks(masked))
    assert not masks["hidden0/bias"][gone].any()
    assert lost(masks, "hidden0/kernel", "hidden1/kernel") == [6, 6]


def test_channels_that_a_layer_hears_and_makes_are_gone_from_both_sides_of_it():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    x = layers.Add()([x, layers.Conv2D(8, 3, padding="same", activation="relu", name="both")(x)])
    model = keras.Model(inputs, layers.Dense(4, name="head")(layers.GlobalAveragePooling2D()(x)))
    images = np.random.default_rng(1).normal(size=(40, 4, 4, 3)).astype("float32")
    mask = chosen(model, Structured(0.5, allocation="outputs"), images)["both/kernel"]
    np.testing.assert_array_equal(mask.any(axis=(0, 1, 2)), mask.any(axis=(0, 1, 3)))
    assert mask.any(axis=(0, 1, 2)).sum() == 4


def test_errors_of_the_outputs_are_shares_of_their_variance_and_weights_come_back():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, use_bias=False)])
    kernel = model.layers[0].kernel
    kernel.assign([[1.0], [2.0]])
    x = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], "float32")  # gives 1, -1, 2, -2
    outputs = ModelOutputs(model, [Batch(x[:2]), Batch(x[2:])])
    assert outputs.error([]) == 0.0
    assert outputs.error([(kernel, np.array([[0.0], [2.0]]))]) == pytest.approx(2 / 10)
    assert outputs.error([(kernel, np.array([[1.0], [1.0]])), (kernel, np.array([[0.0], [0.0]]))]) == pytest.approx(1)
    np.testing.assert_array_equal(kernel.numpy(), [[1.0], [2.0]])


def test_the_increases_are_the_slopes_of_a_convex_line_that_never_falls():
    found = increases({3: 0.4, 4: 0.2, 6: 1.2}, gone=2, size=8)
    np.testing.assert_allclose(found, [-np.inf, -np.inf, 0.2, 0.2, 0.4, 0.4, np.inf, np.inf], rtol=1e-12)


@pytest.mark.parametrize("reconstruct", [None, "least_squares"])
def test_without_the_repair_that_measures_it_the_way_out_is_told(model, reconstruct):
    with pytest.raises(PruningError, match=r"reconstruct=True\) alone measures. Write so, or allocation='global'"):
        prune(model, Structured(0.5, allocation="outputs"), DATA, reconstruct=reconstruct, verbose=0)


def test_a_plan_and_a_fit_refuse_it_before_they_begin(model):
    method = Structured(0.5, allocation="outputs")
    with pytest.raises(PruningError, match='allocation="outputs" goes by what the outputs'):
        tfprune.plan_shrink(model, method, DATA)
    copy = keras.models.clone_model(model)
    copy.compile("sgd", "mse")
    with pytest.raises(PruningError, match='allocation="outputs" goes by what the outputs'):
        copy.fit(DATA[:8], np.zeros((8, 3)), verbose=0, callbacks=[tfprune.PruningCallback(method)])
    assert int(copy.optimizer.iterations.numpy()) == 0
