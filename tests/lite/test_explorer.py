"""What Model Explorer colours a file's graph by, accepted by its own reader where that is installed."""

import json

import lite_models
import numpy as np
import pytest

import tfprune
from tfprune.command.cli import main
from tfprune.errors import PruningError
from tfprune.lite import node_data, time_operators, write_node_data


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A pruned model, its file, the folder that a report wrote, and the report."""
    folder = tmp_path_factory.mktemp("explorer")
    model = tfprune.strip_masks(tfprune.prune(lite_models.convolutional(), 0.8, verbose=0))
    images = np.random.default_rng(0).normal(size=(8, 12, 12, 3)).astype(np.float32)
    lite = tfprune.convert(model, "int8", representative_data=images)
    lite.save(folder / "model.tflite")
    report = tfprune.report(model, lite=lite, data=images, out=None, explorer=folder / "figures")
    return model, lite, folder, report


def read(made, figure):
    return json.loads((made[2] / "figures" / f"{figure}.json").read_text())


def test_zeros_errors_and_times_stand_under_the_names_of_results(made):
    _, lite, _, report = made
    zeros = {name: found["value"] for name, found in read(made, "zeros")["results"].items()}
    assert list(zeros.values()) == [found.zeros for found in lite.paths().operators if found.zeros is not None]
    errors = [found["value"] for found in read(made, "error")["results"].values()]
    assert errors == [found.error for found in report.layers.layers]
    times = read(made, "milliseconds")["results"]
    assert len(times) == len(lite.operators) and all(found["value"] > 0 for found in times.values())
    assert set(zeros) <= set(times) and set(read(made, "error")["results"]) <= set(times)


def test_what_is_not_known_is_not_written(made, tmp_path):
    lite = made[1]
    assert [path.name for path in write_node_data(node_data(lite), tmp_path / "new")] == ["zeros.json"]
    assert set(node_data(lite, times=time_operators(lite, runs=1))) == {"zeros", "milliseconds"}


def test_the_command_writes_the_zeros(made, tmp_path, capsys):
    _, lite, folder, _ = made
    path = tmp_path / "zeros.json"
    assert main(["inspect", str(folder / "model.tflite"), f"--explorer={path}"]) == 0
    assert json.loads(path.read_text()) == node_data(lite)["zeros"]
    assert main(["inspect", str(folder / "model.tflite"), "--explorer=zeros.txt"]) == 2
    assert "must end with .json" in capsys.readouterr().err


def test_wrong_use_is_told_before_any_work(made, tmp_path):
    model, lite, folder, _ = made
    with pytest.raises(PruningError, match=r"explorer='here' is about a \.tflite file; give it as lite="):
        tfprune.report(model, data="nothing", out=None, explorer="here")
    with pytest.raises(PruningError, match=r"Cannot make the folder '.*model\.tflite': File exists"):
        tfprune.report(model, lite=lite, data="nothing", out=None, explorer=folder / "model.tflite")


@pytest.mark.parametrize("figure", ["zeros", "error", "milliseconds"])
def test_model_explorer_reads_it_and_finds_every_node(made, figure):
    builder = pytest.importorskip("model_explorer.node_data_builder")
    adapter = pytest.importorskip("model_explorer.builtin_tflite_flatbuffer_adapter")
    found = read(made, figure)
    results = {name: builder.NodeDataResult(**each) for name, each in found["results"].items()}
    gradient = [builder.GradientItem(**each) for each in found["gradient"]]
    graph = builder.GraphNodeData(results=results, name=found["name"], gradient=gradient)
    assert {key: value for key, value in json.loads(graph.to_json_string()).items() if key in found} == found
    (shown,) = adapter.BuiltinTfliteFlatbufferAdapter().convert(str(made[2] / "model.tflite"), {})["graphCollections"]
    nodes = shown.graphs[0]["nodes"]
    names = [
        attribute["value"]
        for node in nodes
        for output in node["outputsMetadata"]
        for attribute in output["attrs"]
        if attribute["key"] == "tensor_name"
    ]
    assert results and set(results) <= set(names)
