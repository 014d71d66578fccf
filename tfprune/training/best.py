"""Keras' callbacks that look for the best epoch: shown only epochs that count, and weights restored with their masks.

An epoch counts once the schedule has reached its last amount. `EarlyStopping`, `ModelCheckpoint(save_best_only=True)`,
`ReduceLROnPlateau` and what KerasTuner saves trials with are found in the list that is running, wherever they stand in
it; theirs are public attributes alone that are set, and set back.
"""

import hashlib
import inspect
import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

Masks = dict[str, np.ndarray]


def running_callbacks() -> list[keras.callbacks.Callback]:
    """The callbacks of the list that is calling one of them now; empty where a loop calls it by itself."""
    # A callback is not told what else is in the list. Any list that calls one stands above it on the stack. This
    # function is left out: the values of its own frame would hold that frame, and with it `fit` and the user's data.
    here = inspect.currentframe()
    frame = None if here is None else here.f_back
    del here
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            return list(caller.callbacks)
        frame = frame.f_back
    return []


class BestEpochs:
    """The callbacks of a run that look for the best epoch, and the masks of the epochs that they may come back to.

    Args:
        callbacks: All callbacks of the run.
        say: What tells the user of something.
    """

    def __init__(self, callbacks: Iterable[keras.callbacks.Callback], say: Callable[[str], None]):
        kinds = keras.callbacks
        found = list(callbacks)
        self._stopping = [callback for callback in found if isinstance(callback, kinds.EarlyStopping)]
        self._plateau = [callback for callback in found if isinstance(callback, kinds.ReduceLROnPlateau)]
        self._savers = [c for c in found if isinstance(c, kinds.ModelCheckpoint) and c.save_best_only]
        self._set_back: list[tuple[Any, str, Any]] = []
        self._masks: dict[int, Masks] = {}
        self._seen: dict[bytes, int] = {}  # digest of masks -> the last epoch that had them
        self._last: tuple[Masks, Masks, bytes] | None = None
        for callback in self._savers:
            if callback.best is not None and math.isfinite(callback.best):
                say(
                    f"ModelCheckpoint begins with {callback.monitor}={float(callback.best):.4g} from before this run "
                    "and saves only what is better; a new ModelCheckpoint looks among the epochs of this run."
                )
        for callback in self._stopping:
            self._until_reached(callback, "start_from_epoch", sys.maxsize)
        for callback in self._savers:
            self._until_reached(callback, "best", math.nan)  # nothing is better than it
        of_tuners = [callback for callback in found if type(callback).__module__.startswith("keras_tuner.")]
        for callback in (each for each in of_tuners if hasattr(each, "best_value")):
            self._until_reached(callback, "best_value", math.nan)
        self._tuners = [each.tuner for each in of_tuners if hasattr(each, "tuner")]

    def _until_reached(self, callback: Any, name: str, value: Any) -> None:
        self._set_back.append((callback, name, getattr(callback, name)))
        setattr(callback, name, value)

    def reached(self) -> None:
        """From now on epochs count; also the end of a run, after which callbacks are as they were."""
        for callback, name, value in self._set_back:
            setattr(callback, name, value)
        self._set_back = []

    def refuse_scores(self) -> None:
        """Raises at the end of an epoch before the target, which a tuner would choose as the trial's best.

        Raises:
            keras_tuner.errors.FatalError: A trial is scored by the best epoch of its `History`. KerasTuner goes on
                after any other error, and says nothing of it.
        """
        for tuner in self._tuners if self.waiting else []:
            if type(tuner.hypermodel).fit.__module__.startswith("keras_tuner."):
                import keras_tuner

                raise keras_tuner.errors.FatalError(
                    "KerasTuner takes for the score of a trial the best of all its epochs, those before the target "
                    "sparsity too. Let a HyperModel say it: def fit(self, hp, model, *args, **kwargs): return "
                    "model.fit(*args, **kwargs).history['val_loss'][-1]; or begin at the target: "
                    "tfprune.PercentilePruning(tfprune.Constant(0.8))."
                )

    @property
    def waiting(self) -> bool:
        """Whether the target is not reached yet."""
        return bool(self._set_back)

    def begin_epoch(self, reached: bool) -> None:
        """Forgets the masks of epochs that were not the best; lets plateaus be looked for anew until the target."""
        best = {callback.best_epoch for callback in self._restoring()}
        self._masks = {epoch: masks for epoch, masks in self._masks.items() if epoch in best}
        for callback in [] if reached else self._plateau:
            callback.on_train_begin()

    def end_epoch(self, epoch: int, masks: Masks) -> None:
        """Takes note of the masks that an epoch ended with."""
        if self._last is None or any(self._last[0].get(key) is not mask for key, mask in masks.items()):
            packed = {key: np.packbits(mask) for key, mask in masks.items()}
            self._last = (masks, packed, _digest(packed))
        self._seen[self._last[2]] = epoch
        if any(callback.restore_best_weights for callback in self._stopping):
            self._masks[epoch] = self._last[1]

    def restored(self, model: keras.Model) -> tuple[list[np.ndarray], Masks] | None:
        """The weights that EarlyStopping brings back at the end, or has brought back, with the masks of their epoch."""
        for callback in reversed(self._restoring()):
            if callback.model is model and callback.best_epoch in self._masks:
                return callback.best_weights, self._masks[callback.best_epoch]
        return None

    def epoch_of(self, masks: Masks) -> int | None:
        """The epoch that ended with exactly these masks."""
        return self._seen.get(_digest({key: np.packbits(mask) for key, mask in masks.items()}))

    def _restoring(self) -> list[Any]:
        return [c for c in self._stopping if c.restore_best_weights and c.best_weights is not None]


def unpacked(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask that was kept as bits."""
    return np.unpackbits(packed, count=math.prod(shape)).astype(bool).reshape(shape)


def _digest(packed: Masks) -> bytes:
    found = hashlib.sha256()
    for key in sorted(packed):
        found.update(key.encode() + packed[key].tobytes())
    return found.digest()
