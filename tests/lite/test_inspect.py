"""What is read from a file: operators, types, bytes, and zeros counted exactly, dense and sparse."""

import gzip
import json

import keras
import lite_models
import numpy as np
import pytest
from keras import layers

from tfprune.errors import ConversionError, PruningError
from tfprune.lite import LiteModel, benchmark, convert, inspect, time_operators, verify
from tfprune.lite.file import flatbuffer
from tfprune.lite.file.contents import Operator
from tfprune.model.signature import signature_of

KERNEL = np.array([[0.0, 1.0, -0.5], [0.0, 0.0, 0.25], [0.75, -0.0, 0.0], [0.0, 0.125, 0.0]], np.float32)  # 7 zeros
DATA = np.random.default_rng(0).uniform(-1, 1, (32, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def dense():
    model = keras.Sequential([keras.Input((4,), name="values"), layers.Dense(3, name="dense")])
    model.get_layer("dense").set_weights([KERNEL, np.array([0.0, 1.0, 2.0])])
    return model


@pytest.fixture(scope="module")
def files(dense):
    return {kind: convert(dense, kind, DATA) for kind in ("float32", "float16", "int8", "int16x8")}


@pytest.mark.parametrize("kind", ["float32", "float16", "int8", "int16x8"])
def test_zeros_are_counted_exactly(files, kind):
    report = inspect(files[kind])
    (kernel,) = report.weights
    assert kernel.shape == (3, 4)
    assert kernel.zeros == 7
    assert kernel.sparsity == 7 / 12
    assert report.zeros == 7
    assert report.sparsity == 7 / 12
    width = {"float32": 4, "float16": 2}.get(kind, 1)
    assert kernel.size == 12 * width
    assert report.weight_dtypes == {{"float32": "float32", "float16": "float16"}.get(kind, "int8"): 12 * width}


def test_a_zero_point_that_is_not_zero_counts_as_zero(files):
    from tfprune.lite.file import flatbuffer

    model = flatbuffer.read_model(files["int8"].content)
    tensor = next(t for t in model.subgraphs[0].tensors if flatbuffer.shape_of(t) == (3, 4))
    stored = np.asarray(model.buffers[tensor.buffer].data).view(np.int8)
    points = np.array([3, -2, 5])
    model.buffers[tensor.buffer].data = (
        (stored.reshape(3, 4) // 2 + points[:, None]).astype(np.int8).view(np.uint8).reshape(-1)
    )
    tensor.quantization.zeroPoint = points
    (kernel,) = inspect(flatbuffer.write_model(model)).weights
    assert kernel.zeros == 7


def test_bytes_are_those_of_the_file(files, tmp_path):
    content = files["int8"].content
    report = inspect(files["int8"].save(tmp_path / "model.tflite"))
    assert report.size == len(content)
    assert report.gzip_size == len(gzip.compress(content, 9, mtime=0))
    assert inspect(content).to_dict() == report.to_dict() == files["int8"].inspect().to_dict()


def test_ends_have_names_types_and_scales(files):
    report = inspect(files["int8"])
    assert report.input_dtypes == {"values": "int8"}
    assert report.output_dtypes == {"dense": "int8"}
    assert report.inputs[0].shape == (1, 4)
    assert report.inputs[0].scale == pytest.approx(2 / 255, rel=0.02)
    assert inspect(files["float32"]).inputs[0].scale is None


def test_operators_are_counted_with_those_in_float(files):
    assert inspect(files["int8"]).ops == {"FULLY_CONNECTED": 1}
    assert inspect(files["int8"]).float_ops == {}
    assert inspect(files["float32"]).float_ops == {"FULLY_CONNECTED": 1}
    assert [kind for kind in files if inspect(files[kind]).quantization == kind] == list(files)


def test_a_change_of_representation_is_no_computation():
    assert not Operator("QUANTIZE", ("x",), ("float32",), ("int8",)).is_float
    assert Operator("CUSTOM FlexErf", ("x",), ("float32",), ("float32",)).is_float


def test_operators_inside_loops_are_seen():
    report = convert(lite_models.recurrent()).inspect()
    assert report.ops["WHILE"] == 1
    assert report.ops["LOGISTIC"] == 3
    assert report.zeros > 0


@pytest.mark.parametrize("make", [lite_models.convolutional, lite_models.two_inputs], ids=["convolutions", "dense"])
def test_sparsely_encoded_weights_are_read_entry_by_entry(make):
    model = make()
    dense, sparse = convert(model), convert(model, sparse=True)
    encodings = {constant.encoding for constant in sparse.inspect().weights}
    assert "sparse" in encodings
    zeros = [sorted(constant.zeros for constant in lite.inspect().weights) for lite in (dense, sparse)]
    assert zeros[0] == zeros[1]
    data = lite_models.samples_for(signature_of(model).inputs, 4)
    assert all(weight.kept == weight.zeros for weight in verify(model, sparse, data).weights)


def test_blocks_of_a_sparse_encoding_are_put_back_in_their_places():
    kernel = np.zeros((32, 32), np.float32)
    kernel[4:8, ::4] = np.arange(1, 33).reshape(4, 8)
    kernel[20:24, 1::8] = 5
    model = keras.Sequential([keras.Input((32,)), layers.Dense(32, use_bias=False)])
    model.set_weights([kernel])
    lite = convert(model, sparse=True)
    (constant,) = lite.inspect().weights
    assert constant.encoding == "sparse"
    assert constant.zeros == np.count_nonzero(kernel == 0)
    np.testing.assert_allclose(lite(np.eye(32)), kernel, atol=1e-6)


def test_the_report_prints_and_is_written_in_every_form(files, tmp_path):
    report = inspect(files["int8"])
    text = str(report)
    for piece in ("58.3%", "3x4", "1 FULLY_CONNECTED", "floating point: none", "'values' 1x4 int8"):
        assert piece in text
    loaded = json.loads(report.to_json(tmp_path / "report.json"))
    assert loaded["totals"]["zeros"] == 7
    assert loaded["float_ops"] == {}
    assert report.to_markdown().startswith("| constant |")
    assert report.plot(tmp_path / "report.png") is not None


def test_a_custom_operator_is_listed_and_said_where_the_file_shall_run(files):
    model = flatbuffer.read_model(files["float32"].content)
    for code in model.operatorCodes:
        if flatbuffer.schema().BuiltinOperator.FULLY_CONNECTED in (code.builtinCode, code.deprecatedBuiltinCode):
            code.builtinCode = code.deprecatedBuiltinCode = flatbuffer.schema().BuiltinOperator.CUSTOM
            code.customCode = b"MyOperator"
    lite = LiteModel(flatbuffer.write_model(model))
    assert lite.inspect().ops["CUSTOM MyOperator"] >= 1
    shape = (1, *lite.inputs[0].shape[1:])
    for run in (lambda: lite(np.zeros(shape)), lambda: benchmark({"lite": lite}), lambda: time_operators(lite)):
        with pytest.raises(
            ConversionError, match="holds the custom operator 'MyOperator', which this interpreter does not"
        ):
            run()


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "a.keras").write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(PruningError, match="a.keras' is not a .tflite model: it looks like a .keras file"):
        inspect(tmp_path / "a.keras")
    with pytest.raises(PruningError, match="b.tflite' is not a file"):
        inspect(tmp_path / "b.tflite")
    with pytest.raises(PruningError, match="Cannot read a .tflite model from list"):
        inspect([1, 2])


def test_a_truncated_file_is_refused(files):
    content = files["int8"].content
    with pytest.raises(PruningError, match="of .* bytes is truncated or damaged"):
        inspect(content[:200])
