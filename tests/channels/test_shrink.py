"""The smaller model: plain, complete, and nothing shared with the one it came from."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from channel_checks import RandomChannels, check_shrinks, masked_copy, randomise
from keras import layers, ops

import tfprune
from tfprune.channels import channel_groups, plan_shrink, shrink
from tfprune.errors import PruningError


def two_ins_two_outs():
    image, extra = keras.Input((6, 6, 3), name="image"), keras.Input((4,), name="extra")
    x = layers.Conv2D(8, 3, name="conv", kernel_regularizer=keras.regularizers.L2(1e-3))(image)
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization(name="bn")(x))
    x = layers.Concatenate()([x, layers.Dense(6, name="side", trainable=False)(extra)])
    outputs = {"kind": layers.Dense(3, name="kind")(x), "size": layers.Dense(1, name="size")(x)}
    return randomise(keras.Model({"image": image, "extra": extra}, outputs, name="two"))


def nested():
    block_input = keras.Input((8,), name="block_input")
    y = layers.Dense(12, activation="relu", name="dense")(block_input)
    block = keras.Model(block_input, layers.Dense(8, name="dense_out")(y), name="block")
    tail = keras.Sequential([keras.Input((8,)), layers.Dense(10, activation="tanh"), layers.Dense(6)], name="tail")
    x = inputs = keras.Input((5,))
    x = layers.Dense(8, name="dense")(x)
    x = layers.Add()([block(x), block(ops.relu(x))])
    return randomise(keras.Model(inputs, layers.Dense(2, name="head")(tail(x)), name="outer"))


def test_names_and_structure_of_inputs_and_outputs_stay():
    model = two_ins_two_outs()
    _, small = check_shrinks(model)
    assert set(small.input) == {"image", "extra"} and set(small.output) == {"kind", "size"}
    assert [x.name for x in small.inputs] == [x.name for x in model.inputs]
    assert small.output_names == model.output_names
    assert [layer.name for layer in small.layers] == [layer.name for layer in model.layers]
    assert (small.name, type(small)) == (model.name, type(model))


def test_an_operation_at_the_output_keeps_its_name():
    x = inputs = keras.Input((6,))
    x = layers.Dense(8)(x)
    outputs = ops.reshape(layers.Dense(4)(ops.concatenate([x[:, 3:], x[:, :2]], axis=-1)), (-1, 2, 2))
    model = randomise(keras.Model(inputs, outputs))
    small = shrink(model, plan_shrink(model, RandomChannels()))
    assert small.output_names == model.output_names


def test_flags_and_regularizers_stay():
    small = shrink(two_ins_two_outs(), plan_shrink(two_ins_two_outs(), RandomChannels()))
    assert not small.get_layer("side").trainable and small.get_layer("conv").trainable
    assert small.get_layer("conv").kernel_regularizer.l2 == pytest.approx(1e-3)


def test_a_frozen_model_stays_frozen_with_its_exceptions():
    model = nested()
    model.trainable = False
    model.get_layer("block").get_layer("dense").trainable = True
    small = shrink(model, plan_shrink(model, RandomChannels()))
    assert not small.trainable and not small.get_layer("head").trainable
    assert small.get_layer("block").get_layer("dense").trainable
    assert not small.get_layer("block").get_layer("dense_out").trainable


def test_nested_and_shared_models_shrink():
    plan, small = check_shrinks(nested())
    assert {"dense", "block/dense", "tail/dense", "tail/dense_1"} - set(plan) == set() or len(plan) >= 4
    assert small.get_layer("block").get_layer("dense").units == 8


def test_a_layer_shared_by_two_branches_loses_the_same_channels():
    x, y = keras.Input((5,)), keras.Input((7,))
    shared = layers.Dense(6, name="shared")
    left, right = shared(layers.Dense(8, name="left")(x)), shared(layers.Dense(8, name="right")(y))
    model = randomise(keras.Model([x, y], layers.Dense(2)(layers.Subtract()([left, right]))))
    plan, small = check_shrinks(model)
    assert list(plan)[:2] == ["left", "shared"]
    assert small.get_layer("left").units == small.get_layer("right").units == small.get_layer("shared").kernel.shape[0]


def test_a_layer_shared_with_the_input_keeps_what_listens_to_it():
    x = keras.Input((6,))
    shared = layers.Dense(6, name="shared")
    model = randomise(keras.Model(x, layers.Dense(2)(ops.tanh(shared(layers.Dense(6, name="first")(x))) + shared(x))))
    groups = channel_groups(model)
    assert groups["first"].frozen and not groups["shared"].frozen
    check_shrinks(model)


def test_the_small_model_loads_with_keras_alone(tmp_path):
    model = nested()
    small = shrink(model, plan_shrink(model, RandomChannels()))
    x = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    small.save(tmp_path / "small.keras")
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, json, keras, numpy as np; model = keras.models.load_model(sys.argv[1]);"
        "print(json.dumps(model(np.load(sys.argv[2])).numpy().tolist())); assert 'tfprune' not in sys.modules"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "small.keras"), str(tmp_path / "x.npy")]
    result = subprocess.run(run, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(json.loads(result.stdout), small(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("build", [two_ins_two_outs, nested])
def test_nothing_is_shared_with_the_model(build):
    model = build()
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    small = shrink(model, plan_shrink(model, RandomChannels()))
    theirs = {id(x) for x in [*model.weights, *model.layers]}
    assert not theirs & {id(x) for x in [*small.weights, *small.layers]}
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes


def test_without_dead_channels_the_result_is_an_equal_copy_and_says_so():
    model = nested()
    with pytest.warns(UserWarning, match="'outer' has no dead channel: the result is an equal copy"):
        copy = shrink(model)
    for one, other in zip(model.get_weights(), copy.get_weights()):
        np.testing.assert_array_equal(one, other)


def classifier(optimizer="adam"):
    x = inputs = keras.Input((6,))
    x = layers.Dense(10, activation="relu", name="first")(x)
    x = layers.BatchNormalization()(x)
    model = randomise(keras.Model(inputs, layers.Dense(3, name="head")(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    generator = np.random.default_rng(1)
    return model, generator.normal(size=(64, 6)).astype("float32"), generator.integers(0, 3, 64)


def test_compile_settings_stay():
    model, x, y = classifier(keras.optimizers.SGD(0.125, momentum=0.5))
    small = shrink(model, plan_shrink(model, RandomChannels()))
    assert float(small.optimizer.learning_rate) == 0.125 and small.optimizer.momentum == 0.5
    assert small.loss.from_logits
    assert set(small.evaluate(x, y, verbose=0, return_dict=True)) == {"accuracy", "loss"}


@pytest.mark.parametrize(
    "optimizer",
    ["adam", keras.optimizers.SGD(0.01, momentum=0.9), "rmsprop", keras.optimizers.AdamW(weight_decay=0.01), "lion"],
)
def test_training_goes_on_as_that_of_the_masked_model_when_the_optimizer_comes_along(optimizer):
    optimizer = keras.optimizers.get(optimizer)
    model, x, y = classifier(type(optimizer).from_config(optimizer.get_config()))
    model.fit(x, y, batch_size=16, epochs=2, verbose=0, shuffle=False)
    plan = plan_shrink(model, RandomChannels())
    small = shrink(model, plan, optimizer=True)
    assert int(small.optimizer.iterations) == 8
    groups = channel_groups(model)
    tfprune.apply_masks(model, groups.masks(dict(plan)))
    for network in (model, small):
        network.train_on_batch(x, y)
    keep = plan["first"]
    np.testing.assert_allclose(
        np.array(model.get_layer("first").kernel)[:, keep], small.get_layer("first").kernel, rtol=1e-4, atol=1e-6
    )


def test_slots_are_cut_in_nested_models_with_equal_names():
    model = nested()
    model.compile("adam", "mse")
    generator = np.random.default_rng(0)
    model.fit(generator.normal(size=(16, 5)), generator.normal(size=(16, 2)), verbose=0)
    plan = plan_shrink(model, RandomChannels())
    small = shrink(model, plan, optimizer=True)
    shapes = [tuple(v.shape) for v in small.optimizer.variables if "momentum" in v.path]
    assert sorted(shapes) == sorted(tuple(v.shape) for v in small.trainable_variables)
    assert all(np.abs(v.numpy()).max() > 0 for v in small.optimizer.variables if "velocity" in v.path)


def test_the_optimizer_of_a_model_that_is_not_compiled_is_refused():
    model = nested()
    with pytest.raises(PruningError, match="optimizer=True needs a compiled model; 'outer' is not compiled"):
        shrink(model, plan_shrink(model, RandomChannels()), optimizer=True)


def test_an_optimizer_whose_slots_cannot_be_cut_is_refused():
    model, x, y = classifier("adafactor")
    model.fit(x, y, verbose=0)
    with pytest.raises(PruningError, match="of Adafactor .* Leave out optimizer=True|Adafactor"):
        shrink(model, plan_shrink(model, RandomChannels()), optimizer=True)


def test_the_small_model_trains_and_shrinks_again():
    model, x, y = classifier()
    once = shrink(model, plan_shrink(model, RandomChannels()))
    once.fit(x, y, verbose=0)
    twice = shrink(once, plan_shrink(once, RandomChannels(seed=1)))
    assert twice.get_layer("first").units == 5


class Squared(keras.Model):
    def train_step(self, data):
        return {"loss": ops.zeros(())}


class Tracked(Squared):
    """Passes on all that it is made from, as the classes of Keras' guides do."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.tracker = keras.metrics.Mean(name="loss")


