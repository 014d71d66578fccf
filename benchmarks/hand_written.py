"""Kinds of network as people write them: subclassed, of blocks of their own, nested, shared, with weights of their own.

`KINDS` makes each by its name, built and small.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

own = keras.saving.register_keras_serializable("hand_written")
KINDS = {}


def kind(name):
    def add(make):
        KINDS[name] = make
        return make

    return add


def ran(model, *shapes, dtype="float32"):
    """A subclassed model that has been called once."""
    inputs = [np.ones((2, *shape), dtype) for shape in shapes]
    model(inputs[0] if len(inputs) == 1 else inputs)
    return model


# Images


@own
class SubclassedCNN(keras.Model):
    def __init__(self, width=12, classes=5, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Conv2D(width, 3, padding="same", activation="relu")
        self.norm = layers.BatchNormalization()
        self.second = layers.Conv2D(2 * width, 3, strides=2, padding="same", activation="relu")
        self.drop = layers.Dropout(0.3)
        self.head = layers.Dense(classes)

    def call(self, x, training=None):
        x = self.second(self.norm(self.first(x), training=training))
        return self.head(self.drop(ops.mean(x, axis=(1, 2)), training=training))


KINDS["subclassed CNN"] = lambda: ran(SubclassedCNN(), (16, 16, 3))


class PlainCNN(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = layers.Conv2D(12, 3, activation="relu")
        self.second = layers.Conv2D(24, 3, activation=tf.nn.relu)
        self.head = layers.Dense(5)

    def call(self, x):
        return self.head(ops.mean(self.second(self.first(x)), axis=(1, 2)))


KINDS["subclassed CNN, no arguments, no config"] = lambda: ran(PlainCNN(), (16, 16, 3))


@own
class InTensorFlow(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Conv2D(12, 3, padding="same")
        self.second = layers.Conv2D(16, 3, padding="same")
        self.squeeze, self.excite = layers.Dense(4), layers.Dense(16, activation=tf.sigmoid)
        self.head = layers.Dense(5)

    @tf.function
    def call(self, x, training=None):
        tf.debugging.assert_rank(x, 4)
        height, width, _ = x.shape.as_list()[1:]
        first = tf.nn.relu(self.first(x))
        second = tf.nn.relu(self.second(tf.nn.max_pool2d(first, 2, 2, "SAME")))
        share = self.excite(tf.nn.relu(self.squeeze(tf.reduce_mean(second, axis=[1, 2]))))
        second = second * share[:, tf.newaxis, tf.newaxis, :]
        both = tf.concat([first, tf.image.resize(second, [height, width])], axis=-1)
        if training:
            both = tf.nn.dropout(both, 0.3)
        return tf.nn.softmax(self.head(tf.reduce_max(both, axis=[1, 2])))


KINDS["subclassed CNN in TensorFlow's functions"] = lambda: ran(InTensorFlow(), (16, 16, 3))


@own
class BuiltByHand(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.one, self.slope, self.two = layers.Conv2D(12, 3), layers.PReLU(shared_axes=[1, 2]), layers.Conv2D(16, 3)
        self.box, self.face = layers.Dense(4), layers.Dense(2, activation="softmax")

    def build(self, input_shape=(None, 12, 12, 3)):
        self.one.build(input_shape)
        shape = self.one.compute_output_shape(input_shape)
        self.slope.build(shape)
        self.two.build(shape)
        for layer in (self.box, self.face):
            layer.build((None, 16))
        super().build(input_shape)

    def call(self, x):
        x = tf.reduce_max(tf.nn.leaky_relu(self.two(self.slope(self.one(x)))), axis=[1, 2])
        return [self.box(x), self.face(x)]


@kind("subclassed, built by hand, two outputs")
def built_by_hand():
    model = BuiltByHand()
    model.build()
    return model


@own
class Residual(layers.Layer):
    def __init__(self, width, stride=1, **kwargs):
        super().__init__(**kwargs)
        self.width, self.stride = width, stride
        self.one = layers.Conv2D(width, 3, strides=stride, padding="same", use_bias=False)
        self.two = layers.Conv2D(width, 3, padding="same", use_bias=False)
        self.norms = [layers.BatchNormalization(), layers.BatchNormalization()]
        self.short = layers.Conv2D(width, 1, strides=stride)

    def call(self, x):
        y = ops.relu(self.norms[0](self.one(x)))
        return ops.relu(self.norms[1](self.two(y)) + self.short(x))

    def get_config(self):
        return {**super().get_config(), "width": self.width, "stride": self.stride}


@kind("custom residual blocks")
def residual_blocks():
    x = inputs = keras.Input((16, 16, 3))
    for width in (8, 16, 16):
        x = Residual(width, 2 if width > 8 else 1)(x)
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


@own
class SqueezeExcite(layers.Layer):
    def __init__(self, ratio=4, **kwargs):
        super().__init__(**kwargs)
        self.ratio = ratio

    def build(self, shape):
        self.down = layers.Dense(shape[-1] // self.ratio, activation="relu")
        self.up = layers.Dense(shape[-1], activation="sigmoid")
        self.down.build((None, shape[-1]))
        self.up.build((None, shape[-1] // self.ratio))

    def call(self, x):
        return x * self.up(self.down(ops.mean(x, axis=(1, 2))))[:, None, None]

    def get_config(self):
        return {**super().get_config(), "ratio": self.ratio}


@own
class MBConv(layers.Layer):
    def __init__(self, width, expand=3, **kwargs):
        super().__init__(**kwargs)
        self.width, self.expand = width, expand

    def build(self, shape):
        self.body = keras.Sequential(
            [
                layers.Conv2D(shape[-1] * self.expand, 1, activation="silu"),
                layers.DepthwiseConv2D(3, padding="same"),
                layers.BatchNormalization(),
                SqueezeExcite(),
                layers.Conv2D(self.width, 1),
            ]
        )
        self.body.build(shape)
        self.residual = shape[-1] == self.width

    def call(self, x):
        return x + self.body(x) if self.residual else self.body(x)

    def get_config(self):
        return {**super().get_config(), "width": self.width, "expand": self.expand}


@kind("squeeze-and-excitation layers")
def squeeze():
    x = inputs = keras.Input((12, 12, 3))
    for width in (12, 16):
        x = SqueezeExcite()(layers.Conv2D(width, 3, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(4)(layers.Flatten()(layers.MaxPooling2D(2)(x))))


@kind("MBConv layers")
def mbconv():
    x = inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, activation="relu")(x)
    for width in (8, 12, 12):
        x = MBConv(width)(x)
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


@kind("U-Net")
def unet():
    def block(x, width):
        return layers.Conv2D(width, 3, padding="same", activation="relu")(layers.BatchNormalization()(x))

    inputs = keras.Input((None, None, 3))
    one = block(inputs, 8)
    two = block(layers.MaxPooling2D()(one), 12)
    x = block(layers.MaxPooling2D()(two), 16)
    x = block(layers.Concatenate()([layers.Conv2DTranspose(12, 2, strides=2)(x), two]), 12)
    x = block(layers.Concatenate()([layers.UpSampling2D()(x), one]), 8)
    return keras.Model(inputs, layers.Conv2D(2, 1, activation="softmax")(x))


@own
class Backbone(keras.Model):
    """Gives three scales as a dict."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convolutions = [layers.Conv2D(w, 3, strides=2, padding="same", activation="relu") for w in (8, 12, 16)]

    def call(self, x):
        found = {}
        for level, convolution in enumerate(self.convolutions):
            x = found[f"c{level}"] = convolution(x)
        return found


