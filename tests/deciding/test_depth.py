"""Whole residual branches: which there are, what removing them costs, and the model without them."""

import keras
import numpy as np
import pytest
from channel_checks import randomise
from keras import layers

import tfprune
from tfprune.channels import ShrinkPlan, certify, channel_groups, plan_shrink, residual_branches, shrink
from tfprune.errors import PruningError

STEPS, WIDTH = 4, 8
SEQUENCES = np.random.default_rng(0).normal(size=(12, STEPS, 5)).astype("float32")
IMAGES = np.random.default_rng(1).normal(size=(12, 6, 6, 2)).astype("float32")


def transformer(outputs="classes"):
    """Two attentions, an MLP, a gated unit behind dropout, and two parallel branches."""
    inputs = keras.Input((STEPS, 5))
    x = layers.Dense(WIDTH, name="stem")(inputs)
    y = layers.LayerNormalization()(x)
    x = layers.Add()([layers.MultiHeadAttention(2, 4, name="attention")(y, y), x])
    y = layers.LayerNormalization()(x)
    x = x + layers.Dense(WIDTH, name="down")(layers.Dense(6, activation="gelu", name="up")(y))
    y = layers.LayerNormalization()(x)
    x = x + layers.Dropout(0.1)(layers.Dense(WIDTH, name="gated")(layers.Dense(6)(y) * layers.Dense(6)(y)))
    y = layers.LayerNormalization()(x)
    x = (x + layers.Dense(WIDTH, name="left")(y)) + layers.Dense(WIDTH, activation="relu", name="right")(y)
    y = layers.LayerNormalization()(x)
    x = layers.Add(name="end")([x, layers.GroupQueryAttention(4, 2, 1, name="grouped")(y, y)])
    if outputs == "classes":
        x = layers.Dense(3, name="classes")(layers.GlobalAveragePooling1D()(x))
    return randomise(keras.Model(inputs, x, name="transformer"))


NAMES = ["attention", "down", "gated", "left", "right", "grouped"]


def residual_network():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    for block in range(3):
        y = layers.Conv2D(4, 3, padding="same", name=f"first{block}")(x)
        y = layers.Conv2D(4, 3, padding="same", use_bias=False, name=f"second{block}")(layers.ReLU()(y))
        x = layers.ReLU()(layers.Add()([layers.BatchNormalization(name=f"norm{block}")(y), x]))
    x = layers.Dense(3, name="classes")(layers.GlobalAveragePooling2D()(x))
    model = randomise(keras.Model(inputs, x, name="residual"))
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    return model


def branches(model):
    return list(residual_branches(channel_groups(model)))


def test_branches_are_found_with_the_weights_that_make_them_zero():
    model = transformer()
    groups = channel_groups(model)
    found = residual_branches(groups)
    assert list(found) == NAMES
    keys = ["attention/attention_output/kernel", "attention/attention_output/bias"]
    assert sorted(found["attention"].masks(groups)) == sorted(keys)
    assert not any(mask.any() for branch in found.values() for mask in branch.masks(groups).values())
    groups = channel_groups(residual_network())
    keys = {"second0/kernel", "norm0/gamma", "norm0/beta"}
    assert set(residual_branches(groups)["second0"].masks(groups)) == keys


def test_what_cannot_go_whole_is_no_branch():
    shared, tap = layers.Dense(WIDTH, name="shared"), layers.Dense(WIDTH, name="tap")
    x = inputs = keras.Input((WIDTH,))
    x = layers.Dense(WIDTH)(x)
    x = x + shared(x)
    x = x + shared(x)  # called twice: zero weights would take both
    y = tap(x)
    x = x + y
    x = x + layers.Dense(WIDTH, activation="sigmoid", name="half")(x)  # 0.5 at zero
    x = x + layers.Reshape((WIDTH,))(layers.ReLU()(x))  # without weights
    x = layers.Dense(WIDTH, name="one")(x) + layers.Dense(WIDTH, name="other")(x)  # no stream
    model = keras.Model(inputs, [layers.Dense(2)(x), layers.Dense(2)(y)])  # y is heard elsewhere too
    assert branches(model) == []
    with pytest.raises(PruningError, match=r"has no residual branch that can go.*Remove channels instead"):
        tfprune.prune(model, tfprune.StructuredDepth(0.5), np.zeros((4, WIDTH)))


