"""Plans: printed, edited, saved, bound to their model; what they refuse."""

import json

import keras
import numpy as np
import pytest
from channel_checks import RandomChannels, masked_copy, randomise
from keras import layers

import tfprune
from tfprune.channels import Reason, Role, ShrinkPlan, channel_groups, plan_shrink, shrink
from tfprune.errors import PruningError


def residual_net(width=8):
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(width, 3, padding="same", name="conv1")(x)
    x = layers.BatchNormalization(name="bn1")(x)
    y = layers.Conv2D(6, 3, padding="same", name="conv2", activation="relu")(x)
    y = layers.Conv2D(width, 3, padding="same", name="conv3")(y)
    x = layers.Add(name="add")([x, y])
    x = layers.GlobalAveragePooling2D()(x)
    return randomise(keras.Model(inputs, layers.Dense(4, name="head")(x), name="net"))


@pytest.fixture(scope="module")
def net():
    return residual_net()


@pytest.fixture
def plan(net):
    return plan_shrink(net, RandomChannels())


def test_a_group_lists_every_weight_that_its_channels_lie_on(net):
    groups = channel_groups(net)
    assert list(groups) == ["conv1", "conv2", "head"]
    members = {(m.key, m.axis, m.role): m.positions for m in groups["conv1"].members}
    assert {(key, axis): role for key, axis, role in members} == {
        ("conv1/kernel", 3): Role.OUTPUT,
        ("conv1/bias", 0): Role.BIAS,
        ("bn1/gamma", 0): Role.SCALE,
        ("bn1/beta", 0): Role.SCALE,
        ("bn1/moving_mean", 0): Role.STATISTIC,
        ("bn1/moving_variance", 0): Role.STATISTIC,
        ("conv2/kernel", 2): Role.INPUT,
        ("conv3/kernel", 3): Role.OUTPUT,
        ("conv3/bias", 0): Role.BIAS,
        ("head/kernel", 0): Role.INPUT,
    }
    for positions in members.values():
        np.testing.assert_array_equal(positions, np.arange(8)[:, None])


def test_a_flattened_channel_has_several_entries(net):
    x = keras.Input((4, 4, 1))
    y = layers.Flatten()(layers.Conv2D(3, 3, name="conv")(x))
    groups = channel_groups(keras.Model(x, layers.Dense(2, name="head")(y)))
    member = next(m for m in groups["conv"].members if m.role is Role.INPUT)
    np.testing.assert_array_equal(member.positions, [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]])


def test_costs_of_one_channel_are_those_of_its_slices(net):
    group = channel_groups(net)["conv2"]
    assert group.parameters == 9 * 8 + 1 + 9 * 8  # a filter, its bias, and the slices that listen
    assert group.macs == 64 * (9 * 8 + 9 * 8)


def test_masks_lie_on_the_whole_group(net):
    keep = np.array([True] * 5 + [False])
    masks = channel_groups(net).masks({"conv2": keep})
    assert set(masks) == {"conv2/kernel", "conv2/bias", "conv3/kernel"}
    np.testing.assert_array_equal(masks["conv2/bias"], keep)
    np.testing.assert_array_equal(masks["conv2/kernel"].all((0, 1, 2)), keep)
    np.testing.assert_array_equal(masks["conv3/kernel"].any((0, 1, 3)), keep)


def test_moving_averages_are_not_masked(net):
    masks = channel_groups(net).masks({"conv1": np.arange(8) > 0})
    assert {"bn1/gamma", "bn1/beta"} <= set(masks) and not any("moving" in key for key in masks)


def test_the_plan_prints_what_goes_what_stays_and_why(net, plan):
    rows = {row["group"]: row for row in plan.rows()}
    assert (rows["conv1"]["kept"], rows["conv1"]["channels"], rows["conv1"]["why"]) == (6, 8, "chosen")
    assert rows["conv2"]["parameters"] == 2 * channel_groups(net)["conv2"].parameters
    assert rows["head"]["why"] == "kept, 'head': they are the outputs of the model"
    assert "conv3/kernel" in rows["conv1"]["members"]
    assert "they are the outputs of the model" in str(plan).replace("\n", " ") or "outputs" in str(plan)
    assert "| conv1 | 6 | 8 |" in plan.to_markdown()


