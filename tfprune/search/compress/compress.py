"""The whole road in one call: channels, fine-tuning, weights, quantization, conversion, within a drop of accuracy."""

import contextlib
import functools
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from tfprune.channels.plan import ShrinkPlan, plan_shrink
from tfprune.channels.rebuild import shrink
from tfprune.errors import PruningError, nearest
from tfprune.lite.convert.convert import convert
from tfprune.lite.file.lite_model import LiteModel
from tfprune.lite.measure.benchmark import benchmark
from tfprune.lite.quantize import quantize_aware
from tfprune.model.copying import compile_like
from tfprune.model.data import Batch, batches, joined, whole_batch
from tfprune.model.graph import require_graph
from tfprune.model.judge import Scorer
from tfprune.model.summary import summary
from tfprune.model.tree import as_array, check_model
from tfprune.search.compress.compression import Compression, Milestone
from tfprune.search.compress.distillation import Tuning, first_inputs
from tfprune.search.compress.folder import StepFolder
from tfprune.search.genetic import genetic_search
from tfprune.search.journal import compiled_fingerprint, data_fingerprint, model_fingerprint
from tfprune.search.progress import shown_in
from tfprune.search.settings import check_count
from tfprune.training.callbacks import PercentilePruning
from tfprune.training.strip import strip_masks

LEVELS = (0.08, 0.15, 0.25, 0.4, 0.6, 0.8)  # shares of the multiply-accumulates that are tried
FIRST_LEVEL = 0.25
TARGETS = ("macs", "parameters", "bytes", "latency")
SEARCHED = 2000  # validation samples for the search
SEARCH_EVALUATIONS = 80
CALIBRATION = 300
TIMED_RUNS = 200
QUANTIZED_RATE = 0.1  # of the learning rate


def compress(
    model: keras.Model,
    train: Any,
    val: Any,
    max_drop: float = 0.01,
    target: Any = "smallest",
    *,
    folder: Any = None,
    epochs: int = 3,
    sparsities: Sequence[float] = (0.8, 0.6, 0.4),
    distill: bool = True,
    batch_size: int = 128,
    seed: int = 0,
    console: Any = None,
) -> Compression:
    """Makes the smallest int8 file of a classifier that loses no more accuracy than allowed.

    Searches for the channels that cost least, removes them, trains the small network with the unpruned one as teacher,
    prunes its weights, trains it with the rounding of int8, converts it, and checks the file. A step that loses more
    than the bound is taken back, and a milder one is tried.

    Args:
        model: A classifier, trained and compiled; functional or Sequential. It is left as it is.
        train: What `fit` takes: `(x, y)`, or a dataset of batches whose length is known.
        val: Validation inputs and labels, other than those trained on: every decision is made by them.
        max_drop: Accuracy that may be lost, as a share: 0.01 (default) is one point.
        target: `"smallest"` (default), as small as the bound allows; or one share of the unpruned model's that is to be
            reached, with no more removed than it takes: `{"macs": 0.3}`, `{"parameters": 0.25}`, `{"bytes": 0.25}` (the
            int8 file over the float32 file), `{"latency": 0.5}` (of the float32 files, measured here).
        folder: Where every step keeps its model; a compression that was interrupted and is begun again with the same
            arguments goes on behind its last whole step; that of other data or settings is refused (of a dataset to
            train on, only its length is compared). Defaults to None: nothing is kept.
        epochs: Of each fine-tuning: after channels, after weights; the rounding is trained for one. Defaults to 3.
        sparsities: Shares of zeros to try, the first that stays within the bound is kept; empty for none. Defaults to
            0.8, 0.6, 0.4.
        distill: Whether the unpruned model teaches the small one (`keras.distillation.Distiller`). Defaults to True;
            without it in this version of Keras, the report says so.
        batch_size: Of training on arrays. Defaults to 128.
        seed: Of everything random. Defaults to 0.
        console: A `rich.console.Console` to show progress on, with the time left. Defaults to None: standard error.

    Returns:
        A `Compression`: `.model`, `.lite`, `.within_bound`, `.meets_target`; prints as a table of the steps. It never
        breaks the bound without saying so, in the report and in a warning.

    Raises:
        PruningError: The model is not compiled, the validation data have no class labels, an argument is wrong, or the
            folder belongs to another compression.

    Example:
        result = tfprune.compress(model, (x, y), (x_val, y_val), max_drop=0.01, folder="compressed")
        result.lite.save("model.tflite")
    """
    _check(model, max_drop, sparsities)
    goal = _goal(target)
    check_count("epochs", epochs, 1)
    check_count("batch_size", batch_size, 1)
    road = _Road(model, train, val, max_drop, epochs, batch_size, distill, seed, console)
    settings = [max_drop, target, epochs, list(sparsities), distill, batch_size, seed]
    arrays = whole_batch(train, model, "compress", "train")
    header = {
        "model": model_fingerprint(model),
        "compiled": compiled_fingerprint(model),
        "data": data_fingerprint(road.val),
        # A dataset may come in another order each time, so of one only the length can be compared.
        "train": road.tuning.steps if arrays is None else data_fingerprint([arrays]),
        "settings": settings,
    }
    road.folder = StepFolder(folder, header)
    with road.stages, road.stages.stage("all training, at most") as road.whole:
        road.dense()
        thin = road.thin(goal, epochs * len(sparsities) + 1)
        sparse = road.zero(thin, sparsities)
        road.quantize(sparse)
        result = road.finish(target, goal)
    if not result.within_bound:
        warnings.warn(
            f"tfprune: compress loses {100 * result.drop:.2f} points of accuracy, more than the "
            f"{100 * max_drop:g} allowed: no step stayed within the bound. Train longer (epochs=), or allow more.",
            stacklevel=2,
        )
    return result


