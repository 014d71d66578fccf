"""What a model is judged by: any metric as a figure of its answers, whoever gave them, with the way it is better.

Answers are those of the Keras model or of a converted file, so that both are judged by one measure: a metric that the
model is compiled with, its loss, a Keras metric, or a function of targets and outputs. Without targets, answers are
judged by how far they are from those of the unpruned model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError, listing, nearest
from tfprune.model.aliases import under_aliases
from tfprune.model.copying import clone_with_weights
from tfprune.model.data import Batch, joined
from tfprune.model.direction import chosen_mode, mode_of
from tfprune.model.hooks import compile_arguments
from tfprune.model.judge import Scorer
from tfprune.model.labels import labels_of
from tfprune.model.signature import flat_outputs, output_names
from tfprune.model.tree import as_array

# Told by how the answers are read as decisions, as `verify` tells them; Keras' own would count other thresholds.
DECIDED = {
    "accuracy": "accuracy",
    "acc": "accuracy",
    "sparse_categorical_accuracy": "accuracy",
    "categorical_accuracy": "accuracy",
    "f1": "f1",
    "iou": "iou",
    "dice": "f1",
}
DIFFERENCE = "difference"
# The answers of a model: all of its outputs, in flat order, for all samples.
Answers = Sequence[np.ndarray]


@dataclass(frozen=True)
class Metric:
    """One figure of the answers of a model.

    Attributes:
        name: What it is called, with the output's name before it where there are several.
        output: The output that it is of; `""` for all of them.
        mode: `"max"` where a large value is better, else `"min"`.
        measure: Gives it for answers to the samples of some batches.
        batches: The samples.
    """

    name: str
    output: str
    mode: str
    measure: Callable[[Answers, Sequence[Batch]], float]
    batches: Sequence[Batch]

    @property
    def is_share(self) -> bool:
        """Whether it is a share in [0, 1] that is written as a percentage."""
        return self.name.rpartition(" ")[2] in DECIDED

    def text(self, value: float) -> str:
        """A value as it is written."""
        return f"{value:.2%}" if self.is_share else f"{value:.4g}"

    def worse(self, value: float, dense: float) -> float:
        """By how much a value is worse than the unpruned model's; negative where it is better."""
        return dense - value if self.mode == "max" else value - dense

    def __call__(self, answers: Answers) -> float:
        """The figure of answers to all samples.

        Raises:
            PruningError: It is not a finite number, or cannot be computed.
        """
        value = self.of(answers, self.batches)
        if not np.isfinite(value) or not all(np.isfinite(array).all() for array in answers):
            value = value if not np.isfinite(value) else float("nan")  # argmax makes classes of NaN too
            raise PruningError(f"The metric '{self.name}' is {value}{self._where(answers)}.")
        return value

    def of(self, answers: Answers, batches: Sequence[Batch]) -> float:
        """The figure of answers to the samples of some batches, whatever number it is."""
        try:
            value = self.measure(answers, batches)
            return value if isinstance(value, float) else float(np.mean(as_array(value)))
        except PruningError:
            raise
        except Exception as error:  # whatever a metric of the user's own raises
            raise PruningError(self._failure(error, answers)) from error

    def _failure(self, error: Exception, answers: Answers) -> str:
        targets = [each.shape for each in keras.tree.flatten(self.batches[0].targets) if each is not None]
        first = (str(error).strip().splitlines() or [""])[0]
        shapes = " and ".join(str(array.shape) for array in answers)
        given = f"targets of shape {' and '.join(map(str, targets))}" if targets else "no targets; write data=(x, y)"
        return (
            f"The metric '{self.name}' raised {type(error).__name__}: {first}. It was given outputs of shape {shapes} "
            f"and {given}."
        )

    def _where(self, answers: Answers) -> str:
        """Which batch it is that makes the figure no number."""
        start = 0
        for number, batch in enumerate(self.batches):
            part = [array[start : start + batch.size] for array in answers]
            rows = f"samples {start} to {start + batch.size - 1}"
            start += batch.size
            if not all(np.isfinite(array).all() for array in part):
                return f": the outputs of batch {number} ({rows}) are not all numbers"
            if not np.isfinite(self.of(part, [batch])):
                return f" on batch {number} ({rows})"
        return " on all samples together, though on no batch alone"


