"""Random graphs in which layers made of other layers, subclassed models and built-in layers are mixed, by seed."""

import keras
import numpy as np
from keras import layers, ops
from random_graphs import Graph


class Block(layers.Layer):
    """A residual block whose kind is drawn: a norm, two layers, and what joins them."""

    def __init__(self, width, inner, norm, gated):
        super().__init__()
        self.norm = norm
        self.up, self.down = layers.Dense(inner, activation="gelu"), layers.Dense(width)
        self.gate = layers.Dense(inner, activation="sigmoid") if gated else None

    def call(self, x):
        y = self.norm(x)
        y = self.up(y) if self.gate is None else self.up(y) * self.gate(y)
        return x + self.down(y)


class Heads(layers.Layer):
    """Attention written by hand, with a scale that is a weight of its own."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (layers.Dense(2 * heads) for _ in range(3))
        self.out = layers.Dense(width)

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")
        for layer in (self.query, self.key, self.value):
            layer.build(shape)
        self.out.build((*shape[:-1], 2 * self.heads))

    def call(self, x):
        batch, steps = ops.shape(x)[:2]
        y = x * self.scale

        def split(z):
            return ops.transpose(ops.reshape(z, (batch, steps, self.heads, 2)), (0, 2, 1, 3))

        q, k, v = split(self.query(y)), split(self.key(y)), split(self.value(y))
        mixed = ops.matmul(ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / 1.5), v)
        return x + self.out(ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (batch, steps, 2 * self.heads)))


class Whole(keras.Model):
    """A subclassed model around a functional one and a block of its own."""

    def __init__(self, body, width, out):
        super().__init__()
        self.body, self.out = body, layers.Dense(out)
        self.norm, self.hidden = layers.LayerNormalization(), layers.Dense(width, activation="relu")

    def call(self, x):
        y = self.norm(self.hidden(self.body(x)))
        return self.out(y)


class MixedGraph(Graph):
    """Draws composite layers among the others; every third model is subclassed."""

    SEQUENCE = (*Graph.SEQUENCE, "block", "block", "heads", "encoder", "bidirectional")
    VECTOR = (*Graph.VECTOR, "block", "block")

    def block(self, x):
        norm = self.choose(layers.LayerNormalization(), layers.RMSNormalization(), layers.BatchNormalization())
        return Block(x.shape[-1], self.width() * 2, norm, bool(self.choose(0, 1)))(x)

    def heads(self, x):
        return Heads(x.shape[-1], int(self.choose(2, 3)))(x)

    def encoder(self, x):
        return self.block(self.heads(x))

    def model(self):
        inputs, x = self.sequences() if self.random.random() < 0.7 else self.vectors()
        steps = self.SEQUENCE if len(x.shape) == 3 else self.VECTOR
        for _ in range(int(self.random.integers(2, 5))):
            x = getattr(self, self.choose(*steps))(x)
        if self.random.random() < 0.33 and not isinstance(inputs, list):
            whole = Whole(keras.Model(inputs, self.flat(x)), self.width(), 3)
            whole.build((None, *inputs.shape[1:]))
            return whole
        return keras.Model(inputs, layers.Dense(3, name="head")(self.flat(x)))


def zero(model, plan):
    """Zeroes the weights of the channels that a plan removes, in the model itself."""
    masks, keys = plan.groups.masks(dict(plan)), plan.groups.key_of
    for variable in model.weights:
        mask = masks.get(keys.get(id(variable)))
        if mask is not None:
            variable.assign(np.asarray(variable) * np.reshape(mask, variable.shape))
