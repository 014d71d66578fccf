"""Looking into a `.tflite` file: its operators, types, bytes, and the zeros of every weight.

Everything is read from the file itself and nothing is run, so it also works for models that this machine cannot run,
and for sparsely encoded tensors, on which the interpreter's own `get_tensor_details` can crash.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tfprune.deciding import patterns
from tfprune.errors import PruningError
from tfprune.lite.file import flatbuffer
from tfprune.lite.file.contents import (
    End,
    FileContent,
    Operator,
    StoredTensor,
    constants_of,
    ends,
    most_in_groups,
    operators_of,
    quantization_of,
    short_name,
    zero_patterns,
)
from tfprune.lite.file.metadata import read_origin
from tfprune.lite.file.soundness import read_sound_model
from tfprune.report import Column, Panel, Report, draw_bars, saved


@dataclass(frozen=True, repr=False)
class Inspection(FileContent, Report):
    """What is in a `.tflite` file.

    Args:
        operators: Every operator, in the order of execution, subgraphs one after the other.
        constants: Every constant that holds numbers, in the order of the file; index lists and shapes are left out.
        inputs: The ends that the model takes, in order.
        outputs: The ends that it gives, in order.
        content: The bytes of the file.
        quantization: `"float32"`, `"float16"`, `"dynamic"`, `"int8"` or `"int16x8"`, read from the operators.
        origin: What tfprune noted when it made the file: model, zeros of each kernel, versions; empty for others.
        zero_patterns: Where each weight of the file is zero, by its name.
    """

    title: ClassVar[str] = "Constants of the .tflite file"
    columns: ClassVar[Sequence[Column]] = (
        Column("name", "constant"),
        Column("shape", "shape"),
        Column("dtype", "dtype"),
        Column("bytes", "bytes", ",d"),
        Column("zeros", "zeros", ",d"),
        Column("sparsity", "sparsity", ".1%"),
        Column("pattern", "N:M"),
        Column("encoding", "encoding"),
    )

    operators: tuple[Operator, ...]
    constants: tuple[StoredTensor, ...]
    inputs: tuple[End, ...]
    outputs: tuple[End, ...]
    content: bytes
    quantization: str
    origin: dict[str, Any] = field(default_factory=dict)
    zero_patterns: dict[str, np.ndarray] = field(default_factory=dict)

    def breaking(self, pattern: str, layers: Sequence[str] | None = None) -> list[str]:
        """The weights that do not keep an N:M pattern along their last axis, the input channels in TFLite's layout.

        Args:
            pattern: `"2:4"`: at most 2 of every 4 entries are not zero; a shorter last group counts as filled up.
            layers: Parts of names; only weights that hold one of them are asked. Defaults to None: all kernels.

        Raises:
            PruningError: The pattern is no N:M pattern.
        """
        wanted = patterns.get(pattern)
        if not isinstance(wanted, patterns.NofM):
            raise PruningError(f"pattern={pattern!r} is no N:M pattern; write '2:4'.")
        return [
            name
            for name, zeros in self.zero_patterns.items()
            if (layers is None or any(layer in name for layer in layers))
            and most_in_groups(zeros, wanted.group) > wanted.keep
        ]

    @property
    def ops(self) -> dict[str, int]:
        """How often each operator occurs, the most frequent first."""
        return dict(Counter(operator.name for operator in self.operators).most_common())

    @property
    def float_ops(self) -> dict[str, int]:
        """The operators that compute on floating-point numbers, with their counts; empty for a full-integer model."""
        return dict(Counter(operator.name for operator in self.operators if operator.is_float).most_common())

    @property
    def flex_ops(self) -> dict[str, int]:
        """The operators that need TensorFlow itself at run time, with their counts."""
        names = (operator.name for operator in self.operators)
        return dict(Counter(name for name in names if name.startswith("CUSTOM Flex")))

    @property
    def weights(self) -> tuple[StoredTensor, ...]:
        """The constants of two axes and more: kernels and tables, no biases."""
        return tuple(constant for constant in self.constants if len(constant.shape) >= 2)

    @property
    def zeros(self) -> int:
        """Zeros in all weights together."""
        return sum(constant.zeros or 0 for constant in self.weights)

    @property
    def sparsity(self) -> float:
        """The share of zeros in all weights together; 0.0 without weights."""
        entries = sum(constant.entries for constant in self.weights if constant.zeros is not None)
        return self.zeros / entries if entries else 0.0

    @property
    def input_dtypes(self) -> dict[str, str]:
        """The type of each input by name."""
        return {end.name: end.dtype for end in self.inputs}

    @property
    def output_dtypes(self) -> dict[str, str]:
        """The type of each output by name."""
        return {end.name: end.dtype for end in self.outputs}

    @property
    def weight_dtypes(self) -> dict[str, int]:
        """How many bytes of weights are stored in each type."""
        totals: Counter[str] = Counter()
        for constant in self.weights:
            totals[constant.dtype] += constant.size
        return dict(totals.most_common())

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "name": short_name(constant.name),
                "shape": "x".join(str(size) for size in constant.shape) or "scalar",
                "dtype": constant.dtype,
                "bytes": constant.size,
                "zeros": constant.zeros,
                "sparsity": constant.sparsity,
                "pattern": constant.pattern,
                "encoding": constant.encoding,
            }
            for constant in self.constants
        ]

    def totals(self) -> dict[str, Any]:
        """The figures of all weights (constants of two axes and more)."""
        return {
            "shape": "weights",
            "bytes": sum(constant.size for constant in self.weights),
            "zeros": self.zeros,
            "sparsity": self.sparsity,
        }

    def notes(self) -> list[str]:
        return [
            f"File: {self.size:,} bytes, {self.gzip_size:,} compressed by gzip; quantization {self.quantization}.",
            "Operators: " + ", ".join(f"{count} {name}" for name, count in self.ops.items()) + ".",
            f"Computing in floating point: {', '.join(self.float_ops) or 'none'}.",
            "Inputs: " + "; ".join(_end_text(end) for end in self.inputs) + ".",
            "Outputs: " + "; ".join(_end_text(end) for end in self.outputs) + ".",
            *self._origin_notes(),
        ]

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws where the bytes of the weights are, in which type, beside the share of each that is zero."""
        rows = [row for row in self.rows() if row["bytes"]]
        types = dict.fromkeys(row["dtype"] for row in rows)
        parts = {each: [row["bytes"] if row["dtype"] == each else None for row in rows] for each in types}
        panels = [Panel("bytes", ",d", parts), Panel("zeros", ".1%", {"": [row["sparsity"] for row in rows]})]
        return saved(draw_bars(f"{self.title}: {self.size:,} bytes", [row["name"] for row in rows], panels), path)

    def _origin_notes(self) -> list[str]:
        if not self.origin:
            return []
        versions = ", ".join(f"{name} {version}" for name, version in self.origin.get("versions", {}).items())
        zeros, entries = self.origin.get("zeros", 0), self.origin.get("entries", 0)
        methods = ", ".join(self.origin.get("method", []))
        known = ("model", "quantization", "zeros", "entries", "kernels", "method", "versions")
        more = {key: value for key, value in self.origin.items() if key not in known}
        return [
            f"Made from '{self.origin.get('model')}' by {versions}; zeros in its kernels: {zeros:,} of {entries:,}"
            + (f", by {methods}." if methods else "."),
            *([f"Noted with it: {more}."] if more else []),
        ]

    def to_dict(self) -> dict[str, Any]:
        return {
            **super().to_dict(),
            "bytes": self.size,
            "gzip_bytes": self.gzip_size,
            "quantization": self.quantization,
            "ops": self.ops,
            "float_ops": self.float_ops,
            "input_dtypes": self.input_dtypes,
            "output_dtypes": self.output_dtypes,
            "origin": self.origin,
        }


def inspect(source: Any) -> Inspection:
    """Reads what a `.tflite` file holds: operators, types, bytes, zeros of every constant.

    Args:
        source: A path, the bytes of a file, or a `LiteModel`.

    Returns:
        An `Inspection`, which prints as a table.

    Raises:
        PruningError: The file is missing, truncated, or another kind of file.
    """
    content = flatbuffer.read_content(source)
    model = getattr(source, "file", None) or read_sound_model(content)  # a LiteModel has read it already
    operators = operators_of(model)
    return Inspection(
        operators=operators,
        constants=tuple(constants_of(model)),
        inputs=ends(model, "inputs"),
        outputs=ends(model, "outputs"),
        content=content,
        quantization=quantization_of(model, operators),
        origin=read_origin(model),
        zero_patterns=dict(zero_patterns(model)),
    )


def _end_text(end: End) -> str:
    shape = "x".join("?" if size is None else str(size) for size in end.shape) or "scalar"
    scale = "" if end.scale is None else f" (scale {end.scale:.6g}, zero point {end.zero_point})"
    return f"'{end.name}' {shape} {end.dtype}{scale}"
