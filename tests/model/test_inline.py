import re
import typing
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import tfprune
from tfprune.channels import channel_groups, plan_shrink
from tfprune.errors import PruningError
from tfprune.model.inline import open_model

random = np.random.default_rng(0)
IMAGES = random.normal(size=(4, 12, 12, 3)).astype("float32")
TOKENS = random.integers(1, 20, (4, 9)).astype("int32")


class Residual(layers.Layer):
    """A block of the user's without get_config."""

    def __init__(self, width):
        super().__init__()
        self.first = layers.Conv2D(width, 3, padding="same", use_bias=False)
        self.norm = layers.BatchNormalization()
        self.second = layers.Conv2D(width, 1)

    def call(self, x, training=None):
        return x + self.second(ops.relu(self.norm(self.first(x), training=training)))


class SqueezeExcite(layers.Layer):
    def __init__(self, width):
        super().__init__()
        self.squeeze = layers.Dense(width // 2, activation="relu")
        self.excite = layers.Dense(width, activation="sigmoid")

    def call(self, x):
        return x * self.excite(self.squeeze(ops.mean(x, axis=(1, 2), keepdims=True)))


class MBConv(layers.Layer):
    def __init__(self, width):
        super().__init__()
        self.expand = layers.Conv2D(2 * width, 1, activation="swish")
        self.depthwise = layers.DepthwiseConv2D(3, padding="same")
        self.excite = SqueezeExcite(2 * width)
        self.project = layers.Conv2D(width, 1)

    def call(self, x):
        return x + self.project(self.excite(self.depthwise(self.expand(x))))


class ConvNet(keras.Model):
    def __init__(self):
        super().__init__(name="conv_net")
        self.stem = layers.Conv2D(8, 3)
        self.blocks = [Residual(8), MBConv(8)]
        self.drop = layers.Dropout(0.5)
        self.head = layers.Dense(3)

    def call(self, x, training=None):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.drop(ops.mean(x, axis=(1, 2)), training=training))


class Attention(layers.Layer):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (layers.Dense(width) for _ in range(4))

    def split(self, x):
        batch, length, width = ops.shape(x)
        return ops.transpose(ops.reshape(x, (batch, length, self.heads, width // self.heads)), (0, 2, 1, 3))

    def call(self, x):
        q, k, v = (self.split(each(x)) for each in (self.query, self.key, self.value))
        scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / float(q.shape[-1]) ** 0.5
        mixed = ops.transpose(ops.matmul(ops.softmax(scores), v), (0, 2, 1, 3))
        return self.out(ops.reshape(mixed, ops.shape(x)))


class RMSNorm(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        return x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6) * self.scale


class Encoder(layers.Layer):
    def __init__(self, width, heads):
        super().__init__()
        self.attention, self.norm, self.last_norm = Attention(width, heads), RMSNorm(), layers.LayerNormalization()
        self.mlp = keras.Sequential([layers.Dense(2 * width, activation="gelu"), layers.Dense(width)])

    def call(self, x):
        x = x + self.attention(self.norm(x))
        return x + self.mlp(self.last_norm(x))


class Positions(layers.Layer):
    """A table of positions of its own, as long as the sequence."""

    def build(self, shape):
        self.table = self.add_weight(shape=(32, shape[-1]), initializer="normal", name="table")

    def call(self, x):
        return x + self.table[: ops.shape(x)[1]]


def text_encoder():
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = Positions(name="positions")(layers.Embedding(20, 16)(tokens))
    for _ in range(2):
        x = Encoder(16, 4)(x)
    return keras.Model(tokens, layers.Dense(2, name="answer")(layers.GlobalAveragePooling1D()(x)))


class VisionTransformer(keras.Model):
    """With a class token and positions that are weights of the model itself."""

    def __init__(self):
        super().__init__(name="vit")
        self.patches = layers.Conv2D(16, 4, strides=4)
        self.blocks = [Encoder(16, 2), Encoder(16, 2)]
        self.head = layers.Dense(3)

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, 16), initializer="normal", name="token")
        self.positions = self.add_weight(shape=(1, 10, 16), initializer="normal", name="positions")

    def call(self, x):
        x = self.patches(x)
        x = ops.reshape(x, (ops.shape(x)[0], -1, 16))
        token = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, 16))
        x = ops.concatenate([token, x], axis=1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


class Tower(layers.Layer):
    def __init__(self):
        super().__init__()
        self.table, self.dense = layers.Embedding(20, 8), layers.Dense(8, activation="relu")

    def call(self, x):
        return self.dense(ops.mean(self.table(x), axis=1))


class TwoTowers(keras.Model):
    """Takes a dict, gives a dict; one tower serves both inputs."""

    def __init__(self):
        super().__init__(name="towers")
        self.tower = Tower()

    def call(self, given):
        user, item = self.tower(given["user"]), self.tower(given["item"])
        return {"score": ops.sum(user * item, axis=-1), "user": user}


class VariationalDecoder(keras.Model):
    def __init__(self):
        super().__init__()
        self.encoder = keras.Sequential([layers.Flatten(), layers.Dense(12, activation="relu")])
        self.mean = layers.Dense(4)
        self.decoder = keras.Sequential([layers.Dense(432), layers.Reshape((12, 12, 3))])

    def call(self, x):
        mean = self.mean(self.encoder(x))
        return self.decoder(mean), mean


class Gated(layers.Layer):
    """Weights in a list, and a mask that it takes and passes on."""

    def __init__(self):
        super().__init__()
        self.supports_masking = True

    def build(self, shape):
        self.kernels = [self.add_weight(shape=(shape[-1], 8), name=f"kernel_{number}") for number in range(2)]

    def call(self, x, mask=None):
        x = ops.matmul(x, self.kernels[0]) * ops.sigmoid(ops.matmul(x, self.kernels[1]))
        return x if mask is None else x * ops.cast(mask, x.dtype)[..., None]


def masked():
    tokens = keras.Input((None,), dtype="int32")
    x = Gated()(layers.Embedding(20, 8, mask_zero=True)(tokens))
    return keras.Model(tokens, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))


