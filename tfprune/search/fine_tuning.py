"""Short training of a candidate before it is measured, in one compiled step for all of them."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.model.data import Batch, batches, whole_batch
from tfprune.model.prunable import every_weight
from tfprune.model.tree import as_array

BATCH_SIZE = 64


class FineTuning:
    """Trains a model under masks from where it is now, as often as it is called.

    Every candidate begins with the same weights, optimizer, and numbers of dropout and the like, and sees the same
    batches: what comes out depends on its masks alone.

    Args:
        model: A compiled model, which is trained in place.
        data: The batches, one a step.
    """

    def __init__(self, model: keras.Model, data: Sequence[Batch]):
        self._model, self._data = model, list(data)
        self._masked = {weight.key: weight.variable for weight in every_weight(model)}
        self._whole = {key: np.ones(tuple(variable.shape), bool) for key, variable in self._masked.items()}
        # With the generators of dropout and the like, which count on; copies of a model have other numbers there.
        self._variables = [*model.variables, *model.optimizer.variables]
        known = {id(variable) for variable in [*model.weights, *model.metrics_variables]}
        for number, state in enumerate(each for each in model.variables if id(each) not in known):
            state.assign(np.full(state.shape, number))
        self._start = [np.asarray(keras.ops.convert_to_tensor(variable)) for variable in self._variables]
        self._step = self._compiled()

    def restore(self) -> None:
        """Makes the model what it was in the beginning."""
        for variable, value in zip(self._variables, self._start):
            variable.assign(value)

    def __call__(self, masks: Mapping[str, np.ndarray]) -> None:
        """Trains the model; what is masked has to be zero, and stays so."""
        held = {**self._whole, **masks}
        for batch in self._data:
            self._step(batch.inputs, batch.targets, batch.weights, held)

    def _compiled(self) -> Any:
        import tensorflow as tf

        model, optimizer = self._model, self._model.optimizer

        @tf.function(autograph=False, reduce_retracing=True)
        def step(inputs: Any, targets: Any, weights: Any, masks: Mapping[str, Any]) -> None:
            with tf.GradientTape() as tape:
                outputs = model(inputs, training=True)
                loss = model.compute_loss(inputs, targets, outputs, weights, training=True)
                scaled = optimizer.scale_loss(loss)
            variables = model.trainable_variables
            optimizer.apply(tape.gradient(scaled, [variable.value for variable in variables]), variables)
            for key, variable in self._masked.items():
                variable.assign(tf.where(masks[key], variable.value, tf.zeros_like(variable.value)))

        return step


def training_batches(train: Any, steps: Any, model: keras.Model, seed: int) -> list[Batch]:
    """The batches that every candidate is trained on.

    Args:
        train: Arrays `(x, y)`, shuffled by the seed and read in batches of 64; or batches, the first of which
            are taken. Where they are fewer than the steps, they are taken again.
        steps: How many, None for none.
        model: Has to be compiled.
        seed: Of the order.

    Raises:
        PruningError: Steps without data or the other way round, data without targets, or a model that is not compiled.
    """
    if steps is None or steps == 0:
        if train is not None:
            raise PruningError("train is what fine_tune trains on; write fine_tune=50 for 50 steps, or leave it out.")
        return []
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise PruningError(f"fine_tune={steps!r} is no number of training steps; write fine_tune=50.")
    if train is None:
        raise PruningError(f"fine_tune={steps} needs data to train on; write train=(x, y).")
    if not model.compiled or model.optimizer is None:
        raise PruningError(f"fine_tune trains, but '{model.name}' is not compiled; compile it with optimizer and loss.")
    whole = whole_batch(train, model, "fine_tune", "train")
    if whole is not None:
        train = whole.taken(np.random.default_rng(seed).permutation(whole.size)[: steps * BATCH_SIZE])
    read = itertools.islice(batches(train, model, "fine_tune", BATCH_SIZE, "train"), steps)
    found = [keras.tree.map_structure(lambda array: None if array is None else as_array(array), each) for each in read]
    if found[0].targets is None:
        raise PruningError("fine_tune needs targets, and train has none; write train=(x, y).")
    return [found[step % len(found)] for step in range(steps)]
