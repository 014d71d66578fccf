"""Gradients as the optimizer is given them, handed on inside the compiled training step."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tfprune.model import hooks
from tfprune.model.copying import scope_of
from tfprune.model.prunable import PrunableWeight
from tfprune.model.tree import as_array, snapshot
from tfprune.training.step import retrace

# What becomes of a weight's state at a step: (state, gradient, value of the weight before the step) -> new state.
Rule = Callable[[Any, Any, Any], Any]


def latest(state: Any, gradient: Any, value: Any) -> Any:
    """The gradient of the last step."""
    return gradient


class GradientRecord(Mapping[str, Mapping[str, np.ndarray]]):
    """State that follows the gradients of weights while a model trains, readable as a criterion's extras.

    Gradients are those of the loss, dense also where a weight is masked: the mask holds the value, not the gradient.
    With gradient accumulation every batch counts. Each replica of a distributed model keeps the state of its own share
    of the batch, and what is read is their sum: no step has to wait for the other replicas.

    Args:
        model: A compiled model.
        weights: The weights to follow.
        name: Under which name the state is found in the extras.
        rule: What becomes of the state at each step; linear in the gradient and the state, for replicas to add up.
    """

    def __init__(self, model: keras.Model, weights: list[PrunableWeight], name: str, rule: Rule):
        self.model, self.name, self.rule = model, name, rule
        self._weights = {id(weight.variable): weight for weight in weights}
        with scope_of(model):
            self._states = {
                weight.key: keras.Variable(
                    np.zeros(weight.shape, np.float32), trainable=False, aggregation="sum", synchronization="on_read"
                )
                for weight in weights
            }
        # Around the loss-scaling optimizer of mixed precision, gradients are still scaled.
        self._optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        self._first = self._steps()

    @property
    def seen(self) -> bool:
        """Whether a step has been recorded yet."""
        return self._steps() > self._first

    def _steps(self) -> int:
        return int(as_array(self._optimizer.iterations))

    def open(self) -> None:
        """Begins to record: the next training step is compiled with it."""
        hooks.listen_to_gradients(self._optimizer, self._hear)
        retrace(self.model)

    def close(self) -> None:
        """Ends recording; what was recorded can still be read."""
        if hooks.stop_listening(self._optimizer):
            retrace(self.model)

    def _hear(self, gradient: Any, variable: Any) -> None:
        weight = self._weights.get(id(variable))
        if weight is not None and gradient is not None:
            self._take(weight, gradient, self._optimizer.loss_scale_factor)

    def _take(self, weight: PrunableWeight, gradient: Any, scale: float | None) -> None:
        import tensorflow as tf

        dense = tf.cast(tf.convert_to_tensor(gradient), tf.float32)  # embeddings give slices
        dense = dense if scale is None else dense / scale
        state = self._states[weight.key]
        state.assign(self.rule(state.value, dense, tf.cast(weight.variable.value, tf.float32)))

    def array(self, key: str) -> np.ndarray:
        """The state of a weight now."""
        return snapshot(self._states[key])

    def __getitem__(self, key: str) -> Mapping[str, np.ndarray]:
        if not self.seen:
            raise KeyError(key)
        return {self.name: self.array(key)}

    def __iter__(self) -> Any:
        return iter(self._states)

    def __len__(self) -> int:
        return len(self._states)