def found_metrics(
    model: keras.Model,
    batches: Sequence[Batch],
    metric: Any,
    mode: Any,
    dense: Answers,
    purpose: str,
    outputs: Any = None,
) -> tuple[Metric, ...]:
    """The metrics that answers of a model are judged by.

    Args:
        model: The unpruned model; it is left as it is.
        batches: The samples, with their targets where there are any.
        metric: None for the first metric that the model is compiled with, else its loss, of several outputs one for
            each; a name; a Keras metric; a function of (targets, outputs); or a dict of these by output.
        mode: `"max"`, `"min"`, or None to ask the metric; of a dict a dict may say it by output.
        dense: The unpruned model's answers.
        purpose: What judges, the subject of the messages.
        outputs: What a call of the model gave, for its structure. Defaults to None: it is called.

    Raises:
        PruningError: The metric is unknown, needs targets that the data lack, or its way cannot be told.
    """
    if outputs is None:
        outputs = model(batches[0].inputs, training=False)
    return _Finder(model, batches, dense, purpose, outputs).found(metric, mode)


def answers_of(model: keras.Model, batches: Sequence[Batch]) -> list[np.ndarray]:
    """The answers of a model to all samples: its outputs in flat order."""
    # Called as it is: predict() would compile every model that is judged.
    return joined([[as_array(part) for part in flat_outputs(model(b.inputs, training=False))] for b in batches])


def compiled_metric(model: keras.Model, name: str) -> keras.metrics.Metric | None:
    """The Keras metric that a logged name is of, where `compile` was given one."""
    given = keras.tree.flatten(compile_arguments(model).get("metrics"))
    metrics = [each for each in given if isinstance(each, keras.metrics.Metric)]
    return next((each for each in metrics if name == each.name or name.endswith(f"_{each.name}")), None)