@own
class Detector(keras.Model):
    def __init__(self, classes=4, **kwargs):
        super().__init__(**kwargs)
        self.backbone = Backbone()
        self.lateral = [layers.Conv2D(12, 1) for _ in range(3)]
        self.boxes = keras.Sequential([layers.Conv2D(12, 3, padding="same", activation="relu"), layers.Conv2D(8, 1)])
        self.classes = keras.Sequential(
            [layers.Conv2D(12, 3, padding="same", activation="relu"), layers.Conv2D(2 * classes, 1)]
        )
        self.up = layers.UpSampling2D()

    def call(self, x):
        found = self.backbone(x)
        levels = [lateral(found[f"c{level}"]) for level, lateral in enumerate(self.lateral)]
        for level in (1, 0):
            levels[level] = levels[level] + self.up(levels[level + 1])
        heads = {"boxes": (self.boxes, 4), "classes": (self.classes, 4)}
        return {
            name: ops.concatenate([ops.reshape(head(y), (ops.shape(y)[0], -1, last)) for y in levels], axis=1)
            for name, (head, last) in heads.items()
        }


KINDS["detector with a pyramid"] = lambda: ran(Detector(), (32, 32, 3))


@own
class Siamese(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.tower = keras.Sequential(
            [layers.Conv2D(8, 3, activation="relu"), layers.Flatten(), layers.Dense(16, activation="relu")]
        )
        self.distance = layers.Dense(1)

    def call(self, pair):
        one, other = pair
        return self.distance(ops.abs(self.tower(one) - self.tower(other)))


KINDS["Siamese"] = lambda: ran(Siamese(), (10, 10, 1), (10, 10, 1))


@kind("GAN generator")
def generator():
    return keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(4 * 4 * 16, use_bias=False),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
            layers.Reshape((4, 4, 16)),
            layers.Conv2DTranspose(12, 4, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
            layers.Conv2DTranspose(3, 4, strides=2, padding="same", activation="tanh"),
        ]
    )


