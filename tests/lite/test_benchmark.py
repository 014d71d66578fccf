"""Timing: what is in the table, not how fast this machine is."""

import json

import keras
import lite_models
import numpy as np
import pytest
from keras import layers

from tfprune.errors import ConversionError, PruningError
from tfprune.lite import LiteModel, benchmark, convert, time_operators
from tfprune.lite.file import flatbuffer
from tfprune.lite.file.cost import cost_of
from tfprune.lite.measure.memory import process_memory
from tfprune.lite.measure.operator_times import single_operator


@pytest.fixture(scope="module")
def files():
    model = lite_models.convolutional()
    images = np.random.default_rng(0).normal(size=(16, 12, 12, 3)).astype(np.float32)
    return {"float": convert(model), "integer": convert(model, "int8", images)}


@pytest.fixture(scope="module")
def report(files):
    return benchmark(files, runs=9, warmup=2)


def test_every_model_is_run_as_often_as_asked(report):
    assert [len(timing.milliseconds) for timing in report.timings] == [9, 9]
    assert all(time > 0 for timing in report.timings for time in timing.milliseconds)


def test_rows_hold_median_spread_and_bytes(report, files):
    first, second = report.rows()
    times = report.timings[1].milliseconds
    assert second["model"] == "integer"
    assert second["quantization"] == "int8"
    assert second["median_ms"] == np.median(times)
    assert second["iqr_ms"] == np.percentile(times, 75) - np.percentile(times, 25)
    assert (second["min_ms"], second["max_ms"]) == (min(times), max(times))
    assert (second["bytes"], second["gzip_bytes"]) == (files["integer"].size, files["integer"].gzip_size)
    assert (first["time_ratio"], first["bytes_ratio"]) == (1.0, 1.0)
    assert second["time_ratio"] == second["median_ms"] / first["median_ms"]
    assert second["bytes_ratio"] == files["integer"].size / files["float"].size


def test_the_report_says_how_and_on_what_it_was_measured(report):
    text = str(report)
    for piece in ("9 runs of each, taken in turns, after 2 to warm up; 1 thread; XNNPACK on", "LiteRT ", "Python "):
        assert piece in text
    assert json.loads(report.to_json())["rows"][0]["model"] == "float"
    assert report.plot() is not None


def test_paths_and_bytes_are_taken_and_plain_kernels_too(files, tmp_path):
    path = files["float"].save(tmp_path / "model.tflite")
    report = benchmark({"path": str(path), "bytes": files["float"].content}, runs=1, threads=2, warmup=0, xnnpack=False)
    assert [row["bytes"] for row in report.rows()] == [files["float"].size] * 2
    assert "1 run of each" in str(report)
    assert "2 threads; XNNPACK off" in str(report)


def test_inputs_of_every_type_are_filled_in():
    tokens = lite_models.embedding()
    assert len(benchmark({"tokens": convert(tokens)}, runs=2, warmup=0).timings) == 1
    pair = lite_models.two_inputs()
    assert len(benchmark({"pair": convert(pair, batch_size=None)}, runs=2, warmup=0).timings) == 1


def test_inputs_of_open_length_take_their_length_from_data():
    series = keras.Input((None, 4), name="series")
    lite = convert(keras.Model(series, layers.GlobalAveragePooling1D()(layers.Conv1D(8, 3)(series))))
    with pytest.raises(
        PruningError, match="The length of 'series' is open, .* give samples of a typical length as data="
    ):
        benchmark({"lite": lite}, runs=1)
    data = np.zeros((5, 20, 4), np.float32)
    assert len(benchmark({"lite": lite}, runs=2, data=data).timings) == 1


def test_counts_of_the_file_stand_beside_the_times(report, files):
    cost = cost_of(files["integer"].file)
    row = report.rows()[1]
    assert (row["macs"], row["activation_bytes"]) == (cost.macs, cost.peak_bytes)
    assert row["microjoules"] == cost.picojoules / 1e6
    assert row["memory_bytes"] is None
    assert "ESTIMATED" in str(report) and "Horowitz" in str(report)


