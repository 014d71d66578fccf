"""What may go: heads, widths, channels; in attention layers of Keras and in attention written by hand."""

import keras
import numpy as np
import pytest
from channel_checks import randomise
from keras import layers, ops

import tfprune
from tfprune.channels import ShrinkPlan, certify, channel_groups, plan_shrink, shrink
from tfprune.errors import PruningError

WIDTH, STEPS, HEADS, SIZE = 16, 5, 4, 4


class Written(layers.Layer):
    """Attention written by hand; one dense layer for all projections, or one for each."""

    def __init__(self, fused, groups=HEADS, **kwargs):
        super().__init__(**kwargs)
        self.groups = groups
        widths = [3 * WIDTH] if fused else [HEADS * SIZE, groups * SIZE, groups * SIZE]
        self.parts = [layers.Dense(width, name=f"in{n}") for n, width in enumerate(widths)]
        self.out = layers.Dense(WIDTH, name="out")

    def build(self, shape):
        for part in self.parts:
            part.build(shape)
        self.out.build((*shape[:-1], HEADS * SIZE))
        self.built = True

    def call(self, x):
        if len(self.parts) == 1:
            q, k, v = ops.unstack(ops.reshape(self.parts[0](x), (-1, STEPS, 3, HEADS, SIZE)), 3, axis=2)
        else:
            q, k, v = (ops.reshape(part(x), (-1, STEPS, part.units // SIZE, SIZE)) for part in self.parts)
            k, v = (ops.repeat(each, HEADS // self.groups, axis=2) for each in (k, v))
        q, k, v = (ops.transpose(each, (0, 2, 1, 3)) for each in (q, k, v))
        weights = ops.softmax(q @ ops.transpose(k, (0, 1, 3, 2)) / 2.0)
        mixed = ops.transpose(weights @ v, (0, 2, 1, 3))
        return self.out(ops.reshape(mixed, (-1, STEPS, HEADS * SIZE)))


def attention(kind):
    if kind == "multi-head":
        return layers.MultiHeadAttention(HEADS, SIZE, name="attention")
    if kind == "grouped":
        return layers.GroupQueryAttention(SIZE, HEADS, 2, name="attention")
    own = Written(kind == "fused", groups=2 if kind == "shared keys" else HEADS, name="attention")
    return lambda x, _: own(x)


KINDS = ["multi-head", "grouped", "fused", "apart", "shared keys"]


def transformer(kind):
    inputs = keras.Input((STEPS, 6))
    x = layers.Dense(WIDTH, name="stem")(inputs)
    y = layers.LayerNormalization()(x)
    x = x + attention(kind)(y, y)
    y = layers.Dense(24, activation="gelu", name="hidden")(layers.LayerNormalization()(x))
    x = x + layers.Dense(WIDTH, name="down")(y)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    model = keras.Model(inputs, layers.Dense(3, name="classes")(x), name="transformer")
    model.compile("sgd", "mse", jit_compile=False)
    return randomise(model)


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    model = transformer(request.param)
    model.heads = 2 if request.param in ("grouped", "shared keys") else HEADS
    return model


DATA = np.random.default_rng(0).normal(size=(8, STEPS, 6)).astype("float32")


def sizes(groups, unit):
    return {name: group.size for name, group in groups.free.items() if group.unit == unit}


def test_every_group_knows_its_unit(model):
    heads, widths = (channel_groups(model, unit=unit) for unit in ("head", "width"))
    assert list(sizes(heads, "head").values()) == [model.heads]
    assert sizes(widths, "width")["hidden"] == 24
    assert list(sizes(widths, "channel")) == ["stem"]
    inside = {name: size for name, size in sizes(widths, "width").items() if name.startswith("attention")}
    assert inside and all(size in (SIZE, SIZE * model.heads) for size in inside.values())


@pytest.mark.parametrize("unit", ["head", "width", "channel"])
def test_only_that_unit_goes_and_the_smaller_model_is_equal(model, unit):
    method = tfprune.Structured(0.5, unit=unit)
    pruned = tfprune.strip_masks(tfprune.prune(model, method))
    plan, small = plan_shrink(model, method), shrink(pruned)
    assert {plan.groups[name].unit for name, keep in plan.items() if not keep.all()} == {unit}
    other = shrink(model, ShrinkPlan.from_json(plan.to_json()))
    assert [weight.shape for weight in other.weights] == [weight.shape for weight in small.weights]
    certificate = certify(pruned, small, DATA)
    assert certificate.largest < 1e-5 and certificate.exactness.name == "EXACT"
    wide = small.get_layer("stem").units, small.get_layer("hidden").units
    assert wide == {"head": (16, 24), "channel": (8, 24)}.get(unit, (16, wide[1]))


def test_half_of_the_heads_is_gone_from_every_projection(model):
    pruned = tfprune.prune(model, tfprune.Structured(0.5, unit="head"))
    masks = {key: mask for key, mask in tfprune.get_masks(pruned).items() if key.startswith("attention")}
    assert all(2 * np.count_nonzero(mask) == mask.size for key, mask in masks.items())
    assert "attention/out/kernel" in masks or "attention/attention_output/kernel" in masks


def test_heads_fade_out_in_fit_wrapped_or_not():
    masks = []
    for wrapped in (False, True):
        keras.utils.set_random_seed(1)
        model = transformer("apart" if not wrapped else "multi-head")
        target = tfprune.wrap(model, tfprune.Structured(0.5, unit="head")) if wrapped else model
        callback = tfprune.UpdateMasks() if wrapped else tfprune.StructuredPruning(0.5, unit=("head",))
        target.fit(DATA, np.zeros((8, 3)), epochs=3, batch_size=4, verbose=0, callbacks=[callback])
        plain = tfprune.strip_masks(target)
        small = shrink(plain)
        masks.append(small.count_params())
        assert certify(plain, small, DATA).largest < 1e-5
    assert masks[0] == masks[1] < transformer("apart").count_params()


def test_convolutions_make_channels_and_dense_layers_widths():
    x = inputs = keras.Input((8, 8, 3))
    for name in ("first", "second"):
        x = layers.Conv2D(8, 3, activation="relu", name=name)(x)
    x = layers.DepthwiseConv2D(3, name="alone")(layers.Dense(12, name="inside")(x))
    x = layers.Dense(6, activation="relu", name="hidden")(layers.GlobalAveragePooling2D()(x))
    groups = channel_groups(keras.Model(inputs, layers.Dense(2, name="classes")(x)))
    units = {name: group.unit for name, group in groups.items()}
    assert units == {"first": "channel", "second": "channel", "inside": "width", "hidden": "width", "classes": "width"}
    assert [row["unit"] for row in groups.rows()] == list(units.values())


def test_rotated_parts_that_meet_in_a_sum_are_no_stream():
    x = inputs = keras.Input((STEPS, 6))
    left, right = ops.split(layers.Dense(8, name="query")(x), 2, axis=-1)
    x = layers.Dense(4)(left * 0.5 + right * 0.25)
    assert channel_groups(keras.Model(inputs, x))["query"].unit == "width"


def test_the_unit_is_an_argument_like_the_others():
    for unit in (None, "head", ("head", "width")):
        method = tfprune.Structured(0.5, unit=unit)
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(method))
        assert again == method and again.unit == (list(unit) if isinstance(unit, tuple) else unit)


@pytest.mark.parametrize(
    ("unit", "told"),
    [
        ("heads", "There is no unit 'heads' of channels. Did you mean 'head'?"),
        (["head", "filter"], "There is no unit 'filter' of channels. Known names: 'head', 'width', 'channel'."),
        (3, "There is no unit 3 of channels. Known names"),
        ([], r"unit=\(\) names nothing that may go; write some of 'head', 'width', 'channel', or None for all."),
    ],
)
def test_an_unknown_unit_is_told_when_the_method_is_made(unit, told):
    with pytest.raises(PruningError, match=told):
        tfprune.Structured(0.5, unit=unit)


def test_a_model_without_the_unit_says_which_it_has():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6), layers.Dense(3)], name="plain")
    told = "'plain' has no channels of unit 'head' that may go; there are some of 'width'."
    for act in (tfprune.prune, plan_shrink):
        with pytest.raises(PruningError, match=told):
            act(model, tfprune.Structured(0.5, unit="head"))
