"""Pruning at once, without training."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import keras
import numpy as np

from tfprune.deciding import methods
from tfprune.deciding.depth import StructuredDepth
from tfprune.deciding.method import Method
from tfprune.deciding.statistics import Statistics
from tfprune.deciding.structured import BoundStructured, Structured
from tfprune.errors import PruningError
from tfprune.model.altered import altered_kernels, refuse_altered
from tfprune.model.copying import clone_with_weights
from tfprune.model.data import batches, finite
from tfprune.model.tree import as_array, check_model
from tfprune.oneshot.reordering import reordered
from tfprune.oneshot.repair.channel_choice import choose_channels
from tfprune.oneshot.repair.reconstruct import Reconstruction, check_way, warn_of_skipped
from tfprune.oneshot.repair.reconstruct import reconstruct as repair
from tfprune.progress import shown
from tfprune.report import Column, Panel, Report, draw_bars, saved
from tfprune.training.masks import get_masks, put_masks


@dataclass(frozen=True)
class Pruning(Report):
    """What `prune` did: zeros of every weight, batches that were read, and the error before and after a repair."""

    title: ClassVar[str] = "Pruning"
    columns: ClassVar[Sequence[Column]] = (
        Column("weight", "weight"),
        Column("entries", "entries", ",d"),
        Column("zeros", "zeros", ",d"),
        Column("sparsity", "sparsity", ".2%"),
        Column("before", "error before", ".4f"),
        Column("after", "error after", ".4f"),
    )

    method: Method
    masks: Mapping[str, np.ndarray] = field(repr=False)
    statistics: Statistics = field(default_factory=Statistics)
    reconstruction: Reconstruction | None = None

    @property
    def sparsity(self) -> float:
        """The share of zeros among all entries that masks lie on."""
        return self.totals()["sparsity"]

    def rows(self) -> list[dict[str, Any]]:
        repairs = {r.key: r for r in self.reconstruction.repairs} if self.reconstruction is not None else {}
        rows = []
        for key, mask in self.masks.items():
            done, zeros = repairs.get(key), mask.size - int(np.count_nonzero(mask))
            rows.append(
                {
                    "weight": key,
                    "entries": mask.size,
                    "zeros": zeros,
                    "sparsity": zeros / mask.size,
                    "before": None if done is None else done.before,
                    "after": None if done is None else done.after,
                }
            )
        return rows

    def totals(self) -> dict[str, Any]:
        entries = sum(mask.size for mask in self.masks.values())
        zeros = entries - sum(int(np.count_nonzero(mask)) for mask in self.masks.values())
        return {"entries": entries, "zeros": zeros, "sparsity": zeros / entries if entries else 0.0}

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws the entries of each weight that are kept and that are zero, beside the errors of a repair."""
        rows = self.rows()
        entries = {"kept": [row["entries"] - row["zeros"] for row in rows], "zero": [row["zeros"] for row in rows]}
        panels = [Panel("entries", ",d", entries), Panel("zeros", ".1%", {"zero": [row["sparsity"] for row in rows]})]
        if self.reconstruction is not None:
            errors = {f"{key} the repair": [row[key] for row in rows] for key in ("before", "after")}
            panels.append(Panel("error over the output", ".4f", errors, stacked=False))
        return saved(draw_bars(self.title, [row["weight"] for row in rows], panels), path)

    def notes(self) -> list[str]:
        notes = [f"By {self.method!r}."]
        if self.statistics.batches:
            read = self.statistics
            notes.append(f"The criterion read {read.samples} samples in {read.batches} batches.")
        if self.reconstruction is not None:
            notes += [f"Repair: {note}" for note in self.reconstruction.notes()]
        return notes


