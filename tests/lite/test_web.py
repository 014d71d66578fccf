"""Files in LiteRT.js: timed in Node and in Chromium, their answers compared with LiteRT's; what is missing is told."""

import json

import keras
import numpy as np
import pytest
import sparse_files
from keras import layers

import tfprune
from tfprune.errors import ConversionError, MissingPackageError, PruningError
from tfprune.lite import convert
from tfprune.lite.measure import web

node = pytest.mark.skipif(not web.is_present(), reason="Node or the npm package @litertjs/core is missing")
chromium = pytest.mark.skipif(not web.is_present(browser=True), reason="Chromium or @litertjs/core is missing")


@pytest.fixture(scope="module")
def mlp():
    return convert(sparse_files.dense_model())


@pytest.fixture(scope="module")
def mobile():
    return convert(sparse_files.mobile("sides", zeros=0.8), sparse=True)


@node
def test_times_and_answers_of_node_are_in_the_table_of_benchmark(mlp, mobile):
    report = tfprune.benchmark({"mlp": mlp, "mobile": mobile}, runs=3, warmup=1, runtime="web")
    assert [len(timing.milliseconds) for timing in report.timings] == [3, 3]
    assert all(timing.difference <= 1e-6 and min(timing.milliseconds) > 0 for timing in report.timings)
    told = " ".join(str(report).split())
    assert "off LiteRT" in told and "LiteRT.js 2." in told and "in Node " in told and "something else" not in told
    assert [row["bytes"] for row in json.loads(report.to_json())["rows"]] == [mlp.size, mobile.size]


@chromium
def test_a_real_browser_answers_alike(mobile):
    report = tfprune.benchmark({"mobile": mobile}, runs=2, warmup=0, runtime="browser")
    assert report.timings[0].difference <= 1e-6 and "in Chrom" in report.machine


@node
def test_real_data_of_several_inputs_and_integer_kernels_are_run(mlp):
    rows = np.random.default_rng(0).normal(size=(30, sparse_files.SIZE)).astype(np.float32)
    whole = convert(sparse_files.dense_model(), "int8", rows, io="float32")
    report = tfprune.benchmark({"int8": whole, "float": mlp}, runs=1, runtime="web", data=rows)
    assert report.timings[0].difference <= whole.outputs[0].scale if whole.outputs[0].scale else 0.05
    left, right = keras.Input((3,), name="left"), keras.Input((4,), name="right")
    lite = convert(keras.Model([left, right], [layers.Dense(2)(layers.Concatenate()([left, right])), left * 2.0]))
    assert tfprune.benchmark({"two": lite}, runs=1, runtime="web").timings[0].difference <= 1e-6


@node
def test_a_file_that_it_answers_wrongly_is_told():
    head = sparse_files.stored(convert(sparse_files.mobile("sides", "convolution", zeros=0.8)))
    report = tfprune.benchmark({"head": head}, runs=1, warmup=0, runtime="web")
    assert "'head' answers something else in LiteRT.js than in LiteRT" in " ".join(str(report).split())


@node
def test_a_file_that_it_cannot_run_is_named():
    with pytest.raises(ConversionError, match="LiteRT.js cannot run 'open': .*tensor type.*tfprune why --runtime web"):
        tfprune.benchmark({"open": convert(sparse_files.dense_model(), batch_size=None)}, runs=1, runtime="web")


def test_integer_ends_are_refused_with_the_way_out():
    rows = np.random.default_rng(0).normal(size=(30, sparse_files.SIZE)).astype(np.float32)
    whole = convert(sparse_files.dense_model(), "int8", rows)
    with pytest.raises((ConversionError, MissingPackageError), match=r"takes int8 inputs.*io='float32'|npm install"):
        tfprune.benchmark({"int8": whole}, runs=1, runtime="web")


@pytest.mark.parametrize(
    "options, said",
    [
        ({"runtime": "wbe"}, r"runtime='wbe' is unknown. Did you mean 'web'\?"),
        ({"runtime": "web", "threads": 2}, "runtime='web' takes one thread"),
        ({"runtime": "browser", "memory": True}, "runtime='browser' takes one thread, and neither"),
        ({"runtime": "web", "litertjs": "/nowhere"}, r"litertjs='/nowhere' does not hold .*Write: .*npm install"),
    ],
)
def test_what_cannot_be_asked_is_refused(mlp, options, said):
    with pytest.raises(PruningError, match=said):
        tfprune.benchmark({"mlp": mlp}, runs=1, **options)


def test_missing_programs_are_told_with_the_line_that_gets_them(mlp, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        MissingPackageError, match=r"needs the npm package @litertjs/core.*apt-get install -y nodejs npm"
    ):
        tfprune.benchmark({"mlp": mlp}, runs=1, runtime="web")
    core = tmp_path / "node_modules" / "@litertjs" / "core" / "dist"
    core.mkdir(parents=True)
    (core / "index.js").touch()
    (core.parents[1] / "wasm-utils").mkdir()
    with pytest.raises(MissingPackageError, match="LiteRT.js needs node, which is not on PATH. Write: apt-get install"):
        tfprune.benchmark({"mlp": mlp}, runs=1, runtime="web")
    with pytest.raises(MissingPackageError, match="in a browser needs chromium, which is not on PATH. Write: apt-get"):
        tfprune.benchmark({"mlp": mlp}, runs=1, runtime="browser")
