"""Which kernel will run each layer of a model with zeros, and what it asks for: told before anything is trained."""

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import keras
import numpy as np

from tfprune.deciding import patterns
from tfprune.deciding.amounts import is_number
from tfprune.deciding.methods import Percentile
from tfprune.deciding.schedules import Schedule
from tfprune.errors import PruningError
from tfprune.lite.file.kernels import POINTWISE, Kernel, kernels_for
from tfprune.lite.sparse.cluster import Cluster, find_cluster
from tfprune.lite.sparse.rewriting import rewritten
from tfprune.model.graph import Call, flow, require_graph
from tfprune.model.layers import layer_macs
from tfprune.model.tree import check_model
from tfprune.report import Column, Panel, Report, draw_bars, saved

SMALL = 0.02  # share of a model's multiply-accumulates below which a layer is not worth its zeros
USUAL = 0.9  # the share of zeros for which gains are shown


@dataclass(frozen=True)
class LayerPlan:
    """One layer with a kernel, and the sparse kernel that will run it.

    Args:
        layer: Its path in the model.
        kind: Its class.
        macs: Its multiply-accumulates for one sample.
        kernel: The sparse kernel; None where zeros cannot make it faster.
        rows: Rows of inputs that it multiplies at once.
        reason: Why zeros cannot make it faster, and what would; empty where they can.
    """

    layer: str
    kind: str
    macs: int
    kernel: Kernel | None
    rows: int = 1
    reason: str = ""

    def milliseconds_share(self, amount: float) -> float:
        """The layer's time at a share of zeros over its dense time, as predicted."""
        return 1.0 / self.kernel.gain(amount, self.rows) if self.kernel is not None else 1.0


