"""Networks that both sides of a benchmark build: by Keras 3 here, by tf_keras where tfmot needs it."""

from collections.abc import Sequence
from typing import Any


def fashion_cnn(keras: Any, widths: Sequence[int] = (32, 64, 128)) -> Any:
    """A CNN of 421,642 parameters for 28x28 images; reaches about 90 % on Fashion-MNIST in three epochs.

    Args:
        keras: The package to build with, `keras` or `tf_keras`.
        widths: Channels of its two convolutions and units of its hidden layer; fewer after shrinking.
    """
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(widths[0], 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(widths[1], 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(widths[2], activation="relu"),
            layers.Dense(10),
        ]
    )


def small_cnn_with_norms(keras: Any) -> Any:
    """A CNN of 33,434 parameters with a batch norm behind each convolution, quick enough to be pruned 200 times."""
    layers = keras.layers

    def convolution(width: int) -> list[Any]:
        kernel = layers.Conv2D(width, 3, padding="same", use_bias=False)
        return [kernel, layers.BatchNormalization(momentum=0.9), layers.ReLU(), layers.MaxPooling2D()]

    body = [*convolution(16), *convolution(32), *convolution(32), layers.Flatten(), layers.Dense(64, activation="relu")]
    return keras.Sequential([keras.Input((28, 28, 1)), *body, layers.Dense(10)])


def depthwise_cnn(keras: Any) -> Any:
    """A small MobileNet for 28x28 images: four pairs of depthwise and pointwise convolutions, ReLU6.

    Args:
        keras: The package to build with, `keras` or `tf_keras`.
    """
    return _mobile(keras, ((32, 1), (64, 2), (64, 1), (128, 1)), ceiling=6.0)


def deep_depthwise_cnn(keras: Any) -> Any:
    """A narrow MobileNet: eight pairs of depthwise and pointwise convolutions, 16 to 64 channels, plain ReLU.

    Args:
        keras: The package to build with, `keras` or `tf_keras`.
    """
    return _mobile(keras, ((24, 1), (24, 1), (32, 2), (32, 1), (48, 1), (48, 1), (64, 1), (64, 1)), ceiling=None)


def bottleneck_cnn(keras: Any) -> Any:
    """Five inverted bottlenecks for 28x28 images, 68,922 parameters: two fused ones, then three with depthwise kernels.

    As EfficientNetV2 stacks them (https://arxiv.org/abs/2104.00298): in the fused ones a full 3x3 convolution widens,
    in the others a pointwise one, followed by a depthwise 5x5.

    Args:
        keras: The package to build with, `keras` or `tf_keras`.
    """
    layers = keras.layers
    inputs = keras.Input((28, 28, 1))

    def normed(x: Any) -> Any:
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))

    def convolved(x: Any, width: int, kernel: int, stride: int = 1) -> Any:
        return layers.Conv2D(width, kernel, strides=stride, padding="same", use_bias=False)(x)

    x = normed(convolved(inputs, 16, 3))
    for fused, wide, width, stride in (
        (True, 64, 24, 2), (True, 96, 24, 1), (False, 96, 32, 1), (False, 128, 32, 1), (False, 128, 32, 1),
    ):  # fmt: skip
        before = x
        x = normed(convolved(x, wide, 3 if fused else 1, stride))
        if not fused:
            x = normed(layers.DepthwiseConv2D(5, padding="same", use_bias=False)(x))
        x = layers.BatchNormalization(momentum=0.9)(convolved(x, width, 1))
        if stride == 1 and before.shape[-1] == width:
            x = layers.Add()([before, x])
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def _mobile(keras: Any, pairs: Sequence[tuple[int, int]], ceiling: float | None) -> Any:
    """Pairs of depthwise and pointwise convolutions, of so many channels and strides, each normalised."""
    layers = keras.layers
    inputs = keras.Input((28, 28, 1))

    def normed(x: Any) -> Any:
        return layers.ReLU(ceiling)(layers.BatchNormalization()(x))

    x = normed(layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(inputs))
    for width, stride in pairs:
        x = normed(layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(x))
        x = normed(layers.Conv2D(width, 1, use_bias=False)(x))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def vision_transformer(keras: Any, heads: int = 4, hidden: int = 512) -> Any:
    """A vision transformer of 1,085,578 parameters for 28x28 images: a stem of convolutions, then five blocks.

    Three strided convolutions instead of one for the patches, after Xiao et al., "Early convolutions help transformers
    see better" (2021), let it learn in a few epochs, and tell the places of the 9 tokens.

    Args:
        keras: The package to build with.
        heads: Of each block; 32 channels each.
        hidden: Width of each block's MLP.
    """
    layers = keras.layers
    x = inputs = keras.Input((28, 28, 1))
    for number, width in enumerate((32, 64)):
        x = layers.Conv2D(width, 3, strides=2, padding="same", activation="relu", name=f"stem{number}")(x)
    x = layers.Reshape((-1, 128))(layers.Conv2D(128, 3, strides=2, name="tokens")(x))
    x = _encoder(layers, x, blocks=5, heads=heads, size=32, hidden=hidden)
    return keras.Model(inputs, layers.Dense(10, name="classes")(x))


