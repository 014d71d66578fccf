"""Cases of tfmot's pruning tests that no other test here holds; docs/tfmot_cases.md lists all of them one by one."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from battery import mask_of
from keras import layers
from tiny_models import numbers, tokens

import tfprune
from tfprune.errors import PruningError
from tfprune.model.prunable import every_weight
from tfprune.model.tree import wrapped_layers

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tfmot_cases.md").read_text(encoding="utf-8")


def listed():
    """The rows of the page: file, case, how many parameters it has there, and what holds it here."""
    file = ""
    for line in PAGE.splitlines():
        if line.startswith("## "):
            file = line[3:]
        row = re.match(r"\| `(\w+)` \| (\d+) \| (.*) \|$", line)
        if row:
            yield file, row[1], int(row[2]), row[3]


def test_the_page_lists_every_case_and_names_tests_that_exist():
    rows = list(listed())
    assert len({(file, case) for file, case, _, _ in rows}) == len(rows)
    pruning = sum(times for file, _, times, _ in rows if "prune_preserve" not in file)
    assert (pruning, sum(times for _, _, times, _ in rows)) == (210, 215)
    for file, case, _, held in rows:
        tests = re.findall(r"`(test_\w+)\.py::(test_\w+)`", held)
        assert tests or held.startswith("no meaning here: "), f"{file}: {case}"
        for name, test in tests:
            (path,) = (ROOT / "tests").rglob(f"{name}.py")
            assert re.search(rf"^(    )?def {test}\(", path.read_text(encoding="utf-8"), re.M), f"{name}.py::{test}"


def value(variable):
    return keras.ops.convert_to_numpy(variable)


@keras.saving.register_keras_serializable(package="tfprune_tests")
class OwnCell(layers.Layer):
    """A recurrent cell that no table of layers knows."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        self.recurrent_kernel = self.add_weight(shape=(self.units, self.units), name="recurrent_kernel")

    def call(self, inputs, states):
        output = keras.ops.matmul(inputs, self.kernel) + keras.ops.matmul(states[0], self.recurrent_kernel)
        return output, [output]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def several_cells():
    return layers.RNN([layers.LSTMCell(4), layers.GRUCell(3), layers.SimpleRNNCell(2)])


# A layer, the shape of a sample, and how many of its weights are pruned.
LAYERS = {
    "dense": (lambda: layers.Dense(4), (6,), 1),
    "conv1d": (lambda: layers.Conv1D(4, 2), (3, 6), 1),
    "conv2d": (lambda: layers.Conv2D(4, 2), (4, 6, 2), 1),
    "conv3d": (lambda: layers.Conv3D(2, 2), (3, 4, 3, 2), 1),
    "conv2d transposed": (lambda: layers.Conv2DTranspose(2, 3), (4, 5, 2), 1),
    "conv3d transposed": (lambda: layers.Conv3DTranspose(2, 2), (3, 4, 3, 2), 1),
    "separable1d": (lambda: layers.SeparableConv1D(4, 2), (3, 6), 2),
    "separable2d": (lambda: layers.SeparableConv2D(4, 2), (4, 6, 2), 2),
    "embedding": (lambda: layers.Embedding(10, 4), (5,), 1),
    "LSTM": (lambda: layers.LSTM(4), (3, 4), 2),
    "GRU": (lambda: layers.GRU(4), (3, 4), 2),
    "simple RNN": (lambda: layers.SimpleRNN(4), (3, 4), 2),
    "RNN of one cell": (lambda: layers.RNN(layers.LSTMCell(4, dropout=0.5, recurrent_dropout=0.5)), (3, 4), 2),
    "RNN of several cells": (several_cells, (3, 4), 6),
    "convolution in time": (lambda: layers.ConvLSTM2D(2, 2), (2, 4, 4, 2), 2),
    "dropout": (lambda: layers.Dropout(0.5), (6,), 0),
    "batch norm": (layers.BatchNormalization, (6,), 0),
    "synchronized batch norm": (lambda: layers.BatchNormalization(synchronized=True), (6,), 0),
    "rescaling": (lambda: layers.Rescaling(0.5), (6,), 0),
    "flatten": (layers.Flatten, (3, 2), 0),
    "pooling": (lambda: layers.MaxPooling2D(2), (4, 4, 2), 0),
}


@pytest.mark.parametrize("name", LAYERS)
def test_half_of_each_pruned_weight_of_a_layer_goes_and_stripping_changes_nothing(name):
    make, shape, count = LAYERS[name]
    keras.utils.set_random_seed(0)
    inputs = tokens(4, *shape) if name == "embedding" else numbers(4, *shape)
    x = keras.Input(shape, dtype=str(inputs.dtype))
    model = keras.Model(x, layers.Dense(2, name="head")(layers.Flatten()(make()(x))))
    wrapped = tfprune.wrap(model, tfprune.Percentile(tfprune.Constant(0.5), allocation="uniform"))
    assert sum(len(layer.masks) for layer in wrapped_layers(wrapped)) == count + 1
    wrapped.compile("sgd", "mse", run_eagerly=True)
    wrapped.fit(inputs, numbers(4, 2), batch_size=4, verbose=0, callbacks=[tfprune.UpdateMasks()])
    plain = tfprune.strip_masks(wrapped)
    masks = tfprune.get_masks(plain)
    assert len(masks) == count + 1
    assert {key: int((~mask).sum()) for key, mask in masks.items()} == {
        key: round(mask.size / 2) for key, mask in masks.items()
    }
    np.testing.assert_array_equal(value(plain(inputs)), value(wrapped(inputs)))


