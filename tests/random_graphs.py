"""Random functional models by seed: images, sequences and vectors, wired in all the ways the channel trace knows."""

import keras
import numpy as np
from keras import layers, ops


class Graph:
    """Draws layers at random; `seed` decides everything."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)

    def choose(self, *options):
        return options[self.random.integers(len(options))]

    def width(self):
        return int(self.choose(4, 6, 8))

    def activation(self):
        return self.choose("relu", "gelu", "silu", "tanh", "sigmoid", "softplus", "leaky_relu", None)

    def norm(self, x):
        kind = self.choose("batch", "batch", "unscaled", "group", "none")
        if kind == "group" and x.shape[-1] % 2 == 0:
            return layers.GroupNormalization(x.shape[-1] // 2)(x)
        if kind in ("batch", "unscaled"):
            return layers.BatchNormalization(scale=kind == "batch")(x)
        return x

    def act(self, x):
        name = self.activation()
        if name == "leaky_relu":
            return layers.LeakyReLU(0.2)(x)
        return layers.Activation(name)(x) if name and self.random.random() < 0.5 else getattr(ops, name or "relu")(x)

    def model(self):
        start, steps = self.choose(
            (self.images, self.IMAGE), (self.sequences, self.SEQUENCE), (self.vectors, self.VECTOR)
        )
        inputs, x = start()
        for _ in range(int(self.random.integers(3, 7))):
            x = getattr(self, self.choose(*steps))(x)
        outputs = [layers.Dense(3, name="head")(self.flat(x))]
        if self.random.random() < 0.3:
            outputs.append(layers.Dense(2, name="second")(self.flat(self.act(x))))
        return keras.Model(inputs, outputs)

    def flat(self, x):
        if len(x.shape) == 2:
            return x
        if len(x.shape) == 4:
            return self.choose(layers.Flatten(), layers.GlobalAveragePooling2D(), layers.GlobalMaxPooling2D())(x)
        return self.choose(layers.Flatten(), layers.GlobalAveragePooling1D(), layers.LSTM(4), layers.GRU(3))(x)

    # Images

    IMAGE = (
        *("convolution", "convolution", "residual", "bottleneck", "concatenation", "parallel", "depthwise", "grouped"),
        *("separable", "squeeze_excite", "split_channels", "shuffle", "pool", "pad_channels", "slices", "nested"),
        *("shared", "prelu", "gated"),
    )

    def images(self):
        x = keras.Input((6, 6, 3))
        return x, layers.Conv2D(self.width(), 3, padding="same", activation=self.activation())(x)

    def convolution(self, x):
        size = int(self.choose(1, 3))
        x = layers.Conv2D(self.width(), size, padding="same", use_bias=bool(self.choose(0, 1)))(x)
        return self.act(self.norm(x))

    def residual(self, x):
        y = self.norm(layers.Conv2D(x.shape[-1], 3, padding="same")(self.act(x)))
        return self.choose(layers.Add(), layers.Average(), layers.Maximum(), layers.Subtract())([x, y])

    def bottleneck(self, x):
        y = layers.Conv2D(x.shape[-1] * 2, 1)(x)
        y = layers.DepthwiseConv2D(3, padding="same")(self.act(self.norm(y)))
        return x + layers.Conv2D(x.shape[-1], 1)(self.act(y))

    def concatenation(self, x):
        y = layers.Conv2D(self.width(), 3, padding="same", activation=self.activation())(x)
        return layers.Concatenate()([x, y]) if self.random.random() < 0.5 else ops.concatenate([y, x], axis=-1)

    def parallel(self, x):
        branches = [layers.Conv2D(4, 1)(x), layers.Conv2D(4, 3, padding="same")(x)]
        return layers.Concatenate()([*branches, layers.AveragePooling2D(3, strides=1, padding="same")(x)])

    def depthwise(self, x):
        return self.act(layers.DepthwiseConv2D(3, padding="same", depth_multiplier=int(self.choose(1, 2)))(x))

    def grouped(self, x):
        groups = int(self.choose(2, x.shape[-1])) if x.shape[-1] % 2 == 0 else x.shape[-1]
        return layers.Conv2D(groups * 2, 3, groups=groups, padding="same")(x)

    def separable(self, x):
        return layers.SeparableConv2D(self.width(), 3, padding="same", activation=self.activation())(x)

    def squeeze_excite(self, x):
        gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
        gate = layers.Conv2D(3, 1, activation="relu")(gate)
        return layers.Multiply()([x, layers.Conv2D(x.shape[-1], 1, activation="sigmoid")(gate)])

    def split_channels(self, x):
        if x.shape[-1] % 2:
            return x
        left, right = ops.split(x, 2, axis=-1)
        right = layers.Conv2D(right.shape[-1], 3, padding="same")(right)
        return self.choose(lambda: left * ops.sigmoid(right), lambda: ops.concatenate([right, left], axis=-1))()

    def shuffle(self, x):
        height, width, channels = x.shape[1:]
        if channels % 2:
            return x
        x = layers.Reshape((height, width, 2, channels // 2))(x)
        return layers.Reshape((height, width, channels))(layers.Permute((1, 2, 4, 3))(x))

    def pool(self, x):
        if x.shape[1] < 4:
            return layers.UpSampling2D(2)(x)
        return self.choose(layers.MaxPooling2D(2), layers.AveragePooling2D(2), layers.Cropping2D(1))(x)

    def pad_channels(self, x):
        y = layers.Conv2D(x.shape[-1] + 3, 1)(x)
        return y + ops.pad(x, [[0, 0], [0, 0], [0, 0], [1, 2]])

    def slices(self, x):
        cut = int(self.random.integers(1, x.shape[-1]))
        return ops.concatenate([x[..., cut:], ops.relu(x[..., :cut])], axis=-1)

    def nested(self, x):
        inner = keras.Sequential(
            [keras.Input(x.shape[1:]), layers.Conv2D(x.shape[-1], 3, padding="same"), layers.BatchNormalization()]
        )
        return inner(x) if self.random.random() < 0.5 else x + inner(self.act(inner(x)))

    def shared(self, x):
        layer = layers.Conv2D(x.shape[-1], 3, padding="same")
        return layer(self.act(layer(x)))

    def prelu(self, x):
        return layers.PReLU(shared_axes=self.choose(None, [1, 2]))(x)

    def gated(self, x):
        gate = layers.Conv2D(1, 1, activation="sigmoid")(x)
        return layers.Multiply()([x, gate])

    # Sequences

    SEQUENCE = (
        *("feed_forward", "attention", "grouped_attention", "recurrent", "recurrent", "bidirectional", "temporal"),
        *("attention_by_hand", "einsum", "mixer", "time_distributed", "branch", "steps"),
    )

    def sequences(self):
        if self.random.random() < 0.3:
            x = keras.Input((6,), dtype="int32")
            return x, layers.Embedding(4, self.width())(x)
        x = keras.Input((6, 5))
        return x, layers.Dense(self.width())(x)

    def feed_forward(self, x):
        y = layers.Dense(self.width() * 2, activation=self.activation())(x)
        return layers.Add()([x, layers.Dense(x.shape[-1])(layers.Dropout(0.1)(y))])

    def attention(self, x):
        layer = layers.MultiHeadAttention(
            int(self.choose(2, 3)),
            int(self.choose(3, 4)),
            value_dim=self.choose(None, 5),
            use_bias=bool(self.choose(0, 1)),
        )
        return x + layer(x, x)

    def grouped_attention(self, x):
        return x + layers.GroupQueryAttention(4, 4, 2)(x, x)

    def recurrent(self, x):
        kind = self.choose(layers.LSTM, layers.GRU, layers.SimpleRNN)
        return kind(self.width(), return_sequences=True)(x)

    def bidirectional(self, x):
        inner = self.choose(layers.LSTM, layers.GRU)(4, return_sequences=True)
        return layers.Bidirectional(inner, merge_mode=self.choose("concat", "sum", "mul", "ave"))(x)

    def temporal(self, x):
        return self.norm(layers.Conv1D(self.width(), 3, padding=self.choose("same", "causal"))(x))

    def attention_by_hand(self, x):
        steps = x.shape[1]
        query, key, value = (
            ops.transpose(ops.reshape(layers.Dense(8)(x), (-1, steps, 2, 4)), (0, 2, 1, 3)) for _ in range(3)
        )
        scores = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) / 2.0, axis=-1)
        mixed = ops.reshape(ops.transpose(ops.matmul(scores, value), (0, 2, 1, 3)), (-1, steps, 8))
        return x + layers.Dense(x.shape[-1])(mixed)

    def einsum(self, x):
        left, right = layers.Dense(6)(x), layers.Dense(6, activation=self.activation())(x)
        return layers.Dense(5)(ops.einsum("btc,bsc->bts", left, right))

    def mixer(self, x):
        y = layers.Dense(7, activation="gelu")(layers.Permute((2, 1))(x))
        return layers.Add()([x, layers.Permute((2, 1))(layers.Dense(x.shape[1])(y))])

    def time_distributed(self, x):
        return layers.TimeDistributed(layers.Dense(self.width(), activation=self.activation()))(x)

    def branch(self, x):
        return layers.Concatenate()([x, layers.Dense(self.width())(x)])

    def steps(self, x):
        return self.choose(layers.MaxPooling1D(2, padding="same"), layers.ZeroPadding1D(1), layers.Cropping1D(1))(x)

    # Vectors

    VECTOR = ("dense", "dense", "skip", "mixture", "halves", "product", "constants", "reshaped", "gather", "two_ways")

    def vectors(self):
        x, y = keras.Input((5,)), keras.Input((4,))
        first = layers.Dense(self.width(), activation=self.activation())(x)
        return [x, y], layers.Concatenate()([first, layers.Dense(self.width())(y)])

    def dense(self, x):
        return self.norm(layers.Dense(self.width(), activation=self.activation())(x))

    def skip(self, x):
        return x + layers.Dense(x.shape[-1], activation=self.activation())(x)

    def mixture(self, x):
        weights = layers.Dense(1, activation="sigmoid")(x)
        return layers.Dense(6)(x) * weights + layers.Dense(6)(x) * (1.0 - weights)

    def halves(self, x):
        cut = int(self.random.integers(1, x.shape[-1]))
        left, right = ops.split(x, [cut], axis=-1)
        return layers.Concatenate()([layers.Dense(4)(right), left])

    def product(self, x):
        return layers.Multiply()([x, layers.Dense(x.shape[-1], activation="tanh")(x)])

    def constants(self, x):
        return x * np.arange(1, x.shape[-1] + 1, dtype="float32") + 0.5

    def reshaped(self, x):
        x = layers.Reshape((2, 2, 4))(layers.Dense(16)(x))
        return layers.Flatten()(layers.Conv2D(4, 2, activation=self.activation())(x))

    def gather(self, x):
        order = self.random.permutation(x.shape[-1])[: max(2, x.shape[-1] // 2)]
        return ops.concatenate([ops.take(x, order, axis=-1), x[:, ::2]], axis=-1)

    def two_ways(self, x):
        layer = layers.Dense(x.shape[-1])
        return self.choose(layers.Add(), layers.Concatenate())([layer(x), layer(ops.relu(x))])