def _check(model: Any, max_drop: Any, sparsities: Sequence[float]) -> None:
    check_model(model, "compress")
    require_graph(model, "Compressing")
    if not model.compiled or model.optimizer is None:
        raise PruningError(f"'{model.name}' is not compiled, and compress trains; compile it with optimizer and loss.")
    if isinstance(max_drop, bool) or not isinstance(max_drop, (int, float)) or not 0.0 <= max_drop < 1.0:
        raise PruningError(f"max_drop={max_drop!r} is no share of accuracy in [0, 1); write 0.01 for one point.")
    for sparsity in sparsities:
        if not 0.0 < sparsity < 1.0:
            raise PruningError(f"sparsities: {sparsity!r} is no share of zeros in (0, 1); write (0.8, 0.6).")


def _goal(target: Any) -> dict[str, float]:
    """The cost and the share to reach; empty for the smallest."""
    if target == "smallest":
        return {}
    if not isinstance(target, Mapping) or len(target) != 1:
        raise PruningError(f"target={target!r} is unknown; write 'smallest', or one share such as {{'latency': 0.5}}.")
    name, share = next(iter(target.items()))
    if name not in TARGETS:
        raise PruningError(f"target names {name!r}. {nearest(str(name), TARGETS)}")
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0.0 < share < 1.0:
        raise PruningError(f"target: {share!r} is no share of the unpruned model's {name} in (0, 1); write 0.5.")
    return {name: float(share)}


@dataclass
class _Stop:
    """A model on the road: where it is kept, and how good it is."""

    name: str
    model: keras.Model
    accuracy: float


