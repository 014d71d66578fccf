import keras
import pytest
from keras import layers

import tfprune
from tfprune.model.layers import layer_macs
from tfprune.model.macs import model_macs
from tfprune.model.opened_macs import macs_of


def count(layer, *shape, **kwargs):
    inputs = keras.Input(shape)
    return model_macs(keras.Model(inputs, layer(inputs, **kwargs))).total


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (layers.Dense(5), (7,), 35),
        (layers.Dense(5), (3, 7), 105),
        (layers.EinsumDense("abc,cde->abde", (None, 2, 4)), (3, 7), 3 * 7 * 8),
        (layers.EinsumDense("...x,xy->...y", 5), (3, 7), 105),
        (layers.Conv1D(4, 3, padding="same"), (10, 2), 10 * 3 * 2 * 4),
        (layers.Conv2D(4, 3), (6, 5, 2), 4 * 3 * 9 * 2 * 4),
        (layers.Conv2D(4, 3, data_format="channels_first", padding="same"), (2, 6, 5), 30 * 9 * 2 * 4),
        (layers.Conv2D(8, 3, groups=2, padding="same"), (6, 6, 4), 36 * 9 * 2 * 8),
        (layers.Conv3D(2, 2, padding="same"), (3, 3, 3, 2), 27 * 8 * 4),
        (layers.Conv2DTranspose(3, 2, strides=2), (4, 4, 5), 16 * 4 * 15),
        (layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), (4, 4, 3), 16 * 9 * 6),
        (layers.SeparableConv2D(5, 3, padding="same"), (4, 4, 3), 16 * (27 + 15)),
        (layers.Embedding(10, 4), (6,), 0),
        (layers.BatchNormalization(), (6, 6, 3), 0),
        (layers.LSTM(4), (6, 3), 6 * (3 * 16 + 4 * 16)),
        (layers.GRU(4, return_sequences=True), (6, 3), 6 * (3 * 12 + 4 * 12)),
        (layers.SimpleRNN(4), (6, 3), 6 * (12 + 16)),
        (layers.Bidirectional(layers.SimpleRNN(4)), (6, 3), 2 * 6 * (12 + 16)),
        (layers.TimeDistributed(layers.Dense(5)), (6, 3), 6 * 15),
        (layers.ConvLSTM2D(2, 3, padding="same", return_sequences=True), (3, 4, 4, 2), 3 * 16 * (9 * 16 + 9 * 16)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, keras.Layer) else str(value),
)
def test_a_layer_counts_its_products(layer, shape, expected):
    assert count(layer, *shape) == expected


def test_attention_counts_projections_and_scores():
    x = keras.Input((6, 8))
    model = keras.Model(x, layers.MultiHeadAttention(2, 3, value_dim=5)(x, x))
    projections = 6 * (8 * 6 + 8 * 6 + 8 * 10 + 10 * 8)
    assert model_macs(model).total == projections + 6 * 6 * 2 * (3 + 5)


def test_products_of_activations_count():
    x, y = keras.Input((4, 6)), keras.Input((6, 5))
    assert model_macs(keras.Model([x, y], keras.ops.matmul(x, y))).total == 4 * 5 * 6
    z = keras.ops.einsum("bij,bjk->bik", x, y)
    assert model_macs(keras.Model([x, y], z)).total == 4 * 5 * 6


def test_a_shared_layer_counts_at_every_call_and_nested_models_are_opened():
    shared = layers.Dense(8, name="shared")
    inner_input = keras.Input((8,))
    inner = keras.Model(inner_input, layers.Dense(8, name="dense")(inner_input), name="inner")
    x = keras.Input((8,))
    macs = model_macs(keras.Model(x, inner(inner(shared(shared(x))))))
    assert macs.layers == {"shared": 128, "inner/dense": 128}


def test_open_sizes_are_none_until_a_shape_is_given():
    inner = keras.Sequential([keras.Input((None, None, 4)), layers.Conv2D(2, 1, name="inner_conv")], name="inner")
    x = keras.Input((None, None, 3))
    model = keras.Model(x, inner(layers.Conv2D(4, 3, padding="same", name="conv")(x)))
    assert model_macs(model).total is None
    assert model_macs(model, input_shape=(5, 6, 3)).layers == {"conv": 30 * 27 * 4, "inner/inner_conv": 30 * 8}


def test_a_layer_of_a_kind_not_known_is_listed():
    class Bilinear(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], shape[-1]))

        def call(self, x):
            return x * keras.ops.matmul(x, self.kernel)

    x = keras.Input((4,))
    macs = model_macs(keras.Model(x, layers.Dense(2, name="dense")(Bilinear(name="own")(x))))
    assert macs.unknown == ["own"]
    assert macs.layers == {"own": 0, "dense": 8}


def test_a_subclassed_model_has_no_counts():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3, name="dense")

        def call(self, x):
            return self.dense(x)

    model = Net()
    model(keras.ops.zeros((1, 2)))
    macs = model_macs(model)
    assert macs.layers == {"dense": None}
    assert macs.total is None


class Named(keras.Model):
    """A model of the user's own, in which the layers' attributes are not called as the layers are."""

    def __init__(self):
        super().__init__(name="named")
        self.first = layers.Dense(3)
        self.attention = layers.MultiHeadAttention(1, 2)

    def call(self, x):
        x = self.first(x)
        return self.attention(x, x)


def test_a_subclassed_model_is_not_known_whatever_its_attributes_are_called():
    model = Named()
    model(keras.ops.zeros((1, 4, 2)))
    assert model_macs(model).layers == {"first": None, "attention": None}


def test_a_subclassed_model_is_counted_in_the_graph_that_it_opens_into():
    model = Named()
    model(keras.ops.zeros((1, 4, 2)))
    x = keras.Input((4, 2))
    inner = layers.Dense(3)(x)
    graph = keras.Model(x, layers.MultiHeadAttention(1, 2)(inner, inner))
    macs = macs_of(model)
    assert list(macs.layers.values()) == list(model_macs(graph).layers.values())
    assert list(macs.layers) == ["first", "attention"]
    assert tfprune.summary(model).macs == model_macs(graph).total


def test_a_subclassed_model_inside_another_is_not_known():
    x = keras.Input((4, 2))
    model = keras.Model(x, layers.Dense(5, name="head")(Named()(x)))
    assert model_macs(model).layers == {"named/first": None, "named/attention": None, "head": 4 * 15}
    report = tfprune.summary(model)
    assert report.macs is None
    assert [row["macs"] for row in report.rows()] == [None, None, 60]


def test_stacked_cells_count_each_and_cells_of_the_users_own_are_not_known():
    class Cell(layers.Layer):
        state_size = 2

        def build(self, shape):
            self.matrix = self.add_weight(shape=(shape[-1], 2))

        def call(self, x, states):
            return x @ self.matrix, states

    assert count(layers.RNN([layers.GRUCell(3), layers.LSTMCell(2)]), 4, 6) == 4 * ((6 + 3) * 9 + (3 + 2) * 8)
    assert count(layers.RNN(Cell()), 4, 6) is None


def test_one_layer_can_be_counted_by_its_shapes():
    layer = layers.Dense(3)
    layer.build((None, 2))
    assert layer_macs(layer, (None, 2), (None, 3)) == 6
    assert layer_macs(layer, [(None, None, 2)], [(None, None, 3)]) is None


def test_mobilenet_v2_has_the_published_count():
    model = keras.applications.MobileNetV2(weights=None)
    assert model_macs(model).total == pytest.approx(300e6, rel=0.01)  # 300 M, Sandler et al. 2018, table 4
