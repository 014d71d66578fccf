"""The way of each operator through a runtime: what is foretold is what LiteRT, LiteRT.js and tflite-micro do."""

import importlib.util
import json

import keras
import lite_models
import numpy as np
import pytest
import sparse_files
from keras import layers
from sparse_files import RIGHT

from tfprune import LiteModel, convert
from tfprune.command.cli import main
from tfprune.errors import ConversionError, PruningError
from tfprune.lite import explain, run_micro
from tfprune.lite.file.path_rules import DELEGATED
from tfprune.lite.measure import web
from tfprune.lite.measure.operator_times import single_operator
from tfprune.model.native import silence

node = pytest.mark.skipif(not web.is_present(), reason="Node or the npm package @litertjs/core is missing")


@pytest.fixture(scope="module")
def files():
    return sparse_files.table()


def inputs_of(lite):
    generator = np.random.default_rng(5)
    return [generator.normal(size=[size or 1 for size in end.shape]).astype(np.float32) for end in lite.inputs]


def wanted_of(lite):
    """The right answers, from plain kernels on dense weights; None where nothing can run the file."""
    try:
        plain = sparse_files.unpacked(lite)
        runner = plain.prepared([x.shape for x in inputs_of(lite)], xnnpack=False)
        plain.fill(runner, inputs_of(lite))
        runner.invoke()
        return plain.outputs[0].dequantized(runner.get_tensor(plain.outputs[0].tensor))
    except (ConversionError, AttributeError):
        return None


def is_right(answer, wanted):
    return wanted is not None and bool(
        np.abs(answer.reshape(wanted.shape) - wanted).max() < 0.05 * np.abs(wanted).max()
    )


def test_the_table_has_twenty_files_and_more_of_either_kind(files):
    assert len(files) >= 20
    assert {len([None for _, *told in files.values() if told[place] == RIGHT]) > 5 for place in (0, 1)} == {True}


def test_litert_does_what_is_foretold(files):
    for name, (lite, told, _) in files.items():
        try:
            with silence():
                right = is_right(lite(inputs_of(lite)), wanted_of(lite))
        except (ConversionError, RuntimeError):
            right = False
        assert right == (told == RIGHT), name
        paths = lite.paths()
        assert paths.runs == right, (name, paths.broken)
        assert ("runs this file" in str(paths)) == right


def test_what_a_page_gets_wrong_is_foretold(files):
    assert {name: lite.paths("web").runs for name, (lite, _, _) in files.items()} == {
        name: told == RIGHT for name, (_, _, told) in files.items()
    }


@node
def test_litertjs_does_what_is_foretold(files):
    feeds = {
        name: (lite, [end.quantized(x) for x, end in zip(inputs_of(lite), lite.inputs)])
        for name, (lite, _, _) in files.items()
        if name != "int8, integer ends"  # which LiteRT.js has no tensors for
    }
    found = web.run_web({name: lite for name, (lite, _) in feeds.items()}, {name: x for name, (_, x) in feeds.items()})
    for name, (lite, _) in feeds.items():
        run = found.runs[name]
        answered = not run.failure and run.outputs
        right = bool(answered and is_right(lite.outputs[0].dequantized(run.outputs[0]), wanted_of(lite)))
        assert right == (files[name][2] == RIGHT), (name, run.failure)


@pytest.mark.skipif(not importlib.util.find_spec("tflite_micro"), reason="the extra 'micro' is not installed")
def test_a_microcontroller_does_what_is_foretold(files):
    cases = [
        files[name][0] for name in ("dense", "single zeros", "dynamic, single zeros", "custom operator", "MobileNet")
    ]
    cases += [convert(lite_models.attention()), convert(sparse_files.dense_model(), "float16"), files["open batch"][0]]
    for lite in cases:
        try:
            right = run_micro(lite, samples=2).largest_difference < 1e-3
        except (ConversionError, PruningError):
            right = False
        assert lite.paths("micro").runs == right, lite.paths("micro")
    assert "stored entries for dense values" in files["blocks"][0].paths("micro").broken[0]


def test_each_operator_has_its_way_its_reason_and_its_gain(files):
    first, _, last = files["blocks"][0].paths().operators
    assert (first.path, first.zeros, last.path) == ("sparse kernel", pytest.approx(0.9, abs=0.01), "dense")
    assert first.gain > 1.5 and last.gain == 1.0 and "blocks of 1x4 are zero" in last.reason
    ways = [found.path for found in files["single zeros"][0].paths().operators]
    assert ways == ["densified at load", "densified at load", "densified at load", "densified at load", "dense"]
    net = files["MobileNet"][0]
    assert {found.path for found in net.paths("web").operators if found.macs == 55296 / 3 * 3} <= {
        "dense",
        "sparse kernel",
    }
    sparse = [found for found in net.paths("web").operators if found.path == "sparse kernel"]
    assert len(sparse) == 3 and all(found.operator == "CONV_2D" and found.gain > 1.5 for found in sparse)
    assert all(found.path != "sparse kernel" for found in net.paths("litert").operators)
    assert net.paths("web").gain > 1.0 == net.paths("litert").gain
    inside = [
        found for found in files["squeeze and excitation"][0].paths("web").operators if found.path == "sparse kernel"
    ]
    assert len(inside) == 4
    report = json.loads(net.paths("web").to_json())
    assert [row["path"] for row in report["rows"]].count("sparse kernel") == 3 and report["totals"]["macs"] > 0