class OwnInit(keras.Model):
    def __init__(self, width):
        x = keras.Input((4,))
        super().__init__(x, layers.Dense(2)(layers.Dense(width, name="first")(x)))
        self.width = width


@pytest.mark.parametrize("kind", [Squared, Tracked])
def test_a_class_with_its_own_train_step_stays(kind):
    x = keras.Input((4,))
    model = randomise(kind(x, layers.Dense(2)(layers.Dense(6)(x))))
    small = shrink(model, plan_shrink(model, RandomChannels()))
    assert type(small) is kind


def test_a_class_with_its_own_init_becomes_a_plain_model_and_says_so():
    model = randomise(OwnInit(6))
    with pytest.warns(UserWarning, match="OwnInit, whose __init__ makes its layers itself"):
        small = shrink(model, plan_shrink(model, RandomChannels()))
    assert type(small).__name__ == "Functional"


def test_sequential_stays_sequential():
    model = randomise(keras.Sequential([keras.Input((4,)), layers.Dense(6), layers.Dense(2)], name="chain"))
    _, small = check_shrinks(model)
    assert isinstance(small, keras.Sequential) and small.name == "chain"
    assert [layer.name for layer in small.layers] == [layer.name for layer in model.layers]


@pytest.mark.parametrize("name", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_shrinks(name):
    x = inputs = keras.Input((6,))
    x = layers.Dense(8, activation="relu", dtype=name)(x)
    model = randomise(keras.Model(inputs, layers.Dense(2, dtype="float32")(x)))
    plan = plan_shrink(model, RandomChannels())
    small = shrink(model, plan)
    assert small.layers[1].compute_dtype == model.layers[1].compute_dtype
    assert tfprune.certify(masked_copy(model, plan), small).largest < 1e-2  # half precision in another order


def test_open_sizes_stay_open():
    x = inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="first")(x)
    x = layers.Conv2D(6, 3, strides=2)(x)
    model = randomise(keras.Model(inputs, layers.GlobalAveragePooling2D()(x)))
    assert channel_groups(model)["first"].macs is None
    _, small = check_shrinks(model)
    assert small.input_shape == (None, None, None, 3)


