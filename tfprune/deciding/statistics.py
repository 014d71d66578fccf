"""What criteria look at besides the weights, gathered in one compiled pass over data: gradients, curvature, inputs."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tfprune.deciding.criterion import Criterion, Statistic, TrainingStatistic, needed
from tfprune.errors import PruningError, listing
from tfprune.model.activations import activated, has_activation, observed
from tfprune.model.copying import clone_with_weights
from tfprune.model.data import Batch, batches
from tfprune.model.layers import LinearForm, channel_axis
from tfprune.model.prunable import every_weight, linear_form
from tfprune.model.tree import places
from tfprune.progress import stage


@dataclass(frozen=True)
class Statistics:
    """What was gathered.

    Attributes:
        extras: Key of a weight -> name of the statistic -> array of the weight's shape.
        batches: How many batches were read; 0 where no data are needed.
        samples: How many samples they held.
    """

    extras: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    batches: int = 0
    samples: int = 0

    def __str__(self) -> str:
        return f"{len(self.extras)} weights, from {self.samples} samples in {self.batches} batches"


def gather(model: keras.Model, keys: Iterable[str], criterion: Criterion, data: Any = None) -> Statistics:
    """Gathers what a criterion needs for some weights of a model; the model is left as it is.

    Args:
        model: A built model.
        keys: Keys of the weights.
        criterion: Says what it needs, and with which loss. Where it needs nothing, or what only `fit` can tell,
            nothing is gathered.
        data: Anything that `fit` takes; with targets where the criterion uses a loss.

    Raises:
        PruningError: No data, targets missing or not fitting, no loss, a loss that is NaN, or a weight for which the
            statistic is not defined.
    """
    kind = needed(criterion)
    if kind is None or issubclass(kind, TrainingStatistic):
        return Statistics()
    copy = clone_with_weights(model)
    by_key = {weight.key: weight for weight in every_weight(copy)}
    weights = [by_key[key] for key in keys]
    statistic = kind(copy, weights, criterion)
    totals: list[np.ndarray] = []
    count = samples = 0
    if kind.reads_data:
        purpose = repr(criterion)
        with stage(f"gather {kind.name}", total=None) as bar:
            for batch in batches(data, copy, purpose):
                found = [np.asarray(array, np.float64) * batch.size for array in statistic(batch)]
                totals = [total + new for total, new in zip(totals, found)] if totals else found
                count, samples = count + 1, samples + batch.size
                bar.advance()
    arrays = statistic.finish([total / samples for total in totals])
    return Statistics({w.key: {kind.name: array} for w, array in zip(weights, arrays)}, count, samples)


# Makes of as many directions the product of the Hessian with them.
Product = Callable[[list[Any]], list[Any]]


class LossStatistic(Statistic):
    """Base of what follows from the gradients of the loss; a subclass says what, for a batch."""

    def prepare(self) -> None:
        import tensorflow as tf

        self.loss = getattr(self.criterion, "loss", None)
        if self.loss is None and not self.model.compiled:
            raise PruningError(
                f"{self.criterion!r} needs a loss, but '{self.model.name}' is not compiled. Compile it, or name the "
                f'loss: {type(self.criterion).__name__}(loss="sparse_categorical_crossentropy").'
            )
        self.variables = [weight.variable.value for weight in self.weights]
        self._step = tf.function(self._measured, reduce_retracing=True, autograph=False)

    def of_gradients(self, gradients: list[Any], product: Product) -> list[Any]:
        """The measure of each weight, from the gradients and, where asked for, products with the Hessian."""
        raise NotImplementedError

    def __call__(self, batch: Batch) -> list[np.ndarray]:
        if batch.targets is None:
            raise PruningError(f"{self.criterion!r} needs targets for its loss; write data=(x, y).")
        try:
            loss, found = self._step(batch.inputs, batch.targets, batch.weights)
        except PruningError:
            raise
        except (ValueError, TypeError) as error:
            raise PruningError(
                f"{self.criterion!r}: the loss cannot be computed for targets of shape "
                f"{[tuple(np.shape(target)) for target in keras.tree.flatten(batch.targets)]}. "
                f"{str(error).splitlines()[-1].strip()}"
            ) from error
        if not np.isfinite(loss):
            raise PruningError(
                f"{self.criterion!r}: the loss is {float(loss)} on a batch of the data, so no importance follows from "
                "it. Look for NaN in the inputs or the weights."
            )
        return found

    def _loss(self, inputs: Any, targets: Any, sample_weight: Any) -> Any:
        outputs = self.model(inputs, training=False)
        if self.loss is None:
            return self.model.compute_loss(inputs, targets, outputs, sample_weight, training=False)
        return keras.ops.mean(keras.losses.get(self.loss)(targets, outputs))

    def _measured(self, inputs: Any, targets: Any, sample_weight: Any) -> Any:
        import tensorflow as tf

        with tf.GradientTape() as outer:
            outer.watch(self.variables)
            with tf.GradientTape() as inner:
                inner.watch(self.variables)
                loss = self._loss(inputs, targets, sample_weight)
            gradients = slopes(inner, loss, self.variables)

            def product(directions: list[Any]) -> list[Any]:
                along = tf.add_n([tf.reduce_sum(g * direction) for g, direction in zip(gradients, directions)])
                return slopes(outer, along, self.variables)

            return loss, self.of_gradients(gradients, product)


def slopes(tape: Any, value: Any, variables: list[Any]) -> list[Any]:
    """The gradients of a value, dense also where embeddings give slices, and zero where nothing depends on them."""
    import tensorflow as tf

    found = tape.gradient(value, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [tf.convert_to_tensor(gradient) for gradient in found]


class MeanGradient(LossStatistic):
    """The gradient of the loss."""

    name = "gradient"

    def of_gradients(self, gradients: list[Any], product: Product) -> list[Any]:
        return gradients


class MeanSquaredGradient(LossStatistic):
    """The squares of the gradients of batches."""

    name = "squared_gradient"

    def of_gradients(self, gradients: list[Any], product: Product) -> list[Any]:
        return [gradient * gradient for gradient in gradients]


class Curvature(LossStatistic):
    """The diagonal of the Hessian by Hutchinson's method: signs at random times the Hessian times the same signs."""

    name = "curvature"

    def prepare(self) -> None:
        import tensorflow as tf

        super().prepare()
        self.random = tf.random.Generator.from_seed(0)

    def of_gradients(self, gradients: list[Any], product: Product) -> list[Any]:
        signs = [self._signs(gradient) for gradient in gradients]
        return [sign * found for sign, found in zip(signs, product(signs))]

    def _signs(self, like: Any) -> Any:
        import tensorflow as tf

        draw = self.random.uniform(tf.shape(like), 0, 2, tf.int32)
        return tf.cast(2 * draw - 1, like.dtype)