@dataclass(frozen=True, repr=False)
class SparsePlan(Report):
    """Per layer: the kernel that will run it with zeros, their pattern and share, the gain, or what stands in the way.

    Args:
        source: The model.
        runtime: `"litert"`, `"web"`, `"arm"` or `"micro"`.
        quantization: `"float32"` or `"int8"`.
        layers: In the order of the model.
        cluster: What of the model XNNPACK can run with the channels first; None for runtimes that cannot.
    """

    title: ClassVar[str] = "Where zeros make the model faster"
    columns: ClassVar[Sequence[Column]] = (
        Column("layer", "layer"),
        Column("kind", "kind"),
        Column("macs", "MACs", ",d"),
        Column("kernel", "kernel"),
        Column("pattern", "pattern"),
        Column("share_needed", "zeros needed", ".0%"),
        Column("gain", f"gain at {USUAL:.0%}", ".1f"),
        Column("reason", "why not"),
    )

    source: keras.Model
    runtime: str
    quantization: str
    layers: tuple[LayerPlan, ...]
    cluster: Cluster | None = field(default=None)

    @property
    def prunable(self) -> list[LayerPlan]:
        """The layers that zeros make faster."""
        return [found for found in self.layers if found.kernel is not None]

    @property
    def kernel(self) -> Kernel | None:
        """The sparse kernel that runs most of the multiply-accumulates; None where there is none."""
        macs: dict[Kernel, int] = {}
        for found in self.prunable:
            if found.kernel is not None:
                macs[found.kernel] = macs.get(found.kernel, 0) + found.macs
        return max(macs, key=lambda kernel: macs[kernel], default=None)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws where the multiply-accumulates are, by the sparse kernel that will run them, and why none will."""
        rows = self.rows()
        kernels = dict.fromkeys(row["kernel"] for row in rows)
        parts = {each or "no sparse kernel": [row["macs"] if row["kernel"] == each else None for row in rows]
                 for each in kernels}  # fmt: skip
        panels = [Panel("MACs of one sample", ",d", parts)]
        if self.prunable:
            panels.append(
                Panel(f"times faster at {USUAL:.0%} zeros, predicted", ".1f", {"": [r["gain"] for r in rows]})
            )
        reasons = [row["reason"] or "" for row in rows]
        return saved(draw_bars(self.title, [row["layer"] for row in rows], panels, reasons), path)

    @functools.cached_property
    def model(self) -> keras.Model:
        """An equal model with paddings, stem and head written as the kernels need; the model itself where it fits.

        Names of layers stay, so that `method` prunes either of them.

        Raises:
            PruningError: The model written so answers something else.
        """
        if self.cluster is None or not self.cluster.needs_rewriting:
            return self.source
        return rewritten(self.source, self.cluster)

    def method(self, amount: Any, pattern: Any = None, allocation: Any = "uniform") -> Percentile:
        """What to hand to `fit` (in `PruningCallback`) or `prune`: zeros where, and as, the kernel wants them.

        Args:
            amount: The share of zeros, a number or a schedule.
            pattern: Where zeros may fall, if not just as the kernel reads them: larger blocks, such as `"8x1"` for one
                that reads `"4x1"`. Defaults to None: the kernel's own.
            allocation: How much of it falls on each layer, as in `Percentile`. Defaults to `"uniform"`; shares by layer
                that cost the same each are `tfprune.sensitivity(model, data, pattern="4x1").amounts(0.9)`.

        Raises:
            PruningError: No layer can become faster, the zeros are too few, or the kernel cannot use the pattern.
        """
        kernel = self.kernel
        if kernel is None:
            reasons = dict.fromkeys(found.reason for found in self.layers)
            raise PruningError(
                f"No layer of '{self.source.name}' becomes faster by zeros on runtime={self.runtime!r} in "
                f"{self.quantization}: {'; '.join(list(reasons)[:3])}. Remove channels instead: tfprune.plan_shrink."
            )
        chosen = [found for found in self.prunable if found.kernel is kernel]
        needed = min(found.kernel.share(found.rows) for found in chosen if found.kernel is not None)
        final = amount if is_number(amount) else amount.final if isinstance(amount, Schedule) else None
        if final is not None and final < needed and kernel.gain(final) * kernel.tolerance < 1.0:
            raise PruningError(
                f"{final:.0%} zeros are too few for the kernel '{kernel.name}': it is faster than the dense one from "
                f"{needed:.0%} on. Write plan.method({max(needed + 0.05, USUAL):.2g})."
            )
        layers = [found.layer for found in chosen]
        wanted = patterns.get(kernel.pattern if pattern is None else pattern)
        if kernel.block > 1 and (not isinstance(wanted, patterns.Block) or wanted.height % kernel.block):
            raise PruningError(
                f"pattern={pattern!r} is not what the kernel '{kernel.name}' reads: {kernel.zeros} along the inputs. "
                f"Write pattern='{kernel.pattern}', or blocks of a multiple of {kernel.block} inputs."
            )
        return Percentile(amount, pattern=wanted, allocation=allocation, layers=layers)

    def gain(self, amount: float) -> float:
        """How many times faster the whole is at this share of zeros, predicted from multiply-accumulates alone."""
        dense = sum(found.macs for found in self.layers)
        left = sum(found.macs * found.milliseconds_share(amount) for found in self.layers)
        return dense / left if left else 1.0

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "layer": found.layer,
                "kind": found.kind,
                "macs": found.macs,
                "kernel": None if found.kernel is None else found.kernel.name,
                "pattern": None if found.kernel is None else found.kernel.pattern,
                "share_needed": None if found.kernel is None else found.kernel.share(found.rows),
                "gain": None if found.kernel is None else found.kernel.gain(USUAL, found.rows),
                "reason": found.reason or None,
            }
            for found in self.layers
        ]

    def totals(self) -> dict[str, Any]:
        return {"macs": sum(found.macs for found in self.layers), "gain": self.gain(USUAL)}

    def notes(self) -> list[str]:
        macs = sum(found.macs for found in self.layers)
        usable = sum(found.macs for found in self.prunable)
        said = [
            f"runtime={self.runtime!r}, {self.quantization}: zeros make {usable / macs if macs else 0:.0%} of the "
            "multiply-accumulates faster. Gains are predicted, one thread, one sample at a time; tfprune.benchmark "
            "measures them."
        ]
        if self.cluster is not None:
            said += self.cluster.notes
        kernels = dict.fromkeys(found.kernel for found in self.prunable if found.kernel is not None)
        return [*said, *(f"{kernel.name}: {kernel.source}." for kernel in kernels)]


def plan_sparse(model: keras.Model, runtime: str = "litert", quantization: str = "float32") -> SparsePlan:
    """Tells for each layer which kernel will run it with zeros, and what that kernel asks for.

    Args:
        model: A functional or Sequential model.
        runtime: Where it shall run: `"litert"`, LiteRT on a PC; `"arm"`, LiteRT on a phone; `"web"`, LiteRT.js;
            `"micro"`, tflite-micro. Defaults to `"litert"`.
        quantization: `"float32"` or `"int8"`. Defaults to `"float32"`.

    Returns:
        A plan that prints as a table; `.model` is the model to train, `.method(amount)` how to prune it.

    Raises:
        PruningError: A runtime or quantization that is not known, or a model whose layers cannot be read.

    Example:
        ```python
        plan = tfprune.plan_sparse(model)
        pruned = tfprune.prune(plan.model, plan.method(0.9), images, reconstruct=True)
        lite = tfprune.convert(tfprune.strip_masks(pruned), sparse=True)
        ```
    """
    kernels = kernels_for(runtime, quantization)
    check_model(model, "plan_sparse")
    require_graph(model, "plan_sparse")
    cluster = find_cluster(model) if POINTWISE in kernels else None
    macs: dict[str, int] = {}
    calls: dict[str, Any] = {}
    rows: dict[str, int] = {}

    def visit(call: Call) -> list[Any]:
        layer = getattr(call.operation, "holds_masks_of", call.operation)
        inputs = [x for x in keras.tree.flatten((call.args, call.kwargs)) if isinstance(x, keras.KerasTensor)]
        count = layer_macs(layer, [x.shape for x in inputs], [x.shape for x in call.outputs]) or 0
        if count and getattr(layer, "weights", None):
            macs[call.path] = macs.get(call.path, 0) + count
            calls[call.path] = layer
            rows[call.path] = max(1, int(np.prod([size or 1 for size in inputs[0].shape[1:-1]])))
        return call.outputs

    flow(model, model.inputs, visit)
    total = sum(macs.values())
    layers = []
    for path, layer in calls.items():
        found = LayerPlan(path, type(layer).__name__, macs[path], _kernel(layer, kernels), rows[path])
        reason = _why_not(layer, found, cluster, total) if found.kernel else _no_kernel(layer, runtime, quantization)
        layers.append(replace(found, kernel=None, reason=reason) if reason else found)
    return SparsePlan(model, runtime, quantization, tuple(layers), cluster)


def _kernel(layer: Any, kernels: list[Kernel]) -> Kernel | None:
    """The kernel that takes this kind of layer in single rows or in a cluster."""
    if isinstance(layer, keras.layers.Dense):
        return next((each for each in kernels if each is not POINTWISE), None)
    pointwise = isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1)
    return POINTWISE if pointwise and POINTWISE in kernels else None


def _why_not(layer: Any, found: LayerPlan, cluster: Cluster | None, total: int) -> str:
    """What stands in the way of a kernel that takes this kind of layer; empty where nothing does."""
    kernel = found.kernel
    if kernel is None:
        return ""
    if kernel is POINTWISE:
        inside = cluster is not None and found.layer in cluster.pointwise
        return "" if inside or cluster is None else cluster.broken or "lies outside of the cluster that XNNPACK takes"
    inputs = int(layer.kernel.shape[0])
    if inputs % kernel.block:
        return f"its {inputs} inputs are no multiple of {kernel.block}, the size of the kernel's blocks"
    if found.rows > 1 and kernel.share(found.rows) > USUAL:
        return f"multiplies {found.rows} rows at once, where the dense kernel is as fast; fewer units help"
    if found.macs < SMALL * total:
        return f"does {found.macs / total:.1%} of the work, too little for its zeros to pay"
    return ""


def _no_kernel(layer: Any, runtime: str, quantization: str) -> str:
    """Why a runtime has no kernel for the zeros of a layer, and what makes it faster instead."""
    if isinstance(layer, keras.layers.EinsumDense):
        return "is multiplied in another order than Dense, where no kernel reads blocks; write it as Dense"
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return "no kernel makes use of zeros in depthwise convolutions; fewer channels help: tfprune.plan_shrink"
    what = f"{type(layer).__name__} layers in {quantization}"
    if isinstance(layer, keras.layers.Conv2D):
        if layer.kernel_size != (1, 1):
            size = "x".join(str(side) for side in layer.kernel_size)
            return f"no kernel makes use of zeros in {size} convolutions; fewer channels help: tfprune.plan_shrink"
        where = " (runtime='web' and 'arm' have one in float32)" if runtime == "litert" else ""
        what = f"1x1 convolutions in {quantization}{where}"
    return f"{runtime} has no kernel that makes use of zeros in {what}; fewer units or channels help"
