"""Running a `.tflite` file as a microcontroller would: TensorFlow Lite Micro, its arena, and the operators it lacks."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tfprune.errors import ConversionError, PruningError, require
from tfprune.lite.file.lite_model import LiteModel
from tfprune.lite.measure.benchmark import random_input
from tfprune.model.native import reason_of, silence
from tfprune.report import Column, Report

LARGEST_ARENA = 64 * 2**20
TOTAL = re.compile(r"Arena allocation total (\d+) bytes")
HEAD = re.compile(r"Arena allocation head (\d+) bytes")
TAIL = re.compile(r"Arena allocation tail (\d+) bytes")
MISSING = re.compile(r"Didn't find op for builtin opcode '(\w+)'")
CUSTOM = "from op code CUSTOM"


@dataclass(frozen=True, repr=False)
class MicroRun(Report):
    """What TensorFlow Lite Micro needs for a file, and how its answers compare with LiteRT's.

    Args:
        size: Bytes of the file, which lie in flash.
        arena: Bytes of RAM for tensors and bookkeeping, on this machine's pointers; on 32 bits a little less.
        head: Bytes of the arena for results that come and go.
        tail: Bytes of the arena that stay.
        samples: Samples that both have run.
        agreement: Share of samples with equal top-1 answers of the first output.
        largest_difference: The largest difference of any value, in steps of the output's scale where it is an integer.
        version: Of the package tflite-micro.
    """

    title: ClassVar[str] = "On a microcontroller"
    columns: ClassVar[Sequence[Column]] = (
        Column("size", "flash bytes", ",d"),
        Column("arena", "arena bytes", ",d"),
        Column("head", "come and go", ",d"),
        Column("tail", "stay", ",d"),
        Column("agreement", "agrees with LiteRT", ".2%"),
        Column("largest_difference", "largest difference", ".3g"),
    )
    plotted: ClassVar[Sequence[str]] = ("size", "arena")

    size: int
    arena: int
    head: int
    tail: int
    samples: int
    agreement: float
    largest_difference: float
    version: str

    def rows(self) -> list[dict[str, Any]]:
        return [{column.key: getattr(self, column.key) for column in self.columns}]

    def notes(self) -> list[str]:
        return [
            f"{self.samples:,} samples through tflite-micro {self.version} and LiteRT; differences in steps of the "
            "output's scale where it is an integer."
        ]


def run_micro(lite: Any, data: Any = None, samples: int = 100, reference: Any = None) -> MicroRun:
    """Runs a file in TensorFlow Lite Micro's interpreter and compares it with LiteRT.

    Needs the extra `micro` (`pip install tfprune[micro]`).

    Args:
        lite: A `LiteModel`, the path of a `.tflite` file, or its bytes; for one sample at a time.
        data: Real inputs, as `LiteModel` takes them. Defaults to None: random numbers in [0, 1).
        samples: How many of them to run, the first. Defaults to 100.
        reference: What LiteRT runs to compare with, where it cannot run the file itself, such as one of
            `store_for_micro`. Defaults to None: the file.

    Returns:
        A table: bytes of flash and of the arena, agreement with LiteRT.

    Raises:
        PruningError: The package is missing, the file takes several samples or has open lengths, or the data do not
            fit.
        ConversionError: An operator is missing there, which is named, or the file needs more memory than any has.
    """
    runtime = require(
        "tflite_micro.python.tflite_micro.runtime",
        extra="micro",
        purpose="Running a file as on a microcontroller (Linux on x86-64 only)",
    )
    lite = LiteModel.of(lite)
    if any(size is None for end in lite.inputs for size in end.shape) or any(
        end.shape[:1] != (1,) for end in lite.inputs
    ):
        raise PruningError(
            "A microcontroller runs one sample of a fixed shape at a time, and this file takes "
            f"{', '.join(f'{end.name!r} of shape {end.shape}' for end in lite.inputs)}. Convert with batch_size=1."
        )
    generator = np.random.default_rng(0)
    arrays = (
        [random_input(end, (20, *end.shape[1:]), generator) for end in lite.inputs]
        if data is None
        else [part[:samples] for part in lite.arrays(data)]
    )
    interpreter, said = _started(runtime, lite)
    count = len(arrays[0])
    answers = []
    for row in range(count):
        for index, (array, end) in enumerate(zip(arrays, lite.inputs)):
            interpreter.set_input(end.quantized(array[row : row + 1]), index)
        interpreter.invoke()
        answers.append([np.array(interpreter.get_output(index)) for index in range(len(lite.outputs))])
    compared = lite if reference is None else LiteModel.of(reference)
    expected = compared(arrays if len(arrays) > 1 else arrays[0])
    wanted = list(expected) if isinstance(expected, list) else [expected]
    given = [end.dequantized(np.concatenate(parts)) for parts, end in zip(zip(*answers), lite.outputs)]
    steps = [float(np.abs(a - b).max()) / (end.scale or 1.0) for a, b, end in zip(given, wanted, lite.outputs)]
    same = given[0].reshape(count, -1).argmax(-1) == wanted[0].reshape(count, -1).argmax(-1)
    from importlib import metadata

    return MicroRun(
        size=lite.size,
        arena=int(TOTAL.findall(said)[-1]),
        head=int(HEAD.findall(said)[-1]),
        tail=int(TAIL.findall(said)[-1]),
        samples=count,
        agreement=float(np.mean(same)),
        largest_difference=max(steps),
        version=metadata.version("tflite-micro"),
    )


def _started(runtime: Any, lite: LiteModel) -> tuple[Any, str]:
    """An interpreter with an arena that is large enough, and what it says about it."""
    spoken = None
    size = 2 * lite.size + 2**16
    while True:
        try:
            with silence() as spoken:
                interpreter = runtime.Interpreter.from_bytes(lite.content, arena_size=size)
                interpreter.print_allocations()
            return interpreter, spoken.text
        except Exception as error:  # the C++ side raises RuntimeError, and prints the cause
            said = spoken.text if spoken is not None else ""
            missing = MISSING.findall(said)
            if CUSTOM in said:
                missing = [entry.name for entry in lite.operators if entry.name.startswith("CUSTOM")]
            if missing:
                layer = _made_by(lite, missing[0])
                raise ConversionError(
                    f"TensorFlow Lite Micro has no operator {missing[0]}{layer}. Exchange that layer, or take another "
                    "activation."
                ) from error
            if size >= LARGEST_ARENA:
                why = " ".join(said.split()) or reason_of(error)
                raise ConversionError(f"TensorFlow Lite Micro cannot start the file: {why[-300:]}") from error
            size *= 4


def _made_by(lite: LiteModel, operator: str) -> str:
    found = [entry.tensors[0] for entry in lite.operators if entry.name == operator]
    return f" (it makes '{found[0].split(';')[0]}')" if found else ""
