"""Milliseconds and memory of a candidate, from tables of its layers.

Each layer that loses channels is converted to int8 and timed here at some widths, together with what follows it up to
the next such layer; a candidate is the sum over its layers, brought to the scale of the whole unpruned file.
"""

import contextlib
import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.errors import ConversionError, PruningError
from tfprune.lite.convert.convert import convert
from tfprune.lite.measure.benchmark import benchmark
from tfprune.model.fresh import fresh_layer
from tfprune.model.graph import Call, flow
from tfprune.model.layers import facts_of, is_activation, keeps_channels_apart
from tfprune.model.tree import as_array
from tfprune.search.genome import ChannelGenome, Genes, Genome

LEVELS = (0.25, 0.5, 0.75, 1.0)  # shares of the channels on each side of a layer that are timed
# Where one side alone loses channels, or each is convolved by itself, there are few combinations, and depthwise kernels
# take their time in steps of some channels.
FINE_LEVELS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
RUNS = 200
KINDS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)


@dataclass(frozen=True)
class Part:
    """A layer with a kernel, and the layers that are timed with it.

    Attributes:
        path: Its path in the model.
        layer: The layer.
        carried: What follows.
        shape: Of its input, without the samples.
        output: Of its output, likewise.
    """

    path: str
    layer: Any
    carried: tuple[Any, ...]
    shape: tuple[int, ...]
    output: tuple[int, ...]

    @property
    def axes(self) -> tuple[int, int]:
        """The axes of the kernel that count input and output channels; the same one for a depthwise layer."""
        rank = len(self.layer.kernel.shape)
        return rank - 2, rank - 2 if self.is_depthwise else rank - 1

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel is convolved by itself."""
        return facts_of(self.layer).is_depthwise

    def widths(self, shares: Mapping[tuple[str, int], float]) -> tuple[int, int]:
        """The input and output channels that are left."""
        sizes = self.layer.kernel.shape
        left = [round(sizes[axis] * shares.get((f"{self.path}/kernel", axis), 1.0)) for axis in self.axes]
        return left[0], left[1]

    def built(self, given: int, made: int) -> keras.Model:
        """The layer with so many input and output channels, alone in a model; its weights are of no account."""
        config = dict(self.layer.get_config())
        for name in ("units", "filters"):
            if name in config:
                config[name] = made
        layers = [fresh_layer(self.layer, config), *(fresh_layer(layer) for layer in self.carried)]
        return keras.Sequential([keras.Input((*self.shape[:-1], given)), *layers])


def parts_of(model: keras.Model, genome: Genome) -> list[Part]:
    """The layers with kernels, in the order of the model.

    Raises:
        PruningError: A layer that loses channels cannot be timed by itself.
    """
    if not isinstance(genome, ChannelGenome):
        raise PruningError(
            "genome='weights' leaves zeros, with which LiteRT computes like with any number: latency stays as it is. "
            "Write genome='channels' or 'layers', or another objective such as 'bytes'."
        )
    losing = {member.key for group in genome.chosen.values() for member in group.members}
    found: list[tuple[str, Any, list[Any], Any, Any]] = []
    consumers: dict[int, int] = {}
    current: dict[int, int] = {}  # tensor -> the part whose chain ends there

    def count(call: Call) -> Sequence[Any]:
        for tensor in call.node.input_tensors:
            consumers[id(tensor)] = consumers.get(id(tensor), 0) + 1
        return list(call.outputs)

    def visit(call: Call) -> Sequence[Any]:
        layer, inputs = call.operation, call.node.input_tensors
        if type(layer) in KINDS:
            shape, output = (tuple(tensor.shape[1:]) for tensor in (inputs[0], call.outputs[0]))
            if None in shape or getattr(layer, "data_format", "") == "channels_first":
                raise PruningError(f"latency: the shape that '{call.path}' works on has to be known, channels last.")
            current[id(call.outputs[0])] = len(found)
            found.append((call.path, layer, [], shape, output))
        elif _is_carried(layer) and id(inputs[0]) in current and consumers[id(inputs[0])] == 1:
            place = current[id(inputs[0])]
            found[place][2].append(layer)
            current[id(call.outputs[0])] = place
        elif not _is_carried(layer) and any(key.startswith(f"{call.path}/") for key in losing):
            raise PruningError(
                f"latency: '{call.path}' ({type(layer).__name__}) loses channels and cannot be timed by itself. Write "
                "another objective, such as 'macs', or leave it out with layers=."
            )
        return list(call.outputs)

    flow(model, list(model.inputs), count)
    flow(model, list(model.inputs), visit)
    return [Part(path, layer, tuple(carried), shape, output) for path, layer, carried, shape, output in found]


def _is_carried(layer: Any) -> bool:
    """Whether a layer is timed with the one before it: it has one input and no product of its own."""
    return keeps_channels_apart(layer) or is_activation(layer)


class LatencyTable:
    """Milliseconds of int8 files by the widths of their layers.

    Args:
        parts: The layers.
        times: Path of a layer -> (input channels, output channels) -> milliseconds.
        whole: Milliseconds of the unpruned file.
        genome: Gives the widths of a candidate.
    """

    def __init__(
        self, parts: Sequence[Part], times: Mapping[str, Mapping[tuple[int, int], float]], whole: float, genome: Genome
    ):
        self._parts, self._times, self._whole, self._genome = list(parts), times, whole, genome
        self._dense = sum(times[part.path][max(times[part.path])] for part in parts)

    @classmethod
    def measured(cls, model: keras.Model, genome: Genome, samples: Any) -> "LatencyTable":
        """A table timed on this machine, one thread.

        Args:
            model: The unpruned model.
            genome: What it may lose.
            samples: Inputs, to find the ranges of the unpruned file with.
        """
        parts = parts_of(model, genome)
        files = {"whole": convert(model, "int8", representative_data=samples)}
        generator = np.random.default_rng(0)
        for part in parts:
            for given, made in _grid(part, genome):
                data = generator.normal(size=(4, *part.shape[:-1], given)).astype("float32")
                built = part.built(given, made)
                files[f"{part.path} {given} {made}"] = convert(built, "int8", representative_data=data)
        found = {timing.name: timing.median for timing in benchmark(files, runs=RUNS).timings}
        times: dict[str, dict[tuple[int, int], float]] = {part.path: {} for part in parts}
        for name, milliseconds in found.items():
            if name != "whole":
                path, given_text, made_text = name.rsplit(" ", 2)
                times[path][int(given_text), int(made_text)] = milliseconds
        falling = {path: narrower_is_no_slower(timed) for path, timed in times.items()}
        return cls(parts, falling, found["whole"], genome)

    def __call__(self, genes: Genes) -> float:
        """Milliseconds of a candidate, estimated."""
        shares = self._genome.shares(genes)
        total = sum(_between(self._times[part.path], *part.widths(shares)) for part in self._parts)
        if self._whole >= self._dense:  # what stands between the layers takes its time in any case
            return total + self._whole - self._dense
        return total * self._whole / self._dense  # every file has some time of its own, and here are many

    def to_dict(self) -> dict[str, Any]:
        """The table as plain values."""
        times = {path: [[*widths, ms] for widths, ms in found.items()] for path, found in self._times.items()}
        return {"whole": self._whole, "times": times}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], model: keras.Model, genome: Genome) -> "LatencyTable":
        """The table that `to_dict` wrote."""
        times = {path: {(given, made): ms for given, made, ms in found} for path, found in table["times"].items()}
        return cls(parts_of(model, genome), times, table["whole"], genome)


class MemoryTable:
    """Bytes of the largest input and output of a layer together, a byte each, as int8 kernels need them at once.

    Args:
        model: The unpruned model.
        genome: Gives the widths of a candidate.
    """

    def __init__(self, model: keras.Model, genome: Genome):
        self._parts, self._genome = parts_of(model, genome), genome

    def __call__(self, genes: Genes) -> float:
        """Bytes of a candidate."""
        shares = self._genome.shares(genes)
        largest = 0
        for part in self._parts:
            given, made = part.widths(shares)
            largest = max(largest, math.prod(part.shape[:-1]) * given + math.prod(part.output[:-1]) * made)
        return float(largest)


def measured_latency(models: Mapping[int, keras.Model], samples: Any) -> dict[int, float]:
    """Milliseconds of the int8 files of whole models, by their numbers; of those that make a file that runs."""
    files = {}
    for number, model in models.items():
        # A candidate may be ruined so far that some layer gives nothing but zeros.
        with contextlib.suppress(PruningError, ConversionError), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of poor answers: the file is timed and not used
            files[str(number)] = convert(model, "int8", representative_data=samples)
    return {int(timing.name): timing.median for timing in benchmark(files, runs=RUNS).timings} if files else {}


def _grid(part: Part, genome: Genome) -> list[tuple[int, int]]:
    """The widths at which a layer is timed."""
    sizes = as_array(part.layer.kernel).shape
    dense = genome.shares(genome.dense)
    losing = {axis for axis in part.axes if (f"{part.path}/kernel", axis) in dense}
    levels = FINE_LEVELS if len(losing) == 1 else LEVELS
    sides = []
    for axis in part.axes:
        sides.append(sorted({max(1, round(level * sizes[axis])) for level in (levels if axis in losing else (1.0,))}))
    if part.is_depthwise:
        return [(width, width) for width in sides[0]]
    return list(itertools.product(*sides))


def narrower_is_no_slower(times: Mapping[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    """The times with each at most that of any wider layer.

    Where width hardly matters, noise makes narrow layers look slow now and then, and a search would follow it.
    """
    return {(given, made): min(ms for (g, m), ms in times.items() if g >= given and m >= made) for given, made in times}


def _between(times: Mapping[tuple[int, int], float], given: int, made: int) -> float:
    """The time at widths between those that were timed, by straight lines; at the ends as it is there."""
    givens = sorted({widths[0] for widths in times})
    if all(one == other for one, other in times):  # depthwise
        return float(np.interp(given, givens, [times[width, width] for width in givens]))
    mades = sorted({widths[1] for widths in times})
    rows = [float(np.interp(made, mades, [times[width, other] for other in mades])) for width in givens]
    return float(np.interp(given, givens, rows))
