"""The whole road in one call: channels, fine-tuning, weights, quantization, conversion, within a drop of accuracy."""

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tfprune.channels import channel_groups, has_rule
from tfprune.channels.plan import ShrinkPlan, plan_shrink
from tfprune.channels.rebuild import shrink
from tfprune.deciding.schedules import Polynomial
from tfprune.errors import ConversionError, PruningError
from tfprune.lite.file.lite_model import LiteModel
from tfprune.lite.measure.verify import file_answers
from tfprune.lite.quantize import quantize_aware
from tfprune.model.copying import clone_with_weights, compile_like
from tfprune.model.data import Batch, joined
from tfprune.model.inline import inlined
from tfprune.model.metrics import Answers
from tfprune.model.summary import summary
from tfprune.model.tree import check_model
from tfprune.progress import shown, stage
from tfprune.search.compress.goals import MEASURED, Files
from tfprune.search.compress.measured import measured
from tfprune.search.compress.report import Compression
from tfprune.search.compress.samples import reads_rows, some_samples, spread
from tfprune.search.compress.steps import ROUNDED, Steps, Stop
from tfprune.search.compress.terms import Terms
from tfprune.search.compress.walk import Walk
from tfprune.search.genetic import genetic_search
from tfprune.training.callbacks import PercentilePruning
from tfprune.training.strip import strip_masks

LEVELS = (0.8, 0.6, 0.4, 0.25, 0.15, 0.08)  # shares of the multiply-accumulates that are tried for a target
CHANNELS = Walk(first=0.25, part=0.56, least=0.01, attempts=8)  # shares of multiply-accumulates and of parameters
WEIGHTS = Walk(first=0.2, part=0.5, least=0.02, attempts=6)  # shares of the weights
SEARCHED = 2000  # samples for the search
SEARCH_EVALUATIONS = 80
CALIBRATION = 300
QUANTIZED_RATE = 0.1  # of the learning rate
TAUGHT_RATE = 1e-3  # of Adam, where the model is not compiled