def test_adapted_and_looked_up_preprocessing_comes_along():
    normalization = layers.Normalization(name="normalization")
    normalization.adapt(np.random.default_rng(0).normal(3.0, 2.0, size=(50, 4)))
    x = inputs = keras.Input((4,))
    x = layers.Dense(6)(normalization(x))
    check_shrinks(randomise_all_but(keras.Model(inputs, layers.Dense(2)(x)), normalization))


def randomise_all_but(model, layer):
    before = layer.get_weights()
    randomise(model)
    layer.set_weights(before)
    layer.finalize_state()
    return model


def test_an_embedding_table_given_as_a_constant_shrinks():
    table = np.random.default_rng(0).normal(size=(7, 6)).astype("float32")
    x = inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 6, embeddings_initializer=keras.initializers.Constant(table), name="table")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))
    _, small = check_shrinks(model)
    assert small.get_layer("table").output_dim == 4


def test_certificates_compare_every_output_and_print():
    model = two_ins_two_outs()
    plan = plan_shrink(model, RandomChannels())
    masked, small = masked_copy(model, plan), shrink(model, plan)
    data = {"image": np.ones((4, 6, 6, 3), "float32"), "extra": np.ones((4, 4), "float32")}
    certificate = tfprune.certify(masked, small, data)
    assert [row["output"] for row in certificate.rows()] == ["kind", "size"]
    assert certificate.exactness.name == "EXACT" and "only zeros were removed (4 inputs" in str(certificate)
    assert json.loads(certificate.to_json())["exactness"] == "exact"
    assert tfprune.certify(model, small, data).exactness.name == "APPROXIMATE"
    assert tfprune.certify(model, shrink(model, plan_shrink(model).keep("conv")), data).exactness.name == "EXACT"


