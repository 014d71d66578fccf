"""The error behind each layer, and layers kept in float because of it."""

import json

import keras
import lite_models
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.errors import PruningError
from tfprune.lite import convert, inspect, layer_errors, verify
from tfprune.lite.quantize import quantize_aware


@pytest.fixture(scope="module")
def model():
    return lite_models.convolutional()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(40, 12, 12, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def mixed(model, images):
    return convert(model, "int8", images, float_layers=["separable", "hidden"], metadata={"asked": 7})


def clipping():
    """A model whose input is clipped: the converter gives what a Maximum takes the range of what it gives."""
    keras.utils.set_random_seed(0)
    values = keras.Input((8, 8, 4), name="values")
    bent = layers.Conv2D(4, 1, activation="tanh", name="conv")(values)
    return keras.Model(values, layers.Maximum(name="larger")([values, bent]), name="clipping")


def test_an_exact_file_has_no_error_behind_any_layer(model, images):
    report = layer_errors(model, convert(model), images, samples=4)
    assert report.samples == 4
    assert max(found.error for found in report.layers) < 1e-5
    assert {found.layer for found in report.layers} | set(report.fused) == {
        layer.name for layer in model.layers if not isinstance(layer, layers.InputLayer)
    }
    assert {"stem", "stem_norm"} <= set(report.fused)


def test_errors_are_those_of_a_comparison_by_hand(model, images):
    lite = convert(model, "int8", images)
    (found,) = [found for found in layer_errors(model, lite, images, samples=40).layers if found.layer == "scores"]
    runner = lite.interpreter(xnnpack=False)
    runner.allocate_tensors()
    answers = []
    for image in images:
        runner.set_tensor(lite.inputs[0].tensor, lite.inputs[0].quantized(image[None]))
        runner.invoke()
        answers.append(lite.outputs[0].dequantized(runner.get_tensor(lite.outputs[0].tensor)))
    wanted = np.asarray(model(images))
    difference = np.concatenate(answers) - wanted
    assert found.error == pytest.approx(np.sqrt(np.mean(difference**2) / np.mean(wanted**2)), rel=1e-4)
    assert found.largest_difference == pytest.approx(np.abs(difference).max(), rel=1e-4)


def test_layers_in_nested_models_are_told_apart_by_call():
    model = lite_models.nested()
    data = np.random.default_rng(0).normal(size=(3, 12, 12, 3)).astype(np.float32)
    report = layer_errors(model, convert(model), data)
    names = [found.layer for found in report.layers if found.layer.startswith("backbone/conv")]
    assert names == [names[0], f"{names[0]} (2)"]
    assert max(found.error for found in report.layers) < 1e-5


def test_a_model_trained_in_int8_is_compared_too(model, images):
    quantized = quantize_aware(model, images)
    report = layer_errors(quantized, convert(quantized, "int8"), images, samples=8)
    assert {"add", "pool", "transposed"} <= {found.layer for found in report.layers}
    assert not any(name.endswith("_range") for name in report.fused)


def test_the_report_prints_and_names_the_worst(model, images):
    report = layer_errors(model, convert(model, "int8", images), images, samples=4)
    assert report.worst(1) == [max(report.layers, key=lambda found: found.added).layer]
    assert "Most is added by: " in str(report)
    assert json.loads(report.to_json())["rows"][0]["dtype"] == "int8"
    asked = verify(model, convert(model), images[:8], layers=True)
    assert asked.layers.samples == 8
    assert "Error behind each layer" in str(asked)
    assert asked.to_dict()["layers"]["rows"]


def test_a_layer_that_loses_much_is_warned_of_by_name():
    data = np.random.default_rng(0).normal(size=(64, 8, 8, 4)).astype(np.float32)
    with pytest.warns(
        UserWarning, match=r"'larger' of the int8 file is off by 1\d% .* most comes in at 'conv'.*float_l"
    ):
        convert(clipping(), "int8", data)


def test_layers_in_float_are_those_asked_for_between_integer_ends(model, images, mixed):
    floats = [operator for operator in inspect(mixed).operators if operator.is_float]
    assert {operator.name for operator in floats} == {"DEPTHWISE_CONV_2D", "CONV_2D", "FULLY_CONNECTED"}
    assert all(any("separable" in name or "hidden" in name for name in operator.tensors) for operator in floats)
    assert (mixed.quantization, mixed.inputs[0].dtype, mixed.outputs[0].dtype) == ("int8", "int8", "int8")
    assert (mixed.inputs[0].name, mixed.outputs[0].name) == ("image", "scores")
    report = verify(model, mixed, images)
    assert report.zeros_kept == report.zeros
    assert report.float_ops == {"DEPTHWISE_CONV_2D": 1, "CONV_2D": 1, "FULLY_CONNECTED": 1}
    whole = layer_errors(model, convert(model, "int8", images), images)
    assert error_of(layer_errors(model, mixed, images), "separable") < error_of(whole, "separable")


def error_of(report, name):
    return next(found.error for found in report.layers if found.layer == name)


def test_ends_of_layers_in_float_are_float_and_said(model, images):
    lite = convert(model, "int8", images, float_layers=["stem", "scores"])
    assert (lite.inputs[0].dtype, lite.outputs[0].dtype) == ("float32", "float32")
    assert lite.notes[1:] == (
        "The input 'image' is float32, for a layer kept in float is there.",
        "The output 'scores' is float32, for a layer kept in float is there.",
    )


def test_a_layer_that_holds_others_stands_for_all_of_them():
    data = np.random.default_rng(0).normal(size=(20, 6, 8)).astype(np.float32)
    lite = convert(lite_models.attention(), "int8", data, float_layers=["attention"])
    kinds = {operator.name: operator.is_float for operator in inspect(lite).operators}
    assert kinds["SOFTMAX"] and kinds["BATCH_MATMUL"] and not kinds["GELU"]


def test_what_a_file_was_made_of_is_kept_in_it(model, mixed, tmp_path):
    wrapped = tfprune.wrap(lite_models.single_dense(), tfprune.Percentile(0.5))
    lite = convert(wrapped)
    assert lite.origin["method"] == [repr(tfprune.Percentile(0.5))]
    loaded = tfprune.LiteModel.load(mixed.save(tmp_path / "mixed.tflite"))
    zeros = {w.path: int(np.sum(w.numpy() == 0)) for w in model.trainable_weights if len(w.shape) >= 2}
    assert loaded.origin["kernels"] == zeros
    assert (loaded.origin["zeros"], loaded.origin["model"]) == (sum(zeros.values()), "convolutional")
    assert loaded.origin["asked"] == 7
    text = " ".join(str(inspect(loaded)).split())
    assert "Made from 'convolutional' by tfprune" in text and "Noted with it: {'asked': 7}" in text
    assert inspect(loaded).to_dict()["origin"]["quantization"] == "int8"


def test_a_file_from_elsewhere_has_no_origin(model):
    from tensorflow import lite as tf_lite

    content = tf_lite.TFLiteConverter.from_keras_model(model).convert()
    assert inspect(content).origin == {}
    assert "Made from" not in str(inspect(content))


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "4:8"])
def test_n_of_m_is_seen_and_checked(pattern):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 6, 16)), layers.Conv2D(8, 3, name="conv"), layers.Flatten()])
    pruned = tfprune.prune(model, tfprune.Percentile(pattern=pattern))
    report = inspect(convert(pruned))
    assert report.breaking(pattern) == []
    keep, group = map(int, pattern.split(":"))
    (weight,) = report.weights
    found_keep, found_group = map(int, weight.pattern.split(":"))
    assert found_keep / found_group <= keep / group
    dense = inspect(convert(model))
    assert dense.weights[0].pattern is None
    assert len(dense.breaking(pattern)) == 1
    assert dense.breaking(pattern, layers=["other"]) == []


