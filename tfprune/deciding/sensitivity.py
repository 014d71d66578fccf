"""How much a model loses when one weight or channel group alone is pruned: which layers can give most."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tfprune.channels import channel_groups
from tfprune.deciding import criteria, patterns
from tfprune.deciding.amounts import is_share
from tfprune.deciding.criterion import Context, Criterion
from tfprune.deciding.method import Masks
from tfprune.deciding.patterns import Pattern
from tfprune.deciding.selection import smallest
from tfprune.deciding.structured import BoundStructured, Structured
from tfprune.errors import PruningError, answer_of, in_plot, listed, listing, nearest, number
from tfprune.model.aliases import under_aliases
from tfprune.model.copying import clone_with_weights
from tfprune.model.data import Batch, batches, joined
from tfprune.model.direction import chosen_mode, mode_of
from tfprune.model.drawing import CURVES, as_shares, draw_curves, draw_heat
from tfprune.model.metrics import DECIDED, compiled_metric, found_metrics
from tfprune.model.prunable import PrunableWeight, every_weight, prunable_weights
from tfprune.model.signature import flat_outputs
from tfprune.model.tree import as_array, check_model
from tfprune.progress import shown, stage
from tfprune.report import Column, Report, new_figure, saved

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Sensitivity(Report):
    """The metric of a model with one weight pruned, for each weight and level.

    Attributes:
        metric: What was measured.
        dense: The metric of the model as it is.
        levels: The sparsities tried.
        values: Key of a weight (or name of a channel group) -> the metric at each level.
        sizes: Likewise -> its number of entries (or channels).
        samples: How many samples were read each time.
        mode: `"max"` where a large value of the metric is better, else `"min"`; `""` to be told by its name.
    """

    title = "Sensitivity"

    metric: str = ""
    dense: float = 0.0
    levels: Sequence[float] = ()
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    samples: int = 0
    mode: str = ""

    @property
    def columns(self) -> Sequence[Column]:  # type: ignore[override]
        """A column for each level."""
        return [Column("weight", "weight"), *(Column(f"{level:g}", f"{level:.0%}", ".4f") for level in self.levels)]

    def rows(self) -> list[dict[str, Any]]:
        return [
            {"weight": key, **{f"{level:g}": value for level, value in zip(self.levels, values)}}
            for key, values in self.values.items()
        ]

    def notes(self) -> list[str]:
        return [
            f"{self.metric} with that share of one weight or group pruned; {self.dense:.4f} unpruned. "
            f"{self.samples} samples."
        ]

    def losses(self, key: str) -> np.ndarray:
        """How much worse the metric gets for a weight at each level, never falling from level to level."""
        change = np.asarray(self.values[key], float) - self.dense
        mode = self.mode or mode_of(self.metric) or "max"
        worse = change if mode == "min" else -change
        return np.maximum.accumulate(np.maximum(worse, 0.0))

    def amounts(self, sparsity: float) -> dict[str, float]:
        """A sparsity for every weight, so that each costs the same and all together have the sparsity asked for.

        Args:
            sparsity: Overall share of zeros (or of channels) over all that was measured, in [0, 1).

        Returns:
            What `Percentile(..., allocation=...)` takes, or `Structured(...)` where channels were measured.

        Raises:
            PruningError: A sparsity outside [0, 1).
        """
        if not is_share(sparsity):
            raise PruningError(f"amounts: {sparsity} is no sparsity in [0, 1); write 0.8 for 80 % zeros.")
        total, level = sum(self.sizes.values()), self._levels_at()
        low, high = 0.0, 2.0
        for _ in range(60):  # halving until the tolerance is exact to the last entry
            middle = (low + high) / 2
            removed = sum(size * level(key, middle) for key, size in self.sizes.items())
            low, high = (middle, high) if removed < sparsity * total else (low, middle)
        counts = {key: int(size * level(key, high)) for key, size in self.sizes.items()}
        excess = sum(counts.values()) - round(sparsity * total)
        for key in sorted(counts, key=lambda key: -counts[key]):
            step = max(min(excess, counts[key]), counts[key] - self.sizes[key] + 1)
            counts[key], excess = counts[key] - step, excess - step
        return {key: count / self.sizes[key] for key, count in counts.items()}

    def _levels_at(self) -> Callable[[str, float], float]:
        """The sparsity of a weight at a tolerance: up to 1 within what was measured, up to 2 beyond it."""
        losses = {key: self.losses(key) for key in self.values}
        worst = max((float(loss[-1]) for loss in losses.values()), default=0.0) or 1.0
        # A hair's breadth for every level, so that levels of equal loss come one after the other.
        places = {key: [0.0, *(loss / worst + 1e-6 * np.asarray(self.levels)), 2.0] for key, loss in losses.items()}
        return lambda key, tolerance: float(np.interp(tolerance, places[key], [0.0, *self.levels, 1.0]))

    def plot(self, path: Any = None, amounts: Any = None) -> Any:
        """Draws the metric over the sparsity, a line for each weight; of more than eight what each loses as a map.

        Args:
            path: Where to save the picture. Defaults to None: nowhere.
            amounts: What was chosen, to be marked: a sparsity overall, or one for each weight as `amounts` gives them.
                Defaults to None: nothing.

        Returns:
            The matplotlib figure.
        """
        chosen = {} if amounts is None else amounts if isinstance(amounts, Mapping) else self.amounts(amounts)
        several = len(self.values) > CURVES
        figure = new_figure(9, 1.8 + 0.22 * min(len(self.values), 41) if several else 5)
        axes = figure.subplots()
        if several:
            losses = {key: self.losses(key).tolist() for key in self.values}
            places = {key: float(np.interp(amount, self.levels, range(len(self.levels))))
                      for key, amount in chosen.items()}  # fmt: skip
            image = draw_heat(axes, [f"{level:.0%}" for level in self.levels], losses, places)
            figure.colorbar(image, ax=axes, label=in_plot(f"{self.metric}: how much worse than {self.dense:.4g}"))
        else:
            curves = {key: [self.dense, *values] for key, values in self.values.items()}
            draw_curves(axes, [0.0, *self.levels], curves, chosen)
            axes.set_ylabel(in_plot(self.metric))
            as_shares(axes.xaxis)
            if "accuracy" in self.metric:
                as_shares(axes.yaxis)
            figure.legend(loc="outside right upper", fontsize=8)
        marked = f"; marked: {'dots' if several else 'rings'} at the amounts chosen" if chosen else ""
        axes.set_title(f"{self.title}{marked}")
        axes.set_xlabel("share of zeros in one weight or group alone")
        return saved(figure, path)


def sensitivity(
    model: keras.Model,
    data: Any,
    metric: Any = None,
    levels: Sequence[float] = LEVELS,
    criterion: Any = "magnitude",
    pattern: Any = "element",
    layers: Any = None,
    verbose: int = 1,
    mode: str | None = None,
) -> Sensitivity:
    """Prunes each weight alone to several levels and measures the model each time.

    One copy of the model is compiled once; only values of weights change from one measurement to the next.

    Args:
        model: A built model, compiled unless `metric` is a function or a Keras metric; it is left as it is.
        data: Inputs and targets, anything that `fit` takes; inputs alone for the difference from the outputs of the
            model as it is.
        metric: Name of a metric that the model is compiled with, `"loss"`, `"iou"`, `"dice"` or `"f1"`; a Keras metric;
            a function of (targets, outputs), or one of a model, that gives a number. Defaults to None: the first
            metric that the model is compiled with, else its loss; without targets the difference of outputs.
        levels: Sparsities in (0, 1), rising. Defaults to 0.1, 0.2, ... 0.9.
        criterion: A criterion of the weight alone. Defaults to `"magnitude"`.
        pattern: Defaults to `"element"`; the levels count its units. `"channel"` removes channels of one group at a
            time, with everything that belongs to them, and knows `criterion` and `layers` of `Structured`.
        layers: Which layers. Defaults to None: all.
        verbose: 0 shows no progress, 1 (default) a bar in a terminal and lines elsewhere, 2 lines.
        mode: `"max"` where a large value is better, `"min"` where a small one is. Defaults to None: asked of the
            metric, or told by its name; a function of a model with a name that tells nothing is taken as `"max"`.

    Raises:
        PruningError: Wrong levels, an unknown metric, a mode that contradicts it, a model that is not compiled, no data
            or no targets.

    Example:
        report = tfprune.sensitivity(model, (x_val, y_val))
        pruned = tfprune.prune(model, tfprune.Percentile(0.8, allocation=report.amounts(0.8)))
    """
    check_model(model, "measure the sensitivity of")
    levels = [number("levels: a level", level) for level in listed("levels", levels, "(0.5, 0.8, 0.9)")]
    if not levels or levels != sorted(set(levels)) or not 0.0 < levels[0] <= levels[-1] < 1.0:
        raise PruningError(f"levels={levels} are no rising sparsities in (0, 1); write levels=(0.5, 0.8, 0.9).")
    criterion = criteria.get(criterion)
    copy = clone_with_weights(model)
    collected = list(batches(data, copy, "sensitivity"))
    name, chosen, measure = _measure(copy, collected, metric, mode)
    if pattern == "channel":
        candidates = list(_of_groups(copy, criterion, levels, layers))
    else:
        candidates = list(_of_weights(copy, criterion, patterns.get(pattern), levels, layers))
    variables = {weight.key: weight.variable for weight in every_weight(copy)}
    values: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    with shown(verbose), stage("measure sensitivity", total=len(candidates) * len(levels)) as bar:
        for key, size, candidate in candidates:
            sizes[key], values[key] = size, []
            before: dict[str, np.ndarray] = {}
            for level in levels:
                for changed, mask in candidate(level).items():
                    if changed not in before:
                        before[changed] = as_array(variables[changed])
                    variables[changed].assign(np.where(mask, before[changed], 0.0))
                values[key].append(measure())
                bar.advance()
            for changed, value in before.items():
                variables[changed].assign(value)
    return Sensitivity(name, measure(), levels, values, sizes, sum(batch.size for batch in collected), chosen)


# What is pruned alone: its name, its size, and the masks at a level.
Candidate = tuple[str, int, Callable[[float], Masks]]


def _of_weights(
    model: keras.Model, criterion: Criterion, pattern: Pattern, levels: Sequence[float], layers: Any
) -> Iterator[Candidate]:
    for weight in prunable_weights(model, layers):
        pattern.check(weight.key, weight.shape)
        yield weight.key, int(np.prod(weight.shape)), _unit_masks(weight, criterion, pattern)


def _unit_masks(weight: PrunableWeight, criterion: Criterion, pattern: Pattern) -> Callable[[float], Masks]:
    entries = criteria.score(criterion, as_array(weight.variable), Context(weight.key))
    units = pattern.unit_scores(entries, criterion, weight.input_axis)

    def masks(level: float) -> Masks:
        chosen = smallest([units], round(level * units.size))[0]
        return {weight.key: pattern.mask(chosen, entries, weight.input_axis)}

    return masks


def _of_groups(model: keras.Model, criterion: Criterion, levels: Sequence[float], layers: Any) -> Iterator[Candidate]:
    groups = channel_groups(model)
    bound = BoundStructured(Structured(max(levels), criterion=criterion, layers=layers), model, model, groups)
    for name, scores in bound.scores().items():

        def masks(level: float, name: str = name, scores: np.ndarray = scores) -> Masks:
            return groups.masks({name: ~smallest([scores], round(level * scores.size))[0]})

        yield name, scores.size, masks


def _asked(metric: Callable[[keras.Model], float], name: str, model: keras.Model) -> float:
    return number(f"metric {name}: value", answer_of(f"The metric {name}", metric, model))


def _measure(
    model: keras.Model, data: list[Batch], metric: Any, mode: str | None
) -> tuple[str, str, Callable[[], float]]:
    """The name of the metric, the way it is better, and a function that measures it, compiled once."""
    if callable(metric) and _takes_a_model(metric):
        name = getattr(metric, "__name__", "metric")
        return name, chosen_mode(name, mode, mode_of(name) or mode or "max", False), lambda: _asked(metric, name, model)
    if (metric is not None and not isinstance(metric, str)) or data[0].targets is None:
        return _judged(model, data, metric, mode)
    if not model.compiled:
        raise PruningError(
            f"sensitivity needs a metric, but '{model.name}' is not compiled. Compile it with metrics=['accuracy'], or "
            "give metric= a Keras metric, or a function of (targets, outputs) or of a model."
        )
    model.make_test_function()

    def logs() -> dict[str, float]:
        # What `evaluate` does, without its new iterator and callbacks each time, which cost more than a small model.
        model.reset_metrics()
        for batch in data:
            found = model.test_function(iter([tuple(batch)]))
        return {key: float(value) for key, value in found.items()}

    with under_aliases(model):  # traced here, and never again
        known = logs()
    name = metric or next((key for key in known if key != "loss"), "loss")
    if name in known:
        return name, chosen_mode(name, mode, mode_of(name, compiled_metric(model, name))), lambda: logs()[name]
    if name not in DECIDED:
        raise PruningError(
            f"'{model.name}' is compiled without the metric {name!r}; {listing(known)}. {nearest(name, known)}"
        )
    return _judged(model, data, metric, mode)


def _judged(model: keras.Model, data: list[Batch], metric: Any, mode: str | None) -> tuple[str, str, Any]:
    """A metric of answers, as `compress` and `verify` judge by it."""
    import tensorflow as tf

    forward = tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True, autograph=False)

    def answers() -> list[np.ndarray]:
        with under_aliases(model):
            return joined([[as_array(part) for part in flat_outputs(forward(batch.inputs))] for batch in data])

    (found, *more) = found_metrics(model, data, metric, mode, answers(), "sensitivity")
    if more:
        raise PruningError(
            f"sensitivity measures one metric, and {listing(each.name for each in (found, *more))} are "
            f"{1 + len(more)}; give one, or a function of (targets, outputs)."
        )
    return found.name, found.mode, lambda: found(answers())


def _takes_a_model(metric: Callable[..., Any]) -> bool:
    """Whether a function is one of a model, and not of targets and outputs."""
    if isinstance(metric, keras.metrics.Metric) or metric is keras.metrics.Metric:
        return False
    try:
        taken = [each for each in inspect.signature(metric).parameters.values() if each.default is each.empty]
    except (TypeError, ValueError):
        return False
    return len(taken) == 1 and taken[0].kind is not taken[0].VAR_POSITIONAL
