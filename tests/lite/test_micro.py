"""Files run as on a microcontroller: the arena, the answers, and the operators that are missing."""

import importlib
import json
import sys

import keras
import lite_models
import numpy as np
import pytest
from keras import layers

from tfprune.errors import ConversionError, PruningError
from tfprune.lite import convert, run_micro, store_for_micro
from tfprune.lite.measure.micro import _started

micro = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("tflite_micro"), reason="the extra 'micro' is not installed"
)


@pytest.fixture(scope="module")
def model():
    return lite_models.convolutional()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(30, 12, 12, 3)).astype(np.float32)


@micro
def test_answers_are_those_of_litert_and_the_arena_is_told(model, images):
    lite = convert(model, "int8", images)
    report = run_micro(lite, images, samples=20)
    assert (report.samples, report.size) == (20, lite.size)
    assert report.agreement >= 0.95
    # XNNPACK's rounding differs from the plain kernels' by a step, which later layers carry on.
    assert report.largest_difference < 10
    assert report.arena == report.head + report.tail > lite.inspect().weights[0].size
    text = " ".join(str(report).split())
    assert "20 samples through tflite-micro" in text
    assert json.loads(report.to_json())["rows"][0]["arena"] == report.arena


@micro
def test_without_data_numbers_are_made_up(model, images, tmp_path):
    path = convert(model).save(tmp_path / "model.tflite")
    assert run_micro(path).largest_difference < 1e-4


@micro
def test_a_missing_operator_is_named():
    data = np.random.default_rng(0).normal(size=(20, 6, 8)).astype(np.float32)
    with pytest.raises(ConversionError, match=r"TensorFlow Lite Micro has no operator GELU \(it makes 'attention"):
        run_micro(convert(lite_models.attention(), "int8", data))


@micro
def test_open_lengths_and_batches_are_refused(model):
    with pytest.raises(PruningError, match=r"one sample of a fixed shape .* 'image' of shape \(None, 12.*batch_size=1"):
        run_micro(convert(model, batch_size=None))
    series = keras.Input((None, 4), name="series")
    lite = convert(keras.Model(series, layers.GlobalAveragePooling1D()(layers.Conv1D(8, 3)(series))))
    with pytest.raises(PruningError, match="one sample of a fixed shape"):
        run_micro(lite)


def test_a_missing_package_is_said(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "tflite_micro.python.tflite_micro.runtime", None)
    with pytest.raises(ImportError, match=r"needs the package tflite-micro,.* Write: pip install 'tfprune\[micro\]'"):
        run_micro(b"")


@micro
@pytest.mark.parametrize("name", ["convolutional", "single_dense"])
def test_weights_without_their_zeros_answer_alike_to_the_last_bit_and_are_smaller_in_flash(name):
    model = getattr(lite_models, name)()
    data = np.random.default_rng(0).normal(size=(30, *model.input_shape[1:])).astype(np.float32)
    lite = convert(model, "int8", data)
    small = store_for_micro(lite)
    assert (
        small.size < lite.size or name == "single_dense"
    )  # of which the operator's names take more than 60 zeros save
    whole, left = run_micro(lite, data, samples=5), run_micro(small, data, samples=5, reference=lite)
    assert (left.agreement, left.largest_difference) == (whole.agreement, whole.largest_difference)
    answers = []
    for file in (lite, small):
        runner, _ = _started(importlib.import_module("tflite_micro.python.tflite_micro.runtime"), file)
        runner.set_input(lite.inputs[0].quantized(data[:1]), 0)
        runner.invoke()
        answers.append(np.array(runner.get_output(0)))
    np.testing.assert_array_equal(*answers)
    assert small.paths("micro").runs and not small.paths("litert").runs
    assert "without their zeros" in small.notes[-1] and left.arena >= whole.arena


def test_files_without_zeros_to_leave_out_are_refused():
    with pytest.raises(
        PruningError, match="No weight of this file becomes smaller.*quantization='int8' and sparse=False"
    ):
        store_for_micro(convert(lite_models.single_dense()))