def test_a_plan_is_edited_by_indices_or_booleans(net, plan):
    plan.keep("conv2", [0, 1, 2])
    np.testing.assert_array_equal(plan["conv2"], [True, True, True, False, False, False])
    plan.remove("conv1", [7])
    plan["conv1"] = plan["conv1"] & (np.arange(8) != 0)
    small = shrink(net, plan.keep("conv2"))
    assert small.get_layer("conv1").filters == 6
    assert small.get_layer("conv2").filters == 6
    assert {row["group"]: row["why"] for row in plan.rows()}["conv1"] == "edited"


def test_a_plan_survives_json(net, plan, tmp_path):
    path = tmp_path / "plan.json"
    text = plan.to_json(path)
    for source in (path, str(path), text):
        again = ShrinkPlan.from_json(source)
        assert again.rows() == plan.rows() and again.fingerprint == plan.fingerprint
    small, same = shrink(net, plan), shrink(net, ShrinkPlan.from_json(path))
    for one, other in zip(small.get_weights(), same.get_weights()):
        np.testing.assert_array_equal(one, other)


def test_a_plan_edited_in_its_file_is_read_as_edited(net, plan, tmp_path):
    data = json.loads(plan.to_json())
    data["kept"]["conv2"] = [1, 4]
    assert shrink(net, ShrinkPlan.from_json(json.dumps(data))).get_layer("conv2").filters == 2


def test_zeros_of_whole_groups_are_found(net, plan):
    found = plan_shrink(masked_copy(net, plan))
    for name, keep in plan.items():
        np.testing.assert_array_equal(found[name], keep)
    assert {row["group"]: row["why"] for row in found.rows()}["conv1"] == "dead"


def test_a_channel_nobody_listens_to_is_dead_whatever_it_says():
    model = residual_net()
    kernel = np.array(model.get_layer("conv3").kernel)
    kernel[:, :, 2] = 0.0
    model.get_layer("conv3").kernel.assign(kernel)
    np.testing.assert_array_equal(plan_shrink(model)["conv2"], np.arange(6) != 2)


def test_a_channel_that_says_nothing_is_dead_whoever_listens():
    model = residual_net()
    layer = model.get_layer("conv2")
    kernel, bias = np.array(layer.kernel), np.array(layer.bias)
    kernel[..., 4] = 0.0
    bias[4] = -1.0  # relu makes zero of it
    layer.kernel.assign(kernel)
    layer.bias.assign(bias)
    plan = plan_shrink(model)
    np.testing.assert_array_equal(plan["conv2"], np.arange(6) != 4)
    assert tfprune.certify(model, shrink(model)).exactness.name == "EXACT"
    assert not plan.folds


def constant_net(padding):
    x = inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(6, 3, name="conv1", use_bias=False)(x)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.Activation("sigmoid")(x)
    x = layers.Conv2D(5, 3, padding=padding, name="conv2")(x)
    model = randomise(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x))))
    gamma = np.array(model.get_layer("bn").gamma)
    gamma[1] = 0.0  # beta stays: the channel is a constant
    model.get_layer("bn").gamma.assign(gamma)
    return model


def test_a_constant_channel_moves_into_the_next_bias():
    model = constant_net("valid")
    plan = plan_shrink(model)
    np.testing.assert_array_equal(plan["conv1"], np.arange(6) != 1)
    assert plan.folds == ["conv1"] and "A constant moves" in str(plan)
    small = shrink(model)
    certificate = tfprune.certify(model, small)
    assert certificate.largest < 1e-5 and certificate.exactness.name == "FOLDED"
    assert not np.array_equal(small.get_layer("conv2").bias, model.get_layer("conv2").bias)


