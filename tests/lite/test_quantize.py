"""Quantization-aware training: what every rule computes, that zeros hold, that the .tflite gives the same numbers."""

# ruff: noqa: PLW0108  a network needs a new layer each time, so a lambda makes it

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from lite_models import punch

import tfprune
from tfprune.errors import PruningError
from tfprune.lite.convert.convert import convert
from tfprune.lite.quantize import calibrate, frozen, is_quantized, quantization_report, quantize_aware
from tfprune.lite.quantize.fake_quantize import FakeQuantize, fake_quantize_weight, weight_scale
from tfprune.lite.quantize.kernel import QuantizedKernel, channel_axes
from tfprune.lite.quantize.rules import RULES

IMAGE, SEQUENCE, VECTOR = (8, 8, 4), (9, 4), (6,)


def normed(x, activation=None, momentum=0.99):
    x = layers.BatchNormalization(momentum=momentum)(x)
    return x if activation is None else layers.Activation(activation)(x)


def residual(x):
    inner = normed(layers.Conv2D(4, 3, padding="same", use_bias=False)(x), "relu")
    return layers.ReLU()(layers.Add()([x, normed(layers.Conv2D(4, 3, padding="same")(inner))]))


def before_activation(x):
    inner = normed(x, "relu")
    return layers.Add()([x, layers.Conv2D(4, 3, padding="same")(inner)])


def squeeze_excite(x):
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(2, 1, activation="relu")(gate)
    return layers.Multiply()([x, layers.Conv2D(4, 1, activation="hard_sigmoid")(gate)])


def densely_connected(x):
    for _ in range(2):
        x = layers.Concatenate()([x, layers.Conv2D(3, 3, padding="same")(normed(x, "relu"))])
    return x


def nested(x):
    inside = [keras.Input(IMAGE), layers.Conv2D(3, 3), layers.BatchNormalization(), layers.ReLU(6.0)]
    return layers.Flatten()(keras.Sequential(inside, name="inside")(x))


def used_twice(x):
    convolved = layers.Conv2D(3, 3)(x)
    return layers.Concatenate()([layers.ReLU()(convolved), convolved])


def called_twice(x):
    dense = layers.Dense(4, activation="relu")
    return layers.Subtract()([dense(x), dense(layers.Activation("tanh")(x))])


def operations(x):
    moved = ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, 8, 8, 4))
    return ops.relu(x * 2.0 + 1.0) + ops.concatenate([moved[:, 4:], moved[:, :4]], axis=1)


def conv(activation):
    return lambda x: layers.Conv2D(4, 3, activation=activation)(x)


# Every rule is in one of these; each entry is an output of one network that is converted once.
HEADS = {
    IMAGE: {
        "conv": lambda x: layers.Conv2D(5, 3, strides=2, padding="same")(x),
        "conv_dilated": lambda x: layers.Conv2D(5, 3, dilation_rate=2)(x),
        "conv_grouped": lambda x: layers.Conv2D(6, 3, groups=2)(x),
        "conv_norm": lambda x: normed(layers.Conv2D(5, 3, use_bias=False)(x), "relu6"),
        "transposed": lambda x: normed(layers.Conv2DTranspose(5, 3, strides=2, use_bias=False)(x), "relu"),
        "depthwise": lambda x: layers.DepthwiseConv2D(3, depth_multiplier=2)(x),
        "depthwise_norm": lambda x: normed(layers.DepthwiseConv2D(3, use_bias=False)(x), "relu6"),
        "separable": lambda x: layers.SeparableConv2D(5, 3, depth_multiplier=2, activation="relu")(x),
        "separable_norm": lambda x: normed(layers.SeparableConv2D(5, 3)(x)),
        "residual": residual,
        "before_activation": before_activation,
        "squeeze_excite": squeeze_excite,
        "densely_connected": densely_connected,
        "nested": nested,
        "used_twice": used_twice,
        "operations": operations,
        "rescaling": lambda x: layers.Conv2D(4, 3)(layers.Rescaling(0.5, offset=-0.5)(x)),
        "add": lambda x: layers.Add()([x, layers.ReLU()(x), layers.Activation("tanh")(x)]),
        "multiply": lambda x: layers.Multiply()([x, layers.Activation("sigmoid")(x)]),
        "average": lambda x: layers.Average()([x, layers.ReLU()(x)]),
        "maximum": lambda x: layers.Maximum()([x, layers.Conv2D(4, 1, activation="tanh")(x)]),
        "minimum": lambda x: layers.Minimum()([x, layers.Conv2D(4, 1, activation="relu")(x)]),
        "concatenate": lambda x: layers.Concatenate()([x, layers.Conv2D(2, 1, activation="sigmoid")(x)]),
        "pooled": lambda x: layers.MaxPooling2D(2)(layers.AveragePooling2D(2)(x)),
        "global_average": lambda x: layers.GlobalAveragePooling2D()(x),
        "global_maximum": lambda x: layers.GlobalMaxPooling2D()(x),
        "upsampled": lambda x: layers.UpSampling2D(2, interpolation="bilinear")(layers.UpSampling2D(2)(x)),
        "resized": lambda x: layers.Resizing(12, 12)(x),
        "padded": lambda x: layers.Cropping2D(1)(layers.ZeroPadding2D(2)(x)),
        "permuted": lambda x: layers.Reshape((16, 16))(layers.Permute((2, 1, 3))(x)),
        "leaky": lambda x: layers.LeakyReLU(0.3)(layers.Conv2D(4, 3)(x)),
        "parametric": lambda x: layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(4, 3)(x)),
        "relu_slope": lambda x: layers.ReLU(negative_slope=0.2)(x),
        "relu_4": lambda x: layers.ReLU(4.0)(layers.Conv2D(4, 3)(x)),
        "augmented": lambda x: layers.Conv2D(2, 3)(layers.RandomFlip()(x)),
        "sigmoid": conv("sigmoid"),
        "tanh": conv("tanh"),
        "softmax": conv("softmax"),
        "softmax_layer": lambda x: layers.Softmax()(layers.Conv2D(4, 3)(x)),
        "log_softmax": conv("log_softmax"),
        "hard_sigmoid": conv("hard_sigmoid"),
        "hard_silu": conv("hard_silu"),
        "silu": conv("silu"),
        "gelu": conv("gelu"),
        "gelu_operation": lambda x: ops.gelu(layers.Conv2D(4, 3)(x), approximate=True),
        "leaky_relu": conv("leaky_relu"),
        "exponential": conv("exponential"),
        "silu_operation": lambda x: ops.silu(layers.Conv2D(4, 3)(x)),
    },
    SEQUENCE: {
        "conv": lambda x: normed(layers.Conv1D(5, 3)(x), "relu"),
        "transposed": lambda x: layers.Conv1DTranspose(5, 3, strides=2)(x),
        "depthwise": lambda x: layers.DepthwiseConv1D(3)(x),
        "separable": lambda x: layers.SeparableConv1D(5, 3, activation="relu")(x),
        "dense": lambda x: layers.Dense(5, activation="relu")(x),
        "einsum": lambda x: layers.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d", activation="relu")(x),
        "einsum_heads": lambda x: layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de")(x),
        "einsum_joined": lambda x: layers.EinsumDense("abcd,cde->abe", (None, 3))(layers.Reshape((9, 2, 2))(x)),
        "attention": lambda x: layers.MultiHeadAttention(2, 3)(x, x),
        "attention_causal": lambda x: layers.MultiHeadAttention(2, 3, dropout=0.1)(x, x, use_causal_mask=True),
        "attention_across": lambda x: layers.MultiHeadAttention(2, 3, value_dim=5, output_shape=7, use_bias=False)(
            x, layers.AveragePooling1D(2)(x), key=layers.MaxPooling1D(2)(x)
        ),
        "normed": normed,
        "pooled": lambda x: layers.AveragePooling1D(2)(layers.MaxPooling1D(2)(x)),
        "global_average": lambda x: layers.GlobalAveragePooling1D()(x),
        "padded": lambda x: layers.UpSampling1D(2)(layers.Cropping1D(1)(layers.ZeroPadding1D(2)(x))),
    },
    VECTOR: {
        "dense": lambda x: normed(layers.Dense(5)(x), "relu"),
        "normed": normed,
        "normalization": lambda x: layers.Dense(3)(layers.Normalization(mean=range(6), variance=range(1, 7))(x)),
        "called_twice": called_twice,
        "dropped": lambda x: layers.Dense(3)(layers.GaussianNoise(0.1)(layers.Dropout(0.2)(x))),
        "repeated": lambda x: layers.RepeatVector(3)(x),
    },
}
# XNNPACK multiplies by factors of eight bits in leaky ReLUs, and one step of the logits can be several of a softmax.
TWO_STEPS = {"leaky", "leaky_relu", "relu_slope", "softmax", "softmax_layer"}
TWO_STEPS |= {"attention", "attention_causal", "attention_across"}


