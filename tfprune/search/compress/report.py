"""What a compression did, step by step, and what came of it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import keras

from tfprune.errors import in_plot
from tfprune.lite.file.lite_model import LiteModel
from tfprune.lite.measure.benchmark import Benchmark
from tfprune.lite.measure.comparison import OutputComparison
from tfprune.lite.measure.robustness import robustness_note
from tfprune.model.bounds import SLACK, Bounds
from tfprune.model.drawing import as_shares, draw_path
from tfprune.model.metrics import Metric
from tfprune.model.noise import ERRORS
from tfprune.report import COLOURS, Column, Report, new_figure, saved, shortened

WHERE = {"web_latency": "Time of the float file in LiteRT.js", "arena": "RAM of the int8 file on a microcontroller"}


@dataclass(frozen=True)
class Milestone:
    """One step on the road.

    Attributes:
        name: What was done, to what amount.
        seconds: How long it took.
        accuracy: On the validation data, after it; the value of the first metric where it is another.
        macs, parameters: Shares of the unpruned model's.
        zeros: The share of zeros among the weights of its kernels.
        outcome: What became of it.
        values: What it is worth by each metric; empty where there is the one.
    """

    name: str
    seconds: float
    accuracy: float
    macs: float | None
    parameters: float
    zeros: float
    outcome: str
    values: Sequence[float] = ()

    @property
    def kept(self) -> bool:
        """Whether it is within the bound and was not taken back."""
        return is_kept(self.outcome)


def is_kept(outcome: str) -> bool:
    """Whether what became of a step is that it is within the bound and was not taken back."""
    return not outcome.startswith("beyond") and not outcome.endswith("taken back")


@dataclass(frozen=True, repr=False)
class Compression(Report):
    """What `compress` did, step by step, and what came of it.

    Attributes:
        model: The compressed Keras model, in float or with the rounding of int8 trained in; plain layers or those of
            `quantize_aware`.
        lite: Its int8 file, or one with weights of int8 alone; `kind` says which.
        accuracy: Of the int8 file on the validation data; the value of the first metric where it is another.
        dense_accuracy: Of the unpruned Keras model, likewise.
        max_drop: The bound.
        target: What was asked for.
        steps: The steps in their order.
        timing: Files timed side by side: the unpruned one in float, then in int8, the compressed one likewise.
        macs, parameters: Shares of the unpruned model's that are left.
        reached: What the target counts, where it is measured for it alone.
        kind: `"int8"`, or `"dynamic"` for weights of int8 alone.
        notices: What else there is to say.
        bounds: The metrics, the unpruned model's values, and how much worse each may become.
        values: Of the int8 file, by each metric.
        standard_errors: Of how much worse each metric became, since other samples would have given another loss; None
            where it cannot be told.
        samples: How many validation samples there are.
        outputs: How the int8 file compares with the unpruned model on the validation data, output by output.
        robustness: `"noise"`, `"blur"`, `"brightness"` -> accuracy of the unpruned model and of the int8 file on
            validation images disturbed so; empty for other inputs and where nothing is decided.
    """

    title: ClassVar[str] = "Compression"

    model: keras.Model
    lite: LiteModel
    accuracy: float
    dense_accuracy: float
    max_drop: float | str | Mapping[str, float | str]
    target: Any
    steps: tuple[Milestone, ...]
    timing: Benchmark
    macs: float | None
    parameters: float
    reached: Mapping[str, float] = field(default_factory=dict)
    kind: str = "int8"
    notices: tuple[str, ...] = ()
    bounds: Bounds = field(kw_only=True)
    values: tuple[float, ...] = field(kw_only=True)
    standard_errors: tuple[float | None, ...] = field(kw_only=True)
    samples: int = field(kw_only=True)
    outputs: tuple[OutputComparison, ...] = ()
    robustness: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def columns(self) -> Sequence[Column]:  # type: ignore[override]
        """A column for each metric, and what each step left of the model."""
        several = len(self.bounds.metrics) > 1
        columns = [Column("step", "step")]
        for number, metric in enumerate(self.bounds.metrics):
            key = "accuracy" if number == 0 else metric.name
            columns.append(Column(key, metric.name, ".2%" if metric.is_share else ".4g"))
            if not several:
                columns.append(Column("lost", *(("points lost", "+.2f") if metric.is_share else ("worse by", "+.3g"))))
        return [
            *columns,
            Column("macs", "MACs", ".3f"),
            Column("parameters", "parameters", ".3f"),
            Column("zeros", "zeros", ".1%"),
            Column("seconds", "seconds", ".1f"),
            Column("outcome", "outcome"),
        ]

    @property
    def drop(self) -> float:
        """How much worse the first metric became; of accuracy as a share, negative where it was gained."""
        return self.bounds.worse(self.values)[0]

    @property
    def within_bound(self) -> bool:
        """Whether no metric became worse than allowed."""
        return self.bounds.hold(self.values)

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Name of a metric -> its unpruned value, that of the int8 file, how much worse it may be, the rest."""
        parts = zip(
            self.bounds.metrics, self.bounds.dense, self.values, self.bounds.allowed, self.standard_errors, strict=True
        )
        return {
            metric.name: {
                "dense": dense, "value": value, "allowed": allowed, "mode": metric.mode, "standard_error": error,
            }
            for metric, dense, value, allowed, error in parts
        }  # fmt: skip

    @property
    def broken(self) -> list[str]:
        """The bounds that are broken, a sentence for each."""
        said = []
        rows = zip(self.bounds.metrics, self.bounds.worse(self.values), self.bounds.allowed)
        for metric, worse, allowed in rows:
            if not worse <= allowed + SLACK:
                lost = f"{100 * worse:.2f} points" if metric.is_share else f"{worse:.4g}"
                bound = f"{100 * allowed:g}" if metric.is_share else f"{allowed:.4g}"
                said.append(f"{lost} of {metric.name} are lost, more than the {bound} allowed")
        return said

    @property
    def doubtful(self) -> list[str]:
        """The metrics whose bound is kept, but lies within two standard errors of what was lost."""
        rows = zip(self.bounds.metrics, self.bounds.worse(self.values), self.bounds.allowed, self.standard_errors)
        return [
            metric.name
            for metric, worse, allowed, error in rows
            if error and worse <= allowed + SLACK < worse + ERRORS * error
        ]

    @property
    def meets_target(self) -> bool:
        """Whether the target is met, as measured."""
        costs, goal = self.costs, {} if self.target == "smallest" else self.target
        return all((costs[name] or 0.0) <= share * (1 + 1e-9) for name, share in goal.items())

    @property
    def costs(self) -> dict[str, float | None]:
        """What targets count, by their names: shares of the unpruned network's, as measured."""
        ratios = self.ratios
        return {"macs": self.macs, "parameters": self.parameters, **ratios, "latency": ratios["float_latency"]}

    @property
    def ratios(self) -> dict[str, float]:
        """The compressed network over the unpruned one, as measured.

        `bytes` and `gzip_bytes`: the int8 file over the float32 file as it is; `float_latency`: float32 file over
        float32 file; `int8_latency`: int8 file over int8 file. Where the target names it, `web_latency`: float32 file
        over float32 file in LiteRT.js; `arena`: int8 file over int8 file in TensorFlow Lite Micro.
        """
        dense, dense_int8, small, small_int8 = self.timing.timings
        return {
            "bytes": small_int8.size / dense.size,
            "gzip_bytes": small_int8.gzip_size / dense.size,
            "float_latency": small.median / dense.median,
            "int8_latency": small_int8.median / dense_int8.median,
            **self.reached,
        }

    def rows(self) -> list[dict[str, Any]]:
        first, dense = self.bounds.metrics[0], self.bounds.dense[0]
        scale = 100 if first.is_share else 1
        return [
            {
                "step": step.name,
                "accuracy": step.accuracy,
                "lost": scale * first.worse(step.accuracy, dense),
                **{metric.name: value for metric, value in [*zip(self.bounds.metrics, step.values)][1:]},
                "macs": step.macs,
                "parameters": step.parameters,
                "zeros": step.zeros,
                "seconds": step.seconds,
                "outcome": step.outcome,
            }
            for step in self.steps
        ]

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws the first metric against the multiply-accumulates (parameters where these are unknown) at each step.

        A line joins the steps within the bound, another lies at the bound, and a star is the int8 file.

        Args:
            path: Where to save the picture. Defaults to None: nowhere.

        Returns:
            The matplotlib figure.
        """
        figure, metric = new_figure(11, 5.5), self.bounds.metrics[0]
        axes = figure.subplots()
        of = "parameters" if any(step.macs is None for step in self.steps) else "macs"
        points = [(float(getattr(step, of)), step.accuracy) for step in self.steps]
        draw_path(axes, points, [step.kept for step in self.steps])
        left = self.parameters if of == "parameters" or self.macs is None else self.macs
        axes.plot([left], [self.accuracy], "*", color=COLOURS[2], markersize=17, label=f"the {self.kind} file")
        bound = self.dense_accuracy - (1 if metric.mode == "max" else -1) * self.bounds.allowed[0]
        axes.axhline(bound, color=COLOURS[1], linestyle="--", label=f"bound, {self.bounds.each[0].text(metric)} lost")
        axes.set_xlabel(f"{'MACs' if of == 'macs' else 'parameters'} left of the unpruned model")
        axes.set_ylabel(in_plot(metric.name))
        as_shares(axes.xaxis)
        if metric.is_share:
            as_shares(axes.yaxis)
        axes.set_title(self.title)
        steps = [f"{number} {shortened(step.name, 34, 12)}" for number, step in enumerate(self.steps, 1)]
        handles, names = axes.get_legend_handles_labels()
        blanks = [axes.plot([], [], linestyle="none")[0] for _ in steps]
        figure.legend([*handles, *blanks], [*names, *map(in_plot, steps)], loc="outside right upper", fontsize=8)
        return saved(figure, path)

    def notes(self) -> list[str]:
        ratios = self.ratios
        notes = [
            f"{self.kind} file: {self.lite.size:,} bytes, {_smaller(ratios['bytes'])} than the float file; "
            f"{self.lite.gzip_size:,} compressed, {_smaller(ratios['gzip_bytes'])} than the float file.",
            f"Time: float file {ratios['float_latency']:.2f} of the unpruned float file, {self.kind} file "
            f"{ratios['int8_latency']:.2f} of the unpruned {self.kind} file.",
            *(f"{WHERE[cost]}: {share:.2f} of the unpruned file's." for cost, share in self.reached.items()),
        ]
        rows = zip(self.bounds.metrics, self.bounds.dense, self.values, self.bounds.each, self.standard_errors)
        for metric, dense, value, bound, error in rows:
            name = metric.name[:1].upper() + metric.name[1:]
            notes.append(
                f"{name} on the validation data: {metric.text(dense)} unpruned, {metric.text(value)} in the "
                f"{self.kind} file{self._lost(metric, metric.worse(value, dense), error)}; at most "
                f"{bound.text(metric)} {'were' if metric.is_share else 'was'} to be lost."
            )
        if self.doubtful:
            notes.append(
                f"On other samples more than that may be lost: the bound of {' and '.join(self.doubtful)} lies within "
                "two standard errors. More validation data make it surer."
            )
        if not self.within_bound:
            notes.append(f"THE BOUND IS BROKEN: {'; '.join(self.broken)}. No step stayed within it.")
        for output in self.outputs:
            notes += output.paying(len(self.outputs) > 1)
        if self.robustness:
            notes.append(robustness_note(self.robustness, "unpruned", f"in the {self.kind} file"))
        if not self.meets_target:
            notes.append(f"THE TARGET {self.target} IS NOT MET within the bound.")
        return [*notes, *self.notices]

    def _lost(self, metric: Metric, worse: float, error: float | None) -> str:
        """How much worse a metric became, with its standard error, as part of a sentence."""
        if error is None:
            return ""
        scale, form, unit = (100, ".2f", " points") if metric.is_share else (1, ".3g", "")
        return f", {scale * worse:{form}} ± {scale * error:{form}}{unit} worse on {self.samples:,} samples"

    def to_dict(self) -> dict[str, Any]:
        return {
            **super().to_dict(),
            "accuracy": self.accuracy,
            "metrics": self.metrics,
            "groups": {output.name: [vars(group) for group in output.groups] for output in self.outputs},
            "robustness": {kind: list(values) for kind, values in self.robustness.items()},
            "dense_accuracy": self.dense_accuracy,
            "within_bound": self.within_bound,
            "meets_target": self.meets_target,
            "ratios": self.ratios,
            "kind": self.kind,
            "files": self.timing.to_dict(),
        }


def _smaller(share: float) -> str:
    return f"{1 / share:.1f} times smaller" if share <= 1 else f"{share:.1f} times LARGER"
