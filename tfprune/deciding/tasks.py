"""What each output's loss asks of the weights, on one scale for all outputs: the statistic of several tasks at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.deciding.configured import is_config
from tfprune.deciding.statistics import LossStatistic, slopes
from tfprune.errors import PruningError, listing, nearest, number
from tfprune.model.hooks import compile_arguments
from tfprune.model.signature import flat_outputs, output_names
from tfprune.model.tree import as_array

ops = keras.ops


class TaskGradients(LossStatistic):
    """The squares of the gradients of each output's loss, weighted and added up on one scale.

    The scale of an output is the rise of its loss, by its Fisher matrix, that all weights together stand for which it
    shares with other outputs; where it shares none, that of all its own.
    """

    name = "task_gradients"

    def prepare(self) -> None:
        super().prepare()
        self._losses: dict[str, Any] = {}
        self.shares = dict(getattr(self.criterion, "weights", None) or {})

    def finish(self, means: list[np.ndarray]) -> list[np.ndarray]:
        squares = [np.square(np.asarray(as_array(weight.variable), np.float64)) for weight in self.weights]
        rises = np.array([[np.sum(each * square) for each in mean] for mean, square in zip(means, squares)])
        shared = (rises > 0).sum(axis=1) > 1
        parts = []
        for task, name in enumerate(self._losses):
            total = rises[shared, task].sum() or rises[:, task].sum()
            parts.append(self.shares.get(name, 1.0) / total if total else 0.0)
        return [np.tensordot(parts, mean, 1).astype(np.float32) for mean in means]

    def _measured(self, inputs: Any, targets: Any, sample_weight: Any) -> Any:
        import tensorflow as tf

        with tf.GradientTape(persistent=True) as tape:
            tape.watch(self.variables)
            outputs = self.model(inputs, training=False)
            losses = self._by_output(outputs, targets, sample_weight)
        found = [slopes(tape, loss, self.variables) for loss in losses]
        return tf.add_n(losses), [tf.stack([tf.square(each) for each in of]) for of in zip(*found)]

    def _by_output(self, outputs: Any, targets: Any, sample_weight: Any) -> list[Any]:
        """The loss of each output that has one."""
        names = output_names(self.model, outputs)
        self._losses = self._told(names)
        known, weights = _parts(targets, names), _parts(sample_weight, names, alike=True)
        values = []
        for name, output in zip(names, flat_outputs(outputs)):
            if name not in self._losses:
                continue
            if known.get(name) is None:
                raise PruningError(f"{self.criterion!r} needs targets for the output '{name}'; {_how(names)}")
            values.append(_loss(self._losses[name], known[name], output, weights.get(name)))
        return values

    def _told(self, names: Sequence[str]) -> dict[str, Any]:
        """Name of an output -> its loss.

        Raises:
            PruningError: A loss or a weight is for an output that is not there, or no output has a loss or counts.
        """
        given = self.loss if self.loss is not None else compile_arguments(self.model).get("loss")
        for argument, of in (("loss", given), ("weights", self.shares)):
            unknown = [str(name) for name in of if name not in names] if isinstance(of, Mapping) else []
            if unknown and not is_config(of):
                raise PruningError(
                    f"{self.criterion!r}: {argument} names the output {listing(unknown)}. {nearest(unknown[0], names)}"
                )
        parts = _parts(given, names, alike=True)
        losses = {name: parts[name] for name in names if parts.get(name) is not None}
        if not losses:
            raise PruningError(
                f"{self.criterion!r} needs the losses of the outputs {listing(names)}, and '{self.model.name}' is "
                f"compiled with none; name them: MultiTask(loss={{'{names[0]}': 'mse'}})."
            )
        if not any(self.shares.get(name, 1.0) for name in losses):
            raise PruningError(f"{self.criterion!r} leaves no output that counts; give one of them more than 0.")
        return {name: keras.losses.get(loss) for name, loss in losses.items()}


def _parts(given: Any, names: Sequence[str], alike: bool = False) -> dict[str, Any]:
    """What is given for each output: by name, in the order of the outputs, or one for the only one or for all."""
    if isinstance(given, Mapping) and not is_config(given):
        return dict(given)
    if isinstance(given, (list, tuple)) and len(given) == len(names):
        return dict(zip(names, given))
    return dict.fromkeys(names if alike else names[:1], given)


def _loss(loss: Any, targets: Any, outputs: Any, weights: Any) -> Any:
    """A loss as one number, as `fit` makes it of a batch."""
    if len(targets.shape) == len(outputs.shape) - 1 and outputs.shape[-1] == 1:
        targets = ops.expand_dims(targets, -1)
    if isinstance(loss, keras.losses.Loss):
        return loss(targets, outputs, sample_weight=weights)
    values = loss(targets, outputs)
    if weights is not None:
        values = values * ops.reshape(ops.cast(weights, values.dtype), (-1, *[1] * (len(values.shape) - 1)))
    return ops.mean(values)


def _how(names: Sequence[str]) -> str:
    return f"write data=(x, {{{', '.join(f'{name!r}: ...' for name in names)}}})."


def shares_of(weights: Any) -> dict[str, float] | None:
    """The weights of outputs, checked.

    Raises:
        PruningError: They are no mapping of names to numbers of 0 or more.
    """
    if weights is None:
        return None
    if not isinstance(weights, Mapping) or not weights:
        raise PruningError(
            f"MultiTask: weights={weights!r} says nothing of the outputs; write weights={{'kind': 2.0, 'box': 1.0}}."
        )
    return {
        str(name): number(f"MultiTask: weights[{name!r}]", share, 0, write="1.0") for name, share in weights.items()
    }
