"""Figures of a candidate: one evaluation, compiled once, in which only the values of masked weights change."""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.model.aliases import under_aliases
from tfprune.model.bounds import Bounds
from tfprune.model.copying import clone_with_weights
from tfprune.model.data import Batch, input_specs, joined
from tfprune.model.judge import Scorer
from tfprune.model.metrics import Answers, Metric, answers_of, found_metrics
from tfprune.model.prunable import every_weight
from tfprune.model.signature import flat_outputs
from tfprune.model.tree import as_array, places
from tfprune.oneshot.repair.batch_norm import recalibrate
from tfprune.search.fine_tuning import FineTuning
from tfprune.search.genome import ChannelGenome, Genes, Genome
from tfprune.search.objectives import COSTS, QUALITIES, MetricAsked, Objective
from tfprune.search.thin import TOLERANCE, ThinModel, UnsupportedError

PIECE_BYTES = 128 * 2**20  # of the largest activation, for the samples that are run at once


@dataclass(frozen=True)
class Trial:
    """What an objective of the user's own is given.

    Attributes:
        model: The model under the candidate's masks; good until the function returns.
        masks: Key of a weight -> boolean array, True = kept; only weights that lose something.
        figures: The objectives known by name, and the costs, so far.
        genes: The candidate's genes.
    """

    model: keras.Model
    masks: Mapping[str, np.ndarray]
    figures: Mapping[str, float]
    genes: Genes


class FitnessError(Exception):
    """A candidate has no figures: an objective raised, or gave no finite number."""


