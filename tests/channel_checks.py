"""What every model must pass: masked and shrunk are the same function, and the plain model loads with Keras alone."""

import contextlib
import math

import keras
import numpy as np

from tfprune.channels import certify, channel_groups, plan_shrink, shrink

TOLERANCE = 1e-5  # of the output's scale: rounding in float32, since sums are taken in another order


def randomise(model, seed=0):
    """Gives a model weights under which every channel says something and the input reaches the outputs."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        shape = tuple(variable.shape)
        if "seed" in variable.name or "int" in str(variable.dtype):
            continue
        if "variance" in variable.name or "gamma" in variable.name or "scale" in variable.name:
            value = generator.uniform(0.5, 1.5, shape)
        elif len(shape) < 2:
            value = generator.normal(0.0, 0.1, shape)
        elif "embeddings" in variable.name:
            value = generator.normal(0.0, 1.0, shape)
        else:  # He et al. 2015; a depthwise kernel sums over space alone
            depthwise = "depthwise" in variable.path or "_dw" in variable.path
            fan_in = math.prod(shape[:2] if depthwise else shape[:-1])
            value = generator.normal(0.0, math.sqrt(2.0 / fan_in), shape)
        variable.assign(value)
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):  # Normalization computes with what it has made of its weights
            layer.finalize_state()
    return model


class RandomChannels:
    """Chooses channels at random, the same share of every group."""

    def __init__(self, share=0.3, seed=0):
        self.share, self.seed = share, seed

    def channels_to_keep(self, model, groups, data):
        generator = np.random.default_rng(self.seed)
        keep = {}
        for name, group in groups.free.items():
            keep[name] = np.ones(group.size, bool)
            gone = min(max(round(self.share * group.size), 1), group.size - 1)
            keep[name][generator.permutation(group.size)[:gone]] = False
        return keep


def fresh(layer):
    if isinstance(layer, keras.layers.Lambda):
        return type(layer)(layer.function, name=layer.name)
    if isinstance(layer, keras.layers.Activation):
        return type(layer)(layer.activation, name=layer.name)
    return type(layer).from_config(layer.get_config())


def copy_of(model):
    copy = keras.models.clone_model(model, clone_function=fresh)
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return copy


def masked_copy(model, plan, **options):
    """A copy of the model with every weight of the removed channels at zero."""
    groups = channel_groups(model, **options)
    masks = groups.masks(dict(zip(groups, plan.values())))
    copy = copy_of(model)
    for old, new in zip(model.weights, copy.weights):
        key = groups.key_of[id(old)]
        if key in masks:
            new.assign(np.asarray(old) * masks[key])
    return copy


@contextlib.contextmanager
def masked(model, plan):
    """The model itself with every weight of the removed channels at zero, inside the block only."""
    before = model.get_weights()
    masks = plan.groups.masks(dict(zip(plan.groups, plan.values())))
    for array, weight in zip(before, model.weights):
        key = plan.groups.key_of[id(weight)]
        if key in masks:
            weight.assign(array * masks[key])
    yield model
    model.set_weights(before)


def variation(model, data=None):
    """How much outputs of several inputs differ, relative to their scale."""
    if data is None:
        generator = np.random.default_rng(0)
        data = [
            generator.integers(0, 2, (8, *x.shape[1:])).astype("int32")
            if "int" in str(x.dtype)
            else generator.normal(size=(8, *(16 if n is None else n for n in x.shape[1:]))).astype("float32")
            for x in model.inputs
        ]
        data = keras.tree.pack_sequence_as(model.input, data) if len(data) > 1 else data[0]
    outputs = [np.asarray(y) for y in keras.tree.flatten(model(data, training=False))]
    return max(float((y.max(0) - y.min(0)).max() / np.abs(y).max()) for y in outputs)


def check_shrinks(model, share=0.3, seed=0, data=None, expect_removed=True):
    """Plans, masks, shrinks by plan and by zeros, and compares; returns the plan and the small model."""
    before = model.get_weights()
    plan = plan_shrink(model, RandomChannels(share, seed))
    assert plan.removes == expect_removed, str(plan)
    small = shrink(model, plan)
    for array, weight in zip(before, model.weights):
        np.testing.assert_array_equal(array, np.asarray(weight))
    with masked(model, plan):
        zeros = plan_shrink(model)
        certificate = certify(model, small, data, plan=zeros)
    assert certificate.largest <= TOLERANCE, f"{certificate}\n{plan}"
    assert variation(small, data) > 1e-3, "the input hardly reaches the outputs, so the comparison says little"
    assert small.count_params() < model.count_params() or not expect_removed
    for name, found in zip(plan, zeros.values()):
        # Channels that are removed are found again by their zeros.
        assert not (found & ~plan[name]).any(), f"{name}: {found} instead of {plan[name]}"
    return plan, small
