"""Where a converted model departs from its Keras model: the error of every layer's result, and where it comes in."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from tfprune.errors import PruningError
from tfprune.lite.convert.layer_results import LayerError, compare_layers, worst_layers
from tfprune.lite.file.lite_model import LiteModel
from tfprune.lite.quantize.representative import first_samples, single_samples
from tfprune.model.graph import require_graph
from tfprune.model.signature import matched_inputs, signature_of
from tfprune.model.tree import check_model
from tfprune.progress import Stage, stage
from tfprune.report import Column, Panel, Report, draw_bars, saved

SAMPLES = 32


@dataclass(frozen=True, repr=False)
class LayerErrors(Report):
    """The error behind every layer of a converted model.

    Args:
        layers: The layers that have a result of their own in the file, in the order of computation.
        fused: Paths of those that the converter computes together with a later one.
        samples: Samples compared.
    """

    title: ClassVar[str] = "Error behind each layer, Keras against .tflite"
    columns: ClassVar[Sequence[Column]] = (
        Column("layer", "layer"),
        Column("kind", "type"),
        Column("dtype", "result in"),
        Column("error", "relative error", ".2%"),
        Column("added", "added here", "+.2%"),
        Column("largest_difference", "largest difference", ".3g"),
    )

    layers: tuple[LayerError, ...]
    fused: tuple[str, ...]
    samples: int

    def worst(self, count: int = 3) -> list[str]:
        """The paths of the layers that add most to the error, the worst first."""
        return worst_layers(self.layers, count)

    def rows(self) -> list[dict[str, Any]]:
        return [{column.key: getattr(found, column.key) for column in self.columns} for found in self.layers]

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws how far the file is from Keras behind each layer: what comes in with its inputs, and what it adds."""
        brought = [max(found.error - max(found.added, 0.0), 0.0) for found in self.layers]
        added = [found.error - came for found, came in zip(self.layers, brought)]
        heading = "root mean square of the differences over that of Keras' values"
        panel = Panel(heading, ".2%", {"comes in with its inputs": brought, "added by the layer": added})
        return saved(draw_bars(self.title, [found.layer for found in self.layers], [panel]), path)

    def notes(self) -> list[str]:
        said = [f"{self.samples:,} sample{'s' * (self.samples != 1)}; errors are root mean squares over Keras' values."]
        if self.fused:
            said.append(f"Computed together with a later layer, or only moving values: {', '.join(self.fused)}.")
        if self.layers:
            said.append(
                f"Most is added by: {', '.join(self.worst())}. convert(..., float_layers=[...]) keeps layers in float."
            )
        return said


def layer_errors(model: keras.Model, lite: Any, data: Any, samples: int = SAMPLES) -> LayerErrors:
    """Compares what every layer gives in Keras with what the same place in the file gives, on the same data.

    The results are looked up in the file by the names that the converter makes from those of the layers, and by their
    shapes; where several fit, the nearest is taken. Runs on LiteRT's plain kernels, which alone keep all results.

    Args:
        model: The Keras model that was converted, functional or Sequential; it stays as it is.
        lite: The converted model: a `LiteModel`, the path of a `.tflite` file, or its bytes.
        data: Inputs in any form that `verify` takes.
        samples: How many of them to use, the first. Defaults to 32.

    Returns:
        A table with one row for each layer: relative error, and how much of it is added there.

    Raises:
        PruningError: The model is subclassed, or the file or the data do not fit.
        ConversionError: LiteRT cannot run the file.
    """
    check_model(model, "compare the layers of")
    require_graph(model, "The error of each layer")
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise PruningError(f"samples={samples!r}: give a whole number of 1 or more.")
    lite = LiteModel.of(lite)
    signature = signature_of(model)
    order = matched_inputs([end.name for end in lite.inputs], signature, model)
    single = single_samples(first_samples(data, signature, "layer_errors()", "data", samples))
    with stage("compare layers", total=samples) as bar:
        rows, fused, count = compare_layers(model, lite, order, _told(single, bar))
    return LayerErrors(tuple(rows), tuple(fused), count)


def _told(samples: Iterable[Any], bar: Stage) -> Iterator[Any]:
    """Samples, each told to a bar when it is done."""
    for sample in samples:
        yield sample
        bar.advance()
