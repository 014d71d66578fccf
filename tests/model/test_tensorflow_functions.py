"""Layers whose call is written with TensorFlow's functions open into a graph that computes the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import tfprune
from tfprune.model.inline.tensorflow_functions import BINARY, FUNCTIONS, UNARY

KERNEL = np.random.default_rng(0).normal(size=(2, 2, 3, 3)).astype("float32")


def by_rows(function, x):
    """Rows of an image summed up in another order, one of them of none."""
    return tf.transpose(function(tf.transpose(x, [2, 0, 1, 3]), [2, 0, 0, 3, 2, 3], num_segments=4)[::2], [1, 0, 2, 3])


# By the name of each function, what a call does with images of 4x6x3, in [0.1, 0.9].
CASES = {
    "concat": lambda x: tf.concat([x, 2 * x], axis=-1),
    "stack": lambda x: tf.stack([x, x + 1], 1),
    "unstack": lambda x: tf.unstack(x, axis=-1)[1],
    "split": lambda x: tf.concat([tf.split(x, 2, axis=2)[1], tf.split(x, [1, -1, 2], axis=2)[1]], 2),
    "shape": lambda x: x * tf.cast(tf.shape(x)[2], x.dtype),
    "rank": lambda x: x * tf.cast(tf.rank(x), x.dtype),
    "reshape": lambda x: tf.reshape(x, [tf.shape(x)[0], -1, 9]) + tf.reshape(x, tf.stack([-1, 8, 9])),
    "transpose": lambda x: tf.transpose(x, perm=[0, 2, 1, 3]),
    "expand_dims": lambda x: tf.expand_dims(x, 1) + tf.expand_dims(x, axis=1),
    "squeeze": lambda x: tf.squeeze(x[:, :1], axis=1),
    "tile": lambda x: tf.tile(x, [1, 2, 1, 1]),
    "repeat": lambda x: tf.repeat(x, 2, axis=1),
    "broadcast_to": lambda x: tf.broadcast_to(x[:, :1], tf.shape(x)),
    "pad": lambda x: tf.pad(x, [[0, 0], [1, 1], [0, 2], [0, 0]]) + tf.reduce_sum(tf.pad(x, [[0, 0]] * 4, "REFLECT")),
    "reverse": lambda x: tf.reverse(x, axis=[1, 2]),
    "roll": lambda x: tf.roll(x, shift=1, axis=2),
    "gather": lambda x: tf.gather(x, [2, 0], axis=3),
    "cast": lambda x: tf.cast(tf.cast(10 * x, tf.int32), tf.float32),
    "real": lambda x: tf.math.real(x) + tf.math.real(tf.cast(x, tf.complex64)),
    "imag": lambda x: x + tf.math.imag(tf.cast(x, "complex64")),
    "fft2d": lambda x: tf.math.real(tf.signal.fft2d(tf.cast(x, tf.complex64))) + x,
    "identity": lambda x: tf.identity(x) + 1,
    "stop_gradient": lambda x: tf.stop_gradient(x) * 2,
    "zeros_like": lambda x: tf.zeros_like(x) + x,
    "ones_like": lambda x: tf.ones_like(x) + x,
    "one_hot": lambda x: tf.one_hot(tf.cast(10 * x[..., 0], "int32"), depth=11),
    "where": lambda x: tf.where(x > 0.5, x, 2 * x),
    "einsum": lambda x: tf.einsum("bhwc,bhwd->bcd", x, x + 1),
    "matmul": lambda x: tf.matmul(x, x, transpose_b=True),
    "tensordot": lambda x: tf.tensordot(x, KERNEL[0, 0], axes=[[3], [0]]),
    "clip_by_value": lambda x: tf.clip_by_value(x, 0.3, 0.6),
    "cumsum": lambda x: tf.cumsum(x, axis=1) + tf.math.cumsum(x, 2),
    "norm": lambda x: tf.norm(x, axis=-1) + tf.linalg.norm(x, axis=3),
    "l2_normalize": lambda x: tf.nn.l2_normalize(x, axis=-1) + tf.math.l2_normalize(x, -1),
    "unsorted_segment_sum": lambda x: by_rows(tf.math.unsorted_segment_sum, x),
    "unsorted_segment_max": lambda x: by_rows(tf.math.unsorted_segment_max, x),
    "unsorted_segment_mean": lambda x: by_rows(tf.math.unsorted_segment_mean, x),
    "top_k": lambda x: tf.math.top_k(x, k=2)[0] * tf.cast(tf.nn.top_k(x, 2)[1], "float32"),
    "argmax": lambda x: tf.cast(tf.argmax(x, axis=-1), "float32"),
    "argmin": lambda x: tf.cast(tf.math.argmin(x, 2), "float32"),
    "softmax": lambda x: tf.nn.softmax(x) + tf.nn.softmax(x, axis=1),
    "log_softmax": lambda x: tf.nn.log_softmax(x) + tf.nn.log_softmax(x, axis=2),
    "gelu": lambda x: tf.nn.gelu(x) + tf.nn.gelu(x, approximate=True),
    "silu": lambda x: tf.nn.silu(x) + tf.nn.silu(x, beta=1.0),
    "swish": lambda x: tf.nn.swish(x, beta=1.5),
    "leaky_relu": lambda x: tf.nn.leaky_relu(x - 0.5) + tf.nn.leaky_relu(x - 0.5, alpha=0.1),
    "bias_add": lambda x: tf.nn.bias_add(x, [1.0, 2.0, 3.0]),
    "moments": lambda x: tf.nn.moments(x, [1, 2])[1],
    "conv1d": lambda x: (
        tf.nn.conv1d(x[:, 1], KERNEL[0], 1, "SAME") + tf.nn.conv1d(x[:, 2], KERNEL[0], [1, 1, 1], "SAME")
    ),
    "conv2d": lambda x: tf.nn.conv2d(x, KERNEL, strides=[1, 2, 2, 1], padding="SAME"),
    "depthwise_conv2d": lambda x: tf.nn.depthwise_conv2d(x, KERNEL, strides=[1, 1, 1, 1], padding="VALID"),
    "max_pool2d": lambda x: tf.nn.max_pool2d(x, ksize=2, strides=2, padding="VALID"),
    "avg_pool2d": lambda x: tf.nn.avg_pool2d(x, [1, 2, 2, 1], [1, 2, 2, 1], "SAME"),
    "resize": lambda x: tf.image.resize(x, [8, 3]) + tf.image.resize(x, (8, 3), method="nearest"),
    "extract_patches": lambda x: tf.image.extract_patches(x, [1, 2, 3, 1], [1, 2, 1, 1], [1, 1, 1, 1], "SAME"),
    "crop_to_bounding_box": lambda x: tf.image.crop_to_bounding_box(x, 1, 2, target_height=2, target_width=4),
    "pad_to_bounding_box": lambda x: tf.image.pad_to_bounding_box(x, 1, 0, 8, 7),
    "depth_to_space": lambda x: tf.nn.depth_to_space(tf.concat([x, 2 * x[..., :1]], -1), 2),
    "space_to_depth": lambda x: tf.nn.space_to_depth(x, block_size=2),
    "ensure_shape": lambda x: tf.ensure_shape(x, [None, 4, 6, 3]) + 1,
    "check_numerics": lambda x: tf.debugging.check_numerics(x, "not a number") + 1,
    "reduce_mean": lambda x: tf.reduce_mean(x, axis=[1, 2]),
    "reduce_sum": lambda x: tf.reduce_sum(x, -1, keepdims=True),
    "reduce_max": lambda x: tf.reduce_max(x, axis=1),
    "reduce_min": lambda x: tf.math.reduce_min(x, axis=1),
    "reduce_prod": lambda x: tf.reduce_prod(x, axis=3),
    "reduce_any": lambda x: tf.cast(tf.reduce_any(x > 0.8, axis=3), "float32"),
    "reduce_all": lambda x: tf.cast(tf.reduce_all(x > 0.2, axis=3), "float32"),
    "reduce_std": lambda x: tf.math.reduce_std(x, axis=2),
    "reduce_variance": lambda x: tf.math.reduce_variance(x, axis=2),
    "reduce_logsumexp": lambda x: tf.reduce_logsumexp(x, axis=2),
    "range": lambda x: x + tf.cast(tf.range(tf.shape(x)[3]), tf.float32) + tf.cast(tf.range(1, 7, 2), tf.float32),
    **{name: lambda x, name=name: of(name)(of(name)(x)) for name in UNARY},
    **{name: lambda x, name=name: tf.cast(of(name)(x, 1 - x), "float32") for name in BINARY},
    "logical_not": lambda x: tf.cast(tf.logical_not(x > 0.5), "float32"),
    "logical_and": lambda x: tf.cast(tf.logical_and(x > 0.3, x < 0.7), "float32"),
    "logical_or": lambda x: tf.cast(tf.math.logical_or(x < 0.3, x > 0.7), "float32"),
}


def of(name):
    return next(getattr(module, name) for module in (tf, tf.math, tf.nn) if hasattr(module, name))


class Written(keras.Layer):
    """A layer whose call somebody wrote."""

    def __init__(self, written, **kwargs):
        super().__init__(**kwargs)
        self.written = written

    def call(self, x):
        return self.written(x)


def model_of(written, shape=(4, 6, 3)):
    x = keras.Input(shape)
    return keras.Model(x, keras.layers.Activation("linear")(Written(written, name="written")(x)))


def images(count, shape=(4, 6, 3)):
    return np.random.default_rng(count).uniform(0.1, 0.9, (count, *shape)).astype("float32")


def test_every_function_has_a_case():
    assert set(CASES) == {*FUNCTIONS, *UNARY, *BINARY, "range"}


@pytest.mark.parametrize("written", CASES.values(), ids=CASES)
def test_a_call_written_with_tensorflow_opens(written):
    model = model_of(written)
    opened = tfprune.inline(model)
    assert not any(isinstance(layer, Written) for layer in opened.layers)
    for count in (1, 5):
        expected, given = model(images(count)), opened(images(count))
        np.testing.assert_allclose(given, expected, rtol=1e-6, atol=1e-6)


def test_a_network_written_with_tensorflow_shrinks():
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = keras.layers.Conv2D(8, 3, padding="same")
            self.second = keras.layers.Conv2D(12, 3, padding="same")
            self.answer = keras.layers.Dense(4)

        def call(self, images):
            height, width = tf.shape(images)[1], tf.shape(images)[2]
            first = tf.nn.relu(self.first(images))
            second = tf.nn.relu(self.second(tf.nn.max_pool2d(first, 2, 2, "SAME")))
            both = tf.concat([first, tf.image.resize(second, [height, width])], axis=-1)
            return tf.nn.softmax(self.answer(tf.reduce_mean(both, axis=[1, 2])))

    model = Network()
    model(images(2, (8, 8, 3)))
    pruned = tfprune.prune(model, tfprune.Structured(0.5))
    small = tfprune.shrink(pruned)
    assert small.count_params() < 0.5 * model.count_params()
    certificate = tfprune.certify(pruned, small, images(4, (8, 8, 3)))
    assert certificate.largest < 1e-6


@pytest.mark.skipif(not hasattr(ops.nn, "depth_to_space"), reason="this Keras moves blocks by reshapes alone")
@pytest.mark.parametrize("function", ["depth_to_space", "space_to_depth"])
def test_blocks_move_in_images_of_any_size(function):
    x = keras.Input((None, None, 3))
    wide = keras.layers.Conv2D(16, 3, padding="same")(x)
    moved = keras.layers.Lambda(lambda x: getattr(tf.nn, function)(x, block_size=2))(wide)
    model = keras.Model(x, keras.layers.Conv2D(3, 3, padding="same")(moved))
    pruned = tfprune.prune(model, tfprune.Structured(0.5))
    small = tfprune.shrink(pruned)
    assert small.count_params() < 0.8 * model.count_params()
    assert tfprune.certify(pruned, small, images(2, (6, 10, 3))).largest < 1e-6


def test_a_function_that_an_attribute_holds_is_taken_too():
    assert not any(isinstance(layer, Written) for layer in tfprune.inline(model_of(tf.nn.relu)).layers)


def test_shapes_and_assertions_of_tensorflow_are_understood():
    def written(x):
        tf.debugging.assert_rank(x, 4)
        tf.debugging.assert_equal(tf.shape(x)[3], 3)
        tf.debugging.assert_non_negative(tf.abs(x), message="below 0")
        _, height, width, channels = x.shape.as_list()
        return tf.reshape(x, [-1, height * width, channels]) / x.shape.rank

    model = model_of(written)
    opened = tfprune.inline(model)
    assert not any(isinstance(layer, Written) for layer in opened.layers)
    np.testing.assert_allclose(opened(images(2)), model(images(2)), rtol=1e-6)
    assert type(keras.Input((3,)).shape) is tuple  # afterwards as before


def test_a_call_that_is_a_function_of_tensorflow_opens():
    class Compiled(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = keras.layers.Dense(8), keras.layers.Dense(2)

        @tf.function
        def call(self, x):
            return self.second(tf.nn.relu(self.first(x)))

    model = Compiled()
    model(images(2, (5,)))
    small = tfprune.shrink(tfprune.prune(model, tfprune.Structured(0.5)))
    assert small.count_params() == 4 * 6 + 2 * 5


def test_a_function_of_the_same_name_in_another_module_is_not_taken_for_it():
    said = r"'written' stays closed: .*write the functions of keras.ops .*tf.image.transpose"
    with pytest.warns(UserWarning, match=said):
        tfprune.inline(model_of(lambda x: tf.image.transpose(x) + 1))  # height and width, and not all axes


def test_opening_uses_up_no_name_of_a_layer():
    def number():
        return int(keras.layers.Rescaling(2.0).name.partition("rescaling_")[2] or 0)

    before = number()
    tfprune.inline(model_of(tf.nn.relu))
    assert number() == before + 1


def test_what_keras_does_not_have_is_named():
    said = r"'written' stays closed: it calls TensorFlow's cumsum\(\) with 'axis', 'exclusive'.*functions of keras.ops"
    with pytest.warns(UserWarning, match=said):
        tfprune.inline(model_of(lambda x: tf.cumsum(x, axis=1, exclusive=True)))


def test_tensorflow_is_as_it_was_after_opening():
    before = {name: of(name) for name in (*UNARY, *BINARY)}
    tfprune.inline(model_of(tf.nn.relu))
    assert all(of(name) is function for name, function in before.items()) and tf.range(3).shape == (3,)


def test_a_layer_may_be_called_on_sizes_by_their_places():
    class Rows(keras.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = keras.layers.Dense(4)

        def call(self, x, height, width):
            return tf.reshape(self.dense(x), [-1, height * width, 4])

    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.rows = Rows()

        def call(self, x):
            return self.rows(x, tf.shape(x)[1], tf.shape(x)[2])

    model = Network()
    expected = model(images(2))
    opened = tfprune.inline(model)
    assert not any(isinstance(layer, Rows) for layer in opened.layers)
    np.testing.assert_allclose(opened(images(2)), expected, rtol=1e-6)