def test_layers_of_a_model_trained_in_int8_stay_in_float_with_kernels_that_are_not_rounded(model, images):
    quantized = quantize_aware(model, images)
    whole, mixed = (convert(quantized, "int8", float_layers=keep) for keep in ([], ["hidden", "scores"]))
    dtypes = {constant.name.split("/")[-2]: constant.dtype for constant in mixed.inspect().weights}
    assert {name.removesuffix("_1") for name, dtype in dtypes.items() if dtype == "float32"} == {"hidden", "scores_1"}
    assert mixed.inspect().float_ops == {"FULLY_CONNECTED": 2, "SOFTMAX": 1}
    assert [end.dtype for end in (*mixed.inputs, *mixed.outputs)] == ["int8", "int8"]
    kept = verify(quantized, mixed, images)
    assert kept.zeros_kept == kept.zeros == verify(quantized, whole, images).zeros > 0
    np.testing.assert_allclose(
        mixed(images), quantized.predict(images, verbose=0), atol=0.1
    )  # without rounding of two kernels


class TestRefusals:
    def test_an_unknown_layer(self, model, images):
        with pytest.raises(PruningError, match="'convolutional' has no layer 'hiden'. Did you mean 'hidden'"):
            convert(model, "int8", images, float_layers=["hiden"])

    def test_float_layers_of_a_float_file(self, model):
        with pytest.raises(PruningError, match="float_layers does not go with quantization='float16'"):
            convert(model, "float16", float_layers=["hidden"])

    def test_metadata_that_is_no_json(self, model):
        with pytest.raises(PruningError, match="cannot be stored: .* Give a dict of strings, numbers"):
            convert(model, metadata={"when": object()})

    def test_layers_of_a_subclassed_model(self):
        with pytest.raises(PruningError, match="The error of each layer needs a functional or Sequential model"):
            layer_errors(lite_models.subclassed(), convert(lite_models.subclassed()), np.ones((2, 5)))

    def test_no_samples(self, model):
        with pytest.raises(PruningError, match="samples=0: give a whole number of 1 or more"):
            layer_errors(model, convert(model), np.ones((2, 12, 12, 3)), samples=0)

    def test_no_pattern(self, model):
        with pytest.raises(PruningError, match="pattern='4x1' is no N:M pattern; write '2:4'"):
            inspect(convert(model)).breaking("4x1")