class TiedWords(layers.Layer):
    """The table that reads words also scores them."""

    def __init__(self):
        super().__init__()
        self.table, self.dense = layers.Embedding(20, 8), layers.Dense(8)

    def call(self, x):
        return ops.matmul(self.dense(self.table(x)), ops.transpose(self.table.embeddings))


def tied():
    tokens = keras.Input((None,), dtype="int32")
    return keras.Model(tokens, TiedWords()(tokens))


def causal():
    class Causal(layers.Layer):
        def call(self, x):
            length = ops.shape(x)[1]
            allowed = ops.arange(length)[:, None] >= ops.arange(length)[None, :]
            scores = ops.where(allowed, ops.matmul(x, ops.transpose(x, (0, 2, 1))), -1e9)
            return ops.matmul(ops.softmax(scores), x)

    tokens = keras.Input((None,), dtype="int32")
    return keras.Model(tokens, Causal()(layers.Embedding(20, 8)(tokens)))


def called(model, inputs):
    model(inputs)
    return model


def standardized():
    class Standardized(layers.Conv2D):
        def call(self, x):
            kernel = self.kernel - ops.mean(self.kernel, axis=(0, 1, 2))
            return ops.conv(x, kernel, padding=self.padding) + self.bias

    image = keras.Input((12, 12, 3))
    return keras.Model(image, layers.Flatten()(Standardized(4, 3)(image)))


def recurrent():
    class Two(layers.Layer):
        def __init__(self):
            super().__init__()
            self.both = layers.Bidirectional(layers.LSTM(4, return_sequences=True))
            self.last = layers.GRU(3)

        def call(self, x):
            return self.last(self.both(x))

    tokens = keras.Input((None,), dtype="int32")
    return keras.Model(tokens, Two()(layers.Embedding(20, 8)(tokens)))


NETWORKS = {
    "subclassed CNN with residual, MBConv and SE blocks": (lambda: called(ConvNet(), IMAGES), IMAGES),
    "text encoder with attention and positions of its own": (text_encoder, TOKENS),
    "vision transformer with weights of the model itself": (lambda: called(VisionTransformer(), IMAGES), IMAGES),
    "masks": (masked, TOKENS * (random.random(TOKENS.shape) > 0.3)),
    "tied words": (tied, TOKENS),
    "causal": (causal, TOKENS),
    "two towers": (
        lambda: called(TwoTowers(), {"user": TOKENS, "item": TOKENS[:, ::-1]}),
        {"user": TOKENS, "item": TOKENS[:, ::-1]},
    ),
    "two outputs": (lambda: called(VariationalDecoder(), IMAGES), IMAGES),
    "a convolution with a call of its own": (standardized, IMAGES),
    "recurrent layers inside": (recurrent, TOKENS),
}