def test_a_constant_heard_by_a_shared_layer_stays():
    x = inputs = keras.Input((4,))
    first, shared = layers.Dense(5, name="first"), layers.Dense(5, name="shared")
    y = shared(layers.Activation("sigmoid")(first(x)))
    model = randomise(keras.Model(inputs, layers.Dense(2)(shared(layers.Activation("sigmoid")(y)))))
    kernel = np.array(first.kernel)
    kernel[:, 3] = 0.0
    first.kernel.assign(kernel)
    assert plan_shrink(model)["first"].all()


def test_a_constant_beside_zero_padding_stays():
    plan = plan_shrink(constant_net("same"))
    assert plan["conv1"].all()
    assert {row["group"]: row["why"] for row in plan.rows()}["conv1"] == "kept, none is dead"


def test_a_layer_that_is_all_zeros_keeps_one_channel():
    model = residual_net()
    for weight in model.get_layer("conv2").weights:
        weight.assign(np.zeros(weight.shape))
    plan = plan_shrink(model)
    assert plan["conv2"].sum() == 1
    assert tfprune.certify(model, shrink(model)).largest < 1e-5


def test_groups_within_one_layer_are_told_apart_by_their_range():
    x = inputs = keras.Input((4,))
    left, right = layers.Dense(3, name="left")(x), layers.Dense(5, name="right")(x)
    y = layers.Add()([layers.Concatenate()([left, right]), layers.Dense(8, name="both")(x)])
    groups = channel_groups(keras.Model(inputs, layers.Dense(2, name="head")(y)))
    assert {name: group.size for name, group in groups.items()} == {"left": 3, "right": 5, "head": 2}
    assert groups.of_layer("both") == ["left", "right"]
    positions = {m.key: m.positions for m in groups["right"].members if m.role is Role.OUTPUT}
    np.testing.assert_array_equal(positions["both/kernel"].ravel(), np.arange(3, 8))


def test_groups_print_as_a_table_with_reasons(net):
    groups = channel_groups(net)
    text = str(groups)
    assert "14 of 18 channels can be removed." in text
    assert groups.rows()[-1]["reason"] == "MODEL_OUTPUT"
    assert set(groups.free) == {"conv1", "conv2"}


def test_methods_choose_channels(net):
    plan = plan_shrink(net, tfprune.Structured(0.5, allocation="uniform"))
    assert (plan["conv1"].sum(), plan["conv2"].sum()) == (4, 3)


# What is refused


def test_a_plan_for_another_model_is_refused(plan):
    with pytest.raises(PruningError, match=r"made for another model \('net'\), or 'net' has changed since"):
        shrink(residual_net(width=10), plan)


def test_a_plan_that_empties_a_group_is_refused(plan):
    with pytest.raises(PruningError, match="Group 'conv2' would lose all of its 6 channels; keep at least one"):
        plan.keep("conv2", [])


def test_an_edit_that_splits_a_group_names_the_group(plan):
    with pytest.raises(PruningError, match=r"'conv3' has no group of its own: .* in group 'conv1'. Edit that group"):
        plan.remove("conv3", [0])


def test_an_edit_by_an_unknown_name_gives_the_nearest(plan):
    with pytest.raises(PruningError, match=r"'conv' is no channel group of 'net'. Did you mean 'conv\d'"):
        plan.keep("conv", [0])


def test_an_edit_of_frozen_channels_gives_their_reason(plan):
    with pytest.raises(PruningError, match="'head' cannot be removed, because of 'head': they are the outputs"):
        plan.remove("head", [0])


@pytest.mark.parametrize("keep", [[True, False], [0.5] * 6])
def test_an_edit_of_the_wrong_shape_or_kind_is_refused(plan, keep):
    with pytest.raises(PruningError, match="Group 'conv2' needs one boolean for each of its 6 channels"):
        plan["conv2"] = keep


def test_an_edit_beyond_the_group_is_refused(plan):
    with pytest.raises(PruningError, match=r"Group 'conv2' has channels 0 to 5; \[6\] does not fit"):
        plan.remove("conv2", [6])


def test_groups_cannot_be_dropped_from_a_plan(plan):
    with pytest.raises(PruningError, match=r"write plan.keep\('conv1'\)"):
        del plan["conv1"]


