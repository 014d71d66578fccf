"""What became of every layer in quantization-aware training: int8 with which range, or float for which reason."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.lite.quantize.fake_quantize import FakeQuantize
from tfprune.lite.quantize.kernel import QuantizedKernel
from tfprune.report import Column, Report


@dataclass(frozen=True)
class QuantizedLayer:
    """One layer of a quantization-aware model.

    Args:
        layer: Its name.
        kind: Its class.
        weights: How its kernel is stored; None without one.
        zeros: Share of the integer kernel that is zero; None without a kernel.
        held: Entries that a mask holds at zero; None without one.
        range: Smallest and largest value of its result; None where it shares another's or is not observed yet.
        reason: Why it computes in float; None when it computes in int8.
    """

    layer: str
    kind: str
    weights: str | None = None
    zeros: float | None = None
    held: int | None = None
    range: tuple[float, float] | None = None
    reason: str | None = None


@dataclass(frozen=True, repr=False)
class QuantizationReport(Report):
    """Every layer of a quantization-aware model, with what it computes in."""

    layers: list[QuantizedLayer] = field(default_factory=list)
    left_in_float: dict[str, str] = field(default_factory=dict)
    unobserved: list[str] = field(default_factory=list)

    title: ClassVar[str] = "Quantization"
    columns: ClassVar[tuple[Column, ...]] = (
        Column("layer", "layer"),
        Column("kind", "type"),
        Column("computes", "computes in"),
        Column("weights", "weights"),
        Column("zeros", "zeros", ".1%"),
        Column("held", "held at zero", ",d"),
        Column("low", "from", ".4g"),
        Column("high", "to", ".4g"),
    )
    plotted: ClassVar[str] = "zeros"
    coloured: ClassVar[str] = "computes"

    def rows(self) -> list[dict[str, Any]]:
        """One row for each layer."""
        return [
            {
                "layer": layer.layer,
                "kind": layer.kind,
                "computes": "int8" if layer.reason is None else "float32",
                "weights": layer.weights,
                "zeros": layer.zeros,
                "held": layer.held,
                "low": layer.range[0] if layer.range else None,
                "high": layer.range[1] if layer.range else None,
            }
            for layer in self.layers
        ]

    def notes(self) -> list[str]:
        """Layers in float with the reason, and ranges that no data has set."""
        notes = [f"In float: '{name}', {reason}." for name, reason in self.left_in_float.items()]
        if self.unobserved:
            names = ", ".join(repr(name) for name in self.unobserved)
            notes.append(f"No range yet, for no data was seen: {names}. Train the model, or calibrate it with data.")
        return notes


def quantization_report(model: keras.Model) -> QuantizationReport:
    """Lists every layer of a model that `quantize_aware` made, also after saving and loading.

    Args:
        model: The quantization-aware model.

    Returns:
        A table: layer, type, int8 or float32, weights, zeros and range, with the reasons for float below.

    Raises:
        PruningError: The model is a plain one.
    """
    quantizers = [layer for layer in model.layers if isinstance(layer, FakeQuantize)]
    if not quantizers:
        raise PruningError(f"'{model.name}' is not quantization-aware; make it so with quantize_aware(model).")
    ranges = {name: layer.range() for layer in quantizers if layer.is_observed() for name in layer.sources}
    reasons = {name: reason for layer in quantizers for name, reason in layer.float_layers.items()}
    rows = [
        _row(layer, ranges.get(layer.name), reasons.get(layer.name))
        for layer in model.layers
        if not isinstance(layer, FakeQuantize)
    ]
    unobserved = [name for layer in quantizers if not layer.is_observed() for name in layer.sources]
    return QuantizationReport(rows, reasons, list(dict.fromkeys(unobserved)))


def _row(layer: keras.Layer, limits: tuple[float, float] | None, reason: str | None) -> QuantizedLayer:
    if not isinstance(layer, QuantizedKernel):
        inner = getattr(layer, "holds_masks_of", layer)
        table = "int8" if isinstance(inner, keras.layers.Embedding) and reason is None else None
        held = sum(_dropped(mask) for mask in layer.masks.values()) if inner is not layer else None
        return QuantizedLayer(layer.name, type(inner).__name__, weights=table, held=held, range=limits, reason=reason)
    kind = type(layer.layer).__name__
    if layer.batch_norm is not None:
        kind += " + BatchNormalization"
    integers = layer.integers()
    return QuantizedLayer(
        layer.name,
        kind,
        weights=f"int{layer.weight_bits} per channel",
        zeros=float(np.mean(integers == 0)),
        held=sum(_dropped(mask) for mask in layer.masks.values()) if layer.masks else None,
        range=limits,
    )


def _dropped(mask: keras.Variable) -> int:
    return int(np.sum(~keras.ops.convert_to_numpy(mask).astype(bool)))
