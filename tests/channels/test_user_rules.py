"""Layers of the user's own: left alone by default, an error when asked, or taught in a few lines."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from channel_checks import check_shrinks, randomise
from keras import layers

from tfprune.channels import Channels, Reason, Role, channel_groups, elementwise, plan_shrink, register_rule, shrink
from tfprune.channels.rules import registry
from tfprune.errors import PruningError


@keras.saving.register_keras_serializable("tests")
class Scale(layers.Layer):
    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def build(self, shape):
        self.scale = self.add_weight(shape=(self.width,), name="scale")

    def call(self, x):
        return x * self.scale

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable("tests")
class Secret(Scale):
    """Computes by operations of TensorFlow that Keras has no name for, so that its call cannot be opened."""

    def call(self, x):
        return tf.raw_ops.Mul(x=x, y=tf.convert_to_tensor(self.scale))


class Double(layers.Layer):
    def call(self, x):
        return 2 * x


class LoudDense(layers.Dense):
    def call(self, x):
        return tf.raw_ops.Add(x=super().call(x), y=1.0)


class QuietDense(layers.Dense):
    pass


def scale_rule(visit):
    lines, others = visit.take(visit.input, axis=-1)
    for line in lines:
        visit.use(Role.SCALE, visit.layer.scale, 0, line)
    zero = [line.with_values(masked=0.0, now=math.nan) for line in lines]
    return visit.result([visit.along(-1, line) for line in zero] + others)


def scale_resize(layer, config, resized):
    config["width"] = resized.size(layer.scale)[0]


@pytest.fixture
def rules():
    before = dict(registry.LAYERS)
    yield register_rule
    registry.LAYERS.clear()
    registry.LAYERS.update(before)


def around(layer, name="first"):
    x = inputs = keras.Input((5,))
    x = layer(layers.Dense(8, name=name)(x))
    return randomise(keras.Model(inputs, layers.Dense(2, name="head")(layers.Dense(6, name="second")(x))))


def test_channels_around_an_unknown_layer_are_left_alone_with_its_name():
    groups = channel_groups(around(Secret(8, name="own")))
    assert groups["first"].frozen.reason is Reason.UNKNOWN_LAYER
    assert str(groups["first"].frozen).startswith("'own': no rule is known for this layer")
    check_shrinks(around(Secret(8)))  # the channels after it still go


def test_strict_raises_for_an_unknown_layer():
    model = around(Secret(8, name="own"))
    for function in (channel_groups, plan_shrink):
        with pytest.raises(PruningError, match=r"No channel rule for layer 'own' \(.*Secret\).*register_rule"):
            function(model, strict=True)


def test_a_rule_and_a_resize_teach_a_layer(rules):
    rules(Scale, scale_rule, scale_resize)
    plan, small = check_shrinks(around(Scale(8, name="own")))
    assert not plan["first"].all()
    assert small.get_layer("own").width == 6
    channel_groups(around(Scale(8)), strict=True)


def test_elementwise_teaches_a_function_of_single_entries(rules):
    rules(Double, elementwise)
    plan, _ = check_shrinks(around(Double()))
    assert not plan["first"].all()


def test_a_subclass_that_computes_the_same_shares_the_rule():
    check_shrinks(around(QuietDense(7, name="quiet")))
    assert not channel_groups(around(QuietDense(7, name="quiet")))["quiet"].frozen
    assert channel_groups(around(LoudDense(7, name="loud")))["first"].frozen.reason is Reason.UNKNOWN_LAYER


def test_a_layer_quantized_or_adapted_by_keras_is_left_alone():
    model = around(layers.Dense(8, name="adapted"))
    model.get_layer("adapted").enable_lora(2)
    assert channel_groups(model)["first"].frozen.layer == "adapted"
    check_shrinks(model)


def test_a_rule_of_the_wrong_shape_is_told_with_the_layer(rules):
    rules(Double, lambda visit: Channels((None, 3)))
    with pytest.raises(PruningError, match=r"rule of layer 'twice' \(Double\) gives channels of shape \[\(None, 3\)\]"):
        channel_groups(around(Double(name="twice")))
    rules(Double, lambda visit: None)
    with pytest.raises(PruningError, match=r"rule of layer 'twice' \(Double\) gives channels of shape \['NoneType'\]"):
        channel_groups(around(Double(name="twice")))


def test_labels_that_do_not_fit_a_weight_are_told_with_the_layer(rules):
    def wrong(visit):
        visit.use(Role.SCALE, visit.layer.scale, 0, np.arange(3))
        return visit.result(visit.input.factors)

    rules(Scale, wrong)
    with pytest.raises(PruningError, match=r"'own' \(Scale\) gives 3 labels for axis 0 of weight 'scale', .* \(8,\)"):
        channel_groups(around(Scale(8, name="own")))


def test_a_missing_resize_is_told_with_the_layer(rules):
    rules(Scale, scale_rule)
    model = around(Scale(8, name="own"))
    plan = plan_shrink(model).keep("first", [0, 1, 2])
    with pytest.raises(PruningError, match=r"Layer 'own' \(Scale\) does not fit its neighbours after shrinking"):
        shrink(model, plan)


def test_a_layer_without_a_configuration_is_told():
    class NoConfig(layers.Layer):
        def __init__(self, table, **kwargs):
            super().__init__(**kwargs)
            self.rows = table

        def build(self, shape):
            self.shift = self.add_weight(shape=(1,), name="shift")

        def call(self, x):
            return tf.raw_ops.Identity(input=x) + self.shift

    model = around(NoConfig(np.zeros(3), name="mute"))
    model.get_layer("mute").way = lambda x: x + model.get_layer("mute").shift  # which no duplicate has either
    model.get_layer("mute").way.__defaults__ = (model.get_layer("mute"),)
    with pytest.raises(PruningError, match=r"Layer 'mute' \(NoConfig\) cannot be made anew .* get_config"):
        shrink(model, plan_shrink(model).keep("second", [0, 1]))


def test_register_rule_refuses_what_is_no_class_or_function():
    with pytest.raises(PruningError, match=r"needs a keras\.Layer class, not <Double .*; pass the class, not a layer"):
        register_rule(Double(name="twice"), elementwise)
    with pytest.raises(PruningError, match="The rule of Double must be a function of one Visit, not 3"):
        register_rule(Double, 3)


def test_layers_that_keras_applications_keeps_to_itself_are_found():
    known = {cls.__name__ for cls in registry.LAYERS}
    assert {"LayerScale", "StochasticDepth", "CustomScaleLayer"} <= known


def test_operation_rules_name_operations_of_keras():
    # Rules of operations go by the names of Keras' private classes: fails when one is renamed.
    from keras.src.activations import activations
    from keras.src.ops import core, image, linalg, math, nn, numpy

    known = {name for module in (core, image, linalg, math, nn, numpy) for name in vars(module)}
    known |= {name for name, value in vars(activations).items() if isinstance(value, type)}
    used = {"Add", "Multiply", "Reshape", "Transpose", "Concatenate", "Split", "GetItem", "Matmul", "Einsum", "Softmax"}
    assert used <= known & set(registry.OPERATIONS)
    if keras.__version__.startswith("3.15"):  # other versions have fewer, or more
        assert set(registry.OPERATIONS) - known == {"Ravel"} - known
