"""Where a converted model departs from its Keras model: the error of every layer's result, and where it comes in."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import keras

from tfprune.errors import PruningError
from tfprune.lite.convert.layer_results import LayerError, compare_layers, worst_layers
from tfprune.lite.file.lite_model import LiteModel
from tfprune.lite.measure.layer_costs import cost_of_layers
from tfprune.lite.quantize.representative import checked_batches, first_samples, single_samples
from tfprune.model.graph import require_graph
from tfprune.model.metrics import Metric
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
        metric: What the results of layers are judged by too; None for nothing.
        dense: Its value in Keras.
    """

    title: ClassVar[str] = "Error behind each layer, Keras against .tflite"

    layers: tuple[LayerError, ...]
    fused: tuple[str, ...]
    samples: int
    metric: Metric | None = None
    dense: float | None = None

    @property
    def columns(self) -> Sequence[Column]:  # type: ignore[override]
        """The errors, and what each layer is worth by the metric where there is one."""
        judged = [] if self.metric is None else [Column("value", self.metric.name, _form(self.metric))]
        return (
            Column("layer", "layer"),
            Column("kind", "type"),
            Column("dtype", "result in"),
            Column("error", "relative error", ".2%"),
            Column("added", "added here", "+.2%"),
            Column("largest_difference", "largest difference", ".3g"),
            *judged,
        )

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
        if self.metric is not None and self.dense is not None:
            said.append(
                f"{self.metric.name} is {self.metric.text(self.dense)} in Keras; in a row it is what Keras makes of "
                "the file's result of this layer."
            )
        return said


def _form(metric: Metric) -> str:
    return ".2%" if metric.is_share else ".4g"


def layer_errors(
    model: keras.Model, lite: Any, data: Any, samples: int = SAMPLES, *, metric: Any = None, mode: Any = None
) -> LayerErrors:
    """Compares what every layer gives in Keras with what the same place in the file gives, on the same data.

    The results are looked up in the file by the names that the converter makes from those of the layers, and by their
    shapes; where several fit, the nearest is taken. Runs on LiteRT's plain kernels, which alone keep all results.

    Args:
        model: The Keras model that was converted, functional or Sequential; it stays as it is.
        lite: The converted model: a `LiteModel`, the path of a `.tflite` file, or its bytes.
        data: Inputs in any form that `verify` takes.
        samples: How many of them to use, the first. Defaults to 32.
        metric: What the file's result of each layer is judged by, as Keras goes on from it: as in `compress`, of
            several outputs the first. It needs data with targets, `(x, y)`, and some hundreds of samples. Runs the
            model once for every layer. Defaults to None: nothing.
        mode: `"max"` or `"min"` where the metric does not say which is better.

    Returns:
        A table with one row for each layer: relative error, how much of it is added there, and the metric.

    Raises:
        PruningError: The model is subclassed, the file or the data do not fit, or the metric cannot be computed.
        ConversionError: LiteRT cannot run the file.
    """
    check_model(model, "compare the layers of")
    require_graph(model, "The error of each layer")
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise PruningError(f"samples={samples!r}: give a whole number of 1 or more.")
    lite = LiteModel.of(lite)
    signature = signature_of(model)
    order = matched_inputs([end.name for end in lite.inputs], signature, model)
    if metric is None and mode is None:
        single = single_samples(first_samples(data, signature, "layer_errors()", "data", samples))
        with stage("compare layers", total=samples) as bar:
            rows, fused, count = compare_layers(model, lite, order, _told(single, bar))
        return LayerErrors(tuple(rows), tuple(fused), count)
    read = list(checked_batches(data, signature, "layer_errors()", "data", samples, samples))
    values: dict[str, Any] = {}
    single = single_samples([batch.inputs for batch in read])
    with stage("compare layers", total=samples) as bar:
        rows, fused, count = compare_layers(model, lite, order, _told(single, bar), values)
        judged, dense, worth = cost_of_layers(model, read, values, metric, mode)
    found = tuple(replace(row, value=worth[row.layer]) for row in rows)
    return LayerErrors(found, tuple(fused), count, judged, dense)


def _told(samples: Iterable[Any], bar: Stage) -> Iterator[Any]:
    """Samples, each told to a bar when it is done."""
    for sample in samples:
        yield sample
        bar.advance()
