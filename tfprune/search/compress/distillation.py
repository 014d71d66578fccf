"""Fine-tuning that also learns from the answers of the unpruned model, where this version of Keras can."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.model.copying import clone_with_weights
from tfprune.model.data import Batch, batches, joined, whole_batch
from tfprune.model.judge import decision_of
from tfprune.training.teaching import distill

TEMPERATURE = 3.0
STUDENT_SHARE = 0.5  # of the loss on the labels; the rest is the distance from the teacher
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
            arguments.update(x=x, y=y, sample_weight=weights, batch_size=self._batch_size)
        else:
            arguments.update(x=self._train)
        trained.fit(**arguments, callbacks=[*following, decay])

    def _taught(self, model: keras.Model) -> keras.Model:
        """What trains the model on its targets and on the unpruned model's answers."""
        if self._labelled and _gives_one_class(self._teacher) and hasattr(keras, "distillation"):
            return self._with_teacher(model)
        return distill(model, self._teacher, temperature=TEMPERATURE, share=STUDENT_SHARE)

    def _with_teacher(self, model: keras.Model) -> keras.Model:
        teacher = clone_with_weights(self._teacher, keep_compiled=False)
        kind = _log_probabilities() if _ends_in_softmax(teacher) else keras.distillation.LogitsDistillation
        distiller = keras.distillation.Distiller(
            teacher=teacher,
            student=model,
            # Its default, a name, becomes a function that Keras 3.15 gives logits as if they were probabilities.
            distillation_losses=kind(temperature=TEMPERATURE, loss=keras.losses.KLDivergence()),
            student_loss_weight=STUDENT_SHARE,
        )
        distiller.compile(
            optimizer=model.optimizer,
            loss=self._teacher.loss,
            jit_compile=self._teacher.jit_compile,
            run_eagerly=self._teacher.run_eagerly,
            steps_per_execution=self._teacher.steps_per_execution,
        )
        return distiller


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


def _log_probabilities() -> Any:
    """The distillation of logits for models that give probabilities, whose logarithms are logits."""

    class Probabilities(keras.distillation.LogitsDistillation):
        def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Any:
            def logits(probabilities: Any) -> Any:
                return keras.ops.log(keras.ops.maximum(probabilities, keras.config.epsilon()))

            return super().compute_loss(logits(teacher_outputs), logits(student_outputs), **kwargs)

    return Probabilities


def _obstacle(teacher: keras.Model) -> str | None:
    """Why the unpruned model cannot teach, None where it can."""
    if type(teacher).train_step is not keras.Model.train_step:
        return (
            "Fine-tuned without the unpruned model as teacher: its class has a train_step of its own, which may need "
            "another loss."
        )
    return None


def _gives_one_class(model: keras.Model) -> bool:
    return len(model.outputs) == 1 and model.outputs[0].shape[-1] != 1 and decision_of(model, "") != "values"


def _ends_in_softmax(model: keras.Model) -> bool:
    return decision_of(model, model.output_names[0] if hasattr(model, "output_names") else "") == "class"


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


def first_samples(train: Any, model: keras.Model, count: int) -> Batch:
    """Some of the training data: their inputs are to find the ranges of activations with."""
    read = list(batches(train, model, "compress", argument="train", at_most=count))
    return Batch(joined([batch.inputs for batch in read]), read[0].targets)
