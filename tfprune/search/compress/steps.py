"""The steps of a compression: each is looked up in the folder before it is made, then measured, kept and shown."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from tfprune.errors import PruningError
from tfprune.model.bounds import SLACK, Bounds
from tfprune.model.data import batches, whole_batch
from tfprune.model.metrics import Answers, answers_of, found_metrics
from tfprune.model.noise import ERRORS, standard_error
from tfprune.model.summary import summary
from tfprune.progress import Stage, TrainingProgress, stage
from tfprune.search.compress.distillation import Tuning
from tfprune.search.compress.folder import StepFolder
from tfprune.search.compress.report import Milestone, is_kept
from tfprune.search.compress.terms import Terms
from tfprune.search.journal import compiled_fingerprint, data_fingerprint, model_fingerprint

ROUNDED = "int8 training"
GIVEN, WITHIN = "the model as given", "within the bound"
NEAR = "too near to the bound, taken back"


@dataclass
class Stop:
    """A model on the road: where it is kept, how good it is, and whether the road goes on from it."""

    name: str
    model: keras.Model
    values: Sequence[float]
    kept: bool = True


class Steps:
    """Makes models, one from the other.

    Args:
        model, train, val, folder: See `compress`.
        terms: What else it is told.
        labelled: Whether the training data have targets.

    Attributes:
        bounds: What models are judged by, against the unpruned one.
        val: The validation data in batches.
        dense: What the unpruned model is made of.
        stops: The models that were made; the unpruned one is the first.
        milestones: What is reported of every step.
        notes: What else there is to say.
    """

    def __init__(self, model: keras.Model, train: Any, val: Any, terms: Terms, folder: Any, labelled: bool = True):
        self.model, self.terms = model, terms
        self.val = list(batches(val, model, "compress", 256, "val"))
        if labelled and self.val[0].targets is None and terms.metric is None:
            raise PruningError(
                "compress: train has targets and val has none, so no metric can be measured; write val=(x, y). Leave "
                "the targets out of both to bound the difference from the unpruned model's outputs."
            )
        self._tuning = Tuning(model, train, terms.batch_size, terms.distill, labelled)
        self.notes = [self._tuning.note] if self._tuning.note else []
        self.answers = answers_of(model, self.val)  # of the unpruned model
        metrics = found_metrics(model, self.val, terms.metric, terms.mode, self.answers, "compress")
        self.bounds = Bounds(terms.max_drop, metrics, [metric(self.answers) for metric in metrics])
        self.notes += self.bounds.lax()
        self.dense = summary(model)
        self.stops: list[Stop] = []
        self.milestones: list[Milestone] = []
        self.training: Any = None  # the stage of all training
        self._watching: list[TrainingProgress] = []
        arrays = whole_batch(train, model, "compress", "train")
        header = {
            "model": model_fingerprint(model),
            "compiled": compiled_fingerprint(model),
            "data": data_fingerprint(self.val),
            # A dataset may come in another order each time, so of one only the length can be compared.
            "train": self._tuning.steps if arrays is None else data_fingerprint([arrays]),
            "settings": terms.header(),
        }
        if (terms.metric, terms.mode) != (None, None):
            header["metric"] = [[metric.name, metric.mode] for metric in metrics]
        self.folder = StepFolder(folder, header)

    def make(self, name: str, build: Callable[[], keras.Model], epochs: int = 0, surely: bool = False) -> Stop:
        """Makes a step, or takes it from the folder.

        Args:
            name: What it is called.
            build: Makes its model.
            epochs: How long it trains.
            surely: Whether it is kept only where it is within the bound beyond what chance does; see `surely`.
        """
        known = self.folder.known(name)
        if known is not None:
            milestone = Milestone(**{"values": [], **known})
            self.milestones.append(milestone)
            model = self.folder.model(name) if self.stops else self.model
            return self._stopped(Stop(name, model, milestone.values or [milestone.accuracy], milestone.kept))
        keras.utils.set_random_seed(self.terms.seed)
        with stage(name, total=max(1, epochs * self._tuning.steps)) as bar:
            self._watching = [TrainingProgress(bar, self.training)] if epochs else []
            began = time.monotonic()
            model = build()
            answers = self.answers if model is self.model else answers_of(model, self.val)
            values = self.score(answers)
            seconds = time.monotonic() - began
            outcome = self._outcome(values, ", taken back")
            if surely and outcome == WITHIN and not self.surely(values, answers):
                outcome = NEAR
            outcome = outcome if self.stops else GIVEN
            stop = self._stopped(Stop(name, model, values, is_kept(outcome)))
            self.note(name, seconds, values, self.in_float(stop), outcome, bar)
        self.folder.keep(name, vars(self.milestones[-1]), None if outcome == GIVEN else model)
        return stop

    def train(
        self, model: keras.Model, epochs: int, callbacks: Sequence[keras.callbacks.Callback] = (), rate: float = 1.0
    ) -> keras.Model:
        """Trains a model in place for the step that is being made; see `Tuning`."""
        self._tuning(model, epochs, [*callbacks, *self._watching], rate)
        return model

    def expect(self, epochs: int) -> None:
        """Says how many epochs are still to come at most, from which the time left follows."""
        bar: Stage = self.training
        bar.move(bar.completed, bar.completed + epochs * self._tuning.steps)

    def note(
        self, name: str, seconds: float, values: Sequence[float], model: keras.Model, outcome: str, bar: Stage
    ) -> None:
        """Reports a step, in the table and behind its bar: `model` is what came of it, in plain float layers."""
        outcome = outcome or self._outcome(values)
        self.milestones.append(Milestone(name, seconds, values[0], *self.shares(model), outcome, list(values)))
        first, zeros = self.bounds.metrics[0], self.milestones[-1].zeros
        bar.advance(0, f"{first.name} {first.text(values[0])} zeros {zeros:.1%}")  # the figures of the table

    def score(self, answers: Answers) -> list[float]:
        """What answers to the validation data are worth by each metric; NaN where one is no number, which is noted."""
        try:
            return [metric(answers) for metric in self.bounds.metrics]
        except PruningError as error:
            if not self.stops:
                raise
            self.notes.append(f"A step was taken back. {error}")
            return [float("nan")] * len(self.bounds.metrics)

    def holds(self, values: Sequence[float]) -> bool:
        """Whether the values of all metrics are within their bounds."""
        return self.bounds.hold(values)

    def surely(self, values: Sequence[float], answers: Answers) -> bool:
        """Whether values are within their bounds by standard errors, which count up to half of the bound."""
        rows = zip(self.bounds.metrics, self.bounds.worse(values), self.bounds.allowed)
        for metric, worse, allowed in rows:
            if worse > allowed / 2:
                error = ERRORS * (standard_error(metric, self.answers, answers) or 0.0)
                if worse + min(allowed / 2, error) > allowed + SLACK:
                    return False
        return True

    def in_float(self, stop: Stop) -> keras.Model:
        """The model of a stop in plain float layers: for int8 training, the stop before it."""
        if stop.name != ROUNDED:
            return stop.model
        return [each for each in self.stops if each.name != ROUNDED and each.kept][-1].model

    def shares(self, model: keras.Model) -> tuple[float | None, float, float]:
        """Multiply-accumulates and parameters as shares of the unpruned model's, and the share of zeros."""
        now = summary(model)
        macs = None if now.macs is None or not self.dense.macs else now.macs / self.dense.macs
        return macs, now.parameters / self.dense.parameters, now.sparsity

    def _stopped(self, stop: Stop) -> Stop:
        self.stops.append(stop)
        return stop

    def _outcome(self, values: Sequence[float], then: str = "") -> str:
        return WITHIN if self.holds(values) else f"beyond the bound{then}"