def outputs(model, inputs):
    return [np.asarray(x) for x in keras.tree.flatten(model(inputs, training=False))]


def opened(model, **arguments):
    """The opened model, of which nothing has stayed closed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return tfprune.inline(model, **arguments)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_opened_model_gives_the_same_and_loads_with_keras_alone(name, tmp_path):
    build, inputs = NETWORKS[name]
    model = build()
    made = opened(model)
    assert all(type(layer).__module__.startswith("keras.") for layer in made.layers)
    expected = outputs(model, inputs)
    for one, other in zip(expected, outputs(made, inputs), strict=True):
        np.testing.assert_array_equal(one, other)
    made.save(tmp_path / "made.keras")
    loaded = keras.models.load_model(tmp_path / "made.keras")
    for one, other in zip(expected, outputs(loaded, inputs), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["text encoder with attention and positions of its own", "tied words", "causal"])
def test_open_lengths_stay_open(name):
    model = NETWORKS[name][0]()
    made = opened(model)
    for shape in ((1, 3), (5, 17)):
        tokens = random.integers(0, 20, shape)
        np.testing.assert_allclose(outputs(model, tokens)[0], outputs(made, tokens)[0], atol=1e-6)


@pytest.mark.parametrize("name", [name for name in NETWORKS if "subclassed CNN" not in name])
def test_an_opened_model_trains_as_the_first(name):
    build, inputs = NETWORKS[name]
    model = build()
    made = opened(model)
    targets = keras.tree.map_structure(lambda x: np.ones(x.shape, "float32"), model(inputs))
    for each in (model, made):
        each.compile(keras.optimizers.SGD(0.01), "mse")
        each.train_on_batch(inputs, targets)
    for one, other in zip(outputs(model, inputs), outputs(made, inputs), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


def test_batch_norm_and_dropout_work_in_fit():
    model = called(ConvNet(), IMAGES)
    made = opened(model)
    before = made.get_layer("blocks_0.norm").moving_mean.numpy()
    keras.utils.set_random_seed(1)
    assert np.any(np.asarray(made(IMAGES, training=True)) != np.asarray(made(IMAGES, training=True)))
    assert np.any(made.get_layer("blocks_0.norm").moving_mean.numpy() != before)


def test_nothing_is_shared_and_the_model_is_as_it_was():
    model = called(ConvNet(), IMAGES)
    attributes = {id(layer): dict(vars(layer)) for layer in model._flatten_layers()}
    before = outputs(model, IMAGES)[0]
    made = opened(model)
    for variable in made.variables:
        variable.assign(variable + 1 if "float" in variable.dtype else variable)
    np.testing.assert_array_equal(outputs(model, IMAGES)[0], before)
    for layer in model._flatten_layers():
        assert vars(layer).keys() == attributes[id(layer)].keys()
        before = attributes[id(layer)]
        lists = ("_inbound_nodes", "_outbound_nodes")
        changed = {n for n, value in vars(layer).items() if value is not before[n] and n not in lists}
        assert not changed, (layer, changed)


def test_layers_are_named_after_their_place():
    names = {layer.name for layer in opened(called(ConvNet(), IMAGES)).layers}
    assert {"stem", "blocks_0.first", "blocks_1.excite.squeeze", "head"} <= names
    names = {layer.name for layer in opened(text_encoder()).layers}
    assert {"positions.table", "answer"} <= names and not any("/" in name for name in names)


def test_two_layers_of_one_name_are_both_opened_pruned_and_told_apart():
    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = layers.Dense(8, name="same"), layers.Dense(8, name="same")
            self.head = layers.Dense(3, name="head")

        def call(self, x):
            return self.head(self.second(self.first(x)))

    images = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    model = Twins()
    expected = model(images)
    opened = tfprune.inline(model)
    np.testing.assert_allclose(opened(images), expected, atol=1e-6)
    assert len({layer.name for layer in opened.layers}) == len(opened.layers)
    halved = tfprune.shrink(model, tfprune.plan_shrink(model, tfprune.Structured(0.5, allocation="uniform")))
    assert halved.count_params() == (6 * 4 + 4) + (4 * 4 + 4) + (4 * 3 + 3)


def test_a_plain_model_is_copied():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    made = opened(model)
    assert type(made) is keras.Sequential and made is not model
    np.testing.assert_array_equal(outputs(made, np.ones((1, 4)))[0], outputs(model, np.ones((1, 4)))[0])


def test_what_was_said_of_training_in_the_call_stays_said():
    class Frozen(keras.Model):
        def __init__(self):
            super().__init__()
            self.body = keras.Sequential([layers.Dense(4), layers.BatchNormalization()])
            self.head = layers.Dense(2)

        def call(self, x):
            return self.head(self.body(x, training=False))

    x = random.normal(size=(8, 4)).astype("float32")
    made = opened(called(Frozen(), x))
    before = [np.array(variable) for variable in made.non_trainable_variables]
    made.compile("sgd", "mse")
    made.fit(x, np.ones((8, 2)), verbose=0)
    for variable, value in zip(made.non_trainable_variables, before):
        np.testing.assert_array_equal(np.asarray(variable), value)


def test_layers_open_beside_one_that_trains_by_default_in_the_graph():
    class Doubled(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = layers.Dense(4)

        def call(self, x):
            return 2.0 * self.dense(x)

    x = keras.Input((8, 8, 3))
    model = keras.Model(x, layers.Dense(2)(Doubled()(layers.RandomFlip()(x))))
    made = opened(model)
    assert not any(isinstance(layer, Doubled) for layer in made.layers)
    images = random.normal(size=(3, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(made(images, training=False), model(images, training=False), rtol=1e-5, atol=1e-6)


def test_what_is_said_of_training_reaches_layers_in_a_nested_graph_that_train_by_default():
    class Dropped(layers.Layer):
        def call(self, x, training=True):
            return 2.0 * x if training else x

    class Student(keras.Model):
        def __init__(self):
            super().__init__()
            inputs = keras.Input((4,))
            self.body = keras.Model(inputs, Dropped()(layers.Dense(4)(inputs)))

        def call(self, x, training=True):
            return self.body(x)

    class Trainer(keras.Model):
        def __init__(self):
            super().__init__()
            self.student = Student()

        def call(self, x):
            return self.student(x, training=False)

    x = random.normal(size=(8, 4)).astype("float32")
    model = called(Trainer(), x)
    np.testing.assert_allclose(opened(model)(x), model(x), rtol=1e-6)


@pytest.mark.parametrize("kind", ["attention", "cross-attention", "recurrent", "pooled"])
def test_a_mask_that_a_layer_of_the_users_makes_is_handed_on(kind):
    class Tokens(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.table = layers.Embedding(9, 8)

        def call(self, tokens):
            return 2.0 * self.table(tokens)

        def compute_mask(self, tokens, mask=None):
            return ops.not_equal(tokens, 0)

    def after(x, y):  # 2.0 *: an operation drops the mask, of which fit would have to be told
        if kind == "attention":
            return 2.0 * layers.MultiHeadAttention(2, 4)(layers.LayerNormalization()(x), x)
        if kind == "cross-attention":
            steps = np.tri(6, dtype="int32")[None]
            return 2.0 * layers.MultiHeadAttention(2, 4)(query=y, value=x, key=x, attention_mask=steps)
        return layers.LSTM(5)(x) if kind == "recurrent" else layers.GlobalAveragePooling1D()(x)

    tokens, others = keras.Input((6,), dtype="int32"), keras.Input((6,), dtype="int32")
    model = keras.Model([tokens, others], after(Tokens()(tokens), Tokens()(others)))
    made = opened(model)
    assert not any(isinstance(layer, Tokens) for layer in made.layers)
    rows = [np.array([[1, 2, 0, 3, 0, 0], [4, 1, 1, 5, 2, 1]]), np.array([[1, 0, 7, 2, 0, 0], [2, 2, 2, 0, 1, 0]])]
    np.testing.assert_allclose(made(rows), model(rows), rtol=1e-5, atol=1e-6)


# What cannot be opened


class Wrapping(keras.Model):
    """Some layer of the user's between two plain ones."""

    def __init__(self, layer):
        super().__init__(name="wrapping")
        self.first, self.odd, self.last = layers.Dense(4), layer, layers.Dense(2)

    def call(self, x):
        return self.last(self.odd(self.first(x)))