def test_the_influence_is_one_minus_the_cosine_of_the_stream_before_and_after():
    model = transformer()
    found = tfprune.StructuredDepth(0.5).influences(model, SEQUENCES)
    assert list(found) == NAMES
    end = model.get_layer("end")
    before, after = keras.Model(model.input, [end.input[0], end.output])(SEQUENCES, training=False)
    before, after = (np.asarray(x, np.float64) for x in (before, after))
    cosine = (before * after).sum(-1) / np.linalg.norm(before, axis=-1) / np.linalg.norm(after, axis=-1)
    assert found["grouped"] == pytest.approx(1 - cosine.mean(), abs=1e-5)
    assert found == tfprune.StructuredDepth(0.2).influences(model, (SEQUENCES, np.zeros(12)))


@pytest.mark.parametrize("build", [transformer, residual_network])
def test_the_least_go_and_the_smaller_model_is_equal(build):
    model, data = build(), SEQUENCES if build is transformer else IMAGES
    method = tfprune.StructuredDepth(0.5)
    influences = method.influences(model, data)
    count = round(0.5 * len(influences))
    least = set(sorted(influences, key=influences.get)[:count])
    pruned, report = tfprune.prune(model, method, data, return_report=True)
    masks = tfprune.get_masks(pruned)
    zero = {key.split("/")[0] for key, mask in masks.items() if not mask.any() and key.endswith("kernel")}
    assert zero == least and report.statistics.samples == 12
    plain = tfprune.strip_masks(pruned)
    small, plan = shrink(plain), plan_shrink(model, method, data)
    assert set(plan.branches) == set(plan_shrink(plain).branches) == least
    assert f"Residual branches that go whole: {', '.join(plan.branches)}." in str(plan).replace("\n", " ")
    planned = shrink(model, ShrinkPlan.from_json(plan.to_json()))
    assert [w.shape for w in planned.weights] == [w.shape for w in small.weights]
    assert not least & {layer.name for layer in small.layers}
    certificate = certify(plain, small, data)
    assert certificate.largest < 1e-6 and certificate.exactness.name == "EXACT"


def test_all_that_is_only_in_a_branch_goes_and_the_plan_says_so():
    model = transformer()
    plan = plan_shrink(model, tfprune.StructuredDepth(0.9, layers=["attention"]), SEQUENCES)
    assert plan.branches == ["attention"] and plan.removes
    assert plan.why["attention/heads"] == "goes with the whole branch" and plan.why["up"] == "kept"
    norm = 2 * WIDTH  # that of the branch, which nothing else listens to
    gone = model.get_layer("attention").count_params() + norm
    assert f"and {gone:,} parameters with them." in plan.notes()[-1]
    small = shrink(model, plan)
    assert small.count_params() == model.count_params() - gone


def test_an_output_that_loses_its_last_branch_keeps_its_name():
    model = transformer("stream")
    small = shrink(model, plan_shrink(model, tfprune.StructuredDepth(0.9, layers=["grouped"]), SEQUENCES))
    assert small.output_names == model.output_names and "grouped" not in [layer.name for layer in small.layers]