def with_numbers(model, seed=0):
    """Gives norms and biases values of their own; returns the model."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.name == "moving_variance":
            weight.assign(generator.uniform(0.5, 2.0, weight.shape))
        elif weight.name in ("gamma", "beta", "moving_mean", "bias", "alpha"):
            weight.assign(generator.normal(float(weight.name == "gamma"), 0.4, weight.shape))
    return model


def answers(model, data):
    """The outputs by name; `predict` would compile a step first, for minutes in all."""
    return {name: np.asarray(output) for name, output in model(data, training=False).items()}


@pytest.fixture(scope="module", params=list(HEADS), ids=["image", "sequence", "vector"])
def network(request, tmp_path_factory):
    """One network with all heads of a shape: float, quantized, loaded again and converted, with their answers."""
    keras.utils.set_random_seed(3)
    x = keras.Input(request.param, name="x")
    heads = HEADS[request.param].items()
    outputs = {name: layers.Activation("linear", name=f"{name}_head")(head(x)) for name, head in heads}
    model = with_numbers(keras.Model(x, outputs, name="heads"))
    data = np.random.default_rng(0).normal(size=(48, *request.param)).astype(np.float32)
    quantized = quantize_aware(model, data)
    path = tmp_path_factory.mktemp("quantized") / "model.keras"
    quantized.save(path)
    lite = convert(quantized, "int8")
    return {
        "shape": request.param,
        "float": answers(model, data),
        "quantized": answers(quantized, data),
        "loaded": answers(keras.models.load_model(path), data),
        "frozen": answers(frozen(quantized), data),
        "report": quantization_report(quantized),
        "lite": lite,
        "lite_answers": lite(data),
    }


def test_every_head_is_int8_throughout(network):
    assert network["report"].left_in_float == {}
    assert network["lite"].inspect().float_ops == {}


def test_heads_answer_like_the_float_model(network):
    for name, wanted in network["float"].items():
        spread = wanted.max() - wanted.min()
        assert np.abs(network["quantized"][name] - wanted).mean() < 0.03 * spread, name


def test_heads_answer_alike_after_loading(network):
    for name, wanted in network["quantized"].items():
        np.testing.assert_array_equal(network["loaded"][name], wanted, err_msg=name)


def test_heads_of_the_file_answer_within_a_step(network):
    ends = {end.name: end for end in network["lite"].outputs}
    for name, wanted in network["quantized"].items():
        difference = np.abs(network["lite_answers"][name] - wanted) / ends[name].scale
        steps = 2 if name in TWO_STEPS else 1
        assert difference.max() < steps + 0.01, name


def test_heads_of_the_file_answer_to_the_bit(network):
    exact = {"conv", "conv_dilated", "conv_grouped", "conv_norm", "depthwise", "depthwise_norm", "separable"}
    exact |= {"dense", "einsum", "residual", "squeeze_excite", "hard_silu", "silu", "gelu", "pooled", "add", "multiply"}
    ends = {end.name: end for end in network["lite"].outputs}
    for name in exact & set(network["quantized"]):
        off = np.abs(network["lite_answers"][name] - network["quantized"][name]) > 0.5 * ends[name].scale
        assert off.mean() < 0.001, name


# --- the arithmetic ---------------------------------------------------------------------------------------------------


def test_weights_are_rounded_to_255_steps_of_each_channel():
    weight = tf.constant([[127.0, 0.3], [-63.4, -0.1], [0.0, 0.0]])
    scale = weight_scale(weight, (1,))
    np.testing.assert_allclose(scale, [[1.0, 0.3 / 127]], rtol=1e-6)
    np.testing.assert_allclose(fake_quantize_weight(weight, scale)[:, 0], [127.0, -63.0, 0.0])
    assert np.all(fake_quantize_weight(weight, scale)[2] == 0.0)


def test_a_channel_of_zeros_stays_zero():
    weight = tf.zeros((3, 2))
    np.testing.assert_array_equal(fake_quantize_weight(weight, weight_scale(weight, (1,))), np.zeros((3, 2)))


def test_rounding_lets_gradients_through():
    weight = tf.Variable([[0.3, -1.7]])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(fake_quantize_weight(weight, weight_scale(weight, ())) * [[2.0, 3.0]])
    np.testing.assert_array_equal(tape.gradient(loss, weight), [[2.0, 3.0]])


@pytest.mark.parametrize(
    "layer, axes",
    [
        (layers.Dense(3), (1,)),
        (layers.Conv2D(3, 2), (3,)),
        (layers.Conv2DTranspose(3, 2), (2,)),
        (layers.DepthwiseConv2D(2, depth_multiplier=2), (2, 3)),
    ],
)
def test_output_channels_of_kernels(layer, axes):
    layer.build((None, 4) if isinstance(layer, layers.Dense) else (None, 5, 5, 4))
    assert channel_axes(layer) == axes


def test_ranges_average_the_extremes_of_batches():
    quantizer = FakeQuantize(sources=["a"], momentum=0.5)
    quantizer(np.array([[-1.0, 3.0]], np.float32), training=True)
    assert quantizer.range() == (-1.0, 3.0)  # the first batch stands alone
    quantizer(np.array([[-3.0, 5.0]], np.float32), training=True)
    assert quantizer.range() == (-2.0, 4.0)
    quantizer(np.array([[0.0, 8.0]], np.float32), training=True)
    assert quantizer.range() == (-1.0, 6.0)
    quantizer(np.array([[-100.0, 100.0]], np.float32))
    assert quantizer.range() == (-1.0, 6.0)


def test_ranges_hold_zero_and_values_are_cut_off():
    quantizer = FakeQuantize(sources=["a"])
    rounded, step = quantizer(np.array([[2.0, 255.0]], np.float32), training=True)
    assert quantizer.range() == (0.0, 255.0)
    assert float(step) == 1.0
    np.testing.assert_array_equal(rounded, [[2.0, 255.0]])
    np.testing.assert_array_equal(quantizer(np.array([[2.4, 300.0, -9.0]], np.float32))[0], [[2.0, 255.0, 0.0]])


def test_sources_keep_ranges_of_their_own_and_share_the_widest():
    quantizer = FakeQuantize(sources=["a", "b"])
    quantizer(np.array([[-1.0, 1.0]], np.float32), source=0, training=True)
    assert not quantizer.is_observed()
    quantizer(np.array([[0.0, 7.0]], np.float32), source=1, training=True)
    assert quantizer.range() == (-1.0, 7.0)
    quantizer(np.array([[-50.0, 50.0]], np.float32), source=None, training=True)
    assert quantizer.range() == (-1.0, 7.0)


def test_halves_can_be_rounded_away_from_the_middle_of_the_range():
    quantizer = FakeQuantize("fixed", sources=["a"], minimum=0.0, maximum=255.0)
    halves = np.array([[0.5, 100.5, 200.5, 100.49]], np.float32)
    np.testing.assert_array_equal(quantizer(halves)[0], [[1.0, 101.0, 201.0, 100.0]])
    np.testing.assert_array_equal(quantizer(halves, halves_away_from_zero=True)[0], [[0.0, 100.0, 201.0, 100.0]])


def test_a_tensor_that_is_always_zero_has_a_usable_range():
    quantizer = FakeQuantize(sources=["a"])
    rounded, step = quantizer(np.zeros((1, 3), np.float32), training=True)
    np.testing.assert_array_equal(rounded, np.zeros((1, 3)))
    assert float(step) > 0


def test_learned_ranges_get_gradients():
    quantizer = FakeQuantize("learned", sources=["a"])
    quantizer.build((None, 2))
    quantizer.lows.assign([-1.0])
    quantizer.highs.assign([1.0])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(quantizer(tf.constant([[2.0, 0.1, -3.0]]), training=True)[0])
    assert [float(g[0]) for g in tape.gradient(loss, [quantizer.lows.value, quantizer.highs.value])] == [1.0, 1.0]


# --- training ---------------------------------------------------------------------------------------------------------


def small(name="small", **compilation):
    x = keras.Input((8, 8, 2), name="x")
    y = layers.Conv2D(6, 3, use_bias=False, name="conv")(x)
    y = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(y))
    y = layers.Conv2D(6, 3, name="second")(y)
    y = layers.Dense(3, name="head")(layers.Flatten(name="flat")(y))
    model = with_numbers(keras.Model(x, y, name=name))
    if compilation:
        model.compile(**compilation)
    return model


@pytest.fixture
def data():
    generator = np.random.default_rng(1)
    x = generator.normal(size=(64, 8, 8, 2)).astype(np.float32)
    return x, generator.integers(0, 3, 64)


def compiled(model, rate=0.01, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss, metrics=["accuracy"], **options)
    return model


def kernels(model):
    return {layer.name: layer for layer in model.layers if isinstance(layer, QuantizedKernel)}


def test_training_lowers_the_loss_and_frozen_answers_the_same(data):
    x, y = data
    quantized = compiled(quantize_aware(small(), x))
    losses = quantized.fit(x, y, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    np.testing.assert_array_equal(frozen(quantized).predict(x, verbose=0), quantized.predict(x, verbose=0))


def test_input_model_is_left_alone(data):
    x, y = data
    model = compiled(small())
    before, config = model.get_weights(), model.to_json()
    quantized = compiled(quantize_aware(model, x))
    quantized.fit(x, y, verbose=0)
    for old, now in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, now)
    assert model.to_json() == config
    assert not {id(v) for v in model.variables} & {id(v) for v in quantized.variables}
    model.layers[1].output  # noqa: B018  raises when the layer has been called a second time


@pytest.mark.parametrize("options", [{}, {"jit_compile": True}, {"steps_per_execution": 2}, {"run_eagerly": True}])
def test_trains_in_every_way_of_keras(data, options):
    x, y = data
    pruned = punch(small())
    zeros = pruned.get_layer("conv").kernel.numpy() == 0
    quantized = compiled(quantize_aware(pruned, x), **options)
    quantized.fit(x, y, batch_size=16, verbose=0)
    kernel = kernels(quantized)["conv"].layer.kernel.numpy()
    np.testing.assert_array_equal(kernel == 0, zeros)
    assert not np.array_equal(kernel, pruned.get_layer("conv").kernel.numpy())


def test_batch_norm_is_folded_and_its_statistics_are_frozen(data):
    x, y = data
    quantized = compiled(quantize_aware(small(), x, freeze_batch_norm=0))
    assert kernels(quantized)["conv"].batch_norm is not None
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in quantized.layers)
    before = kernels(quantized)["conv"].batch_norm.moving_mean.numpy()
    gamma = kernels(quantized)["conv"].batch_norm.gamma.numpy()
    quantized.fit(x, y, verbose=0)
    norm = kernels(quantized)["conv"].batch_norm
    np.testing.assert_array_equal(norm.moving_mean.numpy(), before)
    assert not np.array_equal(norm.gamma.numpy(), gamma)


def test_batch_norm_follows_the_batches_until_it_freezes(data):
    x, y = data
    model = small()
    reference = compiled(keras.models.clone_model(model), rate=0.0)
    reference.set_weights(model.get_weights())
    norm_before = model.get_layer("norm").moving_mean.numpy()
    quantized = compiled(quantize_aware(model, x, freeze_batch_norm=2), rate=0.0)
    for _ in range(2):
        reference.fit(x, y, batch_size=64, shuffle=False, verbose=0)
    for _ in range(4):  # two steps more change nothing
        quantized.fit(x, y, batch_size=64, shuffle=False, verbose=0)
    norm, wanted = kernels(quantized)["conv"].batch_norm, reference.get_layer("norm")
    # The input is rounded in one of them, so the statistics differ a little.
    np.testing.assert_allclose(norm.moving_mean.numpy(), wanted.moving_mean.numpy(), atol=5e-3)
    np.testing.assert_allclose(norm.moving_variance.numpy(), wanted.moving_variance.numpy(), rtol=2e-2)
    assert np.abs(norm.moving_mean.numpy() - norm_before).max() > 0.015


def test_batch_norm_in_training_normalises_by_the_batch(data):
    x, _ = data
    model = small()
    quantized = quantize_aware(model, x)
    exact = keras.Model(model.input, model.get_layer("norm").output)(x, training=True)
    rounded, _ = quantized.get_layer("x_range")(x)
    np.testing.assert_allclose(kernels(quantized)["conv"](rounded, training=True), exact, atol=0.06)


def test_compilation_is_carried_over(data):
    x, _ = data
    model = compiled(small(), rate=0.123)
    quantized = quantize_aware(model, x)
    assert quantized.compiled
    assert float(quantized.optimizer.learning_rate) == pytest.approx(0.123)
    assert quantized.optimizer is not model.optimizer
    assert not quantize_aware(small(), x).compiled


def test_a_loss_of_the_users_is_carried_over(data):
    x, _ = data

    def loss(wanted, given):
        return ops.mean((wanted - given) ** 2)

    assert quantize_aware(small(optimizer="sgd", loss=loss), x).loss is loss


def test_a_compilation_that_cannot_be_copied_is_said(data):
    class Halting(keras.optimizers.SGD):
        @classmethod
        def from_config(cls, config, custom_objects=None):
            raise TypeError("it takes no config")

    model = small(optimizer=Halting(), loss="mse")
    with pytest.warns(UserWarning, match=r"compilation of 'small' could not be carried over .*; call compile\(\)"):
        assert not quantize_aware(model).compiled


def test_names_and_outputs_stay(data):
    vector = keras.Input((6,), name="vector")
    hidden = layers.Dense(4, activation="relu", name="hidden")(vector)
    model = keras.Model(vector, [layers.Dense(3, name="kind")(hidden), layers.Dense(1, name="size")(hidden)])
    quantized = quantize_aware(model)
    assert quantized.output_names == ["kind", "size"]
    assert quantized.input_names == model.input_names if hasattr(model, "input_names") else True
    quantized.compile("sgd", {"kind": "mse", "size": "mse"})
    rows = np.ones((8, 6), np.float32)
    history = quantized.fit(rows, {"kind": np.ones((8, 3)), "size": np.ones((8, 1))}, verbose=0).history
    assert {"loss", "kind_loss", "size_loss"} <= set(history)


def test_mixed_precision_becomes_float32(data):
    x, y = data
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = small()
        quantized = compiled(quantize_aware(model, x))
        quantized.fit(x, y, verbose=0)
        assert keras.config.dtype_policy().name == "mixed_float16"
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in quantized._flatten_layers()} == {"float32"}
    assert model.get_layer("conv").compute_dtype == "float16"


class Counted(keras.Model):
    def train_step(self, batch):
        self.seen = True
        return super().train_step(batch)


class PassingOn(Counted):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.tracker = keras.metrics.Mean(name="loss")


class OfItsOwn(Counted):
    def __init__(self, plain):
        super().__init__(plain.input, plain.output)


@pytest.mark.parametrize("kind", [Counted, PassingOn])
def test_a_class_of_the_users_keeps_its_train_step(data, kind):
    x, y = data
    plain = small()
    model = kind(plain.input, plain.output)
    quantized = compiled(quantize_aware(model, x), run_eagerly=True)
    quantized.fit(x, y, verbose=0)
    assert type(quantized) is kind
    assert quantized.seen


def test_a_class_that_makes_its_layers_itself_says_that_its_train_step_stays_behind():
    with pytest.warns(UserWarning, match="is of class OfItsOwn, whose __init__ makes its layers itself"):
        quantize_aware(OfItsOwn(small()))


def test_sequential_and_dict_inputs(data):
    sequential = keras.Sequential([keras.Input((6,)), layers.Dense(4, activation="relu"), layers.Dense(2)])
    rows = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
    wanted = sequential.predict(rows, verbose=0)
    np.testing.assert_allclose(quantize_aware(sequential, rows).predict(rows, verbose=0), wanted, atol=0.15)
    ends = {"a": keras.Input((6,), name="a"), "b": keras.Input((2,), name="b")}
    model = keras.Model(ends, {"sum": layers.Dense(2)(layers.Concatenate()([ends["a"], ends["b"]]))})
    values = {"a": rows, "b": rows[:, :2]}
    quantized = quantize_aware(model, values)
    np.testing.assert_allclose(
        quantized.predict(values, verbose=0)["sum"], model.predict(values, verbose=0)["sum"], atol=0.15
    )


def test_shared_layers_stay_shared():
    dense, left, right = layers.Dense(3, name="dense"), keras.Input((4,)), keras.Input((4,))
    quantized = quantize_aware(keras.Model([left, right], layers.Add()([dense(left), dense(right)])))
    assert list(kernels(quantized)) == ["dense"]


# --- zeros ------------------------------------------------------------------------------------------------------------


def masked(model):
    masks = {key: np.random.default_rng(5).random(mask.shape) < 0.4 for key, mask in zeros_of(punch(model)).items()}
    return tfprune.apply_masks(model, masks), masks


def zeros_of(model):
    return tfprune.get_masks(model)


def test_zeros_of_a_plain_model_hold_through_training_saving_and_conversion(data, tmp_path):
    x, y = data
    pruned = punch(small())
    masks = zeros_of(pruned)
    quantized = compiled(quantize_aware(pruned, x))
    quantized.fit(x, y, verbose=0)
    quantized.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.fit(x, y, verbose=0)
    for name, layer in kernels(loaded).items():
        kernel, mask = layer.layer.kernel.numpy(), masks[f"{name.replace('head_1', 'head')}/kernel"]
        np.testing.assert_array_equal(kernel != 0, mask)
        assert np.all(layer.integers()[~mask] == 0)
    lite = convert(loaded, "int8").inspect()
    in_file = sorted(constant.zeros for constant in lite.constants if constant.dtype == "int8")
    assert in_file == sorted(int((layer.integers() == 0).sum()) for layer in kernels(loaded).values())
    by_frozen = [layer.kernel.numpy() for layer in frozen(loaded).layers if hasattr(layer, "kernel")]
    assert in_file == sorted(int((kernel == 0).sum()) for kernel in by_frozen)


def test_masks_that_are_held_go_on_being_held(data):
    x, y = data
    model, masks = masked(small())
    # Entries that the mask keeps may be zero by chance, and are free to move.
    model.get_layer("conv").kernel.assign(ops.zeros_like(model.get_layer("conv").kernel))
    quantized = compiled(quantize_aware(model, x))
    quantized.fit(x, y, verbose=0)
    kernel = kernels(quantized)["conv"].layer.kernel.numpy()
    assert np.all(kernel[~masks["conv/kernel"]] == 0)
    assert np.any(kernel[masks["conv/kernel"]] != 0)


def test_masks_of_a_wrapped_model_are_held(data):
    x, y = data
    wrapped = compiled(tfprune.wrap(small(), tfprune.Percentile(0.5)))
    wrapped.fit(x, y, epochs=2, batch_size=16, verbose=0, callbacks=[tfprune.UpdateMasks()])
    masks = zeros_of(wrapped)
    quantized = compiled(quantize_aware(wrapped, x))
    quantized.fit(x, y, verbose=0)
    for name in ("conv", "second"):
        np.testing.assert_array_equal(kernels(quantized)[name].layer.kernel.numpy() != 0, masks[f"{name}/kernel"])


def test_dead_channels_stay_dead_with_their_bias_gamma_and_beta(data):
    x, y = data
    model = small()
    conv, norm, second = (model.get_layer(name) for name in ("conv", "norm", "second"))
    alive = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    for weight in (conv.kernel, norm.gamma, norm.beta, second.kernel, second.bias):
        weight.assign(weight.numpy() * alive)
    quantized = compiled(quantize_aware(model, x), rate=0.1)
    quantized.fit(x, y, epochs=2, verbose=0)
    inner = kernels(quantized)
    for weight in (inner["conv"].batch_norm.gamma, inner["conv"].batch_norm.beta, inner["second"].layer.bias):
        np.testing.assert_array_equal(weight.numpy() == 0, alive == 0)


def test_a_few_zeros_by_chance_are_not_held(data):
    x, _ = data
    model = small()
    kernel = model.get_layer("second").kernel.numpy()
    kernel.flat[:2] = 0.0  # 2 of 324
    model.get_layer("second").kernel.assign(kernel)
    quantized = quantize_aware(model, x)
    assert kernels(quantized)["second"].held == ()
    assert kernels(quantize_aware(punch(small()), x, hold_zeros=False))["second"].held == ()


def test_zeros_of_a_separable_convolution_are_held(data):
    x, _ = data
    image = keras.Input((8, 8, 2))
    model = punch(keras.Model(image, layers.SeparableConv2D(3, 3, depth_multiplier=4, name="pair")(image)))
    zeros = [weight.numpy() == 0 for weight in (model.layers[1].depthwise_kernel, model.layers[1].pointwise_kernel)]
    quantized = quantize_aware(model, x)
    quantized.compile("sgd", "mse")
    quantized.fit(x, np.ones((64, 6, 6, 3), np.float32), verbose=0)
    for layer, expected in zip(kernels(quantized).values(), zeros):
        np.testing.assert_array_equal(layer.layer.kernel.numpy() == 0, expected)


def test_zeros_of_layers_left_in_float_and_of_embeddings_are_held(tmp_path):
    words = keras.Input((6,), dtype="int32", name="words")
    x = layers.Embedding(20, 8, name="table")(words)
    model = punch(keras.Model(words, layers.Dense(2)(layers.LSTM(5, name="memory")(x))))
    masks = tfprune.get_masks(model)
    assert {"table/embeddings", "memory/lstm_cell/kernel", "memory/lstm_cell/recurrent_kernel"} <= set(masks)
    quantized = quantize_aware(model)
    quantized.compile("sgd", "mse")
    rows = np.random.default_rng(0).integers(0, 20, (32, 6))
    quantized.fit(rows, np.ones((32, 2)), verbose=0)
    quantized.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.fit(rows, np.ones((32, 2)), verbose=0)
    after = tfprune.get_masks(loaded)
    for key in ("table/embeddings", "memory/lstm_cell/kernel", "memory/lstm_cell/recurrent_kernel"):
        np.testing.assert_array_equal(after[key], masks[key])
    assert np.any(loaded.get_layer("table").layer.embeddings.numpy() != model.get_layer("table").embeddings.numpy())


def test_embeddings_become_int8():
    words = keras.Input((6,), dtype="int32", name="words")
    model = keras.Model(words, layers.Dense(2)(layers.Flatten()(layers.Embedding(40, 8, name="table")(words))))
    rows = np.random.default_rng(0).integers(0, 40, (64, 6))
    quantized = quantize_aware(model, rows, strict=True)
    lite = convert(quantized, "int8")
    assert {constant.dtype for constant in lite.inspect().constants if len(constant.shape) == 2} == {"int8"}
    assert np.abs(lite(rows) - quantized.predict(rows, verbose=0)).max() < 1.01 * lite.outputs[0].scale


def test_masks_are_read_and_stripped_like_those_of_any_model(data):
    x, _ = data
    quantized = quantize_aware(punch(small()), x)
    masks = tfprune.get_masks(quantized)
    assert {"conv/conv/kernel", "second/second/kernel"} <= set(masks)
    stripped = tfprune.strip_masks(quantized)
    np.testing.assert_array_equal(stripped.predict(x, verbose=0), quantized.predict(x, verbose=0))


# --- what is left in float, and errors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body, shape, layer, reason",
    [
        (lambda x: layers.LSTM(4, name="lstm")(x), (5, 3), "lstm_1", "ranges inside a recurrent layer"),
        (lambda x: layers.Conv3D(2, 2, name="volume")(x), (4, 4, 4, 2), "volume_1", "three-dimensional"),
        (lambda x: layers.LayerNormalization(name="norm")(x), (6,), "norm_1", "chain of float operators"),
        (lambda x: layers.Softmax(axis=1, name="over")(x), (5, 3), "over_1", "a softmax over axis 1"),
        (lambda x: layers.BatchNormalization(axis=1, name="norm")(x), (5, 3), "norm_1", "normalises axis 1"),
        (lambda x: layers.ReLU(threshold=0.5, name="late")(x), (5,), "late_1", "its threshold is 0.5, not 0"),
        (lambda x: layers.Dense(3, activation="mish", name="d")(x), (5,), "d_1_activation", "the activation 'mish'"),
        (lambda x: ops.sin(x), (5,), "sin", "no int8 rule for the operation Sin"),
        (lambda x: x + np.ones(5, np.float32), (5,), "add", "it takes a constant array"),
        (
            lambda x: layers.EinsumDense("abc,bd->adc", (3, 4), name="mixed")(x),
            (5, 4),
            "mixed_1",
            "'abc,bd->adc' is no product with one matrix",
        ),
    ],
)
def test_a_layer_without_int8_is_named_left_in_float_and_refused_when_strict(body, shape, layer, reason, tmp_path):
    x = keras.Input(shape)
    model = keras.Model(x, body(layers.Identity()(x)))
    rows = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    quantized = quantize_aware(model, rows)
    (found,) = quantization_report(quantized).left_in_float.items()
    assert found[0].startswith(layer)
    assert reason in found[1]
    np.testing.assert_allclose(quantized.predict(rows, verbose=0), model.predict(rows, verbose=0), atol=0.1)
    with pytest.raises(PruningError, match="Not every layer of .* has an int8 kernel.*strict=False"):
        quantize_aware(model, rows, strict=True)


def test_a_layer_of_the_users_is_left_in_float(data):
    @keras.saving.register_keras_serializable(package="tests")
    class Doubled(layers.Dense):
        def call(self, x):
            return super().call(x) * 2

    x = keras.Input((4,))
    report = quantization_report(quantize_aware(keras.Model(x, Doubled(3, name="doubled")(x))))
    assert report.left_in_float == {"doubled_1": "Doubled computes in a `call` of its own"}


def test_what_is_no_float_is_not_rounded():
    tokens = keras.Input((3,), dtype="int32")
    y = layers.LSTM(4)(layers.Embedding(9, 4, mask_zero=True)(tokens))  # Keras hands a mask of booleans on
    rows = np.random.default_rng(0).integers(0, 9, (16, 3)).astype(np.int32)
    quantized = quantize_aware(keras.Model(tokens, layers.Dense(2)(y)), rows)
    assert convert(quantized, "int8")(rows).shape == (16, 2)


@keras.saving.register_keras_serializable(package="tests")
class NoBuild(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4)

    def call(self, x):
        return self.dense(x)


def test_a_layer_that_makes_its_weights_in_its_first_call_is_copied():
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(3)(NoBuild()(x)))
    links = [len(layer._outbound_nodes) for layer in model.layers]
    rows = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    quantized = quantize_aware(model, rows)
    np.testing.assert_allclose(quantized(rows), model(rows), atol=0.1)  # a few steps of int8
    assert [len(layer._outbound_nodes) for layer in model.layers] == links


def test_a_layer_without_a_config_or_with_a_build_that_makes_no_weights_is_copied():
    class Patches(layers.Layer):
        def __init__(self, size):
            super().__init__()
            self.size = size

        def call(self, x):
            return ops.reshape(x, (-1, x.shape[1] // self.size, self.size * x.shape[2]))

    class Normed(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.norm = layers.LayerNormalization()

        def build(self, shape):
            self.width = shape[-1]

        def call(self, x):
            return self.norm(x) * self.width

    inputs = keras.Input((6, 4))
    model = keras.Model(inputs, layers.Dense(3)(Normed()(Patches(2)(inputs))))
    x = np.random.default_rng(0).normal(size=(5, 6, 4)).astype("float32")
    quantized = quantize_aware(model, x)
    np.testing.assert_allclose(quantized(x), model(x), atol=0.5)  # a few steps of int8
    assert convert(quantized, "int8")(x).shape == (5, 3, 3)


def test_a_layer_whose_config_does_not_tell_all_is_copied_with_all_it_holds():
    class Widened(layers.Layer):
        def __init__(self, units, times):
            super().__init__()
            self.units, self.dense = units, layers.Dense(units * times)

        def call(self, x):
            return self.dense(x)

        def get_config(self):
            return {**super().get_config(), "units": self.units}  # and not how many times

    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3)(Widened(2, 3)(inputs)))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    np.testing.assert_allclose(quantize_aware(model, x)(x), model(x), atol=0.1)  # a few steps of int8


def test_report_reads_the_same_after_loading(data, tmp_path):
    x, _ = data
    image = keras.Input((8, 8, 2), name="x")
    y = layers.Conv2D(4, 3, activation="elu", name="conv")(image)
    quantized = quantize_aware(keras.Model(image, layers.Dense(2, name="head")(layers.Flatten()(y))), x)
    report = quantization_report(quantized)
    assert report.left_in_float == {"conv_activation": "no int8 kernel for the activation 'elu'"}
    rows = {row["layer"]: row for row in report.rows()}
    assert rows["conv"]["weights"] == "int8 per channel"
    assert rows["conv_activation"]["computes"] == "float32"
    assert "In float: 'conv_activation', no int8 kernel for the activation 'elu'." in str(report)
    quantized.save(tmp_path / "model.keras")
    loaded = quantization_report(keras.models.load_model(tmp_path / "model.keras"))
    assert loaded.to_dict() == report.to_dict()


def test_report_names_ranges_that_no_data_has_set():
    report = quantization_report(quantize_aware(small()))
    assert report.unobserved == ["x", "relu", "second", "head_1"]
    assert "No range yet, for no data was seen: 'x', 'relu', 'second', 'head_1'" in report.notes()[0]


def test_a_float_layer_between_int8_layers_converts(data):
    rows = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    x = keras.Input((6,), name="x")
    y = layers.Dense(2, name="head")(layers.Activation("elu")(layers.Dense(4)(x)))
    quantized = quantize_aware(keras.Model(x, y), rows)
    lite = convert(quantized, "int8")
    assert np.abs(lite(rows) - quantized.predict(rows, verbose=0)).max() < 1.01 * lite.outputs[0].scale


def test_operations_named_in_rules_exist_in_keras():
    x = keras.Input((4, 4))
    made = {
        "Add": x + x, "Subtract": x - x, "Multiply": x * x, "Relu": ops.relu(x), "Relu6": ops.relu6(x),
        "Sigmoid": ops.sigmoid(x), "Tanh": ops.tanh(x), "HardSigmoid": ops.hard_sigmoid(x),
        "HardSilu": ops.hard_silu(x), "Silu": ops.silu(x), "Exp": ops.exp(x), "LogSoftmax": ops.log_softmax(x),
        "Softmax": ops.softmax(x), "Gelu": ops.gelu(x), "LeakyRelu": ops.leaky_relu(x),
        "Concatenate": ops.concatenate([x, x]), "Reshape": ops.reshape(x, (-1, 16)),
        "Transpose": ops.transpose(x, (0, 2, 1)), "Squeeze": ops.squeeze(ops.expand_dims(x, 1), 1),
        "ExpandDims": ops.expand_dims(x, 1), "GetItem": x[:, 1:],
    }  # fmt: skip
    assert {kind for kind in RULES if isinstance(kind, str)} == set(made)
    for kind, tensor in made.items():
        assert type(tensor._keras_history.operation).__name__ == kind


class TestErrors:
    def test_model_without_a_graph(self):
        class Own(keras.Model):
            def call(self, x):
                return x if keras.ops.sum(x) > 0 else 2 * x  # which no graph can hold

        model = Own()
        model(np.ones((1, 2)))
        with pytest.raises(PruningError, match="Quantization-aware training needs a functional or Sequential model"):
            quantize_aware(model)

    def test_no_model(self):
        with pytest.raises(PruningError, match="Cannot quantize list: give a keras.Model"):
            quantize_aware([])

    def test_quantized_already(self, data):
        with pytest.raises(PruningError, match="'small' is quantization-aware already; train it, or convert it"):
            quantize_aware(quantize_aware(small()))

    def test_quantized_by_keras(self):
        model = small()
        model.quantize("int8")
        with pytest.raises(PruningError, match="'head' is quantized by Keras already.*from before model.quantize"):
            quantize_aware(model)

    @pytest.mark.parametrize("value", [-1, 1.5, True, "soon"])
    def test_freeze_batch_norm(self, value):
        with pytest.raises(PruningError, match="must be a number of training steps >= 0, or None"):
            quantize_aware(small(), freeze_batch_norm=value)

    def test_ranges(self):
        with pytest.raises(PruningError, match="ranges='fixed' is unknown; use 'moving_average' or 'learned'"):
            quantize_aware(small(), ranges="fixed")

    def test_learned_ranges_without_data(self):
        with pytest.raises(PruningError, match="begins from calibrated ranges: pass data="):
            quantize_aware(small(), ranges="learned")

    def test_momentum(self):
        with pytest.raises(PruningError, match=r"momentum=1.0 must be in \[0, 1\)"):
            quantize_aware(small(), momentum=1.0)

    def test_data_of_another_shape(self):
        with pytest.raises(PruningError, match="data"):
            quantize_aware(small(), np.ones((8, 5, 5, 2), np.float32))

    def test_plain_model_has_no_report_and_no_ranges(self, data):
        with pytest.raises(PruningError, match="'small' is not quantization-aware"):
            quantization_report(small())
        with pytest.raises(PruningError, match="'small' has no int8 ranges to calibrate"):
            calibrate(small(), data[0])

    def test_conversion_before_any_data(self):
        with pytest.raises(PruningError, match="int8 ranges of 'x', 'relu', 'second' and 1 more|int8 ranges of 'x'"):
            convert(quantize_aware(small()), "int8")

    def test_weights_that_lead_to_infinity(self, data):
        model = small()
        model.get_layer("second").bias.assign(np.full(6, np.inf))
        with pytest.raises(PruningError, match="'small' gives NaN or infinite outputs on data"):
            quantize_aware(model, data[0])

    def test_calibration_that_meets_infinity_changes_nothing(self, data):
        x, _ = data
        quantized = quantize_aware(small(), x)
        before = quantization_report(quantized).to_dict()
        broken = kernels(quantized)["second"].layer.kernel
        kept = broken.numpy()
        broken.assign(np.full(kept.shape, np.inf))
        with pytest.raises(PruningError, match="Calibration met NaN or infinity after layer 'second'"):
            calibrate(quantized, x)
        broken.assign(kept)
        assert quantization_report(quantized).to_dict() == before


def test_pixels_are_no_surprise_to_a_model_that_divides_them():
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, layers.Conv2D(2, 3)(layers.Rescaling(1 / 255)(image)))
    pixels = np.random.default_rng(0).uniform(0, 255, (8, 8, 8, 3)).astype(np.float32)
    calibrate(quantize_aware(model, pixels), pixels)  # a warning would be an error here


def test_calibration_replaces_the_ranges(data):
    x, _ = data
    quantized = quantize_aware(small(), x)
    before = quantized.get_layer("x_range").range()
    calibrate(quantized, 2 * x)
    np.testing.assert_allclose(quantized.get_layer("x_range").range(), np.multiply(before, 2), rtol=1e-6)


def test_learned_ranges_train_and_convert(data):
    x, y = data
    quantized = compiled(quantize_aware(small(), x / 2, ranges="learned"), rate=0.1)  # fit meets values beyond
    before = quantized.get_layer("relu_range").range()
    quantized.fit(x, y, epochs=2, verbose=0)
    assert quantized.get_layer("relu_range").range() != before
    lite = convert(quantized, "int8")
    assert np.abs(lite(x) - quantized.predict(x, verbose=0)).max() < 1.01 * lite.outputs[0].scale


def test_is_quantized(data):
    assert is_quantized(quantize_aware(small()))
    assert not is_quantized(small())


# --- a trained network ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images.reshape(-1, 8, 8, 1) / 16).astype(np.float32), labels


@pytest.fixture(scope="module")
def trained(digits):
    """A depthwise network of 97 % on the digits, and the same pruned to 80 % and trained in int8."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1))
    x = normed(layers.Conv2D(16, 3, padding="same", use_bias=False)(image), "relu6", momentum=0.9)
    for width in (24, 32):
        x = normed(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x), "relu6", momentum=0.9)
        x = normed(layers.Conv2D(width, 1, use_bias=False)(x), "relu6", momentum=0.9)
    model = keras.Model(image, layers.Dense(10)(layers.Flatten()(layers.MaxPooling2D()(x))))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    model.fit(*digits, batch_size=64, epochs=5, verbose=0)
    pruned = tfprune.prune(model, 0.8)
    quantized = quantize_aware(pruned, digits[0][:300])
    quantized.compile(keras.optimizers.Adam(0.003), loss, metrics=["accuracy"])
    quantized.fit(*digits, batch_size=64, epochs=3, verbose=0)
    return model, pruned, quantized


