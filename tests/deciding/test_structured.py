"""Structured pruning: which channels go, by every budget, allocation and criterion, in `fit` and at once."""

import json

import keras
import numpy as np
import pytest

import tfprune
from tfprune.channels import certify, channel_groups, plan_shrink, shrink
from tfprune.deciding import methods
from tfprune.deciding.structured import BUDGETS, Structured
from tfprune.errors import PruningError

layers = keras.layers


def residual_network():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(16, 3, padding="same", name="stem")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    y = layers.Conv2D(16, 3, padding="same", name="branch")(x)
    x = layers.ReLU()(layers.Add()([x, layers.BatchNormalization()(y)]))
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(32, 3, padding="same", name="wide")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="wide_norm")(x))
    x = layers.Dense(24, activation="relu", name="hidden")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Dense(10, name="logits")(x), name="residual")
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([generator.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.fixture(scope="module")
def model():
    return residual_network()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).random((96, 8, 8, 1), "float32"), np.arange(96) % 10


def channels_left(model):
    return {
        layer.name: layer.kernel.shape[-1] for layer in model.layers if isinstance(layer, (layers.Conv2D, layers.Dense))
    }


def smaller(model, method):
    return shrink(tfprune.strip_masks(tfprune.prune(model, method)))


def test_of_ten_kernels_of_size_a_tenth_to_one_those_up_to_a_half_go_and_the_next_layer_shrinks():
    model = keras.Sequential(
        [
            keras.Input((5, 5, 1)),
            layers.Conv2D(10, 1, use_bias=False, name="ten"),
            layers.Flatten(),
            layers.Dense(3, name="next"),
        ]
    )
    sizes = np.arange(1, 11, dtype="float32") / 10
    model.get_layer("ten").set_weights([sizes.reshape(1, 1, 1, 10)])
    method = Structured(0.5, criterion="l1", budget="threshold")
    masks = tfprune.get_masks(tfprune.prune(model, method))
    np.testing.assert_array_equal(masks["ten/kernel"].ravel(), sizes > 0.5)
    small = smaller(model, method)
    np.testing.assert_array_equal(small.get_layer("ten").kernel.numpy().ravel(), sizes[5:])
    # Flatten lays the channels side by side at each of the 25 places.
    expected = model.get_layer("next").kernel.numpy().reshape(25, 10, 3)[:, 5:].reshape(125, 3)
    np.testing.assert_array_equal(small.get_layer("next").kernel.numpy(), expected)


@pytest.mark.parametrize("criterion", ["l1", "l2", "random", "geometric_median", "batch_norm"])
def test_every_criterion_removes_the_exact_number_and_the_smaller_model_is_equal(model, images, criterion):
    method = Structured(0.5, criterion=criterion)
    pruned = tfprune.prune(model, method)
    plain = tfprune.strip_masks(pruned)
    groups = channel_groups(model)
    covered = [name for name in groups.free if criterion != "batch_norm" or name in ("stem", "wide")]
    plan = plan_shrink(model, method)
    removed = sum(int((~vector).sum()) for vector in method.channels_to_keep(model, groups).values())
    assert removed == round(0.5 * sum(groups[name].size for name in covered))
    assert certify(plain, shrink(plain), images[0]).largest < 1e-5
    assert channels_left(shrink(model, plan)) == channels_left(shrink(plain))


def test_masks_cover_everything_that_a_channel_has(model):
    masks = tfprune.get_masks(tfprune.prune(model, Structured(0.5, layers=["wide"])))
    gone = ~masks["wide/bias"]
    assert gone.sum() == 16
    for key in ("wide_norm/gamma", "wide_norm/beta"):
        np.testing.assert_array_equal(masks[key], ~gone)
    np.testing.assert_array_equal(masks["wide/kernel"].any(axis=(0, 1, 2)), ~gone)
    np.testing.assert_array_equal(masks["hidden/kernel"].any(axis=1), ~gone)
    assert masks["hidden/kernel"][~gone].all()


def test_a_residual_sum_loses_the_same_channels_on_both_sides(model):
    masks = tfprune.get_masks(tfprune.prune(model, Structured(0.25, layers=["stem"])))
    np.testing.assert_array_equal(masks["stem/bias"], masks["branch/bias"])
    assert (~masks["stem/bias"]).sum() == 4


@pytest.mark.parametrize("budget", ["parameters", "macs"])
def test_a_budget_is_met_by_the_smaller_model_and_one_channel_less_would_miss_it(model, budget):
    before = getattr(tfprune.summary(model), budget)
    after = getattr(tfprune.summary(smaller(model, Structured(0.5, budget=budget))), budget)
    largest_channel = max(getattr(group, budget) for group in channel_groups(model).values())
    assert 0.5 * before - largest_channel < after <= 0.5 * before


def test_uniform_takes_the_same_share_of_every_group(model):
    assert channels_left(smaller(model, Structured(0.25, allocation="uniform"))) == {
        "stem": 12,
        "branch": 12,
        "wide": 24,
        "hidden": 18,
        "logits": 10,
    }


def test_a_mapping_gives_shares_by_layer(model):
    assert channels_left(smaller(model, Structured(0.5, allocation={"wide": 0.75})))["wide"] == 8
    assert channels_left(smaller(model, Structured(0.5, layers={"hidden": 0.25, "wide": 0.5}))) == {
        "stem": 16,
        "branch": 16,
        "wide": 16,
        "hidden": 18,
        "logits": 10,
    }


@pytest.mark.parametrize("allocation", ["global", "uniform"])
def test_channels_left_are_multiples_of_round_to_and_the_amount_is_reached(model, allocation):
    left = channels_left(smaller(model, Structured(0.3, allocation=allocation, round_to=8)))
    del left["logits"]
    assert all(count % 8 == 0 for count in left.values())
    assert sum(left.values()) - left["branch"] <= 0.7 * (16 + 32 + 24)


def test_min_channels_holds_under_a_lopsided_ranking(model):
    skewed = tfprune.strip_masks(model)
    skewed.get_layer("hidden").set_weights([1e-3 * w for w in skewed.get_layer("hidden").get_weights()])
    spread = skewed.get_layer("wide").get_weights()
    spread[0][..., 1:] *= 1e-3
    skewed.get_layer("wide").set_weights(spread)
    left = channels_left(smaller(skewed, Structured(0.6, min_channels=5)))
    assert left["wide"] == 5
    assert min(left.values()) >= 5


def test_it_fades_channels_out_in_fit_wrapped_or_not_with_equal_masks(images):
    x, y = images
    model = residual_network()
    wrapped = tfprune.wrap(model, Structured(0.5))
    for trained, callback in ((model, tfprune.StructuredPruning(0.5)), (wrapped, tfprune.UpdateMasks())):
        keras.utils.set_random_seed(5)
        history = trained.fit(x, y, epochs=3, batch_size=16, verbose=0, shuffle=False, callbacks=[callback])
        assert sorted(history.history["sparsity"]) == history.history["sparsity"]
    masks, masks_of_wrapped = tfprune.get_masks(model), tfprune.get_masks(wrapped)
    assert masks.keys() == masks_of_wrapped.keys()
    for key, mask in masks.items():
        np.testing.assert_array_equal(mask, masks_of_wrapped[key])
    plain = tfprune.strip_masks(model)
    small = shrink(plain)
    assert sum(channels_left(small).values()) - channels_left(small)["branch"] - 10 == 72 // 2
    assert certify(plain, small, x).largest < 1e-5
    small.fit(x, y, epochs=1, verbose=0)  # goes on training, compiled as before


def test_a_resumed_run_sees_removed_channels_and_leaves_zero_biases_alone(images):
    x, y = images
    model = residual_network()
    callback = tfprune.StructuredPruning(tfprune.OneShot(0.5, at=0))
    model.fit(x, y, epochs=1, batch_size=32, verbose=0, callbacks=[callback])
    masks = tfprune.get_masks(model)
    resumed = tfprune.strip_masks(model)
    resumed.optimizer.learning_rate = 0.0
    resumed.get_layer("wide").bias.assign(np.zeros(32))
    resumed.fit(
        x,
        y,
        initial_epoch=1,
        epochs=2,
        batch_size=32,
        verbose=0,
        callbacks=[tfprune.StructuredPruning(tfprune.OneShot(0.5, at=0))],
    )
    for key, mask in tfprune.get_masks(resumed).items():
        np.testing.assert_array_equal(mask, masks[key])


@pytest.mark.parametrize("budget", BUDGETS)
def test_it_survives_json(budget):
    method = Structured(
        tfprune.Linear(0.0, 0.4, begin=0.1), criterion="l1", budget=budget, round_to=8, min_channels=2, layers=["wide"]
    )
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(method)))
    assert methods.get(config) == method


