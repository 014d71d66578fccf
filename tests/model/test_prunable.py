import warnings

import keras
import numpy as np
import pytest
from keras import layers
from tiny_models import Mixing

import tfprune
from tfprune.errors import PruningError
from tfprune.model.prunable import every_weight, prunable_weights
from tfprune.model.selectors import amount_for, selectors


def keys(model, choice=None):
    return [weight.key for weight in prunable_weights(model, choice)]


def model_of(layer, *shapes, dtype=None):
    inputs = [keras.Input(shape, dtype=dtype) for shape in shapes]
    outputs = layer(*inputs)
    return keras.Model(inputs, outputs)


class Scaled(layers.Layer):
    """A layer of the user's own, with a matrix, a row and a matrix that is not trained."""

    def build(self, shape):
        self.matrix = self.add_weight(shape=(shape[-1], 3), name="matrix")
        self.row = self.add_weight(shape=(3,), name="row")
        self.table = self.add_weight(shape=(2, 2), name="table", trainable=False)
        self.built = True

    def call(self, x):
        return x @ self.matrix + self.row


class Wide(layers.Dense):
    """A subclass of a known layer."""


@keras.saving.register_keras_serializable(package="tfprune_tests")
class Tower(layers.Layer):
    """A composite layer with a list of layers and one more."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.steps = [layers.Dense(4, name=f"step{index}") for index in range(2)]
        self.norm = layers.LayerNormalization(name="norm")

    def call(self, x):
        for step in self.steps:
            x = step(x)
        return self.norm(x)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.conv = layers.Conv2D(4, 3, name="conv")
        self.tower = Tower(name="tower")
        self.head = layers.Dense(2, name="head")

    def call(self, x):
        return self.head(self.tower(self.conv(x)))


# Which weights are kernels


KINDS = {
    "dense": (lambda: layers.Dense(3, name="l"), [(4,)], ["l/kernel"]),
    "subclass of dense": (lambda: Wide(3, name="l"), [(4,)], ["l/kernel"]),
    "einsum": (lambda: layers.EinsumDense("ab,bc->ac", 3, bias_axes="c", name="l"), [(4,)], ["l/kernel"]),
    "conv1d": (lambda: layers.Conv1D(3, 2, name="l"), [(4, 4)], ["l/kernel"]),
    "conv2d": (lambda: layers.Conv2D(3, 2, name="l"), [(4, 4, 4)], ["l/kernel"]),
    "conv2d in groups": (lambda: layers.Conv2D(4, 2, groups=2, name="l"), [(4, 4, 4)], ["l/kernel"]),
    "conv3d": (lambda: layers.Conv3D(3, 2, name="l"), [(4, 4, 4, 4)], ["l/kernel"]),
    "conv1d transposed": (lambda: layers.Conv1DTranspose(3, 2, name="l"), [(4, 4)], ["l/kernel"]),
    "conv2d transposed": (lambda: layers.Conv2DTranspose(3, 2, name="l"), [(4, 4, 4)], ["l/kernel"]),
    "conv3d transposed": (lambda: layers.Conv3DTranspose(3, 2, name="l"), [(4, 4, 4, 4)], ["l/kernel"]),
    "depthwise 1d": (lambda: layers.DepthwiseConv1D(2, name="l"), [(4, 4)], ["l/kernel"]),
    "depthwise 2d": (lambda: layers.DepthwiseConv2D(2, name="l"), [(4, 4, 4)], ["l/kernel"]),
    "separable 1d": (
        lambda: layers.SeparableConv1D(3, 2, name="l"),
        [(4, 4)],
        ["l/depthwise_kernel", "l/pointwise_kernel"],
    ),
    "separable 2d": (
        lambda: layers.SeparableConv2D(3, 2, name="l"),
        [(4, 4, 4)],
        ["l/depthwise_kernel", "l/pointwise_kernel"],
    ),
    "embedding": (lambda: layers.Embedding(5, 3, name="l"), [(4,)], ["l/embeddings"]),
    "attention": (
        lambda: layers.MultiHeadAttention(2, 3, name="l"),
        [(4, 6), (4, 6)],
        ["l/query/kernel", "l/key/kernel", "l/value/kernel", "l/attention_output/kernel"],
    ),
    "grouped attention": (
        lambda: layers.GroupQueryAttention(4, 4, 2, name="l"),
        [(4, 6), (4, 6)],
        ["l/query/kernel", "l/key/kernel", "l/value/kernel", "l/attention_output/kernel"],
    ),
    "lstm": (
        lambda: layers.LSTM(3, name="l"),
        [(4, 6)],
        ["l/lstm_cell/kernel", "l/lstm_cell/recurrent_kernel"],
    ),
    "gru": (lambda: layers.GRU(3, name="l"), [(4, 6)], ["l/gru_cell/kernel", "l/gru_cell/recurrent_kernel"]),
    "simple rnn": (
        lambda: layers.SimpleRNN(3, name="l"),
        [(4, 6)],
        ["l/simple_rnn_cell/kernel", "l/simple_rnn_cell/recurrent_kernel"],
    ),
    "rnn of stacked cells": (
        lambda: layers.RNN([layers.GRUCell(3, name="one"), layers.LSTMCell(2, name="two")], name="l"),
        [(4, 6)],
        [
            "l/stacked_rnn_cells/one/kernel",
            "l/stacked_rnn_cells/one/recurrent_kernel",
            "l/stacked_rnn_cells/two/kernel",
            "l/stacked_rnn_cells/two/recurrent_kernel",
        ],
    ),
    "conv lstm": (
        lambda: layers.ConvLSTM2D(3, 2, name="l"),
        [(3, 5, 5, 2)],
        ["l/conv_lstm_cell/kernel", "l/conv_lstm_cell/recurrent_kernel"],
    ),
    "bidirectional": (
        lambda: layers.Bidirectional(layers.GRU(3, name="gru"), name="l"),
        [(4, 6)],
        [
            "l/forward_gru/gru_cell/kernel",
            "l/forward_gru/gru_cell/recurrent_kernel",
            "l/backward_gru/gru_cell/kernel",
            "l/backward_gru/gru_cell/recurrent_kernel",
        ],
    ),
    "time distributed": (
        lambda: layers.TimeDistributed(layers.Conv2D(3, 2, name="conv"), name="l"),
        [(3, 5, 5, 2)],
        ["l/conv/kernel"],
    ),
    "time distributed model": (
        lambda: layers.TimeDistributed(
            keras.Sequential([keras.Input((4,)), layers.Dense(3, name="dense")], name="frame"), name="l"
        ),
        [(2, 4)],
        ["l/frame/dense/kernel"],
    ),
    "composite layer": (lambda: Tower(name="l"), [(6,)], ["l/step0/kernel", "l/step1/kernel"]),
}


def without_numbers(key):
    """Keras numbers the names that it makes up: `gru_cell_3`."""
    return "/".join(part.rsplit("_", 1)[0] if part.rsplit("_", 1)[-1].isdigit() else part for part in key.split("/"))


@pytest.mark.parametrize("build, shapes, expected", KINDS.values(), ids=KINDS)
def test_kernels_of_every_kind_of_layer(build, shapes, expected):
    model = model_of(build(), *shapes)
    found = prunable_weights(model)
    assert sorted(without_numbers(weight.key) for weight in found) == sorted(expected)
    assert all(weight.is_kernel and len(weight.shape) >= 2 for weight in found)
    assert all(any(weight.variable is variable for variable in model.trainable_variables) for weight in found)
    assert len({id(weight.variable) for weight in found}) == len(found)


NOT_PRUNED = {
    "norms": (layers.BatchNormalization, (4,)),
    "layer norm": (layers.LayerNormalization, (4,)),
    "slopes": (layers.PReLU, (4,)),
    "statistics": (lambda: layers.Normalization(mean=0.0, variance=1.0), (4,)),
    "no weights": (lambda: layers.Rescaling(0.5), (4,)),
    "own class": (Scaled, (4,)),
}


@pytest.mark.parametrize("build, shape", NOT_PRUNED.values(), ids=NOT_PRUNED)
def test_what_is_no_kernel_is_passed_over(build, shape):
    model = keras.Sequential([keras.Input(shape), build(), layers.Dense(2, name="head")])
    assert keys(model) == ["head/kernel"]


def test_nested_models_are_entered_however_deep():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="dense")], name="inner")
    middle = keras.Sequential([keras.Input((4,)), inner, layers.Dense(4, name="dense")], name="middle")
    model = keras.Sequential([keras.Input((4,)), middle, layers.Dense(2, name="dense")])
    assert keys(model) == ["middle/inner/dense/kernel", "middle/dense/kernel", "dense/kernel"]


def test_shared_layers_count_once():
    shared = layers.Dense(3, name="shared")
    left, right = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([left, right], layers.Dense(1, name="head")(shared(left) + shared(right)))
    assert keys(model) == ["shared/kernel", "head/kernel"]


def test_tied_weights_count_once():
    class Untied(layers.Layer):
        """Reads the table of an embedding backwards, as language models do at their end."""

        def __init__(self, embedding, **kwargs):
            super().__init__(**kwargs)
            self.embedding = embedding

        def call(self, x):
            return x @ keras.ops.transpose(self.embedding.embeddings)

    embedding = layers.Embedding(7, 4, name="words")
    tokens = keras.Input((3,), dtype="int32")
    model = keras.Model(tokens, Untied(embedding, name="logits")(embedding(tokens)))
    assert keys(model) == ["words/embeddings"]


def test_a_variable_that_two_layers_hold_counts_once():
    class Borrowed(layers.Dense):
        def __init__(self, owner, **kwargs):
            super().__init__(owner.units, **kwargs)
            self.owner = [owner.kernel]  # a list of one, so that the layer itself is not tracked

        def build(self, shape):
            self._kernel = self.owner[0]
            self.bias = None
            self.built = True

    owner = layers.Dense(4, name="owner")
    x = keras.Input((4,))
    y = owner(x)
    model = keras.Model(x, Borrowed(owner, name="borrowed", use_bias=False)(y))
    weights = list(every_weight(model))
    assert len({id(weight.variable) for weight in weights}) == len(weights)


def test_subclassed_models():
    model = Subclassed()
    model(np.zeros((1, 5, 5, 2), np.float32))
    assert keys(model) == ["conv/kernel", "tower/step0/kernel", "tower/step1/kernel", "head/kernel"]


def test_layers_of_one_name_get_keys_of_their_own():
    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = (layers.Dense(2, name="twin") for _ in range(3))

        def call(self, x):
            return self.three(self.two(self.one(x)))

    model = Twins()
    model(np.zeros((1, 2), np.float32))
    assert keys(model) == ["twin/kernel", "twin_again/kernel", "twin_again_again/kernel"]


def test_frozen_kernels_are_pruned_like_others():
    dense = layers.Dense(3, name="frozen", trainable=False)
    assert keys(model_of(dense, (4,))) == ["frozen/kernel"]


def test_weights_that_are_not_floating_point_are_passed_over():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="whole"), layers.Dense(2, name="head")])
    model.get_layer("whole").quantize("int8")
    assert keys(model) == ["head/kernel"]
    half = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="half", dtype="bfloat16")])
    assert keys(half) == ["half/kernel"]


# layers=


@pytest.fixture(scope="module")
def network():
    backbone = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, name="conv1"),
            layers.BatchNormalization(name="norm"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Conv2D(4, 3, name="conv2"),
        ],
        name="backbone",
    )
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            backbone,
            layers.Flatten(name="flatten"),
            Scaled(name="scaled"),
            Wide(5, name="wide"),
            layers.Dense(2, name="head"),
        ],
        name="network",
    )


ALL = [
    "backbone/conv1/kernel",
    "backbone/depthwise/kernel",
    "backbone/conv2/kernel",
    "wide/kernel",
    "head/kernel",
]


@pytest.mark.parametrize(
    "choice, expected",
    [
        (None, ALL),
        ("head", ["head/kernel"]),
        (["head", "conv1"], ["backbone/conv1/kernel", "head/kernel"]),
        (("head", "conv1"), ["backbone/conv1/kernel", "head/kernel"]),
        ("backbone/conv1", ["backbone/conv1/kernel"]),
        ("backbone", ALL[:3]),
        ("conv*", ["backbone/conv1/kernel", "backbone/conv2/kernel"]),
        ("backbone/*", ["backbone/conv1/kernel", "backbone/depthwise/kernel", "backbone/conv2/kernel"]),
        ("*", ALL),
        ("Conv2D", ["backbone/conv1/kernel", "backbone/conv2/kernel"]),
        (layers.Conv2D, ["backbone/conv1/kernel", "backbone/conv2/kernel"]),
        (layers.Dense, ["wide/kernel", "head/kernel"]),
        (Wide, ["wide/kernel"]),
        ([layers.DepthwiseConv2D, "head"], ["backbone/depthwise/kernel", "head/kernel"]),
        ({"head": 0.5, layers.DepthwiseConv2D: 0.1}, ["backbone/depthwise/kernel", "head/kernel"]),
        (lambda layer: layer.name.startswith("conv"), ["backbone/conv1/kernel", "backbone/conv2/kernel"]),
        (lambda layer: not isinstance(layer, layers.Dense), ALL[:3]),
        ("head/kernel", ["head/kernel"]),
        ("head/bias", ["head/bias"]),
        ("*/bias", ["backbone/conv1/bias", "backbone/depthwise/bias", "backbone/conv2/bias", "wide/bias", "head/bias"]),
        ("backbone/norm/gamma", ["backbone/norm/gamma"]),
        ("scaled", ["scaled/matrix"]),
        (Scaled, ["scaled/matrix"]),
        ("scaled/row", ["scaled/row"]),
        (["scaled", "head"], ["scaled/matrix", "head/kernel"]),
    ],
)
def test_every_form_of_layers(network, choice, expected):
    found = keys(network, choice)
    # `*` in names also means what it means for weights, so biases named by a star are asked for.
    if choice in ("*", "backbone/*"):
        assert [key for key in found if key.endswith("kernel")] == expected
    else:
        assert found == expected


def test_a_layer_itself(network):
    assert keys(network, network.get_layer("head")) == ["head/kernel"]
    assert keys(network, [network.get_layer("head"), network.get_layer("backbone")]) == [*ALL[:3], "head/kernel"]


def test_names_of_layers_inside_attention():
    model = model_of(layers.MultiHeadAttention(2, 3, name="attention"), (4, 6), (4, 6))
    assert keys(model, "attention/query") == ["attention/query/kernel"]
    assert keys(model, "EinsumDense") == keys(model, "attention") == keys(model)
    assert keys(model, layers.MultiHeadAttention) == keys(model)


def test_amount_for_a_weight_is_that_of_the_last_name_that_matches(network):
    weights = {weight.key: weight for weight in prunable_weights(network)}
    amounts = {layers.Conv2D: 0.5, "conv2": 0.7, "backbone/conv1/kernel": 0.2}
    assert amount_for(weights["backbone/conv1/kernel"], amounts) == 0.2
    assert amount_for(weights["backbone/conv2/kernel"], amounts) == 0.7
    assert amount_for(weights["head/kernel"], amounts) is None


def test_selectors_are_names_a_predicate_or_none(network):
    assert selectors(None) is None
    assert selectors({"a": 1, layers.Dense: 2}) == ["a", "Dense"]
    assert selectors(network.get_layer("head")) == ["head"]
    assert selectors(name for name in ("a", "b")) == ["a", "b"]
    assert selectors(callable) is callable


def test_every_weight_covers_biases_norms_and_own_weights(network):
    found = [weight.key for weight in every_weight(network)]
    assert len(found) == len(set(found)) == len(network.weights)
    assert {"backbone/norm/moving_mean", "head/bias", "scaled/row", "scaled/table"} < set(found)
    assert [weight.key for weight in every_weight(network, "head")] == ["head/kernel", "head/bias"]


# Errors


@pytest.mark.parametrize(
    "choice, message",
    [
        ("haed", r"layers='haed' matches no layer of 'network'. Did you mean 'head' or"),
        (["head", "conv9"], r"layers='conv9' matches no layer of 'network'."),
        ("backbone/conv", r"Did you mean 'backbone/conv2' or 'backbone/conv1'"),
        (layers.LSTM, r"layers='LSTM' matches no layer of 'network'"),
        ("zzzz", r"matches no layer of 'network'. Known names: 'backbone', 'backbone/conv1', .* and 1 more"),
        ("flatten", r"layers='flatten' is in 'network', but has no weight of rank 2 or more .* such as 'flatten/bias'"),
        ("backbone/norm", r"layers='backbone/norm' is in 'network', but has no weight of rank 2"),
        ("norm", r"layers='norm' is in 'network', but has no weight of rank 2"),
        (lambda layer: False, r"'network' has no prunable weight under layers=<function .*'backbone/conv1'"),
        ([], r"'network' has no prunable weight under layers=\[\]"),
        (3, r"layers=3 is no choice of layers; give names, layer classes, layers, a mapping"),
        ([3], r"layers: 3 names no layer; give a name, a layer class or a layer"),
        (int, r"names no layer"),
    ],
)
def test_errors_of_layers(network, choice, message):
    with pytest.raises(PruningError, match=message):
        prunable_weights(network, choice)


def test_a_model_with_nothing_to_prune_says_what_it_has():
    model = keras.Sequential([keras.Input((4,)), layers.BatchNormalization(name="norm")], name="norms")
    with pytest.raises(PruningError, match=r"'norms' has no prunable weight: none of its layers \('norm'\) has"):
        prunable_weights(model)


def test_many_parameters_that_are_left_alone_are_told():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(2, name="out")(Mixing(6, name="experts")(inputs)))
    with pytest.warns(
        UserWarning, match=r"% of the parameters .* \('experts'\) and stay.*layers=\['experts', \.\.\.\]"
    ):
        masked = tfprune.prune(model, tfprune.Percentile(0.5))
    assert (np.asarray(masked.get_layer("experts").mix) != 0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tfprune.prune(model, tfprune.Percentile(0.5, layers=["experts", "out"]))


@pytest.mark.skipif(not hasattr(layers, "ReversibleEmbedding"), reason="since Keras 3.12")
def test_both_tables_of_a_reversible_embedding_are_kernels():
    tokens = keras.Input((3,), dtype="int32")
    layer = layers.ReversibleEmbedding(9, 4, tie_weights=False, name="words")
    model = keras.Model(tokens, layer(layer(tokens), reverse=True))
    assert {w.key for w in prunable_weights(model)} == {"words/embeddings", "words/reverse_embeddings"}
