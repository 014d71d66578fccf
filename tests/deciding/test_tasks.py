"""Importance for several outputs at once: by hand, whatever the units of their losses, for weights and for channels."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune import PruningError
from tfprune.deciding.salience import Fisher, MultiTask
from tfprune.deciding.statistics import gather

L = keras.layers
X = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
KIND, BOX = X[:, :4] @ np.eye(4, 2, dtype="float32"), X[:, 4:] @ np.eye(4, 2, dtype="float32")


def two_headed(scale=1.0, **arguments):
    """Eight units of a trunk: the output "kind" reads the first four, and "box", times a scale, the others."""
    inputs = keras.Input((8,))
    trunk = L.Dense(8, use_bias=False, name="trunk")(inputs)
    heads = {name: L.Dense(2, use_bias=False, name=name)(trunk) for name in ("kind", "box")}
    model = keras.Model(inputs, heads)
    random = np.random.default_rng(1)
    size = np.array([4.0, 3.0, 2.0, 1.0], "float32")[:, None]
    noise = 0.01 * random.normal(size=(2, 8, 2)).astype("float32")
    model.get_layer("trunk").kernel.assign(np.eye(8, dtype="float32"))
    model.get_layer("kind").kernel.assign(noise[0] + np.concatenate([size * [[1, 1]], np.zeros((4, 2))]))
    model.get_layer("box").kernel.assign(scale * (noise[1] + np.concatenate([np.zeros((4, 2)), size * [[1, 1]]])))
    model.compile("sgd", {"kind": "mse", "box": "mse"}, **arguments)
    return model, {"kind": KIND, "box": scale * BOX}


def kept_units(criterion, scale=1.0, amount=0.5):
    model, y = two_headed(scale)
    method = tfprune.Structured(amount, criterion=criterion, layers="trunk")
    kept = tfprune.get_masks(tfprune.prune(model, method, (X, y)))["trunk/kernel"].all(axis=0)
    return np.flatnonzero(kept).tolist()


def test_the_statistic_is_the_sum_of_squares_over_what_both_outputs_share():
    model, y = two_headed()
    found = gather(model, ["trunk/kernel", "kind/kernel"], MultiTask({"kind": 3.0}), (X, y)).extras
    trunk, heads = np.eye(8), {name: np.asarray(model.get_layer(name).kernel, float) for name in y}
    expected, own = np.zeros((8, 8)), np.zeros((8, 2))
    for name, part in (("kind", 3.0), ("box", 1.0)):
        error = 2 * (X @ trunk @ heads[name] - y[name]) / y[name].size  # of the mean over samples and values
        square = np.square(X.T @ error @ heads[name].T)
        total = np.sum(np.square(trunk) * square)
        expected += part * square / total
        own += part * np.square((X @ trunk).T @ error) / total if name == "kind" else 0.0
    np.testing.assert_allclose(found["trunk/kernel"]["task_gradients"], expected, rtol=1e-3)
    np.testing.assert_allclose(found["kind/kernel"]["task_gradients"], own, rtol=1e-3)
    assert np.sum(np.square(trunk) * expected) == pytest.approx(4.0)  # of the shared weights, the parts


def test_no_output_decides_by_the_unit_of_its_loss():
    """At a hundred times the unit of the box, Fisher keeps the units of the box alone; half are of each before."""
    kept = kept_units("multi_task")
    assert kept == kept_units("multi_task", scale=100.0)
    assert [unit < 4 for unit in kept] == [True, True, False, False]
    assert kept_units("fisher", scale=100.0) == [4, 5, 6, 7]


def test_weights_say_what_an_output_is_worth():
    assert kept_units(MultiTask({"box": 0.0})) == [0, 1, 2, 3]
    assert kept_units(MultiTask({"kind": 1e-6})) == [4, 5, 6, 7]
    model, y = two_headed()
    method = tfprune.Percentile(60 / 64, criterion=MultiTask({"kind": 0.0}), allocation="global", layers="trunk")
    masks = tfprune.get_masks(tfprune.prune(model, method, (X, y)))
    assert np.count_nonzero(~masks["trunk/kernel"]) == 60
    assert masks["trunk/kernel"][np.diag_indices(8)].tolist() == [False] * 4 + [True] * 4


def test_losses_may_be_named_and_samples_may_have_weights():
    model, y = two_headed()
    bare = keras.models.clone_model(model)
    bare.set_weights(model.get_weights())
    keys = ["trunk/kernel"]
    compiled = gather(model, keys, MultiTask(), (X, y)).extras["trunk/kernel"]["task_gradients"]
    for loss in ("mse", {"kind": "mse", "box": keras.losses.MeanSquaredError()}):
        named = gather(bare, keys, MultiTask(loss=loss), (X, y)).extras["trunk/kernel"]["task_gradients"]
        np.testing.assert_allclose(named, compiled, rtol=1e-5)
    only = np.arange(32) < 16
    half = gather(model, keys, MultiTask(), (X[:16], keras.tree.map_structure(lambda a: a[:16], y))).extras
    weighted = gather(model, keys, MultiTask(), (X, y, {"kind": only, "box": only})).extras
    given, wanted = (extras["trunk/kernel"]["task_gradients"] for extras in (weighted, half))
    np.testing.assert_allclose(given, wanted, rtol=1e-4)
    criterion = MultiTask({"kind": 2.0}, loss={"kind": keras.losses.Huber(), "box": "mae"})
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(criterion))
    assert again == criterion and again.weights == {"kind": 2.0}
    np.testing.assert_array_equal(
        *(gather(model, keys, each, (X, y)).extras["trunk/kernel"]["task_gradients"] for each in (again, criterion))
    )


def test_of_one_output_the_order_is_that_of_fisher():
    model = keras.Sequential([keras.Input((8,)), L.Dense(4, name="a"), L.Dense(1, name="b")])
    model.compile("sgd", "binary_crossentropy")
    data = X, (X[:, 0] > 0).astype("float32")  # (n,) for outputs (n, 1)
    kept = [
        tfprune.get_masks(tfprune.prune(model, tfprune.Percentile(0.5, criterion=each, allocation="global"), data))
        for each in (MultiTask(), Fisher())
    ]
    for key in kept[0]:
        np.testing.assert_array_equal(kept[0][key], kept[1][key])


def test_wrong_outputs_weights_and_data_are_told():
    model, y = two_headed()

    def prune(data, **arguments):
        tfprune.prune(model, tfprune.Percentile(0.5, criterion=MultiTask(**arguments)), data)

    with pytest.raises(PruningError, match="weights names the output 'boxes'. Did you mean 'box'"):
        prune((X, y), weights={"boxes": 2.0})
    with pytest.raises(PruningError, match="loss names the output 'sort'. Known names: 'box', 'kind'"):
        prune((X, y), loss={"sort": "mse"})
    with pytest.raises(PruningError, match=r"needs targets for the output 'box'; write data=\(x, {'box': ..., 'kind'"):
        prune((X, {"kind": y["kind"]}))
    with pytest.raises(PruningError, match=r"MultiTask: weights\['box'\]=-1 is no number of 0 or more; write 1.0"):
        MultiTask({"box": -1})
    with pytest.raises(PruningError, match="weights=2.0 says nothing of the outputs; write weights="):
        MultiTask(2.0)
    with pytest.raises(PruningError, match="leaves no output that counts; give one of them more than 0"):
        prune((X, y), weights={"box": 0, "kind": 0})
    bare = keras.models.clone_model(model)
    bare.compile("sgd")
    with pytest.raises(
        PruningError, match="needs the losses of the outputs 'box', 'kind', and '.*' is compiled with no"
    ):
        tfprune.prune(bare, tfprune.Percentile(0.5, criterion="multi_task"), (X, y))
    with pytest.raises(PruningError, match="MultiTask.. needs the task gradients of 'w', which only a pass over data"):
        MultiTask()(np.ones(2), tfprune.criteria.Context("w"))
