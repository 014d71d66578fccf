"""Which way each operator of a file takes through a runtime, read without running it, and what its zeros bring."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tfprune.errors import PruningError, listing, nearest
from tfprune.lite.file import flatbuffer
from tfprune.lite.file.channels_first import ChannelsFirst, channels_first
from tfprune.lite.file.cost import operator_macs
from tfprune.lite.file.flatbuffer import operator_name, type_name
from tfprune.lite.file.kernels import POINTWISE, RUNTIMES
from tfprune.lite.file.path_rules import BROKEN, DELEGATED, RULES, SPARSE, Passage, gain_of, title_of
from tfprune.lite.file.sparsity import block_of
from tfprune.report import Column, Panel, Report, draw_bars, saved

WEB_TYPES = ("float32", "int32", "uint8")  # of the tensors that a page can give to LiteRT.js and take from it


@dataclass(frozen=True)
class OperatorPath:
    """The way of one operator.

    Args:
        number: Its place in the order of execution.
        operator: What it does, `"CONV_2D"`.
        tensor: The name of its first result, which tells the layer.
        macs: Multiply-accumulates.
        zeros: Share of zeros in its weights; None where it has none.
        path: `"dense"`, `"sparse kernel"`, `"densified at load"`, `"falls back"` (no optimized kernel takes it),
            `"will fail"` or `"wrong answers"`.
        gain: How many times faster its zeros make it, as predicted; None where it has no weights.
        reason: Why it takes this way, and what would make its zeros count.
    """

    number: int
    operator: str
    tensor: str
    macs: int
    zeros: float | None
    path: str
    gain: float | None
    reason: str


@dataclass(frozen=True, repr=False)
class FilePaths(Report):
    """The way of every operator of a file through a runtime.

    Args:
        runtime: `"litert"`, `"web"`, `"arm"` or `"micro"`.
        operators: In the order of execution.
        refusals: What keeps the whole file from running there, apart from its operators.
    """

    title: ClassVar[str] = "The way through the runtime"
    columns: ClassVar[Sequence[Column]] = (
        Column("number", "#"),
        Column("operator", "operator"),
        Column("tensor", "result"),
        Column("macs", "MACs", ",d"),
        Column("zeros", "zeros", ".0%"),
        Column("path", "path"),
        Column("gain", "gain", ".1f"),
        Column("reason", "why"),
    )

    runtime: str
    operators: tuple[OperatorPath, ...]
    refusals: tuple[str, ...] = ()

    @property
    def broken(self) -> list[str]:
        """What the runtime fails on or answers wrongly, in sentences; empty where it runs the file."""
        said = [f"{found.operator} '{found.tensor}': {found.path}, {found.reason}" for found in self.operators
                if found.path in BROKEN]  # fmt: skip
        return [*self.refusals, *said]

    @property
    def runs(self) -> bool:
        """Whether the runtime runs the file and answers right."""
        return not self.broken

    @property
    def gain(self) -> float:
        """How many times faster zeros make the whole, predicted from multiply-accumulates alone."""
        macs = sum(found.macs for found in self.operators)
        left = sum(found.macs / (found.gain or 1.0) for found in self.operators)
        return macs / left if left else 1.0

    def rows(self) -> list[dict[str, Any]]:
        return [{**vars(found), "reason": found.reason or None} for found in self.operators]

    def totals(self) -> dict[str, Any]:
        return {"macs": sum(found.macs for found in self.operators), "gain": self.gain}

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws where the multiply-accumulates are, by the way that they go through the runtime, and why that one."""
        ways = dict.fromkeys(found.path for found in self.operators)
        parts = {way: [found.macs if found.path == way else None for found in self.operators] for way in ways}
        labels = [f"{found.operator} {found.tensor}" for found in self.operators]
        reasons = [found.reason for found in self.operators]
        title = f"{self.title}: {self.runtime}"
        return saved(draw_bars(title, labels, [Panel("MACs of one sample", ",d", parts)], reasons), path)

    def notes(self) -> list[str]:
        if self.broken:
            return [f"runtime={self.runtime!r} does not run this file right. {said}" for said in self.broken[:5]]
        count = sum(found.path == SPARSE for found in self.operators)
        return [
            f"runtime={self.runtime!r} runs this file. {count} operator{'s' * (count != 1)} of {len(self.operators)} "
            "skip zeros. Gains are predicted; tfprune why and tfprune.benchmark measure."
        ]


def paths_of(lite: Any, runtime: str = "litert") -> FilePaths:
    """The way of every operator of a file through a runtime.

    Args:
        lite: A `LiteModel`.
        runtime: `"litert"`, `"web"`, `"arm"` or `"micro"`.

    Raises:
        PruningError: The runtime is not known.
    """
    if runtime not in RUNTIMES:
        raise PruningError(f"runtime={runtime!r} is unknown. {nearest(str(runtime), RUNTIMES)}")
    model, graph = lite.file, lite.file.subgraphs[0]
    names = [operator_name(model, operator) for operator in graph.operators]
    turned = ChannelsFirst()
    if runtime in POINTWISE.runtimes and _hints_at_zeros(model, graph):
        turned = channels_first(model, graph, [number for number, name in enumerate(names) if name in DELEGATED])
    makers = {int(operator.outputs[0]): operator for operator in graph.operators}
    found = []
    for number, (operator, name) in enumerate(zip(graph.operators, names)):
        passage = Passage(model, graph, operator, name, runtime, turned, number, makers)
        path, reason = next(verdict for verdict in (rule(passage) for rule in RULES) if verdict is not None)
        zeros = None if passage.pattern is None else float(np.mean(passage.pattern))
        found.append(
            OperatorPath(
                number,
                name,
                flatbuffer.tensor_name(graph.tensors[operator.outputs[0]]).split(";")[0],
                operator_macs(model, graph, operator),
                zeros,
                path,
                None if zeros is None else gain_of(passage, path, zeros),
                reason,
            )
        )
    return FilePaths(runtime, tuple(found), tuple(_refusals(lite, runtime)))


def _hints_at_zeros(model: Any, graph: Any) -> bool:
    """Whether any weight is stored sparsely, without which XNNPACK does not look for zeros."""
    return any(
        operator_name(model, operator) == "DENSIFY" and type_name(graph.tensors[operator.inputs[0]]) != "INT8"
        for operator in graph.operators
    )


def _refusals(lite: Any, runtime: str) -> list[str]:
    """What keeps a runtime from a whole file."""
    said = []
    tensors = [tensor for graph in lite.file.subgraphs for tensor in graph.tensors if tensor.sparsity is not None]
    unknown = [flatbuffer.tensor_name(tensor) for tensor in tensors if block_of(tensor) is None]
    if unknown:
        said.append(f"{listing(unknown)} is stored in a sparse encoding that is not known; the file cannot be loaded.")
    ends = (*lite.inputs, *lite.outputs)
    if runtime == "web":
        odd = [f"{end.name} ({end.dtype})" for end in ends if end.dtype not in WEB_TYPES]
        if odd:
            said.append(
                f"LiteRT.js takes and gives {', '.join(WEB_TYPES)} alone, and not {listing(odd)}. Convert with "
                "io='float32'."
            )
    if runtime in ("web", "micro") and any(None in end.shape for end in ends):
        said.append(f"A length is open, and {title_of(runtime)} runs fixed shapes alone. Convert with batch_size=1.")
    return said
