"""What every callback that decides masks has in common: steps counted, masks held, the best epoch kept whole."""

import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfprune.deciding.criterion import Context, TrainingStatistic, needed
from tfprune.deciding.method import BoundMethod
from tfprune.deciding.salience import DataCriterion
from tfprune.deciding.schedules import BoundSchedule, Schedule
from tfprune.errors import PruningError, listing, printable
from tfprune.model.altered import telling_of_altered
from tfprune.model.hooks import is_resumed
from tfprune.model.prunable import PrunableWeight
from tfprune.model.tree import check_model, snapshot
from tfprune.training import step
from tfprune.training.best import BestEpochs, running_callbacks, unpacked
from tfprune.training.building import build_as_fit_would
from tfprune.training.gradients import GradientRecord, Rule
from tfprune.training.masks import constraint_of, fitting, hold, hold_no_more, new_mask
from tfprune.training.run import Run, nonzero
from tfprune.training.trained import leave_frozen, nothing_trains, pruned_part

MANY_ZEROS = 0.1  # share from which on zeros without a mask are those of an earlier pruning


class MaskCallback(keras.callbacks.Callback):
    """Base of the callbacks that decide masks: counts optimizer steps and updates when a schedule says so.

    The step is counted from the epoch and batch that Keras reports, so a run that goes on from `initial_epoch` or
    from `BackupAndRestore` goes on with its schedule. `sparsity` (share of zeros among the weights that are pruned)
    is added to the logs of each epoch; list this callback before those that write logs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.left_alone: list[str] = []  # weights that a run did not prune, since they do not train
        self._runs: list[Run] = []
        self._best = BestEpochs([], self._say)
        self._loose = 0.0  # share of zeros that no mask held when the run began
        self._records: list[GradientRecord] = []
        self._epoch = 0
        self._seen = self._before = 0  # batches of this run, and those before this epoch; for data of unknown length

    def bound_methods(self) -> list[BoundMethod]:
        """The methods to follow, tied to the model's weights."""
        raise NotImplementedError

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        build_as_fit_would(self.model)
        check_model(self.pruned, "prune")
        self._refuse_accumulation_on_replicas()
        self._runs, self.left_alone = [], []
        self._seen = self._before = 0
        step.begin(self.model, self._leave_the_step)
        steps = None if self._batches is None else self._total_steps()
        with telling_of_altered(self.pruned):
            methods = self.bound_methods()
        for bound in self._trained(methods):
            self._refuse_others(bound)
            self._runs.append(Run(bound, self._laid_out(bound.method.schedule, steps)))
            self._record(bound)
        unheld = [weight for weight in self._weights() if constraint_of(weight.variable) is None]
        for weight in unheld:
            hold(weight.variable, new_mask(self.model, weight))
        if unheld:
            step.retrace(self.model)
        self._loose = self._loose_zeros()
        self._best = BestEpochs(running_callbacks(), self._say)

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._require_training("evaluate")

    def on_predict_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._require_training("predict")

    def _require_training(self, place: str) -> None:
        if not self._runs:  # `fit` evaluates too, and what has pruned there may be handed on
            raise PruningError(f"{type(self).__name__} prunes in fit and does nothing in {place}; leave it out there.")

    def _refuse_accumulation_on_replicas(self) -> None:
        replicas = self.model.distribute_strategy.num_replicas_in_sync
        if replicas > 1 and self._accumulation() > 1:
            raise PruningError(
                f"'{self.model.name}' is on {replicas} replicas, where Keras {keras.__version__} cannot accumulate "
                f"gradients (gradient_accumulation_steps={self._accumulation()}), pruned or not. Leave it out and give "
                "fit larger batches, or train on one device."
            )

    def _refuse_others(self, bound: BoundMethod) -> None:
        """Raises where a callback before this one decides masks of the same weights in this run."""
        own = {id(weight.variable): weight.key for weight in bound.weights}
        for other in running_callbacks():
            if other is self:
                return
            found = other._weights() if isinstance(other, MaskCallback) else []
            shared = [own[id(weight.variable)] for weight in found if id(weight.variable) in own]
            if shared:
                raise PruningError(
                    f"{type(other).__name__} and {type(self).__name__} both prune {listing(shared)} in this fit, and "
                    "each would undo the other's masks. Give each its own layers=, or run one fit after the other."
                )

    @property
    def pruned(self) -> keras.Model:
        """The model that is pruned: that which trains, or the student in it."""
        return pruned_part(self.model)

    def _trained(self, methods: list[BoundMethod]) -> list[BoundMethod]:
        """The bound methods over what trains; those left without a weight are dropped."""
        for bound in methods:
            self._leave(bound, bound.method.layers)
        if self.left_alone:
            self._say(
                f"{listing(self.left_alone)} left alone, for they do not train. To prune them, name them in layers=, "
                "or prune at once: tfprune.prune(model, method)."
            )
        found = [bound for bound in methods if bound.weights]
        if not found:
            raise nothing_trains(self.pruned, self.left_alone)
        return found

    def _leave(self, bound: BoundMethod, layers: Any) -> list[str]:
        left = leave_frozen(self.pruned, bound, layers)
        self.left_alone = list(dict.fromkeys([*self.left_alone, *left]))
        return left

    def _loose_zeros(self) -> float:
        """The share of zeros that no mask holds; a mask that does not fit loaded weights goes over to their zeros."""
        zeros = entries = 0
        for weight in self._weights():
            held, values = constraint_of(weight.variable), snapshot(weight.variable)
            mask = snapshot(held.mask) if held is not None else np.ones(weight.shape, bool)
            fits = fitting(mask, values)
            if fits is not mask and held is not None:
                held.mask.assign(fits)
            if weight.is_kernel:
                entries += values.size
                # All zeros is how a kernel was initialised, not pruned.
                zeros += int(np.count_nonzero(values == 0)) if mask.all() and values.any() else 0
        return zeros / entries if entries else 0.0

    def _warn_of_loose_zeros(self) -> None:
        # Zeros go first, so an amount that is as large from the first step on keeps them.
        kept = all(
            run.schedule(0) >= (self._loose - MANY_ZEROS if run.bound.method.by_share else 1e-9) for run in self._runs
        )
        if self._loose >= MANY_ZEROS and not kept:
            warnings.warn(
                f"tfprune: {self._loose:.0%} of the weights to prune in '{self.pruned.name}' are zero already, but no "
                "mask holds them (a stripped or loaded model has none), so training fills them and the ramp begins "
                "anew. To hold them, write before fit: tfprune.apply_masks(model, tfprune.get_masks(model))",
                stacklevel=2,
            )
        self._loose = 0.0

    def _say(self, text: str) -> None:
        if self.params is None or self.params.get("verbose", 1):
            print(f"tfprune: {printable(text)}")

    def _weights(self) -> list[PrunableWeight]:
        return [weight for run in self._runs for weight in run.bound.weights]

    def _follow(self, weights: list[PrunableWeight], name: str, rule: Rule) -> GradientRecord:
        """A record of gradients that is kept while this run goes on."""
        if getattr(self.model, "optimizer", None) is None:
            raise PruningError(
                f"{type(self).__name__} looks at gradients, which it finds in the optimizer of '{self.model.name}', "
                "but the model has none. Write model.compile(optimizer) with the optimizer that your loop uses."
            )
        record = GradientRecord(self.model, weights, name, rule)
        record.open()
        self._records.append(record)
        return record

    def _record(self, bound: BoundMethod) -> None:
        """Lets a criterion that looks at training see it; refuses one that needs a pass over data before."""
        bound.check_measured()
        criterion = bound.method.criterion
        needs = needed(criterion)
        if needs is not None and issubclass(needs, TrainingStatistic):
            bound.extras = self._follow(bound.scored, needs.name, needs.update)
        elif isinstance(criterion, DataCriterion) and bound.scored:
            criterion.statistic(Context(bound.scored[0].key))  # raises

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._epoch, self._before = epoch, self._seen
        if self._batches is None and epoch and not self._seen:
            raise PruningError(
                f"A run that goes on from epoch {epoch} goes on with its schedule, but the length of an epoch is not "
                "known. Write model.fit(..., steps_per_epoch=n)."
            )
        if epoch == 0 and not is_resumed(self.model):
            self._warn_of_loose_zeros()
        self._best.begin_epoch(self._reached())

    def _reached(self) -> bool:
        return all(run.reached for run in self._runs)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        accumulated = self._accumulation()
        steps = self._batches
        before = self._before if steps is None else self._epoch * steps
        # With steps_per_execution the host is asked once for several steps: what falls among them comes at their start.
        end = batch + self.model.steps_per_execution
        first, last = before + batch, before + (end if steps is None else min(end, steps)) - 1
        resumed = first > 0 or is_resumed(self.model)  # in a first epoch the number of the step may tell nothing
        for run in self._runs:
            run.advance(first // accumulated, last // accumulated, resumed)
        if self._best.waiting and self._reached():
            self._best.reached()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        # Keras begins one batch more where it did not know that the data are at their end.
        self._seen = self._before + batch + 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs["sparsity"] = self.sparsity
        self._best.refuse_scores()
        self._best.end_epoch(epoch, {key: mask for run in self._runs for key, mask in run.masks.items()})

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self._take_restored()
        for run in self._runs:
            run.finish()
        step.end(self.model, self._leave_the_step)

    def _take_restored(self) -> None:
        """Goes over to the masks of the epoch whose weights are brought back at the end."""
        restored = self._best.restored(self.model)
        if restored is not None:
            # EarlyStopping may stand behind this callback; then it does the same once more.
            self.model.set_weights(restored[0])
            for run in self._runs:
                run.take({w.key: unpacked(restored[1][w.key], w.shape) for w in run.bound.weights})
            return
        now = nonzero(self._weights())
        masks = {key: mask for run in self._runs for key, mask in run.masks.items()}
        if not any(np.any(now[key] & ~mask) for key, mask in masks.items()):
            return
        epoch = self._best.epoch_of(now)  # of a callback of the user's own, listed before
        if epoch is not None:
            for run in self._runs:
                run.take({weight.key: now[weight.key] for weight in run.bound.weights})
            warnings.warn(
                f"tfprune: the weights that were brought back are those of epoch {epoch + 1}, and so are their masks: "
                f"{self.sparsity:.2%} zeros. Let keras.callbacks.EarlyStopping bring back the best epoch; it looks "
                "among those that have reached the target.",
                stacklevel=2,
            )

    def _leave_the_step(self) -> None:
        """Takes out of the compiled step whatever this run added to it, but for the masks."""
        self._best.reached()
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

    @property
    def _batches(self) -> int | None:
        """The batches of an epoch; None for data of unknown length."""
        return self.params.get("steps")

    def _laid_out(self, schedule: Schedule, steps: int | None) -> BoundSchedule:
        """A schedule over this run; one in steps alone needs no length, and ends where it says."""
        if steps is None and schedule.is_in_steps:
            return schedule.bind(int(schedule.end) + 1)
        return schedule.bind(self._total_steps() if steps is None else steps)

    def _total_steps(self) -> int:
        if self._batches is None:
            raise PruningError(
                "The length of an epoch is not known, so the schedule cannot be laid out in shares of the run. Write "
                "model.fit(..., steps_per_epoch=n), or dataset.apply(tf.data.experimental.assert_cardinality(n)); or "
                "a schedule in steps, such as tfprune.Polynomial(0.0, 0.8, begin=0, end=500)."
            )
        steps = self.params["epochs"] * self._batches // self._accumulation()
        if not self.params["epochs"] * self._batches:
            raise PruningError("This run has no batches: the data are empty, or epochs=0. Give fit some samples.")
        if steps < 1:
            raise PruningError(
                f"gradient_accumulation_steps={self._accumulation()} is more than the "
                f"{self.params['epochs'] * self._batches} batches of this run, so no weight would ever change. "
                "Train longer, or accumulate fewer batches."
            )
        return steps
