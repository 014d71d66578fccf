"""Fine-tuning that also learns from the answers of the unpruned model, which are worked out once where they can."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.model.copying import clone_with_weights, scope_of
from tfprune.model.data import batches, joined, whole_batch
from tfprune.model.judge import decision_of
from tfprune.model.metrics import answers_of
from tfprune.training.teaching import Taught

TEMPERATURE = 3.0
STUDENT_SHARE = 0.5  # of the loss on the labels; the rest is the distance from the teacher
ANSWERED = 256  # samples at a time
REMEMBERED = 2**28  # bytes of the unpruned model's answers at most
LAST_RATE = 0.05  # the learning rate at the end, as a share of that at the beginning


class Tuning:
    """Trains models that came from one unpruned model.

    Args:
        teacher: The unpruned model, compiled; it is left as it is.
        train: What `fit` takes: `(x, y)`, or a dataset of batches.
        batch_size: For arrays.
        distill: Whether the unpruned model teaches, where it can.
        labelled: Whether the data have targets; without, the unpruned model's answers are all there is to learn.

    Attributes:
        note: Why the unpruned model does not teach, None where it does.

    Raises:
        PruningError: The length of an epoch is not known, or there is nothing to learn from.
    """

    def __init__(self, teacher: keras.Model, train: Any, batch_size: int, distill: bool = True, labelled: bool = True):
        self._teacher, self._train, self._batch_size, self._labelled = teacher, train, batch_size, labelled
        self._whole = whole_batch(train, teacher, "compress", "train")
        self.steps = _steps(train) if self._whole is None else -(-self._whole.size // batch_size)
        self.note = None if distill else "Fine-tuned without the unpruned model as teacher, as asked for."
        if distill:
            self.note = _obstacle(teacher)
        elif not labelled and not teacher.losses:
            raise PruningError(
                "distill=False leaves nothing to learn from, since train has no targets; leave it out, or give "
                "train=(x, y)."
            )
        # Copied here, so that a step draws the same random numbers whether or not another was made before it.
        self._frozen = None if self.note else clone_with_weights(teacher, keep_compiled=False)

    def __call__(
        self, model: keras.Model, epochs: int, callbacks: Sequence[keras.callbacks.Callback] = (), rate: float = 1.0
    ) -> None:
        """Trains a model in place.

        Args:
            model: A compiled model with the teacher's inputs and outputs.
            epochs: How long.
            callbacks: Callbacks that are to see this model, whatever trains it.
            rate: The first learning rate as a multiple of the one that the unpruned model was compiled with.
        """
        trained = model if self.note else self._taught(model)
        trained.optimizer.learning_rate = _rate(self._teacher) * rate
        following = [Follows(callback, model) for callback in callbacks]
        arguments: dict[str, Any] = {"epochs": epochs, "verbose": 0}
        decay = Decay(_rate(self._teacher) * rate, epochs * self.steps)
        if self._whole is not None:
            x, y, weights = self._whole
            if isinstance(trained, Remembering):
                # Weights beside a dict would be repeated for each of its parts.
                known = {"answers": self._answers, "targets": y, "weights": weights}
                y, weights = {name: part for name, part in known.items() if part is not None}, None
            arguments.update(x=x, y=y, sample_weight=weights, batch_size=self._batch_size)
        else:
            arguments.update(x=self._train)
        trained.fit(**arguments, callbacks=[*following, decay])

    def _taught(self, model: keras.Model) -> keras.Model:
        """What trains the model on its targets and on the unpruned model's answers."""
        kind = Remembering if self._answers is not None else Asking
        with scope_of(model):
            taught = kind(model, self._frozen, STUDENT_SHARE, TEMPERATURE)
        taught.gives_logits = self._labelled and _gives_logits(self._teacher)
        return taught.compiled_as(self._teacher)

    @functools.cached_property
    def _answers(self) -> list[np.ndarray] | None:
        """The unpruned model's answers to all training data; None where they come in batches, or are too large."""
        if self._whole is None:
            return None
        read = batches(self._train, self._teacher, "compress", ANSWERED, "train")
        first = answers_of(self._teacher, [next(read)])
        size = sum(array.nbytes for array in first) / len(first[0]) * self._whole.size
        if size > REMEMBERED:
            return None
        return joined([first, *(answers_of(self._teacher, [batch]) for batch in read)])


class Asking(Taught):
    """A student with its teacher, which may give logits of classes."""

    gives_logits = False

    def kind_of(self, name: str) -> str:
        return "logits" if self.gives_logits else super().kind_of(name)


class Remembering(Asking):
    """A student whose teacher has answered before: answers come beside targets and weights, and it is not run again."""

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        return self.joint_loss((x, y.get("targets"), y_pred, y.get("weights")), y["answers"], training=training)


class Follows(keras.callbacks.Callback):
    """Shows a callback the student where Keras trains the model that holds it."""

    def __init__(self, callback: keras.callbacks.Callback, model: keras.Model):
        super().__init__()
        self._callback, self._student = callback, model

    def set_model(self, model: Any) -> None:
        self._callback.set_model(self._student)

    def set_params(self, params: Any) -> None:
        self._callback.set_params(params)

    def on_train_begin(self, logs: Any = None) -> None:
        self._callback.on_train_begin(logs)

    def on_train_end(self, logs: Any = None) -> None:
        self._callback.on_train_end(logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._callback.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._callback.on_epoch_end(epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._callback.on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._callback.on_train_batch_end(batch, logs)


class Decay(keras.callbacks.Callback):
    """Lowers the learning rate along a half cosine."""

    def __init__(self, first: float, steps: int):
        super().__init__()
        self._first, self._steps, self._step = first, max(steps, 1), 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        share = min(1.0, self._step / self._steps)
        self.model.optimizer.learning_rate = self._first * (
            LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * share)) / 2
        )
        self._step += 1


def _obstacle(teacher: keras.Model) -> str | None:
    """Why the unpruned model cannot teach, None where it can."""
    if type(teacher).train_step is not keras.Model.train_step:
        return (
            "Fine-tuned without the unpruned model as teacher: its class has a train_step of its own, which may need "
            "another loss."
        )
    return None


def _gives_logits(model: keras.Model) -> bool:
    """Whether the one output of a model seems to be logits of classes."""
    return len(model.outputs) == 1 and model.outputs[0].shape[-1] != 1 and decision_of(model, "") == "open"


def _rate(model: keras.Model) -> float:
    """The learning rate that a model was compiled with; of a schedule the first."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    configured = optimizer.get_config().get("learning_rate")
    if isinstance(configured, dict):
        schedule = keras.optimizers.schedules.deserialize(configured)
        return float(np.asarray(schedule(0)))
    return float(np.asarray(model.optimizer.learning_rate if configured is None else configured))


def _steps(train: Any) -> int:
    """Optimizer steps in an epoch of batches."""
    if hasattr(train, "cardinality") and int(train.cardinality()) > 0:
        return int(train.cardinality())
    if getattr(train, "num_batches", None):
        return int(train.num_batches)
    raise PruningError(
        "compress has to know the length of an epoch; give train=(x, y), or "
        "dataset.apply(tf.data.experimental.assert_cardinality(n))."
    )
