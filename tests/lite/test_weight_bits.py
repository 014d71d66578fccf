"""Kernels in four bits: bytes, exact zeros, what training and the file say, and what is refused."""

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.command import cli
from tfprune.errors import PruningError
from tfprune.lite import convert
from tfprune.lite.file import flatbuffer
from tfprune.lite.file.zeros import kept_zeros
from tfprune.lite.quantize import quantization_report, quantize_aware

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
DTYPES = {"depthwise": "int8", "grouped": "int8", "deep": "int8", "conv": "int8", "hidden": "int8", "logits": "int8"}
DEFAULT = {"conv": "int4", "grouped": "int4", "hidden": "int4", "logits": "int4"}  # by weight_bits=4


@pytest.fixture(scope="module")
def model(digits):
    """Every kind of layer that may have four bits, trained on the digits and pruned to a half."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(16, 3, use_bias=False, name="conv")(image)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)
    x = layers.Conv2D(24, 1, groups=4, activation="relu", name="grouped")(x)
    x = layers.Conv2DTranspose(8, 2, strides=2, activation="relu", name="deep")(x)
    x = layers.Dense(33, activation="relu", name="hidden")(layers.Flatten()(layers.MaxPooling2D(name="pool")(x)))
    model = keras.Model(image, layers.Dense(10, name="logits")(x), name="digits")
    model.compile(keras.optimizers.Adam(0.005), LOSS, metrics=["accuracy"])
    model.fit(*digits, batch_size=64, epochs=6, verbose=0)
    pruned = tfprune.prune(model, 0.5)
    pruned.compile(keras.optimizers.Adam(0.002), LOSS, metrics=["accuracy"])
    return pruned


@pytest.fixture(scope="module")
def quantized(model, digits):
    """The same after a little training in four bits."""
    trained = quantize_aware(model, digits[0][:200], weight_bits=4)
    trained.fit(*digits, batch_size=64, epochs=2, verbose=0)
    return trained


def kernels(lite):
    """Type and integers of each kernel in a file, by layer, in Keras' order of axes."""
    file = flatbuffer.read_model(lite.content)
    graph = file.subgraphs[0]
    found = {}
    for operator in graph.operators:
        name = flatbuffer.operator_name(file, operator)
        if name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"):
            continue
        kernel = graph.tensors[operator.inputs[1]]
        values = flatbuffer.stored_values(file, kernel).reshape(flatbuffer.shape_of(kernel))
        axes = {"FULLY_CONNECTED": (1, 0), "CONV_2D": (1, 2, 3, 0), "DEPTHWISE_CONV_2D": (1, 2, 3, 0)}
        text = " ".join(flatbuffer.tensor_name(graph.tensors[i]) for i in (operator.inputs[1], operator.outputs[0]))
        layer = next(layer for layer in DTYPES if layer in text)
        found[layer] = flatbuffer.dtype_name(kernel), values.transpose(axes.get(name, (1, 2, 0, 3)))
    return found


def accuracy(answers, labels):
    return np.mean(np.asarray(answers).argmax(1) == labels)


@pytest.mark.parametrize(
    ("bits", "four"),
    [
        (4, DEFAULT),
        ({"hidden": 4, "depthwise": 4}, {"hidden": "int4", "depthwise": "int4"}),
        ({"hidden": 8}, {}),
        (8, {}),
    ],
)
def test_kernels_are_stored_in_the_bits_that_were_asked_for(model, digits, bits, four):
    images, labels = digits
    lite = convert(model, "int8", images[:200], weight_bits=bits)
    found = kernels(lite)
    assert {layer: dtype for layer, (dtype, _) in found.items()} == {**DTYPES, **four}
    for layer, (dtype, integers) in found.items():
        assert np.abs(integers).max() == (7 if dtype == "int4" else 127), layer
    report = lite.inspect()
    assert report.quantization == "int8" and not report.float_ops
    assert sorted(constant.size for constant in report.weights) == sorted(
        (integers.size + 1) // 2 if dtype == "int4" else integers.size for dtype, integers in found.values()
    )
    assert accuracy(lite(images), labels) > accuracy(model.predict(images, verbose=0), labels) - 0.03
    assert any(note.startswith("Kernels in 4 bits:") for note in lite.notes) == bool(four)