class Fitness:
    """Measures candidates on a copy of the model.

    Args:
        model: The unpruned model; it is left as it is.
        genome: Turns genes into masks.
        data: Batches with targets.
        objectives: What to measure.
        budget: Names of further costs to work out.
        calibration: Batches on which the statistics of batch norm are measured anew for each candidate; none where
            they stay.
        tables: Name of a cost that is not counted but measured -> what gives it for the genes.
        training: Batches on which each candidate is trained before it is measured, one a step.

    Attributes:
        notes: What the result is to say about how candidates were run.
    """

    def __init__(
        self,
        model: keras.Model,
        genome: Genome,
        data: Sequence[Batch],
        objectives: Sequence[Objective],
        budget: Iterable[str] = (),
        calibration: Sequence[Batch] = (),
        tables: Mapping[str, Any] | None = None,
        training: Sequence[Batch] = (),
    ):
        self.genome, self.objectives = genome, tuple(objectives)
        self.copy = clone_with_weights(model)
        normed = any(isinstance(place.layer, keras.layers.BatchNormalization) for place in places(self.copy))
        self.data, self.calibration = list(data), list(calibration) if normed else []
        names = {objective.name for objective in objectives if objective.function is None}
        self.costs = [name for name in COSTS if name in names | set(budget)]
        self.tables = dict(tables or {})
        self._named = names
        self._weights = {weight.key: weight.variable for weight in every_weight(self.copy)}
        self._dense = {key: as_array(variable) for key, variable in self._weights.items()}
        self._changed: set[str] = set()
        self.training = list(training)
        self._tuning = FineTuning(self.copy, training) if training else None
        self._with_loss = "loss" in names
        if self._with_loss and not self.copy.compiled:
            raise PruningError(f"The objective 'loss' needs a loss, but '{model.name}' is not compiled; compile it.")
        if self._with_loss and self.data[0].targets is None:
            raise PruningError("The objective 'loss' needs targets, and the data have none; write data=(x, y).")
        self._tensors = [_given(batch) for batch in self.data]
        self._answers, self._forward = _compiled(self.copy, self._tensors, self.calibration, self._with_loss)
        self.notes: list[str] = []
        self._thin: ThinModel | None = None
        self._weights_now: dict[str, Any] = {}
        self._scoring: Scorer | None = None
        self._bounds: Bounds | None = None
        if names & {"accuracy", "f1"}:
            self._scoring = Scorer(self.copy, joined([batch.targets for batch in self.data]), self._run()[0])
        judged = next((objective.judged for objective in objectives if objective.judged is not None), None)
        if judged is not None:
            self._bounds = bounds_of(self.copy, self.data, flat_outputs(self._run()[0]), judged)
        if self._reads_data:
            self._thin = self._try_thin()

    def __call__(self, genes: Genes) -> dict[str, float]:
        """The figures of a candidate, by name.

        Raises:
            FitnessError: An objective of the user's own raised, or one is not a finite number.
        """
        figures = self.cost(genes)
        if self._thin is not None:
            self._take(self._thin, genes)
            return _finite({**figures, **self._qualities()})
        masks = self.genome.masks(genes)
        self.load(masks)
        if self._tuning is not None:
            self._tuning(masks)
        if self.calibration:
            recalibrate(self.copy, self.calibration, self._forward)
        figures.update(self._qualities())
        for objective in self.objectives:
            if objective.function is not None:
                trial = Trial(self.copy, masks, dict(figures), genes)
                figures[objective.name] = _value(objective, trial)
        return _finite(figures)

    def cost(self, genes: Genes) -> dict[str, float]:
        """The costs of a candidate, without running it."""
        return {name: self.cost_of(name, genes) for name in self.costs}

    def cost_of(self, name: str, genes: Genes) -> float:
        """One cost of a candidate."""
        counted = {"parameters": self.genome.parameters, "macs": self.genome.macs, "bytes": self.genome.bytes}
        return float((self.tables.get(name) or counted[name])(genes))

    def load(self, masks: Mapping[str, np.ndarray]) -> None:
        """Gives the copy the unpruned weights under masks."""
        if self._tuning is not None:
            self._tuning.restore()
        for key in self._changed | set(masks):
            dense = self._dense[key]
            self._weights[key].assign(np.where(masks[key], dense, 0.0) if key in masks else dense)
        self._changed = set(masks)

    def _try_thin(self) -> ThinModel | None:
        """A faster way to the same answers, where the genome and the model allow it; else it is noted why not."""
        import tensorflow as tf

        own = any(objective.function is not None for objective in self.objectives)
        if not isinstance(self.genome, ChannelGenome) or own or self.calibration or self._tuning:
            return None
        generator = random.Random(0)
        trials = [self.genome.dense, self.genome.drawn(generator)]
        wanted = []
        for genes in trials:
            self.load(self.genome.masks(genes))
            wanted.append(self._run()[0])
        self.load({})
        masked = self._answers, self._tensors
        try:
            self._thin = ThinModel(self.copy, self.genome.groups)
            settled = self._thin.settled([batch.inputs for batch in self.data])
            given = [{**tensors, "settled": ends} for tensors, ends in zip(self._tensors, settled)]
            self._tensors = _pieces(given, max(1, PIECE_BYTES // self._thin.largest))
            self._answers = _compiled_thin(self.copy, self._thin, self._tensors, self._with_loss)
            for genes, answers in zip(trials, wanted):
                self._take(self._thin, genes)
                found = self._run()[0]
                if not np.abs(found - answers).max() <= TOLERANCE * np.abs(answers).max():
                    raise UnsupportedError("slices of the weights gave other answers.")
        except (UnsupportedError, ValueError, TypeError, NotImplementedError, tf.errors.OpError) as error:
            # What layers raise about axes of open size, while they are traced or run: masks work for all of them.
            self._answers, self._tensors, self._thin = *masked, None
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self.notes.append(f"Candidates were run at full width, under masks: {reason}")
        return self._thin

    def _take(self, thin: ThinModel, genes: Genes) -> None:
        """Makes the weights that a candidate keeps the ones that are run with."""
        kept = thin.weights(self.genome.keep(genes))  # type: ignore[attr-defined]
        self._weights_now = keras.tree.map_structure(keras.ops.convert_to_tensor, kept)

    @property
    def _reads_data(self) -> bool:
        """Whether there is anything to run the candidates for."""
        return bool(self._named & set(QUALITIES)) or self._bounds is not None

    def _qualities(self) -> dict[str, float]:
        if not self._reads_data:
            return {}
        answers, loss = self._run()
        figures = {"loss": loss} if self._with_loss else {}
        for name in ("accuracy", "f1"):
            if name in self._named and self._scoring is not None:
                # A network that has lost its numbers is wrong, whatever argmax makes of NaN.
                finite = all(np.isfinite(answer).all() for answer in keras.tree.flatten(answers))
                figures[name] = getattr(self._scoring, name)(answers) if finite else 0.0
        if self._bounds is not None:
            try:
                figures |= self._judged(self._bounds, flat_outputs(answers))
            except PruningError as error:
                raise FitnessError(str(error)) from error
        return figures

    def _judged(self, bounds: Bounds, answers: Answers) -> dict[str, float]:
        """The value of each metric that is an objective; for "metric" that of the only one.

        Of several it is the merit of the one that is nearest to its bound.
        """
        values = [metric(answers) for metric in bounds.metrics]
        found = {"metric": values[0] if len(values) == 1 else bounds.merit(values)}
        found |= {metric.name: value for metric, value in zip(bounds.metrics, values)}
        return {each.name: found[each.name] for each in self.objectives if each.judged is not None}

    def _run(self) -> tuple[Any, float]:
        """The answers to all samples, and the mean loss."""
        found, total, count = [], 0.0, 0
        for tensors in self._tensors:
            given = (tensors,) if self._thin is None else (tensors, self._weights_now)
            answers, loss = self._answers(*given)
            found.append(answers)
            size = Batch(tensors["inputs"]).size
            total, count = total + float(loss) * size, count + size
        return joined(found), total / count


def bounds_of(model: keras.Model, data: Sequence[Batch], answers: Answers, judged: MetricAsked) -> Bounds:
    """The metrics of a search with their bounds; without any, each counts as a share of the unpruned value."""
    found = found_metrics(model, data, judged.metric, judged.mode, answers, "the search")
    given = "100%" if judged.max_drop is None else judged.max_drop
    return Bounds(given, found, [metric(answers) for metric in found])


def metrics_of(model: keras.Model, data: Sequence[Batch], judged: MetricAsked) -> Sequence[Metric]:
    """The metrics of a search."""
    return bounds_of(model, data, answers_of(model, data), judged).metrics


def _given(batch: Batch) -> dict[str, Any]:
    """The parts of a batch that there are, as tensors."""
    import tensorflow as tf

    return {
        name: keras.tree.map_structure(tf.convert_to_tensor, part)
        for name, part in batch._asdict().items()
        if part is not None
    }


def _pieces(given: Sequence[dict[str, Any]], size: int) -> list[dict[str, Any]]:
    """The samples of all batches in batches of another size: the larger they are, the fewer calls.

    Batches whose samples are not all of one shape stay as they are.
    """
    import tensorflow as tf

    shapes = {tuple(tuple(array.shape[1:]) for array in keras.tree.flatten(each)) for each in given}
    if len(shapes) > 1:
        return list(given)
    whole = joined(given)
    count = len(keras.tree.flatten(whole)[0])

    def piece(start: int) -> dict[str, Any]:
        return keras.tree.map_structure(lambda array: tf.constant(array[start : start + size]), whole)

    return [piece(start) for start in range(0, count, size)]


def _compiled(
    model: keras.Model, data: Sequence[dict[str, Any]], calibration: Sequence[Batch], with_loss: bool
) -> tuple[Any, Any]:
    """The evaluation and the forward pass of batch-norm calibration, each traced once for all candidates."""
    import tensorflow as tf

    def answers(given: dict[str, Any]) -> Any:
        with under_aliases(model):
            outputs = model(given["inputs"], training=False)
        if not with_loss:
            return outputs, 0.0
        targets, weights = given["targets"], given.get("weights")
        return outputs, model.compute_loss(given["inputs"], targets, outputs, weights, training=False)

    def forward(inputs: Any) -> Any:
        with under_aliases(model):
            return model(inputs, training=False)

    specs = input_specs([Batch(given) for given in data])
    answering = tf.function(answers, input_signature=[specs], autograph=False)
    if not calibration:
        return answering, None
    return answering, tf.function(forward, input_signature=[input_specs(list(calibration))], autograph=False)


def _compiled_thin(model: keras.Model, thin: ThinModel, data: Sequence[dict[str, Any]], with_loss: bool) -> Any:
    """The evaluation with the weights that are left as its inputs, traced once for all candidates."""
    import tensorflow as tf

    def answers(given: dict[str, Any], weights: dict[str, Any]) -> Any:
        with under_aliases(model):
            outputs = thin(weights, given["inputs"], given["settled"])
        if not with_loss:
            return outputs, 0.0
        loss = model.compute_loss(given["inputs"], given["targets"], outputs, given.get("weights"), training=False)
        return outputs, loss

    specs = input_specs([Batch(given) for given in data])
    return tf.function(answers, input_signature=[specs, thin.specs], autograph=False)


def _finite(figures: dict[str, float]) -> dict[str, float]:
    for name, value in figures.items():
        if not math.isfinite(value):
            raise FitnessError(f"'{name}' is {value}")
    return figures


def _value(objective: Objective, trial: Trial) -> float:
    try:
        return float(objective.function(trial))  # type: ignore[misc]
    except Exception as error:  # whatever the user's function raises costs this candidate
        first = str(error).splitlines()[0] if str(error) else ""
        raise FitnessError(f"'{objective.name}' raised {type(error).__name__}: {first}") from error
