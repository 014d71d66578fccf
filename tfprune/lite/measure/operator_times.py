"""Timing every operator of a `.tflite` file by itself."""

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tfprune.errors import ConversionError, PruningError
from tfprune.lite.file import flatbuffer
from tfprune.lite.file.cost import operator_macs, tensor_bytes
from tfprune.lite.file.edit import Graph
from tfprune.lite.file.flatbuffer import operator_name, tensor_name
from tfprune.lite.file.lite_model import LiteModel, invoke
from tfprune.lite.measure.benchmark import filled, interleaved
from tfprune.model.drawing import draw_pieces
from tfprune.report import Column, Report, new_figure, saved


@dataclass(frozen=True)
class OperatorTime:
    """One operator.

    Args:
        number: Its place in the order of execution.
        operator: What it does, `"CONV_2D"`.
        tensor: The name of its first result, which tells the layer.
        milliseconds: Median time of a run; None where it cannot run by itself.
        macs: Multiply-accumulates.
        weight_bytes: Bytes of its constants.
    """

    number: int
    operator: str
    tensor: str
    milliseconds: float | None
    macs: int
    weight_bytes: int


@dataclass(frozen=True, repr=False)
class OperatorTimes(Report):
    """The operators of a file with the time that each takes by itself.

    Args:
        operators: In the order of execution.
        whole: Median milliseconds of a run of the whole file, timed in the same turns.
        runs: Timed runs of each.
        threads: Threads that the kernels could use.
        xnnpack: Whether XNNPACK kernels were used where there are some.
    """

    title: ClassVar[str] = "Operators timed one by one"
    columns: ClassVar[Sequence[Column]] = (
        Column("number", "#"),
        Column("operator", "operator"),
        Column("tensor", "result"),
        Column("milliseconds", "ms", ".4f"),
        Column("share", "share", ".1%"),
        Column("macs", "MACs", ",d"),
        Column("weight_bytes", "weight bytes", ",d"),
    )

    operators: tuple[OperatorTime, ...]
    whole: float
    runs: int
    threads: int
    xnnpack: bool

    @property
    def sum(self) -> float:
        """The milliseconds of all operators together."""
        return sum(found.milliseconds or 0.0 for found in self.operators)

    def rows(self) -> list[dict[str, Any]]:
        whole = self.sum
        return [
            {
                **vars(found),
                "share": None if found.milliseconds is None or not whole else found.milliseconds / whole,
            }
            for found in self.operators
        ]

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws the time of each kind of operator, piece by piece: a piece is one operator, named where there is room.

        Args:
            path: Where to save the picture. Defaults to None: nowhere.

        Returns:
            The matplotlib figure.
        """
        kinds: dict[str, list[OperatorTime]] = {}
        for found in self.operators:
            if found.milliseconds is not None:
                kinds.setdefault(found.operator, []).append(found)
        order = sorted(kinds, key=lambda kind: -sum(found.milliseconds or 0.0 for found in kinds[kind]))
        figure = new_figure(11, 1.4 + 0.45 * len(order))
        axes = figure.subplots()
        draw_pieces(axes, {
            f"{kind} ({len(kinds[kind])})": [(found.tensor, found.milliseconds or 0.0) for found in kinds[kind]]
            for kind in order
        }, "ms")  # fmt: skip
        axes.set_xlabel(f"milliseconds of one run, each operator by itself (whole file {self.whole:.3f} ms)")
        axes.set_title(self.title)
        return saved(figure, path)

    def notes(self) -> list[str]:
        alone = [found.operator for found in self.operators if found.milliseconds is None]
        said = [
            f"Sum {self.sum:.3f} ms; the whole file takes {self.whole:.3f} ms. LiteRT's Python interpreter has no "
            "profiler, so each operator is timed as a file of its own: the start of a run counts for each of them, and "
            "what XNNPACK computes together is taken apart.",
            f"Medians of {self.runs} runs in turns; {self.threads} thread{'s' * (self.threads != 1)}; XNNPACK "
            f"{'on' if self.xnnpack else 'off'}; random inputs.",
        ]
        return [*said, f"Cannot run by itself: {', '.join(dict.fromkeys(alone))}."] if alone else said


def time_operators(model: Any, runs: int = 50, threads: int = 1, *, xnnpack: bool = True) -> OperatorTimes:
    """Times every operator of a file alone, in turns with the others and with the whole.

    Args:
        model: A `LiteModel`, the path of a `.tflite` file, or its bytes; all of its lengths must be known.
        runs: Timed runs of each, 1 or more. Defaults to 50.
        threads: Threads that the kernels may use. Defaults to 1.
        xnnpack: Whether XNNPACK kernels may be used. Defaults to True.

    Raises:
        PruningError: A length is open, a number is below 1, or the source is no `.tflite` file.
        ConversionError: LiteRT cannot run the file.
    """
    lite = LiteModel.of(model)
    for name, value in (("runs", runs), ("threads", threads)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise PruningError(f"{name}={value!r}: give a whole number of 1 or more.")
    if any(None in end.shape for end in lite.inputs):
        raise PruningError("The operators cannot be timed: a length of the inputs is open. Convert with fixed lengths.")
    flat = lite.file
    graph = flat.subgraphs[0]
    ready: dict[str, Any] = {"whole": filled(lite, threads, xnnpack)}
    for number, operator in enumerate(graph.operators):
        runner = _alone(flat, operator, threads, xnnpack, lite.isolate)
        if runner is not None:
            ready[str(number)] = runner
    for runner in ready.values():
        invoke(runner)
    times = {name: float(np.median(found)) for name, found in interleaved(ready, runs).items()}
    rows = [
        OperatorTime(
            number,
            operator_name(flat, operator),
            tensor_name(graph.tensors[operator.outputs[0]]).split(";")[0],
            times.get(str(number)),
            operator_macs(flat, graph, operator),
            sum(tensor_bytes(graph.tensors[index]) for index in _constants(flat, operator)),
        )
        for number, operator in enumerate(graph.operators)
    ]
    return OperatorTimes(tuple(rows), times["whole"], runs, threads, xnnpack)


def _constants(flat: Any, operator: Any) -> list[int]:
    tensors = flat.subgraphs[0].tensors
    used = [int(index) for index in operator.inputs if index >= 0]
    return [index for index in used if flatbuffer.stored_bytes(flat, tensors[index]) is not None]


def _alone(flat: Any, operator: Any, threads: int, xnnpack: bool, isolate: bool) -> Any:
    """An interpreter of one operator with its inputs filled in; None where it needs more of the file."""
    if _makes_constant(flat, operator):  # done once, when the file is loaded
        return None
    try:
        return filled(LiteModel.written(single_operator(flat, operator), isolate=isolate), threads, xnnpack)
    except (ConversionError, PruningError, ValueError, RuntimeError):  # loops and states refer to the rest of the file
        return None


def _makes_constant(flat: Any, operator: Any) -> bool:
    """Whether an operator only unpacks a constant."""
    unpacks = operator_name(flat, operator) in ("DENSIFY", "DEQUANTIZE")
    return unpacks and Graph(flat, flat.subgraphs[0]).is_constant(int(operator.outputs[0]))


def _unpackers(flat: Any, operator: Any) -> list[Any]:
    """The operators that unpack the constants of one, in their order."""
    makers = {int(other.outputs[0]): other for other in flat.subgraphs[0].operators}
    found = []
    for index in operator.inputs:
        maker = makers.get(int(index))
        if maker is not None and _makes_constant(flat, maker):
            found += [*_unpackers(flat, maker), maker]
    return found


def single_operator(flat: Any, operator: Any) -> Any:
    """A file with one operator of another: its constants, with what unpacks them, and its other inputs as inputs.

    Args:
        flat: The whole file as objects of the schema.
        operator: The operator of its main graph.
    """
    schema = flatbuffer.schema()
    graph = flat.subgraphs[0]
    model, alone = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, model.operatorCodes = flat.version, [schema.BufferT()], []
    numbers: dict[int, int] = {}
    alone.tensors, alone.operators = [], []
    made: set[int] = set()
    for each in (*_unpackers(flat, operator), operator):
        for index in (*each.inputs, *each.outputs):
            if index >= 0 and int(index) not in numbers:
                numbers[int(index)] = len(alone.tensors)
                alone.tensors.append(_copied(flat, graph.tensors[index], model))
        only = copy.copy(each)
        model.operatorCodes.append(flat.operatorCodes[each.opcodeIndex])
        only.opcodeIndex = len(model.operatorCodes) - 1
        only.inputs = [numbers[int(index)] if index >= 0 else -1 for index in each.inputs]
        only.outputs = [numbers[int(index)] for index in each.outputs]
        alone.operators.append(only)
        made |= {int(index) for index in each.outputs} if each is not operator else set()
    given = dict.fromkeys(int(index) for index in operator.inputs if index >= 0)
    known = {*_constants(flat, operator), *made}
    alone.inputs = [numbers[index] for index in given if index not in known]
    alone.outputs = list(alone.operators[-1].outputs)
    model.subgraphs = [alone]
    return model


def _copied(flat: Any, tensor: Any, model: Any) -> Any:
    """A tensor of one file in another, with its values where it is a constant."""
    copied, buffer = copy.copy(tensor), flatbuffer.schema().BufferT()
    buffer.data = flatbuffer.stored_bytes(flat, tensor)
    model.buffers.append(buffer)
    copied.buffer = len(model.buffers) - 1
    return copied