def test_a_cell_of_the_users_own_is_pruned_when_it_is_named_and_left_alone_with_its_neighbours_pruned():
    x = keras.Input((3, 4))
    y = layers.RNN([layers.LSTMCell(4, name="known"), OwnCell(3, name="mine")])(x)
    model = keras.Model(x, layers.Dense(2, name="head")(y))
    with pytest.warns(UserWarning, match="layers that are not Keras' own"):
        masks = tfprune.get_masks(tfprune.prune(model, 0.5))
    assert not any("mine" in key for key in masks)
    masks = tfprune.get_masks(tfprune.prune(model, tfprune.Percentile(0.5, allocation="uniform", layers=["mine"])))
    assert sorted(key.split("/")[-1] for key in masks) == ["kernel", "recurrent_kernel"]
    assert all((~mask).sum() == round(mask.size / 2) for mask in masks.values())


def test_a_model_that_is_wrapped_is_not_wrapped_again():
    wrapped = tfprune.wrap(keras.Sequential([keras.Input((4,)), layers.Dense(3)]), 0.5)
    with pytest.raises(PruningError, match=r"is wrapped already; strip_masks\(model\) gives the plain model"):
        tfprune.wrap(wrapped, 0.5)


@pytest.mark.parametrize("thing", [object(), 3, [layers.Dense(3)]])
def test_what_is_no_model_cannot_be_wrapped(thing):
    with pytest.raises(PruningError, match=type(thing).__name__):
        tfprune.wrap(thing, 0.5)


def test_configurations_before_wrapping_and_after_stripping_are_equal():
    first, second = keras.Input((6,), name="first"), keras.Input((6,), name="second")
    total = layers.Add(name="sum")([layers.Dense(4, name="left")(first), layers.Dense(4, name="right")(second)])
    for model in (
        keras.Model([first, second], total, name="two_inputs"),
        keras.Sequential([keras.Input((6,)), layers.Dense(4, name="one"), layers.Dense(2, name="two")], name="row"),
    ):
        wrapped = tfprune.wrap(model, 0.5)
        assert len(wrapped_layers(wrapped)) == 2
        plain = tfprune.strip_masks(wrapped)
        assert [layer.get_config() for layer in plain.layers] == [layer.get_config() for layer in model.layers]
        assert plain.built


def test_a_wrapped_model_answers_and_is_evaluated_without_a_callback():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="relu"), layers.Dense(2)])
    wrapped = tfprune.wrap(model, 0.5)
    wrapped.compile("sgd", "mse", jit_compile=False)
    x = numbers(8, 4)
    np.testing.assert_array_equal(wrapped.predict(x, verbose=0), model.predict(x, verbose=0))
    assert np.isfinite(wrapped.evaluate(x, numbers(8, 2), verbose=0))
    assert all(mask.all() for mask in tfprune.get_masks(wrapped).values())


def test_the_last_of_a_hundred_weights_stays_where_the_amount_is_short_of_all():
    weight = np.linspace(1.0, 100.0, 100, dtype=np.float32).reshape(10, 10)
    uniform = tfprune.Percentile(0.99, allocation="uniform")
    assert np.flatnonzero(mask_of(uniform, weight)).tolist() == [99]
    assert mask_of(uniform, weight, 0.5).sum() == 50
    # An amount that a computation has brought a little above a fifth removes a fifth.
    assert mask_of(uniform, weight[:1], 0.200000018)[0].tolist() == [0, 0] + [1] * 8


GROUPS = {  # kept of each group along the inputs, weight as [input, output], mask
    "2:4": ((2, 4), [[0.4, -3.0], [-0.1, 2.0], [0.9, 0.2], [-0.5, 0.1]], [[0, 1], [0, 1], [1, 0], [1, 0]]),
    "1:2": ((1, 2), [[0.4, -3.0], [-0.1, 2.0], [0.9, 0.2], [-0.5, 0.1]], [[1, 1], [0, 0], [1, 1], [0, 0]]),
    "3:5": ((3, 5), [[1.0], [-2.0], [3.0], [0.5], [-4.0]], [[0], [1], [1], [0], [1]]),
    "fewer than a group": ((2, 4), [[0.4, -3.0], [-0.1, 2.0], [0.9, 0.2]], [[1, 1], [0, 1], [1, 0]]),
    "no more than are kept": ((2, 4), [[0.4], [-0.1]], [[1], [1]]),
}