def test_the_given_model_is_left_alone(model):
    before = [weight.copy() for weight in model.get_weights()]
    tfprune.prune(model, Structured(0.5))
    plan_shrink(model, Structured(0.5))
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"amount": 1.0}, r"1\.0 is no share of channels in \[0, 1\); write 0\.5 for half"),
        ({"amount": -0.1}, r"-0\.1 is no share"),
        ({"amount": -1.0, "budget": "threshold"}, r"-1\.0 is no threshold"),
        ({"amount": 0.5, "budget": "mac"}, "there is no budget 'mac'. Did you mean 'macs'"),
        ({"amount": 0.5, "allocation": "lamp"}, "there is no allocation 'lamp'; give one of 'global', 'uniform'"),
        ({"amount": 0.5, "round_to": 0}, "round_to=0 is no number of channels"),
        ({"amount": 0.5, "min_channels": 1.5}, r"min_channels=1\.5 is no number of channels"),
        ({"amount": 0.5, "budget": "macs", "layers": {"a": 0.5}}, "shares by layer count channels"),
        ({"amount": 0.5, "allocation": {"a": 1.5}}, r"1\.5 is no share of channels"),
    ],
)
def test_bad_arguments_are_told_when_the_method_is_made(arguments, told):
    with pytest.raises(PruningError, match=told):
        Structured(**arguments)


