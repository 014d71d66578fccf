"""Timing: what is in the table, not how fast this machine is."""

import json

import keras
import lite_models
import numpy as np
import pytest
from keras import layers

from tfprune.errors import PruningError
from tfprune.lite import benchmark, convert


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