def test_every_zero_is_a_zero_in_four_bits(model, quantized, digits):
    masks = tfprune.get_masks(model)
    for lite in (convert(model, "int8", digits[0][:200], weight_bits=4), convert(quantized, "int8")):
        for weight in kept_zeros(model, lite.file):
            assert weight.kept == weight.zeros > 0, weight
        for layer, (_, integers) in kernels(lite).items():
            mask = masks[f"{layer}/kernel"]
            assert np.all(integers.reshape(mask.shape)[~mask] == 0)


def test_a_network_trained_in_four_bits_and_its_file_agree(quantized, digits):
    images, labels = digits
    lite = convert(quantized, "int8")
    for layer, (dtype, integers) in kernels(lite).items():
        trained = quantized.get_layer("logits_1" if layer == "logits" else layer)
        assert dtype == f"int{trained.weight_bits}" == {**DTYPES, **DEFAULT}[layer]
        np.testing.assert_array_equal(integers.reshape(trained.integers().shape), trained.integers())
    answers, given = quantized.predict(images, verbose=0), lite(images)
    assert np.mean(answers.argmax(1) == given.argmax(1)) >= 0.998
    # LiteRT's plain kernels round the product of scales once more than its fast ones.
    assert np.abs(answers - given).max() < 3.01 * lite.outputs[0].scale
    assert accuracy(given, labels) > 0.93


def test_training_in_four_bits_wins_back_what_the_rounding_loses(model, digits):
    images, labels = digits
    everything = dict.fromkeys(("conv", "depthwise", "grouped", "hidden", "logits"), 4)
    before = quantize_aware(model, images[:200], weight_bits=everything)
    start = accuracy(before.predict(images, verbose=0), labels)
    before.fit(images, labels, batch_size=64, epochs=2, verbose=0)
    assert accuracy(before.predict(images, verbose=0), labels) > start


def test_a_large_error_is_said_with_what_may_help(model, digits):
    everything = dict.fromkeys(("conv", "depthwise", "grouped", "hidden", "logits"), 4)
    with pytest.warns(UserWarning, match=r"is off by \d+%.*; weight_bits=8, bias_correction=True, or quantize_aware"):
        convert(model, "int8", digits[0][:100], weight_bits=everything)


def test_bits_are_reported_saved_and_loaded(quantized, tmp_path):
    rows = {row["layer"]: row["weights"] for row in quantization_report(quantized).rows()}
    assert (rows["hidden"], rows["depthwise"]) == ("int4 per channel", "int8 per channel")
    quantized.save(tmp_path / "four.keras")
    loaded = keras.models.load_model(tmp_path / "four.keras")
    assert convert(loaded, "int8").content == convert(quantized, "int8").content


def test_bits_reach_layers_inside_models_and_separable_ones(digits):
    inside = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(4, 3, name="c")], name="inside")
    image = keras.Input((8, 8, 1))
    x = layers.SeparableConv2D(6, 3, name="separable")(inside(image))
    model = keras.Model(image, layers.Dense(3, name="d")(layers.Flatten()(x)))
    expected = {"inside": ["inside_c"], "c": ["inside_c"], "separable": ["separable_depthwise", "separable_pointwise"]}
    for name, four in expected.items():
        trained = quantize_aware(model, digits[0][:50], weight_bits={name: 4})
        assert [layer.name for layer in trained.layers if getattr(layer, "weight_bits", 8) == 4] == four
        lite = convert(model, "int8", digits[0][:50], weight_bits={name: 4})
        assert sum(c.dtype == "int4" for c in lite.inspect().constants) == len(four)


def test_layers_with_numbers_in_their_names_are_told_apart(digits):
    names = ["conv2d", "conv2d_1", "conv2d_2"]  # TensorFlow numbers the scopes of layers so, too
    x = image = keras.Input((8, 8, 1))
    for name, width in zip(names, (2, 4, 3)):
        x = layers.Conv2D(width, 3, name=name)(x)
    model = keras.Model(image, layers.Flatten()(x))
    for name, width in zip(names, (2, 4, 3)):
        lite = convert(model, "int8", digits[0][:100], weight_bits={name: 4})
        assert [c.shape[0] for c in lite.inspect().constants if c.dtype == "int4"] == [width]
        mixed = convert(model, "int8", digits[0][:100], float_layers=[name])
        assert [c.shape[0] for c in mixed.inspect().weights if c.dtype == "float32"] == [width]


