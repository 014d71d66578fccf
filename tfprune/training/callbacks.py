"""Callbacks: decide masks while a model trains, and log its sparsity."""

import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfprune.deciding import methods
from tfprune.deciding.criterion import Context, TrainingStatistic, needed
from tfprune.deciding.method import BoundMethod, WeightMethod
from tfprune.deciding.methods import Percentile, Threshold
from tfprune.deciding.salience import DataCriterion
from tfprune.deciding.structured import Structured
from tfprune.errors import PruningError, listing
from tfprune.model.hooks import is_resumed
from tfprune.model.prunable import PrunableWeight, every_weight
from tfprune.model.tree import check_model, snapshot, wrapped_layers
from tfprune.training import step
from tfprune.training.gradients import GradientRecord, Rule
from tfprune.training.masks import constraint_of, hold, hold_no_more, new_mask
from tfprune.training.run import Run
from tfprune.training.wrapper import PrunedLayer


class MaskCallback(keras.callbacks.Callback):
    """Base of the callbacks that decide masks: counts optimizer steps and updates when a schedule says so.

    The step is counted from the epoch and batch that Keras reports, so a run that goes on from `initial_epoch` or
    from `BackupAndRestore` goes on with its schedule. `sparsity` (share of zeros among the weights that are pruned)
    is added to the logs of each epoch; list this callback before those that write logs.
    """

    def __init__(self) -> None:
        super().__init__()
        self._runs: list[Run] = []
        self._records: list[GradientRecord] = []
        self._epoch = 0

    def bound_methods(self) -> list[BoundMethod]:
        """The methods to follow, tied to the model's weights."""
        raise NotImplementedError

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        check_model(self.model, "prune")
        self._runs = []
        step.begin(self.model, self._leave_the_step)
        steps = self._total_steps()
        for bound in self.bound_methods():
            self._runs.append(Run(bound, bound.method.schedule.bind(steps)))
            self._record(bound)
        unheld = [weight for weight in self._weights() if constraint_of(weight.variable) is None]
        for weight in unheld:
            hold(weight.variable, new_mask(self.model, weight))
        if unheld:
            step.retrace(self.model)

    def _weights(self) -> list[PrunableWeight]:
        return [weight for run in self._runs for weight in run.bound.weights]

    def _follow(self, weights: list[PrunableWeight], name: str, rule: Rule) -> GradientRecord:
        """A record of gradients that is kept while this run goes on."""
        record = GradientRecord(self.model, weights, name, rule)
        record.open()
        self._records.append(record)
        return record

    def _record(self, bound: BoundMethod) -> None:
        """Lets a criterion that looks at training see it; refuses one that needs a pass over data before."""
        criterion = bound.method.criterion
        needs = needed(criterion)
        if needs is not None and issubclass(needs, TrainingStatistic):
            bound.extras = self._follow(bound.scored, needs.name, needs.update)
        elif isinstance(criterion, DataCriterion) and bound.scored:
            criterion.statistic(Context(bound.scored[0].key))  # raises

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        accumulated = self._accumulation()
        steps = self.params["steps"]
        first = self._epoch * steps + batch
        # With steps_per_execution the host is asked once for several steps: what falls among them comes at their start.
        last = self._epoch * steps + min(batch + self.model.steps_per_execution, steps) - 1
        resumed = first > 0 or is_resumed(self.model)  # in a first epoch the number of the step may tell nothing
        for run in self._runs:
            run.advance(first // accumulated, last // accumulated, resumed)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs["sparsity"] = self.sparsity

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        for run in self._runs:
            run.finish()
        step.end(self.model, self._leave_the_step)

    def _leave_the_step(self) -> None:
        """Takes out of the compiled step whatever this run added to it, but for the masks."""
        for record in self._records:
            record.close()
        self._records = []
        changed = [weight for weight in self._weights() if hold_no_more(weight.variable)]
        if changed:
            step.retrace(self.model)

    @property
    def sparsity(self) -> float:
        """The share of zeros among the weights that are pruned, now."""
        kept = [constraint_of(weight.variable) for weight in self._weights()]
        arrays = [snapshot(constraint.mask) for constraint in kept if constraint is not None]
        entries = sum(array.size for array in arrays)
        return 1.0 - sum(int(np.count_nonzero(array)) for array in arrays) / entries if entries else 0.0

    def _accumulation(self) -> int:
        optimizer = getattr(self.model, "optimizer", None)  # a loop of the user's own may not compile the model
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        return getattr(optimizer, "gradient_accumulation_steps", None) or 1

    def _total_steps(self) -> int:
        if self.params.get("steps") is None:
            raise PruningError(
                "The length of an epoch is not known, so the schedule cannot be laid out. Write "
                "model.fit(..., steps_per_epoch=n), or dataset.apply(tf.data.experimental.assert_cardinality(n))."
            )
        steps = self.params["epochs"] * self.params["steps"] // self._accumulation()
        if steps < 1:
            raise PruningError(
                f"gradient_accumulation_steps={self._accumulation()} is more than the "
                f"{self.params['epochs'] * self.params['steps']} batches of this run, so no weight would ever change. "
                "Train longer, or accumulate fewer batches."
            )
        return steps


def refuse_wrapped(model: keras.Model) -> None:
    """Raises for a model whose layers hold masks of their own."""
    if wrapped_layers(model):
        raise PruningError(
            f"'{model.name}' is wrapped: its layers hold their own masks and method. "
            "Write callbacks=[tfprune.UpdateMasks()] instead."
        )


class PruningCallback(MaskCallback):
    """Prunes a plain model while `fit` trains it, by any method.

    The masks go on holding after training, in further `fit` calls too; `strip_masks(model)` ends it. A second run with
    this callback goes up from the masks that are held. A stripped or loaded model holds none: its zeros are values,
    which `apply_masks(model, get_masks(model))` turns into masks again.

    Args:
        method: `Percentile(0.8)`, `Threshold(0.05)`, ..., its config, or a sparsity.

    Raises:
        PruningError: When `fit` begins: nothing to prune, a schedule that does not fit the run, a wrapped model.

    Example:
        model.fit(x, y, epochs=3, callbacks=[tfprune.PruningCallback(tfprune.Percentile(0.9))])
        plain = tfprune.strip_masks(model)
    """

    def __init__(self, method: Any):
        super().__init__()
        self.method = methods.get(method)

    def bound_methods(self) -> list[BoundMethod]:
        refuse_wrapped(self.model)
        return [self.method.bind(self.model)]


class ThresholdPruning(PruningCallback):
    """`PruningCallback(Threshold(...))`: takes the arguments of `Threshold`.

    Example:
        model.fit(x, y, epochs=3, callbacks=[tfprune.ThresholdPruning(0.5, unit="std")])
    """

    def __init__(
        self,
        amount: Any,
        criterion: Any = "magnitude",
        pattern: Any = "element",
        layers: Any = None,
        unit: str = "absolute",
    ):
        super().__init__(Threshold(amount, criterion, pattern, layers, unit))


class PercentilePruning(PruningCallback):
    """`PruningCallback(Percentile(...))`: takes the arguments of `Percentile`.

    Example:
        model.fit(x, y, epochs=3, callbacks=[tfprune.PercentilePruning(0.9)])
    """

    def __init__(
        self,
        amount: Any = None,
        criterion: Any = "magnitude",
        pattern: Any = "element",
        allocation: Any = "lamp",
        layers: Any = None,
    ):
        super().__init__(Percentile(amount, criterion, pattern, allocation, layers))


class StructuredPruning(PruningCallback):
    """`PruningCallback(Structured(...))`: takes the arguments of `Structured`.

    Example:
        model.fit(x, y, epochs=3, callbacks=[tfprune.StructuredPruning(0.5)])
        small = tfprune.shrink(tfprune.strip_masks(model))
    """

    def __init__(
        self,
        amount: Any,
        criterion: Any = "l2",
        allocation: Any = "global",
        budget: str = "channels",
        round_to: int = 1,
        min_channels: int = 1,
        layers: Any = None,
    ):
        super().__init__(Structured(amount, criterion, allocation, budget, round_to, min_channels, layers))


class UpdateMasks(MaskCallback):
    """Decides the masks of a wrapped model while `fit` trains it; the methods are those of its layers.

    Raises:
        PruningError: When `fit` begins: the model has no `PrunedLayer`, or a schedule does not fit the run.
    """

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        for layer in wrapped_layers(self.model):
            layer.updating = True

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        super().on_train_end(logs)
        for layer in wrapped_layers(self.model):
            layer.updating = False

    def bound_methods(self) -> list[BoundMethod]:
        by_method: dict[str, list[PrunedLayer]] = {}
        for layer in wrapped_layers(self.model):
            by_method.setdefault(repr(layer.method.get_config()), []).append(layer)
        if not by_method:
            raise PruningError(
                f"'{self.model.name}' has no PrunedLayer, so there are no masks to update. Write "
                "model = tfprune.wrap(model, tfprune.Percentile(0.8)), or use PercentilePruning(0.8) without wrapping."
            )
        return [self._bound(layers) for layers in by_method.values()]

    def _bound(self, layers: list[PrunedLayer]) -> BoundMethod:
        """The method of these layers over exactly the weights that carry their masks."""
        masked = {id(mask) for layer in layers for mask in layer.masks.values()}
        keys = [
            weight.key
            for weight in every_weight(self.model)
            if (held := constraint_of(weight.variable)) is not None and id(held.mask) in masked
        ]
        method = layers[0].method
        if isinstance(method, WeightMethod) and not isinstance(method.layers, Mapping):
            method = method.with_arguments(layers=keys)
        bound = method.bind(self.model)
        bound.weights = [weight for weight in bound.weights if weight.key in keys]
        left = sorted(set(keys) - {weight.key for weight in bound.weights})
        if left:
            raise PruningError(
                f"The wrapped layers carry masks for {listing(left)}, to which layers={layers[0].method.layers!r} of "
                "their method gives no amount. Name them there, or leave them out of masked=."
            )
        return bound


class SparsityLogger(keras.callbacks.Callback):
    """Writes the sparsity of every pruned weight to TensorBoard, at the end of each epoch.

    Scalars are `sparsity/<layer>/<weight>` and `sparsity/total`, counted from the weights themselves.

    Args:
        log_dir: Folder for the event files; made when missing.

    Example:
        model.fit(x, y, callbacks=[tfprune.PercentilePruning(0.9), tfprune.SparsityLogger("logs")])
    """

    def __init__(self, log_dir: str | os.PathLike[str]):
        super().__init__()
        self.log_dir = os.fspath(log_dir)
        self._writer: Any = None

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        import tensorflow as tf

        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self.log_dir)
        zeros = entries = 0
        with self._writer.as_default(step=epoch):
            for weight in every_weight(self.model):
                if not weight.is_kernel and constraint_of(weight.variable) is None:
                    continue
                array = snapshot(weight.variable)
                gone = array.size - int(np.count_nonzero(array))
                zeros, entries = zeros + gone, entries + array.size
                tf.summary.scalar(f"sparsity/{weight.key}", gone / array.size)
            tf.summary.scalar("sparsity/total", zeros / entries if entries else 0.0)
        self._writer.flush()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