def prune(
    model: keras.Model,
    method: Any,
    data: Any = None,
    reconstruct: Any = None,
    return_report: bool = False,
    verbose: int = 1,
    *,
    reorder: bool = False,
) -> Any:
    """A new model pruned to the method's final amount, without training.

    The masks are held in any training that follows, so `prune` then `fit` is one-shot pruning with fine-tuning;
    `strip_masks` makes the result a plain model.

    Args:
        model: A built Keras 3 model; it is left as it is.
        method: `Percentile(0.8)`, `Threshold(0.05)`, ..., its config, or a sparsity.
        data: Anything that `fit` takes, for a criterion that needs data (`(x, y)` where it needs a loss) and for
            `reconstruct` (some hundreds of inputs, no labels). Defaults to None.
        reconstruct: Repair of what is left, see `oneshot/repair`: None (default), `"batch_norm"`, `"least_squares"`,
            `"obs"` (also chooses anew which entries of each weight stay, or which channels of each
            group, as many as the method says), or True: `"obs"`, for thresholds `"least_squares"`.
        return_report: Whether to return `(model, report)`: zeros of every weight, how many batches a data criterion
            read, and the error of every layer before and after a repair. Defaults to False.
        verbose: 0 shows no progress, 1 (default) a bar in a terminal and lines elsewhere, 2 lines.
        reorder: Whether the hidden channels are put in another order first, in which the blocks of the method's pattern
            keep more; the model computes the same, which is checked. For patterns such as `"4x1"`. Defaults to False.

    Raises:
        PruningError: The model is not built, or the method finds nothing to prune in it; a repair without data; a
            kernel to which LoRA adds, or which Keras keeps in integers.

    Example:
        pruned = tfprune.prune(model, tfprune.Percentile(0.8), data=images[:1000], reconstruct=True)
    """
    method = methods.get(method)
    check_model(model, "prune")
    way = _way(reconstruct, method, data)
    refuse_altered(altered_kernels(model, method.layers))
    with shown(verbose):
        model = reordered(model, method) if reorder else model
        pruned, report = _pruned(model, method, data, way)
    if report.reconstruction is not None:
        warn_of_skipped(report.reconstruction)
    return (pruned, report) if return_report else pruned


def _pruned(model: keras.Model, method: Method, data: Any, way: str | None) -> tuple[keras.Model, Pruning]:
    """The new model, repaired in one of `WAYS` or not, and what was done."""
    pruned = clone_with_weights(model)
    bound = method.bind(pruned)
    statistics = bound.inform(model, data)
    before = get_masks(model)
    kept = {weight.key: before.get(weight.key, as_array(weight.variable) != 0) for weight in bound.weights}
    if way == "obs" and isinstance(bound, BoundStructured):
        purpose = "reconstruct='obs'"
        data = list(finite(batches(data, model, purpose), purpose))  # once: the repair below reads them too
        decided, way = choose_channels(bound, method.final, model, data, kept), "least_squares"
    else:
        decided = bound.decide(method.final, kept)
    put_masks(pruned, decided)
    done = None
    if way is not None:
        done = repair(pruned, model, data, way, getattr(method, "pattern", None))
    masks = get_masks(pruned)
    masks = {weight.key: masks.get(weight.key, np.ones(weight.shape, bool)) for weight in bound.weights}
    return pruned, Pruning(method, masks, statistics, done)


def _way(reconstruct: Any, method: Method, data: Any) -> str | None:
    """The name of the repair, once it is known to be possible."""
    if reconstruct is None or reconstruct is False:
        return None
    way = "least_squares" if reconstruct is True and not method.by_share else check_way(reconstruct)
    if way == "obs" and not method.by_share:
        units = "channels" if isinstance(method, Structured) else "entries"
        raise PruningError(
            f"reconstruct='obs' chooses which {units} stay, which a threshold has decided; "
            "write reconstruct='least_squares' or True."
        )
    if isinstance(method, StructuredDepth) and way != "batch_norm":
        raise PruningError(
            f"reconstruct={reconstruct!r}: a branch that is gone has no weights left to repair; write "
            "reconstruct='batch_norm' or None, and fine-tune."
        )
    if data is None:
        raise PruningError(f"reconstruct={way!r} needs data: write data=images[:1000]; labels are not needed.")
    return way