def test_the_metric_behind_a_layer_is_that_of_keras_going_on_from_the_files_result(model, images):
    lite = convert(model, "int8", images)
    labels = np.asarray(model(images)).argmax(axis=-1)
    report = layer_errors(model, lite, (images, labels), samples=40, metric="accuracy")
    worth = {found.layer: found.value for found in report.layers}
    assert report.dense == 1.0  # the labels are the model's own
    last = layer_errors(model, lite, images, samples=40).layers[-1]
    right = np.mean(np.asarray(lite(images)).argmax(axis=-1) == labels)
    assert last.layer == "scores" and worth["scores"] == pytest.approx(right) and last.value is None
    assert all(0.5 < value <= 1.0 for value in worth.values())
    assert "accuracy" in [column.heading for column in report.columns] and "accuracy is 100.00% in Keras" in str(report)

    def off(targets, outputs):
        return float(np.abs(outputs - np.asarray(model(images))).mean())

    images = images[:8]
    by_hand = layer_errors(model, lite, images, metric=off, mode="min")
    assert by_hand.dense == pytest.approx(0.0, abs=1e-6)
    assert all(found.value > 0 for found in by_hand.layers if found.error > 1e-3)
    float_file = layer_errors(model, convert(model), images, metric=off, mode="min")
    assert max(found.value for found in float_file.layers) < 1e-4
    with pytest.raises(PruningError, match=r"layer_errors\(\): the metric 'accuracy' needs targets"):
        layer_errors(model, lite, images, metric="accuracy")