@pytest.fixture(scope="module")
def twins():
    """Two models with layers of the same names in one, the second of them last."""
    image = keras.Input((8, 8, 1))
    x = image
    for name, width in (("a", 6), ("b", 5)):
        inside = [
            keras.Input(x.shape[1:]),
            layers.Conv2D(width, 2, name="conv"),
            layers.Conv2D(width + 2, 1, name="last"),
        ]
        x = keras.Sequential(inside, name=name)(x)
    return keras.Model(image, x, name="twins")


PATHS = {"a/conv": [6], "b/conv": [5], "a/last": [8], "b/last": [7], "a": [6, 8], "b": [5, 7], "conv": [5, 6]}


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_one_layer_and_a_name_all_of_that_name(twins, digits, path):
    images = digits[0][:50]
    packed = convert(twins, "int8", images, weight_bits={path: 4}).inspect().weights
    assert sorted(c.shape[0] for c in packed if c.dtype == "int4") == PATHS[path]
    mixed = convert(twins, "int8", images, float_layers=[path]).inspect().weights
    assert sorted(c.shape[0] for c in mixed if c.dtype == "float32") == PATHS[path]
    learned = quantize_aware(twins, images, weight_bits={path: 4}).layers
    assert sorted(layer.layer.filters for layer in learned if getattr(layer, "weight_bits", 8) == 4) == PATHS[path]


def test_a_bias_that_two_kernels_share_is_scaled_for_one_of_them(digits):
    image = keras.Input((8, 8, 1))
    x = layers.Flatten()(image)
    outputs = [layers.Dense(5, name=name, bias_initializer="zeros")(x) for name in ("four", "eight")]
    model = keras.Model(image, outputs)
    lite = convert(model, "int8", digits[0][:100], weight_bits={"four": 4})
    wanted, given = model.predict(digits[0][:100], verbose=0), lite(digits[0][:100])
    for output, answer, steps in zip(wanted, given, (0.15, 0.02)):
        assert np.abs(output - answer).max() < steps * np.abs(output).max()


@pytest.mark.parametrize("count", [1, 2, 7])
def test_four_bit_integers_are_read_as_they_were_packed(count):
    values = np.arange(-8, 8, dtype=np.int8)[:count]
    assert len(flatbuffer.pack_four_bits(values)) == (count + 1) // 2
    tensor = flatbuffer.schema().TensorT()
    tensor.type, tensor.shape, tensor.buffer = flatbuffer.schema().TensorType.INT4, [count], 1
    file, buffer = flatbuffer.schema().ModelT(), flatbuffer.schema().BufferT()
    buffer.data, file.buffers = flatbuffer.pack_four_bits(values), [None, buffer]
    buffer.offset = 0
    np.testing.assert_array_equal(flatbuffer.stored_values(file, tensor), values)


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        (3, r"weight_bits=3: LiteRT stores weights in 8 bits or in 4. Write weight_bits=4"),
        (True, "LiteRT stores weights in 8 bits or in 4"),
        ({"hidden": 2}, "LiteRT stores weights in 8 bits or in 4"),
        ({"hiden": 4}, r"weight_bits: 'digits' has no layer 'hiden'.*'hidden'"),
        ({"pool": 4}, r"layer 'pool' has no kernel that LiteRT reads in 4 bits. It does so for Dense"),
        ({"deep": 4}, r"layer 'deep' has no kernel that LiteRT reads in 4 bits"),
    ],
)
def test_what_cannot_be_is_said(model, digits, bits, message):
    with pytest.raises(PruningError, match=message):
        convert(model, "int8", digits[0][:50], weight_bits=bits)
    with pytest.raises(PruningError, match=message):
        quantize_aware(model, digits[0][:50], weight_bits=bits)


def test_four_bits_need_int8_and_models_that_learned_bring_their_own(model, quantized):
    with pytest.raises(PruningError, match=r"weight_bits=4 does not go with quantization='dynamic'.*'int8'"):
        convert(model, "dynamic", weight_bits=4)
    with pytest.raises(PruningError, match=r"'digits' has learned with bits of its own.*quantize_aware\(model, weight"):
        convert(quantized, "int8", weight_bits=4)


def test_from_the_command(model, digits, tmp_path):
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=digits[0][:60])
    line = ["convert", str(tmp_path / "model.keras"), "--quantization", "int8", "--data", str(tmp_path / "data.npz")]
    assert cli.main([*line, "--weight_bits", "4", "--output", str(tmp_path / "four.tflite")]) == 0
    constants = tfprune.LiteModel.load(tmp_path / "four.tflite").inspect().constants
    assert sum(constant.dtype == "int4" for constant in constants) == len(DEFAULT)