def odd_layers():
    class Branching(layers.Layer):
        def call(self, x):
            return x if ops.sum(x) > 0 else 2 * x

    class Numpy(layers.Layer):
        def call(self, x):
            import tensorflow as tf

            return tf.math.lgamma(x)

    class Counting(layers.Layer):
        count = 0

        def __init__(self):
            super().__init__()
            self.count = 0

        def call(self, x):
            self.count += 1
            return x * self.count

    class Making(layers.Layer):
        def call(self, x):
            return layers.Dense(4)(x)

    class Drawing(layers.Layer):
        def __init__(self):
            super().__init__()
            self.seed = keras.random.SeedGenerator(0)

        def call(self, x):
            return x + keras.random.normal((4,), seed=self.seed)

    return {
        Branching: r"branches on the value of a tensor; write keras.ops.where .* \(test_inline.py:\d+: return x if ops",
        Numpy: r"computes with TensorFlow, .* \(test_inline.py:\d+: return tf.math.lgamma\(x\)\)",
        Counting: r"keeps Python state between calls, in self.count",
        Making: r"uses the layer 'dense\w*' \(Dense\), which is not part of it; make it in __init__",
        Drawing: r"draws random numbers in inference",
    }


ODD = odd_layers()


@pytest.mark.parametrize("kind", [kind for kind in ODD if kind.__name__ != "Branching"], ids=lambda kind: kind.__name__)
def test_a_layer_that_cannot_be_opened_is_named_with_the_reason(kind):
    model = called(Wrapping(kind()), np.ones((3, 4), "float32"))
    found = open_model(model, np.ones((3, 4), "float32"))
    assert list(found.closed) == ["odd"]
    with pytest.warns(UserWarning, match=f"'odd' stays closed: .*{ODD[kind]}"):
        tfprune.inline(model)