def test_trained_network_and_its_file_agree(trained, digits):
    _, _, quantized = trained
    lite = convert(quantized, "int8")
    answers, in_file = quantized.predict(digits[0], verbose=0), lite(digits[0])
    assert np.mean(answers.argmax(1) == in_file.argmax(1)) >= 0.999
    assert np.abs(answers - in_file).max() < 1.01 * lite.outputs[0].scale
    assert np.mean(answers.argmax(1) == digits[1]) > 0.95


def test_trained_network_keeps_every_zero_into_the_file(trained):
    _, pruned, quantized = trained
    masks = tfprune.get_masks(pruned)
    constants = {c.shape: c.zeros for c in convert(quantized, "int8").inspect().constants if c.dtype == "int8"}
    for name, layer in kernels(quantized).items():
        mask = masks.get(f"{name.removesuffix('_1') if name.startswith('dense') else name}/kernel")
        integers = layer.integers()
        if mask is not None:
            np.testing.assert_array_equal(layer.layer.kernel.numpy() != 0, mask)
            assert np.all(integers[~mask] == 0)
        assert int((integers == 0).sum()) in constants.values()


def test_a_border_of_minus_infinity_is_named_where_its_range_would_be_fixed():
    x = inputs = keras.Input((4, 4, 1))
    x = layers.MaxPooling2D(3, 2)(ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf))
    aware = quantize_aware(keras.Model(inputs, layers.Dense(1)(layers.Flatten()(x))))
    aware(np.ones((2, 4, 4, 1), "float32"), training=True)
    with pytest.raises(PruningError, match=r"'pad(_\d+)?_range' has no finite range \(-inf to 1.0\).*padding=\"same\""):
        frozen(aware)