@pytest.mark.parametrize("window", [(), (1,), (1, 1), (1, 1, 1)], ids=len)
@pytest.mark.parametrize("name", GROUPS)
def test_groups_along_the_inputs_of_kernels_of_every_rank(name, window):
    (keep, group), weight, expected = GROUPS[name]
    method = tfprune.Percentile(pattern=tfprune.NofM(keep, group))
    found = mask_of(method, np.reshape(weight, (*window, *np.shape(weight))))
    np.testing.assert_array_equal(found, np.reshape(expected, found.shape))


@pytest.mark.parametrize(("keep", "group"), [(4, 4), (5, 4)])
def test_groups_that_would_keep_all_are_refused(keep, group):
    with pytest.raises(PruningError, match=rf"{keep}.*{group}"):
        tfprune.NofM(keep, group)


def test_blocks_go_by_what_they_hold_on_average_and_by_their_largest_where_a_criterion_says_so():
    weight = [[0.1, 0.0, 0.2, 0.2], [0.1, 0.0, 0.2, 0.2], [0.3, 0.3, 0.0, 0.0], [0.3, 0.3, 0.0, 0.9]]
    mean = tfprune.Percentile(0.5, pattern="2x2", allocation="uniform")
    assert mask_of(mean, weight)[::2, ::2].tolist() == [[0, 0], [1, 1]]

    def largest(kernel):  # what a block holds at most, as the share of each of its entries
        most = np.abs(kernel).reshape(2, 2, 2, 2).max(axis=(1, 3))
        return most.repeat(2, axis=0).repeat(2, axis=1)

    weight[2][2:], weight[3][2:], weight[0][2] = [0.25, 0.25], [0.25, 0.25], 0.95
    most = tfprune.Percentile(0.5, criterion=largest, pattern="2x2", allocation="uniform")
    assert mask_of(most, weight)[::2, ::2].tolist() == [[0, 1], [1, 0]]


def start(x, **arguments):
    return layers.Conv2D(4, **{"kernel_size": 3, "strides": 2, **arguments})(layers.ZeroPadding2D(1)(x))


def pointwise(x, **arguments):
    return layers.Conv2D(8, 1, **arguments)(x)


def network(body, begin=start, end=None):
    x = keras.Input((8, 8, 3))
    return keras.Model(x, (end or layers.GlobalAveragePooling2D())(body(begin(x))))


def twice(x):
    layer = layers.Conv2D(4, 1)
    return layer(layer(x))


def sums(x):
    other = layers.Conv2D(4, 1)(x)
    return (x + other) * other


# A network, and how many of its layers zeros make faster in XNNPACK.
XNNPACK = {
    "a first layer of another window": (lambda: network(pointwise, lambda x: start(x, kernel_size=5)), 0),
    "no mean at the end": (lambda: network(pointwise, end=layers.AveragePooling2D(2)), 0),
    "a pooling in between": (lambda: network(lambda x: layers.MaxPooling2D(2)(pointwise(x))), 0),
    "a network inside": (
        lambda: network(keras.Sequential([keras.Input((4, 4, 4)), layers.Conv2D(8, 1), layers.Conv2D(8, 1)])),
        2,
    ),
    "a layer called twice": (lambda: network(twice), 1),
    "nothing to prune": (lambda: network(layers.DepthwiseConv2D(3, padding="same")), 0),
    "sums and products": (lambda: network(sums), 1),
    "a clone": (lambda: keras.models.clone_model(network(pointwise)), 1),
    "a pruned model": (lambda: tfprune.prune(network(pointwise), 0.7), 1),
    "Keras' own padding": (lambda: network(pointwise, layers.Conv2D(4, 3, 2, padding="same")), 1),
}


@pytest.mark.parametrize("name", XNNPACK)
def test_the_plan_for_xnnpack_takes_the_layers_that_its_kernels_reach(name):
    build, count = XNNPACK[name]
    try:
        rows = tfprune.plan_sparse(build(), "web").rows()
    except PruningError as error:
        assert count == 0 and "no layer" in str(error)
        return
    assert sum(row["kernel"] is not None for row in rows) == count


def test_kernels_alone_are_counted_among_the_weights_of_a_network_of_several_kinds():
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            *(layers.Conv2D(4, 3), layers.MaxPooling2D(2), layers.Conv2D(4, 3), layers.Flatten()),
            *(layers.Dense(8), layers.Dropout(0.4), layers.Dense(3)),
        ]
    )
    wrapped = tfprune.wrap(model, 0.5)
    assert sum(len(layer.masks) for layer in wrapped_layers(wrapped)) == 4
    again = keras.Sequential.from_config(wrapped.get_config())
    assert [layer.method for layer in wrapped_layers(again)] == [layer.method for layer in wrapped_layers(wrapped)]
    assert sum(weight.is_kernel for weight in every_weight(model)) == 4