@pytest.mark.parametrize("kind", [kind for kind in ODD if kind.__name__ in ("Branching", "Numpy")])
def test_a_model_whose_own_call_cannot_be_opened_is_an_error_that_names_the_line(kind):
    class Bad(keras.Model):
        def __init__(self):
            super().__init__(name="bad")
            self.dense = layers.Dense(4)

        call = kind.call

    model = Bad()
    model(np.ones((3, 4), "float32"))
    with pytest.raises(PruningError, match=f"'bad' \\(Bad\\) cannot be opened into a graph of layers: .*{ODD[kind]}"):
        tfprune.inline(model, np.ones((3, 4), "float32"))


def test_a_layer_that_no_graph_can_hold_is_an_error_that_names_its_line():
    branching = next(iter(ODD))
    with pytest.raises(
        PruningError, match=f"the layer 'branching\\w*' \\(Branching\\) neither opens, .*{ODD[branching]}"
    ):
        tfprune.inline(called(Wrapping(branching()), np.ones((3, 4), "float32")), np.ones((3, 4), "float32"))


def test_a_model_that_was_never_called_says_what_to_write():
    with pytest.raises(PruningError, match=r"never been called|not built yet.*Call it once"):
        tfprune.inline(ConvNet())


def test_an_example_opens_a_model_that_was_never_called():
    model = ConvNet()
    made = opened(model, data=IMAGES)
    np.testing.assert_array_equal(outputs(model, IMAGES)[0], outputs(made, IMAGES)[0])


def test_what_keras_computes_by_its_backend_is_opened():
    class Boxes(layers.Layer):
        def call(self, x):
            return keras.utils.bounding_boxes.convert_format(x, source="xyxy", target="center_xywh")

    x = keras.Input((10, 6))
    boxes = Boxes()(ops.sort(layers.Dense(4)(layers.Dense(8, activation="relu")(x)), axis=-1))
    model = keras.Model(x, boxes)
    made = opened(model)
    assert not any(isinstance(layer, Boxes) for layer in made.layers)
    data = random.normal(size=(3, 10, 6)).astype("float32")
    np.testing.assert_allclose(outputs(made, data)[0], outputs(model, data)[0], rtol=1e-6)


class BuiltByHand(keras.Model):
    """Builds its layers itself, on images of one size if nobody says another."""

    def __init__(self):
        super().__init__(name="by_hand")
        self.convolution, self.answer = layers.Conv2D(8, 3), layers.Dense(2)

    def build(self, input_shape=(None, 8, 8, 3)):
        self.convolution.build(input_shape)
        self.answer.build((None, 8))
        super().build(input_shape)

    def call(self, x):
        return self.answer(ops.max(ops.relu(self.convolution(x)), axis=(1, 2)))