Converted = tuple[Stop, LiteModel, Answers, list[float]]  # a step, its file, what that answers and is worth


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
    sparsities: Sequence[float] | None = None,
    distill: bool = True,
    batch_size: int = 128,
    seed: int = 0,
    workers: int = 1,
    console: Any = None,
    verbose: int = 1,
) -> Compression:
    """Makes the smallest int8 file of a model that becomes no worse than allowed, by accuracy or any other metric.

    Where recurrent layers would be unrolled into a file larger than the float one, weights alone become int8.

    Searches for the channels that cost least, removes them, trains the small network with the unpruned one as teacher,
    prunes its weights, trains it with the rounding of int8, converts it, and checks the file. Each removal goes on from
    the last one that was kept; one that loses too much is taken back, and smaller ones follow.

    Args:
        model: A trained model, compiled; functional or Sequential. It is left as it is.
        train: What `fit` takes: `(x, y)`, or a dataset of batches whose length is known. Inputs alone where there are
            no targets: all that is then learnt are the unpruned model's answers, and it need not be compiled.
        val: Validation inputs and targets, other than those trained on: every decision is made by them. Inputs alone
            where train has no targets either.
        max_drop: How much worse the metric may become, in its own unit: 0.01 (default) is one point of accuracy. `"5%"`
            is a share of the unpruned model's value. A dict bounds each output: `{"kind": 0.01, "box": "5%"}`.
        target: `"smallest"` (default), as small as the bound allows, less two standard errors of what is lost, since
            other samples would show another loss (at most half of the bound is left for them); or one share of the
            unpruned model's that is to be reached, with no more removed than it takes: `{"macs": 0.3}`,
            `{"parameters": 0.25}`, `{"bytes": 0.25}` (the int8 file over the float32 file), `{"gzip_bytes": 0.05}` (the
            same, compressed by gzip, zeros and all), `{"latency": 0.5}` (of the float32 files, measured here),
            `{"web_latency": 0.5}` (the same in LiteRT.js in Node, as `benchmark(runtime="web")` needs it), `{"arena":
            0.5}` (RAM of the int8 files in TensorFlow Lite Micro, extra `micro`).
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
            None: 0.8, then more or fewer, as many as the bound allows.
        distill: Whether the unpruned model teaches the small one, as `distill` does; of arrays it is asked once, not in
            every step. Defaults to True; a model with a `train_step` of its own is not taught, and the report says so.
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
    samples = some_samples(train, model, SEARCHED)
    labelled = samples.targets is not None
    if not model.compiled or model.optimizer is None:
        model = _compiled(model, labelled)
    with shown(verbose, console, transient=False):
        steps = Steps(model, train, val, terms, folder, labelled)
        result = Road(steps, samples).walked()
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
        samples: Of the training data, to search channels by and to find the ranges of activations with.
    """

    def __init__(self, steps: Steps, samples: Batch):
        self._steps, self._samples = steps, spread(samples, CALIBRATION).inputs
        of_rows = reads_rows(steps.terms.metric)
        self._searched_by = Batch(*joined(map(tuple, steps.val))).taken(slice(SEARCHED)) if of_rows else samples
        self._model, self._terms = steps.model, steps.terms
        self._dense = Files(self._model, self._samples)
        self._plans: dict[tuple[int, tuple[tuple[str, float], ...]], ShrinkPlan] = {}

    def walked(self) -> Compression:
        """All of it: what came of the last step whose file is within the bound."""
        with stage("all training, at most") as self._steps.training:
            self._steps.make("unpruned", lambda: self._model)
            self._note_kind()
            thin = self._thin()
            sparse = self._zero(thin)
            if self._dense.kind == "int8":
                self._steps.expect(1)
                self._steps.make(ROUNDED, lambda: self._rounded(sparse.model), epochs=1)
            return measured(self._steps, *self._converted(), self._dense)

    def _note_kind(self) -> None:
        """Says so where the file is not one of integers throughout; a model that has none at all raises here."""
        if self._dense.kind != "int8":
            self._steps.notes.append(
                "In int8 the loops of recurrent layers are unrolled, and the file is larger than the float one: the "
                "file has weights of int8, and computes in float (quantization='dynamic')."
            )

    def _expect(self, trainings: int, zeroings: int | None = None) -> None:
        """Says how many removals of channels, and of weights, are still to be trained at most, and all that follows."""
        if zeroings is None:
            given = self._terms.sparsities
            zeroings = WEIGHTS.attempts if given is None else len(given)
        self._steps.expect(self._terms.epochs * (trainings + zeroings) + 1)

    def _thin(self) -> Stop:
        """Removes channels, as many as the target takes or as the bound allows."""
        if self._terms.goal:
            return self._thinned_to(*next(iter(self._terms.goal.items())))
        return CHANNELS(self._steps.stops[0], self._thinner, self._expect)

    def _thinner(self, level: float, before: Stop) -> Stop | None:
        """A step with no more than this share of the unpruned model's; None where one channel is left in each layer."""
        if before is not self._steps.stops[0] and not channel_groups(before.model).free:
            return None
        return self._thinned(_budget(level), before)

    def _thinned_to(self, cost: str, share: float) -> Stop:
        """The mildest removal of channels that reaches the target; a milder one where that breaks the bound."""
        if cost in MEASURED:
            strongest = next((level for level in LEVELS if self._measured(cost, level) <= share), LEVELS[-1])
            budgets = [_budget(level) for level in reversed(LEVELS) if level >= strongest]
        else:
            in_bytes = cost in ("bytes", "gzip_bytes")
            exact = self._weights_for(cost, share) if in_bytes else share
            counted = "parameters" if in_bytes else cost
            budgets = [{counted: exact}, *({counted: level} for level in reversed(LEVELS) if level > exact)]
        for number, budget in enumerate(budgets):
            self._expect(len(budgets) - number)
            stop = self._thinned(budget)
            if stop.kept:
                return stop
        return self._steps.stops[0]

    def _thinned(self, budget: Mapping[str, float], before: Stop | None = None) -> Stop:
        """A step with no more than these shares of the unpruned model's, made of the stop before it."""
        model, epochs = self._model if before is None else before.model, self._terms.epochs
        name = self._unused(f"channels to {_percent(max(budget.values()))}")

        def build() -> keras.Model:
            return self._steps.train(self._searched(budget, model), epochs)

        return self._steps.make(name, build, epochs, surely=before is not None)

    def _searched(self, budget: Mapping[str, float], model: keras.Model) -> keras.Model:
        """A model, one of the stops, without the channels that cost least, untrained."""
        key = (id(model), tuple(sorted(budget.items())))
        if key not in self._plans:
            self._plans[key] = self._plan(budget, model)
        return shrink(model, self._plans[key])

    def _plan(self, budget: Mapping[str, float], model: keras.Model) -> ShrinkPlan:
        macs, parameters, _ = self._steps.shares(model)
        left = {"macs": macs or 1.0, "parameters": parameters}
        budget = {name: min(1.0, share / left[name]) for name, share in budget.items()}
        inputs, targets, *_ = self._searched_by
        found = genetic_search(
            model, inputs if targets is None else (inputs, targets), "metric", "layers", population=16, generations=20,
            evaluations=SEARCH_EVALUATIONS, budget=budget, seed=self._terms.seed, recalibrate=True,
            workers=self._terms.workers,
            metric=self._terms.metric, mode=self._terms.mode, max_drop=self._terms.max_drop,
        )  # fmt: skip
        return found.plan()

    def _weights_for(self, cost: str, share: float) -> float:
        """The share of the weights with which the int8 file takes this share of the bytes of the float file."""
        weights, dense, size = self._steps.dense.parameters, self._dense.rounded, share * self._dense.floating.size
        if cost == "gzip_bytes":
            size *= dense.size / dense.gzip_size
        # A weight takes a byte; the operators and scales are there in any case.
        allowed = size - (dense.size - weights)
        return min(1.0, max(LEVELS[-1], 0.98 * allowed / weights))

    def _measured(self, cost: str, level: float) -> float:
        """What the unpruned model with so much of its channels takes, untrained, over the unpruned model."""
        return MEASURED[cost](
            self._dense, Files(self._searched(_budget(level), self._model), self._samples, self._dense.kind)
        )

    def _zero(self, thin: Stop) -> Stop:
        """Prunes weights, as many as the bound allows."""
        sparsities = self._terms.sparsities
        if sparsities is None:
            return WEIGHTS(
                thin, lambda left, before: self._sparse(before, 1 - left, True), lambda left: self._expect(0, left)
            )
        for number, sparsity in enumerate(sparsities):
            self._expect(0, len(sparsities) - number)
            stop = self._sparse(thin, sparsity)
            if stop.kept:
                return stop
        return thin

    def _sparse(self, before: Stop, sparsity: float, surely: bool = False) -> Stop:
        """A step with so many zeros, made of the stop before it."""
        epochs = self._terms.epochs

        def build() -> keras.Model:
            copy = shrink(before.model, plan_shrink(before.model))  # an equal copy, compiled afresh
            ramp = Polynomial(min(sparsity, summary(copy).sparsity), sparsity)
            plain = strip_masks(self._steps.train(copy, epochs, [PercentilePruning(ramp)], rate=0.5))
            plan = plan_shrink(plain)  # channels may have lost all of their weights
            return shrink(plain, plan) if plan.removes else plain

        return self._steps.make(self._unused(f"weights {_percent(sparsity)}"), build, epochs, surely)

    def _unused(self, name: str) -> str:
        """The name of a step, which may be of an amount that was tried before from another model."""
        made, again = [stop.name for stop in self._steps.stops], 1
        while name in made:
            again += 1
            name = f"{name.partition(',')[0]}, time {again}"
        return name

    def _rounded(self, model: keras.Model) -> keras.Model:
        quantized = quantize_aware(model, self._samples)
        if not quantized.compiled:
            compile_like(self._model, quantized)
        return self._steps.train(quantized, 1, rate=QUANTIZED_RATE)

    def _converted(self) -> Converted:
        """The last stop whose file is within the bound, its file, what that answers and is worth; else the best.

        Training with the rounding of int8 may leave layers in float that rounding afterwards does not, in larger files;
        then the stop before it is looked at too, and the smaller file is taken. So it is where one cannot be converted.
        """
        found: list[Converted] = []
        failures: list[ConversionError] = []
        for stop in reversed(self._steps.stops):
            if not stop.kept and stop.name != ROUNDED:
                continue
            name, began = f"{self._dense.kind} file of '{stop.name}'", time.monotonic()
            with stage(name) as bar:
                try:
                    lite = Files(stop.model, self._samples, self._dense.kind).rounded
                except ConversionError as error:
                    failures.append(error)
                    self._steps.notes.append(f"There is no {name}: {error}")
                    continue
                answers = file_answers(stop.model, lite, self._steps.val)
                values = self._steps.score(answers)
                self._steps.note(name, time.monotonic() - began, values, self._steps.in_float(stop), "", bar)
            found.append((stop, lite, answers, values))
            is_whole = self._dense.kind != "int8" or not any(operator.is_float for operator in lite.operators)
            if self._steps.holds(values) and is_whole:
                break
        if not found:
            raise failures[0]

        def rank(entry: Converted) -> tuple[bool, float]:
            _, lite, _, values = entry
            holds = self._steps.holds(values)
            return holds, -lite.size if holds else self._steps.bounds.merit(values)

        return max(found, key=rank)


def _budget(level: float) -> dict[str, float]:
    return {"macs": level, "parameters": level}


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
