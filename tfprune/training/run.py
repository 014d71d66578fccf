"""A method on its way through `fit`: at which steps it decides, from which masks it goes on, and how it ends."""

import warnings

import numpy as np

from tfprune.deciding.method import BoundMethod, Masks
from tfprune.deciding.methods import Threshold
from tfprune.deciding.schedules import BoundSchedule
from tfprune.model.prunable import PrunableWeight
from tfprune.model.tree import snapshot
from tfprune.training import masks
from tfprune.training.masks import constraint_of, set_mask


class Run:
    """A bound method on its way through a run: which of its moments have come, and the masks so far."""

    def __init__(self, bound: BoundMethod, schedule: BoundSchedule):
        self.bound, self.schedule = bound, schedule
        self.done = -1
        self._masks: Masks = {}
        self._settled = _settled(schedule)
        # Zeros that the run began with, and that its ramp does not give back on its way up; None until it is known.
        self._floor: int | None = None

    def advance(self, first: int, last: int, resumed: bool) -> None:
        """Decides the masks for the training steps `first` to `last`, where the schedule fires among them.

        Args:
            first, last: Numbers of optimizer steps.
            resumed: Whether the run goes on from the restored weights of an earlier one.
        """
        due = self.schedule.last_fired(last)
        if due is None or due <= self.done:
            return
        seen = getattr(self.bound.extras, "seen", True)
        if first < due and last < self.schedule.end and not seen:
            return  # steps of one execution have shown a criterion of training nothing yet; it decides before the next
        begins, self.done = self._floor is None, due
        kept = {weight.key: _kept(weight) for weight in self.bound.weights}
        amount = self.schedule(due)
        if begins and not seen and not amount and any(_is_decided(weight) for weight in self.bound.weights):
            self._set(kept)  # what the end of the ramp takes away is known after the first step
            return
        if begins:
            self._floor = self._zeros_to_keep(kept, resumed)
        if begins and due < first and self._floor and isinstance(self.bound.method, Threshold):
            # These masks were decided before an interruption. Deciding again would give the same, except by a
            # threshold, under which further weights have come since.
            self._set(kept)
            return
        self.bound.progress = (due - self.schedule.begin) / max(1, self.schedule.end - self.schedule.begin)
        decided = self.bound.decide(amount, kept) if amount > 0 else _nothing_pruned(kept)
        if not (self._floor and masks.zeros(decided) < self._floor):
            kept = decided
        del decided  # whichever are not set need no memory any more
        self._set(kept)

    def _zeros_to_keep(self, kept: Masks, resumed: bool) -> int:
        """The zeros that masks hold already when the run begins; 0 where the schedule ends below them on purpose."""
        # A run that goes on after an interruption finds the zeros of a plain model in its restored weights.
        if not (resumed or any(_is_decided(weight) for weight in self.bound.weights)):
            return 0
        found = masks.zeros(kept)
        return found if found and found <= masks.zeros(self.bound.decide(self.schedule.final, kept)) else 0

    @property
    def reached(self) -> bool:
        """Whether the amount is the last one for good."""
        return self.done >= self._settled

    @property
    def masks(self) -> Masks:
        """The masks that were decided last, or those that were held before."""
        return self._masks or {weight.key: _held(weight) for weight in self.bound.weights}

    def _set(self, decided: Masks) -> None:
        """Sets masks, each of which leaves the dict, so that no more than one is there twice."""
        self._masks = {}
        for weight in self.bound.weights:
            set_mask(weight.variable, decided.pop(weight.key))
            self._masks[weight.key] = _held(weight)  # the memory of the variable, not one more copy

    def take(self, masks: Masks) -> None:
        """Goes over to the masks of other weights, which are there already."""
        self._masks = dict(masks)
        for weight in self.bound.weights:
            held = constraint_of(weight.variable)
            if held is not None:  # before values are read through it, which may live on under a mask
                held.mask.assign(masks[weight.key])

    def apply(self) -> None:
        """Zeroes the weights under the masks that were decided last, once more."""
        self._set(self._masks)

    def finish(self) -> None:
        """Makes the zeros exact after whatever ended the run, and says so when the target was not reached."""
        self._set(self.masks)
        if not self.reached:
            reached = self.schedule(self.done) if self.done >= 0 else 0.0
            warnings.warn(
                f"tfprune: training stopped after step {self.done} of the schedule, at {reached:.4g}; its end at step "
                f"{self.schedule.end} with {self.schedule.final:.4g} was not reached. Let the run go on, or end the "
                "schedule sooner, such as end=0.5.",
                stacklevel=2,
            )


def _settled(schedule: BoundSchedule) -> int:
    """The first step of a schedule from which the amount stays what it is at the end."""
    steps = schedule.steps()
    other = [number for number, step in enumerate(steps) if schedule(step) != schedule.final]
    return steps[other[-1] + 1] if other else steps[0]


def nonzero(weights: list[PrunableWeight]) -> Masks:
    """Where weights are not zero now."""
    return {weight.key: snapshot(weight.variable) != 0 for weight in weights}


def _held(weight: PrunableWeight) -> np.ndarray:
    """The mask that is held now."""
    constraint = constraint_of(weight.variable)
    return np.ones(weight.shape, bool) if constraint is None else snapshot(constraint.mask)


def _is_decided(weight: PrunableWeight) -> bool:
    return not _held(weight).all()


def _kept(weight: PrunableWeight) -> np.ndarray:
    """The mask that is held; before anything was decided, the entries that are not zero yet."""
    mask = _held(weight)
    if not mask.all():
        return mask
    nonzero = snapshot(weight.variable) != 0
    return nonzero if nonzero.any() else mask  # all zeros is how a weight was initialised, not pruned


def _nothing_pruned(kept: Masks) -> Masks:
    return {key: np.ones_like(mask) for key, mask in kept.items()}