class GradientFlow(LossStatistic):
    """The Hessian times the gradient."""

    name = "gradient_flow"

    def of_gradients(self, gradients: list[Any], product: Product) -> list[Any]:
        return product([keras.ops.stop_gradient(gradient) for gradient in gradients])


class LayerStatistic(Statistic):
    """Base of what is measured at the layers of weights while the model runs."""

    reads_outputs = False

    def prepare(self) -> None:
        import tensorflow as tf

        self.layers = self.watched([weight.place.layer for weight in self.weights])
        forms = [linear_form(weight) for weight in self.weights]
        unknown = [
            weight.key
            for weight, form in zip(self.weights, forms)
            if form is None or (self.reads_outputs and not form.is_last)
        ]
        if unknown:
            raise PruningError(
                f"{self.criterion!r} is not defined for {listing(unknown)}, which multiply their inputs in another way "
                'than dense and convolution layers do; leave them out with layers=, or use "magnitude" or "taylor".'
            )
        self.forms: list[LinearForm] = [form for form in forms if form is not None]
        self._step = tf.function(self._measured, reduce_retracing=True, autograph=False)

    def watched(self, layers: list[keras.Layer]) -> list[keras.Layer]:
        """The layers to look at for the layers of the weights."""
        return layers

    def measure(self, form: LinearForm, layer: keras.Layer, calls: list[tuple[Any, Any]]) -> Any:
        """The measure of one layer, from the inputs and outputs of its calls in a batch."""
        raise NotImplementedError

    def matrix(self, mean: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
        """The mean of the measure, for a kernel written as `(groups, features, outputs)`."""
        raise NotImplementedError

    def __call__(self, batch: Batch) -> list[np.ndarray]:
        return self._step(batch.inputs)

    def _measured(self, inputs: Any) -> list[Any]:
        calls: dict[int, list[tuple[Any, Any]]] = {id(layer): [] for layer in self.layers}

        def record(layer: keras.Layer, taken: Any, outputs: Any) -> None:
            calls[id(layer)].append((taken, outputs))

        with observed(self.layers, record):
            self.model(inputs, training=False)
        return [self.measure(form, layer, calls[id(layer)]) for form, layer in zip(self.forms, self.layers)]

    def finish(self, means: list[np.ndarray]) -> list[np.ndarray]:
        shapes = [form.shape for form in self.forms]
        matrices = [np.broadcast_to(self.matrix(mean, shape), shape) for mean, shape in zip(means, shapes)]
        return [form.to_kernel(matrix).astype(np.float32) for form, matrix in zip(self.forms, matrices)]


class InputScale(LayerStatistic):
    """The root mean square of the input that an entry is multiplied with."""

    name = "input_scale"

    def measure(self, form: LinearForm, layer: keras.Layer, calls: list[tuple[Any, Any]]) -> Any:
        rows = keras.ops.concatenate([form.rows(taken) for taken, _ in calls], axis=1)
        return keras.ops.mean(keras.ops.square(keras.ops.cast(rows, "float32")), axis=1)

    def matrix(self, mean: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
        return np.sqrt(mean)[:, :, None]


class ChannelOutput(LayerStatistic):
    """What comes out of a channel, behind its batch norm and activation, shared evenly by the entries that make it."""

    name = "activation"
    reads_outputs = True

    def watched(self, layers: list[keras.Layer]) -> list[keras.Layer]:
        ends = activated(self.model, layers)
        return [ends[id(layer)] for layer in layers]

    def measure(self, form: LinearForm, layer: keras.Layer, calls: list[tuple[Any, Any]]) -> Any:
        return sum(self._size(form, layer, outputs) for _, outputs in calls) / len(calls)

    def matrix(self, mean: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
        groups, features, outputs = shape
        return mean.reshape(groups, 1, outputs) / features

    def _size(self, form: LinearForm, layer: keras.Layer, outputs: Any) -> Any:
        """The measure of each output channel; they lie along the last axes, in the order of the kernel."""
        ops = keras.ops
        outputs = ops.moveaxis(outputs, channel_axis(form.layer), -1)
        groups, _, channels = form.shape
        flat = ops.reshape(ops.cast(outputs, "float32"), (-1, groups * channels))
        measure = getattr(self.criterion, "measure", "mean")
        if measure == "nonzero":
            present = ops.not_equal(flat, 0) if has_activation(layer) else flat > 0
            return ops.mean(ops.cast(present, "float32"), axis=0)
        if measure == "percentile":
            return ops.quantile(ops.abs(flat), getattr(self.criterion, "percentile", 90.0) / 100.0, axis=0)
        return ops.mean(ops.abs(flat), axis=0)


class PathFlow(Statistic):
    """The gradient of the sum of outputs, for an input of ones and absolute weights."""

    name = "synaptic_flow"
    reads_data = False

    def finish(self, means: list[np.ndarray]) -> list[np.ndarray]:
        import tensorflow as tf

        model = self.model
        if not getattr(model, "inputs", None):
            raise PruningError(f"SynapticFlow needs to know the inputs of '{model.name}'; write it as keras.Model.")
        ones = [tf.ones([size or 1 for size in tensor.shape], tensor.dtype) for tensor in model.inputs]
        for place in places(model):
            if getattr(place.layer, "activation", None) is keras.activations.softmax:
                place.layer.activation = keras.activations.linear  # the sum of a softmax is 1, whatever flows into it
        for weight in every_weight(model):
            weight.variable.assign(np.abs(weight.variable))
        variables = [weight.variable.value for weight in self.weights]
        with tf.GradientTape() as tape:
            tape.watch(variables)
            outputs = model(ones[0] if len(ones) == 1 else ones, training=False)
            total = tf.add_n([tf.reduce_sum(output) for output in keras.tree.flatten(outputs)])
        return [np.asarray(gradient, np.float32) for gradient in slopes(tape, total, variables)]


class WeightMovement(TrainingStatistic):
    """The sum over all steps of minus weight times gradient: how far the loss pushes an entry away from zero."""

    name = "movement"

    @staticmethod
    def update(state: Any, gradient: Any, value: Any) -> Any:
        return state - value * gradient