class _Road:
    """The steps, each looked up in the folder before it is made."""

    def __init__(
        self,
        model: keras.Model,
        train: Any,
        val: Any,
        max_drop: float,
        epochs: int,
        batch_size: int,
        distill: bool,
        seed: int,
        console: Any,
    ):
        self.model, self.train, self.max_drop, self.epochs, self.seed = model, train, max_drop, epochs, seed
        self.stages, self._progress_of = _stages(console)
        self.val = list(batches(val, model, "compress", 256))
        self.tuning = Tuning(model, train, batch_size, distill)
        self.folder = StepFolder(None, {})
        self.samples = first_inputs(train, model, CALIBRATION)
        self._scoring = Scorer(model, joined([batch.targets for batch in self.val]), self._answers(model))
        self._steps: list[Milestone] = []
        self._total = summary(model)
        self._stops: list[_Stop] = []
        self._plans: dict[tuple[tuple[str, float], ...], ShrinkPlan] = {}
        self._start = 0.0
        self.whole: Any = None  # the bar of all training

    def dense(self) -> None:
        """Measures the unpruned model."""
        self._stops.append(self._step("unpruned", lambda: self.model, "the model as given", keep=False))
        self._start = self._stops[0].accuracy

    def thin(self, goal: Mapping[str, float], later: int) -> _Stop:
        """Removes channels, as many as the target takes or as the bound allows; `later` epochs may follow."""
        if goal:
            return self._thinned_to(goal, later)
        place = LEVELS.index(FIRST_LEVEL)
        self._expect(self.epochs * (len(LEVELS) - place) + later)
        best = self._thinned(_budget(LEVELS[place]))
        direction = -1 if self._holds(best) else 1
        while 0 <= place + direction < len(LEVELS):
            place += direction
            self._expect(self.epochs * (place + 1 if direction < 0 else len(LEVELS) - place) + later)
            stop = self._thinned(_budget(LEVELS[place]))
            if direction == 1 and self._holds(stop):
                return stop
            if direction == -1 and not self._holds(stop):
                break
            best = stop
        return best if self._holds(best) else self._stops[0]

    def zero(self, thin: _Stop, sparsities: Sequence[float]) -> _Stop:
        """Prunes weights, as many as the bound allows."""
        for number, sparsity in enumerate(sparsities):
            self._expect(self.epochs * (len(sparsities) - number) + 1)
            stop = self._step(f"weights {sparsity:.0%}", lambda: self._sparse(thin.model, sparsity), epochs=self.epochs)  # noqa: B023
            if self._holds(stop):
                return stop
        return thin

    def quantize(self, stop: _Stop) -> None:
        """Trains with the rounding of int8."""
        self._expect(1)
        self._step("int8 training", lambda: self._rounded(stop.model), epochs=1)

    def finish(self, target: Any, goal: Mapping[str, float]) -> Compression:
        """Converts the furthest stop that holds, checks its file, and measures."""
        chosen, lite, accuracy = self._converted()
        with self.stages.stage("measure files", total=4) as stage:
            small = self._float_twin(chosen)
            files = {"unpruned float32": self._dense_float}
            stage.advance()
            files["unpruned int8"] = self._dense_int8
            stage.advance()
            files["compressed float32"] = convert(small)
            stage.advance()
            files["compressed int8"] = lite
            timing = benchmark(files, runs=TIMED_RUNS)
        self.folder.save_lite("compressed", lite)
        shares = self._shares(small)
        result = Compression(
            model=chosen.model,
            lite=lite,
            accuracy=accuracy,
            dense_accuracy=self._start,
            max_drop=self.max_drop,
            target=target,
            meets_target=True,
            steps=tuple(self._steps),
            timing=timing,
            macs=shares[0],
            parameters=shares[1],
            notices=tuple([self.tuning.note] if self.tuning.note else []),
        )
        reached = {"macs": result.macs, "parameters": result.parameters, "bytes": result.ratios["bytes"]}
        reached["latency"] = result.ratios["float_latency"]
        missed = [name for name, share in goal.items() if (reached[name] or 0.0) > share * (1 + 1e-9)]
        return Compression(**{**vars(result), "meets_target": not missed})

    def _expect(self, epochs: int) -> None:
        """Says how many epochs are still to come at most, from which the time left follows."""
        done = self.whole.completed
        self.whole.move(done, done + epochs * self.tuning.steps)

    def _thinned_to(self, goal: Mapping[str, float], later: int) -> _Stop:
        """The mildest removal of channels that reaches the target; a milder one where that breaks the bound."""
        name, share = next(iter(goal.items()))
        if name == "latency":
            levels = [level for level in reversed(LEVELS) if self._latency(level) <= share] or [LEVELS[0]]
            budgets = [_budget(level) for level in LEVELS if level >= levels[0]]
        else:
            exact = self._weights_for(share) if name == "bytes" else share
            counted = "parameters" if name == "bytes" else name
            budgets = [{counted: exact}, *({counted: level} for level in LEVELS if level > exact)]
        for number, budget in enumerate(budgets):
            self._expect(self.epochs * (len(budgets) - number) + later)
            stop = self._thinned(budget)
            if self._holds(stop):
                return stop
        return self._stops[0]

    def _thinned(self, budget: Mapping[str, float]) -> _Stop:
        level = max(budget.values())
        return self._step(f"channels to {level:.0%}", lambda: self._trained(self._searched(budget)), epochs=self.epochs)

    def _searched(self, budget: Mapping[str, float]) -> keras.Model:
        """The unpruned model without the channels that cost least, untrained."""
        key = tuple(sorted(budget.items()))
        if key not in self._plans:
            name = f"search channels to {max(budget.values()):.0%}"
            with self.stages.stage(name, total=SEARCH_EVALUATIONS) as stage, shown_in(stage):
                found = genetic_search(
                    self.model, _first(self.val, SEARCHED), "accuracy", "layers", population=16, generations=20,
                    evaluations=SEARCH_EVALUATIONS, budget=budget, seed=self.seed, recalibrate=True,
                )  # fmt: skip
            self._plans[key] = found.plan()
        return shrink(self.model, self._plans[key])

    @functools.cached_property
    def _dense_float(self) -> LiteModel:
        """The unpruned model as a float32 file."""
        return convert(self.model)

    @functools.cached_property
    def _dense_int8(self) -> LiteModel:
        """The unpruned model as an int8 file."""
        return convert(self.model, "int8", representative_data=self.samples)

    def _weights_for(self, share: float) -> float:
        """The share of the weights with which the int8 file takes this share of the bytes of the float file."""
        # A weight takes a byte; the operators and scales are there in any case.
        rest = self._dense_int8.size - self._total.parameters
        allowed = share * self._dense_float.size - rest
        return min(1.0, max(LEVELS[0], 0.98 * allowed / self._total.parameters))

    def _latency(self, level: float) -> float:
        files = {"unpruned": self._dense_float, "thin": convert(self._searched(_budget(level)))}
        dense, thin = benchmark(files, runs=TIMED_RUNS).timings
        return thin.median / dense.median

    def _trained(self, model: keras.Model) -> keras.Model:
        self.tuning(model, self.epochs, self._progress)
        return model

    def _sparse(self, model: keras.Model, sparsity: float) -> keras.Model:
        copy = shrink(model, plan_shrink(model))  # an equal copy, compiled afresh
        self.tuning(copy, self.epochs, [PercentilePruning(sparsity), *self._progress], rate=0.5)
        plain = strip_masks(copy)
        plan = plan_shrink(plain)  # channels may have lost all of their weights
        return shrink(plain, plan) if plan.removes else plain

    def _rounded(self, model: keras.Model) -> keras.Model:
        quantized = quantize_aware(model, self.samples)
        if not quantized.compiled:
            compile_like(self.model, quantized)
        self.tuning(quantized, 1, self._progress, rate=QUANTIZED_RATE)
        return quantized

    def _converted(self) -> tuple[_Stop, LiteModel, float]:
        """The last stop whose file is within the bound; the most accurate file where none is."""
        found: list[tuple[_Stop, LiteModel, float]] = []
        for stop in reversed(self._stops):
            if not self._holds(stop) and stop.name != "int8 training":
                continue
            with self._timed(f"int8 file of '{stop.name}'") as done:
                lite = convert(stop.model, "int8", representative_data=self.samples)
                accuracy = self._scoring.accuracy(lite(_inputs(self.val)))
                found.append((stop, lite, accuracy))
                done(self._record(f"int8 file of '{stop.name}'", self._float_twin(stop), accuracy))
            if self._start - accuracy <= self.max_drop + 1e-9:
                break
        return max(found, key=lambda entry: (self._start - entry[2] <= self.max_drop + 1e-9, entry[2]))

    def _float_twin(self, stop: _Stop) -> keras.Model:
        """The model of a stop in plain float layers: for int8 training, the stop before it."""
        if stop.name != "int8 training":
            return stop.model
        return [each for each in self._stops if each.name != stop.name and self._holds(each)][-1].model

    def _step(
        self,
        name: str,
        make: Callable[[], keras.Model],
        outcome: str = "",
        epochs: int = 0,
        keep: bool = True,
    ) -> _Stop:
        """Makes a step, or takes it from the folder."""
        known = self.folder.known(name)
        if known is not None:
            model = self.folder.model(name) if keep else self.model
            self._steps.append(Milestone(**known))
            self._stops.append(_Stop(name, model, known["accuracy"]))
            return self._stops[-1]
        keras.utils.set_random_seed(self.seed)
        with self.stages.stage(name, total=max(1, epochs * self.tuning.steps)) as stage:
            self._progress = [self._progress_of(stage, self.whole)] if epochs else []
            began = time.monotonic()
            model = make()
            accuracy = self._scoring.accuracy(self._answers(model))
            seconds = time.monotonic() - began
        if not outcome:
            within = self._start - accuracy <= self.max_drop + 1e-9
            outcome = "within the bound" if within else "beyond the bound, taken back"
        stop = _Stop(name, model, accuracy)
        self._stops.append(stop)
        macs, parameters, zeros = self._shares(self._float_twin(stop))
        step = Milestone(name, seconds, accuracy, macs, parameters, zeros, outcome)
        self.folder.keep(name, vars(step), model if keep else None)
        self._steps.append(step)
        return stop

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[Callable[[Milestone], None]]:
        began = time.monotonic()
        steps: list[Milestone] = []
        with self.stages.stage(name):
            yield steps.append
        for step in steps:
            self._steps.append(Milestone(**{**vars(step), "seconds": time.monotonic() - began}))

    def _record(self, name: str, model: keras.Model, accuracy: float) -> Milestone:
        within = self._start - accuracy <= self.max_drop + 1e-9
        macs, parameters, zeros = self._shares(model)
        outcome = "within the bound" if within else "beyond the bound"
        return Milestone(name, 0.0, accuracy, macs, parameters, zeros, outcome)

    def _holds(self, stop: _Stop) -> bool:
        return self._start - stop.accuracy <= self.max_drop + 1e-9

    def _shares(self, model: keras.Model) -> tuple[float | None, float, float]:
        now = summary(model)
        macs = None if now.macs is None or not self._total.macs else now.macs / self._total.macs
        return macs, now.parameters / self._total.parameters, now.sparsity

    def _answers(self, model: keras.Model) -> Any:
        # Called as it is: predict() would compile every model on the road anew.
        return joined([keras.tree.map_structure(as_array, model(b.inputs, training=False)) for b in self.val])


def _stages(console: Any) -> tuple[Any, Any]:
    """Bars for the steps, and the callback that moves them; rich is imported only here, where something is shown."""
    from rich.console import Console

    from tfprune.progress import Stages, TrainingProgress

    return Stages(console or Console(stderr=True)), TrainingProgress


def _budget(level: float) -> dict[str, float]:
    return {"macs": level, "parameters": level}


def _inputs(data: Sequence[Batch]) -> Any:
    return joined([batch.inputs for batch in data])


def _first(data: Sequence[Batch], count: int) -> tuple[Any, Any]:
    whole = (_inputs(data), joined([batch.targets for batch in data]))
    return keras.tree.map_structure(lambda array: array[:count], whole)