@kind("GAN discriminator, spectral norm")
def discriminator():
    x = inputs = keras.Input((16, 16, 3))
    for width in (8, 12):
        x = layers.LeakyReLU()(layers.SpectralNormalization(layers.Conv2D(width, 4, strides=2))(x))
    return keras.Model(inputs, layers.Dense(1)(layers.Dropout(0.3)(layers.Flatten()(x))))


@own
class Sampling(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, given, training=None):
        mean, log_variance = given
        if not training:
            return mean
        return mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=self.seeds)


@own
class VAE(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.encoder = keras.Sequential([layers.Flatten(), layers.Dense(24, activation="relu")])
        self.mean, self.log_variance, self.sample = layers.Dense(4), layers.Dense(4), Sampling()
        self.decoder = keras.Sequential(
            [layers.Dense(24, activation="relu"), layers.Dense(64, activation="sigmoid"), layers.Reshape((8, 8, 1))]
        )

    def call(self, x):
        y = self.encoder(x)
        mean, log_variance = self.mean(y), self.log_variance(y)
        self.add_loss(-0.001 * ops.mean(1 + log_variance - ops.square(mean) - ops.exp(log_variance)))
        return self.decoder(self.sample([mean, log_variance]))


KINDS["VAE with add_loss"] = lambda: ran(VAE(), (8, 8, 1))


# Words, speech, series


@own
class TwoTower(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.users, self.items = layers.Embedding(30, 16), layers.Embedding(40, 16)
        self.user_tower = keras.Sequential([layers.Dense(24, activation="relu"), layers.Dense(12)])
        self.item_tower = keras.Sequential([layers.Dense(24, activation="relu"), layers.Dense(12)])

    def call(self, given):
        user, item = self.user_tower(self.users(given["user"])), self.item_tower(self.items(given["item"]))
        return ops.sum(user * item, axis=-1, keepdims=True)


@kind("two-tower recommender")
def recommender():
    model = TwoTower()
    model({"user": np.ones((2,), "int32"), "item": np.ones((2,), "int32")})
    return model


@kind("CTC speech")
def speech():
    x = inputs = keras.Input((None, 20))
    x = layers.BatchNormalization()(layers.Conv1D(16, 5, strides=2, padding="same", activation="relu")(x))
    for _ in range(2):
        x = layers.Bidirectional(layers.GRU(10, return_sequences=True))(x)
    return keras.Model(inputs, layers.Dense(12, activation="softmax")(layers.Dropout(0.2)(x)))


@own
class TemporalBlock(layers.Layer):
    def __init__(self, width, dilation, **kwargs):
        super().__init__(**kwargs)
        self.width, self.dilation = width, dilation
        self.one, self.two = (
            layers.Conv1D(width, 3, padding="causal", dilation_rate=dilation, activation="relu") for _ in range(2)
        )
        self.drop, self.short = layers.SpatialDropout1D(0.1), layers.Conv1D(width, 1)

    def call(self, x, training=None):
        return ops.relu(self.drop(self.two(self.one(x)), training=training) + self.short(x))

    def get_config(self):
        return {**super().get_config(), "width": self.width, "dilation": self.dilation}


@kind("TCN")
def tcn():
    x = inputs = keras.Input((24, 4))
    for number in range(3):
        x = TemporalBlock(10, 2**number)(x)
    return keras.Model(inputs, layers.Dense(2)(x[:, -1]))


@kind("ConvLSTM")
def convlstm():
    x = inputs = keras.Input((4, 8, 8, 1))
    x = layers.ConvLSTM2D(8, 3, padding="same", return_sequences=True)(x)
    x = layers.TimeDistributed(layers.Conv2D(8, 3, padding="same", activation="relu"))(x)
    x = layers.ConvLSTM2D(6, 3, padding="same")(x)
    return keras.Model(inputs, layers.Conv2D(1, 3, padding="same")(x))


@kind("Bidirectional text classifier")
def bidirectional():
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(40, 16, mask_zero=False),
            layers.Bidirectional(layers.LSTM(12, return_sequences=True)),
            layers.Bidirectional(layers.LSTM(8)),
            layers.Dense(12, activation="relu"),
            layers.Dense(3, activation="softmax"),
        ]
    )