def test_what_would_help_is_told(files):
    stored = convert(sparse_files.zeroed(sparse_files.dense_model(), 4))
    assert "convert(..., sparse=True) stores them so" in stored.paths().operators[0].reason
    half = convert(sparse_files.zeroed(sparse_files.dense_model(), 4, share=0.5))
    assert "50% of its blocks of 1x4 are zero; a kernel is faster from 82% on" in half.paths().operators[0].reason
    odd = convert(keras.Sequential([keras.Input((7,)), layers.Dense(4)]))
    assert "no multiple of 4" in odd.paths().operators[0].reason
    unstored = convert(sparse_files.mobile("sides", zeros=0.8)).paths("arm").operators
    assert any("XNNPACK does not look for any" in found.reason for found in unstored)
    few = sparse_files.stored(convert(sparse_files.mobile("sides", zeros=0.5))).paths("web").operators
    assert any("% of the cluster's weights are zero, and XNNPACK skips them from 67% on" in x.reason for x in few)
    same = sparse_files.stored(convert(sparse_files.mobile("same", zeros=0.8))).paths("web").operators
    assert any("XNNPACK keeps the channels last because of" in found.reason for found in same)


def test_what_xnnpack_takes_is_what_it_is_said_to_take(files):
    seen = set()
    for lite in (
        files["dense"][0],
        files["MobileNet"][0],
        convert(lite_models.attention()),
        convert(lite_models.embedding()),
    ):
        for operator in lite.file.subgraphs[0].operators:
            name = lite.operators[list(lite.file.subgraphs[0].operators).index(operator)].name
            alone = LiteModel.written(single_operator(lite.file, operator))
            if name in seen or any(end.dtype != "float32" for end in (*alone.inputs, *alone.outputs)):
                continue
            seen.add(name)
            runner = alone.prepared()
            taken = any("DELEGATE" in each["op_name"].upper() for each in runner._get_ops_details())
            assert taken == (name in DELEGATED) or name == "DENSIFY", name
    assert len(seen) > 8


class TestWhy:
    def test_one_screen_tells_all(self, files):
        told = explain(files["blocks"][0], runs=3)
        text = str(told)
        assert len(text.splitlines()) < 40
        for begin in ("Verdict: runtime='litert' runs", "Measured:", "Zeros:", "Channels:", "Integers:"):
            assert begin in text
        assert told.milliseconds > 0 and sum(row["time"] for row in told.rows()) == pytest.approx(1.0)
        assert json.loads(told.to_json())["runs"] is True

    def test_zeros_that_would_pay_are_reckoned_with(self, files):
        assert explain(files["dense"][0], runs=3).kernel_gain > 1.3
        assert explain(files["blocks"][0], runs=3).kernel_gain < 1.5
        assert "more zeros would make nothing else faster" in str(explain(convert(lite_models.recurrent()), "micro", 2))

    def test_a_file_that_does_not_run_is_told_and_not_timed(self, files):
        text = " ".join(str(explain(files["int8, single zeros"][0])).split())
        assert "Verdict: do NOT use this file on runtime='litert'" in text and "Not measured: it does not run" in text

    def test_operators_of_unpacked_weights_are_timed_as_in_the_file(self, files):
        times = explain(files["single zeros"][0], runs=3).times
        assert [found.milliseconds is None for found in times.operators] == [True, True, False, False, False]

    def test_the_command(self, files, tmp_path, capsys):
        good, bad = files["dense"][0].save(tmp_path / "good.tflite"), tmp_path / "bad.tflite"
        files["MobileNet, 1x1 head"][0].save(bad)
        assert main(["why", str(good), "--runs", "2", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["runtime"] == "litert"
        assert main(["why", str(bad), "--runtime", "web", "--runs", "2"]) == 1
        said = capsys.readouterr()
        assert "do NOT use" in said.out and "does not run" in said.err
        bad.write_bytes(files["dense"][0].content[:900])
        assert main(["why", str(bad)]) == 1
        assert "900 bytes is truncated or damaged" in capsys.readouterr().err


def test_a_runtime_that_is_not_known(files):
    with pytest.raises(PruningError, match=r"runtime='lite' is unknown. Did you mean 'litert'\?"):
        files["dense"][0].paths("lite")


def test_an_encoding_that_is_not_known_is_inspected_without_its_zeros(files):
    lite = files["unknown encoding"][0]
    assert None in [constant.zeros for constant in lite.inspect().constants]
    assert "sparse encoding that is not known" in lite.paths().broken[0]


def test_a_custom_operator_is_named(files):
    assert "no operator 'MyOperator'" in files["custom operator"][0].paths("web").broken[0]
