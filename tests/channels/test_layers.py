"""Every kind of layer: shrunk equals masked, and the channels that should be removable are."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from channel_checks import check_shrinks, randomise
from keras import layers, ops

from tfprune.channels import Reason, channel_groups


def image(*body, size=(8, 8), channels=3, first=6):
    """A network with `body` between a convolution named "first" and the outputs."""
    x = inputs = keras.Input((*size, channels))
    x = layers.Conv2D(first, 3, padding="same", name="first")(x)
    for step in body:
        x = step(x)
    if len(x.shape) == 4:
        x = layers.Conv2D(5, 3, name="next")(x)
        x = layers.GlobalAveragePooling2D()(x)
    return randomise(keras.Model(inputs, layers.Dense(4, name="head")(x)))


def vector(*body, width=5, first=8):
    x = inputs = keras.Input((width,))
    x = layers.Dense(first, name="first")(x)
    for step in body:
        x = step(x)
    return randomise(keras.Model(inputs, layers.Dense(4, name="head")(x)))


def sequence(*body, steps=6, width=5, first=8):
    x = inputs = keras.Input((steps, width))
    x = layers.Dense(first, name="first")(x)
    for step in body:
        x = step(x)
    if len(x.shape) == 3:
        x = layers.GlobalAveragePooling1D()(x)
    return randomise(keras.Model(inputs, layers.Dense(4, name="head")(x)))


def volume(*body):
    x = inputs = keras.Input((5, 5, 5, 2))
    x = layers.Conv3D(6, 2, name="first")(x)
    for step in body:
        x = step(x)
    if len(x.shape) == 5:
        x = layers.GlobalMaxPooling3D()(x)
    return randomise(keras.Model(inputs, layers.Dense(4, name="head")(x)))


def residual(x):
    y = layers.Conv2D(x.shape[-1], 3, padding="same")(x)
    y = layers.BatchNormalization()(y)
    return layers.Add()([x, layers.ReLU()(y)])


def dense_block(x):
    y = layers.Conv2D(4, 3, padding="same")(x)
    return layers.Concatenate()([x, y])


def squeeze_excite(x):
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(3, 1, activation="relu")(gate)
    gate = layers.Conv2D(x.shape[-1], 1, activation="sigmoid")(gate)
    return layers.Multiply()([x, gate])


def squeeze_excite_dense(x):
    gate = layers.GlobalAveragePooling2D()(x)
    gate = layers.Reshape((1, 1, x.shape[-1]))(gate)
    gate = layers.Dense(3, activation="silu")(gate)
    gate = layers.Dense(x.shape[-1], activation="hard_sigmoid")(gate)
    return layers.Multiply()([gate, x])


def channel_shuffle(groups):
    def step(x):
        height, width, channels = x.shape[1:]
        x = layers.Reshape((height, width, groups, channels // groups))(x)
        x = layers.Permute((1, 2, 4, 3))(x)
        return layers.Reshape((height, width, channels))(x)

    return step


def merge(layer, others=1):
    def step(x):
        branches = [layers.Dense(x.shape[-1])(x) for _ in range(others)]
        return layer([x, *branches])

    return step


def self_attention(layer):
    return lambda x: layers.Add()([x, layer(x, x)])


def gated_attention(x, y):
    """Attention with a gate, where this version of Keras has one."""
    known = "use_gate" in inspect.signature(layers.MultiHeadAttention.__init__).parameters
    return layers.MultiHeadAttention(2, 4, **({"use_gate": True} if known else {}))(x, y)


def attention_by_hand(x):
    heads, width = 2, 4
    steps = x.shape[1]

    def split(y):
        return ops.transpose(ops.reshape(y, (-1, steps, heads, width)), (0, 2, 1, 3))

    query, key, value = (split(layers.Dense(heads * width)(x)) for _ in range(3))
    scores = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) / 2.0, axis=-1)
    mixed = ops.transpose(ops.matmul(scores, value), (0, 2, 1, 3))
    return x + layers.Dense(x.shape[-1])(ops.reshape(mixed, (-1, steps, heads * width)))


def attention_by_einsum(x):
    query, key, value = (layers.EinsumDense("btc,chd->bthd", (None, 2, 4), bias_axes="hd")(x) for _ in range(3))
    scores = ops.softmax(ops.einsum("bthd,bshd->bhts", query, key), axis=-1)
    mixed = ops.einsum("bhts,bshd->bthd", scores, value)
    return x + layers.EinsumDense("bthd,hdc->btc", (None, x.shape[-1]), bias_axes="c")(mixed)


class Normalized(layers.Layer):
    """A convolution whose kernels have a length that is learned by itself."""

    def __init__(self, rank, **kwargs):
        super().__init__(**kwargs)
        kind = {1: layers.Conv1D, 2: layers.Conv2D}[rank]
        self.layer = kind(7, 3, use_bias=False)

    def build(self, shape):
        self.layer.build(shape)
        self.length = self.add_weight(name="length", shape=(7,), initializer="ones")

    def call(self, x):
        kernel = self.layer.kernel
        length = ops.sqrt(ops.sum(ops.square(kernel), tuple(range(len(kernel.shape) - 1)), keepdims=True))
        return ops.conv(x, kernel * (self.length / (length + 1e-6)), strides=2, padding="same")


def in_segments(segments):
    """Steps of a sequence taken together by the number that each has."""

    def by_steps(x):
        return ops.transpose(x, (1, 0, 2))

    return lambda x: by_steps(segments(by_steps(x), np.array([0, 1, 1, 2, 0, 2]), num_segments=3))


def mixer(x):
    y = layers.Permute((2, 1))(x)
    y = layers.Dense(10, activation="gelu")(y)
    y = layers.Dense(x.shape[1])(y)
    x = layers.Add()([x, layers.Permute((2, 1))(y)])
    y = layers.Dense(12, activation="gelu")(x)
    return layers.Add()([x, layers.Dense(x.shape[-1])(y)])


def split_and_add(x):
    left, right = ops.split(x, 2, axis=-1)
    return left * ops.sigmoid(right)


def uneven_split(x):
    a, b, c = ops.split(x, [2, 5], axis=-1)
    return ops.concatenate([ops.relu(c), a, b], axis=-1)


def encoder_decoder(x):
    _, h, c = layers.LSTM(4, return_state=True)(x)
    return layers.LSTM(4, return_sequences=True)(x, initial_state=[h, c])


def rms_decoder():
    """Token by token, as language models are built: every channel of the residual stream can go."""
    x = inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 10, name="table")(x)
    for _ in range(2):
        y = layers.RMSNormalization(epsilon=0.01)(x)
        x = x + layers.GroupQueryAttention(4, 4, 2)(y, y, use_causal_mask=True)
        y = layers.RMSNormalization(epsilon=0.01)(x)
        x = x + layers.Dense(x.shape[-1])(layers.Dense(12, activation="silu")(y) * layers.Dense(12)(y))
    return randomise(keras.Model(inputs, layers.Dense(9)(layers.RMSNormalization()(x))))


def attention_by_operation(x):
    query, key, value = (ops.reshape(layers.Dense(8)(x), (-1, x.shape[1], 2, 4)) for _ in range(3))
    mixed = ops.dot_product_attention(query, key, value)
    return x + layers.Dense(x.shape[-1])(ops.reshape(mixed, (-1, x.shape[1], 8)))


def language_model(tie):
    table = layers.ReversibleEmbedding(9, 10, tie_weights=tie, name="table")
    inputs = keras.Input((6,), dtype="int32")
    x = table(inputs)
    x = x + layers.Dense(10)(layers.Dense(12, activation="relu")(x))
    return randomise(keras.Model(inputs, table(x, reverse=True)))


def bidirectional_states(x):
    x, *states = layers.Bidirectional(layers.LSTM(6, return_sequences=True, return_state=True))(x)
    return layers.Bidirectional(layers.LSTM(6))(x, initial_state=states)


def bidirectional_across(x):
    """The first two of six forward units meet channels of a layer of their own, the others those of another."""
    other = layers.Concatenate()([layers.Dense(2)(x), layers.Dense(10)(x)])
    return layers.Add()([layers.Bidirectional(layers.GRU(6, return_sequences=True))(x), other])


def bidirectional_output():
    """Four forward units cannot go, so four backward units stay as well."""
    x = inputs = keras.Input((6, 5))
    x = layers.Bidirectional(layers.LSTM(6, return_sequences=True))(layers.Dense(8)(x))
    return randomise(keras.Model(inputs, [layers.Dense(2)(x), x[..., :4]]))


def test_directions_of_two_widths_are_left_alone():
    # Keras itself takes the second direction to be as wide as the first.
    two = layers.Bidirectional(layers.GRU(6), backward_layer=layers.GRU(4, go_backwards=True), merge_mode=None)
    groups = channel_groups(sequence(two, lambda outputs: outputs[0]))
    assert groups["first"].frozen.reason is Reason.INPUT_SHAPE


CASES = {
    # Dense, convolutions
    "dense": vector(layers.Dense(7, activation="relu")),
    "dense on sequences": sequence(layers.Dense(7, activation="relu")),
    "conv1d": sequence(layers.Conv1D(7, 3, activation="relu")),
    "conv2d": image(layers.Conv2D(7, 3, padding="same", activation="relu")),
    "conv2d channels first": image(
        layers.Permute((3, 1, 2)), layers.ZeroPadding2D(1, data_format="channels_first"), layers.Permute((2, 3, 1))
    ),
    "conv3d": volume(layers.Conv3D(5, 2, activation="relu")),
    "conv1d transpose": sequence(layers.Conv1DTranspose(7, 3, strides=2)),
    "conv2d transpose": image(layers.Conv2DTranspose(7, 3, strides=2, padding="same")),
    "conv3d transpose": volume(layers.Conv3DTranspose(5, 2)),
    "grouped conv": image(layers.Conv2D(9, 3, groups=3, padding="same")),
    "grouped conv, one input per group": image(layers.Conv2D(12, 3, groups=6, padding="same")),
    "grouped conv, one output per group": image(layers.Conv2D(3, 3, groups=3, padding="same")),
    "depthwise": image(layers.DepthwiseConv2D(3, padding="same"), layers.BatchNormalization(), layers.ReLU(6.0)),
    "depthwise with multiplier": image(layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")),
    "depthwise 1d": sequence(layers.DepthwiseConv1D(3)),
    "separable": image(layers.SeparableConv2D(7, 3, padding="same", activation="relu")),
    "separable with multiplier": image(layers.SeparableConv2D(7, 3, depth_multiplier=2)),
    "separable 1d": sequence(layers.SeparableConv1D(7, 3)),
    **(
        {"reversible embedding": language_model(True), "two tables": language_model(False)}
        if hasattr(layers, "ReversibleEmbedding")
        else {}
    ),
    "einsum dense": sequence(layers.EinsumDense("abc,cde->abde", (None, 2, 4)), layers.Reshape((6, 8))),
    "einsum dense with dots": sequence(layers.EinsumDense("...c,cd->...d", 7, bias_axes="d", activation="relu")),
    "einsum dense per head": sequence(
        layers.Reshape((6, 2, 4)), layers.EinsumDense("bthc,hcd->bthd", (None, 2, 5)), layers.Reshape((6, 10))
    ),
    # Norms
    "batch norm": image(layers.BatchNormalization(), layers.ReLU()),
    "batch norm without scale": image(layers.BatchNormalization(scale=False), layers.ReLU()),
    "batch norm without center": image(layers.BatchNormalization(center=False), residual),
    "group norm": image(layers.GroupNormalization(3), layers.ReLU()),
    "instance norm": image(layers.GroupNormalization(-1), layers.ReLU()),
    "unit norm": vector(layers.UnitNormalization()),
    **({"rms norm": rms_decoder()} if hasattr(layers, "RMSNormalization") else {}),
    "layer norm inside": sequence(layers.LayerNormalization(axis=1)),
    # Activations
    **{
        name: image(layers.Activation(name))
        for name in (
            "relu",
            "gelu",
            "silu",
            "tanh",
            "elu",
            "selu",
            "sigmoid",
            "softplus",
            "hard_sigmoid",
            "exponential",
        )
    },
    "leaky relu": image(layers.LeakyReLU(0.1)),
    "prelu": image(layers.PReLU()),
    "prelu shared over space": image(layers.PReLU(shared_axes=[1, 2])),
    "activation inside": image(layers.Conv2D(6, 3, padding="same", activation="sigmoid"), residual),
    "softmax over space": sequence(layers.Softmax(axis=1), layers.Conv1D(5, 3, activation="relu")),
    "dropout family": image(
        layers.Dropout(0.5), layers.SpatialDropout2D(0.5), layers.GaussianNoise(0.1), layers.GaussianDropout(0.1)
    ),
    "dropout with a shape": sequence(layers.Dropout(0.5, noise_shape=(None, 1, 8))),
    "rescaling": image(layers.Rescaling(0.5, offset=1.0)),
    # Space
    "max pooling": image(layers.MaxPooling2D(2, padding="same")),
    "average pooling": image(layers.AveragePooling2D(3, strides=1, padding="same")),
    "global pooling": image(layers.GlobalMaxPooling2D()),
    "global pooling keepdims": image(layers.GlobalAveragePooling2D(keepdims=True), layers.Flatten()),
    "padding and cropping": image(layers.ZeroPadding2D(2), layers.Cropping2D(1)),
    "upsampling": image(layers.UpSampling2D(2), layers.UpSampling2D(2, interpolation="bilinear")),
    "resizing": image(layers.Resizing(5, 5)),
    # Moves
    "flatten": image(layers.MaxPooling2D(4), layers.Flatten(), layers.Dense(6)),
    "flatten channels first": image(
        layers.Permute((3, 1, 2)),
        layers.MaxPooling2D(4, data_format="channels_first"),
        layers.Flatten(data_format="channels_first"),
    ),
    "reshape to image": vector(
        layers.Dense(4 * 4 * 6), layers.Reshape((4, 4, 6)), layers.Conv2D(4, 3), layers.Flatten()
    ),
    "reshape with open size": image(layers.Reshape((-1, 6)), layers.Dense(5), layers.GlobalAveragePooling1D()),
    "permute": sequence(layers.Permute((2, 1)), layers.Permute((2, 1))),
    "repeat vector": vector(layers.RepeatVector(3), layers.Dense(5), layers.Flatten()),
    "channel shuffle": image(channel_shuffle(2), layers.DepthwiseConv2D(3)),
    "channel shuffle between grouped": image(
        layers.Conv2D(8, 1, groups=2), channel_shuffle(2), layers.Conv2D(8, 1, groups=2)
    ),
    # Meeting
    "add": vector(merge(layers.Add(), 2)),
    "subtract": vector(merge(layers.Subtract())),
    "multiply": vector(merge(layers.Multiply(), 2)),
    "average": vector(merge(layers.Average(), 2)),
    "maximum": vector(merge(layers.Maximum())),
    "minimum": vector(merge(layers.Minimum())),
    "concatenate": vector(merge(layers.Concatenate(), 2), layers.Dense(6)),
    "concatenate along steps": sequence(merge(layers.Concatenate(axis=1))),
    "dot": sequence(merge(layers.Dot(axes=2)), layers.Flatten()),
    "residual": image(layers.BatchNormalization(), layers.ReLU(), residual, residual),
    "dense block": image(dense_block, dense_block, layers.BatchNormalization()),
    "residual of a concatenation": image(dense_block, residual),
    "squeeze and excite": image(squeeze_excite),
    "squeeze and excite with dense": image(squeeze_excite_dense),
    # Attention
    "multi-head attention": sequence(self_attention(layers.MultiHeadAttention(3, 4))),
    "multi-head attention, value dim": sequence(
        lambda x: layers.MultiHeadAttention(2, 4, value_dim=3, output_shape=5)(x, x)
    ),
    "multi-head attention without bias": sequence(self_attention(layers.MultiHeadAttention(2, 4, use_bias=False))),
    "grouped query attention": sequence(self_attention(layers.GroupQueryAttention(4, 4, 2))),
    "dot-product attention": sequence(lambda x: layers.Attention()([layers.Dense(6)(x), x, layers.Dense(6)(x)])),
    "attention, concat score": sequence(
        lambda x: layers.Attention(score_mode="concat")([layers.Dense(6)(x), x, layers.Dense(6)(x)])
    ),
    "additive attention": sequence(lambda x: layers.AdditiveAttention()([layers.Dense(6)(x), x, layers.Dense(6)(x)])),
    "attention by an operation": sequence(attention_by_operation),
    "attention by hand": sequence(attention_by_hand),
    "attention by einsum": sequence(attention_by_einsum),
    "mixer": sequence(mixer),
    "convolution by a kernel that is computed": sequence(Normalized(1), layers.ReLU(), Normalized(1)),
    "convolution of images by a kernel that is computed": image(Normalized(2)),
    "sums of segments": sequence(in_segments(ops.segment_sum)),
    "maxima of segments": sequence(in_segments(ops.segment_max)),
    # Recurrent
    "lstm": sequence(layers.LSTM(6)),
    "lstm stack": sequence(layers.LSTM(6, return_sequences=True), layers.LSTM(5)),
    "gru": sequence(layers.GRU(6, return_sequences=True), layers.GRU(5, reset_after=False)),
    "simple rnn": sequence(layers.SimpleRNN(6)),
    "lstm without bias": sequence(layers.LSTM(6, use_bias=False)),
    "rnn of a cell": sequence(layers.RNN(layers.LSTMCell(6), return_sequences=True), layers.RNN(layers.GRUCell(5))),
    "attention with a gate": sequence(self_attention(gated_attention)),
    "encoder and decoder": sequence(encoder_decoder),
    "bidirectional": sequence(layers.Bidirectional(layers.LSTM(6)), layers.Dense(5)),
    "bidirectional sum": sequence(layers.Bidirectional(layers.GRU(6, return_sequences=True), merge_mode="sum")),
    "bidirectional apart": sequence(
        layers.Bidirectional(layers.GRU(6, return_sequences=True), merge_mode=None), layers.Concatenate()
    ),
    "bidirectional of two kinds": sequence(
        layers.Bidirectional(layers.GRU(6), backward_layer=layers.LSTM(6, go_backwards=True)), layers.Dense(5)
    ),
    "bidirectional states": sequence(bidirectional_states),
    "bidirectional across its middle": sequence(bidirectional_across),
    "bidirectional of which a part is the output": bidirectional_output(),
    "time distributed": sequence(layers.TimeDistributed(layers.Dense(6, activation="relu"))),
    "time distributed convolution": image(
        layers.Reshape((2, 4, 8, 6)), layers.TimeDistributed(layers.Conv2D(5, 3)), layers.Flatten()
    ),
    "convolutional lstm": image(
        layers.Reshape((2, 4, 8, 6)), layers.ConvLSTM2D(5, 3, padding="same"), layers.Flatten()
    ),
    # Operations
    "gated": vector(split_and_add),
    "uneven split": vector(uneven_split),
    "an activation as a function": vector(keras.activations.relu),
    "a truth value among the operands": vector(lambda x: ops.where(x > 0.1, x, False)),
    "slices": vector(lambda x: ops.concatenate([x[:, 4:], x[:, :3]], axis=-1)),
    "strided slice": vector(lambda x: x[:, ::2]),
    "slice of both axes": sequence(lambda x: ops.slice(x, (0, 1, 3), (-1, 4, 5))),
    "slice of steps": sequence(lambda x: ops.slice(x, (0, 2, 0), (-1, 3, 8))),
    "take": vector(lambda x: ops.take(x, np.array([5, 1, 6, 2]), axis=-1)),
    "flip": vector(lambda x: ops.flip(x, axis=1)),
    "roll": vector(lambda x: ops.roll(x, 3, axis=1)),
    "roll windows": image(lambda x: ops.roll(x, (1, 2), (1, 2))),
    "tile": vector(lambda x: ops.tile(x, (1, 3))),
    "repeat": vector(lambda x: ops.repeat(x, 2, axis=1)),
    "pad channels": image(lambda x: ops.pad(x, [[0, 0], [0, 0], [0, 0], [1, 2]])),
    "pad space": image(lambda x: ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])),
    "stack and sum": vector(lambda x: ops.sum(ops.stack([x, ops.relu(x)], axis=1), axis=1)),
    "expand and squeeze": vector(lambda x: ops.squeeze(ops.expand_dims(ops.tanh(x), 1), 1)),
    "constants": vector(lambda x: x * np.arange(1, 9, dtype="float32") + np.ones((1, 8), "float32")),
    "scalars": vector(lambda x: 2.0 * x - 1.0),
    "divided by what cannot be zero": vector(lambda x: x / (1.0 + ops.exp(x))),
    "sum over channels": vector(lambda x: layers.Concatenate()([x, ops.sum(x, axis=-1, keepdims=True)])),
    "mean over steps": sequence(lambda x: ops.mean(x, axis=1)),
    "moments over space": image(lambda x: (x - ops.moments(x, [1, 2], keepdims=True)[0]) * 2.0),
    "variance over space and its root": image(lambda x: x / ops.sqrt(ops.var(x, axis=(1, 2), keepdims=True) + 1e-3)),
    "moments of steps": sequence(lambda x: ops.concatenate(ops.moments(x, [1]), axis=-1)),
    "swapped axes": sequence(lambda x: ops.swapaxes(ops.moveaxis(x, 1, 2), 1, 2)),
    "where": vector(lambda x: ops.where(x > 0, x, 0.1 * x)),
    "squeeze of all that is one, channels last": vector(layers.Dense(2), lambda x: ops.squeeze(x[:, None])),
    "patches": image(lambda x: ops.image.extract_patches(x, 2, strides=1, padding="same")),
    "space to depth": image(lambda x: ops.nn.space_to_depth(x, 2) if hasattr(ops.nn, "space_to_depth") else x),
}


@pytest.mark.parametrize("name", CASES)
def test_shrunk_equals_masked(name):
    plan, _ = check_shrinks(CASES[name])
    first = next(iter(plan))
    assert not plan[first].all(), f"nothing of the first layer goes\n{plan}"


def test_whole_heads_and_widths_go_from_attention():
    plan, small = check_shrinks(sequence(self_attention(layers.MultiHeadAttention(4, 5, name="mha"))))
    layer = small.get_layer("mha")
    assert (layer.num_heads, layer.key_dim, layer.value_dim) == (3, 3, 3)
    assert [name for name in plan if name.startswith("mha/")] == ["mha/heads", "mha/key_dim", "mha/value_dim"]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (vector(layers.Activation("sigmoid"), layers.LayerNormalization()), Reason.NORMALIZED),
        (image(layers.Activation("sigmoid"), layers.GroupNormalization(1)), Reason.NORMALIZED),
        (vector(layers.Softmax()), Reason.MIXED),
        (vector(layers.Dense(6, activation="softmax", name="mixed")), Reason.MIXED),
        (vector(lambda x: layers.Concatenate()([x, ops.max(x, axis=-1, keepdims=True)])), Reason.MIXED),
        (vector(lambda x: ops.sort(x, axis=-1)), Reason.UNKNOWN_LAYER),
        (vector(layers.Lambda(lambda x: tf.raw_ops.Identity(input=x))), Reason.UNKNOWN_LAYER),
        (vector(lambda x: ops.log(x * x)), Reason.NOT_FINITE),
        (vector(lambda x: 1.0 / x), Reason.NOT_FINITE),
        (sequence(layers.Permute((2, 1)), layers.Conv1D(4, 2)), Reason.OTHER_AXIS),
        (vector(layers.Activation(lambda x: tf.raw_ops.Softmax(logits=x))), Reason.UNKNOWN_FUNCTION),
        (vector(lambda x: ops.unstack(x, axis=1)[0][:, None]), Reason.INPUT_SHAPE),
    ],
    ids=lambda value: value.name if isinstance(value, Reason) else "",
)
def test_channels_that_others_notice_are_left_alone_for_a_reason(model, reason):
    groups = channel_groups(model)
    assert reason in {group.frozen.reason for group in groups.values() if group.frozen}
    check_shrinks(model, expect_removed=bool(groups.free))


def test_a_mean_over_all_axes_counts_the_channels_that_were_there():
    check_shrinks(vector(layers.Activation(lambda x: x - tf.reduce_mean(x))))


@pytest.mark.parametrize(
    "after",
    [
        layers.LSTM(6),
        layers.Bidirectional(layers.GRU(6)),
        layers.GlobalAveragePooling1D(),
        lambda x: layers.GlobalAveragePooling1D()(layers.TimeDistributed(layers.Dense(6))(x)),
        lambda x: layers.GlobalAveragePooling1D()(layers.MultiHeadAttention(2, 4)(x, x)),
        lambda x: layers.LSTM(6)(layers.Masking()(x)),
    ],
    ids=["lstm", "bidirectional", "pooling", "time distributed", "attention", "masking"],
)
def test_padded_steps_are_skipped_in_the_small_model_too(after):
    x = keras.Input((6,), dtype="int32")
    y = after(layers.Embedding(5, 8, mask_zero=True, name="table")(x))
    model = randomise(keras.Model(x, layers.Dense(3)(y)))
    data = np.array([[1, 2, 3, 4, 1, 2], [3, 1, 2, 0, 0, 0], [4, 0, 0, 0, 0, 0]])
    plan, _ = check_shrinks(model, data=data)
    assert not plan["table"].all()


def test_translation_with_attention_over_padded_steps_shrinks():
    source, target = keras.Input((7,), dtype="int32"), keras.Input((5,), dtype="int32")
    table = layers.Embedding(20, 8, mask_zero=True, name="table")
    states, h, c = layers.LSTM(10, return_sequences=True, return_state=True, name="encoder")(table(source))
    y = layers.LSTM(10, return_sequences=True, name="decoder")(table(target), initial_state=[h, c])
    y = layers.Concatenate()([y, layers.Attention()([y, states])])
    model = randomise(keras.Model([source, target], layers.TimeDistributed(layers.Dense(20, name="words"))(y)))
    try:
        model([np.ones((2, 7), "int32"), np.ones((2, 5), "int32")])
    except ValueError as error:
        pytest.skip(f"Keras {keras.__version__} cannot run this model itself: {error}")
    plan, small = check_shrinks(model)
    assert small.get_layer("encoder").units == small.get_layer("decoder").units == plan["encoder/units"].sum() == 7


def test_steps_skipped_for_another_value_than_zero_keep_their_channels():
    groups = channel_groups(sequence(layers.Masking(5.0), layers.LSTM(4)))
    assert groups["first"].frozen.reason is Reason.MIXED


def test_channels_joined_to_the_input_stay():
    x = keras.Input((6,))
    y = layers.Add(name="join")([x, layers.Dense(6, name="first")(x)])
    groups = channel_groups(keras.Model(x, layers.Dense(2)(y)))
    assert groups["first"].frozen.reason is Reason.FIXED_PARTNER
    assert groups["first"].frozen.layer == "join"