def test_an_amount_out_of_reach_says_how_much_can_go(model):
    with pytest.raises(PruningError, match=r"asks to remove 65 channels.*min_channels=8.*at most 48 can go"):
        tfprune.prune(model, Structured(0.9, min_channels=8))


def test_a_model_whose_channels_must_all_stay_says_why():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="only")], name="short")
    with pytest.raises(PruningError, match="'short' has no channels.*they are the outputs of the model"):
        tfprune.prune(model, Structured(0.5))


def test_batch_norm_scores_need_a_batch_norm():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6), layers.Dense(3)])
    with pytest.raises(PruningError, match="reads the gamma of a batch norm, and they have none"):
        tfprune.prune(model, Structured(0.5, criterion="batch_norm"))


def test_unknown_names_get_the_nearest(model):
    with pytest.raises(PruningError, match="Did you mean 'wide'"):
        tfprune.prune(model, Structured(0.5, layers=["wid"]))
    with pytest.raises(PruningError, match="allocation names 'hiden'.*Did you mean 'hidden'"):
        tfprune.prune(model, Structured(0.5, allocation={"hiden": 0.5}))


def test_hierarchical_empties_the_last_groups_first(model):
    left = channels_left(smaller(model, Structured(0.5, allocation="hierarchical", min_channels=4)))
    assert left == {"stem": 16, "branch": 16, "wide": 16, "hidden": 4, "logits": 10}  # 36 of 72: 20 and 16


@pytest.mark.parametrize(
    "criterion",
    ["gradient_norm", "taylor", "normalized_sensitivity", "fisher", "hessian", "snip", "grasp", "synflow", "wanda"]
    + ["activation", "normalized_magnitude"],
)
def test_criteria_from_data_choose_channels_at_once_and_in_a_plan(model, images, criterion):
    method = Structured(0.5, criterion=criterion)
    pruned = tfprune.prune(model, method, images)
    plan = plan_shrink(model, method, images)
    assert channels_left(shrink(model, plan)) == channels_left(shrink(tfprune.strip_masks(pruned)))
    assert (~tfprune.get_masks(pruned)["wide/bias"]).sum() > 0


def test_a_criterion_for_layers_that_make_channels_leaves_those_that_only_listen_out():
    inputs = keras.Input((6, 4))
    hidden = layers.Dense(8, name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.LSTM(5, name="lstm")(hidden)))
    data = np.random.default_rng(0).random((8, 6, 4), "float32")
    pruned = tfprune.prune(model, Structured(0.5, criterion="wanda", layers="hidden"), data)
    assert (~tfprune.get_masks(pruned)["hidden/kernel"].any(axis=0)).sum() == 4


def test_a_falling_schedule_does_not_overshoot_the_shares_of_layers(model):
    falling = tfprune.Linear(0.9, 0.3, begin=0, end=10)
    bound = Structured(falling, layers={"hidden": 0.5, "wide": 0.25}).bind(model)
    for step in (0, 5, 10):
        lost = {name: int((~kept).sum()) for name, kept in bound.keep(falling(step)).items()}
        assert sorted(lost.values()) == [8, 12]  # a quarter of 32 and half of 24, never more


def test_shares_by_layer_need_an_amount_that_says_where_it_ends():
    with pytest.raises(PruningError, match=r"layers gives amounts by layer \('hidden'\), but .* write a schedule with"):
        Structured(lambda step: 0.5, layers={"hidden": 0.5})