def test_models_of_different_outputs_cannot_be_compared():
    x = keras.Input((4,))
    one, other = keras.Model(x, layers.Dense(2, name="a")(x)), keras.Model(x, layers.Dense(3)(x))
    with pytest.raises(PruningError, match=r"Output 'a' has shape \(8, 2\) in one model and \(8, 3\) in the other"):
        tfprune.certify(one, other)
    both = keras.Model(x, [layers.Dense(2)(x), layers.Dense(2)(x)], name="both")
    with pytest.raises(PruningError, match="has 1 outputs, 'both' 2"):
        tfprune.certify(one, both)


def test_approximate_shrinks_through_layer_normalization_and_says_so():
    x = inputs = keras.Input((6, 5))
    x = layers.Dense(16, activation="sigmoid", name="first")(x)
    x = layers.LayerNormalization(name="norm")(x)
    model = randomise(keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x))))
    assert channel_groups(model)["first"].frozen.layer == "norm"
    plan = plan_shrink(model, RandomChannels(), approximate=True)
    assert plan["first"].sum() == 11
    assert "not exact, 'norm'" in plan.rows()[0]["why"] and "approximate=True" in plan.notes()[-2]
    small = shrink(model, plan)
    assert small.get_layer("norm").gamma.shape == (11,)
    certificate = tfprune.certify(masked_copy(model, plan, approximate=True), small)
    assert certificate.exactness.name == "APPROXIMATE" and certificate.largest > 1e-5


def test_the_shrunk_network_of_a_masked_training_run_is_equal():
    model, x, y = classifier()
    model.fit(x, y, epochs=4, batch_size=16, verbose=0, callbacks=[tfprune.StructuredPruning(0.5)])
    plain = tfprune.strip_masks(model)
    small = tfprune.shrink(plain)
    assert small.get_layer("first").units == 5
    assert tfprune.certify(plain, small, x).exactness.name == "EXACT"


def test_resnet152_is_traced_in_time_linear_in_its_channels():
    model = keras.applications.ResNet152(weights=None, input_shape=(32, 32, 3))
    groups = channel_groups(model)
    labels = groups.trace.size
    pairs = sum(len(left) for left, _ in groups.trace.pairs)
    assert labels < 100_000 and pairs < 5 * labels  # each layer adds its channels once, not pairs of layers
    assert set(groups) - set(groups.free) == {"predictions"}


def test_an_operation_that_was_given_an_array_is_carried_over():
    x = keras.Input((8, 8, 3))
    y = ops.clip(layers.Conv2D(8, 3)(x), ops.convert_to_tensor(-0.5), ops.convert_to_tensor(0.5))
    check_shrinks(randomise(keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))))
