"""Figures of a file's operators for Model Explorer, which colours its graph of the file by them.

`model-explorer model.tflite --node_data_paths=zeros.json` shows them. Its package, `ai-edge-model-explorer`, is not
needed to write them. The form is that of its `node_data_builder.GraphNodeData`: values by the names of results.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfprune.errors import PruningError
from tfprune.lite.file.flatbuffer import tensor_name
from tfprune.lite.file.lite_model import LiteModel
from tfprune.lite.measure.layer_errors import LayerErrors
from tfprune.lite.measure.operator_times import OperatorTimes
from tfprune.model.files import output_path, replacing
from tfprune.report import COLOURS

FIGURES = {"zeros": "share of zeros", "error": "relative error behind it", "milliseconds": "milliseconds by itself"}
LARGEST = {"zeros": COLOURS[0], "error": COLOURS[3], "milliseconds": COLOURS[1]}  # colours; the least value is white


def node_data(
    lite: LiteModel, errors: LayerErrors | None = None, times: OperatorTimes | None = None
) -> dict[str, dict[str, Any]]:
    """The figures of each operator, by `"zeros"`, `"error"` and `"milliseconds"`.

    Args:
        lite: The file.
        errors: The error behind each layer of it. Defaults to None: none.
        times: The time of each operator of it. Defaults to None: none.

    Returns:
        What Model Explorer reads, as plain values, for those that are known.

    Example:
        ```python
        tfprune.lite.write_node_data(tfprune.lite.node_data(lite), "explorer")
        ```
    """
    graph = lite.file.subgraphs[0]
    names = [tensor_name(graph.tensors[operator.outputs[0]]) for operator in graph.operators]
    outputs = {end.name: tensor_name(graph.tensors[end.tensor]) for end in lite.outputs}
    zeros = {name: found.zeros for name, found in zip(names, lite.paths().operators) if found.zeros is not None}
    found: dict[str, Mapping[str, float]] = {"zeros": zeros}
    if errors is not None:
        found["error"] = {outputs.get(each.tensor, each.tensor): each.error for each in errors.layers}
    if times is not None:
        known = [(name, each.milliseconds) for name, each in zip(names, times.operators)]
        found["milliseconds"] = {name: value for name, value in known if value is not None}
    return {figure: _graph(figure, values) for figure, values in found.items()}


def _graph(figure: str, values: Mapping[str, float]) -> dict[str, Any]:
    stops = ((0, "#FFFFFF", "#000000"), (1, LARGEST[figure], "#FFFFFF"))
    return {
        "results": {name: {"value": value} for name, value in values.items()},
        "name": FIGURES[figure],
        "gradient": [{"stop": stop, "bgColor": colour, "textColor": words} for stop, colour, words in stops],
    }


def write_node_data(data: Mapping[str, Mapping[str, Any]], folder: str | os.PathLike[str]) -> list[Path]:
    """Writes each figure into a file of its own, as `zeros.json`, in a folder that is made when missing.

    Raises:
        PruningError: The folder cannot be made, or a file not be written.
    """
    return [write_figure(values, Path(made_folder(folder), f"{figure}.json")) for figure, values in data.items()]


def made_folder(folder: str | os.PathLike[str]) -> Path:
    """A folder, made when it is missing.

    Raises:
        PruningError: It is a file, or cannot be made.
    """
    try:
        Path(folder).mkdir(exist_ok=True)
    except OSError as error:
        raise PruningError(f"Cannot make the folder '{folder}': {error.strerror or error}.") from error
    return Path(folder)


def write_figure(values: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Writes one figure into a `.json` file."""
    target = output_path(path, (".json",))
    with replacing(target) as part:
        part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return target
