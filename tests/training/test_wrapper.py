import copy
import pickle

import keras
import numpy as np
import pytest
from keras import layers
from tiny_models import GRAPHS, Mixing, Network, make, numbers, tokens

import tfprune
from tfprune.errors import PruningError
from tfprune.model.tree import wrapped_layers

HALF = tfprune.Percentile(tfprune.OneShot(0.5), allocation="uniform")


def value(variable):
    return keras.ops.convert_to_tensor(variable).numpy()


def values(model):
    return [value(variable) for variable in model.weights]


def assert_same_masks(found, expected):
    assert found.keys() == expected.keys()
    for key, mask in expected.items():
        np.testing.assert_array_equal(found[key], mask, err_msg=key)


def answers(model, inputs):
    return keras.tree.map_structure(value, model(inputs))


def trained(model, inputs, targets, **fit):
    model.fit(inputs, targets, **{"batch_size": 2, "verbose": 0, "callbacks": [tfprune.UpdateMasks()], **fit})
    return model


@pytest.mark.parametrize("name", GRAPHS)
def test_a_wrapped_model_answers_the_same_trains_and_is_saved_with_its_masks(name, tmp_path):
    model, inputs, targets = make(name)
    before, expected = values(model), answers(model, inputs)
    wrapped = tfprune.wrap(model, HALF)
    np.testing.assert_array_equal(answers(wrapped, inputs), expected)

    trained(wrapped, inputs, targets)
    masks = tfprune.get_masks(wrapped)
    assert masks
    for key, mask in masks.items():
        assert np.count_nonzero(~mask) == round(0.5 * mask.size), key

    wrapped.save(tmp_path / "wrapped.keras")
    loaded = keras.models.load_model(tmp_path / "wrapped.keras")
    assert_same_masks(tfprune.get_masks(loaded), masks)
    np.testing.assert_array_equal(answers(loaded, inputs), answers(wrapped, inputs))

    plain = tfprune.strip_masks(loaded)
    assert not wrapped_layers(plain)
    assert "PrunedLayer" not in plain.to_json()
    assert_same_masks(tfprune.get_masks(plain), masks)
    np.testing.assert_array_equal(answers(plain, inputs), answers(loaded, inputs))
    assert [layer.name for layer in plain.layers if layer.weights] == [
        layer.name for layer in model.layers if layer.weights
    ]
    assert [variable.shape for variable in plain.weights] == [variable.shape for variable in model.weights]

    for now, then in zip(values(model), before):  # and the first model was never touched
        np.testing.assert_array_equal(now, then)
    assert not {id(variable) for variable in model.weights} & {id(variable) for variable in wrapped.weights}


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        (
            "convolutional",
            ["conv/kernel", "depthwise/kernel", "separable/depthwise_kernel", "separable/pointwise_kernel"],
        ),
        ("transposed", ["up/kernel", "conv/kernel"]),
        (
            "recurrent",
            [
                "embedding/embeddings",
                *(
                    f"both/{way}_lstm/lstm_cell/{kind}"
                    for way in ("forward", "backward")
                    for kind in ("kernel", "recurrent_kernel")
                ),
                "gru/gru_cell/kernel",
                "gru/gru_cell/recurrent_kernel",
                "simple/simple_rnn_cell/kernel",
                "simple/simple_rnn_cell/recurrent_kernel",
            ],
        ),
        (
            "attention",
            [
                "embedding/embeddings",
                *(f"attention/{part}/kernel" for part in ("query", "key", "value", "attention_output")),
            ],
        ),
        ("contracted", ["einsum/kernel", "each/dense/kernel"]),
        ("nested", ["backbone/dense/kernel", "backbone/inner/dense/kernel"]),
        ("siamese", ["shared/kernel", "tower/dense/kernel"]),
        ("own_layers", ["block/first/kernel", "block/rest_0/kernel", "block/rest_1/kernel"]),
        ("subclass_inside", ["inside/hidden/kernel", "inside/head/kernel"]),
    ],
)
def test_kernels_carry_masks_and_nothing_else_does(name, kernels):
    model, _, _ = make(name)
    assert sorted(tfprune.get_masks(tfprune.wrap(model, 0.5))) == sorted([*kernels, "head/kernel"])