def text_transformer(keras: Any, heads: int = 4, hidden: int = 256) -> Any:
    """A classifier of sentences of 32 words out of 200 in 8 classes: two blocks of width 64, 115,464 parameters.

    Args:
        keras: The package to build with.
        heads: Of each block; 16 channels each.
        hidden: Width of each block's MLP.
    """
    layers = keras.layers
    inputs = keras.Input((32,), dtype="int32")
    places = keras.ops.cumsum(keras.ops.ones_like(inputs), axis=1) - 1
    x = layers.Embedding(200, 64, name="words")(inputs) + layers.Embedding(32, 64, name="places")(places)
    x = _encoder(layers, x, blocks=2, heads=heads, size=16, hidden=hidden)
    return keras.Model(inputs, layers.Dense(8, name="classes")(x))


def _encoder(layers: Any, x: Any, blocks: int, heads: int, size: int, hidden: int) -> Any:
    """Blocks of attention and an MLP, normalised before each; then the mean over the tokens."""
    width = x.shape[-1]
    for block in range(blocks):
        y = layers.LayerNormalization(epsilon=1e-6, name=f"block{block}_norm1")(x)
        x = layers.Add()([x, layers.MultiHeadAttention(heads, size, name=f"block{block}_attention")(y, y)])
        y = layers.LayerNormalization(epsilon=1e-6, name=f"block{block}_norm2")(x)
        y = layers.Dense(hidden, activation="gelu", name=f"block{block}_hidden")(y)
        x = layers.Add()([x, layers.Dense(width, name=f"block{block}_out")(y)])
    return layers.GlobalAveragePooling1D()(layers.LayerNormalization(epsilon=1e-6, name="norm")(x))


def perceptron(keras: Any) -> Any:
    """Three wide dense layers, 2.9 million parameters: much to mask and little else to do in a step."""
    layers = keras.layers
    hidden = [layers.Dense(1024, activation="relu") for _ in range(3)]
    return keras.Sequential([keras.Input((28, 28, 1)), layers.Flatten(), *hidden, layers.Dense(10)])


def compiled(keras: Any, model: Any, rate: float) -> Any:
    """Compiles a classifier with Adam."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model


def for_a_short_run(keras: Any, model: Any) -> Any:
    """The model with batch norms that forget sooner: with 0.99 their averages still hold what they began with."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9
    return model


def batches(images: Any, labels: Any, size: int, seed: int) -> Any:
    """The training set in an order that depends on the seed alone, so that both sides see the same batches."""
    import tensorflow as tf

    tf.random.set_seed(seed)
    return tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images), seed=seed).batch(size)
