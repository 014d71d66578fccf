"""The whole road in one call: channels, fine-tuning, weights, quantization, conversion, within a drop of accuracy."""

import functools
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.channels import has_rule
from tfprune.channels.plan import ShrinkPlan, plan_shrink
from tfprune.channels.rebuild import shrink
from tfprune.errors import PruningError
from tfprune.lite.convert.convert import convert
from tfprune.lite.file.lite_model import LiteModel
from tfprune.lite.measure.benchmark import benchmark
from tfprune.lite.measure.comparison import Comparison, OutputComparison
from tfprune.lite.measure.robustness import Answers, Robustness, Shares, image_of
from tfprune.lite.measure.verify import file_answers
from tfprune.lite.quantize import quantize_aware
from tfprune.model.copying import clone_with_weights, compile_like
from tfprune.model.data import Batch, joined
from tfprune.model.inline import inlined
from tfprune.model.labels import labels_of
from tfprune.model.metrics import answers_of
from tfprune.model.signature import output_names, signature_of
from tfprune.model.tree import as_array, check_model
from tfprune.progress import shown, stage
from tfprune.search.compress.distillation import first_samples
from tfprune.search.compress.report import Compression
from tfprune.search.compress.steps import ROUNDED, Steps, Stop
from tfprune.search.compress.terms import Terms
from tfprune.search.genetic import genetic_search
from tfprune.training.callbacks import PercentilePruning
from tfprune.training.strip import strip_masks

LEVELS = (0.08, 0.15, 0.25, 0.4, 0.6, 0.8)  # shares of the multiply-accumulates that are tried
FIRST_LEVEL = 0.25
SEARCHED = 2000  # validation samples for the search
SEARCH_EVALUATIONS = 80
CALIBRATION = 300
TIMED_RUNS = 200
QUANTIZED_RATE = 0.1  # of the learning rate
TAUGHT_RATE = 1e-3  # of Adam, where the model is not compiled


def compress(
    model: keras.Model,
    train: Any,
    val: Any,
    max_drop: float | str | Mapping[str, float | str] = 0.01,
    target: Any = "smallest",
    *,
    metric: Any = None,
    mode: Any = None,
    folder: Any = None,
    epochs: int = 3,
    sparsities: Sequence[float] = (0.8, 0.6, 0.4),
    distill: bool = True,
    batch_size: int = 128,
    seed: int = 0,
    workers: int = 1,
    console: Any = None,
    verbose: int = 1,
) -> Compression:
    """Makes the smallest int8 file of a model that becomes no worse than allowed, by accuracy or any other metric.

    Searches for the channels that cost least, removes them, trains the small network with the unpruned one as teacher,
    prunes its weights, trains it with the rounding of int8, converts it, and checks the file. A step that loses more
    than the bound is taken back, and a milder one is tried.

    Args:
        model: A trained model, compiled; functional or Sequential. It is left as it is.
        train: What `fit` takes: `(x, y)`, or a dataset of batches whose length is known. Inputs alone where there are
            no targets: all that is then learnt are the unpruned model's answers, and it need not be compiled.
        val: Validation inputs and targets, other than those trained on: every decision is made by them. Inputs alone
            where train has no targets either.
        max_drop: How much worse the metric may become, in its own unit: 0.01 (default) is one point of accuracy. `"5%"`
            is a share of the unpruned model's value. A dict bounds each output: `{"kind": 0.01, "box": "5%"}`.
        target: `"smallest"` (default), as small as the bound allows; or one share of the unpruned model's that is to be
            reached, with no more removed than it takes: `{"macs": 0.3}`, `{"parameters": 0.25}`, `{"bytes": 0.25}` (the
            int8 file over the float32 file), `{"latency": 0.5}` (of the float32 files, measured here).
        metric: What it is judged by: the name of a metric that the model is compiled with, `"loss"`, `"accuracy"`,
            `"f1"`, `"iou"`, `"dice"`; a Keras metric; a function of (targets, outputs), arrays of all validation data
            (dicts by output where there are several, targets None where there are none); or a dict of these by output.
            Defaults to None: the first metric that the model, or each of its outputs, is compiled with, else the loss;
            without targets the relative difference from the unpruned model's outputs.
        mode: `"max"` where a large value of the metric is better, `"min"` where a small one is. Defaults to None: asked
            of the metric, or told by its name.
        folder: Where every step keeps its model; a compression that was interrupted and is begun again with the same
            arguments goes on behind its last whole step; that of other data or settings is refused (of a dataset to
            train on, only its length is compared). Defaults to None: nothing is kept.
        epochs: Of each fine-tuning: after channels, after weights; the rounding is trained for one. Defaults to 3.
        sparsities: Shares of zeros to try, the first that stays within the bound is kept; empty for none. Defaults to
            0.8, 0.6, 0.4.
        distill: Whether the unpruned model teaches the small one (`keras.distillation.Distiller`, and `distill` where
            that does not fit). Defaults to True; a model with a `train_step` of its own is not taught, and the report
            says so.
        batch_size: Of training on arrays. Defaults to 128.
        seed: Of everything random. Defaults to 0.
        workers: Processes, or workers of a cluster, that evaluate the candidates of the search side by side, as in
            `genetic_search`; training stays in this process. Defaults to 1.
        console: A `rich.console.Console` to show progress on, with the time left. Defaults to None: standard error.
        verbose: 0 shows no progress, 1 (default) bars in a terminal and lines elsewhere, 2 lines.

    Returns:
        A `Compression`: `.model`, `.lite`, `.within_bound`, `.meets_target`; prints as a table of the steps. It never
        breaks the bound without saying so, in the report and in a warning.

    Raises:
        PruningError: The model is not compiled, the metric needs targets that the data lack, cannot be computed or is
            no number (which batch is told), an argument is wrong, or the folder belongs to another compression.

    Example:
        result = tfprune.compress(model, (x, y), (x_val, y_val), max_drop=0.01, folder="compressed")
        result.lite.save("model.tflite")
    """
    check_model(model, "compress")
    model = inlined(model, "Compressing", has_rule)
    terms = Terms(max_drop, target, epochs, sparsities, distill, batch_size, seed, metric, mode, workers)
    samples = first_samples(train, model, CALIBRATION)
    labelled = samples.targets is not None
    if not model.compiled or model.optimizer is None:
        model = _compiled(model, labelled)
    with shown(verbose, console, transient=False):
        result = Road(Steps(model, train, val, terms, folder, labelled), samples.inputs).walked()
    if not result.within_bound:
        warnings.warn(
            f"tfprune: compress: {'; '.join(result.broken)}: no step stayed within the bound. Train longer (epochs=), "
            "or allow more.",
            stacklevel=2,
        )
    return result