class _Finder:
    def __init__(self, model: keras.Model, batches: Sequence[Batch], dense: Answers, purpose: str, outputs: Any):
        self._batches, self._dense, self._purpose = list(batches), list(dense), purpose
        self._copy = clone_with_weights(model)
        self._outputs, self.names = outputs, output_names(model, outputs)
        self._targets = all(batch.targets is not None for batch in batches)
        self._logged: Mapping[str, float] | None = None

    def found(self, metric: Any, mode: Any) -> tuple[Metric, ...]:
        several = len(self.names) > 1
        if isinstance(metric, Mapping):
            self._check_outputs(metric, "metric")
            modes = mode if isinstance(mode, Mapping) else dict.fromkeys(metric, mode)
            self._check_outputs(modes, "mode")
            return tuple(self._of_output(each, metric[each], modes.get(each)) for each in metric)
        if metric is None and not self._targets:
            chosen_mode(DIFFERENCE, mode, "min")
            return tuple(self._difference(place, name if several else "") for place, name in enumerate(self.names))
        if metric is None and several:
            return tuple(self._of_output(name, self._default(name), mode) for name in self._known_outputs())
        if metric is None:
            return (self._of_output("", self._default(""), mode),)
        if several and isinstance(metric, keras.metrics.Metric):
            self._require_targets(metric.name)
            raise PruningError(
                f"The model has {len(self.names)} outputs: say of which '{metric.name}' is, as a dict: "
                f"metric={{'{self.names[0]}': ...}}; the outputs are {listing(self.names)}."
            )
        return (self._of_output("", metric, mode),)

    def _check_outputs(self, given: Mapping[str, Any], argument: str) -> None:
        unknown = [str(name) for name in given if name not in self.names]
        if unknown or not given:
            hint = nearest(unknown[0], self.names) if unknown else ""
            raise PruningError(
                f"{argument} names the output {listing(unknown)}; the model's outputs are {listing(self.names)}. {hint}"
            )

    def _known_outputs(self) -> list[str]:
        """The outputs that there are targets for."""
        rows = self._by_output(self._batches[0])
        return [name for name, row in zip(self.names, rows) if row is not None]

    def _default(self, output: str) -> str:
        """The first metric that an output is compiled with, else its loss."""
        logged = self._logs()
        if not logged:
            raise PruningError(
                f"{self._purpose} needs a metric, but '{self._copy.name}' is not compiled. Compile it with a loss and "
                "metrics, or give metric= a Keras metric or a function of (targets, outputs)."
            )
        if output:
            own = [key for key in logged if key.startswith(f"{output}_")]
            longer = [name for name in self.names if name.startswith(f"{output}_")]
            own = [key for key in own if not any(key.startswith(f"{name}_") for name in longer)]
            found = next((key for key in own if key != f"{output}_loss"), None)
            return found or (f"{output}_loss" if f"{output}_loss" in logged else "loss")
        return next((key for key in logged if key != "loss"), "loss")

    def _of_output(self, output: str, metric: Any, mode: Any) -> Metric:
        if isinstance(metric, str):
            return self._named(output, metric, mode)
        if isinstance(metric, type) and issubclass(metric, keras.metrics.Metric):
            metric = metric()
        if isinstance(metric, keras.metrics.Metric):
            return self._of_keras(output, metric, mode)
        if not callable(metric):
            raise PruningError(
                f"metric={metric!r} is none: give a name, a Keras metric, a function of (targets, outputs), or a dict "
                "of these by output."
            )
        name = getattr(metric, "__name__", type(metric).__name__)
        chosen = chosen_mode(name, mode, mode_of(name), certain=False)

        def measure(answers: Answers, batches: Sequence[Batch]) -> Any:
            return metric(*self._pair(output, answers, batches))

        return Metric(_title(output, name), output, chosen, measure, self._batches)

    def _of_keras(self, output: str, metric: keras.metrics.Metric, mode: Any) -> Metric:
        self._require_targets(metric.name)
        chosen = chosen_mode(metric.name, mode, mode_of(metric.name, metric))

        def measure(answers: Answers, batches: Sequence[Batch]) -> Any:
            metric.reset_state()
            start = 0
            for batch in batches:
                targets, outputs = self._pair(output, [a[start : start + batch.size] for a in answers], [batch])
                start += batch.size
                metric.update_state(targets, outputs)
            return metric.result()

        return Metric(_title(output, metric.name), output, chosen, measure, self._batches)

    def _named(self, output: str, name: str, mode: Any) -> Metric:
        self._require_targets(name)
        logged = self._logs()
        key = next((key for key in (name, f"{output}_{name}") if key in logged), None)
        short = name.removeprefix(f"{output}_") if output else name
        place = self.names.index(output) if output else 0
        if short in DECIDED and (output or len(self.names) == 1):
            scorer = self._scorer(place, short, required=key is None)
            if scorer is not None:
                kind = DECIDED[short]

                def decided(answers: Answers, batches: Sequence[Batch]) -> float:
                    whole = batches is self._batches
                    part = scorer if whole else self._scorer(place, short, True, batches)
                    return getattr(part, kind)(answers[place])

                return Metric(
                    _title(output, "accuracy" if short == "acc" else short), output,
                    chosen_mode(short, mode, "max"), decided, self._batches,
                )  # fmt: skip
        if key is not None:
            chosen = chosen_mode(key, mode, mode_of(key, compiled_metric(self._copy, key)))
            return Metric(
                _title(output, short), output, chosen, lambda answers, b: self._logs(answers, b)[key], self._batches
            )
        try:
            made = keras.metrics.get(name)
        except (ValueError, TypeError):
            made = None
        if made is None:
            known = [*logged, *DECIDED]
            raise PruningError(
                f"{self._purpose}: there is no metric {name!r}. {nearest(name, known)} Or give a Keras metric, or a "
                "function of (targets, outputs)."
            )
        return self._of_output(output, made, mode)

    def _scorer(self, place: int, name: str, required: bool, batches: Sequence[Batch] | None = None) -> Scorer | None:
        """What gives the accuracy and the like, where the targets are classes."""
        read = self._batches if batches is None else batches
        targets = joined([self._by_output(batch)[place] for batch in read])
        seen = self._dense[place] if batches is None else self._dense[place][: len(targets)]
        try:
            return Scorer(self._copy, targets, seen, self.names[place] if len(self.names) > 1 else "")
        except PruningError:
            if required:
                raise
            return None

    def _require_targets(self, name: str) -> None:
        if not self._targets:
            raise PruningError(
                f"{self._purpose}: the metric '{name}' needs targets, and the data have none; write (x, y). Without "
                "targets leave metric= out: then the difference from the unpruned model's outputs is bounded."
            )

    def _logs(self, answers: Answers | None = None, batches: Sequence[Batch] | None = None) -> Mapping[str, float]:
        """What `evaluate` would log of answers, by the compiled metrics and loss; of the unpruned ones by default."""
        if answers is None and self._logged is not None:
            return self._logged
        if not self._copy.compiled or not self._targets:
            return {}
        read = self._batches[:1] if batches is None else batches
        given = [array[: sum(b.size for b in read)] for array in (self._dense if answers is None else answers)]
        if len(self.names) > 1:  # Keras averages the losses of outputs over batches, whatever their sizes
            read = [Batch(given[0], *joined([(batch.targets, batch.weights) for batch in read]))]
        copy, total, start, found = self._copy, 0.0, 0, {}
        copy.reset_metrics()
        for batch in read:
            part = iter([array[start : start + batch.size] for array in given])
            outputs = keras.tree.map_structure(lambda _, part=part: next(part), _sorted(self._outputs))
            start += batch.size
            targets = keras.tree.map_structure(as_array, batch.targets)
            try:
                with under_aliases(copy):
                    loss = copy.compute_loss(None, targets, outputs, batch.weights, training=False)
                    found = copy.compute_metrics(None, targets, outputs, batch.weights)
            except Exception as error:  # whatever a loss or metric of the user's own raises
                first = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise PruningError(
                    f"{self._purpose}: the loss and metrics that '{copy.name}' is compiled with cannot be computed of "
                    f"its outputs: {first} Give metric= a function of (targets, outputs)."
                ) from error
            total += batch.size * float(loss)
        logged = {key: float(value) for key, value in found.items()} | {"loss": total / max(start, 1)}
        if answers is None:
            self._logged = logged
        return logged

    def _by_output(self, batch: Batch) -> list[np.ndarray | None]:
        return labels_of(None, batch.targets, self.names, slice(0, batch.size), batch.size)

    def _pair(self, output: str, answers: Answers, batches: Sequence[Batch]) -> tuple[Any, Any]:
        """Targets and outputs of some batches, of one output or of all; targets None where there are none."""
        given = list(answers)
        if not self._targets:
            targets: list[Any] = [None] * len(given)
        else:
            rows = [self._by_output(batch) for batch in batches]
            targets = [None if part[0] is None else np.concatenate(part) for part in zip(*rows)]
        # Otherwise targets (n,) and outputs (n, 1) would be spread over each other.
        targets = [t if t is None or t.size != a.size else t.reshape(a.shape) for t, a in zip(targets, given)]
        if output or len(self.names) == 1:
            place = self.names.index(output) if output else 0
            return targets[place], given[place]
        return dict(zip(self.names, targets)) if self._targets else None, dict(zip(self.names, given))

    def _difference(self, place: int, output: str) -> Metric:
        """The relative error of an output: root mean square of the differences over that of the unpruned values."""
        wanted = self._dense[place].astype(np.float64)
        power = float(np.mean(np.square(wanted))) or 1.0

        def measure(answers: Answers, batches: Sequence[Batch]) -> float:
            rows = sum(batch.size for batch in batches)
            return float(np.sqrt(np.mean(np.square(wanted[:rows] - answers[place])) / power))

        return Metric(_title(output, DIFFERENCE), output, "min", measure, self._batches)


def _title(output: str, name: str) -> str:
    return f"{output} {name}" if output else name


def _sorted(structure: Any) -> Any:
    """A structure in whose order outputs are flat."""
    return {key: _sorted(structure[key]) for key in sorted(structure)} if isinstance(structure, Mapping) else structure
