"""Criteria from data against hand-worked values and finite differences."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune
from tfprune.deciding import criteria, salience
from tfprune.deciding.criterion import Context, Statistic
from tfprune.deciding.salience import Activation, DataCriterion, Fisher, Grasp, Hessian, SynapticFlow, Taylor, Wanda
from tfprune.deciding.statistics import gather
from tfprune.errors import PruningError

L = keras.layers
X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
Y = np.random.default_rng(1).normal(size=(12, 2)).astype("float32")
LOSS_CRITERIA = ["gradient_norm", "taylor", "normalized_sensitivity", "fisher", "hessian", "snip", "grasp"]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    made = keras.Sequential(
        [keras.Input((4,)), L.Dense(3, activation="tanh", name="hidden"), L.Dense(2, name="last")], name="tiny"
    )
    made.compile("sgd", "mse")
    return made


def loss_of(model, key, kernel, x=X, y=Y):
    layer = model.get_layer(key.split("/")[0])
    before = layer.kernel.numpy()
    layer.kernel.assign(kernel)
    value = float(np.mean((np.asarray(model(x), np.float64) - y) ** 2))
    layer.kernel.assign(before)
    return value


def differences(model, key, step=1e-2, **data):
    kernel = model.get_layer(key.split("/")[0]).kernel.numpy()
    found = np.zeros(kernel.shape)
    for place in np.ndindex(*kernel.shape):
        shift = np.zeros_like(kernel)
        shift[place] = step
        found[place] = (loss_of(model, key, kernel + shift, **data) - loss_of(model, key, kernel - shift, **data)) / (
            2 * step
        )
    return found


@pytest.mark.parametrize("key", ["hidden/kernel", "last/kernel"])
def test_gradients_are_those_of_finite_differences_whatever_the_batches(model, key):
    expected = differences(model, key)
    for data in ((X, Y), tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)):
        statistics = gather(model, [key], Taylor(), data)
        np.testing.assert_allclose(statistics.extras[key]["gradient"], expected, atol=2e-3)
    assert (statistics.batches, statistics.samples) == (3, 12)
    assert str(statistics) == "1 weights, from 12 samples in 3 batches"


def test_squared_gradients_are_the_mean_over_batches(model):
    single = tf.data.Dataset.from_tensor_slices((X, Y)).batch(1)
    found = gather(model, ["last/kernel"], Fisher(), single).extras["last/kernel"]["squared_gradient"]
    expected = np.mean(
        [differences(model, "last/kernel", x=X[i : i + 1], y=Y[i : i + 1]) ** 2 for i in range(12)], axis=0
    )
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=2e-3)


def test_curvature_of_a_linear_model_is_exact():
    # Of mean (w x)^2 with orthogonal inputs the Hessian is diagonal, and Hutchinson's estimate without error.
    linear = keras.Sequential([keras.Input((2,)), L.Dense(1, use_bias=False, name="only")])
    linear.compile("sgd", "mse")
    x, y = np.array([[2.0, 0.0], [0.0, 4.0]], "float32"), np.zeros((2, 1), "float32")
    found = gather(linear, ["only/kernel"], Hessian(), (x, y)).extras["only/kernel"]["curvature"]
    np.testing.assert_allclose(found, [[4.0], [16.0]], rtol=1e-5)  # 2 mean x^2


def test_gradient_flow_is_the_hessian_times_the_gradient():
    linear = keras.Sequential([keras.Input((2,)), L.Dense(1, use_bias=False, name="only")])
    linear.compile("sgd", "mse")
    linear.layers[0].kernel.assign([[1.0], [3.0]])
    x, y = np.array([[2.0, 0.0], [0.0, 4.0]], "float32"), np.zeros((2, 1), "float32")
    found = gather(linear, ["only/kernel"], Grasp(), (x, y)).extras["only/kernel"]["gradient_flow"]
    np.testing.assert_allclose(found, [[4.0 * 4.0], [16.0 * 48.0]], rtol=1e-5)


def test_synaptic_flow_by_hand_needs_no_data_and_sees_through_softmax():
    small = keras.Sequential(
        [keras.Input((2,)), L.Dense(2, name="a", activation="relu"), L.Dense(1, name="b", activation="softmax")]
    )
    small.get_layer("a").kernel.assign([[1.0, -2.0], [3.0, 4.0]])
    small.get_layer("b").kernel.assign([[-5.0], [6.0]])
    extras = gather(small, ["a/kernel", "b/kernel"], SynapticFlow()).extras
    np.testing.assert_array_equal(extras["a/kernel"]["synaptic_flow"], [[5.0, 6.0], [5.0, 6.0]])
    np.testing.assert_array_equal(extras["b/kernel"]["synaptic_flow"], [[4.0], [6.0]])
    assert small.get_layer("b").activation is keras.activations.softmax
    np.testing.assert_array_equal(small.get_layer("b").kernel, [[-5.0], [6.0]])


def test_input_scale_is_the_root_mean_square_of_each_input(model):
    found = gather(model, ["hidden/kernel"], Wanda(), X).extras["hidden/kernel"]["input_scale"]
    np.testing.assert_allclose(found, np.sqrt(np.mean(X**2, axis=0))[:, None].repeat(3, axis=1), rtol=1e-5)


def test_activation_adds_up_to_the_mean_size_of_the_channel():
    keras.utils.set_random_seed(1)
    convolutional = keras.Sequential([keras.Input((6, 6, 2)), L.Conv2D(4, 3, activation="relu", name="conv")])
    x = np.random.default_rng(2).normal(size=(5, 6, 6, 2)).astype("float32")
    found = gather(convolutional, ["conv/kernel"], Activation(), x).extras["conv/kernel"]["activation"]
    expected = np.abs(np.asarray(convolutional(x))).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(found.sum(axis=(0, 1, 2)), expected, rtol=1e-4)


@pytest.mark.parametrize("name", [*LOSS_CRITERIA, "synflow", "wanda", "activation", "normalized_magnitude"])
def test_every_criterion_prunes_the_exact_share_and_is_the_same_each_time(model, name):
    method = tfprune.Percentile(0.5, criterion=name, allocation="global")
    first, second = (tfprune.prune(model, method, (X, Y)) for _ in range(2))
    masks = tfprune.get_masks(first)
    assert sum(np.count_nonzero(~mask) for mask in masks.values()) == 9
    for key, mask in tfprune.get_masks(second).items():
        np.testing.assert_array_equal(mask, masks[key])
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(method)) == method


def test_channels_go_by_their_outputs(model):
    quiet = keras.models.clone_model(model)
    quiet.set_weights(model.get_weights())
    kernel = quiet.get_layer("hidden").kernel.numpy()
    kernel[:, 1] *= 1e-3
    quiet.get_layer("hidden").kernel.assign(kernel)
    method = tfprune.Structured(1 / 3, criterion="activation", layers="hidden")
    kept = tfprune.get_masks(tfprune.prune(quiet, method, X))["hidden/kernel"]
    np.testing.assert_array_equal(kept.all(axis=0), [True, False, True])


@pytest.mark.parametrize("name", ["taylor", "fisher", "hessian"])
def test_recurrent_attention_and_embedding_weights_have_gradients(name):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((5,), dtype="int32")
    x = L.Embedding(7, 4, name="words")(inputs)
    x = L.MultiHeadAttention(2, 2, name="attention")(x, x)
    text = keras.Model(inputs, L.Dense(1)(L.GRU(3, name="gru")(x)))
    text.compile("sgd", "mse")
    tokens = np.random.default_rng(3).integers(0, 7, (8, 5))
    pruned = tfprune.prune(text, tfprune.Percentile(0.5, criterion=name), (tokens, np.ones((8, 1))))
    masks = tfprune.get_masks(pruned)
    assert {"words/embeddings", "gru/gru_cell/kernel", "attention/query/kernel"} <= masks.keys()


def test_the_loss_may_be_named_on_an_uncompiled_model(model):
    bare = keras.Sequential([keras.Input((4,)), L.Dense(3, activation="tanh", name="hidden"), L.Dense(2, name="last")])
    bare.set_weights(model.get_weights())
    named = gather(bare, ["last/kernel"], Taylor(loss="mse"), (X, Y)).extras["last/kernel"]["gradient"]
    own = gather(model, ["last/kernel"], Taylor(), (X, Y)).extras["last/kernel"]["gradient"]
    np.testing.assert_allclose(named, own, rtol=1e-5)
    criterion = Taylor(loss=keras.losses.Huber(delta=2.0))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(criterion))
    assert again == criterion
    with pytest.raises(PruningError, match=r"is not compiled. Compile it, or name the loss: Taylor\(loss="):
        tfprune.prune(bare, tfprune.Percentile(0.5, criterion="taylor"), (X, Y))


def test_wrong_data_are_told(model):
    method = tfprune.Percentile(0.5, criterion="taylor")
    with pytest.raises(PruningError, match=r"Taylor\(\) needs data: write data=x"):
        tfprune.prune(model, method)
    with pytest.raises(PruningError, match=r"needs targets for its loss; write data=\(x, y\)"):
        tfprune.prune(model, method, X)
    with pytest.raises(PruningError, match=r"cannot be computed for targets of shape \[\(12, 5\)\]"):
        tfprune.prune(model, method, (X, np.zeros((12, 5))))
    with pytest.raises(PruningError, match="the loss is nan on a batch of the data"):
        tfprune.prune(model, method, (X, np.full((12, 2), np.nan)))
    with pytest.raises(PruningError, match=r"Taylor\(\) needs the gradient of 'w', which only a pass over data"):
        Taylor()(np.ones(2), Context("w"))
    recurrent = keras.Sequential([keras.Input((5, 4)), L.LSTM(3, name="lstm")])
    with pytest.raises(PruningError, match="is not defined for 'lstm/lstm_cell/kernel'"):
        tfprune.prune(recurrent, tfprune.Percentile(0.5, criterion="wanda"), np.zeros((2, 5, 4)))
    with pytest.raises(PruningError, match="arrays of 11 and 12 samples"):
        tfprune.prune(model, method, (X, Y[:11]))
    with pytest.raises(PruningError, match=r"write data=dataset.take\(10\)"):
        tfprune.prune(model, method, tf.data.Dataset.from_tensors((X, Y)).repeat())


def test_every_data_criterion_has_a_name():
    kinds = {kind for kind in vars(salience).values() if isinstance(kind, type) and issubclass(kind, DataCriterion)}
    assert kinds - {DataCriterion} <= set(criteria.NAMES.values())


@pytest.fixture(scope="module")
def normed():
    keras.utils.set_random_seed(1)
    made = keras.Sequential(
        [keras.Input((6, 6, 2)), L.Conv2D(4, 3, name="conv"), L.BatchNormalization(name="norm"), L.ReLU(), L.Flatten()]
    )
    made.get_layer("norm").beta.assign([-0.5, 0.0, 0.5, 1.0])
    return made


@pytest.mark.parametrize("measure", ["mean", "nonzero", "percentile"])
def test_outputs_are_measured_behind_batch_norm_and_activation(normed, measure):
    x = np.random.default_rng(2).normal(size=(5, 6, 6, 2)).astype("float32")
    outputs = np.asarray(normed(x)).reshape(-1, 4)
    expected = {
        "mean": outputs.mean(axis=0),
        "nonzero": (outputs > 0).mean(axis=0),
        "percentile": np.percentile(outputs, 80, axis=0),
    }[measure]
    found = gather(normed, ["conv/kernel"], Activation(measure, percentile=80.0), x).extras["conv/kernel"]["activation"]
    np.testing.assert_allclose(found.sum(axis=(0, 1, 2)), expected, rtol=1e-4, atol=1e-6)


def test_an_activation_that_several_layers_share_is_not_measured_for_one_of_them():
    relu = L.ReLU(name="shared")
    inputs = keras.Input((4,))
    first = L.Dense(3, name="first")
    model = keras.Model(inputs, L.Dense(3, name="second")(relu(first(inputs))) + relu(L.Dense(3, name="other")(inputs)))
    found = gather(model, ["first/kernel"], Activation("nonzero"), X).extras["first/kernel"]["activation"]
    np.testing.assert_allclose(found.sum(axis=0), (np.asarray(first(X)) > 0).mean(axis=0), rtol=1e-5)


def test_wrong_measures_are_told():
    with pytest.raises(PruningError, match="there is no measure 'nonzeros'. Did you mean 'nonzero'"):
        Activation("nonzeros")
    with pytest.raises(PruningError, match=r"percentile=101 is not in \[0, 100\]"):
        Activation("percentile", percentile=101)


@pytest.mark.parametrize("name", [*LOSS_CRITERIA, "synflow", "wanda", "activation"])
def test_in_mixed_precision_scores_are_close_to_those_in_full(policy, name):
    def built():
        keras.utils.set_random_seed(0)
        made = keras.Sequential(
            [keras.Input((4,)), L.Dense(3, activation="tanh", name="hidden"), L.Dense(2, dtype="float32", name="last")]
        )
        made.compile("sgd", "mse")
        return made

    criterion = criteria.get(name)
    full = gather(built(), ["hidden/kernel"], criterion, (X, Y)).extras["hidden/kernel"][criterion.needs.name]
    policy("mixed_float16")
    half = gather(built(), ["hidden/kernel"], criterion, (X, Y)).extras["hidden/kernel"][criterion.needs.name]
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, full, rtol=0.05, atol=0.02 * np.abs(full).max())


# What a criterion needs


@pytest.mark.parametrize("name", ["gradient_norm", "fisher", "wanda", "activation"])
def test_a_last_batch_that_is_smaller_counts_by_its_samples(model, name):
    # Ten samples and then two: the mean over samples, in which those two count no more than the others.
    criterion = criteria.get(name)
    (whole, parts) = (
        gather(model, ["hidden/kernel"], criterion, data).extras["hidden/kernel"][criterion.needs.name]
        for data in ([(X[:10], Y[:10])] * 5 + [(X[10:], Y[10:])], [(X[:10], Y[:10]), (X[10:], Y[10:])])
    )
    one, two = (
        gather(model, ["hidden/kernel"], criterion, (x, y)).extras["hidden/kernel"][criterion.needs.name] ** power
        for x, y in ((X[:10], Y[:10]), (X[10:], Y[10:]))
        for power in [2 if name == "wanda" else 1]
    )
    power = 0.5 if name == "wanda" else 1
    np.testing.assert_allclose(parts, ((10 * one + 2 * two) / 12) ** power, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(whole, ((50 * one + 2 * two) / 52) ** power, rtol=1e-4, atol=1e-7)


def test_a_criterion_of_ones_own_brings_the_statistic_that_it_needs(model):
    class Largest(Statistic):
        name = "largest"

        def __call__(self, batch):
            return [np.full(weight.shape, np.abs(batch.inputs).max()) for weight in self.weights]

    class Own(DataCriterion):
        needs = Largest

        def __call__(self, weight, context):
            return np.abs(weight) * self.statistic(context)

    found = gather(model, ["last/kernel"], Own(), X).extras["last/kernel"]["largest"]
    np.testing.assert_allclose(found, np.full((3, 2), np.abs(X).max()), rtol=1e-6)
    pruned = tfprune.prune(model, tfprune.Percentile(0.5, criterion=Own()), X)
    assert sum(np.count_nonzero(~mask) for mask in tfprune.get_masks(pruned).values()) == 9


def test_an_unknown_need_is_told(model):
    class Lost(DataCriterion):
        needs = "third_derivative"

        def __call__(self, weight, context):
            return self.statistic(context)

    message = r"Lost\(\) needs 'third_derivative', which is no statistic; write a class of .* needs = MeanGradient"
    with pytest.raises(PruningError, match=message):
        tfprune.prune(model, tfprune.Percentile(0.5, criterion=Lost()), (X, Y))
    with pytest.raises(PruningError, match=message):
        Lost()(np.ones(2), Context("w"))
    with pytest.raises(PruningError, match=message):
        model.fit(X, Y, verbose=0, callbacks=[tfprune.PercentilePruning(0.5, criterion=Lost())])


def test_criteria_from_data_are_found_without_importing_their_module_for_it():
    code = "from tfprune.deciding.criteria import get; print(get('taylor'))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["Taylor()"]
    assert tfprune.salience is salience and tfprune.criteria is criteria