@own
class Encoder(layers.Layer):
    def __init__(self, width=16, heads=4, **kwargs):
        super().__init__(**kwargs)
        self.width, self.heads = width, heads
        self.attention = layers.MultiHeadAttention(heads, width // heads, dropout=0.1)
        self.norms = [layers.LayerNormalization(), layers.LayerNormalization()]
        self.mlp = keras.Sequential([layers.Dense(2 * width, activation="gelu"), layers.Dense(width)])
        self.drop = layers.Dropout(0.1)

    def call(self, x, training=None):
        y = self.norms[0](x)
        x = x + self.drop(self.attention(y, y, training=training), training=training)
        return x + self.mlp(self.norms[1](x))

    def get_config(self):
        return {**super().get_config(), "width": self.width, "heads": self.heads}


@own
class Positions(layers.Layer):
    def build(self, shape):
        self.table = self.add_weight(shape=(shape[1], shape[2]), initializer="normal", name="table")

    def call(self, x):
        return x + self.table


@kind("small transformer")
def transformer():
    x = inputs = keras.Input((12,), dtype="int32")
    x = Positions()(layers.Embedding(40, 16)(x))
    for _ in range(2):
        x = Encoder()(x)
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))


@kind("small ViT")
def vit():
    x = inputs = keras.Input((16, 16, 3))
    x = layers.Reshape((16, 16))(layers.Conv2D(16, 4, strides=4)(x))
    x = Positions()(x)
    for _ in range(2):
        x = Encoder()(x)
    return keras.Model(inputs, layers.Dense(4)(layers.LayerNormalization()(x)[:, 0]))


# Sets, tables, mixtures


@own
class TransformNet(layers.Layer):
    """Learns a 3x3 matrix for each cloud of points."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.points = layers.Conv1D(12, 1, activation="relu")
        self.hidden = layers.Dense(8, activation="relu")
        self.matrix = layers.Dense(9, kernel_initializer="zeros", bias_initializer=keras.initializers.Constant(0.1))

    def call(self, x):
        matrix = self.matrix(self.hidden(ops.max(self.points(x), axis=1)))
        return ops.matmul(x, ops.reshape(matrix, (-1, 3, 3)))


@kind("PointNet")
def pointnet():
    x = inputs = keras.Input((20, 3))
    x = TransformNet()(x)
    for width in (12, 24):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(width, 1)(x)))
    x = layers.Dense(12, activation="relu")(layers.GlobalMaxPooling1D()(x))
    return keras.Model(inputs, layers.Dense(4)(x))


@own
class Experts(layers.Layer):
    """A mixture whose experts are one weight each for all of them."""

    def __init__(self, experts=4, hidden=12, **kwargs):
        super().__init__(**kwargs)
        self.experts, self.hidden = experts, hidden
        self.router = layers.Dense(experts, activation="softmax")

    def build(self, shape):
        width = shape[-1]
        self.up = self.add_weight(shape=(self.experts, width, self.hidden), name="up")
        self.down = self.add_weight(shape=(self.experts, self.hidden, width), name="down")
        self.router.build(shape)

    def call(self, x):
        hidden = ops.relu(ops.einsum("bi,eih->beh", x, self.up))
        return ops.einsum("beo,be->bo", ops.einsum("beh,eho->beo", hidden, self.down), self.router(x))

    def get_config(self):
        return {**super().get_config(), "experts": self.experts, "hidden": self.hidden}


@kind("mixture of experts")
def experts():
    x = inputs = keras.Input((6,))
    x = layers.Dense(12, activation="relu")(x)
    x = x + Experts()(x)
    return keras.Model(inputs, layers.Dense(3)(x))


@own
class Linear(layers.Layer):
    """A Dense of one's own."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], self.units), name="w")
        self.b = self.add_weight(shape=(self.units,), initializer="zeros", name="b")

    def call(self, x):
        return ops.matmul(x, self.w) + self.b

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@kind("Dense of one's own, by add_weight")
def linear():
    x = inputs = keras.Input((8,))
    for _ in range(2):
        x = ops.relu(Linear(16)(x))
    return keras.Model(inputs, Linear(3)(x))


@own
class NoConfig(layers.Layer):
    """Made of other layers, which Keras finds in its arguments and cannot write down."""

    def __init__(self, *inner):
        super().__init__()
        self.inner = list(inner)

    def call(self, x):
        for layer in self.inner:
            x = layer(x)
        return x