class Untold(layers.Layer):
    """A block whose class does not tell how it is made, and that says itself that it is built."""

    def __init__(self, last):
        super().__init__()
        self.hidden, self.out = layers.Dense(8, activation="relu"), last

    def build(self, shape):
        self.built = True

    def call(self, x):
        return self.out(self.hidden(x))


class Penalised(Untold):
    def call(self, x):
        self.add_loss(ops.mean(x))
        return super().call(x)


def data_of(shape):
    generator = np.random.default_rng(0)
    return generator.normal(size=(16, *shape)).astype("float32"), generator.normal(size=(16, 3)).astype("float32")


def test_blocks_that_do_not_tell_how_they_are_made_are_opened():
    inputs = keras.Input(VECTOR)
    model = keras.Model(inputs, layers.Dense(3)(Untold(layers.Dense(6))(inputs)))
    model.compile("adam", "mse")
    x, y = data_of(VECTOR)
    quantized = quantize_aware(model, data=x)
    assert not quantization_report(quantized).left_in_float
    np.testing.assert_allclose(quantized(x), model(x), atol=0.1)
    quantized.fit(x, y, epochs=1, verbose=0)
    np.testing.assert_allclose(convert(quantized, quantization="int8")(x), quantized(x), atol=0.05)


def test_a_loss_that_an_opened_block_added_is_said():
    inputs = keras.Input(VECTOR)
    model = keras.Model(inputs, Penalised(layers.Dense(6))(inputs))
    with pytest.warns(UserWarning, match=r"'penalised.*' adds a loss in its call \(add_loss\)"):
        quantize_aware(model)


