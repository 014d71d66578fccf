"""Certificates: is the shrunk model the same function as the masked one?"""

import enum
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfprune.channels.branches import Bypass, zero_branches
from tfprune.channels.dead import dead_channels, dead_groups
from tfprune.channels.plan import ShrinkPlan, why_kept
from tfprune.channels.rules import has_rule
from tfprune.channels.sizes import Sizes
from tfprune.errors import PruningError
from tfprune.model.data import batches
from tfprune.model.graph import is_graph
from tfprune.model.inline import inputs_of, opened, sample
from tfprune.model.tree import as_array, check_model
from tfprune.report import Column, Panel, Report, draw_bars, saved

TOLERANCE = 1e-5
"""Largest difference, relative to the output's scale, that rounding in float32 accounts for."""


class Exactness(enum.Enum):
    """How the smaller model relates to the masked one."""

    EXACT = "exact: only zeros were removed"
    FOLDED = "exact after folding a constant into a bias"
    EQUAL = "equal on these inputs, not proven for others"
    APPROXIMATE = "approximate"


class Certificate(Report):
    """The largest difference between two models, per output, and what is known beyond the inputs that were tried.

    Attributes:
        exactness: The class of exactness.
        largest: Largest difference over all outputs, relative to the scale of each.
        samples: How many inputs were compared.
        plan: The channels that went from one model to the other, with the reasons; None where that is not known.
    """

    title = "Certificate"
    columns = (
        Column("output", "output"),
        Column("shape", "shape"),
        Column("scale", "scale", ".3g"),
        Column("difference", "largest difference", ".2e"),
        Column("relative", "relative to scale", ".2e"),
    )

    def __init__(
        self, rows: Sequence[dict[str, Any]], exactness: Exactness, samples: int, plan: ShrinkPlan | None = None
    ):
        self._rows = list(rows)
        self.exactness = exactness
        self.samples = samples
        self.plan = plan

    @property
    def largest(self) -> float:
        """The largest difference of any output, relative to the scale of that output."""
        return max(row["relative"] for row in self._rows)

    def rows(self) -> list[dict[str, Any]]:
        return [dict(row) for row in self._rows]

    def totals(self) -> dict[str, Any]:
        return {"relative": self.largest}

    def notes(self) -> list[str]:
        return [f"{self.exactness.value} ({self.samples} inputs compared)."]

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws the channels of each group, kept and removed, with the reasons; the differences where none is known."""
        title = f"{self.title}: {self.exactness.value}"
        if self.plan is not None:
            reasons = [self.plan.why[name] for name in self.plan]
            return saved(draw_bars(title, list(self.plan), [self.plan.panel()], reasons), path)
        differences = {"": [row["relative"] for row in self._rows]}
        panel = Panel(f"largest difference over the output's scale (rounding: up to {TOLERANCE:g})", ".2e", differences)
        return saved(draw_bars(title, [row["output"] for row in self._rows], [panel]), path)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "exactness": self.exactness.name.lower(), "samples": self.samples}


def certify(
    masked: keras.Model,
    shrunk: keras.Model,
    data: Any = None,
    *,
    samples: int = 8,
    seed: int = 0,
    plan: ShrinkPlan | None = None,
) -> Certificate:
    """Compares the outputs of a masked model with those of the smaller one.

    Args:
        masked: The model before shrinking, with the zeros of its masks.
        shrunk: The model after.
        data: Inputs in any form that `fit` takes, targets being left aside. Default: `samples` random ones of the
            standard normal distribution (0 and 1 where an input holds whole numbers).
        samples: How many random inputs.
        seed: Of the random inputs.
        plan: That of `plan_shrink(masked)`, so that the masked model is not traced anew.

    Returns:
        The differences, and the class of exactness: exact when the smaller model has just the channels that can be
        shown to be dead in the masked one, so that the difference is rounding; else what the comparison says.

    Raises:
        PruningError: the models have different inputs or outputs, or the outputs are not finite.
    """
    check_model(masked, "certify")
    check_model(shrunk, "certify")
    before, after = _outputs(masked, shrunk, (_random_inputs(masked, samples, seed),) if data is None else data)
    if len(before) != len(after):
        raise PruningError(f"'{masked.name}' has {len(before)} outputs, '{shrunk.name}' {len(after)}.")
    rows: list[dict[str, Any]] = []
    for name, left, right in zip(_names(masked, len(before)), before, after):
        if left.shape != right.shape:
            raise PruningError(f"Output '{name}' has shape {left.shape} in one model and {right.shape} in the other.")
        if not np.isfinite(left).all():
            raise PruningError(f"Output '{name}' of '{masked.name}' is not finite on these inputs; give others.")
        scale = float(np.abs(left).max()) if left.size else 0.0
        difference = float(np.abs(left - right).max()) if left.size else 0.0
        relative = difference / scale if scale else float(difference > 0)
        rows.append(
            {
                "output": name,
                "shape": "x".join(map(str, left.shape[1:])) or "1",
                "scale": scale,
                "difference": difference,
                "relative": relative,
            }
        )
    count = len(before[0])
    largest = max((row["relative"] for row in rows), default=0.0)
    exactness, carried_out = _exactness(masked, shrunk, largest, plan)
    return Certificate(rows, exactness, count, plan or carried_out)


def _exactness(
    masked: keras.Model, shrunk: keras.Model, largest: float, plan: ShrinkPlan | None
) -> tuple[Exactness, ShrinkPlan | None]:
    """The class of exactness, and where it is proven the channels that went."""
    if not largest <= TOLERANCE:
        return Exactness.APPROXIMATE, None
    if is_graph(shrunk):
        traced = plan is not None and not plan.approximate and plan.groups.holds_for(masked, values=True)
        if plan is not None and traced:
            groups = plan.groups
            keep, folds = dead_channels(groups)
        else:
            groups, keep, folds = dead_groups(masked)
        sizes, gone = Sizes(groups, groups.removed(keep)), Bypass(groups, zero_branches(groups)).weights
        graph = opened(masked, "A certificate", has_rule).graph
        left = [sizes.size(variable) for variable in graph.weights if id(variable) not in gone]
        found = [tuple(v.shape) for v in shrunk.weights]
        if left == found or (gone and sorted(left) == sorted(found)):  # without a branch layers change places
            why = {name: why_kept(group, keep[name], "dead") for name, group in groups.items()}
            return (Exactness.FOLDED if folds else Exactness.EXACT), ShrinkPlan(groups, keep, why, "", folds=folds)
    return Exactness.EQUAL, None


def _outputs(masked: keras.Model, shrunk: keras.Model, data: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The outputs of both models on the same batches."""
    found: tuple[list[Any], list[Any]] = ([], [])
    for batch in batches(data, masked, "certify()"):
        for model, outputs in zip((masked, shrunk), found):
            outputs.append([as_array(x) for x in keras.tree.flatten(model(batch.inputs, training=False))])
    before, after = ([np.concatenate(parts).astype(np.float64) for parts in zip(*outputs)] for outputs in found)
    return before, after


def _names(model: keras.Model, count: int) -> list[str]:
    names = list(getattr(model, "output_names", None) or [])
    return names if len(names) == count else [f"output_{index}" for index in range(count)]


def _random_inputs(model: keras.Model, samples: int, seed: int) -> Any:
    try:
        inputs = inputs_of(model)
    except PruningError as error:
        raise PruningError(f"'{model.name}' does not tell the shapes of its inputs; give data.") from error
    generator = np.random.default_rng(seed)

    def draw(spec: Any) -> np.ndarray:
        return np.asarray(
            sample(spec, [samples, *(16 if size is None else size for size in spec.shape[1:])], generator)
        )

    return inputs.pack([draw(spec) for spec in inputs.specs])
