"""A model is traced once: plans carry their trace to `shrink` and `certify`, for as long as it holds."""

import copy
import json
import pickle

import keras
import numpy as np
import pytest
from channel_checks import RandomChannels, masked_copy, randomise
from keras import layers

import tfprune
from tfprune.channels import ShrinkPlan, certify, channel_groups, grouping, plan_shrink, shrink
from tfprune.errors import PruningError


@pytest.fixture
def traces(monkeypatch):
    """The models that were traced, in order."""
    found = []

    def counted(model, *args, original=grouping.trace_model):
        found.append(model)
        return original(model, *args)

    monkeypatch.setattr(grouping, "trace_model", counted)
    return found


def network(constant=False):
    x = inputs = keras.Input((4,))
    x = layers.Dense(6, activation="sigmoid", name="first")(x)
    model = randomise(keras.Model(inputs, layers.Dense(2, name="head")(layers.Dense(5, name="second")(x)), name="net"))
    if constant:  # channel 3 of the first layer is sigmoid of its bias, whatever comes in
        model.get_layer("first").kernel.assign(np.array(model.get_layer("first").kernel) * (np.arange(6) != 3))
    return model


def test_a_chosen_plan_is_carried_out_by_its_own_trace(traces):
    model = network()
    for method in (RandomChannels(), tfprune.Structured(0.5)):
        traces.clear()
        plan = plan_shrink(model, method)
        shrink(model, plan)
        shrink(model, plan.keep("first"))
        assert len(traces) == 1


def test_shrink_and_certify_of_a_masked_model_go_by_one_trace(traces):
    model = masked_copy(network(), plan_shrink(network(), RandomChannels()))
    traces.clear()
    plan = plan_shrink(model)
    small = shrink(model, plan)
    assert certify(model, small, plan=plan).exactness.name == "EXACT" and len(traces) == 1
    traces.clear()
    assert certify(model, shrink(model)).exactness.name == "EXACT" and len(traces) == 2


def test_a_folded_constant_is_read_once_and_again_when_a_weight_has_changed(traces):
    model = network(constant=True)
    plan = plan_shrink(model)
    assert plan.folds == ["first"]
    assert certify(model, shrink(model, plan), plan=plan).exactness.name == "FOLDED" and len(traces) == 1
    model.get_layer("first").bias.assign_add(np.full(6, 0.5))
    assert certify(model, shrink(model, plan), plan=plan).largest < 1e-5 and len(traces) == 2


def test_a_certificate_goes_by_weights_as_they_are(traces):
    model = network()
    plan = plan_shrink(model)  # nothing is dead
    small = shrink(model, plan)
    kernel = model.get_layer("second").kernel
    kernel.assign(np.array(kernel) * (np.arange(6) != 3)[:, None])
    small.get_layer("second").kernel.assign(kernel)
    assert certify(model, small, plan=plan).exactness.name == "EQUAL" and len(traces) == 2


def test_a_plan_read_from_a_file_traces_its_model_once(traces):
    model = network()
    text = plan_shrink(model, RandomChannels()).to_json()
    traces.clear()
    plan = ShrinkPlan.from_json(text)
    small = shrink(model, plan)
    shrink(model, plan.keep("first"))
    assert len(traces) == 1 and small.get_layer("first").units == 4


def test_a_plan_fits_another_model_of_the_same_structure(traces):
    model, twin = network(), network()
    plan = plan_shrink(model, RandomChannels())
    for one, other in zip(shrink(model, plan).get_weights(), shrink(twin, plan).get_weights()):
        np.testing.assert_array_equal(one, other)
    assert traces == [model, twin]


def test_a_model_that_has_changed_since_is_traced_anew(traces):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6), layers.Dense(2)], name="chain")
    plan = plan_shrink(model, RandomChannels())
    model.add(layers.Dense(3))
    with pytest.raises(PruningError, match="'chain' has changed since"):
        shrink(model, plan)
    assert len(traces) == 2


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda plan: pickle.loads(pickle.dumps(plan))])
def test_a_copy_of_a_plan_leaves_the_model_behind(copied, traces):
    model = network()
    plan = plan_shrink(model, RandomChannels())
    twin = copied(plan.keep("second", [0, 1]))
    assert twin.to_dict() == plan.to_dict()
    twin.keep("second")
    assert plan["second"].sum() == 2
    shrink(model, twin)
    assert len(traces) == 2


def test_groups_read_from_a_file_say_that_they_have_no_trace():
    plan = ShrinkPlan.from_json(plan_shrink(network(), RandomChannels()).to_json())
    with pytest.raises(PruningError, match=r"plan for 'net' was read from a file .*shrink\(model, plan\) first"):
        plan.groups.masks({}) or plan.groups.removed({})
    assert list(plan.groups) == list(channel_groups(network())) and plan.groups["first"].members == ()


def test_a_file_with_an_unknown_reason_is_refused():
    plan = json.loads(plan_shrink(network()).to_json().replace("they are the outputs of the model", "no reason"))
    text = json.dumps({key: value for key, value in plan.items() if key != "checksum"})  # as earlier versions wrote it
    with pytest.raises(PruningError, match="This is no shrink plan.*: 'no reason' is not a valid Reason"):
        ShrinkPlan.from_json(text)
