"""What a compression did, step by step, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from tfprune.lite.file.lite_model import LiteModel
from tfprune.lite.measure.benchmark import Benchmark
from tfprune.report import Column, Report


@dataclass(frozen=True)
class Milestone:
    """One step on the road.

    Attributes:
        name: What was done, to what amount.
        seconds: How long it took.
        accuracy: On the validation data, after it.
        macs, parameters: Shares of the unpruned model's.
        zeros: The share of zeros among the weights of its kernels.
        outcome: What became of it.
    """

    name: str
    seconds: float
    accuracy: float
    macs: float | None
    parameters: float
    zeros: float
    outcome: str

    @property
    def figure(self) -> str:
        """What stands behind its bar, in the figures of the table."""
        return f"accuracy {self.accuracy:.2%} zeros {self.zeros:.1%}"


@dataclass(frozen=True, repr=False)
class Compression(Report):
    """What `compress` did, step by step, and what came of it.

    Attributes:
        model: The compressed Keras model, in float or with the rounding of int8 trained in; plain layers or those of
            `quantize_aware`.
        lite: Its int8 file.
        accuracy: Of the int8 file on the validation data.
        dense_accuracy: Of the unpruned Keras model.
        max_drop: The bound.
        target: What was asked for.
        steps: The steps in their order.
        timing: Files timed side by side: the unpruned one in float, then in int8, the compressed one likewise.
        macs, parameters: Shares of the unpruned model's that are left.
        notices: What else there is to say.
    """

    title: ClassVar[str] = "Compression"
    columns: ClassVar[Sequence[Column]] = (
        Column("step", "step"),
        Column("accuracy", "accuracy", ".2%"),
        Column("lost", "points lost", "+.2f"),
        Column("macs", "MACs", ".3f"),
        Column("parameters", "parameters", ".3f"),
        Column("zeros", "zeros", ".1%"),
        Column("seconds", "seconds", ".1f"),
        Column("outcome", "outcome"),
    )
    plotted: ClassVar[str] = "accuracy"

    model: keras.Model
    lite: LiteModel
    accuracy: float
    dense_accuracy: float
    max_drop: float
    target: Any
    steps: tuple[Milestone, ...]
    timing: Benchmark
    macs: float | None
    parameters: float
    notices: tuple[str, ...] = ()

    @property
    def drop(self) -> float:
        """The accuracy that was lost, as a share; negative where it was gained."""
        return self.dense_accuracy - self.accuracy

    @property
    def within_bound(self) -> bool:
        """Whether no more accuracy was lost than allowed."""
        return self.drop <= self.max_drop + 1e-9

    @property
    def meets_target(self) -> bool:
        """Whether the target is met, as measured."""
        ratios = self.ratios
        reached = {"macs": self.macs, "parameters": self.parameters}
        reached |= {"bytes": ratios["bytes"], "latency": ratios["float_latency"]}
        goal = {} if self.target == "smallest" else self.target
        return all((reached[name] or 0.0) <= share * (1 + 1e-9) for name, share in goal.items())

    @property
    def ratios(self) -> dict[str, float]:
        """The compressed network over the unpruned one, as measured.

        `bytes` and `gzip_bytes`: the int8 file over the float32 file as it is; `float_latency`: float32 file over
        float32 file; `int8_latency`: int8 file over int8 file.
        """
        dense, dense_int8, small, small_int8 = self.timing.timings
        return {
            "bytes": small_int8.size / dense.size,
            "gzip_bytes": small_int8.gzip_size / dense.size,
            "float_latency": small.median / dense.median,
            "int8_latency": small_int8.median / dense_int8.median,
        }

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "step": step.name,
                "accuracy": step.accuracy,
                "lost": 100 * (self.dense_accuracy - step.accuracy),
                "macs": step.macs,
                "parameters": step.parameters,
                "zeros": step.zeros,
                "seconds": step.seconds,
                "outcome": step.outcome,
            }
            for step in self.steps
        ]

    def notes(self) -> list[str]:
        ratios = self.ratios
        notes = [
            f"int8 file: {self.lite.size:,} bytes, {1 / ratios['bytes']:.1f} times smaller than the float file; "
            f"{self.lite.gzip_size:,} compressed, {1 / ratios['gzip_bytes']:.1f} times smaller than the float file.",
            f"Time: float file {ratios['float_latency']:.2f} of the unpruned float file, int8 file "
            f"{ratios['int8_latency']:.2f} of the unpruned int8 file.",
            f"Accuracy on the validation data: {self.dense_accuracy:.2%} unpruned, {self.accuracy:.2%} in the int8 "
            f"file; at most {100 * self.max_drop:g} points were to be lost.",
        ]
        if not self.within_bound:
            notes.append(f"THE BOUND IS BROKEN: {100 * self.drop:.2f} points are lost. No step stayed within it.")
        if not self.meets_target:
            notes.append(f"THE TARGET {self.target} IS NOT MET within the bound.")
        return [*notes, *self.notices]

    def to_dict(self) -> dict[str, Any]:
        return {
            **super().to_dict(),
            "accuracy": self.accuracy,
            "dense_accuracy": self.dense_accuracy,
            "within_bound": self.within_bound,
            "meets_target": self.meets_target,
            "ratios": self.ratios,
            "files": self.timing.to_dict(),
        }