def test_branches_of_nested_models_and_of_your_own_layers_go():
    @keras.saving.register_keras_serializable("tfprune_tests")
    class Branched(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inside, self.last = layers.Dense(6, name="inside"), layers.Dense(5, name="last")

        def build(self, shape):
            self.inside.build(shape)
            self.last.build((*shape[:-1], 6))
            self.built = True

        def call(self, x):
            return x + self.last(self.inside(x))

    x = keras.Input((STEPS, 5))
    block = keras.Model(x, x + layers.Dense(5, name="nested")(x), name="block")
    inputs = keras.Input((STEPS, 5))
    model = randomise(keras.Model(inputs, layers.Dense(2)(Branched(name="own")(block(inputs)))))
    assert branches(model) == ["block.nested", "own.last"]
    for name, gone in (("block.nested", 30), ("own.last", 71)):
        pruned = tfprune.prune(model, tfprune.StructuredDepth(0.9, layers=[name]), SEQUENCES)
        plain = tfprune.strip_masks(pruned)
        small = shrink(plain)
        assert small.count_params() == model.count_params() - gone
        assert certify(plain, small, SEQUENCES).exactness.name == "EXACT"


def test_zeros_hold_in_the_fit_that_follows_and_momenta_come_along():
    model = residual_network()
    pruned = tfprune.prune(model, tfprune.StructuredDepth(0.34), IMAGES)
    pruned.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    pruned.fit(IMAGES, np.ones((12, 3)), epochs=1, batch_size=6, verbose=0)
    plain = tfprune.strip_masks(pruned)
    assert len(plan_shrink(plain).branches) == 1
    assert certify(plain, shrink(plain), IMAGES).largest < 1e-6
    plain.train_on_batch(IMAGES, np.ones((12, 3)))
    masks = tfprune.get_masks(pruned)
    for weight in plain.weights:
        weight.assign(weight * masks.get(weight.path, 1.0))
    small = shrink(plain, optimizer=True)
    gone = 2 * (len(plain.trainable_variables) - len(small.trainable_variables))
    assert len(small.optimizer.variables) == len(plain.optimizer.variables) - gone > 0
    moments = [{v.path: np.asarray(v) for v in m.optimizer.variables if "classes" in v.path} for m in (plain, small)]
    assert len(moments[0]) == 4 and all(value.any() for value in moments[0].values())
    for path, value in moments[1].items():
        np.testing.assert_array_equal(value, moments[0][path])


def test_branches_that_are_gone_already_go_first():
    model = transformer()
    first = tfprune.strip_masks(tfprune.prune(model, tfprune.StructuredDepth(0.9, layers=["right"]), SEQUENCES))
    again = tfprune.prune(first, tfprune.StructuredDepth(0.17), SEQUENCES)
    assert plan_shrink(tfprune.strip_masks(again)).branches == ["right"]


def test_it_is_its_arguments():
    method = tfprune.StructuredDepth(0.25, layers=["down"])
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(method)) == method
    assert repr(method) == "StructuredDepth(amount=0.25, layers=['down'])"


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (lambda m: tfprune.StructuredDepth(1.0), r"1\.0 is no share of branches in \[0, 1\); write 0\.25"),
        (lambda m: tfprune.StructuredDepth(0.5, layers={"down": 0.5}), r"takes names and no amounts; write layers="),
        (lambda m: tfprune.prune(m, tfprune.StructuredDepth(0.5)), "scores branches on data, which fit does not"),
        (lambda m: plan_shrink(m, tfprune.StructuredDepth(0.5)), "scores branches on data, which fit does not"),
        (
            lambda m: tfprune.prune(m, tfprune.StructuredDepth(0.5), SEQUENCES, reconstruct=True),
            "reconstruct=True: a branch that is gone has no weights left to repair; write reconstruct='batch_norm'",
        ),
        (
            lambda m: tfprune.prune(m, tfprune.StructuredDepth(0.5, layers=["up"]), SEQUENCES),
            r"layers=\['up'\]: no residual branch of 'transformer' ends there",
        ),
        (
            lambda m: tfprune.prune(m, tfprune.StructuredDepth(0.5, layers=["dwon"]), SEQUENCES),
            "layers='dwon' matches no layer of 'transformer'. Did you mean 'down'",
        ),
    ],
)
def test_bad_requests_are_told(act, told):
    with pytest.raises(PruningError, match=told):
        act(transformer())


def test_a_plan_with_an_unknown_branch_is_told():
    model = transformer()
    plan = plan_shrink(model, tfprune.StructuredDepth(0.2), SEQUENCES)
    plan.branches = ["dwon"]
    with pytest.raises(PruningError, match="'dwon' is no residual branch of 'transformer'. Did you mean 'down'"):
        shrink(model, plan)


def test_fit_is_told_to_prune_first():
    model = residual_network()
    with pytest.raises(PruningError, match=r"write model = tfprune\.prune\(model, tfprune\.StructuredDepth"):
        model.fit(
            IMAGES, np.ones((12, 3)), verbose=0, callbacks=[tfprune.PruningCallback(tfprune.StructuredDepth(0.5))]
        )