def _compiled(model: keras.Model, labelled: bool) -> keras.Model:
    """A copy that can be trained on the unpruned model's answers, which takes no loss of its own."""
    if labelled:
        raise PruningError(
            f"'{model.name}' is not compiled, and compress trains; compile it with optimizer and loss. Without targets "
            "in train and val it need not be."
        )
    copy = clone_with_weights(model)
    copy.compile(keras.optimizers.Adam(TAUGHT_RATE), "mse")
    return copy


class Road:
    """Which steps are taken, in which order, and where the road ends.

    Args:
        steps: Makes them.
        samples: Inputs to find the ranges of activations with.
    """

    def __init__(self, steps: Steps, samples: Any):
        self._steps, self._samples = steps, samples
        self._model, self._terms = steps.model, steps.terms
        self._inputs = joined([batch.inputs for batch in steps.val])
        self._plans: dict[tuple[tuple[str, float], ...], ShrinkPlan] = {}

    def walked(self) -> Compression:
        """All of it: what came of the last step whose file is within the bound."""
        with stage("all training, at most") as self._steps.training:
            self._steps.make("unpruned", lambda: self._model)
            thin = self._thin()
            sparse = self._zero(thin)
            self._steps.expect(1)
            self._steps.make(ROUNDED, lambda: self._rounded(sparse.model), epochs=1)
            return self._measured(*self._converted())

    def _holds(self, stop: Stop) -> bool:
        return self._steps.holds(stop.values)

    def _expect(self, trainings: int) -> None:
        """Says that so many removals of channels are still to be trained at most, and all that follows."""
        self._steps.expect(self._terms.epochs * (trainings + len(self._terms.sparsities)) + 1)

    def _thin(self) -> Stop:
        """Removes channels, as many as the target takes or as the bound allows."""
        if self._terms.goal:
            return self._thinned_to(*next(iter(self._terms.goal.items())))
        place = LEVELS.index(FIRST_LEVEL)
        self._expect(len(LEVELS) - place)
        best = self._thinned(_budget(LEVELS[place]))
        direction = -1 if self._holds(best) else 1
        while 0 <= place + direction < len(LEVELS):
            place += direction
            self._expect(place + 1 if direction < 0 else len(LEVELS) - place)
            stop = self._thinned(_budget(LEVELS[place]))
            if direction == 1 and self._holds(stop):
                return stop
            if direction == -1 and not self._holds(stop):
                break
            best = stop
        return best if self._holds(best) else self._steps.stops[0]

    def _thinned_to(self, cost: str, share: float) -> Stop:
        """The mildest removal of channels that reaches the target; a milder one where that breaks the bound."""
        if cost == "latency":
            levels = [level for level in reversed(LEVELS) if self._latency(level) <= share] or [LEVELS[0]]
            budgets = [_budget(level) for level in LEVELS if level >= levels[0]]
        else:
            exact = self._weights_for(share) if cost == "bytes" else share
            counted = "parameters" if cost == "bytes" else cost
            budgets = [{counted: exact}, *({counted: level} for level in LEVELS if level > exact)]
        for number, budget in enumerate(budgets):
            self._expect(len(budgets) - number)
            stop = self._thinned(budget)
            if self._holds(stop):
                return stop
        return self._steps.stops[0]

    def _thinned(self, budget: Mapping[str, float]) -> Stop:
        epochs = self._terms.epochs
        name = f"channels to {max(budget.values()):.0%}"
        return self._steps.make(name, lambda: self._steps.train(self._searched(budget), epochs), epochs)

    def _searched(self, budget: Mapping[str, float]) -> keras.Model:
        """The unpruned model without the channels that cost least, untrained."""
        key = tuple(sorted(budget.items()))
        if key not in self._plans:
            targets = joined([batch.targets for batch in self._steps.val])
            given = self._inputs if targets is None else (self._inputs, targets)
            searched = keras.tree.map_structure(lambda array: array[:SEARCHED], given)
            found = genetic_search(
                self._model, searched, "metric", "layers", population=16, generations=20,
                evaluations=SEARCH_EVALUATIONS, budget=budget, seed=self._terms.seed, recalibrate=True,
                workers=self._terms.workers,
                metric=self._terms.metric, mode=self._terms.mode, max_drop=self._terms.max_drop,
            )  # fmt: skip
            self._plans[key] = found.plan()
        return shrink(self._model, self._plans[key])

    @functools.cached_property
    def _dense_float(self) -> LiteModel:
        """The unpruned model as a float32 file."""
        return convert(self._model)

    @functools.cached_property
    def _dense_int8(self) -> LiteModel:
        """The unpruned model as an int8 file."""
        return convert(self._model, "int8", representative_data=self._samples)

    def _weights_for(self, share: float) -> float:
        """The share of the weights with which the int8 file takes this share of the bytes of the float file."""
        # A weight takes a byte; the operators and scales are there in any case.
        weights = self._steps.dense.parameters
        allowed = share * self._dense_float.size - (self._dense_int8.size - weights)
        return min(1.0, max(LEVELS[0], 0.98 * allowed / weights))

    def _latency(self, level: float) -> float:
        files = {"unpruned": self._dense_float, "thin": convert(self._searched(_budget(level)))}
        dense, thin = benchmark(files, runs=TIMED_RUNS).timings
        return thin.median / dense.median

    def _zero(self, thin: Stop) -> Stop:
        """Prunes weights, as many as the bound allows."""
        epochs, sparsities = self._terms.epochs, self._terms.sparsities
        for number, sparsity in enumerate(sparsities):
            self._steps.expect(epochs * (len(sparsities) - number) + 1)
            build = functools.partial(self._sparse, thin.model, sparsity)
            stop = self._steps.make(f"weights {sparsity:.0%}", build, epochs)
            if self._holds(stop):
                return stop
        return thin

    def _sparse(self, model: keras.Model, sparsity: float) -> keras.Model:
        copy = shrink(model, plan_shrink(model))  # an equal copy, compiled afresh
        plain = strip_masks(self._steps.train(copy, self._terms.epochs, [PercentilePruning(sparsity)], rate=0.5))
        plan = plan_shrink(plain)  # channels may have lost all of their weights
        return shrink(plain, plan) if plan.removes else plain

    def _rounded(self, model: keras.Model) -> keras.Model:
        quantized = quantize_aware(model, self._samples)
        if not quantized.compiled:
            compile_like(self._model, quantized)
        return self._steps.train(quantized, 1, rate=QUANTIZED_RATE)

    def _converted(self) -> tuple[Stop, LiteModel, list[float]]:
        """The last stop whose file is within the bound, its file and what that is worth; else the best.

        Training with the rounding of int8 may leave layers in float that rounding afterwards does not, in larger files;
        then the stop before it is looked at too, and the smaller file is taken.
        """
        found: list[tuple[Stop, LiteModel, list[float]]] = []
        for stop in reversed(self._steps.stops):
            if not self._holds(stop) and stop.name != ROUNDED:
                continue
            name, began = f"int8 file of '{stop.name}'", time.monotonic()
            with stage(name) as bar:
                lite = convert(stop.model, "int8", representative_data=self._samples)
                values = self._steps.score(file_answers(stop.model, lite, self._steps.val))
                self._steps.note(name, time.monotonic() - began, values, self._steps.in_float(stop), "", bar)
            found.append((stop, lite, values))
            if self._steps.holds(values) and not any(operator.is_float for operator in lite.operators):
                break

        def rank(entry: tuple[Stop, LiteModel, list[float]]) -> tuple[bool, float]:
            holds = self._steps.holds(entry[2])
            return holds, -entry[1].size if holds else self._steps.bounds.merit(entry[2])

        return max(found, key=rank)

    def _measured(self, chosen: Stop, lite: LiteModel, values: list[float]) -> Compression:
        """What came of it: files are timed side by side, and compared with what was asked for."""
        small = self._steps.in_float(chosen)
        with stage("measure files"):
            files = {
                "unpruned float32": self._dense_float,
                "unpruned int8": self._dense_int8,
                "compressed float32": convert(small),
                "compressed int8": lite,
            }
            timing = benchmark(files, runs=TIMED_RUNS)
        self._steps.folder.save_lite("compressed", lite)
        macs, parameters, _ = self._steps.shares(small)
        return Compression(
            model=chosen.model,
            lite=lite,
            accuracy=values[0],
            dense_accuracy=self._steps.stops[0].values[0],
            max_drop=self._terms.max_drop,
            target=self._terms.target,
            steps=tuple(self._steps.milestones),
            timing=timing,
            macs=macs,
            parameters=parameters,
            notices=tuple(self._steps.notes),
            bounds=self._steps.bounds,
            values=tuple(values),
            outputs=self._compared(chosen, lite),
            robustness=self._disturbed(chosen, lite),
        )

    def _compared(self, chosen: Stop, lite: LiteModel) -> tuple[OutputComparison, ...]:
        """How the file compares with the unpruned model, and which classes lost most."""
        model, val = self._model, self._steps.val
        wanted, given = answers_of(model, val), file_answers(chosen.model, lite, val)
        compared = []
        for name, *parts in zip(self._names, wanted, given, joined([self._labels(batch) for batch in val])):
            comparison = Comparison(model, name, strict=False)  # the metric has read the labels already
            comparison.add(*parts)
            compared.append(comparison.result())
        return tuple(compared)

    def _disturbed(self, chosen: Stop, lite: LiteModel) -> Shares:
        """How right the unpruned model and the file are on disturbed images."""
        model, signature = self._model, signature_of(self._model)
        image = image_of(signature)
        if image is None or self._steps.val[0].targets is None:
            return {}

        names = output_names(chosen.model, chosen.model(self._steps.val[0].inputs, training=False))

        def both(inputs: Sequence[np.ndarray]) -> tuple[Answers, Answers]:
            given = [Batch(keras.tree.map_structure(lambda number: inputs[number], signature.structure))]
            return answers_of(model, given), file_answers(chosen.model, lite, given, names)

        disturbed = Robustness(model, self._names, both, image, strict=False)
        for batch in self._steps.val:
            disturbed.add([as_array(array) for array in keras.tree.flatten(batch.inputs)], self._labels(batch))
        return disturbed.result()

    @functools.cached_property
    def _names(self) -> list[str]:
        """The names of the model's outputs."""
        return output_names(self._model, self._model(self._steps.val[0].inputs, training=False))

    def _labels(self, batch: Batch) -> list[np.ndarray | None]:
        """The labels of each output."""
        return list(labels_of(None, batch.targets, self._names, slice(0, batch.size), batch.size))


def _budget(level: float) -> dict[str, float]:
    return {"macs": level, "parameters": level}