def test_the_memory_of_a_process_is_measured():
    large = keras.Sequential([keras.Input((2000,)), layers.Dense(4000)])
    small = keras.Sequential([keras.Input((2,)), layers.Dense(4)])
    report = benchmark({"large": convert(large), "small": convert(small)}, runs=1, warmup=0, memory=True)
    first, second = (row["memory_bytes"] for row in report.rows())
    assert first > 4 * 2000 * 4000
    assert first > second


def test_memory_that_cannot_be_measured_is_said():
    with pytest.raises(ConversionError, match="Its memory cannot be measured: "):
        process_memory(b"no model")


def test_every_operator_is_timed_by_itself(files):
    report = time_operators(files["integer"], runs=3)
    operators = files["integer"].inspect().operators
    assert [found.operator for found in report.operators] == [operator.name for operator in operators]
    assert all(found.milliseconds > 0 for found in report.operators)
    assert sum(found.macs for found in report.operators) == cost_of(files["integer"].file).macs
    assert report.whole > 0
    assert sum(row["share"] for row in report.rows()) == pytest.approx(1.0)
    assert "has no profiler" in str(report)
    assert "XNNPACK off" in str(time_operators(files["float"].content, runs=1, xnnpack=False))


@pytest.mark.parametrize("kind", ["float", "integer"])
def test_a_single_operator_computes_what_it_does_in_the_whole(files, kind):
    lite = files[kind]
    flat = flatbuffer.read_model(lite.content)
    image = np.random.default_rng(1).normal(size=(1, 12, 12, 3)).astype(np.float32)
    runner = lite.interpreter(xnnpack=False, keep_all=True)
    runner.allocate_tensors()
    runner.set_tensor(lite.inputs[0].tensor, lite.inputs[0].quantized(image))
    runner.invoke()
    for operator in flat.subgraphs[0].operators:
        alone = LiteModel.written(single_operator(flat, operator))
        single = alone.interpreter(xnnpack=False)
        single.allocate_tensors()
        constants = [
            i for i in operator.inputs if flatbuffer.stored_bytes(flat, flat.subgraphs[0].tensors[i]) is not None
        ]
        given = [i for i in dict.fromkeys(operator.inputs) if i not in constants]
        for index, end in zip(given, alone.inputs):
            single.set_tensor(end.tensor, runner.get_tensor(index))
        single.invoke()
        for index, end in zip(operator.outputs, alone.outputs):
            np.testing.assert_array_equal(single.get_tensor(end.tensor), runner.get_tensor(index))


def test_what_cannot_run_by_itself_is_said():
    lite = convert(lite_models.recurrent())
    report = time_operators(lite, runs=1)
    alone = [found.operator for found in report.operators if found.milliseconds is None]
    assert ("Cannot run by itself: " in str(report)) == bool(alone)


def test_operators_of_open_lengths_are_refused(files):
    series = keras.Input((None, 4), name="series")
    lite = convert(keras.Model(series, layers.GlobalAveragePooling1D()(layers.Conv1D(8, 3)(series))))
    with pytest.raises(PruningError, match="operators cannot be timed: a length of the inputs is open"):
        time_operators(lite)
    with pytest.raises(PruningError, match="runs=0: give a whole number of 1 or more"):
        time_operators(files["float"], runs=0)


def test_wrong_calls_are_refused(files):
    with pytest.raises(PruningError, match="takes a dict of models by name, .* and LiteModel came"):
        benchmark(files["float"])
    with pytest.raises(PruningError, match="and an empty one came"):
        benchmark({})
    with pytest.raises(PruningError, match="runs=0: give a whole number of 1 or more"):
        benchmark(files, runs=0)
    with pytest.raises(PruningError, match="threads=1.5: give a whole number of 1 or more"):
        benchmark(files, threads=1.5)
    with pytest.raises(PruningError, match="warmup=-1: give a whole number of 0 or more"):
        benchmark(files, warmup=-1)
    with pytest.raises(PruningError, match="'none.tflite' is not a file"):
        benchmark({"none": "none.tflite"})