def test_layers_that_a_block_built_by_its_call_get_their_weights():
    class Told(Untold):
        def get_config(self):
            return {"units": 6}

        @classmethod
        def from_config(cls, config):
            return cls(layers.Dense(config["units"]))

    inputs = keras.Input(VECTOR)
    model = keras.Model(inputs, layers.Dense(3)(Told(layers.Dense(6))(inputs)))
    x, _ = data_of(VECTOR)
    quantized = quantize_aware(model, data=x)
    np.testing.assert_allclose(quantized(x), model(x), atol=0.1)


def test_whole_numbers_of_lookups_are_rounded_as_real_ones():
    number, vector = keras.Input((1,), dtype="int64"), keras.Input(VECTOR)
    looked_up = layers.IntegerLookup(vocabulary=[3, 5, 8], output_mode="multi_hot")(number)
    model = keras.Model([number, vector], layers.Dense(3)(layers.Concatenate()([looked_up, vector])))
    model.compile("adam", "mse")
    x, y = data_of(VECTOR)
    given = [np.arange(16)[:, None], x]
    quantized = quantize_aware(model, data=given)
    np.testing.assert_allclose(quantized(given), model(given), atol=0.1)
    quantized.fit(given, y, epochs=1, verbose=0)


@keras.saving.register_keras_serializable("tfprune_tests")
def lowered(texts):
    return tf.strings.lower(texts)


def test_layers_of_whole_numbers_and_of_texts_stay_of_their_type():
    number, text = keras.Input((1,), dtype="int64"), keras.Input((1,), dtype="string")
    words = layers.TextVectorization(10, standardize=lowered, output_sequence_length=4)
    words.adapt(["a b c", "b C d"])
    told = layers.CategoryEncoding(8, "multi_hot")(layers.Hashing(8, salt=7)(number))
    read = layers.Flatten()(layers.Embedding(10, 3)(words(text)))
    model = keras.Model([number, text], layers.Dense(2)(layers.Concatenate()([told, read])))
    given = [tf.range(4, dtype="int64")[:, None], tf.constant([["a b"], ["C"], ["d d"], [""]])]
    np.testing.assert_allclose(quantize_aware(model)(given), model(given), atol=0.05)
