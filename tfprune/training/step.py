"""The compiled training step: made anew when it has other work to do, and freed of what a broken run left in it."""

from collections.abc import Callable
from typing import Any

import keras

from tfprune.model.hooks import forget_traces


def retrace(model: keras.Model) -> None:
    """Makes the next training step be compiled anew, so that it sees the constraints as they are now.

    That of `fit`, and every step of a user's own that `tf.function` compiled with weights of the model.
    """
    forget_traces(model.weights)
    if model.compiled and model.train_function is not None:
        # Of the class, for that of the instance may be an `Undoing`.
        type(model).make_train_function(model, force=True)


class Undoing:
    """Takes what runs have added to a model's step back out when `fit` is called again after they broke off.

    Keras tells callbacks nothing of an interruption: `on_train_end` is not called then. But every `fit` begins with
    `model.make_train_function()`, in whose place this stands while a run goes on.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self.run = self._history()
        self.undo: list[Callable[[], None]] = []

    def __call__(self, force: bool = False) -> Any:
        if self._history() is not self.run:
            del self.model.make_train_function
            for undo in self.undo:
                undo()
            force = True
        return type(self.model).make_train_function(self.model, force)

    def _history(self) -> Any:
        """The last run's history: every `fit` sets a new one, a loop of the user's over `train_on_batch` does not."""
        return getattr(self.model, "history", None)


def begin(model: keras.Model, undo: Callable[[], None]) -> None:
    """Takes note of what is to be done when this run breaks off, before the next one begins."""
    if "make_train_function" not in vars(model):
        model.make_train_function = Undoing(model)
    model.make_train_function.undo.append(undo)


def end(model: keras.Model, undo: Callable[[], None]) -> None:
    """Does it now, at the orderly end of a run."""
    waiting = vars(model).get("make_train_function")
    if isinstance(waiting, Undoing) and undo in waiting.undo:
        waiting.undo.remove(undo)
        if not waiting.undo:
            del model.make_train_function
    undo()