@kind("layers without get_config")
def no_config():
    x = inputs = keras.Input((8,))
    x = NoConfig(layers.Dense(16, activation="relu"), layers.Dense(12, activation="relu"))(x)
    return keras.Model(inputs, layers.Dense(3)(x))


@kind("Lambda with a Python lambda")
def python_lambda():
    x = inputs = keras.Input((8,))
    x = layers.Lambda(lambda x: x * 2.0, name="twice")(layers.Dense(16, activation="relu")(x))
    x = layers.Lambda(lambda x: x[:, ::2], output_shape=(8,))(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Dense(12, activation="relu")(x)))


@kind("nested three deep")
def nested():
    def inner(size, width, name):
        x = keras.Input((size,))
        return keras.Model(x, layers.Dense(width, activation="relu", name="dense")(x), name=name)

    x = keras.Input((8,))
    middle = keras.Model(x, inner(16, 12, "inner")(layers.Dense(16, activation="relu", name="dense")(x)), name="middle")
    x = keras.Input((8,))
    outer = keras.Model(x, layers.Dense(8, activation="relu", name="dense")(middle(x)), name="outer")
    x = keras.Input((8,))
    return keras.Model(x, layers.Dense(3)(outer(outer(x))))


@kind("noise layers")
def noise():
    x = inputs = keras.Input((8,))
    x = layers.GaussianNoise(0.1)(x)
    x = layers.GaussianDropout(0.1)(layers.Dense(16, activation="relu")(x))
    x = layers.AlphaDropout(0.1)(layers.Dense(16, activation="selu")(x))
    return keras.Model(inputs, layers.Dense(3)(layers.ActivityRegularization(l2=0.01)(x)))


@own
class StochasticDepth(layers.Layer):
    """Its call asks whether it is in training."""

    def __init__(self, rate=0.2, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, x, training=None):
        if training:
            shape = (ops.shape(x)[0],) + (1,) * (len(x.shape) - 1)
            keep = ops.floor(1 - self.rate + keras.random.uniform(shape, seed=self.seeds))
            return x * keep / (1 - self.rate)
        return x

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


@kind("stochastic depth")
def stochastic_depth():
    x = inputs = keras.Input((10, 10, 3))
    x = layers.Conv2D(12, 3, activation="relu")(x)
    for _ in range(2):
        x = x + StochasticDepth()(layers.Conv2D(12, 3, padding="same", activation="relu")(x))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


@own
class Tied(keras.Model):
    """The words at both ends are one table."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.words = layers.Embedding(40, 16)
        self.hidden = layers.Dense(24, activation="relu")
        self.out = layers.Dense(16)

    def call(self, x):
        x = self.words(x)
        x = x + self.out(self.hidden(x))
        return ops.matmul(x, ops.transpose(self.words.embeddings))


@kind("tied embeddings")
def tied():
    return ran(Tied(), (7,), dtype="int32")


@own
class Autoencoder(keras.Model):
    """Parts that are functional models, as attributes of a subclassed one."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        x = keras.Input((8, 8, 1))
        self.encoder = keras.Model(x, layers.Flatten()(layers.Conv2D(8, 3, strides=2, activation="relu")(x)))
        self.decoder = keras.Sequential(
            [layers.Dense(16, activation="relu"), layers.Dense(64), layers.Reshape((8, 8, 1))]
        )

    def call(self, x):
        return self.decoder(self.encoder(x))


KINDS["autoencoder of functional parts"] = lambda: ran(Autoencoder(), (8, 8, 1))


@own
class Cell(layers.Layer):
    """A recurrent cell of one's own."""

    def __init__(self, units=10, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units
        self.kernel, self.recurrent = layers.Dense(units), layers.Dense(units, use_bias=False)

    def build(self, shape):
        self.kernel.build(shape)
        self.recurrent.build((None, self.units))

    def call(self, x, states):
        state = ops.tanh(self.kernel(x) + self.recurrent(states[0]))
        return state, [state]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@kind("RNN with a cell of one's own")
def cell():
    x = inputs = keras.Input((9, 5))
    x = layers.RNN(Cell())(layers.Dense(12, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(3)(layers.Dense(48, activation="relu")(x)))


@kind("preprocessing inside")
def preprocessing():
    normalization = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])
    x = inputs = keras.Input((12, 12, 3))
    x = layers.RandomRotation(0.1)(layers.RandomFlip()(layers.Rescaling(1 / 255.0)(normalization(x))))
    x = layers.Conv2D(12, 3, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Conv2D(12, 3)(x))))