def test_a_weight_of_another_type_is_of_the_type_that_the_layer_computes_in():
    class Biased(layers.Layer):
        def build(self, shape):
            table = np.arange(float(shape[-1]))
            self.table = keras.Variable(table, dtype="float64", trainable=False)

        def call(self, x):
            return x + ops.cast(self.table, x.dtype)

    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(Biased()(inputs)))
    opened = tfprune.inline(model)
    assert not any(isinstance(layer, Biased) for layer in opened.layers)
    x = np.ones((2, 4), "float32")
    np.testing.assert_allclose(opened(x), model(x), rtol=1e-6)
    assert all(layer.compute_dtype == "float32" for layer in opened.layers)  # or nothing could convert it


def test_a_layer_outside_of_the_model_that_nothing_trains_is_read_and_follows_what_is_adapted():
    x = np.random.default_rng(0).normal(3.0, 2.0, (6, 4)).astype("float32")
    outside = layers.Normalization()
    outside.adapt(x)

    class Scaled(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = layers.Dense(8, activation="relu"), layers.Dense(2)

        def call(self, x):
            return self.second(self.first(outside(x)))

    model = Scaled()
    model(x)
    masked = tfprune.prune(model, tfprune.Structured(0.5))
    small = tfprune.shrink(masked)
    assert small.count_params() < model.count_params()
    np.testing.assert_allclose(small(x), masked(x), rtol=1e-5, atol=1e-6)
    outside.adapt(2 * x)
    np.testing.assert_allclose(tfprune.inline(model)(x), model(x), rtol=1e-5, atol=1e-6)


def test_a_model_that_was_built_without_a_shape_has_that_of_its_build():
    model = BuiltByHand()
    model.build()
    images = random.normal(size=(4, 8, 8, 3)).astype("float32")
    made = opened(model)
    assert made.input_shape == (None, 8, 8, 3)
    np.testing.assert_array_equal(outputs(model, images)[0], outputs(made, images)[0])
    masked = tfprune.prune(model, tfprune.Structured(0.5))
    assert tfprune.shrink(masked).count_params() == 4 * 28 + 2 * 5
    assert tfprune.convert(model)(images).shape == (4, 2)


def test_a_model_that_nothing_tells_the_inputs_of_says_what_to_write():
    class Untold(BuiltByHand):
        def build(self, input_shape=None):
            super().build((None, 8, 8, 3))

    model = Untold()
    model.build()
    images = random.normal(size=(4, 8, 8, 3)).astype("float32")
    model.predict(images, verbose=0)
    for job in (tfprune.inline, tfprune.channel_groups, tfprune.convert):
        with pytest.raises(
            PruningError, match=r"build\(\) was called without a shape.* tfprune.inline\(model, data=images\[:1\]\)\."
        ):
            job(model)
    made = opened(model, data=images[:1])
    np.testing.assert_array_equal(outputs(model, images)[0], outputs(made, images)[0])


# What opening is for


def test_channels_fade_out_of_a_subclassed_model_and_are_removed():
    model = called(ConvNet(), IMAGES)
    model.compile("adam", "mse")
    model.fit(IMAGES, np.zeros((4, 3)), epochs=3, verbose=0, callbacks=[tfprune.StructuredPruning(0.5)])
    small = tfprune.shrink(model)
    assert small.count_params() < 0.5 * model.count_params()
    np.testing.assert_allclose(outputs(small, IMAGES)[0], outputs(model, IMAGES)[0], atol=1e-6)
    assert tfprune.certify(model, small, IMAGES).exactness.name == "EXACT"


def test_groups_lie_on_the_weights_of_the_users_model():
    model = called(ConvNet(), IMAGES)
    groups = tfprune.channel_groups(model)
    keys = {key for group in groups.values() for key in group.weights}
    assert {"stem/kernel", "blocks_0/first/kernel", "blocks_1/excite/squeeze/kernel"} <= keys
    plan = tfprune.plan_shrink(model, tfprune.Structured(0.3))
    small = tfprune.shrink(model, plan)
    tfprune.apply_masks(model, plan.groups.masks(dict(plan)))
    np.testing.assert_allclose(outputs(small, IMAGES)[0], outputs(model, IMAGES)[0], atol=1e-6)


def test_a_plan_holds_until_the_model_changes():
    model = called(ConvNet(), IMAGES)
    plan = tfprune.plan_shrink(model, tfprune.Structured(0.3))
    assert plan.groups.holds_for(model)
    assert plan.traced(model) is plan.groups


@keras.saving.register_keras_serializable("tfprune_tests")
class AddsLosses(keras.Model):
    """A loss of the model's own call and one of a layer in it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.code, self.out = Penalised(), layers.Dense(5)

    def call(self, x):
        y = self.out(self.code(x))
        self.add_loss(ops.mean(ops.square(y)))
        return y


@keras.saving.register_keras_serializable("tfprune_tests")
class Penalised(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(8, activation="relu")

    def call(self, x):
        x = self.dense(x)
        self.add_loss(ops.mean(x))
        return x


def test_losses_that_a_call_adds_are_named():
    model = AddsLosses()
    x = np.ones((2, 5), "float32")
    model(x)
    with pytest.warns(UserWarning, match=r"'code', 'adds_losses' adds a loss in its call \(add_loss\)"):
        plain = tfprune.inline(model)
    np.testing.assert_array_equal(np.asarray(plain(x)), np.asarray(model(x)))
    with pytest.warns(UserWarning, match="adds a loss in its call"):
        small = tfprune.shrink(model, tfprune.plan_shrink(model, tfprune.Structured(0.5)))
    assert small.get_layer("code.dense").units == 4
    model.compile("sgd", "mse")
    model.fit(x, x, verbose=0)  # the model itself adds them as before
    assert len(model.losses) == 2


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Lambda(lambda x: x[:, ::2]),
        lambda: layers.Activation(lambda x: x * ops.sigmoid(1.7 * x)),
        lambda: layers.SpectralNormalization(layers.Dense(6)),
    ],
    ids=["lambda", "activation", "spectral norm"],
)
def test_functions_of_the_users_become_what_they_do(layer, tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, name="first"), layer(), layers.Dense(2)])
    small = tfprune.shrink(model, tfprune.plan_shrink(model, tfprune.Structured(0.5)))
    assert small.get_layer("first").units < 8
    small.save(tmp_path / "small.keras")  # needs nothing of the user's
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(
        np.asarray(keras.models.load_model(tmp_path / "small.keras")(x)), np.asarray(small(x))
    )


class DropsByDefault(layers.Layer):
    """Its call takes training=False where nothing is said, as people write it."""

    def __init__(self):
        super().__init__()
        self.drop = layers.Dropout(0.5)

    def call(self, x, training=False):
        return 2.0 * self.drop(x, training=training)


@pytest.mark.parametrize(
    "noisy",
    [lambda: layers.GaussianNoise(0.5), lambda: layers.Dropout(0.5), lambda: layers.AlphaDropout(0.5), DropsByDefault],
)
def test_layers_of_a_functional_model_make_noise_in_training_only(noisy):
    inputs = keras.Input((6,))
    plain = tfprune.inline(keras.Model(inputs, noisy()(RMSNorm()(inputs))))
    x = np.ones((4, 6), "float32")
    np.testing.assert_array_equal(np.asarray(plain(x)), np.asarray(plain(x)))
    assert not np.array_equal(np.asarray(plain(x, training=True)), np.asarray(plain(x, training=True)))


def test_a_network_on_a_graph_that_it_holds_opens():
    class OnGraph(keras.Model):
        """Scores of the nodes that it is asked for."""

        def __init__(self):
            super().__init__()
            generator = np.random.default_rng(0)
            self.nodes = tf.constant(generator.normal(size=(7, 5)).astype("float32"))
            self.edges = generator.integers(0, 7, (2, 12))
            self.first, self.messages, self.scores = layers.Dense(8, "relu"), layers.Dense(8), layers.Dense(3)

        def call(self, numbers):
            x = self.first(self.nodes)
            told = self.messages(tf.gather(x, self.edges[1]))
            x = tf.nn.relu(x + tf.math.unsorted_segment_mean(told, self.edges[0], num_segments=7))
            return self.scores(tf.gather(x, numbers))

    model = OnGraph()
    numbers = np.array([3, 1, 6, 0])
    model(numbers)
    assert not open_model(model).closed
    pruned = tfprune.prune(model, tfprune.Structured(0.5), verbose=0)
    small = tfprune.shrink(pruned)
    assert small.count_params() < 0.6 * model.count_params()
    np.testing.assert_allclose(small(numbers), pruned(numbers), atol=1e-5)
    np.testing.assert_allclose(tfprune.convert(small)(numbers.astype("int32")), pruned(numbers), atol=1e-4)


def test_what_stays_closed_is_said_where_channels_are_listed():
    class ForFour(layers.Layer):
        """A block for batches of four."""

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = layers.Dense(8)

        def call(self, x):
            return self.dense(ops.reshape(x, (4, 8)))

    class Branching(ForFour):
        def call(self, x):
            return self.dense(x) if ops.sum(x) > 1e9 else self.dense(-x)

        def compute_output_shape(self, shape):
            return shape

    inputs = keras.Input((8,))
    for kind, said in ((ForFour, "cannot be opened .*'block'"), (Branching, "'block' stays closed: .*branches")):
        model = keras.Model(inputs, layers.Dense(3)(layers.Dense(8)(kind(name="block")(inputs))))
        groups = channel_groups(model)
        assert any(re.search(said, note) for note in groups.notes())
        assert any(re.search(said, note) for note in plan_shrink(model).notes())


def test_slices_of_tables_by_numbers_keep_their_channels_free():
    class Placed(layers.Layer):
        """Adds a table of places, of which it takes as many as the sequence has."""

        def __init__(self, rows, **kwargs):
            super().__init__(**kwargs)
            self.rows = rows

        def build(self, shape):
            self.places = self.add_weight(shape=(self.rows, shape[-1]), name="places")

        def call(self, x):
            return x + ops.slice(self.places, (self.rows - 6, 0), x.shape[1:])

    inputs = keras.Input((6,), dtype="int32")
    for rows in (6, 9):
        x = layers.Dense(8, activation="relu")(Placed(rows)(layers.Embedding(12, 8)(inputs)))
        model = keras.Model(inputs, layers.Dense(3)(x))
        pruned = tfprune.prune(model, tfprune.Structured(0.5), verbose=0)
        small = tfprune.shrink(pruned)
        assert small.count_params() < 0.6 * model.count_params()
        tokens = np.arange(12).reshape(2, 6)
        np.testing.assert_allclose(small(tokens), pruned(tokens), atol=1e-6)


class Block(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.out = layers.Dense(8), layers.Dense(4)

    def call(self, x):
        return self.out(ops.relu(self.hidden(x)))


class OwnLoss:
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return 3.0 * ops.mean(ops.square(y - y_pred))


class Weighed(OwnLoss, keras.Model):
    pass


class WeighedBlock(OwnLoss, keras.Model):
    def __init__(self):
        super().__init__()
        self.block = Block()

    def call(self, x):
        return self.block(x)


def test_a_graph_of_a_class_of_the_users_keeps_it_when_its_layers_are_opened():
    inputs = keras.Input((5,))
    model = Weighed(inputs, Block()(inputs))
    model.compile("sgd", "mse")
    small = tfprune.shrink(tfprune.prune(model, tfprune.Structured(0.5), verbose=0))
    assert type(small) is Weighed and small.count_params() < model.count_params()


def test_methods_by_which_a_class_trains_are_said_to_stay_behind():
    model = WeighedBlock()
    model(np.zeros((2, 5), "float32"))
    with pytest.warns(UserWarning, match="trains by 'compute_loss' of its own, and the opened model is a plain one"):
        tfprune.shrink(tfprune.prune(model, tfprune.Structured(0.5), verbose=0))


class Pair(typing.NamedTuple):
    one: typing.Any
    other: typing.Any


class Sum(layers.Layer):
    """Adds what it gets in a named tuple."""

    def call(self, pair):
        return pair.one + pair.other

    def compute_output_shape(self, shapes):
        return shapes.one


class Skips(layers.Layer):
    """Keeps the results of its blocks in itself, in a list that Keras tracks, and adds them up."""

    def __init__(self, blocks):
        super().__init__()
        self.blocks = [layers.Conv1D(6, 3, padding="same", activation="relu") for _ in range(blocks)]
        self.sum = Sum()

    def call(self, x):
        self.skips = []
        for block in self.blocks:
            x = block(x)
            self.skips.append(x)
        total = layers.add(self.skips)
        return self.sum(Pair(total, ops.sum(total, axis=1, keepdims=True)))


def test_results_that_a_call_passes_on_in_a_list_of_its_layer_or_in_a_named_tuple_are_those_of_the_opened_model():
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(Skips(3)(inputs))))
    x = random.normal(size=(4, 9, 4)).astype("float32")
    opened = tfprune.inline(model)
    assert not any(isinstance(layer, (Skips, Sum)) for layer in opened.layers)
    np.testing.assert_allclose(opened(x), model(x), atol=1e-6)
