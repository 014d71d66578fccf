"""Bias correction: mean errors go, answers come nearer, and nothing but biases changes."""

import keras
import lite_models
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.command import cli
from tfprune.errors import PruningError
from tfprune.lite import convert
from tfprune.lite.file import flatbuffer
from tfprune.lite.quantize import quantize_aware

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def pair(x, width):
    """A depthwise and a pointwise convolution, as MobileNets have them."""
    for kind in (layers.DepthwiseConv2D(3, padding="same", use_bias=False), layers.Conv2D(width, 1, use_bias=False)):
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(kind(x)))
    return x


@pytest.fixture(scope="module")
def model(digits):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(12, 3, padding="same", activation="relu", name="stem")(image)
    x = pair(pair(pair(x, 16), 16), 24)
    model = keras.Model(image, layers.Dense(10, name="scores")(layers.GlobalAveragePooling2D()(x)), name="mobile")
    model.compile(keras.optimizers.Adam(0.01), LOSS, metrics=["accuracy"])
    model.fit(*digits, batch_size=64, epochs=6, verbose=0)
    return model


@pytest.fixture(scope="module")
def files(model, digits):
    """In four bits, with biases as they were and corrected on half of the digits."""
    everywhere = {layer.name: 4 for layer in model.layers if hasattr(layer, "kernel")}
    return [
        convert(model, "int8", digits[0][::6], weight_bits=everywhere, bias_correction=corrects)
        for corrects in (False, True)
    ]


def error(lite, model, images):
    wanted = model.predict(images, verbose=0)
    return np.sqrt(np.mean((lite(images) - wanted) ** 2) / np.mean(wanted**2))


def test_answers_come_nearer_to_keras_on_other_data_too(model, files, digits):
    others = digits[0][1::2]
    before, after = (error(lite, model, others) for lite in files)
    assert after < 0.75 * before
    assert files[1].notes[-1].startswith("Biases of 8 layers corrected: the answers' error on 128 samples was ")


def test_only_biases_change(files):
    constants = []
    for lite in files:
        file = flatbuffer.read_model(lite.content)
        constants.append(
            {
                flatbuffer.tensor_name(tensor): (flatbuffer.dtype_name(tensor), values)
                for tensor in file.subgraphs[0].tensors
                if (values := flatbuffer.stored_values(file, tensor)) is not None
            }
        )
    assert constants[0].keys() == constants[1].keys()
    changed = {
        dtype for name, (dtype, values) in constants[0].items() if not np.array_equal(values, constants[1][name][1])
    }
    assert changed == {"int32"}
    assert abs(files[0].size - files[1].size) < 500  # the tables of the file, written anew


def test_the_mean_of_every_output_channel_is_that_of_keras(model, files, digits):
    images = digits[0][::6][np.linspace(0, len(digits[0][::6]) - 1, 128).round().astype(int)]
    wanted = model.predict(images, verbose=0).mean(axis=0)
    before, after = (np.abs(lite(images).mean(axis=0) - wanted) for lite in files)
    assert after.max() < before.max() / 3
    assert after.max() < files[1].outputs[0].scale


def test_a_layer_that_is_called_twice_is_left_and_biases_of_zero_are_made(digits):
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 1))
    twice = layers.Conv2D(4, 3, padding="same", activation="relu", name="twice")
    x = twice(layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(image))
    x = layers.DepthwiseConv2D(3, name="alone")(twice(x))
    outputs = [layers.Dense(6, name=name)(layers.Flatten()(x)) for name in ("left", "right")]
    model = keras.Model(image, outputs)  # all biases are zeros
    lite = convert(model, "int8", digits[0][:200], weight_bits=4, bias_correction=True)
    plain = convert(model, "int8", digits[0][:200], weight_bits=4)
    assert "Biases of 4 layers corrected" in lite.notes[-1]
    answers = model.predict(digits[0][200:400], verbose=0)
    for wanted, corrected, before in zip(answers, lite(digits[0][200:400]), plain(digits[0][200:400])):
        assert np.abs((corrected - wanted).mean(0)).max() < np.abs((before - wanted).mean(0)).max()


def test_several_inputs_and_float_ends(digits):
    model = lite_models.two_inputs()
    generator = np.random.default_rng(0)
    data = {"zeta": generator.normal(size=(60, 8)), "alpha": generator.normal(size=(60, 4))}
    data = {name: values.astype("float32") for name, values in data.items()}
    lite = convert(model, "int8", data, io="float32", weight_bits=4, bias_correction=True)
    assert lite.inspect().input_dtypes == {"zeta": "float32", "alpha": "float32"}
    assert any("orrect" in note for note in lite.notes)


def test_a_file_that_comes_no_nearer_is_left_as_it_is(digits):
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.MaxPooling2D(), layers.Flatten()])
    lite = convert(model, "int8", digits[0][:50], bias_correction=True)
    assert lite.content == convert(model, "int8", digits[0][:50]).content
    assert lite.notes[-1].startswith("Bias correction brings the answers no nearer to Keras")


def test_what_cannot_be_is_said(model, digits):
    images = digits[0][:50]
    with pytest.raises(PruningError, match="bias_correction does not go with quantization='dynamic'"):
        convert(model, "dynamic", bias_correction=True)
    with pytest.raises(PruningError, match="'mobile' has learned its biases with the rounding"):
        convert(quantize_aware(model, images), "int8", bias_correction=True)
    with pytest.raises(PruningError, match="bias_correction runs the file sample by sample; batch_size=4 must be 1"):
        convert(model, "int8", images, batch_size=4, bias_correction=True)

    @keras.saving.register_keras_serializable("bias_correction")
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    subclassed = Subclassed()
    subclassed(np.zeros((1, 3), "float32"))
    with pytest.raises(PruningError, match="Bias correction needs a functional or Sequential model"):
        convert(subclassed, "int8", np.random.default_rng(0).random((20, 3)), bias_correction=True)


def test_from_the_command(model, digits, tmp_path, capsys):
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=digits[0][:60])
    line = ["convert", str(tmp_path / "model.keras"), "--quantization", "int8", "--data", str(tmp_path / "data.npz")]
    assert cli.main([*line, "--bias_correction", "--output", str(tmp_path / "corrected.tflite")]) == 0
    expected = convert(keras.models.load_model(tmp_path / "model.keras"), "int8", digits[0][:60], bias_correction=True)
    np.testing.assert_array_equal(tfprune.LiteModel.load(tmp_path / "corrected.tflite")(digits[0]), expected(digits[0]))