def test_a_layer_of_the_users_own_class_is_pruned_when_it_is_named():
    model, inputs, targets = make("own_layers")
    wrapped = trained(
        tfprune.wrap(model, tfprune.Percentile(0.5, layers=Mixing, allocation="uniform")), inputs, targets
    )
    masks = tfprune.get_masks(wrapped)
    assert {key: np.count_nonzero(~mask) for key, mask in masks.items()} == {"mixing/mix": 15, "mixing/back": 15}


class InASequence(layers.Layer):
    """Inner layers whose names Keras counts on from copy to copy."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = keras.Sequential([layers.Dense(4, activation="relu"), layers.Dense(3)])

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x)


def test_weights_are_masked_by_their_places_whatever_names_a_copy_gives_them(tmp_path):
    keras.saving.register_keras_serializable("tfprune_tests")(InASequence)
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layers.Dense(2)(InASequence(name="it")(inputs)))
    model.compile("sgd", "mse")
    x, y = numbers(4, 5), numbers(4, 2)
    expected = answers(model, x)
    wrapped = trained(tfprune.wrap(model, HALF), x, y)
    wrapped.save(tmp_path / "wrapped.keras")
    loaded = keras.models.load_model(tmp_path / "wrapped.keras")  # in which the names count on once more
    assert [mask.sum() for mask in tfprune.get_masks(loaded).values()] == [10, 6, 3]
    for one, other in zip(tfprune.get_masks(loaded).values(), tfprune.get_masks(wrapped).values(), strict=True):
        np.testing.assert_array_equal(one, other)
    plain = tfprune.strip_masks(loaded)
    np.testing.assert_array_equal(answers(plain, x), answers(wrapped, x))
    np.testing.assert_array_equal(answers(model, x), expected)


def test_a_network_by_arguments_is_stripped_to_one_that_keras_loads(tmp_path):
    model = Network()
    model.compile("sgd", "mse")
    wrapped = trained(tfprune.wrap(model, HALF), numbers(4, 5), numbers(4, 2))
    plain = tfprune.strip_masks(wrapped)
    assert type(plain) is Network  # its layers could not be read from a file
    plain.save(tmp_path / "plain.keras")
    x = numbers(4, 5)
    np.testing.assert_array_equal(answers(keras.models.load_model(tmp_path / "plain.keras"), x), answers(wrapped, x))


@keras.saving.register_keras_serializable("tfprune_tests")
class Reader(keras.Model):
    def __init__(self, width, name="reader", **kwargs):
        self.embedding = layers.ReversibleEmbedding(10, width, name="token_embedding")
        inputs = keras.Input((4,), dtype="int32")
        super().__init__(inputs, layers.Dense(width, name="dense")(self.embedding(inputs)), name=name, **kwargs)
        self.width = width

    def get_config(self):
        return {"width": self.width, "name": self.name}


@keras.saving.register_keras_serializable("tfprune_tests")
class Writer(keras.Model):
    """Calls a layer of the model inside it once more."""

    def __init__(self, reader, **kwargs):
        inputs = keras.Input((4,), dtype="int32")
        super().__init__(inputs, reader.embedding(reader(inputs), reverse=True), **kwargs)
        self.reader = reader

    def get_config(self):
        return {"reader": keras.saving.serialize_keras_object(self.reader), "name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("reader")), **config)


def test_a_network_that_shares_a_layer_with_a_network_inside_it_is_stripped_to_both_classes(tmp_path):
    # Keras saves plain functional models of that kind, and cannot load them.
    wrapped = tfprune.wrap(Writer(Reader(6)), tfprune.Percentile(0.5))
    wrapped.compile("sgd", "mse")
    words = np.arange(8).reshape(2, 4)
    wrapped.fit(words, np.zeros((2, 4, 10)), verbose=0, callbacks=[tfprune.UpdateMasks()])
    plain = tfprune.strip_masks(wrapped)
    assert (type(plain), type(plain.reader)) == (Writer, Reader)
    np.testing.assert_array_equal(plain(words), wrapped(words))
    plain.save(tmp_path / "plain.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "plain.keras")(words), plain(words))


def test_paths_are_the_same_in_every_copy_of_a_model_whose_classes_make_their_layers():
    first, second = (tfprune.get_masks(tfprune.wrap(make("own_layers")[0], 0.5)) for _ in range(2))
    assert list(first) == list(second)


def test_a_shared_layer_is_wrapped_once_and_counts_each_step_once():
    model, inputs, targets = make("siamese")
    schedule = tfprune.Linear(0.0, 0.5, begin=0, end=3, every=1)
    wrapped = tfprune.wrap(model, tfprune.Percentile(schedule, allocation="uniform"))
    assert sorted(layer.name for layer in wrapped_layers(wrapped)) == ["dense", "head", "shared"]
    zeros = []
    kernel = next(layer for layer in wrapped_layers(wrapped) if layer.name == "shared").layer.kernel
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: zeros.append(np.count_nonzero(value(kernel) == 0))
    )
    trained(wrapped, inputs, targets, callbacks=[tfprune.UpdateMasks(), count])
    assert zeros == [round(amount * 48) for amount in (0, 0.5 / 3, 1.0 / 3, 0.5)]


def test_a_wrapped_layer_takes_the_arguments_of_the_layer_inside():
    query, mask = keras.Input((3, 6)), keras.Input((3, 3), dtype="bool")
    attend = layers.MultiHeadAttention(2, 3, name="attention")
    model = keras.Model([query, mask], attend(query=query, value=query, attention_mask=mask, use_causal_mask=True))
    inputs = [numbers(2, 3, 6), np.random.default_rng(0).random((2, 3, 3)) > 0.4]
    wrapped = tfprune.wrap(model, 0.5)
    np.testing.assert_array_equal(answers(wrapped, inputs), answers(model, inputs))
    assert answers(wrapped, inputs).any()


def test_a_wrapped_recurrent_layer_takes_an_initial_state_and_returns_its_own(tmp_path):
    inputs, first, second = keras.Input((3, 6)), keras.Input((4,)), keras.Input((4,))
    outputs = layers.LSTM(4, return_state=True)(inputs, initial_state=[first, second])
    model = keras.Model([inputs, first, second], outputs)
    wrapped = tfprune.wrap(model, 0.5)
    wrapped.save(tmp_path / "wrapped.keras")
    batch = [numbers(2, 3, 6), numbers(2, 4), numbers(2, 4, seed=1)]
    for other in (wrapped, keras.models.load_model(tmp_path / "wrapped.keras")):
        for found, expected in zip(answers(other, batch), answers(model, batch), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_layer_is_wrapped_by_hand_whatever_it_is_called_on():
    inputs = keras.Input((3, 6))
    attention = tfprune.PrunedLayer(layers.MultiHeadAttention(2, 3, name="attention"), HALF)
    each = layers.TimeDistributed(tfprune.PrunedLayer(layers.Dense(3, name="dense"), HALF), name="each")
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(each(attention(inputs, inputs, use_causal_mask=True))))
    model.compile("sgd", "mse", jit_compile=False)
    trained(model, numbers(4, 3, 6), numbers(4, 3))
    masks = tfprune.get_masks(model)
    assert all(np.count_nonzero(~mask) == mask.size // 2 for mask in masks.values())
    plain = tfprune.strip_masks(model)
    assert not wrapped_layers(plain)
    assert sorted(tfprune.get_masks(plain)) == sorted(masks)
    np.testing.assert_array_equal(answers(plain, numbers(4, 3, 6)), answers(model, numbers(4, 3, 6)))


def test_weights_named_by_hand_are_pruned_like_kernels():
    dense = layers.Dense(4, bias_initializer="random_normal", name="dense")
    model = keras.Sequential([keras.Input((6,)), tfprune.PrunedLayer(dense, HALF, masked=["kernel", "bias"])])
    model.compile("sgd", "mse", jit_compile=False)
    trained(model, numbers(4, 6), numbers(4, 4))
    assert {key: np.count_nonzero(~mask) for key, mask in tfprune.get_masks(model).items()} == {
        "dense/kernel": 12,
        "dense/bias": 2,
    }


def test_masks_that_the_method_gives_no_amount_are_an_error():
    method = tfprune.Percentile(0.5, layers={"first": 0.5})
    model = keras.Sequential(
        [
            keras.Input((6,)),
            tfprune.PrunedLayer(layers.Dense(6, name="first"), method),
            tfprune.PrunedLayer(layers.Dense(6, name="second"), method),
        ]
    )
    model.compile("sgd", "mse")
    with pytest.raises(PruningError, match=r"carry masks for 'second/kernel', to which layers=\{'first': 0.5\}"):
        trained(model, numbers(4, 6), numbers(4, 6))


def test_layers_of_equal_methods_share_one_budget_and_others_have_their_own():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            tfprune.PrunedLayer(layers.Dense(6, name="first"), tfprune.Percentile(0.5, allocation="global")),
            tfprune.PrunedLayer(layers.Dense(6, name="second"), tfprune.Percentile(0.5, allocation="global")),
            tfprune.PrunedLayer(layers.Dense(6, name="third"), tfprune.Percentile(0.25)),
        ]
    )
    model.layers[0].layer.kernel.assign(10 * np.ones((6, 6)) + numbers(6, 6))
    model.compile("sgd", "mse", jit_compile=False)
    trained(model, 0 * numbers(4, 6), numbers(4, 6))
    assert {key: np.count_nonzero(~mask) for key, mask in tfprune.get_masks(model).items()} == {
        "first/kernel": 0,
        "second/kernel": 36,
        "third/kernel": 9,
    }


def test_the_wrapped_layer_casts_by_its_own_policy(policy):
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, dtype="float32"), layers.Dense(3, dtype="mixed_float16")]
    )
    inputs = 1e-4 * numbers(8, 6)  # half precision would round these
    expected = answers(model, inputs)
    policy("mixed_float16")
    np.testing.assert_array_equal(answers(tfprune.wrap(model, 0.5), inputs), expected)


def test_frozen_layers_and_regularizers_are_kept():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, name="frozen", trainable=False),
            layers.Dense(3, kernel_regularizer="l2", activity_regularizer="l1", name="head"),
        ]
    )
    wrapped = tfprune.wrap(model, 0.5)
    head = wrapped.get_layer("head").layer
    assert [id(variable) for variable in wrapped.trainable_variables] == [id(head.kernel), id(head.bias)]
    inputs = numbers(8, 6)
    model(inputs), wrapped(inputs)
    assert [float(loss) for loss in wrapped.losses] == [float(loss) for loss in model.losses]
    assert len(model.losses) == 2


def test_the_compilation_is_copied_with_losses_that_nobody_registered():
    def own_loss(truth, found):
        return keras.ops.mean(keras.ops.abs(truth - found), axis=-1)

    model, inputs, targets = make(
        "dense",
        optimizer=keras.optimizers.AdamW(0.02, weight_decay=0.1, use_ema=True, gradient_accumulation_steps=2),
        loss=own_loss,
        metrics=["mae", keras.metrics.MeanSquaredError(name="error")],
        steps_per_execution=2,
    )
    wrapped = tfprune.wrap(model, HALF)
    assert wrapped.loss is own_loss
    assert wrapped.optimizer is not model.optimizer
    assert wrapped.optimizer.get_config() == model.optimizer.get_config()
    assert (wrapped.steps_per_execution, wrapped.jit_compile) == (2, False)
    assert wrapped.evaluate(inputs, targets, verbose=0, return_dict=True).keys() == {"loss", "mae", "error"}


def test_clones_deep_copies_and_pickles_carry_their_own_masks():
    model, inputs, targets = make("dense")
    wrapped = trained(tfprune.wrap(model, HALF), inputs, targets)
    clone = keras.models.clone_model(wrapped)
    clone.set_weights(wrapped.get_weights())
    for other in (clone, copy.deepcopy(wrapped), pickle.loads(pickle.dumps(wrapped))):
        assert_same_masks(tfprune.get_masks(other), tfprune.get_masks(wrapped))
        assert not {id(variable) for variable in other.weights} & {id(variable) for variable in wrapped.weights}
        other.compile("sgd", "mse", jit_compile=False)
        other.fit(inputs, targets, verbose=0)
        for key, mask in tfprune.get_masks(tfprune.strip_masks(other)).items():
            np.testing.assert_array_equal(mask, tfprune.get_masks(wrapped)[key])


def test_a_forgotten_callback_is_an_error_before_any_weight_changes():
    model, inputs, targets = make("dense")
    wrapped = tfprune.wrap(model, HALF)
    before = values(wrapped)
    with pytest.raises(PruningError, match=r"layer 'hidden' is being trained.*callbacks=\[tfprune.UpdateMasks\(\)\]"):
        wrapped.fit(inputs, targets, verbose=0)
    with pytest.raises(PruningError, match="UpdateMasks"):
        wrapped.train_on_batch(inputs, targets)
    with pytest.raises(PruningError, match="UpdateMasks"):
        wrapped(inputs, training=True)
    for now, then in zip(values(wrapped), before):
        np.testing.assert_array_equal(now, then)
    wrapped(inputs, training=False), wrapped.evaluate(inputs, targets, verbose=0)  # what does not train is free


def test_a_layer_that_its_share_leaves_whole_may_be_trained_further(tmp_path):
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(64), layers.Dense(1, kernel_initializer="ones", name="head")]
    )
    model.compile("sgd", "mse", jit_compile=False)
    wrapped = trained(tfprune.wrap(model, tfprune.Percentile(tfprune.OneShot(0.02))), numbers(4, 6), numbers(4, 1))
    assert tfprune.get_masks(wrapped)["head/kernel"].all()
    wrapped.save(tmp_path / "wrapped.keras")
    keras.models.load_model(tmp_path / "wrapped.keras").fit(numbers(4, 6), numbers(4, 1), verbose=0)


def test_training_may_be_asked_for_in_a_graph_as_for_dropout_at_inference():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(3, name="dense")(inputs, training=True))
    assert wrapped_layers(tfprune.wrap(model, 0.5))


@pytest.mark.parametrize(
    ("make_wrong", "message"),
    [
        (
            lambda: tfprune.wrap(make("subclassed")[0], 0.5),
            r"'perceptron' is a subclassed model \(Perceptron\).*PruningCallback",
        ),
        (
            lambda: tfprune.wrap(tfprune.wrap(make("dense")[0], 0.5), 0.5),
            r"is wrapped already; strip_masks\(model\) gives",
        ),
        (lambda: tfprune.wrap(keras.Sequential([layers.Dense(2)], name="raw"), 0.5), "'raw': it is not built yet"),
        (lambda: tfprune.wrap("model.keras", 0.5), r"Cannot wrap str: give a keras\.Model"),
        (lambda: tfprune.PrunedLayer("dense", 0.5), "'dense' is no layer; give one"),
        (
            lambda: tfprune.PrunedLayer(tfprune.PrunedLayer(layers.Dense(2, name="d"), 0.5), 0.5),
            "'d' is a PrunedLayer already",
        ),
        (
            lambda: tfprune.PrunedLayer(layers.ReLU(name="relu"), 0.5)(numbers(2, 2)),
            r"'relu' \(ReLU\) has no kernel to prune",
        ),
        (
            lambda: tfprune.PrunedLayer(layers.Dense(2, name="d"), 0.5, masked=["kernl"])(numbers(2, 2)),
            "'d' has no weight 'kernl' to mask. Did you mean 'kernel'?",
        ),
    ],
)
def test_what_cannot_be_wrapped_is_said_with_what_to_write(make_wrong, message):
    with pytest.raises(PruningError, match=message):
        make_wrong()


class Forgetful(layers.Layer):
    def __init__(self, units):
        super().__init__(name="forgetful")
        self.taken = units

    def build(self, shape):
        self.scale = self.add_weight(shape=(self.taken,), name="scale")

    def call(self, inputs):
        return inputs[:, : self.taken] * self.scale

    def get_config(self):
        return {"name": "forgetful"}


def test_a_layer_that_its_config_does_not_build_again_is_wrapped_and_stripped():
    model = keras.Sequential([keras.Input((6,)), Forgetful(4), layers.Dense(3)])
    wrapped = tfprune.wrap(model, 0.5)
    wrapped.compile("sgd", "mse")
    wrapped.fit(np.ones((8, 6)), np.ones((8, 3)), verbose=0, callbacks=[tfprune.UpdateMasks()])
    assert [type(layer) for layer in wrapped.layers] == [Forgetful, tfprune.PrunedLayer]
    plain = tfprune.strip_masks(wrapped)
    assert type(plain.layers[0]) is Forgetful and tfprune.summary(plain).sparsity == 0.5


def test_a_layer_that_can_be_made_again_in_no_way_is_named():
    model = keras.Sequential([keras.Input((6,)), Forgetful(4), layers.Dense(3)])
    kernel = model.layers[0].weights[0]
    model.layers[0].holds = lambda: kernel
    for function in (lambda: tfprune.wrap(model, 0.5), lambda: tfprune.strip_masks(model)):
        with pytest.raises(PruningError, match=r"'forgetful' \(Forgetful\) cannot be rebuilt.*Give its class"):
            function()


def test_a_class_that_makes_its_layers_itself_is_told_what_its_copy_loses():
    class Trainer(keras.Model):
        def __init__(self):
            inputs = keras.Input((6,))
            super().__init__(inputs, layers.Dense(3)(inputs), name="trainer")

    with pytest.warns(UserWarning, match="'trainer' is of class Trainer.*train_step, are not in the copy"):
        tfprune.wrap(Trainer(), 0.5)


def test_a_class_with_its_own_training_step_keeps_it():
    class Counting(keras.Model):
        steps = 0

        def train_step(self, data):
            Counting.steps += 1
            return super().train_step(data)

    inputs = keras.Input((6,))
    model = Counting(inputs, layers.Dense(3)(inputs))
    model.compile("sgd", "mse", run_eagerly=True)
    trained(tfprune.wrap(model, 0.5), numbers(4, 6), numbers(4, 3))
    assert Counting.steps == 2


def test_a_subclassed_model_that_wraps_its_layers_itself_is_pruned_and_says_how_to_become_plain():
    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.hidden = tfprune.PrunedLayer(layers.Dense(6), HALF)
            self.head = layers.Dense(3)

        def call(self, inputs):
            return self.head(self.hidden(inputs))

    model = Own()
    model(numbers(4, 6))
    model.compile("sgd", "mse", jit_compile=False)
    trained(model, numbers(4, 6), numbers(4, 3))
    masks = tfprune.get_masks(model)
    assert np.count_nonzero(~masks["hidden/kernel"]) == 18
    with pytest.raises(PruningError, match=r"'own' is a subclassed model \(Own\) that makes its wrapped layers itself"):
        tfprune.strip_masks(model)


def test_embedding_masks_reach_the_layers_behind():
    model, _, _ = make("recurrent")
    wrapped = tfprune.wrap(model, 0.5)
    padded = np.array([[3, 4, 0], [5, 0, 0]])
    np.testing.assert_array_equal(answers(wrapped, padded), answers(model, padded))
    without = keras.models.clone_model(model, clone_function=_without_masking)
    without.set_weights(model.get_weights())
    assert np.abs(answers(without, padded) - answers(model, padded)).max() > 1e-4  # the padding does matter here
    assert tokens(4, 3).min() == 0


def _without_masking(layer):
    config = layer.get_config()
    config.pop("mask_zero", None)
    return type(layer).from_config(config)


def test_a_clone_with_wrapped_layers_takes_the_weights_of_the_original_until_it_is_trained():
    model, inputs, targets = make("convolutional")

    def wrapped(layer):
        fresh = type(layer).from_config(layer.get_config())
        return tfprune.PrunedLayer(fresh, HALF) if isinstance(layer, layers.Conv2D) else fresh

    clone = keras.models.clone_model(model, clone_function=wrapped)
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(answers(clone, inputs), answers(model, inputs))
    assert len(clone.weights) == len(model.weights) and wrapped_layers(clone)
    clone.compile("sgd", "mse")
    trained(clone, inputs, targets)
    assert len(clone.weights) > len(model.weights)  # weights and masks go together from now on
    again = keras.models.clone_model(clone)
    again.set_weights(clone.get_weights())
    assert_same_masks(tfprune.get_masks(again), tfprune.get_masks(clone))
    assert len(tfprune.wrap(model, HALF).weights) > len(model.weights)
