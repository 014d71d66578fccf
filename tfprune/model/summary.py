"""What a model holds, layer by layer: parameters, zeros, multiply-accumulates."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np

from tfprune.model.altered import has_lora, in_effect
from tfprune.model.macs import whole_layer
from tfprune.model.opened_macs import macs_of
from tfprune.model.prunable import PrunableWeight, every_weight_and_kernel
from tfprune.model.tree import as_array, check_model
from tfprune.report import Column, Panel, Report, draw_bars, saved


@dataclass(frozen=True)
class LayerSummary:
    """One layer with weights.

    Args:
        layer: Its path in the model.
        kind: Its class.
        shape: The shapes of its kernels.
        parameters: Entries of all its weights.
        kernel_entries: Entries of its kernels, and of any other weight that holds a mask.
        zeros: How many of the kernel entries are zero.
        macs: Multiply-accumulates for one sample, zeros included; None where the graph does not tell.
    """

    layer: str
    kind: str
    shape: tuple[tuple[int, ...], ...]
    parameters: int
    kernel_entries: int
    zeros: int
    macs: int | None

    @property
    def sparsity(self) -> float | None:
        """The share of zeros among the kernel entries; None for a layer without kernels."""
        return self.zeros / self.kernel_entries if self.kernel_entries else None


class Summary(Report):
    """A model's layers with their parameters, zeros and multiply-accumulates; see `summary`."""

    title: ClassVar[str] = "Summary"
    columns: ClassVar[Sequence[Column]] = (
        Column("layer", "layer"),
        Column("kind", "kind"),
        Column("shape", "kernel shape"),
        Column("parameters", "parameters", ",d"),
        Column("zeros", "zeros", ",d"),
        Column("sparsity", "sparsity", ".2%"),
        Column("macs", "MACs", ",d"),
    )

    def __init__(self, name: str, layers: Sequence[LayerSummary], unknown: Sequence[str], lora: Sequence[str] = ()):
        self.name = name
        self.layers = list(layers)
        self.unknown = list(unknown)
        self.lora = list(lora)

    @property
    def parameters(self) -> int:
        """Entries of all weights."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def zeros(self) -> int:
        """Zeros in the kernels of all layers."""
        return sum(layer.zeros for layer in self.layers)

    @property
    def sparsity(self) -> float:
        """The share of zeros among the kernel entries of all layers."""
        entries = sum(layer.kernel_entries for layer in self.layers)
        return self.zeros / entries if entries else 0.0

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates for one sample, zeros included; None where one layer's are not known."""
        counts = [layer.macs for layer in self.layers]
        return None if None in counts else sum(count for count in counts if count is not None)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "layer": layer.layer,
                "kind": layer.kind,
                "shape": ", ".join("x".join(map(str, shape)) for shape in layer.shape) or None,
                "parameters": layer.parameters,
                "zeros": layer.zeros,
                "sparsity": layer.sparsity,
                "macs": layer.macs,
            }
            for layer in self.layers
        ]

    def totals(self) -> dict[str, Any]:
        return {"parameters": self.parameters, "zeros": self.zeros, "sparsity": self.sparsity, "macs": self.macs}

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws where the parameters are, and which of them are zero, beside where the multiply-accumulates are."""
        full = [layer.parameters - layer.zeros for layer in self.layers]
        panels = [Panel("parameters", ",d", {"not zero": full, "zero": [layer.zeros for layer in self.layers]})]
        if any(layer.macs for layer in self.layers):
            panels.append(Panel("MACs of one sample", ",d", {"": [layer.macs for layer in self.layers]}))
        return saved(draw_bars(f"Model {self.name}", [layer.layer for layer in self.layers], panels), path)

    def notes(self) -> list[str]:
        notes = [f"Model '{self.name}'. Zeros and sparsity count kernels; MACs are for one sample, zeros included."]
        if self.macs is None:
            notes.append(
                "MACs marked - need a functional or Sequential model with known sizes, or one that opens into such a "
                "graph."
            )
        if self.unknown:
            notes.append(f"MACs of layers of an unknown kind count as 0: {', '.join(self.unknown)}.")
        if self.lora:
            notes.append(f"Kernels of {', '.join(self.lora)} are counted with what LoRA adds to them.")
        return notes


def summary(model: keras.Model) -> Summary:
    """Counts the parameters, zeros and multiply-accumulates of every layer.

    Args:
        model: Any built Keras 3 model, pruned or not, wrapped or plain; only read.

    Returns:
        A report: print it, or use `.to_dict()`, `.to_json()`, `.to_markdown()`, `.plot()`, `.sparsity`, `.macs`.

    Raises:
        PruningError: The model is not built or is no Keras 3 model.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    >>> summary(model).macs
    40
    """
    check_model(model, "summarise")
    macs = macs_of(model)
    by_layer: dict[str, list[PrunableWeight]] = {}
    kinds: dict[str, str] = {}
    for weight in every_weight_and_kernel(model):
        path, layer = whole_layer(weight.place)
        by_layer.setdefault(path, []).append(weight)
        kinds[path] = type(layer).__name__
    layers = [
        _layer_summary(path, kinds[path], weights, macs.layers.get(path, 0)) for path, weights in by_layer.items()
    ]
    lora = [path for path, weights in by_layer.items() if any(has_lora(w.place.layer) for w in weights)]
    return Summary(model.name, layers, macs.unknown, lora)


def _layer_summary(path: str, kind: str, weights: list[PrunableWeight], macs: int | None) -> LayerSummary:
    kernels = [in_effect(weight) for weight in weights if weight.is_kernel]
    others = [weight for weight in weights if not weight.is_kernel]
    arrays = [*kernels, *(as_array(w.variable) for w in others if hasattr(w.variable.constraint, "mask"))]
    return LayerSummary(
        layer=path,
        kind=kind,
        shape=tuple(array.shape for array in kernels),
        parameters=sum(array.size for array in kernels) + sum(int(np.prod(weight.shape)) for weight in others),
        kernel_entries=sum(array.size for array in arrays),
        zeros=sum(array.size - int(np.count_nonzero(array)) for array in arrays),
        macs=macs,
    )