@pytest.mark.parametrize("text", ["{", "{}", '{"format": "other"}'])
def test_a_file_that_is_no_plan_is_refused(text):
    with pytest.raises(PruningError, match="This is no shrink plan"):
        ShrinkPlan.from_json(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(folds=["conv1"]), "ValueError: its checksum is not that of what it holds"),
        (lambda data: data["details"]["conv2"].update(macs=7), "its checksum is not that"),
        (lambda data: data.update(folder=data.pop("folds")), "its checksum is not that"),
        (lambda data: data.update(chacksum=data.pop("checksum")), "it holds 'chacksum'"),
        (lambda data: data["kept"].update(conv1="all"), "damaged: ValueError"),
        (lambda data: [data.pop("checksum"), data.pop("rows")], "KeyError: 'rows'"),
    ],
)
def test_a_damaged_plan_is_refused(plan, change, message):
    data = json.loads(plan.to_json())
    change(data)
    with pytest.raises(PruningError, match=message):
        ShrinkPlan.from_json(json.dumps(data))


def test_a_plan_that_is_no_text_or_no_file_is_refused(tmp_path):
    (tmp_path / "plan.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(PruningError, match="This is no shrink plan, or damaged: UnicodeDecodeError"):
        ShrinkPlan.from_json(tmp_path / "plan.json")
    with pytest.raises(PruningError, match=r"There is no file '.*plan.jsn'. Did you mean|There is no file"):
        ShrinkPlan.from_json(tmp_path / "plan.jsn")


def test_a_plan_tells_that_its_channels_were_edited(plan):
    data = json.loads(plan.to_json())
    assert not ShrinkPlan.from_json(json.dumps(data)).edited
    data["kept"]["conv2"] = [1, 4]
    assert 'The channels under "kept" in its file are others' in str(ShrinkPlan.from_json(json.dumps(data)))


def test_a_plan_of_an_earlier_version_has_no_checksum_and_is_read(plan):
    data = json.loads(plan.to_json())
    del data["checksum"], data["kept_checksum"]
    data["kept"]["conv2"] = [1, 4]
    old = ShrinkPlan.from_json(json.dumps(data))
    assert not old.edited and old["conv2"].sum() == 2


def test_a_file_that_leaves_a_group_out_is_refused(plan):
    data = json.loads(plan.to_json())
    del data["kept"]["conv2"]
    with pytest.raises(PruningError, match="says nothing about group 'conv2'"):
        ShrinkPlan.from_json(json.dumps(data))


def test_a_method_that_empties_a_layer_is_refused():
    class Greedy:
        def channels_to_keep(self, model, groups, data):
            return {"conv2": np.zeros(6, bool)}

    with pytest.raises(PruningError, match=r"nothing of axis \d of weight 'conv[23]/\w+'. Keep .* 'conv2'"):
        plan_shrink(residual_net(), Greedy())


def test_a_method_that_chooses_no_channels_is_refused(net):
    with pytest.raises(PruningError, match=r"Percentile does not choose channels; use tfprune.Structured"):
        plan_shrink(net, tfprune.Percentile(0.5))


def test_something_else_than_a_plan_is_refused(net):
    with pytest.raises(PruningError, match="shrink takes a ShrinkPlan, not dict"):
        shrink(net, {"conv1": np.ones(8, bool)})


def test_wrapped_layers_are_refused_with_the_way_out():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="dense"), layers.Dense(2)], name="seq")
    wrapped = tfprune.wrap(model, tfprune.Percentile(0.5))
    with pytest.raises(PruningError, match=r"holds wrapped layers, such as .*tfprune.shrink\(tfprune.strip_masks"):
        shrink(wrapped)


def test_a_subclassed_model_is_refused_with_the_way_out():
    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.dense = layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    with pytest.raises(PruningError, match="Removing channels needs a functional or Sequential model.*Masks work"):
        channel_groups(Net())
    with pytest.raises(PruningError, match="Shrinking needs a functional or Sequential model"):
        shrink(Net())


def test_reasons_are_a_closed_list_of_sentences():
    assert all(reason.value[0].islower() and not reason.value.endswith(".") for reason in Reason)
